// SPDX-License-Identifier: Apache-2.0

package collector

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"

	"github.com/operator-store/operator_store_exporter/config"
	"github.com/operator-store/operator_store_exporter/internal/bucketwindow"
	"github.com/operator-store/operator_store_exporter/internal/discovery"
	"github.com/operator-store/operator_store_exporter/internal/gauge"
	"github.com/operator-store/operator_store_exporter/internal/httpclient"
	"github.com/operator-store/operator_store_exporter/internal/promapi"
	"github.com/operator-store/operator_store_exporter/internal/promqlexpr"
	"github.com/operator-store/operator_store_exporter/internal/report"
	"github.com/operator-store/operator_store_exporter/internal/scrape"
	"github.com/operator-store/operator_store_exporter/internal/storematch"
)

// upstream is the query API of one cluster. Its errors are of type *httpclient.Error.
type upstream interface {
	// Query evaluates expression at a time, or at upstream's own current time if at is zero.
	Query(ctx context.Context, expression string, at time.Time) (promapi.Result, error)
	// Samples returns the samples of the series that a vector selector matches, within a range
	// before the time at.
	Samples(ctx context.Context, selector promqlexpr.Expr, within time.Duration, at time.Time) (promql.Matrix, error)
	// Series returns the label sets of the series that match any of matchers and had samples
	// between start and end.
	Series(ctx context.Context, matchers []string, start, end time.Time) ([]labels.Labels, error)
	// Now returns upstream's current time, as far as it is known.
	Now() (now time.Time, known bool)
	// Servers returns the URL of the server in use, and those of all servers.
	Servers() (active string, all []string)
	// ExternalURL returns where upstream's own pages are; "" if it does not report that.
	ExternalURL(ctx context.Context) (string, error)
	// Queued counts the requests that have waited because of the concurrency limit.
	Queued() uint64
	// Close closes idle connections.
	Close()
}

// cluster scrapes one TiKV cluster.
type cluster struct {
	config       config.Cluster
	lookback     time.Duration
	upstream     upstream
	catalog      *gauge.Catalog
	descs        []*prometheus.Desc // Of the catalog's gauges.
	failures     *failureCounter
	queuedBefore uint64 // Requests that waited before a reload.

	discovery *discovery.Discovery
	refresher *discovery.Refresher
	sharer    scrape.Sharer[*report.Report]
	problems  problemLog

	mu      sync.Mutex
	planned *discovery.State // The state that queries.plan was made for.
	queries queries
}

// queries is how the cluster is queried for as long as neither its targets nor the rate window
// change.
type queries struct {
	rateWindow time.Duration
	planner    *scrape.Planner
	runner     *scrape.Runner
	plan       *scrape.Plan
}

func newCluster(cfg config.Cluster, failures *failureCounter, opts Options) (*cluster, error) {
	catalog, err := gauge.NewCatalog(cfg.Metrics)
	if err != nil {
		return nil, err
	}
	upstream, err := opts.connect(cfg.Upstream)
	if err != nil {
		return nil, err
	}
	// A refresh sends requests one after another, usually at most eight: for the targets, for which
	// of them are live, two for each of the two histograms, for the scrape interval and for PD's
	// series.
	timeout := 8 * cfg.Upstream.Timeout
	var placementDriver discovery.PD
	if cfg.PD != nil {
		if placementDriver, err = opts.connectPD(*cfg.PD); err != nil {
			return nil, err
		}
		timeout += cfg.PD.Timeout
	}

	c := &cluster{
		config: cfg, lookback: opts.Lookback, upstream: upstream, catalog: catalog, descs: newDescs(catalog),
		failures: failures, problems: problemLog{logger: opts.Logger},
	}
	c.discovery = discovery.New(discovery.Options{
		Upstream:      upstream,
		Selector:      cfg.Selector,
		Lookback:      opts.Lookback,
		PD:            placementDriver,
		Configured:    configuredStores(cfg.Stores),
		StoreLimit:    int(cfg.StoreLimit),
		Histograms:    catalog.Histograms(),
		LearnInterval: cfg.RateWindow == config.RateWindowAuto,
		CountFailure: func(q *gauge.Query, reason httpclient.Reason) {
			failures.of(cfg.Name, q, reason).Inc()
		},
	})
	var initial *discovery.State
	if opts.Previous != nil {
		initial = c.inherit(opts.Previous, opts.Lookback)
	}
	c.refresher = discovery.NewRefresher(c.discovery.Refresh, initial, opts.Interval, time.Duration(timeout))

	return c, nil
}

