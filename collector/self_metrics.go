// SPDX-License-Identifier: Apache-2.0

package collector

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/operator-store/operator_store_exporter/internal/gauge"
	"github.com/operator-store/operator_store_exporter/internal/httpclient"
	"github.com/operator-store/operator_store_exporter/internal/report"
)

// The exporter's own metrics about one scrape.
var (
	descUpstreamUp = newSelfDesc("upstream_up",
		"Whether every query of this scrape succeeded and was complete, not counting requests to PD.")
	descQuerySuccess = newSelfDesc("query_success",
		"Whether the query succeeded on this scrape or, for a discovery query, the last time it ran.", "query")
	descQueryDuration = newSelfDesc("query_duration_seconds",
		"Duration of the query.", "query")
	descEvaluationTime = newSelfDesc("evaluation_timestamp_seconds",
		"Unix time at which upstream evaluated all queries of this scrape, by upstream's clock.")
	descRateWindow = newSelfDesc("rate_window_seconds",
		"Window of all rates on this scrape.")
	descStores = newSelfDesc("stores",
		"Stores known on this scrape.")
	descStoresTime = newSelfDesc("stores_timestamp_seconds",
		"Unix time at which PD last returned the stores in use.")
	descServing = newSelfDesc("upstream_serving",
		"Whether this upstream server is currently in use.", "url")
	descQueued = newSelfDesc("queries_queued_total",
		"Requests to upstream that waited because concurrency_limit other requests were running.")

	selfDescs = []*prometheus.Desc{
		descUpstreamUp, descQuerySuccess, descQueryDuration, descEvaluationTime, descRateWindow,
		descStores, descStoresTime, descServing, descQueued,
	}
)

func newSelfDesc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("operator_store_exporter_"+name, help, append([]string{"cluster"}, labels...), nil)
}

func collectSelf(ch chan<- prometheus.Metric, r *report.Report) {
	for _, q := range r.Queries {
		ch <- newGauge(descQuerySuccess, boolValue(!q.Failed()), r.Cluster, q.Name)
		ch <- newGauge(descQueryDuration, q.Duration.Seconds(), r.Cluster, q.Name)
	}
	ch <- newGauge(descUpstreamUp, boolValue(r.UpstreamUp), r.Cluster)

	for _, url := range r.Servers {
		ch <- newGauge(descServing, boolValue(url == r.ActiveServer), r.Cluster, url)
	}
	ch <- prometheus.MustNewConstMetric(descQueued, prometheus.CounterValue, float64(r.QueuedTotal), r.Cluster)

	if !r.EvaluatedAt.IsZero() {
		ch <- newGauge(descEvaluationTime, float64(r.EvaluatedAt.UnixMilli())/1000, r.Cluster)
	}
	if r.RateWindow > 0 {
		ch <- newGauge(descRateWindow, r.RateWindow.Seconds(), r.Cluster)
	}
	if !r.PDTime.IsZero() {
		ch <- newGauge(descStoresTime, float64(r.PDTime.UnixMilli())/1000, r.Cluster)
	}
	if r.StoresKnown {
		ch <- newGauge(descStores, float64(len(r.Stores)), r.Cluster)
	}
}

func boolValue(b bool) float64 {
	if b {
		return 1
	}

	return 0
}

// failureCounter counts failed queries since the start of the process. It survives reloads.
type failureCounter struct{ *prometheus.CounterVec }

func newFailureCounter() *failureCounter {
	return &failureCounter{prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "operator_store_exporter_query_failures_total",
		Help: "Failed queries by reason. The reason ambiguous counts stores that more than one target matches.",
	}, []string{"cluster", "query", "reason"})}
}

// collect sends the counters of one cluster, including those at zero, because a rate needs them.
func (f *failureCounter) collect(ch chan<- prometheus.Metric, cluster string, queries []*gauge.Query) {
	for _, q := range queries {
		for _, reason := range httpclient.Reasons() {
			ch <- f.of(cluster, q, reason)
		}
	}
	ch <- f.of(cluster, gauge.QueryTargets, report.ReasonAmbiguous) // Only matching stores to targets can be ambiguous.
}

func (f *failureCounter) of(cluster string, q *gauge.Query, reason httpclient.Reason) prometheus.Counter {
	return f.WithLabelValues(cluster, q.Name, string(reason))
}
