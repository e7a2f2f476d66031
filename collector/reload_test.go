// SPDX-License-Identifier: Apache-2.0

package collector_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/operator-store/operator_store_exporter/collector"
	"github.com/operator-store/operator_store_exporter/internal/storematch"
)

// After a reload, the first scrape has the IDs that PD returned before, even if PD is gone by then.
func TestReloadKeepsStoresOfPD(t *testing.T) {
	for _, tc := range []struct {
		name   string
		config string // After the reload.
		want   string
	}{
		{
			name:   "same PD",
			config: "  rate_window: 5m\n  pd: {url: http://pd}\n",
			want:   `store_id="1"`,
		},
		{
			name:   "same PD, another upstream selection",
			config: "  selector: '{tidb_cluster=\"x\"}'\n  pd: {url: http://pd}\n",
			want:   `store_id="1"`,
		},
		{
			name:   "another PD",
			config: "  pd: {url: http://other}\n",
			want:   `store_id=""`,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			up := &fakeUpstream{
				targets:   oneTarget,
				responses: map[string][]string{"up": {tikvA + " 1"}},
				pd:        fakePD{stores: []storematch.Store{{ID: "1", Address: "a:20160"}}},
			}
			before := newExporter(t, up, "  pd: {url: http://pd}\n")
			scrape(t.Context(), t, before)

			up.pd = fakePD{err: errRefused}
			after := newExporterWith(t, loadConfig(t, tc.config), up, collector.Options{Previous: before})
			if got := storeGauges(t, scrape(t.Context(), t, after)); !strings.Contains(got, tc.want) {
				t.Errorf("got %q, want one with %s", got, tc.want)
			}
		})
	}
}

// Counters of a cluster continue after a reload.
func TestReloadKeepsCounters(t *testing.T) {
	up := &fakeUpstream{targets: oneTarget, failing: map[string]error{"storage_commands": errHTTP}}
	before := newExporter(t, up, "")
	scrape(t.Context(), t, before)

	after := newExporterWith(t, loadConfig(t, "  rate_window: 5m\n"), up, collector.Options{Previous: before})
	s := scrape(t.Context(), t, after)
	want := map[string]float64{"storage_commands http": 2}
	if got := failures(t, s); !maps.Equal(got, want) {
		t.Errorf("got the failures %v, want %v", got, want)
	}
	// Each client of the fake upstream counts 3.
	queued := series(t, s, "operator_store_exporter_queries_queued_total")
	if want := `operator_store_exporter_queries_queued_total{cluster="c"} 6`; !slices.Equal(queued, []string{want}) {
		t.Errorf("got %q, want %q", queued, want)
	}
}
