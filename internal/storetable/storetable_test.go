// SPDX-License-Identifier: Apache-2.0

package storetable_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/operator-store/operator_store_exporter/internal/gauge"
	"github.com/operator-store/operator_store_exporter/internal/httpclient"
	"github.com/operator-store/operator_store_exporter/internal/report"
	"github.com/operator-store/operator_store_exporter/internal/report/reporttest"
	"github.com/operator-store/operator_store_exporter/internal/storetable"
)

const threads = "operator_store_threads" // A custom gauge.

// newReport returns the report of a cluster with few gauges.
func newReport(cluster string, gauges []gauge.Gauge, stores ...report.Store) report.Report {
	r := reporttest.Report(cluster, stores...)
	r.Gauges = gauges

	return r
}

// render returns the table of reports.
func render(t *testing.T, color bool, reports ...report.Report) string {
	t.Helper()
	var out strings.Builder
	w := storetable.Writer{Writer: &out, Color: color}
	if err := storetable.WriteTable(w, reports, reporttest.EvaluatedAt); err != nil {
		t.Fatal(err)
	}

	return out.String()
}

func TestWriteTable(t *testing.T) {
	gauges := reporttest.Gauges(gauge.Up, gauge.LatencyP99, gauge.DiskUsed, gauge.DiskFill)
	values := reporttest.ValuesOf(gauges)
	withThreads := append(slices.Clone(gauges), gauge.Gauge{Name: threads, AbsentWhen: "no sample of its expression"})
	complete := reporttest.StoreWith(gauges, "1", "tikv-0:20160", values)

	down := reporttest.StoreWith(gauges, "10", "tikv-1:20160", map[string]float64{gauge.Up: 0})
	for i := range down.Cells {
		if !down.Cells[i].OK {
			down.Cells[i].Absence = report.AbsenceReason{Kind: report.StoreDown}
		}
	}
	refused := report.Problem{
		Kind: report.ProblemQueryFailed, Cluster: "gone", Queries: []string{"targets"},
		Reason: httpclient.ReasonConnection,
		Err: &httpclient.Error{
			Reason: httpclient.ReasonConnection, Request: "POST http://gone/api/v1/series",
			Err: errors.New("connection\nrefused"), Hint: "is it running?",
		},
	}
	unreachable := report.Report{Cluster: "gone", Gauges: gauges, Problems: []report.Problem{refused}}

	for _, tc := range []struct {
		name    string
		reports []report.Report
		want    string
	}{
		{
			name:    "all values",
			reports: []report.Report{newReport("prod", gauges, complete)},
			want: `
CLUSTER  ID  ADDRESS       UP  LATENCY    DISK   DISK
                                   P99    USED   FILL
prod      1  tikv-0:20160  up   12.5ms  3.0GiB  81.2%

1 store of 1 cluster, all queries succeeded
`,
		},
		{
			name: "a store that is down, and one without data",
			reports: []report.Report{
				newReport("prod", gauges, complete, down, reporttest.StoreWith(gauges, "", "tikv-2:20160", nil)),
			},
			want: `
CLUSTER  ID  ADDRESS         UP  LATENCY    DISK   DISK
                                     P99    USED   FILL
prod      1  tikv-0:20160    up   12.5ms  3.0GiB  81.2%
prod     10  tikv-1:20160  down        -       -      -
prod         tikv-2:20160     -        -       -      -

- up is absent for 1 store of cluster "prod": upstream has no up sample of the store
- latency p99 is absent for 1 store of cluster "prod": the store is down
- latency p99 is absent for 1 store of cluster "prod": no request in the rate window
- disk used is absent for 1 store of cluster "prod": the store is down
- disk used is absent for 1 store of cluster "prod": no series (TiKV before 5.4)
- disk fill is absent for 1 store of cluster "prod": the store is down
- disk fill is absent for 1 store of cluster "prod": available or total bytes are absent, or total is not above 0
3 stores of 1 cluster, all queries succeeded
`,
		},
		{
			name: "a gauge that only one cluster has",
			reports: []report.Report{
				newReport("a", gauges, complete),
				newReport("b", withThreads,
					reporttest.StoreWith(withThreads, "1", "x", map[string]float64{threads: 120}),
					reporttest.StoreWith(withThreads, "2", "y", values)),
			},
			want: `
CLUSTER  ID  ADDRESS       UP  LATENCY    DISK   DISK  THREADS
                                   P99    USED   FILL
a         1  tikv-0:20160  up   12.5ms  3.0GiB  81.2%        -
b         1  x              -        -       -      -      120
b         2  y             up   12.5ms  3.0GiB  81.2%        -

- up is absent for 1 store of cluster "b": upstream has no up sample of the store
- latency p99 is absent for 1 store of cluster "b": no request in the rate window
- disk used is absent for 1 store of cluster "b": no series (TiKV before 5.4)
- disk fill is absent for 1 store of cluster "b": available or total bytes are absent, or total is not above 0
- threads is absent for 1 store of cluster "b": no sample of its expression
3 stores of 2 clusters, all queries succeeded
`,
		},
		{
			name:    "the upstream of one of two clusters is unreachable",
			reports: []report.Report{newReport("prod", gauges, complete), unreachable},
			want: `
CLUSTER  ID  ADDRESS       UP  LATENCY    DISK   DISK
                                   P99    USED   FILL
prod      1  tikv-0:20160  up   12.5ms  3.0GiB  81.2%

! query "targets" of cluster "gone" failed: ` +
				"POST http://gone/api/v1/series: connection\uFFFDrefused: is it running?" + `
1 store of 2 clusters, 1 problem
`,
		},
		{
			name:    "no stores",
			reports: []report.Report{unreachable},
			want: `
! query "targets" of cluster "gone" failed: ` +
				"POST http://gone/api/v1/series: connection\uFFFDrefused: is it running?" + `
0 stores of 1 cluster, 1 problem
`,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := "\n" + render(t, false, tc.reports...); got != tc.want {
				t.Errorf("got\n%s\nwant\n%s", got, tc.want)
			}
		})
	}
}

