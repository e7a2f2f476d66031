// SPDX-License-Identifier: Apache-2.0

package collector_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/operator-store/operator_store_exporter/collector"
)

// rangesOf returns the distinct ranges of the rates in the requests from a position on, as text.
func rangesOf(requests []request) []string {
	var ranges []string
	for _, r := range requests {
		for _, part := range strings.Split(r.expression, "rate(")[1:] {
			_, rest, _ := strings.Cut(part, "[")
			window, _, _ := strings.Cut(rest, "]")
			ranges = append(ranges, window)
		}
	}
	slices.Sort(ranges)

	return slices.Compact(ranges)
}

// The window of all rates, and the metric that exports it.
func TestRateWindow(t *testing.T) {
	for _, tc := range []struct {
		name     string
		config   string
		interval time.Duration // At which upstream scrapes.
		metric   string
		ranges   string
	}{
		{name: "15s", interval: 15 * time.Second, metric: "60", ranges: "1m"},
		{name: "30s", interval: 30 * time.Second, metric: "120", ranges: "2m"},
		{name: "1m", interval: time.Minute, metric: "240", ranges: "4m"},
		{name: "the interval is unknown", metric: "60", ranges: "1m"},
		{name: "auto", config: "  rate_window: auto\n", interval: time.Minute, metric: "240", ranges: "4m"},
		{
			name: "a configured window wins", config: "  rate_window: 90s\n", interval: time.Minute, metric: "90",
			ranges: "1m30s",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			up := &fakeUpstream{
				targets: oneTarget, interval: tc.interval,
				responses: map[string][]string{"up": {tikvA + " 1"}, queryLiveTargets: {tikvA + " 1"}},
			}
			s := scrape(t.Context(), t, newExporter(t, up, tc.config))

			const name = "operator_store_exporter_rate_window_seconds"
			if err := testutil.CollectAndCompare(s, strings.NewReader(fmt.Sprintf(`
# HELP %[1]s Window of all rates on this scrape.
# TYPE %[1]s gauge
%[1]s{cluster="c"} %[2]s
`, name, tc.metric)), name); err != nil {
				t.Error(err)
			}
			if got := rangesOf(up.received()); !slices.Equal(got, []string{tc.ranges}) {
				t.Errorf("the ranges of rates are %q, want only %s", got, tc.ranges)
			}
			want, err := time.ParseDuration(tc.metric + "s")
			if got := s.Reports()[0].RateWindow; err != nil || got != want {
				t.Errorf("the report has the rate window %s, want %s", got, want)
			}
		})
	}
}

// Without known targets there is no rate window.
func TestRateWindowWithoutTargets(t *testing.T) {
	up := &fakeUpstream{targets: oneTarget, failing: map[string]error{queryTargets: errHTTP}}
	s := scrape(t.Context(), t, newExporter(t, up, ""))
	if got := series(t, s, "operator_store_exporter_rate_window_seconds"); len(got) > 0 {
		t.Errorf("got %q, want no rate window", got)
	}
}

