// SPDX-License-Identifier: Apache-2.0

package simulator

import "math"

// Version is a TiKV release, with the properties in which the metrics of releases differ.
type Version struct {
	Name         string
	GRPCTypes    int      // Number of grpcTypes that it has.
	Priorities   []string // Values of the label priority, which 7.6 introduced.
	FirstBucket  float64  // Seconds; each bucket bound is twice the one before.
	Buckets      int
	CommandTypes int // Number of commandTypes that it has.
	StoreUsed    bool
	CPUQuota     bool
	WholeSeconds bool // process_cpu_seconds_total is a whole number.
}

// The simulated versions.
var (
	V4 = Version{Name: "4.0.16", GRPCTypes: 38, FirstBucket: 0.0005, Buckets: 20, CommandTypes: 24}
	V7 = Version{
		Name: "7.5.4", GRPCTypes: 46, FirstBucket: 0.00005, Buckets: 22, CommandTypes: 38,
		StoreUsed: true, CPUQuota: true, WholeSeconds: true,
	}
	V8 = Version{
		Name: "8.5.1", GRPCTypes: 50, Priorities: []string{"high", "low", "medium", "unknown"},
		FirstBucket: 0.00005, Buckets: 22, CommandTypes: 43, StoreUsed: true, CPUQuota: true, WholeSeconds: true,
	}

	// Small has few series, for tests with many stores.
	Small = Version{
		Name: "7.5.4", GRPCTypes: 2, FirstBucket: 0.00005, Buckets: 22, CommandTypes: 2,
		StoreUsed: true, CPUQuota: true, WholeSeconds: true,
	}
)

// latencyBounds returns the finite bounds of tikv_grpc_msg_duration_seconds.
func (v Version) latencyBounds() []float64 {
	bounds := make([]float64, v.Buckets)
	for i := range bounds {
		bounds[i] = v.FirstBucket * math.Pow(2, float64(i))
	}
	return bounds
}

// lagBounds are the finite bounds of tikv_raftstore_log_lag, the same in every version.
var lagBounds = []float64{2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 5120, 10240}

// Bounds and labels of tikv_coprocessor_request_duration_seconds, a few of those that TiKV has.
var (
	coprocessorBounds   = []float64{0.001, 0.01, 0.1, 1}
	coprocessorRequests = []string{"select", "index", "analyze_table"}
)

// grpcTypes are the values of the label type of tikv_grpc_msg_duration_seconds. TiKV exports all
// from the start.
var grpcTypes = []string{
	"invalid", "kv_get", "kv_scan", "kv_prewrite", "kv_pessimistic_lock", "kv_pessimistic_rollback", "kv_commit",
	"kv_cleanup", "kv_batch_get", "kv_batch_get_command", "kv_batch_rollback", "kv_txn_heart_beat",
	"kv_check_txn_status", "kv_scan_lock", "kv_resolve_lock", "kv_gc", "kv_delete_range", "raw_get", "raw_batch_get",
	"raw_batch_get_command", "raw_scan", "raw_batch_scan", "raw_put", "raw_batch_put", "raw_delete",
	"raw_delete_range", "raw_batch_delete", "unsafe_destroy_range", "physical_scan_lock", "register_lock_observer",
	"check_lock_observer", "remove_lock_observer", "coprocessor", "coprocessor_stream", "mvcc_get_by_key",
	"mvcc_get_by_start_ts", "split_region", "read_index",
	"kv_check_secondary_locks", "raw_coprocessor", "raw_get_key_ttl", "raw_compare_and_swap", "raw_checksum",
	"check_leader", "store_safe_ts", "batch_commands",
	"kv_flush", "kv_buffer_batch_get", "get_health_feedback", "broadcast_txn_status",
}

// commandTypes are the values of the label type of tikv_storage_command_total.
var commandTypes = []string{
	"get", "scan", "batch_get", "batch_get_command", "prewrite", "acquire_pessimistic_lock", "commit", "cleanup",
	"rollback", "pessimistic_rollback", "txn_heart_beat", "check_txn_status", "scan_lock", "resolve_lock",
	"resolve_lock_lite", "delete_range", "pause", "key_mvcc", "start_ts_mvcc", "raw_get", "raw_scan", "raw_put",
	"raw_delete", "raw_batch_get",
	"raw_batch_put", "raw_batch_get_command", "raw_delete_range", "raw_batch_scan", "raw_batch_delete",
	"raw_get_key_ttl", "raw_compare_and_swap", "raw_atomic_store", "raw_checksum", "check_secondary_locks",
	"unsafe_destroy_range", "physical_scan_lock", "flashback_to_version", "mvcc_by_key",
	"flush", "buffer_batch_get", "batch_rollback", "compare_and_swap", "get_health",
}
