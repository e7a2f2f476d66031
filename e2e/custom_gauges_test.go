// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/operator-store/operator_store_exporter/config"
	"github.com/operator-store/operator_store_exporter/e2e/simulator"
	"github.com/operator-store/operator_store_exporter/internal/doctest"
)

// exampleGauge is a gauge that examples/metrics.yml configures.
type exampleGauge struct {
	cluster, name string
	expr          string   // As in the truth table, or "" if no store has the gauge.
	absent        []string // Stores that do not export its metric.
}

var exampleGauges = []exampleGauge{
	{
		cluster: "prod", name: "operator_store_regions",
		expr: `tikv_raftstore_region_count{type="region",$target}`,
	},
	{
		cluster: "prod", name: "operator_store_coprocessor_requests_per_second",
		expr: `sum(rate(tikv_coprocessor_request_duration_seconds_count{$target}[1m]))`,
	},
	{
		cluster: "prod", name: "operator_store_write_stall_seconds",
		expr: `tikv_engine_write_stall{db="kv",type="write_stall_percentile99",$target} / 1000000`,
	},
	{
		cluster: "prod", name: "operator_store_memory_bytes",
		expr: `process_resident_memory_bytes{$target}`,
	},
	{
		cluster: "prod", name: "operator_store_resolved_ts_lag_seconds",
		expr:   `tikv_resolved_ts_min_resolved_ts_gap_millis{$target} / 1000`,
		absent: []string{"c"},
	},
	{
		cluster: "prod", name: "operator_store_disk_used_bytes",
		expr:   `tikv_store_size_bytes{type="used",$target}`,
		absent: []string{"c"},
	},
	{
		cluster: "old", name: "operator_store_disk_used_bytes",
		expr: `sum(tikv_engine_size_bytes{$target})`,
	},
	{
		cluster: "old", name: "operator_store_disk_utilization_ratio",
		expr: `sum(tikv_engine_size_bytes{$target}) / sum(tikv_store_size_bytes{type="capacity",$target})`,
	},
	{
		cluster: "old", name: "operator_store_regions",
		expr: "",
	},
}

func TestCustomGauges(t *testing.T) {
	t.Parallel()
	stores := map[string]simulator.Version{"a": simulator.V7, "b": simulator.V8, "c": simulator.V4}
	upstream := startVersions(t, stores)

	t.Run("gauges of the example equal what upstream returns", func(t *testing.T) {
		config := strings.ReplaceAll(doctest.Read(t, "examples/metrics.yml"), "http://localhost:9090", upstream.URL)
		exporter := startConfigured(t, config)
		page := exporter.scrape(t)

		for _, g := range exampleGauges {
			for store := range stores {
				for _, difference := range g.compare(t, page, upstream.URL, store) {
					t.Error(difference)
				}
			}
		}
	})

	t.Run("every gauge of the example is compared", func(t *testing.T) {
		cfg, err := config.LoadFile(root + "/examples/metrics.yml")
		if err != nil {
			t.Fatal(err)
		}

		for _, cluster := range cfg.Clusters {
			for _, m := range cluster.Metrics {
				isCompared := func(g exampleGauge) bool { return g.cluster == cluster.Name && g.name == m.Name }
				if !slices.ContainsFunc(exampleGauges, isCompared) {
					t.Errorf("e2e/custom_gauges_test.go: exampleGauges lacks %s of cluster %q", m.Name, cluster.Name)
				}
			}
		}
	})

	for _, tc := range customGaugeCases {
		t.Run(tc.name, func(t *testing.T) { tc.test(t, upstream.URL) })
	}
	t.Run("help of a built-in gauge is rejected", func(t *testing.T) {
		file := writeFile(t, "c.yml", `clusters:
- name: prod
  upstream: {url: http://a}
  metrics:
  - {name: operator_store_qps, help: Mine., expr: x}
`)
		_, err := runCommand(t, "check-config", file)
		const want = "line 5: operator_store_qps is built in and keeps its help text: remove help"
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the error is %v, want one that contains %q", err, want)
		}
	})
}

