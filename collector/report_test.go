// SPDX-License-Identifier: Apache-2.0

package collector_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/operator-store/operator_store_exporter/internal/gauge"
	"github.com/operator-store/operator_store_exporter/internal/report"
	"github.com/operator-store/operator_store_exporter/internal/storematch"
)

// A report never lacks anything, and is not late, because upstream does not report the URL of its
// own pages.
func TestReportExternalURL(t *testing.T) {
	for _, tc := range []struct {
		name    string
		failing map[string]error
		blocked map[string]chan struct{}
		want    string
	}{
		{name: "reported", want: "http://people"},
		{name: "failed", failing: map[string]error{queryExternalURL: errors.New("no")}},
		{name: "no response", blocked: map[string]chan struct{}{queryExternalURL: nil}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			up := &fakeUpstream{clockKnown: true, failing: tc.failing, blocked: tc.blocked}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()

			start := time.Now()
			reports, err := newExporter(t, up, "").Report(ctx)
			if err != nil || len(reports) != 1 {
				t.Fatalf("got the reports %+v, %v, want one", reports, err)
			}
			if got := reports[0].ExternalURL; got != tc.want {
				t.Errorf("the external URL is %q, want %q", got, tc.want)
			}
			if got, want := reports[0].ActiveServer, "http://a"; got != want {
				t.Errorf("the active server is %q, want %q", got, want)
			}
			if took := time.Since(start); took > 20*time.Second {
				t.Errorf("the report took %s", took)
			}
		})
	}
}

func TestReportUnknownCluster(t *testing.T) {
	if _, err := newExporter(t, &fakeUpstream{}, "").Report(t.Context(), "d"); err == nil {
		t.Error("there is a report for an unknown cluster")
	}
}

// Every cell of a report has a value or the reason why it is absent.
func TestReportAbsence(t *testing.T) {
	const qps = "operator_store_qps"
	for _, tc := range []struct {
		name      string
		config    string
		targets   []labels.Labels // If nil, the target tikvA.
		responses map[string][]string
		failing   map[string]error
		gauge     string
		want      report.AbsenceReason
	}{
		{
			name:      "present",
			responses: map[string][]string{"up": {tikvA + " 1"}, "storage_commands": {tikvA + " 0"}},
			gauge:     qps,
			want:      report.AbsenceReason{Kind: report.Present},
		},
		{
			name:      "no data",
			responses: map[string][]string{"up": {tikvA + " 1"}},
			gauge:     qps,
			want:      report.AbsenceReason{Kind: report.NoData, AbsentWhen: "no series"},
		},
		{
			name:      "store is down",
			responses: map[string][]string{"up": {tikvA + " 0"}},
			gauge:     qps,
			want:      report.AbsenceReason{Kind: report.StoreDown},
		},
		{
			name:      "query failed, even if the store is down",
			responses: map[string][]string{"up": {tikvA + " 0"}},
			failing:   map[string]error{"storage_commands": errHTTP},
			gauge:     qps,
			want:      report.AbsenceReason{Kind: report.QueryFailed, Query: "storage_commands"},
		},
		{
			name:      "query of an input failed",
			responses: map[string][]string{"up": {tikvA + " 1"}},
			failing:   map[string]error{"store_size": errHTTP},
			gauge:     gauge.DiskFill,
			want:      report.AbsenceReason{Kind: report.QueryFailed, Query: "store_size"},
		},
		{
			name: "response rejected",
			responses: map[string][]string{
				"up": {tikvA + " 1"}, "storage_commands": {tikvA + " 5", tikvA + " 6"},
			},
			gauge: qps,
			want:  report.AbsenceReason{Kind: report.QueryFailed, Query: "storage_commands"},
		},
		{
			name:      "custom expression has no sample",
			config:    "  metrics: [{name: operator_store_qps, expr: tikv_qps}]\n",
			responses: map[string][]string{"up": {tikvA + " 1"}, "storage_commands": {tikvA + " 5"}},
			gauge:     qps,
			want:      report.AbsenceReason{Kind: report.NoData, AbsentWhen: "no sample of its expression"},
		},
		{
			name:   "no target",
			config: "  stores: [{address: 'z:20160'}]\n",
			gauge:  qps,
			want:   report.AbsenceReason{Kind: report.NoTarget},
		},
		{
			name:    "several targets match",
			targets: []labels.Labels{target("x", "a:20180"), target("y", "a:20180")},
			gauge:   qps,
			want:    report.AbsenceReason{Kind: report.AmbiguousMatch},
		},
		{
			name:      "several targets share the identity",
			responses: map[string][]string{"up": {tikvA + ",cluster=x 1", tikvA + ",cluster=y 1"}},
			gauge:     qps,
			want:      report.AbsenceReason{Kind: report.DuplicateTargets},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			up := &fakeUpstream{targets: oneTarget, responses: tc.responses, failing: tc.failing}
			if tc.targets != nil {
				up.targets = tc.targets
			}

			r := scrape(t.Context(), t, newExporter(t, up, tc.config)).Reports()[0]
			if len(r.Stores) != 1 || len(r.Stores[0].Cells) != len(r.Gauges) {
				t.Fatalf("got the stores %+v, want one with a cell for each of %d gauges", r.Stores, len(r.Gauges))
			}

			for i, cell := range r.Stores[0].Cells {
				if cell.OK != (cell.Absence.Kind == report.Present) {
					t.Errorf("%s: present is %v, with the reason %+v", r.Gauges[i].Name, cell.OK, cell.Absence)
				}
				if r.Gauges[i].Name == tc.gauge && cell.Absence != tc.want {
					t.Errorf("the reason is %+v, want %+v", cell.Absence, tc.want)
				}
			}
		})
	}
}

