// SPDX-License-Identifier: Apache-2.0

package collector

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/operator-store/operator_store_exporter/internal/gauge"
	"github.com/operator-store/operator_store_exporter/internal/report"
)

// collectTimeout bounds a scrape by Exporter.Collect, which has no context: the default scrape
// timeout of Prometheus less the default of --scrape.timeout-offset.
const collectTimeout = 9500 * time.Millisecond

// Describe implements prometheus.Collector.
func (e *Exporter) Describe(ch chan<- *prometheus.Desc) { describe(ch, e.clusters, e.failures) }

// Collect implements prometheus.Collector. It scrapes all clusters, for at most 9.5 s. Use Bind if
// there is a context.
func (e *Exporter) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), collectTimeout)
	defer cancel()
	(&boundCollector{exporter: e, ctx: ctx, clusters: e.clusters}).Collect(ch)
}

// Bind returns a collector that scrapes the named clusters within ctx, all clusters if none is
// named. The error says which cluster does not exist.
func (e *Exporter) Bind(ctx context.Context, names ...string) (prometheus.Collector, error) {
	clusters, err := e.named(names)
	if err != nil {
		return nil, err
	}

	return &boundCollector{exporter: e, ctx: ctx, clusters: clusters}, nil
}

// boundCollector is an exporter that is bound to the context of one scrape and to some clusters.
type boundCollector struct {
	exporter *Exporter
	ctx      context.Context //nolint:containedctx // prometheus.Collector has no parameter for it.
	clusters []*cluster
}

// Describe implements prometheus.Collector.
func (b *boundCollector) Describe(ch chan<- *prometheus.Desc) {
	describe(ch, b.clusters, b.exporter.failures)
}

// Collect implements prometheus.Collector.
func (b *boundCollector) Collect(ch chan<- prometheus.Metric) {
	b.exporter.scrapeClusters(b.ctx, b.clusters).Collect(ch)
}

// A Scrape is the finished scrape of some clusters. As a prometheus.Collector it neither waits nor
// fails.
type Scrape struct {
	results  []*report.Report // Nil for clusters whose scrape was canceled.
	clusters []*cluster
	failures *failureCounter
}

var _ prometheus.Collector = (*Scrape)(nil)

// Reports returns the result for people, one report per cluster in the order of the configuration.
// Clusters whose scrape was canceled have none.
func (s *Scrape) Reports() []report.Report {
	var reports []report.Report
	for _, r := range s.results {
		if r != nil {
			reports = append(reports, *r)
		}
	}

	return reports
}

var storeLabels = []string{"cluster", "store_id", "address"}

var descInfo = prometheus.NewDesc("operator_store_info",
	"Target that upstream scrapes for the store; the value is always 1.",
	append(slices.Clone(storeLabels), "upstream_instance", "upstream_job"), nil)

// newDescs returns the descriptions of the gauges of a catalog, in their order.
func newDescs(catalog *gauge.Catalog) []*prometheus.Desc {
	gauges := catalog.Gauges()
	descs := make([]*prometheus.Desc, len(gauges))
	for i, g := range gauges {
		descs[i] = prometheus.NewDesc(g.Name, g.Help, storeLabels, nil)
	}

	return descs
}

func describe(ch chan<- *prometheus.Desc, clusters []*cluster, failures *failureCounter) {
	for _, c := range clusters {
		for _, d := range c.descs {
			ch <- d
		}
	}
	ch <- descInfo

	for _, d := range selfDescs {
		ch <- d
	}
	failures.Describe(ch)
}

// Describe implements prometheus.Collector.
func (s *Scrape) Describe(ch chan<- *prometheus.Desc) { describe(ch, s.clusters, s.failures) }

// Collect implements prometheus.Collector.
func (s *Scrape) Collect(ch chan<- prometheus.Metric) {
	for i, r := range s.results {
		if r == nil {
			continue
		}

		for _, store := range r.Stores {
			collectStore(ch, r.Cluster, store, s.clusters[i].descs)
		}
		collectSelf(ch, r)
		s.failures.collect(ch, r.Cluster, s.clusters[i].catalog.ReportedQueries())
	}
}

func collectStore(ch chan<- prometheus.Metric, cluster string, s report.Store, descs []*prometheus.Desc) {
	if t, ok := s.Match.Target(); ok {
		ch <- newGauge(descInfo, 1, cluster, s.ID, s.Address, t.Instance, t.Job)
	}

	// All gauges of a store share their labels, which are most of the work.
	labels := prometheus.MakeLabelPairs(descs[0], toValidUTF8(cluster, s.ID, s.Address))
	for i, cell := range s.Cells {
		if cell.OK {
			ch <- storeGauge{descs[i], labels, cell.V}
		}
	}
}

// storeGauge is the gauge of a store.
type storeGauge struct {
	desc   *prometheus.Desc
	labels []*dto.LabelPair
	value  float64
}

// Desc implements prometheus.Metric.
func (g storeGauge) Desc() *prometheus.Desc { return g.desc }

// Write implements prometheus.Metric.
func (g storeGauge) Write(out *dto.Metric) error {
	out.Label, out.Gauge = g.labels, &dto.Gauge{Value: &g.value}

	return nil
}

func newGauge(desc *prometheus.Desc, v float64, labelValues ...string) prometheus.Metric {
	return prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, v, toValidUTF8(labelValues...)...)
}

// toValidUTF8 makes label values valid, whatever upstream returned.
func toValidUTF8(labelValues ...string) []string {
	for i, l := range labelValues {
		labelValues[i] = strings.ToValidUTF8(l, "\uFFFD")
	}

	return labelValues
}
