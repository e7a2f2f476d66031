// SPDX-License-Identifier: Apache-2.0

// Package truth lists what each gauge and query of the exporter is, written by hand and without the
// exporter's code.
//
// It is the one list of gauges of the end-to-end tests: everything else that they need to know
// about gauges derives from it. Check compares it with the exporter's catalog.
package truth

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/operator-store/operator_store_exporter/internal/gauge"
)

// Gauge is a gauge that every store has.
type Gauge struct {
	Name string

	// Query names the query that the gauge depends on: if it fails, the gauge is absent.
	Query string

	// Expr is the PromQL expression by which a person would query the gauge for one store. $target
	// stands for the matchers of the store's target, and the rate window is 10s.
	Expr string

	// Native is the expression for an upstream that has native histograms only, if it differs.
	Native string

	// The gauge is absent for a TiKV 4.0, for a TiKV without requests, or for a TiKV that exports
	// no capacity.
	AbsentOnV4, AbsentIdle, AbsentWithoutCapacity bool
}

// Gauges are the gauges that are built in. To add a gauge, add a row.
var Gauges = []Gauge{
	{
		Name:  "operator_store_up",
		Query: "up",
		Expr:  `up{$target}`,
	},
	{
		Name:  "operator_store_monitored",
		Query: "up",
		Expr:  `group(up{$target}) or vector(0)`,
	},
	{
		Name:  "operator_store_qps",
		Query: "storage_commands",
		Expr:  `sum(rate(tikv_storage_command_total{$target}[10s]))`,
	},
	{
		Name:   "operator_store_grpc_qps",
		Query:  "grpc_duration",
		Expr:   `sum(rate(tikv_grpc_msg_duration_seconds_bucket{le="+Inf",$target}[10s]))`,
		Native: `histogram_count(sum(rate(tikv_grpc_msg_duration_seconds{$target}[10s])))`,
	},
	{
		Name:  "operator_store_latency_p95_seconds",
		Query: "grpc_duration",
		Expr: `histogram_quantile(0.95, ` +
			`sum by (le) (rate(tikv_grpc_msg_duration_seconds_bucket{$target}[10s])))`,
		Native:     `histogram_quantile(0.95, sum(rate(tikv_grpc_msg_duration_seconds{$target}[10s])))`,
		AbsentIdle: true,
	},
	{
		Name:  "operator_store_latency_p99_seconds",
		Query: "grpc_duration",
		Expr: `histogram_quantile(0.99, ` +
			`sum by (le) (rate(tikv_grpc_msg_duration_seconds_bucket{$target}[10s])))`,
		Native:     `histogram_quantile(0.99, sum(rate(tikv_grpc_msg_duration_seconds{$target}[10s])))`,
		AbsentIdle: true,
	},
	{
		Name:       "operator_store_disk_used_bytes",
		Query:      "store_size",
		Expr:       `tikv_store_size_bytes{type="used",$target}`,
		AbsentOnV4: true,
	},
	{
		Name:  "operator_store_disk_available_bytes",
		Query: "store_size",
		Expr:  `tikv_store_size_bytes{type="available",$target}`,
	},
	{
		Name:                  "operator_store_disk_total_bytes",
		Query:                 "store_size",
		Expr:                  `tikv_store_size_bytes{type="capacity",$target}`,
		AbsentWithoutCapacity: true,
	},
	{
		Name:  "operator_store_disk_utilization_ratio",
		Query: "store_size",
		Expr: `tikv_store_size_bytes{type="used",$target} / ` +
			`ignoring (type) (tikv_store_size_bytes{type="capacity",$target} > 0)`,
		AbsentOnV4:            true,
		AbsentWithoutCapacity: true,
	},
	{
		Name:  "operator_store_disk_fill_ratio",
		Query: "store_size",
		Expr: `1 - tikv_store_size_bytes{type="available",$target} / ` +
			`ignoring (type) (tikv_store_size_bytes{type="capacity",$target} > 0)`,
		AbsentWithoutCapacity: true,
	},
	{
		Name:  "operator_store_cpu_percent",
		Query: "cpu_seconds",
		Expr:  `100 * rate(process_cpu_seconds_total{$target}[10s])`,
	},
	{
		Name:       "operator_store_cpu_cores",
		Query:      "cpu_quota",
		Expr:       `tikv_server_cpu_cores_quota{$target}`,
		AbsentOnV4: true,
	},
	{
		Name:       "operator_store_raft_lag",
		Query:      "raft_log_lag",
		Expr:       `histogram_quantile(0.99, sum by (le) (rate(tikv_raftstore_log_lag_bucket{$target}[10s])))`,
		Native:     `histogram_quantile(0.99, sum(rate(tikv_raftstore_log_lag{$target}[10s])))`,
		AbsentIdle: true,
	},
	{
		Name:  "operator_store_last_scrape_timestamp_seconds",
		Query: "last_scrape",
		Expr:  `max(timestamp(tikv_store_size_bytes{type="available",$target}))`,
	},
}

