// SPDX-License-Identifier: Apache-2.0

// Package scrape runs the queries of one scrape.
package scrape

import (
	"context"
	"errors"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/operator-store/operator_store_exporter/internal/bucketwindow"
	"github.com/operator-store/operator_store_exporter/internal/gauge"
	"github.com/operator-store/operator_store_exporter/internal/httpclient"
	"github.com/operator-store/operator_store_exporter/internal/promapi"
	"github.com/operator-store/operator_store_exporter/internal/storematch"
)

// cheapShare is the share of the remaining time that QueryUp and QueryStartTime may take. Both are
// cheap, and other queries depend on them: QueryUp determines the evaluation time, QueryStartTime
// whether the windows of buckets apply. If one of them takes longer, it fails, so that there is
// time left for the other queries, which can do without it.
const cheapShare = 1.0 / 3

// Upstream evaluates instant queries.
type Upstream interface {
	// Query evaluates expression at a time, or at upstream's own current time if at is zero.
	// Errors wrap an *httpclient.Error.
	Query(ctx context.Context, expression string, at time.Time) (promapi.Result, error)
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
	Offset        time.Duration                          // Queries are evaluated that long before upstream's now.
}

// A Runner runs the queries of a cluster, scrape after scrape. It is safe for concurrent use.
type Runner struct {
	opts  Options
	sizes batchSizes
}

// NewRunner returns a runner.
func NewRunner(opts Options) *Runner { return &Runner{opts: opts} }

// Run sends the queries of a plan and returns when all have been answered, at ctx's deadline at the
// latest. Failures are part of the results; countFailure is called for each.
func (r *Runner) Run(
	ctx context.Context, plan *Plan, countFailure func(*gauge.Query, httpclient.Reason),
) *Results {
	s := &run{Options: r.opts, sizes: &r.sizes, plan: plan, runs: map[*gauge.Query]*QueryRun{}}
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
	sizes       *batchSizes
	plan        *Plan
	runs        map[*gauge.Query]*QueryRun
	evaluatedAt time.Time
}

// queryUp sends QueryUp for the first batch and determines the evaluation time.
//
// Usually, one request does both: it is evaluated at upstream's current time, which its response
// shows. If upstream rejects this request as too large, or did so in an earlier scrape, it is sent
// in parts. Each part would have a time of its own, so upstream's time is queried first, as it is
// if there is an offset. If all of that fails, the evaluation time is upstream's current time, as
// far as it is known.
func (s *run) queryUp(ctx context.Context) {
	ctx, cancel := withShare(ctx, cheapShare)
	defer cancel()

	targets := s.plan.batches[0].targets
	parts := s.parts(gauge.QueryUp, targets)
	if len(parts) == 1 && s.queryUpAtOnce(ctx) {
		s.sizes.rejected(gauge.QueryUp, len(targets), time.Now())
		parts = s.parts(gauge.QueryUp, targets)
	}
	if len(parts) > 1 {
		s.queryUpInParts(ctx, targets, parts)
	}
	if s.evaluatedAt.IsZero() {
		now, _ := s.Upstream.Now()
		s.evaluatedAt = apiTime(now.Add(-s.Offset))
	}
}

// queryUpAtOnce sends QueryUp for the first batch in one request. It returns true if upstream
// rejects that as too large.
func (s *run) queryUpAtOnce(ctx context.Context) (tooLarge bool) {
	first := s.plan.batches[0]
	expression := first.expressions[gauge.QueryUp]

	return s.runs[gauge.QueryUp].Do(first.targets, expression, func() (promapi.Result, error) {
		var at time.Time // Zero for upstream's current time.
		if s.Offset != 0 {
			var err error
			if at, err = s.queryEvaluationTime(ctx); err != nil {
				return promapi.Result{}, err
			}
		}
		result, err := s.Upstream.Query(ctx, expression, at)
		s.evaluatedAt = result.EvaluatedAt

		return result, err
	})
}

// queryUpInParts sends QueryUp for the first batch in parts, which must all be evaluated at one
// time.
func (s *run) queryUpInParts(ctx context.Context, targets []storematch.Identity, parts [][]storematch.Identity) {
	at, err := s.queryEvaluationTime(ctx)
	if err != nil {
		s.runs[gauge.QueryUp].Do(targets, "", func() (promapi.Result, error) { return promapi.Result{}, err })

		return
	}

	s.evaluatedAt = at
	var group errgroup.Group
	group.SetLimit(s.Concurrency)

	for _, part := range parts {
		group.Go(func() error {
			s.query(ctx, gauge.QueryUp, part, func(part []storematch.Identity) string {
				return s.Planner.targetExpression(gauge.QueryUp, part)
			})

			return nil
		})
	}
	_ = group.Wait() // Errors are part of the results.
}

