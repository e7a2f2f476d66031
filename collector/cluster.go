// SPDX-License-Identifier: Apache-2.0

package collector

import (
	"context"
	"time"

	"github.com/go-kit/log"
	"github.com/prometheus/common/model"
	"golang.org/x/sync/errgroup"

	"github.com/operator-store/operator_store_exporter/discovery"
	"github.com/operator-store/operator_store_exporter/stores"
)

// maxConcurrent bounds the queries that one cluster has under way, well below the 20 at which
// Prometheus lets everybody wait.
const maxConcurrent = 8

// The first query tells the instant of all others. It is cheap: one that takes longer than this share
// of the time there is has failed, and the others are asked without it.
const firstQueryShare = 1.0 / 3

// Upstream is what a scrape needs of a query API. Its errors are of type *upstream.Error.
type Upstream interface {
	discovery.Source
	// Query evaluates expression at a time, or at upstream's own now where that is zero.
	Query(ctx context.Context, expression string, at time.Time) (model.Vector, time.Time, error)
	// Now is upstream's time as far as it is known.
	Now() (now time.Time, known bool)
	Close()
}

// cluster asks about one TiKV cluster.
type cluster struct {
	name     string
	upstream Upstream
	targets  *discovery.Targets
	stores   []stores.Store // nil: every store that upstream knows.
	replicas []model.LabelName
	planner  *planner
	failures *failures
	logger   log.Logger

	rounds  coalescer
	journal journal
}

// scrape returns the answers of a round that ends by ctx's deadline. It may be one that is under
// way for another scrape. It is nil if ctx is cancelled, for then nobody listens.
func (c *cluster) scrape(ctx context.Context) *round {
	return c.rounds.join(ctx, func(ctx context.Context) *round {
		r := c.ask(ctx)
		c.failures.count(r)
		c.journal.write(c.logger, r.problems, time.Now())
		return r
	})
}

// ask runs one round: which stores, then the queries, then the values by store. It ends when every
// query has, at ctx's deadline at the latest.
func (c *cluster) ask(ctx context.Context) *round {
	discovered := newResult(queryTargets, nil)
	discover := func() {
		discovered.run(chunk{}, func() (model.Vector, error) { return nil, c.discover(ctx) })
	}
	targets, known := c.targets.List()
	if !known {
		discover()
		if targets, known = c.targets.List(); !known {
			return newRound(c.name, results{queryTargets: discovered})
		}
	}
	matches := stores.FromTargets(targets)
	if c.stores != nil {
		matches = stores.Find(c.stores, targets)
	}
	chunks := c.planner.plan(matched(matches))

	all := results{queryTargets: discovered}
	for _, q := range instantQueries {
		all[q] = newResult(q, c.replicas)
	}
	var instant time.Time
	first, cancel := withShare(ctx, firstQueryShare)
	all[queryUp].run(chunks[0], func() (vector model.Vector, err error) {
		vector, instant, err = c.upstream.Query(first, chunks[0].expressions[queryUp], time.Time{})
		return vector, err
	})
	cancel()
	if instant.IsZero() {
		instant, _ = c.upstream.Now()
		instant = instant.Truncate(time.Millisecond) // As the API takes it: asked and told are the same.
	}

	var others errgroup.Group
	others.SetLimit(maxConcurrent)
	for i, chunk := range chunks {
		for _, q := range instantQueries {
			expression, asked := chunk.expressions[q]
			if !asked || i == 0 && q == queryUp {
				continue
			}
			others.Go(func() error {
				all[q].run(chunk, func() (model.Vector, error) {
					vector, _, err := c.upstream.Query(ctx, expression, instant)
					return vector, err
				})
				return nil
			})
		}
	}
	if !discovered.asked {
		others.Go(func() error { // For the next scrape.
			discover()
			return nil
		})
	}
	_ = others.Wait() // The results hold the errors.
	r := newRound(c.name, all)
	r.instant = instant
	r.reportStores(matches, all)
	return r
}

// discover refreshes the targets by upstream's clock: ours may be off by more than the lookback.
func (c *cluster) discover(ctx context.Context) error {
	now, known := c.upstream.Now()
	if !known {
		var err error
		if _, now, err = c.upstream.Query(ctx, "vector(0)", time.Time{}); err != nil {
			return err
		}
	}
	return c.targets.Refresh(ctx, now)
}

// matched returns the targets that stores have been found for, in a fixed order.
func matched(matches []stores.Match) []stores.Target {
	var targets []stores.Target
	for _, m := range matches {
		if t, ok := m.Target(); ok {
			targets = append(targets, t)
		}
	}
	return stores.Sorted(targets)
}

func withShare(ctx context.Context, share float64) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, time.Duration(share*float64(time.Until(deadline))))
}
