// SPDX-License-Identifier: Apache-2.0

package scrape_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/operator-store/operator_store_exporter/internal/httpclient"
	"github.com/operator-store/operator_store_exporter/internal/scrape"
	"github.com/operator-store/operator_store_exporter/internal/storematch"
)

// limitedCase is a query that upstream rejects for more than limitedTargets targets.
type limitedCase struct {
	name   string
	query  string   // Its name.
	text   string   // In its expressions.
	labels []string // Of the samples that it returns about each target; "" for no further labels.
	native bool     // Whether all targets have native histograms of the query.
}

const (
	limitedTargets = 4
	allTargets     = 16
)

var limitedCases = []limitedCase{
	{name: "a grouped query", query: "storage_commands", text: "tikv_storage_command_total", labels: []string{""}},
	{name: "the query up", query: "up", text: "up{", labels: []string{""}},
	{name: "start times", query: "start_time", text: "process_start_time_seconds", labels: []string{""}},
	{
		name: "buckets", query: "raft_log_lag", text: "tikv_raftstore_log_lag_bucket",
		labels: []string{",le=1", ",le=2", ",le=+Inf"},
	},
	{
		name: "native histograms", query: "raft_log_lag", text: "histogram_count", native: true,
		labels: []string{",quantile=count", ",quantile=0.99"},
	},
}

// upstream returns an upstream with the limit.
func (tc limitedCase) upstream() *fakeUpstream {
	up := &fakeUpstream{limits: map[string]int{tc.text: limitedTargets}, responses: map[string][]string{}}
	for _, target := range manyTargets(allTargets) {
		for _, l := range tc.labels {
			up.responses[tc.text] = append(up.responses[tc.text], "instance="+target.Instance+l+" 1")
		}
	}

	return up
}

// If upstream rejects a query for its size, it is split until it fits, within the same scrape. The
// next scrapes start with the size that was accepted, and twice the size is tried every ten
// minutes.
func TestRejectedQueriesAreSplit(t *testing.T) {
	for _, tc := range limitedCases {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				up := tc.upstream()
				f := newFixture(t, up)
				if tc.native {
					f.native = nativeFor(f.catalog, tc.query, manyTargets(allTargets)...)
				}

				halved := []int{4, 4, 4, 4, 8, 8, 16}
				learned := []int{4, 4, 4, 4}
				doubled := []int{4, 4, 4, 4, 8, 8}
				for _, step := range []struct {
					name  string
					wait  time.Duration
					limit int
					want  []int // The number of targets in each request.
				}{
					{name: "the first scrape splits", limit: limitedTargets, want: halved},
					{name: "the next one starts with the size", limit: limitedTargets, want: learned},
					{
						name: "so do later ones", wait: 10*time.Minute - time.Second,
						limit: limitedTargets, want: learned,
					},
					{name: "twice the size is tried", wait: time.Second, limit: limitedTargets, want: doubled},
					{name: "but not again", limit: limitedTargets, want: learned},
					{name: "nor soon", wait: 10*time.Minute - time.Second, limit: allTargets, want: learned},
					{name: "the limit was raised", wait: time.Second, limit: allTargets, want: []int{8, 8}},
					{
						name: "the new size stays", wait: 10*time.Minute - time.Second,
						limit: allTargets, want: []int{8, 8},
					},
					{name: "twice the new size is tried", wait: time.Second, limit: allTargets, want: []int{16}},
					{name: "which stays", wait: time.Hour, limit: allTargets, want: []int{16}},
					{name: "the limit was lowered", limit: limitedTargets, want: halved},
				} {
					time.Sleep(step.wait)
					up.limits[tc.text] = step.limit
					up.forget()
					checkAllAnswered(t, f, tc, step.name)
					if got := up.sentSizes(tc.text); !slices.Equal(got, step.want) {
						t.Errorf("%s: sent requests about %v targets, want %v", step.name, got, step.want)
					}
				}
				if len(f.failures) > 0 {
					t.Errorf("counted the failures %v, want none", f.failures)
				}
			})
		})
	}
}

