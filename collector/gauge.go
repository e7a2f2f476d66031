// SPDX-License-Identifier: Apache-2.0

package collector

import (
	"slices"
	"strings"

	"github.com/prometheus/prometheus/promql"

	"github.com/operator-store/operator_store_exporter/histogram"
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
		"no series (TiKV before 5.4)", diskUsed,
	},
	{
		"operator_store_disk_available_bytes", "Bytes available to TiKV on its disk.",
		"no series", diskAvailable,
	},
	{
		"operator_store_disk_total_bytes", "Capacity of TiKV's disk in bytes.",
		"no series", diskTotal,
	},
	{
		"operator_store_disk_utilization_ratio", "Used bytes as a share of the capacity.",
		"used or total is absent, or total is not above 0", ratio(diskUsed, diskTotal),
	},
	{
		"operator_store_disk_fill_ratio", "Share of the capacity that is not available, whoever uses it.",
		"available or total is absent, or total is not above 0", complement(ratio(diskAvailable, diskTotal)),
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

// The sizes of a store's disk, as types of one metric.
var (
	diskUsed      = typed(queryStoreSize, "used")
	diskAvailable = typed(queryStoreSize, "available")
	diskTotal     = typed(queryStoreSize, "capacity")
)

// A value takes one gauge's number from what upstream said of one store, and tells whether it is
// there.
type value func(said) (float64, bool)

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
	histogram histogram.Histogram // What the series are, if they are buckets.
}

// up is upstream's own up. A target without one is not scraped any more, unless its series are
// fresh: then it was not upstream who scraped it, and upstream can't tell.
func up(s said) (float64, bool) {
	a, asked := s[queryUp]
	switch {
	case !asked:
		return 0, false
	case len(a.series) > 0:
		return a.series[0].F, true
	default:
		last, known := s[queryLastScrape]
		return 0, known && len(last.series) == 0
	}
}

// sample is the one series of a query that has one a target.
func sample(q *Query) value {
	return func(s said) (float64, bool) {
		if a := s[q].series; len(a) == 1 {
			return a[0].F, true
		}
		return 0, false
	}
}

// typed is the series of a query that has the label type.
func typed(q *Query, name string) value {
	return func(s said) (float64, bool) {
		for _, sample := range s[q].series {
			if sample.Metric.Get("type") == name {
				return sample.F, true
			}
		}
		return 0, false
	}
}

// quantile is what PromQL's histogram_quantile says of a query's buckets.
func quantile(phi float64, q *Query) value {
	q.quantiles = append(q.quantiles, phi)
	return func(s said) (float64, bool) {
		h := s[q].histogram
		if h.Layout() == nil {
			return 0, false
		}
		v, _, ok := h.Quantile(phi)
		return v, ok
	}
}

// count is the rate of observations: the +Inf bucket.
func count(q *Query) value {
	return func(s said) (float64, bool) {
		h := s[q].histogram
		if h.Layout() == nil {
			return 0, false
		}
		return h.Count(), true
	}
}

func ratio(numerator, denominator value) value {
	return func(s said) (float64, bool) {
		n, ok := numerator(s)
		d, okD := denominator(s)
		return n / d, ok && okD && d > 0
	}
}

func complement(of value) value {
	return func(s said) (float64, bool) {
		v, ok := of(s)
		return 1 - v, ok
	}
}

func scaled(factor float64, of value) value {
	return func(s said) (float64, bool) {
		v, ok := of(s)
		return factor * v, ok
	}
}
