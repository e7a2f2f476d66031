// SPDX-License-Identifier: Apache-2.0

package collector

import (
	"context"
	"errors"
	"maps"
	"time"

	"github.com/go-kit/log"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"golang.org/x/sync/errgroup"

	"github.com/operator-store/operator_store_exporter/config"
	"github.com/operator-store/operator_store_exporter/transport"
)

// The first query tells the instant of all others, and start_time whether windows hold. They are cheap: one that takes longer
// than this share of the time there is has failed, and leaves time to do without it.
const cheapShare = 1.0 / 3

// Upstream is what a scrape needs of a query API. Its errors are of type *transport.Error.
type Upstream interface {
	// Query evaluates expression at a time, or at upstream's own now where that is zero.
	Query(ctx context.Context, expression string, at time.Time) (promql.Vector, time.Time, error)
	// Series returns the label sets of the series that match any of matchers and had samples between start
	// and end.
	Series(ctx context.Context, matchers []string, start, end time.Time) ([]labels.Labels, error)
	// Now is upstream's time as far as it is known.
	Now() (now time.Time, known bool)
	// Serving is the URL of the server that answers, and those of all.
	Serving() (serving string, all []string)
	// ExternalURL is where people find the pages of the server that answers, "" where it does not tell.
	ExternalURL(ctx context.Context) (string, error)
	// Queued counts the requests that have waited because as many were under way as may be.
	Queued() uint64
	Close()
}

// cluster asks about one TiKV cluster.
type cluster struct {
	name     string
	config   config.Cluster
	upstream Upstream
	table    *table
	replicas []string
	failures *failures
	logger   log.Logger

	queuedBefore uint64 // The requests that waited before a reload.

	finder  finder
	windows *windows
	found   background
	rounds  coalescer

	journal journal
}

// scrape returns the answers of a round that ends by ctx's deadline. It may be one that is under
// way for another scrape. It is nil if ctx is cancelled, for then nobody listens.
func (c *cluster) scrape(ctx context.Context) *round {
	return c.rounds.join(ctx, func(ctx context.Context) *round {
		r := c.ask(ctx)
		if gone(ctx) {
			return r
		}
		c.failures.of(c.name, queryTargets, transport.ReasonAmbiguous).Add(float64(r.ambiguities))
		c.failures.of(c.name, queryTargets, transport.ReasonLimit).Add(float64(min(r.left, 1)))
		c.journal.write(c.logger, r.problems, time.Now())
		return r
	})
}

// ask runs one round: which stores, then the queries, then the values by store. It ends when every
// query has, at ctx's deadline at the latest.
func (c *cluster) ask(ctx context.Context) *round {
	found := c.found.get(ctx, c.find)
	if !found.usable() {
		return c.nothingKnown(ctx, found)
	}
	all := maps.Clone(found.results)
	for _, q := range c.table.queries {
		all[q] = c.result(ctx, q)
	}
	var instant time.Time
	first, cancel := withShare(ctx, cheapShare)
	all[queryUp].run(found.chunks[0].targets, func() (vector promql.Vector, err error) {
		vector, instant, err = c.upstream.Query(first, all[queryUp].sends(found.chunks[0].expressions[queryUp]), time.Time{})
		return vector, err
	})
	cancel()
	if instant.IsZero() {
		instant, _ = c.upstream.Now()
		instant = instant.Truncate(time.Millisecond) // As the API takes it: asked and told are the same.
	}

	for _, q := range c.table.queries {
		all[q].instant = instant
	}
	cheap, cancel := withShare(ctx, cheapShare)
	defer cancel()
	query := func(q *Query, expression string) func() (promql.Vector, error) {
		ctx := ctx
		if q == queryStartTime {
			ctx = cheap
		}
		return func() (promql.Vector, error) {
			vector, _, err := c.upstream.Query(ctx, all[q].sends(expression), instant)
			return vector, err
		}
	}
	var others errgroup.Group
	others.SetLimit(int(c.config.Upstream.ConcurrencyLimit)) // Upstream itself would let them wait too, a goroutine each.
	bucketChunks := map[*Query][]bucketChunk{}
	for _, q := range c.table.queries {
		if !q.buckets() || len(found.asked) == 0 {
			continue
		}
		bucketChunks[q] = c.windows.plan(q, found)
		for _, chunk := range bucketChunks[q] { // First, for they take longest.
			others.Go(func() error {
				began := time.Now()
				all[q].run(chunk.targets, query(q, chunk.expression))
				c.windows.took(q, chunk, time.Since(began))
				return nil
			})
		}
	}
	for i, chunk := range found.chunks {
		for _, q := range c.table.queries {
			expression, asked := chunk.expressions[q]
			if !asked || i == 0 && q == queryUp {
				continue
			}
			others.Go(func() error {
				all[q].run(chunk.targets, query(q, expression))
				return nil
			})
		}
	}
	_ = others.Wait() // The results hold the errors.
	for q, chunks := range bucketChunks {
		again := c.windows.settle(all[q], chunks, all[queryStartTime])
		all[q].forget(again)
		bucketChunks[q] = c.windows.allBuckets(q, again, maxMatcherValues)
		for _, chunk := range bucketChunks[q] {
			others.Go(func() error {
				all[q].run(chunk.targets, query(q, chunk.expression))
				return nil
			})
		}
	}
	_ = others.Wait() // As above.
	for q, chunks := range bucketChunks {
		c.windows.settle(all[q], chunks, all[queryStartTime])
	}
	r := c.newRound(all)
	r.instant = instant
	r.reportStores(found, all)
	return r
}

// newRound reports how the queries went, and who answered them.
func (c *cluster) newRound(all results) *round {
	r := newRound(c.name, c.table, all)
	r.serving, r.servers = c.upstream.Serving()
	r.queued = c.queuedBefore + c.upstream.Queued()
	return r
}

// nothingKnown is the round of a scrape that has found no targets to ask about, or not yet.
func (c *cluster) nothingKnown(ctx context.Context, found *found) *round {
	if found != nil {
		return c.newRound(found.results)
	}
	late := c.result(ctx, queryTargets)
	late.run(nil, func() (promql.Vector, error) {
		return nil, &transport.Error{
			Reason: transport.ReasonTimeout, Request: "find the targets for the first time",
			Err: errors.New("no answer in time"), Remedy: transport.RemedyTimeout,
		}
	})
	return c.newRound(results{queryTargets: late})
}

// result is that of a query in ctx. What fails because nobody waits for it is no failure.
func (c *cluster) result(ctx context.Context, q *Query) *result {
	return newResult(q, c.replicas, func(reason transport.Reason) {
		if !gone(ctx) {
			c.failures.of(c.name, q, reason).Inc()
		}
	})
}

func gone(ctx context.Context) bool { return errors.Is(ctx.Err(), context.Canceled) }

// close ends what goes on in the background.
func (c *cluster) close() {
	c.found.close()
	c.upstream.Close()
	if c.finder.pd != nil {
		c.finder.pd.Close()
	}
}

func withShare(ctx context.Context, share float64) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, time.Duration(share*float64(time.Until(deadline))))
}