var endOfGauges = previousLine()

// For returns the expression for the target with the given matchers and rate window. Native says
// whether upstream has native histograms only.
func (g Gauge) For(matchers string, rateWindow time.Duration, native bool) string {
	expression := g.Expr
	if native && g.Native != "" {
		expression = g.Native
	}
	window := strconv.FormatInt(int64(rateWindow.Seconds()), 10) + "s"
	return strings.NewReplacer("$target", matchers, "[10s]", "["+window+"]").Replace(expression)
}

// Query is a query that the exporter sends to an upstream.
type Query struct {
	Name string

	// Mark is a part of the query's expression or selector that no other query has.
	Mark string

	// Background queries refresh the targets and stores between scrapes.
	Background bool

	// Optional queries are sent only if the configuration requires it.
	Optional bool
}

// Queries are the queries that are built in. To add a query, add a row.
var Queries = []Query{
	{Name: "up", Mark: "up{"},
	{Name: "last_scrape", Mark: "timestamp("},
	{Name: "start_time", Mark: "process_start_time_seconds"},
	{Name: "storage_commands", Mark: "tikv_storage_command_total"},
	{Name: "grpc_duration", Mark: "tikv_grpc_msg_duration_seconds_bucket"},
	{Name: "store_size", Mark: "by (job, instance, type)"},
	{Name: "cpu_seconds", Mark: "process_cpu_seconds_total"},
	{Name: "cpu_quota", Mark: "tikv_server_cpu_cores_quota"},
	{Name: "raft_log_lag", Mark: "tikv_raftstore_log_lag_bucket"},
	{Name: "targets", Mark: "tikv_server_info", Background: true},
	{Name: "store_ids", Mark: "pd_scheduler_store_status", Background: true},
	{Name: "replica_time", Mark: "timestamp(up", Optional: true},
	{Name: "pd", Background: true, Optional: true},
}

var endOfQueries = previousLine()

// previousLine returns the place of the line two lines above its caller, where a table of this file
// ends.
func previousLine() string {
	_, _, line, _ := runtime.Caller(1)
	return fmt.Sprintf("e2e/truth/truth.go:%d", line-2)
}

// Names returns the names of all gauges.
func Names() []string {
	return Select(func(Gauge) bool { return true })
}

// Select returns the names of the gauges for which is returns true.
func Select(is func(Gauge) bool) []string {
	var names []string
	for _, g := range Gauges {
		if is(g) {
			names = append(names, g.Name)
		}
	}
	return names
}

// QueryOf returns the name of the query that a gauge depends on, or "" if there is no such gauge.
func QueryOf(gauge string) string {
	for _, g := range Gauges {
		if g.Name == gauge {
			return g.Query
		}
	}
	return ""
}

// GaugesOf returns the names of the gauges that depend on a query.
func GaugesOf(query string) []string {
	return Select(func(g Gauge) bool { return g.Query == query })
}

// Check returns an error that names each difference between the tables and the exporter's catalog,
// each series that the simulator lacks, and the line to change.
func Check() error {
	var gauges, queries, wantGauges, wantQueries []string
	for _, g := range Gauges {
		gauges = append(gauges, g.Name)
	}

	for _, q := range Queries {
		queries = append(queries, q.Name)
	}

	for _, g := range gauge.Builtin() {
		wantGauges = append(wantGauges, g.Name)
	}

	for _, q := range gauge.BuiltinQueries() {
		wantQueries = append(wantQueries, q.Name)
	}

	errs := []error{
		compare(endOfGauges, "gauge", "Gauges", gauges, wantGauges),
		compare(endOfQueries, "query", "Queries", queries, wantQueries),
	}
	for _, g := range Gauges {
		if !slices.Contains(queries, g.Query) {
			errs = append(errs, fmt.Errorf("%s: %s depends on %q, which Queries lacks", endOfGauges, g.Name, g.Query))
		}
		if !strings.Contains(g.Expr, "$target") {
			errs = append(errs, fmt.Errorf("%s: the expression of gauge %s lacks $target", endOfGauges, g.Name))
		}
		if isHistogram := strings.Contains(g.Expr, "_bucket"); isHistogram != (g.Native != "") {
			errs = append(errs, fmt.Errorf(
				"%s: gauge %s must have an expression for native histograms if it depends on buckets, and only then",
				endOfGauges, g.Name))
		}
	}

	return errors.Join(append(errs, checkSimulator()...)...)
}

// compare returns an error for each name that a table lacks, or has without reason.
func compare(end, kind, table string, got, want []string) error {
	var errs []error
	for _, name := range want {
		if !slices.Contains(got, name) {
			errs = append(errs, fmt.Errorf("%s: %s lacks the %s %s: add its row here", end, table, kind, name))
		}
	}

	for _, name := range got {
		if !slices.Contains(want, name) {
			errs = append(errs,
				fmt.Errorf("%s: the exporter has no %s %s: remove its row of %s", end, kind, name, table))
		}
	}
	return errors.Join(errs...)
}
