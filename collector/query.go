// SPDX-License-Identifier: Apache-2.0

package collector

import (
	"slices"
	"strings"
)

// Query is one question to upstream about all stores at once. It is grouped by the target's
// identity, job and instance; what the gauges need beside it stands in the grouping too. One that is
// not grouped has one series a target, or there are several targets of one identity.
type Query struct {
	Name    string // The label query of the exporter's own metrics.
	Expr    string // PromQL; W stands for the rate window.
	grouped bool
	own     bool // Of the configuration: it has one series a target, or it tells none.

	quantiles []float64 // What the gauges want of its buckets.
}

func grouped(name, expression string) *Query {
	return &Query{Name: name, Expr: expression, grouped: true}
}

// own is a query of the configuration.
func own(name, expression string) *Query {
	return &Query{Name: name, Expr: expression, grouped: true, own: true}
}

// buckets tells whether the answer is the buckets of a histogram.
func (q *Query) buckets() bool { return !q.own && strings.Contains(q.Expr, "_bucket[") }

// The queries. Metrics, types and labels are TiKV's own, see docs/metrics.md.
var (
	// The vector(0) makes sure that there is an answer, for its timestamp is the scrape's instant.
	queryUp = &Query{Name: "up", Expr: `up or vector(0)`}

	// One of TiKV's own series tells when TiKV was last scraped, for up is there when TiKV is not. Every
	// version of TiKV has this one.
	queryLastScrape = &Query{Name: "last_scrape", Expr: `timestamp(tikv_store_size_bytes{type="available"})`}

	// Where there are replicas, the one that scraped the target last is heard, whether or not that succeeded: the up of one that is
	// gone stays for a while.
	queryReplicaTime = &Query{Name: "replica_time", Expr: `timestamp(up)`}

	// A process that has started anew may have other buckets.
	queryStartTime = grouped("start_time", `sum by (job, instance) (process_start_time_seconds)`)

	queryStorageCommands = grouped("storage_commands", `sum by (job, instance) (rate(tikv_storage_command_total[W]))`)
	queryGRPCDuration    = grouped("grpc_duration", `sum by (job, instance, le) (rate(tikv_grpc_msg_duration_seconds_bucket[W]))`)
	queryStoreSize       = grouped("store_size", `sum by (job, instance, type) (tikv_store_size_bytes{type=~"used|available|capacity"})`)
	queryCPUSeconds      = grouped("cpu_seconds", `sum by (job, instance) (rate(process_cpu_seconds_total[W]))`)
	queryCPUQuota        = grouped("cpu_quota", `sum by (job, instance) (tikv_server_cpu_cores_quota)`)
	queryRaftLogLag      = grouped("raft_log_lag", `sum by (job, instance, le) (rate(tikv_raftstore_log_lag_bucket[W]))`)
)

// What else is asked for, and reported as queries are: the targets, the stores of which PD tells upstream, and
// the stores that PD itself tells.
var (
	queryTargets  = &Query{Name: "targets"}
	queryStoreIDs = &Query{Name: "store_ids"}
	queryPD       = &Query{Name: "pd"}
)

// instantQueries are all but queryUp asked at the instant that queryUp's answer tells.
var instantQueries = []*Query{
	queryUp, queryLastScrape, queryReplicaTime, queryStartTime, queryStorageCommands, queryGRPCDuration, queryStoreSize,
	queryCPUSeconds, queryCPUQuota, queryRaftLogLag,
}

// backgroundQueries are asked while no scrape waits for them.
var backgroundQueries = []*Query{queryTargets, queryStoreIDs, queryPD}

// Queries returns every query that is built in, in the order of the documentation.
func Queries() []*Query { return slices.Concat(backgroundQueries, instantQueries) }