// A change of the scrape interval changes the rate window with the next refresh. What was learned
// about the buckets with the window before does not apply any longer. Without a change, it does.
func TestRateWindowChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up := &fakeUpstream{
			targets: oneTarget, interval: 15 * time.Second,
			responses: map[string][]string{
				"up": {tikvA + " 1"}, queryLiveTargets: {tikvA + " 1"}, "start_time": {tikvA + " 1"},
				"raft_log_lag": {
					tikvA + ",le=1 0", tikvA + ",le=2 90", tikvA + ",le=4 100", tikvA + ",le=8 100",
					tikvA + ",le=+Inf 100",
				},
			},
		}
		e := newExporter(t, up, "")

		for _, step := range []struct {
			name     string
			interval time.Duration
			refresh  bool
			window   string
			learned  bool // Whether only some buckets are queried.
		}{
			{name: "the first scrape", interval: 15 * time.Second, window: "1m"},
			{name: "the second scrape", interval: 15 * time.Second, window: "1m", learned: true},
			{name: "a refresh", interval: 15 * time.Second, refresh: true, window: "1m", learned: true},
			{name: "before the refresh", interval: time.Minute, window: "1m", learned: true},
			{name: "the interval is longer", interval: time.Minute, refresh: true, window: "4m"},
			{name: "after that", interval: time.Minute, window: "4m", learned: true},
			{name: "another refresh", interval: time.Minute, refresh: true, window: "4m", learned: true},
			{name: "the interval is shorter", interval: 15 * time.Second, refresh: true, window: "1m"},
		} {
			up.interval = step.interval
			if step.refresh {
				time.Sleep(discoveryInterval)
				scrape(t.Context(), t, e)
				synctest.Wait()
			}
			before := len(up.received())
			s := scrape(t.Context(), t, e)

			requests := up.received()[before:]
			if got := rangesOf(requests); !slices.Equal(got, []string{step.window}) {
				t.Errorf("%s: the ranges of rates are %q, want only %s", step.name, got, step.window)
			}
			want, _ := time.ParseDuration(step.window)
			if got := s.Reports()[0].RateWindow; got != want {
				t.Errorf("%s: the rate window is %s, want %s", step.name, got, want)
			}

			lagQueries := 0
			for _, r := range requests {
				if r.query != "raft_log_lag" {
					continue
				}
				lagQueries++
				if strings.Contains(r.expression, "le=~") != step.learned {
					t.Errorf("%s: sent %s, want only some buckets: %v", step.name, r.expression, step.learned)
				}
			}
			if lagQueries != 1 {
				t.Errorf("%s: sent %d queries for the raft lag, want one", step.name, lagQueries)
			}
		}
	})
}

// After a reload, the rate window is the one that was learned before, or the new configuration's.
func TestRateWindowAfterReload(t *testing.T) {
	for _, tc := range []struct {
		name          string
		before, after string // The configurations.
		want          time.Duration
	}{
		{name: "auto before and after", after: "  store_limit: 5\n", want: 4 * time.Minute},
		{name: "explicit after", after: "  rate_window: 90s\n", want: 90 * time.Second},
	} {
		t.Run(tc.name, func(t *testing.T) {
			up := &fakeUpstream{
				targets: oneTarget, interval: time.Minute,
				responses: map[string][]string{"up": {tikvA + " 1"}, queryLiveTargets: {tikvA + " 1"}},
			}
			before := newExporter(t, up, tc.before)
			scrape(t.Context(), t, before)

			up.blocked = map[string]chan struct{}{queryTargets: nil} // No refresh finishes.
			after := newExporterWith(t, loadConfig(t, tc.after), up, collector.Options{Previous: before})
			if got := scrape(t.Context(), t, after).Reports()[0].RateWindow; got != tc.want {
				t.Errorf("the rate window is %s, want %s", got, tc.want)
			}
		})
	}
}

// The query offset of the configuration applies to all queries, and to the evaluation timestamp.
func TestQueryOffset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up := &fakeUpstream{targets: oneTarget, responses: map[string][]string{"up": {tikvA + " 1"}}}
		e := newExporter(t, up, "  query_offset: 45s\n")
		scrape(t.Context(), t, e)
		before := len(up.received())
		s := scrape(t.Context(), t, e)

		want := time.Now().Add(clockOffset - 45*time.Second)
		for _, r := range up.received()[before:] {
			if r.query != queryTime && !r.at.Equal(want) {
				t.Errorf("query %q is evaluated at %s, want %s", r.query, r.at, want)
			}
		}
		const name = "operator_store_exporter_evaluation_timestamp_seconds"
		line := fmt.Sprintf(`%s{cluster="c"} %g`, name, float64(want.Unix()))
		if got := series(t, s, name); !slices.Equal(got, []string{line}) {
			t.Errorf("got %q, want %q", got, line)
		}
		if got := storeGauges(t, s); got != upLinesA {
			t.Errorf("got %q, want %q", got, upLinesA)
		}
	})
}
