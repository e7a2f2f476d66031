// SPDX-License-Identifier: Apache-2.0

// Package discovery finds the TiKV targets that upstream has seen lately, with the stores that they are.
package discovery

import (
	"cmp"
	"context"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"

	"github.com/operator-store/operator_store_exporter/internal/promqlexpr"
	"github.com/operator-store/operator_store_exporter/internal/storematch"
)

// What makes a target a TiKV: it exports one of these, one series each.
var signs = []promqlexpr.Expr{
	promqlexpr.MustParse(`tikv_store_size_bytes{type="available"}`),
	promqlexpr.MustParse(`tikv_server_info`),
}

var (
	live = promqlexpr.MustParse(`tikv_store_size_bytes{type="available"} or tikv_server_info`)
	// PD's leader alone exports it; after a change of leader two may, which group by makes one.
	known = promqlexpr.MustParse(`group by (address, store) (pd_scheduler_store_status{type="store_capacity"})`)
)

// Upstream is what discovery asks for targets.
type Upstream interface {
	// Series returns the label sets of the series that match any of matchers and had samples between start
	// and end.
	Series(ctx context.Context, matchers []string, start, end time.Time) ([]labels.Labels, error)
	// Query evaluates expression at a time.
	Query(ctx context.Context, expression string, at time.Time) (promql.Vector, time.Time, error)
}

// Finder asks one upstream. It is safe for concurrent use.
type Finder struct {
	upstream    Upstream
	lookback    time.Duration
	signs       []string
	live, known string
}

// New returns a finder of the targets whose series match selector and were seen within lookback.
func New(upstream Upstream, selector []*labels.Matcher, lookback time.Duration) *Finder {
	f := &Finder{upstream: upstream, lookback: lookback, live: live.With(selector, nil), known: known.With(selector, nil)}
	for _, sign := range signs {
		f.signs = append(f.signs, sign.With(selector, nil))
	}
	return f
}

// Targets returns the targets seen between now less the lookback and now, which is upstream's time.
func (f *Finder) Targets(ctx context.Context, now time.Time) ([]storematch.Target, error) {
	seen, err := f.upstream.Series(ctx, f.signs, now.Add(-f.lookback), now)
	if err != nil {
		return nil, err
	}
	alive, _, err := f.upstream.Query(ctx, f.live, now)
	if err != nil {
		return nil, err
	}
	var targets []storematch.Target
	for _, s := range alive {
		targets = append(targets, target(s.Metric, true))
	}
	for _, s := range seen {
		targets = append(targets, target(s, false))
	}
	return storematch.Unique(targets), nil
}

// target reads a target's labels, by the names that TiDB Operator and Prometheus Operator give them.
func target(l labels.Labels, live bool) storematch.Target {
	return storematch.Target{
		Identity:  storematch.Identity{Job: l.Get(model.JobLabel), Instance: l.Get(model.InstanceLabel)},
		Pod:       l.Get("pod"),
		Namespace: cmp.Or(l.Get("kubernetes_namespace"), l.Get("namespace")),
		Cluster:   cmp.Or(l.Get("tidb_cluster"), l.Get("cluster")),
		Live:      live,
	}
}

// Stores returns the stores of which PD tells the Prometheus that scrapes it too, TiFlash among them, and none
// where upstream does not scrape PD. Now is upstream's time.
func (f *Finder) Stores(ctx context.Context, now time.Time) ([]storematch.Store, error) {
	vector, _, err := f.upstream.Query(ctx, f.known, now)
	if err != nil {
		return nil, err
	}
	var found []storematch.Store
	for _, s := range vector {
		found = append(found, storematch.Store{ID: s.Metric.Get("store"), Address: s.Metric.Get("address")})
	}
	return found, nil
}