// newQueries sets up what plans and runs the queries with a rate window.
func (c *cluster) newQueries(rateWindow time.Duration) queries {
	replicaLabels := make([]string, len(c.config.ReplicaLabels))
	for i, l := range c.config.ReplicaLabels {
		replicaLabels[i] = string(l)
	}
	concurrency := int(c.config.Upstream.ConcurrencyLimit)
	planner := scrape.NewPlanner(c.catalog, rateWindow, c.config.Selector, replicaLabels)

	learners := map[*gauge.Query]*bucketwindow.Learner{}
	for _, q := range c.catalog.Queries() {
		if q.Shape == gauge.Buckets {
			learners[q] = bucketwindow.NewLearner(bucketwindow.Options{
				Quantiles:    c.catalog.Quantiles(q),
				Disabled:     !c.config.BucketWindows,
				BatchSize:    int(c.config.StoresPerQuery),
				MaxBatchSize: promqlexpr.MaxMatcherValues,
				Concurrency:  concurrency,
				RateWindow:   rateWindow,
				Split:        planner.Split,
			})
		}
	}

	return queries{rateWindow: rateWindow, planner: planner, runner: scrape.NewRunner(scrape.Options{
		Upstream:      c.upstream,
		Queries:       c.catalog.Queries(),
		Planner:       planner,
		ReplicaLabels: replicaLabels,
		Learners:      learners,
		Concurrency:   concurrency,
		Offset:        time.Duration(c.config.QueryOffset),
	})}
}

// rateWindow returns the rate window for a state of the discovery: the configured one, or one
// that fits upstream's scrape interval.
func (c *cluster) rateWindow(state *discovery.State) time.Duration {
	if c.config.RateWindow != config.RateWindowAuto {
		return time.Duration(c.config.RateWindow)
	}

	return discovery.RateWindow(state.ScrapeInterval)
}

// configuredStores returns the stores of the configuration; nil if there are none.
func configuredStores(configured []config.Store) []storematch.Store {
	var stores []storematch.Store
	for _, s := range configured {
		stores = append(stores, storematch.Store{
			ID: string(s.ID), Address: string(s.Address), Instance: s.Instance,
		})
	}

	return stores
}

// scrape returns the result of a scrape that ends by ctx's deadline. It may share one that is
// already running. It is nil if ctx is canceled, because then nobody waits for it.
func (c *cluster) scrape(ctx context.Context) *report.Report {
	return c.sharer.Do(ctx, func(ctx context.Context) *report.Report {
		r := c.query(ctx)
		r.SortProblems()
		if !canceled(ctx) {
			c.countProblems(r)
			c.problems.log(r.Problems, time.Now())
		}

		return r
	})
}

// query scrapes the cluster once: it gets the stores from discovery, queries upstream for their
// targets, and assigns the results to the stores. It returns when all queries have been answered,
// at ctx's deadline at the latest.
func (c *cluster) query(ctx context.Context) *report.Report {
	state := c.refresher.Get(ctx)
	if !state.Usable() {
		return c.assembleWithoutStores(ctx, state)
	}

	q := c.queriesFor(state)
	results := q.runner.Run(ctx, q.plan, func(q *gauge.Query, reason httpclient.Reason) {
		c.countFailure(ctx, q, reason)
	})

	return c.assemble(state, results)
}

// queriesFor returns the queries for a state of the discovery. A refresh makes a new plan even if
// the targets are the same, and with it new bucket queries, which take into account what was
// learned about their cost since.
func (c *cluster) queriesFor(state *discovery.State) queries {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.planned == state {
		return c.queries
	}

	if rateWindow := c.rateWindow(state); c.queries.runner == nil || c.queries.rateWindow != rateWindow {
		c.queries = c.newQueries(rateWindow)
	}
	c.planned, c.queries.plan = state, c.queries.planner.Plan(state.Queried, state.Native)

	return c.queries
}

// countFailure counts a failed request or a rejected response, unless ctx was canceled.
func (c *cluster) countFailure(ctx context.Context, q *gauge.Query, reason httpclient.Reason) {
	if !canceled(ctx) {
		c.failures.of(c.config.Name, q, reason).Inc()
	}
}

// queued counts the requests to upstream that have waited, from the start of the process on.
func (c *cluster) queued() uint64 { return c.queuedBefore + c.upstream.Queued() }

// canceled reports whether ctx ended because nobody waits for it, rather than at its deadline.
// Errors of a canceled scrape are not counted.
func canceled(ctx context.Context) bool { return errors.Is(ctx.Err(), context.Canceled) }

// close ends the cluster's refresh and closes idle connections.
func (c *cluster) close() {
	c.refresher.Close()
	c.upstream.Close()
	c.discovery.Close()
}
