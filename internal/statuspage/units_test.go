// SPDX-License-Identifier: Apache-2.0

package statuspage_test

import (
	"testing"
	"time"

	"github.com/operator-store/operator_store_exporter/internal/statuspage"
)

func TestHuman(t *testing.T) {
	now := time.UnixMilli(1_700_000_000_000)
	for _, tc := range []struct {
		name, gauge string
		value       float64
		want        string
	}{
		{"up", "operator_store_up", 1, "up"},
		{"down", "operator_store_up", 0, "down"},
		{"a gauge of one's own that ends alike", "operator_store_restore_up", 3, "3"},

		{"nothing", "operator_store_qps", 0, "0"},
		{"less than one", "operator_store_qps", 0.12345, "0.123"},
		{"a small number", "operator_store_qps", 12.345, "12.3"},
		{"hundreds", "operator_store_qps", 811.4, "811"},
		{"almost a thousand", "operator_store_qps", 999.7, "1k"},
		{"thousands", "operator_store_qps", 1536, "1.54k"},
		{"almost a million", "operator_store_qps", 999_999, "1M"},
		{"a billion", "operator_store_regions", 2.5e9, "2.5G"},
		{"beyond all prefixes", "operator_store_regions", 1e18, "1e+18"},
		{"below zero", "operator_store_regions", -1536, "-1.54k"},
		{"raft lag's none", "operator_store_raft_lag", 1.98, "1.98"},

		{"no bytes", "operator_store_disk_used_bytes", 0, "0B"},
		{"bytes", "operator_store_disk_used_bytes", 512, "512B"},
		{"a kibibyte", "operator_store_disk_used_bytes", 1 << 10, "1.0KiB"},
		{"almost a mebibyte", "operator_store_disk_used_bytes", 1<<20 - 1, "1.0MiB"},
		{"almost ten", "operator_store_disk_used_bytes", 9.97 * (1 << 30), "10GiB"},
		{"gibibytes", "operator_store_disk_used_bytes", 778 << 30, "778GiB"},
		{"tebibytes", "operator_store_disk_used_bytes", 2.1 * (1 << 40), "2.1TiB"},
		{"more than an integer holds", "operator_store_disk_used_bytes", 1 << 70, "1024EiB"},
		{"fewer bytes than none", "operator_store_growth_bytes", -1536, "-1.5KiB"},

		{"an empty disk", "operator_store_disk_fill_ratio", 0, "0.0%"},
		{"a ratio", "operator_store_disk_fill_ratio", 0.6374, "63.7%"},
		{"two cores", "operator_store_cpu_percent", 200, "200.0%"},

		{"no time", "operator_store_latency_p99_seconds", 0, "0s"},
		{"microseconds", "operator_store_latency_p99_seconds", 0.00005, "50µs"},
		{"almost a millisecond", "operator_store_latency_p99_seconds", 0.0009999, "1ms"},
		{"milliseconds", "operator_store_latency_p99_seconds", 0.0126, "12.6ms"},
		{"almost a second", "operator_store_latency_p99_seconds", 0.9999, "1s"},
		{"seconds", "operator_store_latency_p99_seconds", 1.5, "1.5s"},
		{"two minutes", "operator_store_resolved_ts_lag_seconds", 120, "2m"},
		{"two hours", "operator_store_resolved_ts_lag_seconds", 7200, "2h"},
		{"two days", "operator_store_resolved_ts_lag_seconds", 172_800, "2d"},
		{"a time that runs backwards", "operator_store_resolved_ts_lag_seconds", -0.5, "-500ms"},

		{"an age", "operator_store_last_scrape_timestamp_seconds", 1_699_999_995, "5s ago"},
		{"an old age", "operator_store_last_scrape_timestamp_seconds", 1_699_999_400, "10m ago"},
		{"what another clock has ahead of ours", "operator_store_last_scrape_timestamp_seconds", 1_700_000_003, "0s ago"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := statuspage.Human(tc.gauge, tc.value, now); got != tc.want {
				t.Errorf("%g of %s is %q, want %q", tc.value, tc.gauge, got, tc.want)
			}
		})
	}
}

func TestTitle(t *testing.T) {
	for gauge, want := range map[string]string{
		"operator_store_up":                            "up",
		"operator_store_qps":                           "qps",
		"operator_store_latency_p99_seconds":           "latency p99",
		"operator_store_disk_used_bytes":               "disk used",
		"operator_store_disk_fill_ratio":               "disk fill",
		"operator_store_cpu_percent":                   "cpu",
		"operator_store_cpu_cores":                     "cpu cores",
		"operator_store_last_scrape_timestamp_seconds": "last scrape",
		"operator_store_restore_up":                    "restore up",
		"operator_store_bytes":                         "bytes",
		"operator_store_uptime_seconds":                "uptime",
	} {
		if got := statuspage.Title(gauge); got != want {
			t.Errorf("%s is called %q, want %q", gauge, got, want)
		}
	}
}
