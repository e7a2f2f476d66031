// SPDX-License-Identifier: Apache-2.0

package collector

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/operator-store/operator_store_exporter/internal/discovery"
	"github.com/operator-store/operator_store_exporter/internal/gauge"
	"github.com/operator-store/operator_store_exporter/internal/httpclient"
	"github.com/operator-store/operator_store_exporter/internal/report"
	"github.com/operator-store/operator_store_exporter/internal/scrape"
	"github.com/operator-store/operator_store_exporter/internal/storematch"
)

// assemble assigns the results of the queries to the stores.
func (c *cluster) assemble(state *discovery.State, results *scrape.Results) *report.Report {
	r := c.newReport(state.Queries, results.Reports())
	r.EvaluatedAt = results.EvaluatedAt
	r.StoresKnown, r.PDTime = true, state.PDTime
	r.RateWindow = c.rateWindow(state)

	a := assembly{
		cluster: c, results: results, report: r, targetsFailed: state.Queries[gauge.QueryTargets].Failed(),
	}
	a.addDiscoveryProblems(state)

	seen := map[storematch.Store]bool{}
	for _, m := range state.Matches {
		labels := storematch.Store{ID: m.Store.ID, Address: m.Store.Address}
		if seen[labels] {
			a.addStoreProblem(report.Problem{Kind: report.ProblemDuplicateStore, Store: m.Store})

			continue
		}
		seen[labels] = true
		r.Stores = append(r.Stores, a.store(m))
	}
	slices.SortStableFunc(r.Stores, compareStores)

	return r
}

// compareStores orders stores by ID, then by address. IDs are numbers without leading zeros: a
// longer one is larger.
func compareStores(a, b report.Store) int {
	return cmp.Or(
		cmp.Compare(len(a.ID), len(b.ID)), strings.Compare(a.ID, b.ID), strings.Compare(a.Address, b.Address))
}

// assembleWithoutStores returns the result of a scrape that found no usable state. The state is nil
// if the first refresh did not finish before ctx ended.
func (c *cluster) assembleWithoutStores(ctx context.Context, state *discovery.State) *report.Report {
	if state != nil {
		return c.newReport(state.Queries, nil)
	}

	err := &httpclient.Error{
		Reason:  httpclient.ReasonTimeout,
		Request: "discover the targets for the first time",
		Err:     errors.New("no response in time"),
		Hint:    httpclient.HintTimeout,
	}
	c.countFailure(ctx, gauge.QueryTargets, httpclient.ReasonTimeout)

	return c.newReport(map[*gauge.Query]report.Query{
		gauge.QueryTargets: {Name: gauge.QueryTargets.Name, Errs: []error{err}},
	}, nil)
}

// newReport describes how the queries went, and which server answered them. Background are the
// queries of discovery, instant those of the scrape.
func (c *cluster) newReport(background, instant map[*gauge.Query]report.Query) *report.Report {
	r := &report.Report{Cluster: c.config.Name, UpstreamUp: true, Gauges: c.catalog.Gauges()}
	r.ActiveServer, r.Servers = c.upstream.Servers()
	r.QueuedTotal = c.queued()

	for _, q := range c.catalog.ReportedQueries() {
		described, ok := background[q]
		if !ok {
			described, ok = instant[q]
		}
		if !ok {
			continue
		}
		r.Queries = append(r.Queries, described)
		if (described.Failed() || described.Partial) && q != gauge.QueryPD { // PD is not upstream.
			r.UpstreamUp = false
		}
	}
	r.Problems = report.NewQueryProblems(r.Cluster, r.Queries)

	return r
}

// addDiscoveryProblems adds the problems with the stores as a whole.
func (a assembly) addDiscoveryProblems(state *discovery.State) {
	r := a.report
	if state.Dropped > 0 {
		r.Problems = append(r.Problems, report.Problem{
			Kind: report.ProblemStoreLimit, Cluster: r.Cluster, Reason: httpclient.ReasonLimit,
			Dropped: state.Dropped, Limit: len(state.Matches),
		})
	}
	if len(state.Targets) == 0 {
		r.Problems = append(r.Problems, report.Problem{Kind: report.ProblemNoTargets, Cluster: r.Cluster})
	}
}

