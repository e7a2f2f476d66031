// SPDX-License-Identifier: Apache-2.0

package gauge

import (
	"slices"

	"github.com/prometheus/prometheus/promql"

	"github.com/operator-store/operator_store_exporter/internal/bucketwindow"
	"github.com/operator-store/operator_store_exporter/internal/promqlexpr"
)

// Shape describes which series a query returns for one target.
type Shape int

// The shapes of query results. Every query keeps the target's identity, the labels job and
// instance.
const (
	// Raw queries are not aggregated. They return one series per target; several series mean that
	// several targets share one identity.
	Raw Shape = iota
	// Grouped queries are aggregated by job, instance and possibly type.
	Grouped
	// Buckets queries return the cumulative buckets of a classic histogram, aggregated by job,
	// instance and le.
	Buckets
	// Custom queries come from the configuration. They must return exactly one series per target.
	Custom
)

// Query is an instant query for all stores at once.
type Query struct {
	Name  string // The value of the label query in the exporter's own metrics.
	Shape Shape
	// Expr is the expression without target matchers. Built-in expressions write the rate window as
	// [1m]; it is replaced by the cluster's. It is the zero Expr for requests that are not instant
	// queries.
	Expr promqlexpr.Expr
}

// HasExpr reports whether the query is written in PromQL, unlike the requests for targets and to
// PD.
func (q *Query) HasExpr() bool { return q.Expr != promqlexpr.Expr{} }

func raw(name, expression string) *Query {
	return &Query{Name: name, Shape: Raw, Expr: promqlexpr.MustParse(expression)}
}

func grouped(name, expression string) *Query {
	return &Query{Name: name, Shape: Grouped, Expr: promqlexpr.MustParse(expression)}
}

func buckets(name, expression string) *Query {
	return &Query{Name: name, Shape: Buckets, Expr: promqlexpr.MustParse(expression)}
}

// The built-in queries. Metrics, types and labels are TiKV's; see docs/metrics.md.
var (
	// QueryUp determines the evaluation time of all other queries. vector(0) makes sure that there
	// is a sample to read it from.
	QueryUp = raw("up", `up or vector(0)`)

	// QueryLastScrape returns the time of TiKV's newest sample. It uses one of TiKV's own series
	// because up has samples even if TiKV has none. Every version of TiKV exports this one.
	QueryLastScrape = raw("last_scrape", `timestamp(tikv_store_size_bytes{type="available"})`)

	// QueryReplicaTime returns when each replica last scraped the target, successfully or not. The
	// replica that scraped last is used, because up of a replica that is gone lingers for the
	// lookback of the upstream.
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

// instantQueries are the built-in queries of a scrape, in the order of the documentation. All
// except QueryUp are evaluated at the time that QueryUp returned.
var instantQueries = []*Query{
	QueryUp, QueryLastScrape, QueryReplicaTime, QueryStartTime, queryStorageCommands, queryGRPCDuration,
	queryStoreSize, queryCPUSeconds, queryCPUQuota, queryRaftLogLag,
}

// discoveryQueries run in the background.
var discoveryQueries = []*Query{QueryTargets, QueryStoreIDs, QueryPD}

// BuiltinQueries returns every built-in query, in the order of the documentation.
func BuiltinQueries() []*Query { return slices.Concat(discoveryQueries, instantQueries) }

// Response is the part of a query's result that belongs to one target. It may be empty.
type Response struct {
	Samples   []promql.Sample
	Histogram bucketwindow.Histogram // The histogram that the samples of a Buckets query make up.
}

// one returns the value of the only sample; it is absent if there is none, or more than one.
func (r Response) one() Value {
	if len(r.Samples) != 1 {
		return Value{}
	}

	return Of(r.Samples[0].F)
}

// Responses holds what upstream returned for one target at the evaluation time. A query that failed
// has no entry.
type Responses map[*Query]Response
