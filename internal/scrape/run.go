// SPDX-License-Identifier: Apache-2.0

// Package scrape runs the queries of one scrape.
package scrape

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/prometheus/promql"
	"golang.org/x/sync/errgroup"

	"github.com/operator-store/operator_store_exporter/internal/bucketwindow"
	"github.com/operator-store/operator_store_exporter/internal/gauge"
	"github.com/operator-store/operator_store_exporter/internal/httpclient"
	"github.com/operator-store/operator_store_exporter/internal/storematch"
)

// cheapShare is the share of the remaining time that QueryUp and QueryStartTime may take. Both are
// cheap, and other queries depend on them: QueryUp determines the evaluation time, QueryStartTime
// whether the windows of buckets apply. If one of them takes longer, it fails, so that there is
// time left for the other queries, which can do without it.
const cheapShare = 1.0 / 3

// Upstream evaluates instant queries.
type Upstream interface {
	// Query evaluates expression at a time, or at upstream's own current time if at is zero. It
	// returns the time of evaluation. Errors are of type *httpclient.Error.
	Query(ctx context.Context, expression string, at time.Time) (promql.Vector, time.Time, error)
	// Now returns upstream's current time, as far as it is known.
	Now() (now time.Time, known bool)
}

// Options configure a Runner.
type Options struct {
	Upstream      Upstream
	Queries       []*gauge.Query // QueryUp first.
	Planner       *Planner
	ReplicaLabels []string
	Learners      map[*gauge.Query]*bucketwindow.Learner // One for each Buckets query.
	Concurrency   int                                    // Requests that are sent at once.
}

// A Runner runs the queries of a cluster, scrape after scrape. It is safe for concurrent use.
type Runner struct{ opts Options }

// NewRunner returns a runner.
func NewRunner(opts Options) *Runner { return &Runner{opts} }

// Run sends the queries of a plan and returns when all have been answered, at ctx's deadline at the
// latest. Failures are part of the results; countFailure is called for each.
func (r *Runner) Run(
	ctx context.Context, plan *Plan, countFailure func(*gauge.Query, httpclient.Reason),
) *Results {
	s := &run{Options: r.opts, plan: plan, runs: map[*gauge.Query]*QueryRun{}}
	for _, q := range r.opts.Queries {
		s.runs[q] = NewQueryRun(q, r.opts.ReplicaLabels, countFailure)
	}

	s.queryUp(ctx)
	s.queryRest(ctx)

	return &Results{EvaluatedAt: s.evaluatedAt, runs: s.runs}
}

// run is the queries of one scrape.
type run struct {
	Options
	plan        *Plan
	runs        map[*gauge.Query]*QueryRun
	evaluatedAt time.Time
}

// queryUp sends QueryUp for the first batch, which determines the evaluation time. If it fails,
// the evaluation time is upstream's current time, as far as it is known.
func (s *run) queryUp(ctx context.Context) {
	ctx, cancel := withShare(ctx, cheapShare)
	defer cancel()

	first := s.plan.batches[0]
	expression := first.expressions[gauge.QueryUp]
	s.runs[gauge.QueryUp].Do(first.targets, expression, func() (vector promql.Vector, err error) {
		vector, s.evaluatedAt, err = s.Upstream.Query(ctx, expression, time.Time{})

		return vector, err
	})
	if s.evaluatedAt.IsZero() {
		now, _ := s.Upstream.Now()
		s.evaluatedAt = now.Truncate(time.Millisecond) // The precision of the API, so that it can be exported exactly.
	}
}

