// SPDX-License-Identifier: Apache-2.0

package collector_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/operator-store/operator_store_exporter/internal/storematch"
)

// discoverySteps is one exporter whose upstream changes step by step.
type discoverySteps struct {
	*testing.T
	up     *fakeUpstream
	scrape func() string // Returns the addresses of the stores.
}

func TestDiscoveryInBackground(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up := &fakeUpstream{
			targets:   oneTarget,
			responses: map[string][]string{"up": {tikvA + " 1", tikvB + " 1"}},
		}
		e := newExporter(t, up, "")
		run := discoverySteps{T: t, up: up, scrape: func() string {
			var addresses []string
			for _, line := range strings.Split(storeGauges(t, scrape(t.Context(), t, e)), "\n") {
				_, rest, _ := strings.Cut(line, `address="`)
				address, _, _ := strings.Cut(rest, `"`)
				addresses = append(addresses, address)
			}
			slices.Sort(addresses) // Each store has several gauges.

			return strings.Join(slices.Compact(addresses), " ")
		}}

		run.step("the first scrape waits for discovery", func() {}, "a:20180")
		run.step("a new target is unknown until the next refresh", func() {
			up.targets = []labels.Labels{target("tikv", "a:20180"), target("tikv", "b:20180")}
		}, "a:20180")
		run.step("the scrape does not wait for the refresh", func() {
			time.Sleep(discoveryInterval)
			up.blocked = map[string]chan struct{}{queryTargets: make(chan struct{})}
		}, "a:20180")
		run.step("refreshes do not run concurrently", func() { time.Sleep(time.Second) }, "a:20180")
		run.step("the new target is discovered", func() {
			close(up.blocked[queryTargets])
			synctest.Wait()
		}, "a:20180 b:20180")
		run.step("a target that is gone stays for the lookback", func() {
			up.targets = oneTarget
			time.Sleep(discoveryInterval)
			run.scrape()
			synctest.Wait()
		}, "a:20180 b:20180")
		run.step("targets stay if their query fails", func() {
			up.failing = map[string]error{queryTargets: errHTTP}
			time.Sleep(discoveryInterval)
			run.scrape()
			synctest.Wait()
		}, "a:20180 b:20180")
		run.step("a target that is gone is removed after the lookback", func() {
			up.failing = nil
			time.Sleep(discoveryInterval)
			run.scrape()
			synctest.Wait()
		}, "a:20180")

		const refreshes = 5 // The first one, and one after each of the four intervals.
		if n := up.count(queryTargets); n != refreshes {
			t.Errorf("discovery queried the targets %d times, want %d", n, refreshes)
		}
	})
}

// step changes the upstream and scrapes. The scrape must not take any time.
func (s discoverySteps) step(name string, change func(), want string) {
	s.Helper()
	refreshesBefore := s.up.count(queryTargets)
	change()

	start := time.Now()
	if got := s.scrape(); got != want {
		s.Errorf("%s: the stores are %s, want %s", name, got, want)
	}
	if took := time.Since(start); took != 0 {
		s.Errorf("%s: the scrape took %s", name, took)
	}
	if n := s.up.count(queryTargets) - refreshesBefore; n > 1 {
		s.Errorf("%s: discovery queried the targets %d times, want at most once", name, n)
	}
}

// expectedStore is a store with the instance of its target, "" if it has none.
type expectedStore struct{ id, address, instance string }

// What PD returns, itself or through its series in upstream, and the resulting stores.
func TestStoresFromPD(t *testing.T) {
	const pd = "  pd: {url: http://pd}\n"
	for _, tc := range []struct {
		name      string
		config    string
		stores    []storematch.Store // That PD returns.
		err       error              // PD's.
		series    []string           // PD's series in upstream.
		want      []expectedStore
		pdSuccess string // The metric query_success of the query pd; "" if there is none.
	}{
		{
			name: "PD is not configured and upstream has no series of it",
			want: []expectedStore{
				{address: "a:20180", instance: "a:20180"},
				{address: "b:20180", instance: "b:20180"},
			},
		},
		{
			name:   "upstream scrapes PD",
			series: []string{"address=a:20160,store=1 1", "address=b:20160,store=4 1", "address=f:3930,store=9 1"},
			want: []expectedStore{
				{id: "1", address: "a:20160", instance: "a:20180"},
				{id: "4", address: "b:20160", instance: "b:20180"},
			},
		},
		{
			name:   "PD is configured",
			config: pd,
			stores: []storematch.Store{
				{ID: "1", Address: "x:20160", StatusAddress: "a:20180"},
				{ID: "2", Address: "y:20160"},
			},
			series: []string{"address=b:20160,store=4 1"},
			want: []expectedStore{
				{id: "1", address: "x:20160", instance: "a:20180"},
				{id: "2", address: "y:20160"},
			},
			pdSuccess: "1",
		},
		{
			name:   "PD lists the former store of an address too",
			config: pd,
			stores: []storematch.Store{
				{ID: "1", Address: "a:20160", StatusAddress: "a:20180"},
				{ID: "9", Address: "a:20160", StatusAddress: "a:20180"},
			},
			want:      []expectedStore{{id: "9", address: "a:20160", instance: "a:20180"}},
			pdSuccess: "1",
		},
		{
			name:   "PD does not respond, upstream scrapes it",
			config: pd,
			err:    errRefused,
			series: []string{"address=a:20160,store=1 1"},
			want: []expectedStore{
				{address: "b:20180", instance: "b:20180"},
				{id: "1", address: "a:20160", instance: "a:20180"},
			},
			pdSuccess: "0",
		},
		{
			name:   "configured stores get their missing IDs",
			config: "  stores: [{address: 'A:20160'}, {address: 'b:20160', id: 7}]\n",
			series: []string{"address=a:20160,store=1 1", "address=b:20160,store=4 1"},
			want: []expectedStore{
				{id: "1", address: "A:20160", instance: "a:20180"},
				{id: "7", address: "b:20160", instance: "b:20180"},
			},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			up := &fakeUpstream{
				targets:   []labels.Labels{target("tikv", "a:20180"), target("tikv", "b:20180")},
				responses: map[string][]string{"up": {tikvA + " 1", tikvB + " 1"}, queryStoreIDs: tc.series},
				pd:        fakePD{stores: tc.stores, err: tc.err},
			}
			s := scrape(t.Context(), t, newExporter(t, up, tc.config))
			gauges := storeGauges(t, s)

			var info []string
			for _, w := range tc.want {
				labels := fmt.Sprintf(`{address=%q,cluster="c",store_id=%q}`, w.address, w.id)
				hasTarget := w.instance != ""
				monitored := map[bool]string{true: " 1", false: " 0"}[hasTarget]
				if line := "operator_store_monitored" + labels + monitored; !strings.Contains(gauges, line) {
					t.Errorf("there is no %s in\n%s", line, gauges)
				}
				if line := "operator_store_up" + labels + " 1"; strings.Contains(gauges, line) != hasTarget {
					t.Errorf("whether there is %s is %v, want %v:\n%s", line, !hasTarget, hasTarget, gauges)
				}
				if hasTarget {
					info = append(info, fmt.Sprintf(`operator_store_info{address=%q,cluster="c",store_id=%q,`+
						`upstream_instance=%q,upstream_job="tikv"} 1`, w.address, w.id, w.instance))
				}
			}
			if n := strings.Count(gauges, "operator_store_monitored{"); n != len(tc.want) {
				t.Errorf("%d stores, want %d:\n%s", n, len(tc.want), gauges)
			}
			got := series(t, s, "operator_store_info")
			slices.Sort(got)
			slices.Sort(info)
			if !slices.Equal(got, info) {
				t.Errorf("the targets are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(info, "\n"))
			}
			if got := querySuccess(t, s, "pd"); got != tc.pdSuccess {
				t.Errorf("the success of the query pd is %q, want %q", got, tc.pdSuccess)
			}
		})
	}
}

