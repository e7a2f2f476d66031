// SPDX-License-Identifier: Apache-2.0

// Package collector asks upstream about stores and exposes the answers as Prometheus metrics.
//
// A scrape of a cluster is a round: which stores there are, one query a source metric at one instant,
// the values sorted to the stores, the gauges. Gauges is the table of what is exposed, Query that of what is
// asked.
package collector

import (
	"context"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-kit/log"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/operator-store/operator_store_exporter/config"
	"github.com/operator-store/operator_store_exporter/internal/discovery"
	"github.com/operator-store/operator_store_exporter/internal/pd"
	"github.com/operator-store/operator_store_exporter/internal/promapi"
	"github.com/operator-store/operator_store_exporter/internal/storematch"
)

// Exporter scrapes the clusters of one configuration. It is safe for concurrent use.
type Exporter struct {
	config   *config.Config
	clusters []*cluster
	failures *failures
}

// Options are what a configuration does not say.
type Options struct {
	Lookback time.Duration // How long a store is known after upstream last saw it.
	Interval time.Duration // How often the stores are found out anew.
	Logger   log.Logger
	// Connect and ConnectPD make the clients. They are promapi.New and pd.New where they are nil.
	Connect   func(config.Upstream) (Upstream, error)
	ConnectPD func(config.PD) (PD, error)
	// Previous is the exporter that this one replaces, whose counters go on. It may be nil.
	Previous *Exporter
}

// New returns an exporter of cfg. The error names the cluster whose upstream can't be set up.
func New(cfg *config.Config, opts Options) (*Exporter, error) {
	e := &Exporter{config: cfg, failures: newFailures()}
	if opts.Previous != nil {
		e.failures = opts.Previous.failures
	}
	if opts.Connect == nil {
		opts.Connect = func(u config.Upstream) (Upstream, error) { return promapi.New(u) }
	}
	if opts.ConnectPD == nil {
		opts.ConnectPD = func(p config.PD) (PD, error) { return pd.New(p) }
	}
	for _, c := range cfg.Clusters {
		cluster, err := newCluster(c, e.failures, opts)
		if err != nil {
			e.Close()
			return nil, fmt.Errorf("cluster %q: %w", c.Name, err)
		}
		e.clusters = append(e.clusters, cluster)
	}
	return e, nil
}

func newCluster(c config.Cluster, failures *failures, opts Options) (*cluster, error) {
	var replicas []string
	for _, l := range c.ReplicaLabels {
		replicas = append(replicas, string(l))
	}
	var configured []storematch.Store
	for _, s := range c.Stores {
		configured = append(configured, storematch.Store{ID: string(s.ID), Address: string(s.Address), Instance: s.Instance})
	}
	table, err := newTable(c.Metrics)
	if err != nil {
		return nil, err
	}
	client, err := opts.Connect(c.Upstream)
	if err != nil {
		return nil, err
	}
	timeout := 4 * c.Upstream.Timeout // The time, the targets, which are live and their stores: one after the other.
	var placementDriver PD
	if c.PD != nil {
		if placementDriver, err = opts.ConnectPD(*c.PD); err != nil {
			return nil, err
		}
		timeout += c.PD.Timeout
	}
	planner := newPlanner(table.queries, c.RateWindow.String(), c.Selector, replicas)
	next := &cluster{
		name:     c.Name,
		config:   c,
		upstream: client,
		table:    table,
		replicas: replicas,
		failures: failures,
		logger:   opts.Logger,
		finder: finder{
			discovery:  discovery.New(client, c.Selector, opts.Lookback),
			pd:         placementDriver,
			configured: configured,
			lookback:   opts.Lookback,
			limit:      int(c.StoreLimit),
			planner:    planner,
		},
		windows: newWindows(!c.BucketWindows, int(c.StoresPerQuery), int(c.Upstream.ConcurrencyLimit), planner, time.Duration(c.RateWindow)),
		found:   newBackground(opts.Interval, time.Duration(timeout)),
	}
	if opts.Previous != nil {
		next.inherit(opts.Previous)
	}
	return next, nil
}