// queryRest sends all other queries concurrently, and then queries targets again whose windows were
// too narrow.
func (s *run) queryRest(ctx context.Context) {
	cheap, cancel := withShare(ctx, cheapShare)
	defer cancel()

	var group errgroup.Group
	group.SetLimit(s.Concurrency) // Upstream's client limits requests too, but with a waiting goroutine for each.

	planned := map[*gauge.Query][]bucketwindow.Batch{}
	for _, q := range s.Queries {
		if q.Shape == gauge.Buckets && len(s.plan.Targets) > 0 {
			planned[q] = s.Learners[q].Plan(s.plan.Targets, s.plan)
			s.queryBuckets(ctx, &group, q, planned[q], s.Learners[q].ObserveDuration) // First: they take longest.
		}
	}
	s.queryBatches(ctx, cheap, &group)
	_ = group.Wait() // Errors are part of the results.

	retried := map[*gauge.Query][]bucketwindow.Batch{}
	for q, batches := range planned {
		again := s.readHistograms(q, batches)
		s.runs[q].forget(again)
		retried[q] = s.Learners[q].AllBounds(again)
		// Nothing is learned from the duration of a retry: later batches do not select all buckets.
		s.queryBuckets(ctx, &group, q, retried[q], func(bucketwindow.Batch, time.Duration) {})
	}
	_ = group.Wait()

	for q, batches := range retried {
		s.readHistograms(q, batches)
	}
}

// queryBatches sends the queries that are not for buckets. The cheap context is that of
// QueryStartTime.
func (s *run) queryBatches(ctx, cheap context.Context, group *errgroup.Group) {
	for i, b := range s.plan.batches {
		for _, q := range s.Queries {
			expression, ok := b.expressions[q]
			if !ok || i == 0 && q == gauge.QueryUp {
				continue
			}
			queryCtx := ctx
			if q == gauge.QueryStartTime {
				queryCtx = cheap
			}
			group.Go(func() error {
				s.query(queryCtx, q, b.targets, expression)

				return nil
			})
		}
	}
}

// queryBuckets sends the batches of a Buckets query and observes how long each takes.
func (s *run) queryBuckets(
	ctx context.Context, group *errgroup.Group, q *gauge.Query, batches []bucketwindow.Batch,
	observeDuration func(bucketwindow.Batch, time.Duration),
) {
	for _, b := range batches {
		group.Go(func() error {
			start := time.Now()
			s.query(ctx, q, b.Targets, s.Planner.bucketExpression(q, b.Targets, b.Bounds))
			observeDuration(b, time.Since(start))

			return nil
		})
	}
}

// query sends one request at the evaluation time.
func (s *run) query(ctx context.Context, q *gauge.Query, targets []storematch.Identity, expression string) {
	s.runs[q].Do(targets, expression, func() (promql.Vector, error) {
		vector, _, err := s.Upstream.Query(ctx, expression, s.evaluatedAt)

		return vector, err
	})
}

// readHistograms reads the samples of batches as histograms. It returns the targets whose windows
// were too narrow.
func (s *run) readHistograms(q *gauge.Query, batches []bucketwindow.Batch) (tooNarrow []storematch.Identity) {
	for _, b := range batches {
		for _, t := range b.Targets {
			samples, answered := s.runs[q].samplesOf(t)
			if !answered || len(samples) == 0 {
				continue
			}
			start, startKnown := s.startTime(t)
			histograms, err := s.Learners[q].Read(bucketwindow.Reading{
				Target:      t,
				Bounds:      b.Bounds,
				Replicas:    samples,
				StartTime:   start,
				StartKnown:  startKnown,
				EvaluatedAt: s.evaluatedAt,
			})
			if b.Bounds != nil && errors.Is(err, bucketwindow.ErrTooNarrow) {
				tooNarrow = append(tooNarrow, t)

				continue
			}
			s.runs[q].setHistograms(t, histograms, err)
		}
	}

	return tooNarrow
}

// startTime returns when a target's process started, if that is known and the same for all
// replicas.
func (s *run) startTime(t storematch.Identity) (start float64, known bool) {
	samples, answered := s.runs[gauge.QueryStartTime].samplesOf(t)
	if !answered {
		return 0, false
	}

	return bucketwindow.StartTime(samples)
}

// withShare returns a context that has a share of the time until ctx's deadline.
func withShare(ctx context.Context, share float64) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return context.WithCancel(ctx)
	}

	return context.WithTimeout(ctx, time.Duration(share*float64(time.Until(deadline))))
}
