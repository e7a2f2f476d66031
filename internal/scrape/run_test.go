// SPDX-License-Identifier: Apache-2.0

package scrape_test

import (
	"context"
	"maps"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/operator-store/operator_store_exporter/internal/gauge"
)

// All queries are evaluated at the time at which upstream evaluated the first one.
func TestEvaluationTime(t *testing.T) {
	for _, tc := range []struct {
		name    string
		failing map[string]error
		want    time.Time
	}{
		{name: "as upstream evaluated the query up", want: evaluatedAt},
		{
			name:    "upstream's clock in milliseconds if that fails",
			failing: map[string]error{"up{": errHTTP},
			want:    evaluatedAt.Add(time.Millisecond),
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			up := &fakeUpstream{failing: tc.failing}
			results := newFixture(t, up).run(t.Context(), manyTargets(300)...)

			if !results.EvaluatedAt.Equal(tc.want) {
				t.Errorf("the results are of %s, want %s", results.EvaluatedAt, tc.want)
			}

			for i, r := range up.requests {
				switch {
				case i == 0:
					if !strings.Contains(r.expression, "up{") || !r.at.IsZero() {
						t.Errorf("the first query is %s at %s, want up at upstream's current time", r.expression, r.at)
					}
				case !r.at.Equal(tc.want):
					t.Errorf("%s is evaluated at %s, want %s", r.expression, r.at, tc.want)
				}
			}
		})
	}
}

// With a query offset, all queries are evaluated that long before upstream's current time, which is
// requested on each scrape.
func TestQueryOffset(t *testing.T) {
	const offset = 45 * time.Second
	for _, tc := range []struct {
		name      string
		failing   map[string]error
		limits    map[string]int
		want      time.Time
		timeCount int            // Requests for upstream's current time.
		failures  map[string]int // By query and reason.
	}{
		{
			name:      "before the time that upstream returned",
			want:      evaluatedAt.Add(-offset),
			timeCount: 1,
		},
		{
			name:      "before upstream's clock in milliseconds if up fails",
			failing:   map[string]error{"up{": errHTTP},
			want:      evaluatedAt.Add(time.Millisecond - offset),
			timeCount: 1,
			failures:  map[string]int{"up http": 2}, // For each of two batches.
		},
		{
			name:      "before upstream's clock in milliseconds if the time cannot be queried",
			failing:   map[string]error{"vector(0)": errHTTP},
			want:      evaluatedAt.Add(time.Millisecond - offset),
			timeCount: 1,
			failures:  map[string]int{"up http": 2},
		},
		{
			name:      "before the time that upstream returned if up is too large",
			limits:    map[string]int{"up{": 130},
			want:      evaluatedAt.Add(-offset),
			timeCount: 2, // For up in one request, and in parts.
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			up := &fakeUpstream{failing: tc.failing, limits: tc.limits}
			f := newFixtureWithOffset(t, up, offset)
			results := f.run(t.Context(), manyTargets(300)...)

			if !results.EvaluatedAt.Equal(tc.want) {
				t.Errorf("the results are of %s, want %s", results.EvaluatedAt, tc.want)
			}

			timeCount := 0
			for _, r := range up.requests {
				switch {
				case r.expression == "vector(0)":
					timeCount++
					if !r.at.IsZero() {
						t.Errorf("vector(0) is evaluated at %s, want upstream's current time", r.at)
					}
				case !r.at.Equal(tc.want) && !strings.Contains(r.expression, "up{"):
					t.Errorf("%s is evaluated at %s, want %s", r.expression, r.at, tc.want)
				case strings.Contains(r.expression, "up{") && r.at.IsZero():
					t.Errorf("%s is evaluated at upstream's current time, want %s", r.expression, tc.want)
				}
			}
			if timeCount != tc.timeCount {
				t.Errorf("upstream's time is requested %d times, want %d", timeCount, tc.timeCount)
			}
			if !maps.Equal(f.failures, tc.failures) {
				t.Errorf("counted the failures %v, want %v", f.failures, tc.failures)
			}
		})
	}
}

// A failed request only affects the targets of its batch, and only its query.
func TestFailedBatch(t *testing.T) {
	targets := manyTargets(500) // Two batches.
	first, last := targets[0], targets[len(targets)-1]
	up := &fakeUpstream{failing: map[string]error{"t0499": errHTTP}}
	f := newFixture(t, up)
	results := f.run(t.Context(), targets...)

	for _, q := range builtinQueries(t) {
		if q == gauge.QueryReplicaTime {
			continue // It is not sent without replica labels.
		}
		if results.Succeeded(q) || !results.Answered(q, first) || results.Answered(q, last) {
			t.Errorf("query %s: succeeded is %v, answered is %v for the first target, %v for the last one",
				q.Name, results.Succeeded(q), results.Answered(q, first), results.Answered(q, last))
		}
		if n := f.failures[q.Name+" http"]; n != 1 {
			t.Errorf("query %s: %d failures are counted, want 1", q.Name, n)
		}
	}
	if responses := results.Responses(first); len(responses) != len(builtinQueries(t))-1 {
		t.Errorf("the first target has the responses %v, want one for each query that was sent", responses)
	}
	if responses := results.Responses(last); len(responses) != 0 {
		t.Errorf("the last target has the responses %v, want none", responses)
	}
}

// histogram returns the samples of buckets with 90 observations up to 1, and 10 more up to 2.
func histogram(instance string) []string {
	return []string{
		"instance=" + instance + ",le=0.5 0", "instance=" + instance + ",le=1 90", "instance=" + instance + ",le=2 100",
		"instance=" + instance + ",le=4 100", "instance=" + instance + ",le=+Inf 100",
	}
}