// checkAllAnswered scrapes, and verifies that the query of a case answered all targets.
func checkAllAnswered(t *testing.T, f *fixture, tc limitedCase, step string) {
	t.Helper()
	q := query(t, tc.query)
	results := f.run(t.Context(), manyTargets(allTargets)...)
	if !results.EvaluatedAt.Equal(evaluatedAt) || !results.Succeeded(q) {
		t.Errorf("%s: evaluated at %s, succeeded: %v", step, results.EvaluatedAt, results.Succeeded(q))
	}

	for _, target := range manyTargets(allTargets) {
		response := results.Responses(target)[q]
		if !results.Answered(q, target) || len(response.Samples) == 0 && response.Histogram.Layout() == nil {
			t.Errorf("%s: target %s has the response %v, want samples", step, target.Instance, response)
		}
	}
}

// If the query up is split, all of its parts are evaluated at one time, that of all other queries.
func TestSplitQueriesAreEvaluatedAtOneTime(t *testing.T) {
	up := &fakeUpstream{limits: map[string]int{"up{": limitedTargets}}
	f := newFixture(t, up)
	for i := range 2 {
		up.forget()
		f.run(t.Context(), manyTargets(allTargets)...)

		for _, r := range up.requests {
			rejected := countTargets(r.expression) > limitedTargets && strings.Contains(r.expression, "up{")
			if r.expression == "vector(0)" || rejected {
				continue // It determines the time, or has no result.
			}
			if !r.at.Equal(evaluatedAt) {
				t.Errorf("scrape %d: %s is evaluated at %s, want %s", i, r.expression, r.at, evaluatedAt)
			}
		}
		if n := len(up.expressions("vector(0)")) - len(up.expressions("or vector(0)")); n != 1 {
			t.Errorf("scrape %d: upstream's time is requested %d times, want once", i, n)
		}
	}
}

// If upstream's time cannot be queried, no part of the query up is sent: each would be evaluated at
// another time.
func TestSplitWithoutTime(t *testing.T) {
	up := &fakeUpstream{
		limits:  map[string]int{"up{": limitedTargets},
		failing: map[string]error{},
	}
	f := newFixture(t, up)
	f.run(t.Context(), manyTargets(allTargets)...) // To learn the size.

	up.forget()
	up.failing["vector(0)"] = errHTTP // It is part of the expressions of up, too.
	results := f.run(t.Context(), manyTargets(allTargets)...)
	if n := len(up.expressions("up{")); n != 0 {
		t.Errorf("sent %d queries for up, want none", n)
	}
	if want := map[string]int{"up http": 1}; !maps.Equal(f.failures, want) {
		t.Errorf("counted the failures %v, want %v", f.failures, want)
	}
	if want := evaluatedAt.Add(time.Millisecond); !results.EvaluatedAt.Equal(want) {
		t.Errorf("evaluated at %s, want upstream's clock, %s", results.EvaluatedAt, want)
	}

	for _, r := range up.requests {
		if r.expression != "vector(0)" && !r.at.Equal(results.EvaluatedAt) {
			t.Errorf("%s is evaluated at %s, want %s", r.expression, r.at, results.EvaluatedAt)
		}
	}
}

