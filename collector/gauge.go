// SPDX-License-Identifier: Apache-2.0

package collector

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"

	"github.com/operator-store/operator_store_exporter/internal/bucketwindow"
	"github.com/operator-store/operator_store_exporter/internal/promqlexpr"
)

// Gauge is one number that the exporter tells of each store.
type Gauge struct {
	Name       string
	Help       string
	AbsentWhen string // For a store that upstream could be asked about.
	value      value
}

// Gauges are the store gauges, in the order of the documentation. To add a gauge is to add a row.
var Gauges = []Gauge{
	{
		"operator_store_up", "Whether upstream's last scrape of the store succeeded; 0 too for a configured store that upstream does not know.",
		"upstream could not be asked", up,
	},
	{
		"operator_store_qps", "Storage commands per second.",
		"no series", sample(queryStorageCommands),
	},
	{
		"operator_store_grpc_qps", "gRPC messages of all types per second.",
		"no series", count(queryGRPCDuration),
	},
	{
		"operator_store_latency_p95_seconds", "95th percentile of the duration of gRPC messages, all types merged.",
		"no request in the rate window", quantile(0.95, queryGRPCDuration),
	},
	{
		"operator_store_latency_p99_seconds", "99th percentile of the duration of gRPC messages, all types merged.",
		"no request in the rate window", quantile(0.99, queryGRPCDuration),
	},
	{
		"operator_store_disk_used_bytes", "Bytes that TiKV's engine uses on disk.",
		"no series (TiKV before 5.4)", typed(queryStoreSize, "used"),
	},
	{
		"operator_store_disk_available_bytes", "Bytes available to TiKV on its disk.",
		"no series", typed(queryStoreSize, "available"),
	},
	{
		"operator_store_disk_total_bytes", "Capacity of TiKV's disk in bytes.",
		"no series", typed(queryStoreSize, "capacity"),
	},
	{
		"operator_store_disk_utilization_ratio", "Used bytes as a share of the capacity.",
		"used or total is absent, or total is not above 0", ratio("operator_store_disk_used_bytes", "operator_store_disk_total_bytes"),
	},
	{
		"operator_store_disk_fill_ratio", "Share of the capacity that is not available, whoever uses it.",
		"available or total is absent, or total is not above 0", complement(ratio("operator_store_disk_available_bytes", "operator_store_disk_total_bytes")),
	},
	{
		"operator_store_cpu_percent", "CPU use of the TiKV process in percent of one core; it may pass 100.",
		"no series", scaled(100, sample(queryCPUSeconds)),
	},
	{
		"operator_store_cpu_cores", "CPU cores that the TiKV process may use.",
		"no series (TiKV before 5.0)", sample(queryCPUQuota),
	},
	{
		"operator_store_raft_lag", "99th percentile of the log entries by which followers lag behind this store's leaders; 1.98 means none.",
		"no observation in the rate window", quantile(0.99, queryRaftLogLag),
	},
	{
		"operator_store_last_scrape_timestamp_seconds", "When upstream last scraped the store, as a Unix time.",
		"no series", sample(queryLastScrape),
	},
}

// A value is where a gauge's number comes from.
type value struct {
	queries []*Query // Whose answers it is taken from.
	gauges  []string // The gauges that it is derived from.
	// take takes the number from what is known of one store, and tells whether it is there.
	take func(row) (float64, bool)
	// rule is PromQL of the same number for all targets, with W for the rate window.
	rule func(*table) string
}

// row is what the gauges of one store are taken from: what upstream said of it, and the gauges before them in the table.
type row struct {
	said
	table  *table
	values []float64 // NaN is absent.
}

// gauge is one that stands before.
func (r row) gauge(name string) (float64, bool) {
	v := r.values[r.table.index[name]]
	return v, !math.IsNaN(v)
}

// said is what upstream said of one store at the scrape's instant: an answer a query, none where the
// query failed.
type said map[*Query]answer

// twins describes the targets that share the store's identity, and is empty where there is but one.
func (s said) twins() string {
	for q, a := range s {
		if q.grouped || len(a.series) < 2 {
			continue
		}
		targets := make([]string, len(a.series))
		for i, sample := range a.series {
			targets[i] = sample.Metric.String()
		}
		slices.Sort(targets)
		return strings.Join(targets, " and ")
	}
	return ""
}