// inherit takes over what is known of the cluster from before a reload, as far as the configuration still asks the
// same ones for it: a reload must cost no scrape anything.
func (c *cluster) inherit(previous *Exporter) {
	i := slices.IndexFunc(previous.clusters, func(p *cluster) bool { return p.name == c.name })
	if i < 0 {
		return
	}
	p := previous.clusters[i]
	c.queuedBefore = p.queuedBefore + p.upstream.Queued()
	known := p.found.last()
	if known == nil {
		return
	}
	samePD := reflect.DeepEqual(p.config.PD, c.config.PD)
	sameUpstream := reflect.DeepEqual(p.config.Upstream, c.config.Upstream) && fmt.Sprint(p.config.Selector) == fmt.Sprint(c.config.Selector) &&
		p.finder.lookback == c.finder.lookback
	switch {
	case samePD && sameUpstream && known.usable():
		f := &found{known: true, named: true, targets: known.targets, stores: known.stores, told: known.told, heard: known.heard, results: known.results}
		c.finder.match(f, &found{matches: known.matches})
		c.found.current = f
	case samePD && !known.told.IsZero():
		c.found.current = &found{named: true, stores: known.stores, told: known.told, matches: known.matches}
	}
}

// Close ends what goes on in the background, and closes the connections that are not in use. Scrapes under
// way finish.
func (e *Exporter) Close() {
	for _, c := range e.clusters {
		c.close()
	}
}

// Config is the configuration.
func (e *Exporter) Config() *config.Config { return e.config }

// Clusters returns the names of the clusters, in the order of the configuration.
func (e *Exporter) Clusters() []string {
	names := make([]string, len(e.clusters))
	for i, c := range e.clusters {
		names[i] = c.name
	}
	return names
}

// Scrape asks about the named clusters side by side, about all of them if none is named. It returns
// by ctx's deadline, with what has arrived by then. The error names a cluster that there is not.
func (e *Exporter) Scrape(ctx context.Context, names ...string) (*Collector, error) {
	clusters, err := e.named(names)
	if err != nil {
		return nil, err
	}
	rounds := make([]*round, len(clusters))
	var all sync.WaitGroup
	for i, c := range clusters {
		all.Go(func() { rounds[i] = c.scrape(ctx) })
	}
	all.Wait()
	return &Collector{rounds: rounds, failures: e.failures}, nil
}

// named returns the clusters of those names, all of them if there is none.
func (e *Exporter) named(names []string) ([]*cluster, error) {
	if len(names) == 0 {
		return e.clusters, nil
	}
	var clusters []*cluster
	for _, name := range slices.Compact(slices.Sorted(slices.Values(names))) {
		i := slices.IndexFunc(e.clusters, func(c *cluster) bool { return c.name == name })
		if i < 0 {
			return nil, fmt.Errorf("no cluster %q: there are %q", name, e.Clusters())
		}
		clusters = append(clusters, e.clusters[i])
	}
	return clusters, nil
}

// Collector holds the answers of one scrape. It does not ask: collecting it neither waits nor fails.
type Collector struct {
	rounds   []*round
	failures *failures
}

var _ prometheus.Collector = (*Collector)(nil)

var storeLabels = []string{"cluster", "store_id", "address"}

var descInfo = prometheus.NewDesc("operator_store_info", "The target that was found for the store; 1.",
	append(slices.Clone(storeLabels), "upstream_instance", "upstream_job"), nil)

// Describe implements prometheus.Collector.
func (c *Collector) Describe(ch chan<- *prometheus.Desc) {
	for _, r := range c.rounds {
		if r == nil {
			continue // Nobody listens any more.
		}
		for _, d := range r.table.descs {
			ch <- d
		}
	}
	ch <- descInfo
	for _, d := range selfDescs {
		ch <- d
	}
	c.failures.vec.Describe(ch)
}

// Collect implements prometheus.Collector.
func (c *Collector) Collect(ch chan<- prometheus.Metric) {
	for _, r := range c.rounds {
		if r == nil {
			continue // Nobody listens any more.
		}
		for _, s := range r.stores {
			if t, ok := s.Target(); ok {
				ch <- gauge(descInfo, 1, r.cluster, s.Store.ID, s.Store.Address, t.Instance, t.Job)
			}
			// All gauges of a store have the same labels, which are most of the work.
			labels := prometheus.MakeLabelPairs(r.table.descs[0], valid(r.cluster, s.Store.ID, s.Store.Address))
			for i, v := range s.values {
				if !math.IsNaN(v) {
					ch <- storeGauge{r.table.descs[i], labels, v}
				}
			}
		}
		r.collectSelf(ch)
		c.failures.collect(ch, r.cluster, r.table.reported)
	}
}

// storeGauge is a gauge of a store.
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

func gauge(desc *prometheus.Desc, v float64, labelValues ...string) prometheus.Metric {
	return prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, v, valid(labelValues...)...)
}

// valid makes label values valid, whatever upstream said.
func valid(labelValues ...string) []string {
	for i, l := range labelValues {
		labelValues[i] = strings.ToValidUTF8(l, "�")
	}
	return labelValues
}
