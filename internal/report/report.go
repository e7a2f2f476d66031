// SPDX-License-Identifier: Apache-2.0

// Package report describes the result of a scrape as data.
package report

import (
	"slices"
	"strings"
	"time"

	"github.com/operator-store/operator_store_exporter/internal/gauge"
	"github.com/operator-store/operator_store_exporter/internal/httpclient"
	"github.com/operator-store/operator_store_exporter/internal/storematch"
)

// Report is the result of one scrape of one cluster. It is immutable.
type Report struct {
	Cluster      string
	UpstreamUp   bool          // Whether every query succeeded and was complete, not counting requests to PD.
	EvaluatedAt  time.Time     // By upstream's clock; zero if nothing was evaluated.
	ActiveServer string        // URL of the upstream server in use.
	Servers      []string      // URLs of all upstream servers.
	ExternalURL  string        // Where upstream's own pages are; "" if it does not report that.
	RateWindow   time.Duration // Of every rate in the built-in queries; 0 if nothing was queried.
	QueuedTotal  uint64        // Requests to upstream that have ever waited because of concurrency_limit.

	StoresKnown bool      // Whether upstream has ever returned its targets.
	PDTime      time.Time // When PD itself last returned the stores in use, by the local clock; zero if it never did.
	Gauges      []gauge.Gauge
	Stores      []Store // Sorted by ID, then address.
	Queries     []Query // In the order of the documentation.
	Problems    []Problem
}

// Query describes how one query went.
type Query struct {
	Name        string
	Expressions []string // As they were sent; none if the query is not PromQL.
	Duration    time.Duration
	Partial     bool        // A response that was accepted may lack series.
	Errs        []error     // One per failed request, each of type *httpclient.Error or wrapping one.
	Rejections  []Rejection // Responses about one target that were dropped.
}

// Rejection is the response about one target that was dropped because it is not what was queried
// for.
type Rejection struct {
	Target storematch.Identity
	Err    error
}

// Failed reports whether a request of the query failed, or a response was dropped.
func (q Query) Failed() bool { return len(q.Errs)+len(q.Rejections) > 0 }

// Reasons returns why the query failed, each reason once, in the order of the documentation.
func (q Query) Reasons() []httpclient.Reason {
	var failures []httpclient.Reason
	for _, err := range q.Errs {
		failures = append(failures, httpclient.ReasonOf(err))
	}
	if len(q.Rejections) > 0 {
		failures = append(failures, httpclient.ReasonResponse)
	}

	return slices.DeleteFunc(httpclient.Reasons(), func(r httpclient.Reason) bool {
		return !slices.Contains(failures, r)
	})
}

// Store is one store with its gauges.
type Store struct {
	ID      string // PD's store ID; "" if unknown.
	Address string
	Match   storematch.Match
	Cells   []Cell // In the order of the report's gauges.
}

// Cell is the value of one gauge of one store, or the reason why it is absent.
type Cell struct {
	gauge.Value
	Absence AbsenceReason
}

// Value returns the value of a gauge by name. It is absent if the cluster has no such gauge.
func (r *Report) Value(s Store, name string) gauge.Value {
	for i, g := range r.Gauges {
		if g.Name == name {
			return s.Cells[i].Value
		}
	}

	return gauge.Value{}
}

// SortProblems sorts the problems by their text, each of which is rendered once: if a configuration
// is wrong, every store may have a problem.
func (r *Report) SortProblems() {
	type rendered struct {
		text    string
		problem Problem
	}

	problems := make([]rendered, len(r.Problems))
	for i, p := range r.Problems {
		problems[i] = rendered{p.String(), p}
	}
	slices.SortStableFunc(problems, func(a, b rendered) int { return strings.Compare(a.text, b.text) })

	for i, p := range problems {
		r.Problems[i] = p.problem
	}
}

// FailedQueries returns the queries that failed.
func (r *Report) FailedQueries() []Query {
	var failed []Query
	for _, q := range r.Queries {
		if q.Failed() {
			failed = append(failed, q)
		}
	}

	return failed
}
