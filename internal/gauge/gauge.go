// SPDX-License-Identifier: Apache-2.0

// Package gauge defines the catalog of store gauges with the queries that they need.
package gauge

// Gauge is one number that the exporter exposes per store.
type Gauge struct {
	Name string
	Help string
	// AbsentWhen says why the gauge can be absent for a store that upstream was successfully
	// queried for.
	AbsentWhen string

	source source
}

// Names of gauges that other code refers to. Everything else derives from the catalog.
const (
	Up              = "operator_store_up"
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
// row.
var builtin = []Gauge{
	{
		Name: Up,
		Help: "Whether upstream's last scrape of the store succeeded. " +
			"Also 0 for a configured store that upstream does not know.",
		AbsentWhen: "no up sample, although upstream has recent series of the store",
		source:     up{},
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
