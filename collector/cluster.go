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

	"github.com/operator-store/operator_store_exporter/config"
	"github.com/operator-store/operator_store_exporter/internal/httpclient"
)

// Upstream is what a scrape needs of a query API. Its errors are of type *httpclient.Error.
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
		c.failures.of(c.name, queryTargets, httpclient.ReasonAmbiguous).Add(float64(r.ambiguities))
		c.failures.of(c.name, queryTargets, httpclient.ReasonLimit).Add(float64(min(r.left, 1)))
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
	a := &asking{cluster: c, found: found, all: maps.Clone(found.results), buckets: map[*Query][]bucketChunk{}}
	for _, q := range c.table.queries {
		a.all[q] = c.result(ctx, q)
	}
	a.first(ctx)
	a.others(ctx)
	r := c.newRound(a.all)
	r.instant = a.instant
	r.reportStores(found, a.all)
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
		return nil, &httpclient.Error{
			Reason: httpclient.ReasonTimeout, Request: "find the targets for the first time",
			Err: errors.New("no answer in time"), Remedy: httpclient.RemedyTimeout,
		}
	})
	return c.newRound(results{queryTargets: late})
}

// result is that of a query in ctx. What fails because nobody waits for it is no failure.
func (c *cluster) result(ctx context.Context, q *Query) *result {
	return newResult(q, c.replicas, func(reason httpclient.Reason) {
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
