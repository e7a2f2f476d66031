// SPDX-License-Identifier: Apache-2.0

package collector

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/operator-store/operator_store_exporter/internal/httpclient"
)

// The exporter's own metrics about one scrape.
var (
	descUpstreamUp = prometheus.NewDesc("operator_store_exporter_upstream_up",
		"Whether every query of this scrape succeeded, PD left aside.", []string{"cluster"}, nil)
	descQuerySuccess = prometheus.NewDesc("operator_store_exporter_query_success",
		"Whether the query succeeded on this scrape, or the last time it was asked in the background.", []string{"cluster", "query"}, nil)
	descQueryDuration = prometheus.NewDesc("operator_store_exporter_query_duration_seconds",
		"How long the query took.", []string{"cluster", "query"}, nil)
	descInstant = prometheus.NewDesc("operator_store_exporter_evaluation_timestamp_seconds",
		"The instant at which all queries of this scrape were evaluated, on upstream's clock, as a Unix time.", []string{"cluster"}, nil)
	descStores = prometheus.NewDesc("operator_store_exporter_stores",
		"Stores known on this scrape.", []string{"cluster"}, nil)
	descStoresTold = prometheus.NewDesc("operator_store_exporter_stores_timestamp_seconds",
		"When PD last told the stores that are in use, as a Unix time.", []string{"cluster"}, nil)

	descServing = prometheus.NewDesc("operator_store_exporter_upstream_serving",
		"Whether the server is the one that answers: of several, the next is asked where one fails.", []string{"cluster", "url"}, nil)
	descQueued = prometheus.NewDesc("operator_store_exporter_queries_queued_total",
		"Requests to upstream that waited because concurrency_limit others were under way.", []string{"cluster"}, nil)

	selfDescs = []*prometheus.Desc{
		descUpstreamUp, descQuerySuccess, descQueryDuration, descInstant, descStores, descStoresTold, descServing, descQueued,
	}
)

func (r *round) collectSelf(ch chan<- prometheus.Metric) {
	for _, q := range r.queries {
		success := 1.0
		if len(q.failures) > 0 {
			success = 0
		}
		ch <- gauge(descQuerySuccess, success, r.cluster, q.name)
		ch <- gauge(descQueryDuration, q.duration.Seconds(), r.cluster, q.name)
	}
	up := 0.0
	if r.up() {
		up = 1
	}
	ch <- gauge(descUpstreamUp, up, r.cluster)
	for _, url := range r.servers {
		serving := 0.0
		if url == r.serving {
			serving = 1
		}
		ch <- gauge(descServing, serving, r.cluster, url)
	}
	ch <- prometheus.MustNewConstMetric(descQueued, prometheus.CounterValue, float64(r.queued), r.cluster)
	if !r.instant.IsZero() {
		ch <- gauge(descInstant, float64(r.instant.UnixMilli())/1000, r.cluster)
	}
	if !r.storesTold.IsZero() {
		ch <- gauge(descStoresTold, float64(r.storesTold.UnixMilli())/1000, r.cluster)
	}
	if r.storesKnown {
		ch <- gauge(descStores, float64(len(r.stores)), r.cluster)
	}
}

// up tells whether every query succeeded. PD is not upstream.
func (r *round) up() bool {
	return !slices.ContainsFunc(r.queries, func(q queryReport) bool { return len(q.failures) > 0 && q.name != queryPD.Name })
}

// failures counts the queries that failed, from the start of the process on: a reload goes on counting.
type failures struct{ vec *prometheus.CounterVec }

func newFailures() *failures {
	return &failures{prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "operator_store_exporter_query_failures_total",
		Help: "Queries that failed; the reason ambiguous counts stores whose series can't be told from another's.",
	}, []string{"cluster", "query", "reason"})}
}

// collect sends the counters of one cluster, those at zero too: a rate needs them.
func (f *failures) collect(ch chan<- prometheus.Metric, cluster string, queries []*Query) {
	for _, q := range queries {
		for _, reason := range httpclient.Reasons() {
			if (reason == httpclient.ReasonAmbiguous) && q != queryTargets {
				continue // Only the matching of targets to stores can be that.
			}
			ch <- f.of(cluster, q, reason)
		}
	}
}

func (f *failures) of(cluster string, q *Query, reason httpclient.Reason) prometheus.Counter {
	return f.vec.WithLabelValues(cluster, q.Name, string(reason))
}