// A target whose window turns out too narrow is queried for all of its buckets within the same
// scrape.
func TestTooNarrowWindowIsQueriedAgain(t *testing.T) {
	const (
		allBuckets = `tikv_raftstore_log_lag_bucket{instance="a:1",job="tikv"}`
		window     = `tikv_raftstore_log_lag_bucket{instance="a:1",job="tikv",le=~`
	)
	lag := query(t, "raft_log_lag")
	up := &fakeUpstream{responses: map[string][]string{
		allBuckets:           histogram("a:1"),
		"process_start_time": {"instance=a:1 1"},
	}}
	f := newFixture(t, up)
	quantile := func() float64 {
		t.Helper()
		h := f.run(t.Context(), identity("a:1")).Responses(identity("a:1"))[lag].Histogram
		if h.Layout() == nil {
			t.Fatal("there is no histogram")
		}
		v, _, ok := h.Quantile(0.99)
		if !ok {
			t.Fatal("the buckets do not determine the quantile")
		}

		return v
	}

	// 99 of 100 is reached at 9/10 of the bucket from 1 to 2.
	if got, want := quantile(), 1.9; got != want {
		t.Errorf("from all buckets, the quantile is %v, want %v", got, want)
	}

	// Now it is reached in the first bucket, which the window does not select.
	up.responses[window] = []string{
		"instance=a:1,le=1 99.5", "instance=a:1,le=2 100", "instance=a:1,le=4 100", "instance=a:1,le=+Inf 100",
	}
	up.responses[allBuckets] = append([]string{"instance=a:1,le=0.5 99.5"}, up.responses[window]...)
	if got, want := quantile(), 0.5*99/99.5; got != want {
		t.Errorf("from all buckets after a window, the quantile is %v, want %v", got, want)
	}
	if n, all := len(up.expressions(window)), len(up.expressions(allBuckets)); n != 1 || all != 2 {
		t.Errorf("sent %d queries for a window and %d for all buckets, want 1 and 2", n, all)
	}
	if len(f.failures) > 0 {
		t.Errorf("the failures %v are counted, want none, because a narrow window is not a failure", f.failures)
	}
}

// Samples that are not a histogram are rejected, for their target only.
func TestBucketsThatAreNotAHistogram(t *testing.T) {
	lag := query(t, "raft_log_lag")
	up := &fakeUpstream{responses: map[string][]string{
		"tikv_raftstore_log_lag_bucket": append(histogram("a:1"), "instance=b:1,le=1 5", "instance=b:1,le=2 5"),
	}}
	f := newFixture(t, up)
	results := f.run(t.Context(), identity("a:1"), identity("b:1"))

	if !results.Answered(lag, identity("a:1")) || results.Answered(lag, identity("b:1")) {
		t.Error("want that only the first target is answered")
	}
	if want := map[string]int{"raft_log_lag response": 1}; !maps.Equal(f.failures, want) {
		t.Errorf("counted %v, want %v", f.failures, want)
	}
	rejections := results.Reports()[lag].Rejections
	if len(rejections) != 1 || rejections[0].Target != identity("b:1") ||
		!strings.Contains(rejections[0].Err.Error(), `le="+Inf"`) {
		t.Errorf("rejected %v, want only b:1, because it has no bucket +Inf", rejections)
	}
}

// A bound that looks like the bounds of another target's histogram is rejected like any other
// that is not a number.
func TestBoundThatLooksLikeALayout(t *testing.T) {
	lag := query(t, "raft_log_lag")
	for _, separator := range []string{"|", "\xff"} {
		up := &fakeUpstream{responses: map[string][]string{
			"tikv_raftstore_log_lag_bucket": {
				"instance=a:1,le=1 1", "instance=a:1,le=+Inf 1", "instance=b:1,le=+Inf" + separator + "1 5",
			},
		}}
		f := newFixture(t, up)
		results := f.run(t.Context(), identity("a:1"), identity("b:1"))

		if results.Answered(lag, identity("b:1")) {
			t.Errorf("separator %q: the response is accepted", separator)
		}
	}
}

// Queries that others depend on must not use up the time: each has a third of what is left.
func TestCheapQueriesLeaveTime(t *testing.T) {
	const buckets = "tikv_raftstore_log_lag_bucket"
	for _, tc := range []struct {
		name         string
		blocked      string
		took         time.Duration
		bucketsKnown bool
	}{
		{name: "the first query hangs", blocked: "up{", took: 3 * time.Second, bucketsKnown: true},
		{name: "start_time hangs", blocked: "process_start_time", took: 3 * time.Second, bucketsKnown: true},
		{name: "another query hangs", blocked: "quota", took: 9 * time.Second, bucketsKnown: true},
		{name: "a bucket query hangs", blocked: buckets, took: 9 * time.Second},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				up := &fakeUpstream{responses: map[string][]string{
					buckets:              histogram("a:1"),
					"process_start_time": {"instance=a:1 1"},
				}}
				f := newFixture(t, up)
				f.run(t.Context(), identity("a:1")) // To learn the window.
				up.blocked = map[string]bool{tc.blocked: true}

				ctx, cancel := context.WithTimeout(t.Context(), 9*time.Second)
				defer cancel()
				start := time.Now()
				results := f.run(ctx, identity("a:1"))
				if took := time.Since(start); took != tc.took {
					t.Errorf("the run took %s, want %s", took, tc.took)
				}
				known := results.Responses(identity("a:1"))[query(t, "raft_log_lag")].Histogram.Layout() != nil
				if known != tc.bucketsKnown {
					t.Errorf("the histogram is known: %v, want %v", known, tc.bucketsKnown)
				}
			})
		})
	}
}
