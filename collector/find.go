// SPDX-License-Identifier: Apache-2.0

package collector

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/prometheus/promql"

	"github.com/operator-store/operator_store_exporter/internal/discovery"
	"github.com/operator-store/operator_store_exporter/internal/httpclient"
	"github.com/operator-store/operator_store_exporter/internal/storematch"
)

// PD is what a scrape needs of PD. Its errors are of type *httpclient.Error.
type PD interface {
	// Stores returns the TiKV stores of the cluster, at least one.
	Stores(ctx context.Context) ([]storematch.Store, error)
	Close()
}

// finder finds out which stores there are, and which target is whose.
type finder struct {
	discovery  *discovery.Finder
	pd         PD                 // nil: PD is not asked.
	configured []storematch.Store // nil: every store that PD or upstream knows.
	lookback   time.Duration
	limit      int // Of stores.
	planner    planner
}

// found is what is known of the stores until it is found out again. It does not change once it is made.
type found struct {
	known   bool // Upstream has told its targets at least once.
	named   bool // It, or PD, has told which stores these are, or can't: else their names would change once it does.
	targets []storematch.Target
	stores  []storematch.Store // As PD tells, itself or through upstream.
	told    time.Time          // When PD itself told them, by our own clock; zero if it never did.
	heard   time.Time          // The same of what PD told upstream.

	matches []storematch.Match
	left    int                   // The stores that are left out because there are more than the limit.
	asked   []storematch.Identity // The targets that the chunks ask about.
	chunks  []chunk
	results results // How it went this time.
}

// find finds out anew. What can't be asked for stays as it was.
func (c *cluster) find(ctx context.Context, previous *found) *found {
	f := &found{results: results{}}
	if previous != nil {
		f.known, f.targets, f.stores, f.told, f.heard = previous.known, previous.targets, previous.stores, previous.told, previous.heard
		f.named = previous.named
	}
	run := func(q *Query, ask func() error) {
		f.results[q].run(nil, func() (promql.Vector, error) { return nil, ask() })
	}
	for _, q := range []*Query{queryTargets, queryStoreIDs, queryPD} {
		f.results[q] = c.result(ctx, q)
	}
	var both sync.WaitGroup
	var now time.Time // Upstream's: ours may be off by more than the lookback.
	both.Go(func() {
		run(queryTargets, func() (err error) {
			if now, err = c.now(ctx); err != nil {
				return err
			}
			targets, err := c.finder.discovery.Targets(ctx, now)
			if err == nil {
				f.known, f.targets = true, targets
			}
			return err
		})
	})
	if c.finder.pd != nil {
		both.Go(func() {
			run(queryPD, func() error {
				told, err := c.finder.pd.Stores(ctx)
				switch {
				case err == nil:
					f.stores, f.told, f.named = told, time.Now(), true
				case !f.told.IsZero():
					err = fmt.Errorf("%w: the stores that PD told %s ago stay in use", err, time.Since(f.told).Round(time.Second))
				}
				return err
			})
		})
	}
	both.Wait()
	if f.told.IsZero() && !now.IsZero() {
		run(queryStoreIDs, func() error {
			told, err := c.finder.discovery.Stores(ctx, now)
			f.named = f.named || err == nil || httpclient.ReasonOf(err).Lasts() || c.finder.allNamed()
			switch {
			case err != nil:
			case len(told) > 0:
				f.stores, f.heard = told, time.Now()
			case time.Since(f.heard) > c.finder.lookback:
				f.stores = nil // PD falls silent for a while when its leader changes: only now it is gone.
			}
			return err
		})
	}
	c.finder.match(f, previous)
	return f
}

// usable tells whether stores can be told of: not before their names are what they will be.
func (f *found) usable() bool { return f != nil && f.known && f.named }

// allNamed tells whether the configuration names every store by its id and address.
func (f finder) allNamed() bool {
	return f.configured != nil && !slices.ContainsFunc(f.configured, func(s storematch.Store) bool { return s.ID == "" })
}

// now is upstream's time.
func (c *cluster) now(ctx context.Context) (time.Time, error) {
	now, known := c.upstream.Now()
	if known {
		return now, nil
	}
	_, now, err := c.upstream.Query(ctx, "vector(0)", time.Time{})
	return now, err
}

// match pairs the stores with the targets, and plans the queries about them.
func (f finder) match(to, previous *found) {
	var before []storematch.Match
	if previous != nil {
		before = previous.matches
	}
	switch {
	case f.configured != nil:
		to.matches = storematch.Find(storematch.Complete(f.configured, to.stores), to.targets, before...)
	case !to.told.IsZero():
		to.matches = storematch.Find(storematch.Latest(to.stores), to.targets, before...)
	default:
		to.matches = storematch.Named(to.stores, to.targets, before...)
	}
	to.left = max(0, len(to.matches)-f.limit)
	to.matches = to.matches[:len(to.matches)-to.left]
	for _, m := range to.matches {
		if t, ok := m.Target(); ok {
			to.asked = append(to.asked, t.Identity)
		}
	}
	slices.SortFunc(to.asked, storematch.Identity.Compare)
	if previous != nil && slices.Equal(previous.asked, to.asked) && previous.chunks != nil {
		to.chunks = previous.chunks
		return
	}
	to.chunks = f.planner.plan(to.asked)
}