// An answer is the part of a query's result that is about one store; it may be empty.
type answer struct {
	series    []promql.Sample
	histogram bucketwindow.Histogram // What the series are, if they are buckets.
}

// up is upstream's own up. A target without one is not scraped any more, unless its series are
// fresh: then it was not upstream who scraped it, and upstream can't tell.
var up = value{
	queries: []*Query{queryUp, queryLastScrape},
	take: func(r row) (float64, bool) {
		a, asked := r.said[queryUp]
		switch {
		case !asked:
			return 0, false
		case len(a.series) > 0:
			return a.series[0].F, true
		default:
			last, known := r.said[queryLastScrape]
			return 0, known && len(last.series) == 0
		}
	},
	rule: func(*table) string { return "up" },
}

// of is a value taken from one query's answer.
func of(q *Query, rule string, take func(answer) (float64, bool)) value {
	return value{
		queries: []*Query{q},
		take:    func(r row) (float64, bool) { return take(r.said[q]) },
		rule:    func(*table) string { return rule },
	}
}

// sample is the one series of a query that has one a target.
func sample(q *Query) value {
	return of(q, q.Expr, func(a answer) (float64, bool) {
		if len(a.series) == 1 {
			return a.series[0].F, true
		}
		return 0, false
	})
}

// typed is the series of a query that has the label type.
func typed(q *Query, name string) value {
	return of(q, only(q, "type", name), func(a answer) (float64, bool) {
		for _, sample := range a.series {
			if sample.Metric.Get("type") == name {
				return sample.F, true
			}
		}
		return 0, false
	})
}

// quantile is what PromQL's histogram_quantile says of a query's buckets.
func quantile(phi float64, q *Query) value {
	q.quantiles = append(q.quantiles, phi)
	// Without observations it is NaN, which the comparison leaves out.
	return of(q, fmt.Sprintf("histogram_quantile(%g, %s) >= 0", phi, q.Expr), func(a answer) (float64, bool) {
		if a.histogram.Layout() == nil {
			return 0, false
		}
		v, _, ok := a.histogram.Quantile(phi)
		return v, ok
	})
}

// count is the rate of observations: the +Inf bucket.
func count(q *Query) value {
	return of(q, only(q, model.BucketLabel, "+Inf"), func(a answer) (float64, bool) {
		if a.histogram.Layout() == nil {
			return 0, false
		}
		return a.histogram.Count(), true
	})
}

// ratio is one gauge divided by another that is above 0.
func ratio(numerator, denominator string) value {
	return value{
		gauges: []string{numerator, denominator},
		take: func(r row) (float64, bool) {
			n, ok := r.gauge(numerator)
			d, okD := r.gauge(denominator)
			return n / d, ok && okD && d > 0
		},
		rule: func(t *table) string {
			return fmt.Sprintf("(%s) / ((%s) > 0)", t.gauge(numerator).value.rule(t), t.gauge(denominator).value.rule(t))
		},
	}
}

func complement(of value) value {
	return of.then("1 - %s", func(v float64) float64 { return 1 - v })
}

func scaled(factor float64, of value) value {
	return of.then(fmt.Sprintf("%g * %%s", factor), func(v float64) float64 { return factor * v })
}

// then is v with something done to the number, in PromQL too.
func (v value) then(rule string, do func(float64) float64) value {
	return value{
		queries: v.queries, gauges: v.gauges,
		take: func(r row) (float64, bool) {
			n, ok := v.take(r)
			return do(n), ok
		},
		rule: func(t *table) string { return fmt.Sprintf(rule, v.rule(t)) },
	}
}

// only is a query's expression for the series with one value of a label, by which it groups no more.
func only(q *Query, label, labelValue string) string {
	const window = "[1m]" // The parser wants one.
	e := promqlexpr.MustParse(strings.ReplaceAll(q.Expr, "[W]", window)).Only(labels.MustNewMatcher(labels.MatchEqual, label, labelValue))
	return strings.ReplaceAll(e.String(), window, "[W]")
}
