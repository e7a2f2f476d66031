// SPDX-License-Identifier: Apache-2.0

package collector_test

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/operator-store/operator_store_exporter/internal/gauge"
	"github.com/operator-store/operator_store_exporter/internal/report"
)

// A problem is logged when it occurs and when it is resolved, but not more than once in ten
// minutes.
func TestProblemLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		up := &fakeUpstream{targets: oneTarget, responses: map[string][]string{"up": {tikvA + " 1"}}}
		e := newLoggingExporter(t, up, "", &log)

		const (
			nothing  = ""
			occurs   = `level=warn msg="query failed"`
			resolved = `level=info msg="resolved: query failed"`
		)
		for _, step := range []struct {
			name  string
			fails bool
			after time.Duration // Since the scrape before.
			want  string
		}{
			{name: "no problem", want: nothing},
			{name: "the problem occurs", fails: true, after: 15 * time.Second, want: occurs},
			{name: "it lasts", fails: true, after: 15 * time.Second, want: nothing},
			{name: "it lasts long", fails: true, after: 10 * time.Minute, want: occurs},
			{name: "it is resolved", after: 15 * time.Second, want: resolved},
			{name: "it recurs soon", fails: true, after: 15 * time.Second, want: nothing},
			{name: "it is resolved soon", after: 15 * time.Second, want: nothing},
			{name: "it recurs late", fails: true, after: 10 * time.Minute, want: occurs},
		} {
			time.Sleep(step.after)
			log.Reset()
			up.failing = nil
			if step.fails {
				up.failing = map[string]error{"storage_commands": errHTTP, "cpu_quota": errHTTP}
			}
			scrape(t.Context(), t, e)

			got := strings.TrimSpace(log.String())
			if step.want == nothing {
				if got != "" {
					t.Errorf("%s: the log has %q, want nothing", step.name, got)
				}

				continue
			}
			if !strings.HasPrefix(got, step.want+" ") || strings.Count(got, "\n") > 0 {
				t.Errorf("%s: the log has %q, want one line that begins with %q", step.name, got, step.want)
			}

			for _, field := range []string{
				" cluster=c ", " query=storage_commands,cpu_quota ", " reason=http ",
				` err="POST http://upstream: 500 Internal Server Error`, ` hint="try again"`,
			} {
				if !strings.Contains(got, field) {
					t.Errorf("%s: the log has %q, which lacks %q", step.name, got, field)
				}
			}
		}
	})
}

// A client that disconnects is not a failure of upstream.
func TestCanceledScrapesAreNotCounted(t *testing.T) {
	for _, tc := range []struct {
		name         string
		beforeScrape bool   // Whether a scrape has finished before.
		blocked      string // The query during which the scrape is canceled.
	}{
		{name: "during a query", beforeScrape: true, blocked: "storage_commands"},
		{name: "during the first discovery", blocked: queryTargets},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log bytes.Buffer
				up := &fakeUpstream{targets: oneTarget, responses: map[string][]string{"up": {tikvA + " 1"}}}
				e := newLoggingExporter(t, up, "", &log)
				if tc.beforeScrape {
					scrape(t.Context(), t, e)
				}

				gate := make(chan struct{})
				up.blocked = map[string]chan struct{}{tc.blocked: gate}
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				var done sync.WaitGroup
				done.Go(func() { scrape(ctx, t, e) })
				synctest.Wait()
				cancel()
				done.Wait()
				close(gate)

				if got := failures(t, scrape(t.Context(), t, e)); len(got) > 0 {
					t.Errorf("the failures %v are counted", got)
				}
				if log.Len() > 0 {
					t.Errorf("the log has %s", log.String())
				}
			})
		})
	}
}