// compare returns how the gauge of a store on a page differs from what upstream returns for the
// same time.
func (g exampleGauge) compare(t *testing.T, p page, upstream, store string) (differences []string) {
	t.Helper()

	evaluated := fmt.Sprintf(`operator_store_exporter_evaluation_timestamp_seconds{cluster=%q}`, g.cluster)
	at := strconv.FormatFloat(p[evaluated], 'f', -1, 64)
	var want []float64
	if g.expr != "" {
		target := fmt.Sprintf(`job="tikv",instance="%s:20180"`, store)
		result, err := query(t.Context(), upstream, strings.ReplaceAll(g.expr, "$target", target), at)
		if err != nil {
			t.Fatal(err)
		}

		for _, s := range result {
			want = append(want, s.Value)
		}
	}

	series := fmt.Sprintf(`%s{address="%s:20180", cluster=%q, store_id=""}`, g.name, store, g.cluster)
	got, ok := p[series]
	if wantPresent := g.expr != "" && !slices.Contains(g.absent, store); ok != wantPresent {
		differences = append(differences, fmt.Sprintf("%s is present: %v, want %v", series, ok, wantPresent))
	}
	if ok != (len(want) == 1) || ok && got != want[0] {
		differences = append(differences, fmt.Sprintf("%s is %v (present %v), upstream has %v", series, got, ok, want))
	}

	return differences
}

// customGaugeCase is a configuration of custom gauges.
type customGaugeCase struct {
	name    string
	metrics string
	values  map[string]float64 // Gauges of store a.
	absent  []string           // Gauges that store a must not have.
	failed  string             // The query that fails.
	warning *warning           // About the query that fails.
}

var customGaugeCases = []customGaugeCase{
	{
		name:    "several samples per target are a failure",
		metrics: `[{name: operator_store_test_regions, expr: tikv_raftstore_region_count}]`,
		values:  map[string]float64{"operator_store_up": 1},
		absent:  []string{"operator_store_test_regions"},
		failed:  "operator_store_test_regions",
		warning: &warning{
			msg: responseDropped, cluster: "prod", query: "operator_store_test_regions", reason: "response",
			target: `{job="tikv", instance="a:20180"}`,
			err:    `^the response has several series; sum by \(job, instance\) \(\.\.\.\) would make them one$`,
		},
	},
	{
		name: "an expression that fails removes only its gauge",
		metrics: `[{name: operator_store_test_bad, ` +
			`expr: 'tikv_raftstore_region_count * on () group_left () tikv_store_size_bytes'}]`,
		values:  map[string]float64{"operator_store_up": 1},
		absent:  []string{"operator_store_test_bad", "operator_store_test_regions"},
		failed:  "operator_store_test_bad",
		warning: &warning{msg: queryFailed, cluster: "prod", query: "operator_store_test_bad", reason: "query"},
	},
	{
		name:    "a metric that does not exist is absent without a failure",
		metrics: `[{name: operator_store_test_none, expr: no_such_metric}]`,
		values:  map[string]float64{"operator_store_up": 1},
		absent:  []string{"operator_store_test_none"},
	},
	{
		name: "values that are not finite are absent",
		metrics: `[{name: operator_store_test_nan, expr: tikv_server_cpu_cores_quota / 0}, ` +
			`{name: operator_store_test_zero, expr: 0 * tikv_server_cpu_cores_quota}]`,
		values: map[string]float64{"operator_store_test_zero": 0},
		absent: []string{"operator_store_test_nan"},
	},
	{
		name: "both sides of a binary operation are of the same target",
		metrics: `[{name: operator_store_test_share, expr: 'tikv_raftstore_region_count{type="leader"} / ` +
			`ignoring (type) tikv_raftstore_region_count{type="region"}'}]`,
		values: map[string]float64{"operator_store_test_share": 1. / 3},
	},
}

func (tc customGaugeCase) test(t *testing.T, upstream string) {
	config := fmt.Sprintf("clusters:\n- name: prod\n  upstream: {url: %q}\n  metrics: %s\n", upstream, tc.metrics)
	exporter := startConfigured(t, config)
	page := exporter.scrape(t)

	const labels = `{address="a:20180", cluster="prod", store_id=""}`
	for gauge, want := range tc.values {
		if got, ok := page[gauge+labels]; !ok || math.Abs(got-want) > 1e-12 {
			t.Errorf("%s is %v (present %v), want %v", gauge, got, ok, want)
		}
	}

	for _, gauge := range tc.absent {
		if got, ok := page[gauge+labels]; ok {
			t.Errorf("%s is %v, want it absent", gauge, got)
		}
	}

	for series, success := range page.with("operator_store_exporter_query_success{") {
		failed := tc.failed != "" && labelsOf(series)["query"] == tc.failed
		if failed != (success == 0) {
			t.Errorf("%s is %v", series, success)
		}
	}
	if tc.warning != nil {
		exporter.log.requireWarning(t, *tc.warning)
	}
}
