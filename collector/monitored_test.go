// SPDX-License-Identifier: Apache-2.0

package collector_test

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/operator-store/operator_store_exporter/internal/httpclient"
	"github.com/operator-store/operator_store_exporter/internal/report"
)

// errPartial is the error of a response with a warning.
var errPartial = &httpclient.Error{
	Reason: httpclient.ReasonPartial, Request: "response from http://upstream",
	Err: errors.New("the response may lack series: fetch series"), Hint: "check upstream's storage nodes",
}

const (
	upstreamUpLine   = `operator_store_exporter_upstream_up{cluster="c"} 1`
	upstreamDownLine = `operator_store_exporter_upstream_up{cluster="c"} 0`
)

// Whether a store is up and monitored, for each way in which upstream answers the query up: a store
// of which nothing is known is neither down nor unmonitored.
func TestUpAndMonitored(t *testing.T) {
	// The second store has no target.
	const stores = "  stores: [{address: 'a:20180'}, {address: 'z:20160'}]\n"
	const unmonitoredZ = `operator_store_monitored{address="z:20160",cluster="c",store_id=""} 0`
	for _, tc := range []struct {
		name       string
		up         []string // The response to the query up.
		failing    map[string]error
		partial    map[string]bool
		want       []string
		upstreamUp string
		failures   map[string]float64
	}{
		{
			name:       "up",
			up:         []string{tikvA + " 1"},
			want:       []string{monitoredLineA, unmonitoredZ, upLineA},
			upstreamUp: upstreamUpLine,
		},
		{
			name:       "down",
			up:         []string{tikvA + " 0"},
			want:       []string{monitoredLineA, unmonitoredZ, downLineA},
			upstreamUp: upstreamUpLine,
		},
		{
			name:       "no sample",
			want:       []string{unmonitoredLineA, unmonitoredZ},
			upstreamUp: upstreamUpLine,
		},
		{
			name:       "the query fails",
			up:         []string{tikvA + " 1"},
			failing:    map[string]error{"up": errHTTP},
			upstreamUp: upstreamDownLine,
			failures:   map[string]float64{"up http": 1},
		},
		{
			name:       "the response is partial, and not accepted",
			up:         []string{tikvA + " 1"},
			failing:    map[string]error{"up": errPartial},
			upstreamUp: upstreamDownLine,
			failures:   map[string]float64{"up partial": 1},
		},
		{
			name:       "an accepted partial response without a sample",
			partial:    map[string]bool{"up": true},
			upstreamUp: upstreamDownLine,
		},
		{
			name:       "an accepted partial response with a sample",
			up:         []string{tikvA + " 0"},
			partial:    map[string]bool{"up": true},
			want:       []string{monitoredLineA, downLineA},
			upstreamUp: upstreamDownLine,
		},
		{
			name:       "the response to another query is partial, and accepted",
			up:         []string{tikvA + " 1"},
			partial:    map[string]bool{"storage_commands": true},
			want:       []string{monitoredLineA, unmonitoredZ, upLineA},
			upstreamUp: upstreamDownLine,
		},
		{
			name:       "the response to another query is partial, and not accepted",
			up:         []string{tikvA + " 1"},
			failing:    map[string]error{"storage_commands": errPartial, "cpu_quota": errPartial},
			want:       []string{monitoredLineA, unmonitoredZ, upLineA},
			upstreamUp: upstreamDownLine,
			failures:   map[string]float64{"storage_commands partial": 1, "cpu_quota partial": 1},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			up := &fakeUpstream{
				targets: oneTarget, responses: map[string][]string{"up": tc.up},
				failing: tc.failing, partial: tc.partial,
			}
			s := scrape(t.Context(), t, newExporter(t, up, stores))

			if got, want := storeGauges(t, s), strings.Join(tc.want, "\n"); got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
			if got := series(t, s, "operator_store_exporter_upstream_up"); !slices.Equal(got, []string{tc.upstreamUp}) {
				t.Errorf("got %q, want %q", got, tc.upstreamUp)
			}
			if got := failures(t, s); !maps.Equal(got, tc.failures) {
				t.Errorf("counted the failures %v, want %v", got, tc.failures)
			}
		})
	}
}

// A target that vanishes is unmonitored, and never down. If upstream says that its responses may
// lack series, nothing is known.
func TestStoreOfVanishedTarget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		twoTargets := []labels.Labels{target("tikv", "a:20180"), target("tikv", "b:20180")}
		up := &fakeUpstream{responses: map[string][]string{}}
		e := newExporter(t, up, "")

		const (
			monitoredB   = `operator_store_monitored{address="b:20180",cluster="c",store_id=""} 1`
			unmonitoredB = `operator_store_monitored{address="b:20180",cluster="c",store_id=""} 0`
			upB          = `operator_store_up{address="b:20180",cluster="c",store_id=""} 1`
		)
		all := []string{monitoredLineA, monitoredB, upLineA, upB}
		for _, step := range []struct {
			name    string
			targets []labels.Labels
			up      []string
			failing map[string]error
			want    []string
		}{
			{name: "both are there", targets: twoTargets, up: []string{tikvA + " 1", tikvB + " 1"}, want: all},
			{
				name: "one vanishes without a warning", targets: oneTarget, up: []string{tikvA + " 1"},
				want: []string{monitoredLineA, unmonitoredB, upLineA},
			},
			{name: "it returns", targets: twoTargets, up: []string{tikvA + " 1", tikvB + " 1"}, want: all},
			{
				name: "it vanishes with a warning", targets: oneTarget, up: []string{tikvA + " 1"},
				failing: map[string]error{queryTargets: errPartial, "up": errPartial},
			},
			{name: "it returns again", targets: twoTargets, up: []string{tikvA + " 1", tikvB + " 1"}, want: all},
			{
				name: "it vanishes again", targets: oneTarget, up: []string{tikvA + " 1"},
				want: []string{monitoredLineA, unmonitoredB, upLineA},
			},
			{
				name: "for as long as the lookback", targets: oneTarget, up: []string{tikvA + " 1"},
				want: []string{monitoredLineA, unmonitoredB, upLineA},
			},
			{
				name: "and is forgotten after that", targets: oneTarget, up: []string{tikvA + " 1"},
				want: []string{monitoredLineA, upLineA},
			},
		} {
			up.targets, up.responses["up"], up.failing = step.targets, step.up, step.failing
			up.responses[queryLiveTargets] = step.up
			scrape(t.Context(), t, e)
			synctest.Wait() // For the refresh.
			s := scrape(t.Context(), t, e)
			if got, want := storeGauges(t, s), strings.Join(step.want, "\n"); got != want {
				t.Errorf("%s: got\n%s\nwant\n%s", step.name, got, want)
			}
			time.Sleep(discoveryInterval) // Half of the lookback.
		}
	})
}