// querySuccess returns the value of the metric query_success of a query; "" if there is none.
func querySuccess(t *testing.T, c prometheus.Collector, query string) string {
	t.Helper()

	for _, line := range series(t, c, "operator_store_exporter_query_success") {
		if labels, value, _ := strings.Cut(line, "} "); strings.Contains(labels, fmt.Sprintf("query=%q", query)) {
			return value
		}
	}

	return ""
}

// PD's series end for a while when its leader changes. The stores keep their IDs for the
// lookback, which is two hours.
func TestStoreIDsWhilePDSeriesAreMissing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up := &fakeUpstream{targets: oneTarget, responses: map[string][]string{
			"up": {tikvA + " 1"}, queryStoreIDs: {"address=a:20160,store=1 1"},
		}}
		e := newExporter(t, up, "")

		const (
			identified = `operator_store_monitored{address="a:20160",cluster="c",store_id="1"} 1` + "\n" +
				`operator_store_up{address="a:20160",cluster="c",store_id="1"} 1`
			unidentified = upLinesA
		)
		for hours, want := range []string{identified, identified, identified, unidentified} {
			scrape(t.Context(), t, e)
			synctest.Wait()
			if got := storeGauges(t, scrape(t.Context(), t, e)); got != want {
				t.Errorf("%d hours after PD's last sample: got %s, want %s", hours, got, want)
			}
			up.responses[queryStoreIDs] = nil
			time.Sleep(discoveryInterval)
		}
	})
}

// If PD is gone, the stores that it returned last stay in use, and their age is exported and
// logged.
func TestStoresOfUnreachablePD(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		up := &fakeUpstream{
			targets:   oneTarget,
			responses: map[string][]string{"up": {tikvA + " 1"}},
			pd:        fakePD{stores: []storematch.Store{{ID: "1", Address: "a:20160"}}},
		}
		e := newLoggingExporter(t, up, "  pd: {url: http://pd}\n", &log)
		returned := time.Now()
		scrape(t.Context(), t, e)

		up.pd = fakePD{err: errRefused}
		time.Sleep(discoveryInterval)
		scrape(t.Context(), t, e)
		synctest.Wait()
		s := scrape(t.Context(), t, e)

		want := `operator_store_monitored{address="a:20160",cluster="c",store_id="1"} 1` + "\n" +
			`operator_store_up{address="a:20160",cluster="c",store_id="1"} 1`
		if got := storeGauges(t, s); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		const name = "operator_store_exporter_stores_timestamp_seconds"
		if err := testutil.CollectAndCompare(s, strings.NewReader(fmt.Sprintf(`
# HELP %[1]s Unix time at which PD last returned the stores in use.
# TYPE %[1]s gauge
%[1]s{cluster="c"} %[2]d
`, name, returned.Unix())), name); err != nil {
			t.Error(err)
		}
		upstreamUp := series(t, s, "operator_store_exporter_upstream_up")
		if want := `operator_store_exporter_upstream_up{cluster="c"} 1`; !slices.Equal(upstreamUp, []string{want}) {
			t.Errorf("got %q, want %q, because PD is not upstream", upstreamUp, want)
		}

		for _, text := range []string{
			"query=pd", "reason=connection", "GET http://pd", "connection refused",
			"the stores that PD returned 1h0m0s ago stay in use",
		} {
			if !strings.Contains(log.String(), text) {
				t.Errorf("the log lacks %q:\n%s", text, log.String())
			}
		}
	})
}
