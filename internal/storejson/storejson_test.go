// SPDX-License-Identifier: Apache-2.0

package storejson_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"math"
	"os"
	"strings"
	"testing"

	"github.com/operator-store/operator_store_exporter/internal/gauge"
	"github.com/operator-store/operator_store_exporter/internal/report"
	"github.com/operator-store/operator_store_exporter/internal/report/reporttest"
	"github.com/operator-store/operator_store_exporter/internal/storejson"
)

var update = flag.Bool("update", false, "write the golden file instead of comparing it")

// Names of custom gauges.
const (
	threads = "operator_store_threads"
	stall   = "operator_store_stall"
)

// encode returns the document for reports.
func encode(t *testing.T, reports ...report.Report) string {
	t.Helper()
	var out strings.Builder
	if err := storejson.Write(&out, reports); err != nil {
		t.Fatal(err)
	}

	return out.String()
}

// The document has the fields that scripts depend on, in the order of the documentation; absent
// values are null. The gauges are fixed, so that a new gauge does not change the golden file. See
// TestEveryGaugeHasAField for all gauges.
func TestDocument(t *testing.T) {
	gauges := reporttest.Gauges(gauge.Up, "operator_store_qps", gauge.LatencyP95, gauge.LatencyP99, gauge.DiskUsed,
		gauge.DiskAvailable, gauge.DiskTotal, gauge.DiskUtilization, gauge.DiskFill, gauge.CPUPercent, gauge.CPUCores,
		"operator_store_raft_lag")
	gauges = append(gauges, gauge.Gauge{Name: threads}, gauge.Gauge{Name: stall})
	complete := reporttest.ValuesOf(gauges)
	complete[threads] = 120

	r := reporttest.Report("prod",
		reporttest.StoreWith(gauges, "1", "tikv-0:20160", complete),
		reporttest.StoreWith(gauges, "", "tikv-1:20160", nil))
	r.Gauges = gauges
	r.Problems = []report.Problem{{Kind: report.ProblemNoTargets, Cluster: "prod"}}
	got := encode(t, r)

	const golden = "testdata/stores.json"
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got\n%s\nwant the content of %s, which `go test ./internal/storejson -update` writes:\n%s",
			got, golden, want)
	}
}

// Each gauge of the catalog has a field of its own, and none is among the custom metrics.
func TestEveryGaugeHasAField(t *testing.T) {
	all := reporttest.Values()
	out := encode(t, reporttest.Report("prod",
		reporttest.Store("1", "tikv-0:20160", all), reporttest.Store("2", "tikv-1:20160", nil)))
	var document struct{ Stores []map[string]any }
	if err := json.Unmarshal([]byte(out), &document); err != nil {
		t.Fatal(err)
	}

	present, absent := document.Stores[0], document.Stores[1]
	for _, g := range gauge.Builtin() {
		field, want := strings.TrimPrefix(g.Name, "operator_store_"), all[g.Name]
		switch g.Name {
		case gauge.LatencyP95:
			field, want = "latency_p95_ms", 1000*want
		case gauge.LatencyP99:
			field, want = "latency_p99_ms", 1000*want
		}
		if got := present[field]; got != want {
			t.Errorf("%s of the store with all values is %v, want %v", field, got, want)
		}
		if got, ok := absent[field]; !ok || got != nil {
			t.Errorf("%s of the store without values is %v (present: %t), want null", field, got, ok)
		}
	}

	for i, store := range document.Stores {
		if want := len([]string{"cluster", "store_id", "address"}) + len(gauge.Builtin()); len(store) != want {
			t.Errorf("store %d has %d fields, want %d: %v", i, len(store), want, store)
		}
	}
}

func TestDocumentParts(t *testing.T) {
	gauges := append(gauge.Builtin(), gauge.Gauge{Name: threads}, gauge.Gauge{Name: stall})
	custom := reporttest.Report("prod", reporttest.StoreWith(gauges, "1", "a", map[string]float64{threads: 0}))
	custom.Gauges = gauges

	conflicting := append(gauge.Builtin(), gauge.Gauge{Name: "operator_store_address"},
		gauge.Gauge{Name: "operator_store_latency_p99_ms"}, gauge.Gauge{Name: "operator_store_metrics"})
	conflict := reporttest.Report("prod", reporttest.StoreWith(conflicting, "1", "a", map[string]float64{
		"operator_store_address": 1, "operator_store_latency_p99_ms": 2, "operator_store_metrics": 3,
	}))
	conflict.Gauges = conflicting

	tooLarge := map[string]float64{gauge.LatencyP99: math.MaxFloat64}
	for _, tc := range []struct {
		name    string
		reports []report.Report
		want    []string
		without []string
	}{
		{
			name: "no clusters",
			want: []string{`{"clusters":[],"stores":[]}`},
		},
		{
			name:    "nothing evaluated",
			reports: []report.Report{{Cluster: "prod"}},
			want: []string{
				`"upstream_up":false`, `"evaluated_at":null,"rate_window_seconds":null,"problems":[]}],"stores":[]}`,
			},
		},
		{
			name:    "custom gauges, one of them absent",
			reports: []report.Report{custom},
			want:    []string{`"threads":0,"stall":null,"metrics":{"operator_store_threads":0}}`},
		},
		{
			name:    "custom gauges named like other fields",
			reports: []report.Report{conflict},
			want: []string{
				`"address":"a"`, `"latency_p99_ms":null`,
				`"metrics":{"operator_store_address":1,"operator_store_latency_p99_ms":2,"operator_store_metrics":3}}`,
			},
			without: []string{`"address":1`, `"latency_p99_ms":2`, `"metrics":3`},
		},
		{
			name: "store that is not monitored",
			reports: []report.Report{
				reporttest.Report("prod", reporttest.Store("1", "a", map[string]float64{gauge.Monitored: 0})),
			},
			want: []string{`"up":null`, `"monitored":0`},
		},
		{
			name:    "milliseconds too large for a number",
			reports: []report.Report{reporttest.Report("prod", reporttest.Store("1", "a", tooLarge))},
			want:    []string{`"latency_p99_ms":null`},
		},
		{
			name:    "report without a gauge that always has a field",
			reports: []report.Report{{Cluster: "prod", Stores: []report.Store{{ID: "1"}}}},
			want:    []string{`"up":null,"qps":null,"latency_p95_ms":null`},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := compact(t, encode(t, tc.reports...))
			for _, want := range tc.want {
				if !strings.Contains(got, want) {
					t.Errorf("the document lacks %s", want)
				}
			}

			for _, unwanted := range tc.without {
				if strings.Contains(got, unwanted) {
					t.Errorf("the document has %s", unwanted)
				}
			}
			if t.Failed() {
				t.Log(got)
			}
		})
	}
}

// compact removes insignificant white space.
func compact(t *testing.T, document string) string {
	t.Helper()
	var out bytes.Buffer
	if err := json.Compact(&out, []byte(document)); err != nil {
		t.Fatal(err)
	}

	return out.String()
}
