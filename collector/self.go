// SPDX-License-Identifier: Apache-2.0

package collector

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/operator-store/operator_store_exporter/upstream"
)

// The exporter's own metrics about one scrape.
var (
	descUpstreamUp = prometheus.NewDesc("operator_store_exporter_upstream_up",
		"Whether every query of this scrape succeeded.", []string{"cluster"}, nil)
	descQuerySuccess = prometheus.NewDesc("operator_store_exporter_query_success",
		"Whether the query succeeded on this scrape.", []string{"cluster", "query"}, nil)
	descQueryDuration = prometheus.NewDesc("operator_store_exporter_query_duration_seconds",
		"How long the query took on this scrape.", []string{"cluster", "query"}, nil)
	descInstant = prometheus.NewDesc("operator_store_exporter_evaluation_timestamp_seconds",
		"The instant at which all queries of this scrape were evaluated, on upstream's clock, as a Unix time.", []string{"cluster"}, nil)
	descStores = prometheus.NewDesc("operator_store_exporter_stores",
		"Stores known on this scrape.", []string{"cluster"}, nil)

	selfDescs = []*prometheus.Desc{descUpstreamUp, descQuerySuccess, descQueryDuration, descInstant, descStores}
)

func (r *round) collectSelf(ch chan<- prometheus.Metric) {
	up := 1.0
	for _, q := range r.queries {
		success := 1.0
		if len(q.failures) > 0 {
			success, up = 0, 0
		}
		ch <- gauge(descQuerySuccess, success, r.cluster, q.name)
		ch <- gauge(descQueryDuration, q.duration.Seconds(), r.cluster, q.name)
	}
	ch <- gauge(descUpstreamUp, up, r.cluster)
	if !r.instant.IsZero() {
		ch <- gauge(descInstant, float64(r.instant.UnixMilli())/1000, r.cluster)
	}
	ch <- gauge(descStores, float64(len(r.stores)), r.cluster)
}

// failures counts the queries that failed, from the start of the process on: a reload goes on counting.
type failures struct{ vec *prometheus.CounterVec }

func newFailures() *failures {
	return &failures{prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "operator_store_exporter_query_failures_total",
		Help: "Queries that failed; the reason ambiguous counts stores whose series can't be told from another's.",
	}, []string{"cluster", "query", "reason"})}
}

// count adds the failures of a round.
func (f *failures) count(r *round) {
	for _, q := range r.queries {
		for _, reason := range q.failures {
			f.of(r.cluster, q.name, reason).Inc()
		}
	}
	f.of(r.cluster, queryTargets.Name, upstream.ReasonAmbiguous).Add(float64(r.ambiguities))
}

// collect sends the counters of one cluster, those at zero too: a rate needs them.
func (f *failures) collect(ch chan<- prometheus.Metric, cluster string) {
	for _, q := range allQueries {
		for _, reason := range upstream.Reasons() {
			if (reason == upstream.ReasonAmbiguous) && q != queryTargets {
				continue // Only the matching of targets to stores can be that.
			}
			ch <- f.of(cluster, q.Name, reason)
		}
	}
}

func (f *failures) of(cluster, query string, reason upstream.Reason) prometheus.Counter {
	return f.vec.WithLabelValues(cluster, query, string(reason))
}
