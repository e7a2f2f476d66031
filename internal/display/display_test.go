// SPDX-License-Identifier: Apache-2.0

package display_test

import (
	"testing"
	"time"

	"github.com/operator-store/operator_store_exporter/internal/display"
)

func TestHuman(t *testing.T) {
	now := time.UnixMilli(1_700_000_000_000)
	for _, group := range []struct {
		gauge string
		cases []humanCase
	}{
		{gauge: "operator_store_up", cases: []humanCase{
			{name: "up", value: 1, want: "up"},
			{name: "down", value: 0, want: "down"},
		}},
		{gauge: "operator_store_monitored", cases: []humanCase{
			{name: "monitored", value: 1, want: "yes"},
			{name: "not monitored", value: 0, want: "no"},
		}},
		{gauge: "operator_store_restore_up", cases: []humanCase{
			{name: "custom gauge whose name ends in up", value: 3, want: "3"},
		}},
		{gauge: "operator_store_qps", cases: []humanCase{
			{name: "zero", value: 0, want: "0"},
			{name: "below one", value: 0.12345, want: "0.123"},
			{name: "tens", value: 12.345, want: "12.3"},
			{name: "hundreds", value: 811.4, want: "811"},
			{name: "almost a thousand", value: 999.7, want: "1k"},
			{name: "thousands", value: 1536, want: "1.54k"},
			{name: "almost a million", value: 999_999, want: "1M"},
			{name: "billions", value: 2.5e9, want: "2.5G"},
			{name: "above all prefixes", value: 1e18, want: "1e+18"},
			{name: "negative", value: -1536, want: "-1.54k"},
		}},
		{gauge: "operator_store_raft_lag", cases: []humanCase{
			{name: "no raft lag", value: 1.98, want: "1.98"},
		}},
		{gauge: "operator_store_disk_used_bytes", cases: []humanCase{
			{name: "zero", value: 0, want: "0B"},
			{name: "bytes", value: 512, want: "512B"},
			{name: "one kibibyte", value: 1 << 10, want: "1.0KiB"},
			{name: "almost a mebibyte", value: 1<<20 - 1, want: "1.0MiB"},
			{name: "almost ten gibibytes", value: 9.97 * (1 << 30), want: "10GiB"},
			{name: "gibibytes", value: 778 << 30, want: "778GiB"},
			{name: "tebibytes", value: 2.1 * (1 << 40), want: "2.1TiB"},
			{name: "more than 64 bits", value: 1 << 70, want: "1024EiB"},
			{name: "negative", value: -1536, want: "-1.5KiB"},
		}},
		{gauge: "operator_store_disk_fill_ratio", cases: []humanCase{
			{name: "zero", value: 0, want: "0.0%"},
			{name: "ratio", value: 0.6374, want: "63.7%"},
		}},
		{gauge: "operator_store_cpu_percent", cases: []humanCase{
			{name: "two cores", value: 200, want: "200.0%"},
		}},
		{gauge: "operator_store_latency_p99_seconds", cases: []humanCase{
			{name: "zero", value: 0, want: "0s"},
			{name: "microseconds", value: 0.00005, want: "50µs"},
			{name: "almost a millisecond", value: 0.0009999, want: "1ms"},
			{name: "milliseconds", value: 0.0126, want: "12.6ms"},
			{name: "almost a second", value: 0.9999, want: "1s"},
			{name: "seconds", value: 1.5, want: "1.5s"},
			{name: "two minutes", value: 120, want: "2m"},
			{name: "two hours", value: 7200, want: "2h"},
			{name: "two days", value: 172_800, want: "2d"},
			{name: "negative", value: -0.5, want: "-500ms"},
		}},
		{gauge: "operator_store_last_scrape_timestamp_seconds", cases: []humanCase{
			{name: "seconds ago", value: 1_699_999_995, want: "5s ago"},
			{name: "minutes ago", value: 1_699_999_400, want: "10m ago"},
			{name: "in the future", value: 1_700_000_003, want: "0s ago"},
		}},
	} {
		for _, tc := range group.cases {
			t.Run(group.gauge+"/"+tc.name, func(t *testing.T) {
				if got := display.Human(group.gauge, tc.value, now); got != tc.want {
					t.Errorf("Human(%s, %g) = %q, want %q", group.gauge, tc.value, got, tc.want)
				}
			})
		}
	}
}

type humanCase struct {
	name  string
	value float64
	want  string
}

func TestTitle(t *testing.T) {
	for gauge, want := range map[string]string{
		"operator_store_up":                            "up",
		"operator_store_monitored":                     "monitored",
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
		if got := display.Title(gauge); got != want {
			t.Errorf("Title(%s) = %q, want %q", gauge, got, want)
		}
	}
}

func TestDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{0: "0s", 5 * time.Millisecond: "5ms", 3 * time.Hour: "3h"} {
		if got := display.Duration(d); got != want {
			t.Errorf("Duration(%d) = %q, want %q", d, got, want)
		}
	}
}

func TestPlural(t *testing.T) {
	for _, tc := range []struct {
		n    int
		noun string
		want string
	}{
		{n: 0, noun: "store", want: "0 stores"},
		{n: 1, noun: "store", want: "1 store"},
		{n: 2, noun: "store", want: "2 stores"},
		{n: 1, noun: "query", want: "1 query"},
		{n: 2, noun: "query", want: "2 queries"},
		{n: 2, noun: "TiKV store", want: "2 TiKV stores"},
		{n: 2, noun: "day", want: "2 days"},
	} {
		if got := display.Plural(tc.n, tc.noun); got != tc.want {
			t.Errorf("Plural(%d, %q) = %q, want %q", tc.n, tc.noun, got, tc.want)
		}
	}
}

func TestNames(t *testing.T) {
	for _, tc := range []struct {
		name  string
		names []string
		want  string
	}{
		{name: "none", names: nil, want: ""},
		{name: "one", names: []string{"a"}, want: `"a"`},
		{name: "quotes and control characters", names: []string{"a\"b", "\x1b[2J"}, want: `"a\"b", "\x1b[2J"`},
		{name: "five", names: []string{"a", "b", "c", "d", "e"}, want: `"a", "b", "c", "d", "e"`},
		{
			name:  "eight",
			names: []string{"a", "b", "c", "d", "e", "f", "g", "h"},
			want:  `"a", "b", "c", "d", "e" and 3 more`,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := display.Names(tc.names); got != tc.want {
				t.Errorf("Names(%q) = %s, want %s", tc.names, got, tc.want)
			}
		})
	}
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"tikv-0:20160":    "tikv-0:20160",
		"größe 容量":        "größe 容量",
		"\x1b[31mred":     "\uFFFD[31mred",
		"two\nlines\r\t.": "two\uFFFDlines\uFFFD\uFFFD.",
		"bad \xff byte":   "bad \uFFFD byte",
	} {
		if got := display.Printable(in); got != want {
			t.Errorf("Printable(%q) = %q, want %q", in, got, want)
		}
	}
}
