// SPDX-License-Identifier: Apache-2.0

package gauge

import (
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
	// instance and le. For targets with native histograms, NativeExpr is sent instead.
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

// Response is the part of a query's result that belongs to one target. It may be empty.
type Response struct {
	Samples   []promql.Sample
	Histogram bucketwindow.Histogram // The histogram that the samples of a Buckets query make up.
	Partial   bool                   // Whether upstream may have left series out.
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
