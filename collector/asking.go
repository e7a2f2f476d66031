// SPDX-License-Identifier: Apache-2.0

package collector

import (
	"context"
	"time"

	"github.com/prometheus/prometheus/promql"
	"golang.org/x/sync/errgroup"
)

// The first query tells the instant of all others, and start_time whether windows hold. They are cheap: one that takes longer
// than this share of the time there is has failed, and leaves time to do without it.
const cheapShare = 1.0 / 3

// asking is one round's queries. They fill its results, which hold their errors too.
type asking struct {
	*cluster
	found   *found
	all     results
	instant time.Time
	buckets map[*Query][]bucketChunk // The chunks of the queries of buckets that were asked last.
}

// first asks the query that tells the instant of all others. If it fails, that is upstream's now as far as it is known.
func (a *asking) first(ctx context.Context) {
	ctx, cancel := withShare(ctx, cheapShare)
	defer cancel()
	up := a.found.chunks[0]
	a.all[queryUp].run(up.targets, func() (vector promql.Vector, err error) {
		vector, a.instant, err = a.upstream.Query(ctx, a.all[queryUp].sends(up.expressions[queryUp]), time.Time{})
		return vector, err
	})
	if a.instant.IsZero() {
		a.instant, _ = a.upstream.Now()
		a.instant = a.instant.Truncate(time.Millisecond) // As the API takes it: asked and told are the same.
	}
	for _, q := range a.table.queries {
		a.all[q].instant = a.instant
	}
}

// others asks all other queries side by side, and those of buckets again where a window did not suffice.
func (a *asking) others(ctx context.Context) {
	cheap, cancel := withShare(ctx, cheapShare)
	defer cancel()
	var group errgroup.Group
	group.SetLimit(int(a.config.Upstream.ConcurrencyLimit)) // Upstream itself would let them wait too, a goroutine each.
	for _, q := range a.table.queries {
		if q.buckets() && len(a.found.asked) > 0 {
			a.buckets[q] = a.windows.plan(q, a.found)
			a.askBuckets(ctx, &group, q, a.windows.took) // First, for they take longest.
		}
	}
	for i, chunk := range a.found.chunks {
		for _, q := range a.table.queries {
			expression, asked := chunk.expressions[q]
			if !asked || i == 0 && q == queryUp {
				continue
			}
			ctx := ctx
			if q == queryStartTime {
				ctx = cheap
			}
			group.Go(func() error {
				a.all[q].run(chunk.targets, a.query(ctx, q, expression))
				return nil
			})
		}
	}
	_ = group.Wait() // The results hold the errors.
	for q, chunks := range a.buckets {
		again := a.windows.settle(a.all[q], chunks, a.all[queryStartTime])
		a.all[q].forget(again)
		a.buckets[q] = a.windows.allBuckets(q, again, maxMatcherValues)
		a.askBuckets(ctx, &group, q, func(*Query, bucketChunk, time.Duration) {}) // It is no measure of those to come.
	}
	_ = group.Wait() // As above.
	for q, chunks := range a.buckets {
		a.windows.settle(a.all[q], chunks, a.all[queryStartTime])
	}
}

// askBuckets asks the chunks of a query of buckets, and tells how long each took.
func (a *asking) askBuckets(ctx context.Context, group *errgroup.Group, q *Query, took func(*Query, bucketChunk, time.Duration)) {
	for _, chunk := range a.buckets[q] {
		group.Go(func() error {
			began := time.Now()
			a.all[q].run(chunk.targets, a.query(ctx, q, chunk.expression))
			took(q, chunk, time.Since(began))
			return nil
		})
	}
}

// query asks upstream at the round's instant.
func (a *asking) query(ctx context.Context, q *Query, expression string) func() (promql.Vector, error) {
	return func() (promql.Vector, error) {
		vector, _, err := a.upstream.Query(ctx, a.all[q].sends(expression), a.instant)
		return vector, err
	}
}

func withShare(ctx context.Context, share float64) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, time.Duration(share*float64(time.Until(deadline))))
}