// While the targets cannot be queried, a store without a target may have one by now.
func TestMonitoredWhileTargetsAreUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up := &fakeUpstream{targets: oneTarget, responses: map[string][]string{"up": {tikvA + " 1"}}}
		e := newExporter(t, up, "  stores: [{address: 'a:20180'}, {address: 'z:20160'}]\n")
		const unmonitoredZ = `operator_store_monitored{address="z:20160",cluster="c",store_id=""} 0`

		for _, step := range []struct {
			name    string
			failing map[string]error
			want    []string
			reason  report.AbsenceReason // Of whether the store without a target is monitored.
		}{
			{name: "known", want: []string{monitoredLineA, unmonitoredZ, upLineA}},
			{
				name: "unknown", failing: map[string]error{queryTargets: errPartial},
				want:   []string{monitoredLineA, upLineA},
				reason: report.AbsenceReason{Kind: report.QueryFailed, Query: "targets"},
			},
			{name: "known again", want: []string{monitoredLineA, unmonitoredZ, upLineA}},
		} {
			up.failing = step.failing
			scrape(t.Context(), t, e)
			synctest.Wait() // For the refresh.
			s := scrape(t.Context(), t, e)
			if got, want := storeGauges(t, s), strings.Join(step.want, "\n"); got != want {
				t.Errorf("%s: got\n%s\nwant\n%s", step.name, got, want)
			}

			r := s.Reports()[0]
			for i, g := range r.Gauges {
				if g.Name == "operator_store_monitored" && r.Stores[1].Cells[i].Absence != step.reason {
					t.Errorf("%s: the reason is %+v, want %+v", step.name, r.Stores[1].Cells[i].Absence, step.reason)
				}
			}
			time.Sleep(discoveryInterval)
		}
	})
}

// Partial responses to the discovery are failures as well. Nothing is exported about stores before
// the first complete response.
func TestPartialDiscovery(t *testing.T) {
	for _, tc := range []struct {
		name     string
		failing  string // The query.
		want     []string
		failures map[string]float64
	}{
		{name: "targets", failing: queryTargets, failures: map[string]float64{"targets partial": 1}},
		{name: "live targets", failing: queryLiveTargets, failures: map[string]float64{"targets partial": 1}},
		{
			// Labels would change once the series of PD arrive.
			name: "PD's series", failing: queryStoreIDs, failures: map[string]float64{"store_ids partial": 1},
		},
		{
			name: "native histograms", failing: queryNativeTargets, want: []string{monitoredLineA, upLineA},
			failures: map[string]float64{"targets partial": 1},
		},
		{
			name: "the scrape interval", failing: querySamples, want: []string{monitoredLineA, upLineA},
			failures: map[string]float64{"targets partial": 1},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			up := &fakeUpstream{
				targets:   oneTarget,
				responses: map[string][]string{"up": {tikvA + " 1"}, queryLiveTargets: {tikvA + " 1"}},
				failing:   map[string]error{tc.failing: errPartial},
			}
			s := scrape(t.Context(), t, newExporter(t, up, ""))

			if got, want := storeGauges(t, s), strings.Join(tc.want, "\n"); got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
			if got := failures(t, s); !maps.Equal(got, tc.failures) {
				t.Errorf("counted the failures %v, want %v", got, tc.failures)
			}
			upstreamUp := series(t, s, "operator_store_exporter_upstream_up")
			if got := upstreamUp; !slices.Equal(got, []string{upstreamDownLine}) {
				t.Errorf("got %q, want %q", got, upstreamDownLine)
			}

			problems := s.Reports()[0].Problems
			if len(problems) == 0 || !slices.ContainsFunc(problems, func(p report.Problem) bool {
				return p.Kind == report.ProblemQueryFailed && p.Reason == httpclient.ReasonPartial
			}) {
				t.Errorf("the report has the problems %v, want a partial response", problems)
			}
		})
	}
}

// The reason of a partial response is in the log.
func TestPartialResponseIsLogged(t *testing.T) {
	var log strings.Builder
	up := &fakeUpstream{
		targets: oneTarget, responses: map[string][]string{"up": {tikvA + " 1"}},
		failing: map[string]error{"storage_commands": errPartial},
	}
	scrape(t.Context(), t, newLoggingExporter(t, up, "", &log))

	for _, field := range []string{
		`msg="query failed"`, "query=storage_commands ", "reason=partial ",
		`err="response from http://upstream: the response may lack series: fetch series"`,
		`hint="check upstream's storage nodes"`,
	} {
		if !strings.Contains(log.String(), field) {
			t.Errorf("the log lacks %s:\n%s", field, log.String())
		}
	}
}
