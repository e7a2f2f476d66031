// SPDX-License-Identifier: Apache-2.0

package scrape_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/operator-store/operator_store_exporter/internal/gauge"
	"github.com/operator-store/operator_store_exporter/internal/scrape"
	"github.com/operator-store/operator_store_exporter/internal/storematch"
)

// In a fleet that is half converted, each target is queried in the form that it has, and in no
// other.
func TestNativeHistograms(t *testing.T) {
	const (
		bucketQuery = "tikv_grpc_msg_duration_seconds_bucket"
		nativeQuery = `histogram_count(sum by (job, instance) (rate(tikv_grpc_msg_duration_seconds{`
	)
	classic, native, idle := identity("classic:1"), identity("native:1"), identity("idle:1")
	up := &fakeUpstream{responses: map[string][]string{
		// 95 % and 99 % of 100 observations are reached at 5/10 and 9/10 of the bucket from 1 to 2.
		bucketQuery: histogram(classic.Instance),
		nativeQuery: {
			"instance=native:1,quantile=count 40", "instance=native:1,quantile=0.95 0.25",
			"instance=native:1,quantile=0.99 0.75",
			"instance=idle:1,quantile=count 0", "instance=idle:1,quantile=0.95 NaN",
			"instance=idle:1,quantile=0.99 NaN",
		},
	}}
	f := newFixture(t, up)
	f.native = nativeFor(f.catalog, "grpc_duration", native, idle)
	results := f.run(t.Context(), classic, idle, native)

	for _, tc := range []struct {
		target storematch.Identity
		gauge  string
		want   gauge.Value
	}{
		{target: classic, gauge: gauge.LatencyP95, want: gauge.Of(1.5)},
		{target: classic, gauge: gauge.LatencyP99, want: gauge.Of(1.9)},
		{target: classic, gauge: "operator_store_grpc_qps", want: gauge.Of(100)},
		{target: native, gauge: gauge.LatencyP95, want: gauge.Of(0.25)},
		{target: native, gauge: gauge.LatencyP99, want: gauge.Of(0.75)},
		{target: native, gauge: "operator_store_grpc_qps", want: gauge.Of(40)},
		{target: idle, gauge: gauge.LatencyP95, want: gauge.Value{}},
		{target: idle, gauge: gauge.LatencyP99, want: gauge.Value{}},
		{target: idle, gauge: "operator_store_grpc_qps", want: gauge.Of(0)},
	} {
		i, _ := f.catalog.Index(tc.gauge)
		got := f.catalog.Evaluate(results.Responses(tc.target))[i]
		if got != tc.want {
			t.Errorf("%s of %s is %v, want %v", tc.gauge, tc.target.Instance, got, tc.want)
		}
	}

	checkTargets := func(text string, want ...storematch.Identity) {
		t.Helper()
		expressions := up.expressions(text)
		if len(expressions) != 1 || countTargets(expressions[0]) != len(want) {
			t.Errorf("sent %q, want one query about %v", expressions, want)
		}

		for _, target := range want {
			if !strings.Contains(strings.Join(expressions, ""), target.Instance) {
				t.Errorf("%q lacks %s", expressions, target.Instance)
			}
		}
	}
	checkTargets(bucketQuery, classic)
	checkTargets(nativeQuery, native, idle)
	checkTargets("tikv_raftstore_log_lag_bucket", classic, native, idle) // Only one histogram is native.
	if n := len(up.expressions("rate(tikv_raftstore_log_lag{")); n != 0 {
		t.Errorf("sent %d queries for native histograms of the raft lag, want none", n)
	}
	if len(f.failures) > 0 {
		t.Errorf("counted the failures %v, want none", f.failures)
	}
}

// Native histograms are those of the replica that scraped the target last.
func TestNativeHistogramsOfReplicas(t *testing.T) {
	up := &fakeUpstream{responses: map[string][]string{
		"timestamp(up": {"instance=a:1,replica=x 100", "instance=a:1,replica=y 200"},
		"histogram_count": {
			"instance=a:1,replica=x,quantile=count 1", "instance=a:1,replica=y,quantile=count 2",
			"instance=a:1,replica=x,quantile=0.99 3", "instance=a:1,replica=y,quantile=0.99 4",
		},
	}}
	f := newFixture(t, up, "replica")
	f.native = nativeFor(f.catalog, "grpc_duration", identity("a:1"))
	responses := f.run(t.Context(), identity("a:1")).Responses(identity("a:1"))

	for name, want := range map[string]float64{"operator_store_grpc_qps": 2, gauge.LatencyP99: 4} {
		i, _ := f.catalog.Index(name)
		if got := f.catalog.Evaluate(responses)[i]; got != gauge.Of(want) {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
}

// An expression for native histograms has a selector for each quantile. All of them together stay
// within the bound of a query.
func TestMatchersOfNativeHistograms(t *testing.T) {
	const (
		maxBytes  = 12_000
		remainder = 1_000 // Of an expression without the instances.
	)

	var targets []storematch.Identity
	for i := range 100 {
		targets = append(targets, identity(fmt.Sprintf("%0500d", i)))
	}
	up := &fakeUpstream{}
	f := newFixture(t, up)
	f.native = nativeFor(f.catalog, "grpc_duration", targets...)
	f.run(t.Context(), targets...)

	named := 0
	for _, e := range up.expressions("histogram_count") {
		named += countTargets(e)
		if len(e) > maxBytes+remainder {
			t.Errorf("an expression has %d bytes, want at most %d", len(e), maxBytes+remainder)
		}
	}
	if named != len(targets) {
		t.Errorf("the expressions name %d targets, want %d", named, len(targets))
	}
}

// The rate window of the classic and the native form is the same.
func TestRateWindowOfNativeHistograms(t *testing.T) {
	catalog := newCatalog(t)
	planner := scrape.NewPlanner(catalog, 8*time.Minute, nil, nil)
	up := &fakeUpstream{}
	runner := scrape.NewRunner(scrape.Options{
		Upstream: up, Queries: catalog.Queries(), Planner: planner, Concurrency: 1,
		Learners: newLearners(catalog.Queries(), planner),
	})

	a, b := identity("a:1"), identity("b:1")
	plan := planner.Plan([]storematch.Identity{a, b}, nativeFor(catalog, "grpc_duration", b))
	runner.Run(t.Context(), plan, ignoreFailure)

	rates := up.expressions("rate(")
	if len(rates) == 0 {
		t.Error("no query has a rate")
	}

	for _, e := range rates {
		if strings.Count(e, "[8m]") != strings.Count(e, "rate(") {
			t.Errorf("%s has other windows than 8m", e)
		}
	}
}
