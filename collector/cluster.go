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
	"github.com/operator-store/operator_store_exporter/internal/report"
	"github.com/operator-store/operator_store_exporter/internal/scrape"
	"github.com/operator-store/operator_store_exporter/internal/storematch"
)

// upstream is the query API of one cluster. Its errors are of type *httpclient.Error.
type upstream interface {
	// Query evaluates expression at a time, or at upstream's own current time if at is zero. It
	// returns the time of evaluation.
	Query(ctx context.Context, expression string, at time.Time) (promql.Vector, time.Time, error)
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
	planner   *scrape.Planner
	runner    *scrape.Runner
	sharer    scrape.Sharer[*report.Report]
	problems  problemLog

	mu      sync.Mutex
	planned *discovery.State // The state that plan is for.
	plan    *scrape.Plan
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
	// A refresh sends requests for the time, the targets, which of them are live, and PD's series,
	// one after another.
	timeout := 4 * cfg.Upstream.Timeout
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
	c.newRunner()
	c.discovery = discovery.New(discovery.Options{
		Upstream:   upstream,
		Selector:   cfg.Selector,
		Lookback:   opts.Lookback,
		PD:         placementDriver,
		Configured: configuredStores(cfg.Stores),
		StoreLimit: int(cfg.StoreLimit),
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

// newRunner sets up what plans and runs the queries.
func (c *cluster) newRunner() {
	replicaLabels := make([]string, len(c.config.ReplicaLabels))
	for i, l := range c.config.ReplicaLabels {
		replicaLabels[i] = string(l)
	}
	queries := c.catalog.Queries()
	rateWindow := time.Duration(c.config.RateWindow)
	concurrency := int(c.config.Upstream.ConcurrencyLimit)

	c.planner = scrape.NewPlanner(queries, rateWindow, c.config.Selector, replicaLabels)
	learners := map[*gauge.Query]*bucketwindow.Learner{}
	for _, q := range queries {
		if q.Shape == gauge.Buckets {
			learners[q] = bucketwindow.NewLearner(bucketwindow.Options{
				Quantiles:    c.catalog.Quantiles(q),
				Disabled:     !c.config.BucketWindows,
				BatchSize:    int(c.config.StoresPerQuery),
				MaxBatchSize: scrape.MaxMatcherValues,
				Concurrency:  concurrency,
				RateWindow:   rateWindow,
				Split:        c.planner.Split,
			})
		}
	}
	c.runner = scrape.NewRunner(scrape.Options{
		Upstream: c.upstream, Queries: queries, Planner: c.planner, ReplicaLabels: replicaLabels, Learners: learners,
		Concurrency: concurrency,
	})
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

// query scrapes the cluster once: which stores there are, what upstream says about their targets,
// and what that means for each store. It ends when every query has, at ctx's deadline at the
// latest.
func (c *cluster) query(ctx context.Context) *report.Report {
	state := c.refresher.Get(ctx)
	if !state.Usable() {
		return c.assembleWithoutStores(ctx, state)
	}

	results := c.runner.Run(ctx, c.planFor(state), func(q *gauge.Query, reason httpclient.Reason) {
		c.countFailure(ctx, q, reason)
	})

	return c.assemble(state, results)
}

// planFor returns the queries for the targets of a state. A refresh makes a new plan even if the
// targets are the same, and with it new bucket queries, which take into account what was learned
// about their cost since.
func (c *cluster) planFor(state *discovery.State) *scrape.Plan {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.planned != state {
		c.planned, c.plan = state, c.planner.Plan(state.Queried)
	}

	return c.plan
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