// addStoreProblem adds the problem of a store that has no gauges.
func (a assembly) addStoreProblem(p report.Problem) {
	p.Cluster, p.Reason = a.report.Cluster, report.ReasonAmbiguous
	a.report.Problems = append(a.report.Problems, p)
}

// countProblems counts the problems that are not failed queries.
func (c *cluster) countProblems(r *report.Report) {
	for _, p := range r.Problems {
		if p.AboutStore() || p.Kind == report.ProblemStoreLimit {
			c.failures.of(c.config.Name, gauge.QueryTargets, p.Reason).Inc()
		}
	}
}

// assembly is the assignment of one scrape's results to the stores.
type assembly struct {
	*cluster
	results *scrape.Results
	report  *report.Report
	// targetsFailed reports whether the last query for targets failed, so that a store without a
	// target may have one by now.
	targetsFailed bool
}

// store returns the gauges of a store.
func (a assembly) store(m storematch.Match) report.Store {
	s := report.Store{ID: m.Store.ID, Address: m.Store.Address, Match: m}
	target, found := m.Target()
	switch {
	case m.Ambiguous:
		a.addStoreProblem(report.Problem{Kind: report.ProblemAmbiguousMatch, Store: m.Store, Match: m})
		s.Cells = a.allAbsent(report.AbsenceReason{Kind: report.AmbiguousMatch})
	case !found && a.targetsFailed:
		s.Cells = a.allAbsent(report.AbsenceReason{Kind: report.QueryFailed, Query: gauge.QueryTargets.Name})
	case !found:
		s.Cells = a.unmatched()
	default:
		s.Cells = a.matched(m.Store, target.Identity)
	}

	return s
}

// allAbsent returns cells that are all absent for one reason.
func (a assembly) allAbsent(reason report.AbsenceReason) []report.Cell {
	cells := make([]report.Cell, len(a.catalog.Gauges()))
	for i := range cells {
		cells[i].Absence = reason
	}

	return cells
}

// unmatched returns the gauges of a store that has no target: only whether it is monitored, if
// upstream answered.
func (a assembly) unmatched() []report.Cell {
	cells := a.allAbsent(report.AbsenceReason{Kind: report.NoTarget})
	for i, v := range a.catalog.Evaluate(a.results.ResponsesWithoutTarget()) {
		if v.OK {
			cells[i] = report.Cell{Value: v}
		}
	}

	return cells
}

// matched returns the gauges of a store with a target.
func (a assembly) matched(s storematch.Store, target storematch.Identity) []report.Cell {
	var responses gauge.Responses
	// Only these queries show whether the identity belongs to the target alone. Without them,
	// nothing is known.
	if a.results.Answered(gauge.QueryUp, target) || a.results.Answered(gauge.QueryLastScrape, target) {
		responses = a.results.Responses(target)
	}
	if targets := scrape.DuplicateTargets(responses); targets != nil {
		a.addStoreProblem(report.Problem{Kind: report.ProblemDuplicateTargets, Store: s, Targets: targets})

		return a.allAbsent(report.AbsenceReason{Kind: report.DuplicateTargets})
	}

	values := a.catalog.Evaluate(responses)
	down := a.isDown(values)
	cells := make([]report.Cell, len(values))
	for i, v := range values {
		cells[i].Value = v
		if !v.OK {
			cells[i].Absence = a.absence(i, responses, down)
		}
	}

	return cells
}

// isDown reports whether the store is known to be down.
func (a assembly) isDown(values []gauge.Value) bool {
	i, _ := a.catalog.Index(gauge.Up)

	return values[i].OK && values[i].V == 0
}

// absence returns why the gauge at a position of the catalog is absent.
func (a assembly) absence(position int, responses gauge.Responses, down bool) report.AbsenceReason {
	for _, q := range a.catalog.Needs(position) {
		if _, answered := responses[q]; !answered {
			return report.AbsenceReason{Kind: report.QueryFailed, Query: q.Name}
		}
	}
	if down {
		return report.AbsenceReason{Kind: report.StoreDown}
	}

	return report.AbsenceReason{Kind: report.NoData, AbsentWhen: a.catalog.Gauges()[position].AbsentWhen}
}
