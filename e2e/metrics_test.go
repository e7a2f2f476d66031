// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/operator-store/operator_store_exporter/e2e/simulator"
	"github.com/operator-store/operator_store_exporter/internal/doctest"
)

// What the gauges of examples/metrics.yml are, asked of upstream by hand for one target.
var examplesByHand = map[string]map[string]string{
	"prod": {
		"operator_store_regions":                 `tikv_raftstore_region_count{type="region",$t}`,
		"operator_store_leaders":                 `tikv_raftstore_region_count{type="leader",$t}`,
		"operator_store_write_stall_seconds":     `tikv_engine_write_stall{db="kv",type="write_stall_percentile99",$t} / 1000000`,
		"operator_store_memory_bytes":            `process_resident_memory_bytes{$t}`,
		"operator_store_resolved_ts_lag_seconds": `tikv_resolved_ts_min_resolved_ts_gap_millis{$t} / 1000`,
		"operator_store_disk_used_bytes":         `tikv_store_size_bytes{type="used",$t}`,
	},
	"old": {
		"operator_store_disk_used_bytes":        `sum(tikv_engine_size_bytes{$t})`,
		"operator_store_disk_utilization_ratio": `sum(tikv_engine_size_bytes{$t}) / sum(tikv_store_size_bytes{type="capacity",$t})`,
		"operator_store_regions":                "",
	},
}

func TestGaugesOfOnesOwn(t *testing.T) {
	stores := map[string]simulator.Version{"a": simulator.V7, "b": simulator.V8, "c": simulator.V4}
	upstream := startWatched(t, stores)
	t.Run("those of the example are what upstream says of each store", func(t *testing.T) {
		config := strings.ReplaceAll(doctest.Read(t, "examples/metrics.yml"), "http://localhost:9090", upstream.URL)
		exporter, _ := startExporter(t, "--config.file="+writeFile(t, "metrics.yml", config))
		page := scrape(t, exporter+"/metrics", 5*time.Second)
		there := 0
		for cluster, gauges := range examplesByHand {
			at := strconv.FormatFloat(page[fmt.Sprintf(`operator_store_exporter_evaluation_timestamp_seconds{cluster=%q}`, cluster)], 'f', -1, 64)
			for gauge, expression := range gauges {
				for store := range stores {
					var want []float64
					if expression != "" {
						answer, err := query(t.Context(), upstream.URL, strings.ReplaceAll(expression, "$t", fmt.Sprintf(`job="tikv",instance="%s:20180"`, store)), at)
						if err != nil {
							t.Fatal(err)
						}
						for _, s := range answer {
							want = append(want, s.Value)
						}
					}
					series := fmt.Sprintf(`%s{address="%s:20180", cluster=%q, store_id=""}`, gauge, store, cluster)
					got, found := page[series]
					if found != (len(want) == 1) || found && got != want[0] {
						t.Errorf("%s is %v (there: %v), upstream says %v", series, got, found, want)
					}
					there += len(want)
				}
			}
		}
		if there != 5*3+2-1+2*3 { // Two that the old TiKV does not tell, of the first cluster; two gauges of the second.
			t.Errorf("%d values were compared", there)
		}
	})
	for _, tc := range []struct {
		name, metrics string
		want          map[string]float64 // Of store a: NaN is absent.
		failed        string             // The query that fails.
		logged        string
	}{
		{
			name:    "several samples of a target are none",
			metrics: `[{name: operator_store_regions, expr: tikv_raftstore_region_count}]`,
			want:    map[string]float64{"operator_store_regions": math.NaN(), "operator_store_up": 1}, failed: "operator_store_regions",
			logged: "the answer has several series, which sum by (job, instance) (...) would make one, for {job=",
		},
		{
			name:    "one that upstream can't evaluate takes no other gauge",
			metrics: `[{name: operator_store_bad, expr: 'tikv_raftstore_region_count * on () group_left () tikv_store_size_bytes'}]`,
			want:    map[string]float64{"operator_store_bad": math.NaN(), "operator_store_up": 1, "operator_store_regions": math.NaN()}, failed: "operator_store_bad",
			logged: `query \"operator_store_bad\" of cluster \"prod\"`,
		},
		{
			name:    "one of metrics that there are not is absent, and no failure",
			metrics: `[{name: operator_store_none, expr: no_such_metric}]`,
			want:    map[string]float64{"operator_store_none": math.NaN(), "operator_store_up": 1},
		},
		{
			name:    "a number that is none is left out",
			metrics: `[{name: operator_store_nan, expr: tikv_server_cpu_cores_quota / 0}, {name: operator_store_zero, expr: 0 * tikv_server_cpu_cores_quota}]`,
			want:    map[string]float64{"operator_store_nan": math.NaN(), "operator_store_zero": 0},
		},
		{
			name:    "a match of both sides is one of each target",
			metrics: `[{name: operator_store_share, expr: 'tikv_raftstore_region_count{type="leader"} / ignoring (type) tikv_raftstore_region_count{type="region"}'}]`,
			want:    map[string]float64{"operator_store_share": 1. / 3},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			exporter, log := startExporter(t, "--config.file="+writeFile(t, "c.yml", fmt.Sprintf("clusters:\n- name: prod\n  upstream: {url: %q}\n  metrics: %s\n", upstream.URL, tc.metrics)))
			page := scrape(t, exporter+"/metrics", 5*time.Second)
			for gauge, want := range tc.want {
				got, found := page[gauge+`{address="a:20180", cluster="prod", store_id=""}`]
				if found == math.IsNaN(want) || found && math.Abs(got-want) > 1e-12 {
					t.Errorf("%s is %v (there: %v), want %v", gauge, got, found, want)
				}
			}
			for series, success := range page.with("operator_store_exporter_query_success{") {
				if failed := tc.failed != "" && strings.Contains(series, strconv.Quote(tc.failed)); failed != (success == 0) {
					t.Errorf("%s is %v", series, success)
				}
			}
			if tc.logged != "" {
				until(t, "the log to tell", func(context.Context) (bool, error) { return len(log.matching(tc.logged)) > 0, nil })
			}
		})
	}
	t.Run("a help of a built-in gauge is refused with its place", func(t *testing.T) {
		file := writeFile(t, "c.yml", "clusters:\n- name: prod\n  upstream: {url: http://a}\n  metrics:\n  - {name: operator_store_qps, help: Mine., expr: x}\n")
		if _, err := command(t, "check-config", file); err == nil || !strings.Contains(err.Error(), "line 5: operator_store_qps is built in, and keeps its help: remove help") {
			t.Errorf("the error is %v", err)
		}
	})
}