// The counter query_failures_total after one scrape.
func TestFailureCounters(t *testing.T) {
	const pd = "  pd: {url: http://pd}\n"
	twoTargets := []labels.Labels{target("tikv", "a:20180"), target("tikv", "b:20180")}
	for _, tc := range []struct {
		name      string
		config    string
		targets   []labels.Labels // If nil, the target tikvA.
		responses map[string][]string
		failing   map[string]error
		pdErr     error
		want      map[string]float64 // By query and reason. All others are zero.
	}{
		{
			name: "no failures",
		},
		{
			name:    "failed queries",
			failing: map[string]error{"storage_commands": errHTTP, "cpu_quota": errRefused},
			want:    map[string]float64{"storage_commands http": 1, "cpu_quota connection": 1},
		},
		{
			name:    "every failed request counts",
			targets: manyTargets(251),
			failing: map[string]error{"storage_commands": errHTTP, "grpc_duration": errHTTP},
			want:    map[string]float64{"storage_commands http": 2, "grpc_duration http": 2},
		},
		{
			name:    "every rejected response counts",
			targets: twoTargets,
			responses: map[string][]string{
				"storage_commands": {tikvA + " 5", tikvA + " 6", tikvB + " 5", tikvB + " 6"},
				"cpu_quota":        {tikvA + " 5", tikvB + " 5", tikvB + " 6", tikvB + " 7"},
				"store_size":       {tikvA + ",type=used 1", tikvA + ",type=capacity 1"},
			},
			want: map[string]float64{"storage_commands response": 2, "cpu_quota response": 1},
		},
		{
			name: "buckets that are not a histogram",
			responses: map[string][]string{
				"grpc_duration": {tikvA + ",le=1 5", tikvA + ",le=1 5", tikvA + ",le=+Inf 5"},
				"raft_log_lag":  {tikvA + ",le=2 100", tikvA + ",le=1 90"},
			},
			want: map[string]float64{"grpc_duration response": 1, "raft_log_lag response": 1},
		},
		{
			name:      "custom metric with several series per target",
			config:    "  metrics: [{name: operator_store_threads, expr: tikv_threads}]\n",
			responses: map[string][]string{"tikv_threads": {tikvA + ",name=x 1", tikvA + ",name=y 1"}},
			want:      map[string]float64{"operator_store_threads response": 1},
		},
		{
			name:    "failed discovery",
			failing: map[string]error{queryTargets: errHTTP},
			want:    map[string]float64{"targets http": 1},
		},
		{
			name:    "failed query for PD's series",
			failing: map[string]error{queryStoreIDs: errHTTP},
			want:    map[string]float64{"store_ids http": 1},
		},
		{
			name:   "PD does not respond",
			config: pd,
			pdErr:  errRefused,
			want:   map[string]float64{"pd connection": 1},
		},
		{
			name:    "more stores than store_limit",
			config:  "  store_limit: 1\n",
			targets: manyTargets(5),
			want:    map[string]float64{"targets limit": 1},
		},
		{
			name: "every store that several targets match",
			targets: []labels.Labels{
				target("x", "a:20180"), target("y", "a:20180"), target("x", "b:20180"), target("y", "b:20180"),
				target("x", "c:20180"),
			},
			want: map[string]float64{"targets ambiguous": 2},
		},
		{
			name:      "several targets with one identity",
			responses: map[string][]string{"up": {tikvA + ",cluster=x 1", tikvA + ",cluster=y 1"}},
			want:      map[string]float64{"targets ambiguous": 1},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			up := &fakeUpstream{
				targets: oneTarget, responses: tc.responses, failing: tc.failing, pd: fakePD{err: tc.pdErr},
			}
			if tc.targets != nil {
				up.targets = tc.targets
			}

			got := failures(t, scrape(t.Context(), t, newExporter(t, up, tc.config)))
			if !maps.Equal(got, tc.want) {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
}

// A first discovery that does not finish in time is a failure, which is counted on each scrape.
func TestSlowFirstDiscovery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		up := &fakeUpstream{targets: oneTarget, blocked: map[string]chan struct{}{queryTargets: gate}}
		e := newExporter(t, up, "")

		for n := range 2 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			s := scrape(ctx, t, e)
			cancel()
			want := map[string]float64{"targets timeout": float64(n + 1)}
			if got := failures(t, s); !maps.Equal(got, want) {
				t.Errorf("got the failures %v, want %v", got, want)
			}
			if got := querySuccess(t, s, "targets"); got != "0" {
				t.Errorf("the success of the query targets is %q, want 0", got)
			}
		}
		close(gate)
	})
}

// Counters exist before the first failure, because a rate needs their zeros.
func TestFailureCountersAtZero(t *testing.T) {
	e := newExporter(t, &fakeUpstream{targets: oneTarget}, "")
	counters := series(t, scrape(t.Context(), t, e), "operator_store_exporter_query_failures_total")

	var want []string
	for _, q := range gauge.BuiltinQueries() {
		for _, reason := range report.Reasons() {
			if reason != report.ReasonAmbiguous || q == gauge.QueryTargets {
				want = append(want, fmt.Sprintf(
					`operator_store_exporter_query_failures_total{cluster="c",query=%q,reason=%q} 0`, q.Name, reason))
			}
		}
	}
	slices.Sort(want)
	slices.Sort(counters)
	if !slices.Equal(counters, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(counters, "\n"), strings.Join(want, "\n"))
	}
}

// failures returns the counters query_failures_total of cluster "c" that are not zero, by query
// and reason.
func failures(t *testing.T, c prometheus.Collector) map[string]float64 {
	t.Helper()

	counters := map[string]float64{}
	for _, line := range series(t, c, "operator_store_exporter_query_failures_total") {
		var (
			query, reason string
			count         float64
		)
		if _, err := fmt.Sscanf(line,
			`operator_store_exporter_query_failures_total{cluster="c",query=%q,reason=%q} %g`, &query, &reason, &count,
		); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if count != 0 {
			counters[query+" "+reason] = count
		}
	}

	return counters
}