// Stores are ordered by ID as numbers, then by address.
func TestReportOrder(t *testing.T) {
	up := &fakeUpstream{
		targets: []labels.Labels{target("tikv", "x:20180"), target("tikv", "w:20180")},
		responses: map[string][]string{queryStoreIDs: {
			"address=b:20160,store=10 1", "address=x:20160,store=9 1",
		}},
		pd: fakePD{stores: []storematch.Store{
			{ID: "10", Address: "a:20160"}, {ID: "9", Address: "b:20160"}, {ID: "100", Address: "c:20160"},
		}},
	}

	var got []string
	for _, s := range scrape(t.Context(), t, newExporter(t, up, "  pd: {url: http://pd}\n")).Reports()[0].Stores {
		got = append(got, s.ID+" "+s.Address)
	}
	if want := []string{"9 b:20160", "10 a:20160", "100 c:20160"}; !slices.Equal(got, want) {
		t.Errorf("got the stores %q, want %q", got, want)
	}
}

// The problems of a report are sorted by their text.
func TestReportProblems(t *testing.T) {
	up := &fakeUpstream{
		targets: []labels.Labels{target("x", "a:20180"), target("y", "a:20180"), target("x", "b:20180")},
		failing: map[string]error{"cpu_seconds": errHTTP},
		responses: map[string][]string{
			"storage_commands": {"job=x,instance=b:20180 5", "job=x,instance=b:20180 6"},
		},
	}

	var got []string
	r := scrape(t.Context(), t, newExporter(t, up, "  store_limit: 2\n")).Reports()[0]
	for _, p := range r.Problems {
		got = append(got, p.String())
	}
	want := []string{
		`query "cpu_seconds" of cluster "c" failed: POST http://upstream: 500 Internal Server Error: try again`,
		`query "storage_commands" of cluster "c": dropped the response for {job="x", instance="b:20180"}: ` +
			`the response has a series twice`,
	}
	if len(got) < len(want) || !slices.Equal(got[:len(want)], want) {
		t.Errorf("got the problems\n%s\nwant first\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if len(got) != 3 || r.Problems[2].Kind != report.ProblemAmbiguousMatch || r.Problems[2].Store.Address != "a:20180" {
		t.Errorf("got the problems\n%s\nwant last an ambiguous match of a:20180", strings.Join(got, "\n"))
	}
	if r.UpstreamUp {
		t.Error("upstream is up, although queries failed")
	}
}
