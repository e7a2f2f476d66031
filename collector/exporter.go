// SPDX-License-Identifier: Apache-2.0

// Package collector collects the gauges of TiKV stores from Prometheus-compatible upstreams.
//
// An Exporter is a prometheus.Collector that queries upstream whenever it is collected. A scrape of
// a cluster goes through these steps, see cluster.scrape: discovery returns the stores with their
// targets, the queries of the gauge catalog are evaluated at one time, and their results are
// assembled into the values of each store.
package collector

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/go-kit/log"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/operator-store/operator_store_exporter/config"
	"github.com/operator-store/operator_store_exporter/internal/discovery"
	"github.com/operator-store/operator_store_exporter/internal/pd"
	"github.com/operator-store/operator_store_exporter/internal/promapi"
	"github.com/operator-store/operator_store_exporter/internal/report"
)

// Options are the settings that are not part of the configuration file.
type Options struct {
	Lookback time.Duration // How long a store is known after upstream last had samples of it. Default: 1h.
	Interval time.Duration // Store discovery interval. Default: 30s.
	Logger   log.Logger    // Default: no logging.
	// Previous is the exporter that this one replaces. Its counters continue, and what it knows
	// about clusters that did not change is kept. It may be nil.
	Previous *Exporter

	connect   func(config.Upstream) (upstream, error)
	connectPD func(config.PD) (discovery.PD, error)
}

// Defaults of Options.
const (
	DefaultLookback = time.Hour
	DefaultInterval = 30 * time.Second
)

func (o Options) withDefaults() Options {
	if o.Lookback == 0 {
		o.Lookback = DefaultLookback
	}
	if o.Interval == 0 {
		o.Interval = DefaultInterval
	}
	if o.Logger == nil {
		o.Logger = log.NewNopLogger()
	}
	if o.connect == nil {
		o.connect = func(u config.Upstream) (upstream, error) { return promapi.New(u) }
	}
	if o.connectPD == nil {
		o.connectPD = func(p config.PD) (discovery.PD, error) { return pd.New(p) }
	}

	return o
}

// An Exporter collects the gauges of the clusters of one configuration. It is a
// prometheus.Collector that queries upstream whenever it is collected. It is safe for concurrent
// use.
type Exporter struct {
	config   *config.Config
	clusters []*cluster
	failures *failureCounter
}

var _ prometheus.Collector = (*Exporter)(nil)

// New returns an exporter for cfg, which must not be modified afterwards. Nothing is queried until
// the first scrape. The error names the cluster whose upstream, PD or metrics cannot be set up.
func New(cfg *config.Config, opts Options) (*Exporter, error) {
	opts = opts.withDefaults()
	e := &Exporter{config: cfg, failures: newFailureCounter()}
	if opts.Previous != nil {
		e.failures = opts.Previous.failures
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

// inherit returns the discovery results of the exporter before a reload, except those from a source
// that the reload changed. Without them, the first scrape after a reload would have to wait for
// discovery, and stores could be matched to other targets.
func (c *cluster) inherit(previous *Exporter, lookback time.Duration) *discovery.State {
	i := slices.IndexFunc(previous.clusters, func(p *cluster) bool { return p.config.Name == c.config.Name })
	if i < 0 {
		return nil
	}

	p := previous.clusters[i]
	c.queuedBefore = p.queued()
	samePD := reflect.DeepEqual(p.config.PD, c.config.PD)
	sameUpstream := reflect.DeepEqual(p.config.Upstream, c.config.Upstream) &&
		fmt.Sprint(p.config.Selector) == fmt.Sprint(c.config.Selector) && p.lookback == lookback

	return c.discovery.Inherit(p.refresher.Last(), sameUpstream, samePD)
}

// Close cancels discovery in the background and closes idle connections. Scrapes in progress
// finish.
func (e *Exporter) Close() {
	for _, c := range e.clusters {
		c.close()
	}
}

// Config returns the configuration.
func (e *Exporter) Config() *config.Config { return e.config }

// Clusters returns the names of the clusters, in the order of the configuration.
func (e *Exporter) Clusters() []string {
	names := make([]string, len(e.clusters))
	for i, c := range e.clusters {
		names[i] = c.config.Name
	}

	return names
}

// Scrape queries upstream for the named clusters concurrently, for all clusters if none is named.
// It returns what has arrived by ctx's deadline. The error says which cluster does not exist;
// failures of upstream are part of the result.
func (e *Exporter) Scrape(ctx context.Context, names ...string) (*Scrape, error) {
	clusters, err := e.named(names)
	if err != nil {
		return nil, err
	}

	return e.scrapeClusters(ctx, clusters), nil
}

func (e *Exporter) scrapeClusters(ctx context.Context, clusters []*cluster) *Scrape {
	s := &Scrape{results: make([]*report.Report, len(clusters)), clusters: clusters, failures: e.failures}
	var group sync.WaitGroup
	for i, c := range clusters {
		group.Go(func() { s.results[i] = c.scrape(ctx) })
	}
	group.Wait()

	return s
}

// externalURLTimeout bounds the request for upstream's external URL. Links are not worth waiting
// longer.
const externalURLTimeout = 500 * time.Millisecond

// Report scrapes like Scrape and returns the result for people, with the URLs of upstream's own
// pages.
func (e *Exporter) Report(ctx context.Context, names ...string) ([]report.Report, error) {
	clusters, err := e.named(names)
	if err != nil {
		return nil, err
	}

	short, cancel := context.WithTimeout(ctx, externalURLTimeout)
	defer cancel()

	urls := make([]string, len(clusters))
	var group sync.WaitGroup
	for i, c := range clusters {
		group.Go(func() { urls[i], _ = c.upstream.ExternalURL(short) }) // On errors, the servers' own URLs are used.
	}
	scrape, err := e.Scrape(ctx, names...)
	group.Wait()
	if err != nil {
		return nil, err
	}

	reports := scrape.Reports()
	for i, r := range reports { // A cluster whose scrape was canceled has none.
		n := slices.IndexFunc(clusters, func(c *cluster) bool { return c.config.Name == r.Cluster })
		reports[i].ExternalURL = urls[n]
	}

	return reports, nil
}

// named returns the clusters with the given names, all clusters if there are none.
func (e *Exporter) named(names []string) ([]*cluster, error) {
	if len(names) == 0 {
		return e.clusters, nil
	}

	var clusters []*cluster
	for _, name := range slices.Compact(slices.Sorted(slices.Values(names))) {
		i := slices.IndexFunc(e.clusters, func(c *cluster) bool { return c.config.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("unknown cluster %q: the clusters are %q", name, e.Clusters())
		}
		clusters = append(clusters, e.clusters[i])
	}

	return clusters, nil
}
