// SPDX-License-Identifier: Apache-2.0

// Package discovery discovers the TiKV targets of an upstream with the stores that they belong to.
package discovery

import (
	"cmp"
	"context"
	"maps"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"

	"github.com/operator-store/operator_store_exporter/internal/promapi"
	"github.com/operator-store/operator_store_exporter/internal/promqlexpr"
	"github.com/operator-store/operator_store_exporter/internal/storematch"
)

// A target is TiKV if it exports one of these metrics, each with one series.
var tikvSeries = []promqlexpr.Expr{
	promqlexpr.MustParse(`tikv_store_size_bytes{type="available"}`),
	promqlexpr.MustParse(`tikv_server_info`),
}

// Only PD's leader exports the metric. After a change of leader two PDs may have series; group
// makes them one.
var pdStores = promqlexpr.MustParse(`group by (address, store) (pd_scheduler_store_status{type="store_capacity"})`)

// Upstream is the query API that targets are discovered from. Its errors are of type
// *httpclient.Error.
type Upstream interface {
	// Series returns the label sets of the series that match any of matchers and had samples
	// between start and end.
	Series(ctx context.Context, matchers []string, start, end time.Time) ([]labels.Labels, error)
	// Query evaluates expression at a time, or at upstream's own current time if at is zero.
	Query(ctx context.Context, expression string, at time.Time) (promapi.Result, error)
	// Samples returns the samples of the series that a vector selector matches, within a range
	// before the time at.
	Samples(ctx context.Context, selector promqlexpr.Expr, within time.Duration, at time.Time) (promql.Matrix, error)
	// Now returns upstream's current time, as far as it is known.
	Now() (now time.Time, known bool)
}

// A Finder finds targets and stores in one upstream. It is safe for concurrent use.
type Finder struct {
	upstream Upstream
	lookback time.Duration
	selector []*labels.Matcher
	matchers []string // Of the series that make a target TiKV.
	live     string   // PromQL for those series that have samples now.
	stores   string   // PromQL for the stores in PD's series.
}

// NewFinder returns a finder of the targets whose series match selector and had samples within
// lookback.
func NewFinder(upstream Upstream, selector []*labels.Matcher, lookback time.Duration) *Finder {
	f := &Finder{
		upstream: upstream,
		lookback: lookback,
		selector: selector,
		live:     promqlexpr.Or(tikvSeries...).WithMatchers(selector).String(),
		stores:   pdStores.WithMatchers(selector).String(),
	}
	for _, series := range tikvSeries {
		f.matchers = append(f.matchers, series.WithMatchers(selector).String())
	}

	return f
}

// Targets returns the targets that had samples within the lookback before now, by upstream's clock.
func (f *Finder) Targets(ctx context.Context, now time.Time) ([]storematch.Target, error) {
	recent, err := f.upstream.Series(ctx, f.matchers, now.Add(-f.lookback), now)
	if err != nil {
		return nil, err
	}
	live, err := f.upstream.Query(ctx, f.live, now)
	if err != nil {
		return nil, err
	}

	var targets []storematch.Target
	for _, s := range live.Vector {
		targets = append(targets, newTarget(s.Metric, true))
	}

	for _, s := range recent {
		targets = append(targets, newTarget(s, false))
	}

	return storematch.UniqueTargets(targets), nil
}

// newTarget reads a target's labels, under the names that TiDB Operator and Prometheus Operator
// use.
func newTarget(l labels.Labels, live bool) storematch.Target {
	return storematch.Target{
		Identity:  storematch.Identity{Job: l.Get(model.JobLabel), Instance: l.Get(model.InstanceLabel)},
		Pod:       l.Get("pod"),
		Namespace: cmp.Or(l.Get("kubernetes_namespace"), l.Get("namespace")),
		Cluster:   cmp.Or(l.Get("tidb_cluster"), l.Get("cluster")),
		Live:      live,
	}
}

// Stores returns the stores in the series that upstream scrapes from PD, including TiFlash; none if
// upstream does not scrape PD. Now is by upstream's clock.
func (f *Finder) Stores(ctx context.Context, now time.Time) ([]storematch.Store, error) {
	result, err := f.upstream.Query(ctx, f.stores, now)
	if err != nil {
		return nil, err
	}

	var stores []storematch.Store
	for _, s := range result.Vector {
		stores = append(stores, storematch.Store{ID: s.Metric.Get("store"), Address: s.Metric.Get("address")})
	}

	return stores, nil
}

// nativeTargets returns the targets that have native histograms in place of the classic histogram
// whose buckets buckets selects. Targets that have both are not among them.
func (f *Finder) nativeTargets(
	ctx context.Context, buckets promqlexpr.Expr, now time.Time,
) (map[storematch.Identity]bool, error) {
	native, err := f.targetsWith(ctx, buckets.Native(), now)
	if err != nil || len(native) == 0 {
		return nil, err
	}

	classic, err := f.targetsWith(ctx, buckets.Only(infBucket), now)
	if err != nil {
		return nil, err
	}
	maps.DeleteFunc(native, func(t storematch.Identity, _ bool) bool { return classic[t] })

	return native, nil
}

// infBucket selects one bucket of each histogram.
var infBucket = labels.MustNewMatcher(labels.MatchEqual, model.BucketLabel, "+Inf")

// targetsWith returns the targets that have any series that a vector selector matches.
func (f *Finder) targetsWith(
	ctx context.Context, selector promqlexpr.Expr, now time.Time,
) (map[storematch.Identity]bool, error) {
	e := promqlexpr.GroupBy(selector.WithMatchers(f.selector), model.JobLabel, model.InstanceLabel)
	result, err := f.upstream.Query(ctx, e.String(), now)
	if err != nil {
		return nil, err
	}

	targets := make(map[storematch.Identity]bool, len(result.Vector))
	for _, s := range result.Vector {
		targets[newTarget(s.Metric, true).Identity] = true
	}

	return targets, nil
}