// queryEvaluationTime queries upstream's current time, and returns the time that is the offset
// before it. The time is queried in each scrape, because upstream's clock may drift.
func (s *run) queryEvaluationTime(ctx context.Context) (time.Time, error) {
	result, err := s.Upstream.Query(ctx, "vector(0)", time.Time{})
	if err != nil {
		return time.Time{}, err
	}

	return apiTime(result.EvaluatedAt.Add(-s.Offset)), nil
}

// apiTime returns t in the precision of the API, so that the evaluation time can be exported
// exactly.
func apiTime(t time.Time) time.Time { return t.Truncate(time.Millisecond) }

// queryRest sends all other queries concurrently, and then queries targets again whose windows
// were too narrow.
func (s *run) queryRest(ctx context.Context) {
	cheap, cancel := withShare(ctx, cheapShare)
	defer cancel()

	var group errgroup.Group
	group.SetLimit(s.Concurrency) // Upstream's client limits requests too, but with a waiting goroutine for each.

	planned := map[*gauge.Query][]bucketwindow.Batch{}
	for _, q := range s.Queries {
		if targets := s.plan.classic[q]; len(targets) > 0 {
			planned[q] = s.Learners[q].Plan(targets, s.plan)
			s.queryBuckets(ctx, &group, q, planned[q], s.Learners[q].ObserveDuration) // First: they take longest.
		}
		if targets := s.plan.native[q]; len(targets) > 0 {
			s.queryNative(ctx, &group, q, targets)
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

			for _, part := range s.parts(q, b.targets) {
				group.Go(func() error {
					s.query(queryCtx, q, part, func(targets []storematch.Identity) string {
						if len(targets) == len(b.targets) {
							return expression
						}

						return s.Planner.targetExpression(q, targets)
					})

					return nil
				})
			}
		}
	}
}

// queryBuckets sends the batches of a Buckets query and observes how long each takes.
func (s *run) queryBuckets(
	ctx context.Context, group *errgroup.Group, q *gauge.Query, batches []bucketwindow.Batch,
	observeDuration func(bucketwindow.Batch, time.Duration),
) {
	for _, b := range batches {
		for _, part := range s.parts(q, b.Targets) {
			group.Go(func() error {
				start := time.Now()
				s.query(ctx, q, part, func(targets []storematch.Identity) string {
					return s.Planner.bucketExpression(q, targets, b.Bounds)
				})
				observeDuration(bucketwindow.Batch{Targets: part, Bounds: b.Bounds}, time.Since(start))

				return nil
			})
		}
	}
}

// queryNative sends a Buckets query for targets with native histograms.
func (s *run) queryNative(
	ctx context.Context, group *errgroup.Group, q *gauge.Query, targets []storematch.Identity,
) {
	for _, fitting := range s.Planner.splitNative(targets) {
		for _, part := range s.parts(q, fitting) {
			group.Go(func() error {
				s.query(ctx, q, part, func(targets []storematch.Identity) string {
					return s.Planner.nativeExpression(q, targets)
				})

				return nil
			})
		}
	}
}

// parts cuts the targets of a batch into parts that upstream accepts in one query, as far as that
// has been learned. There is at least one part, which is empty if there are no targets.
func (s *run) parts(q *gauge.Query, targets []storematch.Identity) [][]storematch.Identity {
	if len(targets) == 0 {
		return [][]storematch.Identity{nil}
	}

	return slices.Collect(slices.Chunk(targets, s.sizes.limit(q, len(targets), time.Now())))
}

// query sends a query for targets at the evaluation time, usually in one request. If upstream
// rejects that as too large, query calls itself for each half of the targets, until a request is
// accepted, is about a single target or fails for another reason. The halves are sent one after
// another in the goroutine of the rejected request, so that splitting does not exceed Concurrency.
func (s *run) query(
	ctx context.Context, q *gauge.Query, targets []storematch.Identity,
	expressionFor func([]storematch.Identity) string,
) {
	expression := expressionFor(targets)
	tooLarge := s.runs[q].Do(targets, expression, func() (promapi.Result, error) {
		return s.Upstream.Query(ctx, expression, s.evaluatedAt)
	})
	if tooLarge {
		s.split(ctx, q, targets, expressionFor)
	}
}

// split remembers that upstream rejected a request as too large, and sends its halves.
func (s *run) split(
	ctx context.Context, q *gauge.Query, targets []storematch.Identity,
	expressionFor func([]storematch.Identity) string,
) {
	s.sizes.rejected(q, len(targets), time.Now())

	for half := range slices.Chunk(targets, halfOf(len(targets))) {
		s.query(ctx, q, half, expressionFor)
	}
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