// Names from upstream cannot send commands to the terminal.
func TestWriteTableHostileNames(t *testing.T) {
	const escape = "\x1b[2J"
	gauges := append(reporttest.Gauges(gauge.Up), gauge.Gauge{Name: threads, AbsentWhen: escape})
	r := newReport(escape, gauges, reporttest.StoreWith(gauges, escape, escape, nil))
	r.Problems = []report.Problem{{Kind: report.ProblemNoTargets, Cluster: escape}}

	if got := render(t, false, r); strings.Contains(got, "\x1b") || strings.Count(got, "\uFFFD[2J") != 4 {
		t.Errorf("the output is %q, want \\uFFFD in place of each escape character", got)
	}
}

func TestWriteTableColors(t *testing.T) {
	gauges := reporttest.Gauges(gauge.Up, gauge.DiskFill)
	store := func(up, fill float64) report.Store {
		return reporttest.StoreWith(gauges, "1", "a", map[string]float64{gauge.Up: up, gauge.DiskFill: fill})
	}
	monitored := reporttest.Gauges(gauge.Monitored)
	notMonitored := reporttest.StoreWith(monitored, "1", "a", map[string]float64{gauge.Monitored: 0})
	problem := newReport("prod", gauges)
	problem.Problems = []report.Problem{{Kind: report.ProblemNoTargets, Cluster: "prod"}}

	for _, tc := range []struct {
		name   string
		report report.Report
		want   []string
	}{
		{name: "down", report: newReport("prod", gauges, store(0, 0)), want: []string{"\x1b[31mdown\x1b[0m"}},
		{
			name: "not monitored", report: newReport("prod", monitored, notMonitored),
			want: []string{"\x1b[31mno\x1b[0m"},
		},
		{
			name: "disk at the first threshold", report: newReport("prod", gauges, store(1, 0.8)),
			want: []string{"  80.0%\n"},
		},
		{
			name: "disk above the first threshold", report: newReport("prod", gauges, store(1, 0.85)),
			want: []string{"\x1b[33m85.0%\x1b[0m"},
		},
		{
			name: "disk at the second threshold", report: newReport("prod", gauges, store(1, 0.9)),
			want: []string{"\x1b[33m90.0%\x1b[0m"},
		},
		{
			name: "disk above the second threshold", report: newReport("prod", gauges, store(1, 0.95)),
			want: []string{"\x1b[31m95.0%\x1b[0m"},
		},
		{
			name:   "absent values",
			report: newReport("prod", gauges, reporttest.StoreWith(gauges, "1", "a", nil)),
			want:   []string{"\x1b[2m-\x1b[0m", "\x1b[2m- up is absent for 1 store"},
		},
		{
			name: "success", report: newReport("prod", gauges, store(1, 0)),
			want: []string{"1 store of 1 cluster, \x1b[32mall queries succeeded\x1b[0m\n"},
		},
		{
			name: "a problem", report: problem,
			want: []string{"\x1b[31m! cluster \"prod\": ", "0 stores of 1 cluster, \x1b[31m1 problem\x1b[0m\n"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			colored := render(t, true, tc.report)
			for _, want := range tc.want {
				if !strings.Contains(colored, want) {
					t.Errorf("the output lacks %q: %q", want, colored)
				}
			}
			if got := render(t, false, tc.report); strings.Contains(got, "\x1b") {
				t.Errorf("there are escape sequences without colors: %q", got)
			}
		})
	}
}

func TestStyles(t *testing.T) {
	w := storetable.Writer{Color: true}
	for got, want := range map[string]string{
		w.Green("ok"):                     "\x1b[32mok\x1b[0m",
		w.Yellow("warn"):                  "\x1b[33mwarn\x1b[0m",
		w.Red("FAIL"):                     "\x1b[31mFAIL\x1b[0m",
		storetable.Writer{}.Red("failed"): "failed",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// failingWriter is a full disk, or a pipe whose reader is gone.
type failingWriter struct{}

var errWrite = errors.New("broken pipe")

func (failingWriter) Write([]byte) (int, error) { return 0, errWrite }

func TestWriteTableError(t *testing.T) {
	err := storetable.WriteTable(storetable.Writer{Writer: failingWriter{}}, nil, reporttest.EvaluatedAt)
	if !errors.Is(err, errWrite) {
		t.Errorf("WriteTable returned %v, want %v", err, errWrite)
	}
}