// A target that alone is too large is a failure, with the hint to raise the limit. It does not
// affect other targets.
func TestSingleTargetTooLarge(t *testing.T) {
	targets := manyTargets(5)
	large := targets[1]
	up := &fakeUpstream{failing: map[string]error{large.Instance: errTooLarge}}
	f := newFixture(t, up)
	results := f.run(t.Context(), targets...)

	for _, q := range builtinQueries(t) {
		if q.Name == "replica_time" {
			continue // It is not sent without replica labels.
		}

		for _, target := range targets {
			if answered := results.Answered(q, target); answered == (target == large) {
				t.Errorf("query %s: target %s is answered: %v", q.Name, target.Instance, answered)
			}
		}
		if n := f.failures[q.Name+" query"]; n != 1 {
			t.Errorf("query %s: %d failures are counted, want 1", q.Name, n)
		}

		errs := results.Reports()[q].Errs
		if len(errs) != 1 || httpclient.HintOf(errs[0]) != httpclient.HintTooLarge {
			t.Errorf("query %s: got the errors %v, want one with the hint %q", q.Name, errs, httpclient.HintTooLarge)
		}
	}
}

// A query fails as a whole if it is not rejected for its size.
func TestOtherFailuresAreNotSplit(t *testing.T) {
	up := &fakeUpstream{failing: map[string]error{"tikv_storage_command_total": errHTTP}}
	f := newFixture(t, up)
	f.run(t.Context(), manyTargets(allTargets)...)

	if got := up.sentSizes("tikv_storage_command_total"); !slices.Equal(got, []int{allTargets}) {
		t.Errorf("sent requests about %v targets, want one about all", got)
	}
	if want := map[string]int{"storage_commands http": 1}; !maps.Equal(f.failures, want) {
		t.Errorf("counted the failures %v, want %v", f.failures, want)
	}
}

// What is learned about one batch applies to all, but a small batch does not forget it.
func TestSizesOfSeveralBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const text = "tikv_storage_command_total"
		up := &fakeUpstream{limits: map[string]int{text: 100}}
		f := newFixture(t, up)
		targets := manyTargets(260) // One batch of 250, and one of 10.

		// 250 is halved to 125, which is halved to 63 and 62.
		f.run(t.Context(), targets...)
		if got, want := up.sentSizes(text), []int{10, 62, 62, 63, 63, 125, 125, 250}; !slices.Equal(got, want) {
			t.Errorf("sent requests about %v targets, want %v", got, want)
		}

		up.forget()
		f.run(t.Context(), targets...)
		if got, want := up.sentSizes(text), []int{10, 61, 63, 63, 63}; !slices.Equal(got, want) {
			t.Errorf("sent requests about %v targets, want %v", got, want)
		}

		// The small batch does not need the limit, and must not lift it for the large one.
		for range 2 {
			time.Sleep(10 * time.Minute)
			f.run(t.Context(), targets[250:]...)
		}
		up.forget()
		f.run(t.Context(), targets...)
		// Twice the size is 126: 126 and 124 are halved.
		if got, want := up.sentSizes(text), []int{10, 62, 62, 63, 63, 124, 126}; !slices.Equal(got, want) {
			t.Errorf("after the small batch: sent requests about %v targets, want %v", got, want)
		}
	})
}

// Each request of a query that is split is reported, with the time of the slowest one.
func TestReportOfSplitQuery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := query(t, "cpu_quota")
		run := scrape.NewQueryRun(q, nil, ignoreFailure)
		pair := []storematch.Identity{identity("a:1"), identity("b:1")}

		if tooLarge := run.Do(pair, "both", fail(fmt.Errorf("wrapped: %w", errTooLarge))); !tooLarge {
			t.Error("a query about two targets is not reported as too large")
		}
		if tooLarge := run.Do(pair[:1], "first", respond("instance=a:1 5")); tooLarge {
			t.Error("a query that succeeds is reported as too large")
		}
		if tooLarge := run.Do(pair[1:], "second", fail(errTooLarge)); tooLarge {
			t.Error("a query about one target is reported as too large, but cannot be split")
		}

		r, _ := run.Report()
		if want := []string{"both", "first", "second"}; !slices.Equal(r.Expressions, want) {
			t.Errorf("reported the expressions %q, want %q", r.Expressions, want)
		}
		if !slices.Equal(r.Errs, []error{errTooLarge}) {
			t.Errorf("reported the errors %v, want only that of the single target", r.Errs)
		}
	})
}
