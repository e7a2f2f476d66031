// SPDX-License-Identifier: Apache-2.0

package gauge

import "slices"

// Names of gauges that other code refers to. Everything else derives from the catalog.
const (
	Up              = "operator_store_up"
	Monitored       = "operator_store_monitored"
	LatencyP95      = "operator_store_latency_p95_seconds"
	LatencyP99      = "operator_store_latency_p99_seconds"
	DiskUsed        = "operator_store_disk_used_bytes"
	DiskAvailable   = "operator_store_disk_available_bytes"
	DiskTotal       = "operator_store_disk_total_bytes"
	DiskUtilization = "operator_store_disk_utilization_ratio"
	DiskFill        = "operator_store_disk_fill_ratio"
	CPUPercent      = "operator_store_cpu_percent"
	CPUCores        = "operator_store_cpu_cores"
)

// builtin is the table of built-in gauges, in the order of the documentation. To add a gauge, add a
// row, and if no query below returns its data, a query with its place in instantQueries.
var builtin = []Gauge{
	{
		Name:       Up,
		Help:       "Whether upstream's last scrape of the store succeeded: upstream's own up.",
		AbsentWhen: "upstream has no up sample of the store",
		source:     up{sample{fromQuery{QueryUp}}},
	},
	{
		Name:       Monitored,
		Help:       "Whether upstream has an up sample of the store, and so scrapes it.",
		AbsentWhen: "the response may lack series",
		source:     monitored{fromQuery{QueryUp}},
	},
	{
		Name:       "operator_store_qps",
		Help:       "Storage commands per second.",
		AbsentWhen: "no series",
		source:     sample{fromQuery{queryStorageCommands}},
	},
	{
		Name:       "operator_store_grpc_qps",
		Help:       "gRPC messages per second, all message types.",
		AbsentWhen: "no series",
		source:     observations{fromQuery{queryGRPCDuration}},
	},
	{
		Name:       LatencyP95,
		Help:       "95th percentile of gRPC message duration, all message types merged.",
		AbsentWhen: "no request in the rate window",
		source:     quantile{fromQuery{queryGRPCDuration}, 0.95},
	},
	{
		Name:       LatencyP99,
		Help:       "99th percentile of gRPC message duration, all message types merged.",
		AbsentWhen: "no request in the rate window",
		source:     quantile{fromQuery{queryGRPCDuration}, 0.99},
	},
	{
		Name:       DiskUsed,
		Help:       "Disk space used by TiKV's storage engine.",
		AbsentWhen: "no series (TiKV before 5.4)",
		source:     typed{fromQuery{queryStoreSize}, "used"},
	},
	{
		Name:       DiskAvailable,
		Help:       "Disk space available to TiKV.",
		AbsentWhen: "no series",
		source:     typed{fromQuery{queryStoreSize}, "available"},
	},
	{
		Name:       DiskTotal,
		Help:       "Capacity of TiKV's disk.",
		AbsentWhen: "no series",
		source:     typed{fromQuery{queryStoreSize}, "capacity"},
	},
	{
		Name:       DiskUtilization,
		Help:       "Used bytes divided by total bytes.",
		AbsentWhen: "used or total bytes are absent, or total is not above 0",
		source:     ratio{DiskUsed, DiskTotal},
	},
	{
		Name:       DiskFill,
		Help:       "Share of the disk that is not available, no matter what uses it.",
		AbsentWhen: "available or total bytes are absent, or total is not above 0",
		source:     complement{ratio{DiskAvailable, DiskTotal}},
	},
	{
		Name:       CPUPercent,
		Help:       "CPU usage of the TiKV process in percent of one core; can exceed 100.",
		AbsentWhen: "no series",
		source:     scaled{sample{fromQuery{queryCPUSeconds}}, 100},
	},
	{
		Name:       CPUCores,
		Help:       "CPU cores that the TiKV process may use.",
		AbsentWhen: "no series (TiKV before 5.0)",
		source:     sample{fromQuery{queryCPUQuota}},
	},
	{
		Name: "operator_store_raft_lag",
		Help: "99th percentile of the number of log entries that followers are behind this store's leaders; " +
			"1.98 means no lag.",
		AbsentWhen: "no observation in the rate window",
		source:     quantile{fromQuery{queryRaftLogLag}, 0.99},
	},
	{
		Name:       "operator_store_last_scrape_timestamp_seconds",
		Help:       "Unix time of upstream's last scrape of the store.",
		AbsentWhen: "no series",
		source:     sample{fromQuery{QueryLastScrape}},
	},
}

// Builtin returns the built-in gauges, in the order of the documentation.
func Builtin() []Gauge { return append([]Gauge(nil), builtin...) }

// The built-in queries. Metrics, types and labels are TiKV's; see docs/metrics.md.
var (
	// QueryUp determines the evaluation time of all other queries, unless upstream's time is
	// queried before it. vector(0) makes sure that there is a sample to read the time from.
	QueryUp = raw("up", `up or vector(0)`)

	// QueryLastScrape returns the time of TiKV's newest sample. It uses one of TiKV's own series
	// because up has samples even if TiKV has none. Every version of TiKV exports this one.
	QueryLastScrape = raw("last_scrape", `timestamp(tikv_store_size_bytes{type="available"})`)

	// QueryReplicaTime returns when each replica last scraped the target, successfully or not. The
	// replica that scraped last is used, because upstream still returns the last up of a stopped
	// replica until its own lookback has passed.
	QueryReplicaTime = raw("replica_time", `timestamp(up)`)

	// QueryStartTime detects restarts: a restarted process may have other buckets.
	QueryStartTime = grouped("start_time", `sum by (job, instance) (process_start_time_seconds)`)

	queryStorageCommands = grouped("storage_commands",
		`sum by (job, instance) (rate(tikv_storage_command_total[1m]))`)
	queryGRPCDuration = buckets("grpc_duration",
		`sum by (job, instance, le) (rate(tikv_grpc_msg_duration_seconds_bucket[1m]))`)
	queryStoreSize = grouped("store_size",
		`sum by (job, instance, type) (tikv_store_size_bytes{type=~"used|available|capacity"})`)
	queryCPUSeconds = grouped("cpu_seconds",
		`sum by (job, instance) (rate(process_cpu_seconds_total[1m]))`)
	queryCPUQuota = grouped("cpu_quota",
		`sum by (job, instance) (tikv_server_cpu_cores_quota)`)
	queryRaftLogLag = buckets("raft_log_lag",
		`sum by (job, instance, le) (rate(tikv_raftstore_log_lag_bucket[1m]))`)
)

// The discovery queries, which are reported like instant queries.
var (
	QueryTargets  = &Query{Name: "targets"}   // The targets of upstream that are TiKV.
	QueryStoreIDs = &Query{Name: "store_ids"} // The stores in the series that upstream scrapes from PD.
	QueryPD       = &Query{Name: "pd"}        // The stores that PD itself returns.
)

// instantQueries are the built-in queries of a scrape, in the order of the documentation. All of
// them are evaluated at one time.
var instantQueries = []*Query{
	QueryUp, QueryLastScrape, QueryReplicaTime, QueryStartTime, queryStorageCommands, queryGRPCDuration,
	queryStoreSize, queryCPUSeconds, queryCPUQuota, queryRaftLogLag,
}

// discoveryQueries run in the background.
var discoveryQueries = []*Query{QueryTargets, QueryStoreIDs, QueryPD}

// BuiltinQueries returns every built-in query, in the order of the documentation.
func BuiltinQueries() []*Query { return slices.Concat(discoveryQueries, instantQueries) }
