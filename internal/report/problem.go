// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/operator-store/operator_store_exporter/internal/httpclient"
	"github.com/operator-store/operator_store_exporter/internal/storematch"
)

// ReasonAmbiguous is the reason for stores that more than one target matches. Unlike the other
// reasons, it is not why a request failed.
const ReasonAmbiguous httpclient.Reason = "ambiguous"

// Reasons returns every value of the label reason, in the order of the documentation.
func Reasons() []httpclient.Reason { return append(httpclient.Reasons(), ReasonAmbiguous) }

// ProblemKind is the kind of a problem.
type ProblemKind int

// The kinds of problems.
const (
	ProblemQueryFailed      ProblemKind = iota // Queries failed in the same way.
	ProblemResponseRejected                    // The response of a query about one target was dropped.
	ProblemPartialResponse                     // Responses were accepted that may lack series.
	ProblemStoreLimit                          // There are more stores than store_limit.
	ProblemNoTargets                           // Upstream has no target that is TiKV.
	ProblemAmbiguousMatch                      // More than one target matches a store.
	ProblemDuplicateTargets                    // Upstream has several targets with a store's job and instance.
	ProblemDuplicateStore                      // A second store has the same ID and address.
)

// Problem is something that an operator should know about. Which fields are set depends on its
// kind.
type Problem struct {
	Kind    ProblemKind
	Cluster string

	Queries []string            // ResponseRejected: one. Otherwise all with the same problem.
	Reason  httpclient.Reason   // All kinds except NoTargets.
	Err     error               // QueryFailed, ResponseRejected.
	Target  storematch.Identity // ResponseRejected.
	Store   storematch.Store    // The kinds about one store.
	Match   storematch.Match    // AmbiguousMatch: the targets that match the store.
	Targets []string            // DuplicateTargets: the label sets of the targets.
	Dropped int                 // StoreLimit: how many stores are left out.
	Limit   int                 // StoreLimit.

	keys []string // QueryFailed.
}

// NewQueryProblems returns a problem for each way in which queries failed. Queries that failed
// alike, such as all queries to a server that is down, are one problem. All queries whose accepted
// responses may lack series are one problem, too.
func NewQueryProblems(cluster string, queries []Query) []Problem {
	var problems []Problem
	positions := map[string]int{} // From the way in which a query failed to its problem.
	for _, q := range queries {
		for _, err := range q.Errs {
			failure := failureOf(err)
			i, ok := positions[failure]
			if !ok {
				i = len(problems)
				positions[failure] = i
				problems = append(problems, Problem{
					Kind: ProblemQueryFailed, Cluster: cluster, Reason: httpclient.ReasonOf(err), Err: err,
				})
			}
			problems[i].addQuery(q)
		}

		for _, rejection := range q.Rejections {
			problems = append(problems, Problem{
				Kind: ProblemResponseRejected, Cluster: cluster, Queries: []string{q.Name},
				Reason: httpclient.ReasonResponse, Err: rejection.Err, Target: rejection.Target,
			})
		}
	}

	return append(problems, newPartialProblems(cluster, queries)...)
}

// newPartialProblems returns the problem of queries whose responses may lack series; none if there
// are no such queries.
func newPartialProblems(cluster string, queries []Query) []Problem {
	var partial []string
	for _, q := range queries {
		if q.Partial {
			partial = append(partial, q.Name)
		}
	}
	if partial == nil {
		return nil
	}

	return []Problem{{
		Kind: ProblemPartialResponse, Cluster: cluster, Queries: partial, Reason: httpclient.ReasonPartial,
	}}
}

// addQuery adds a query that failed in the problem's way.
func (p *Problem) addQuery(q Query) {
	if slices.Contains(p.Queries, q.Name) {
		return
	}

	p.Queries = append(p.Queries, q.Name)
	for _, err := range q.Errs {
		p.keys = append(p.keys, q.Name+" "+string(httpclient.ReasonOf(err)))
	}
}

// failureOf returns the same string for failures that have the same cause. Failed connections to
// one server are one failure, because a server that is gone breaks connections in several ways at
// once.
func failureOf(err error) string {
	if e, ok := httpclient.AsError(err); ok && e.Reason == httpclient.ReasonConnection {
		return e.Request + " " + string(e.Reason)
	}

	return err.Error()
}

// AboutStore reports whether the problem is that a store has no gauges, because it cannot be
// distinguished from another one.
func (p Problem) AboutStore() bool {
	return p.Kind == ProblemAmbiguousMatch || p.Kind == ProblemDuplicateTargets || p.Kind == ProblemDuplicateStore
}

// Keys identify the problem from scrape to scrape, while its error may change. A problem of several
// queries has a key for each of them, so that it is not a new problem if one more query fails
// alike.
func (p Problem) Keys() []string {
	switch p.Kind {
	case ProblemQueryFailed:
		return p.keys
	case ProblemResponseRejected:
		return []string{p.Queries[0] + " rejected " + Describe(p.Target)}
	case ProblemPartialResponse:
		keys := make([]string, len(p.Queries))
		for i, q := range p.Queries {
			keys[i] = q + " partial"
		}

		return keys
	case ProblemStoreLimit:
		return []string{"store limit"}
	case ProblemNoTargets:
		return []string{"no targets"}
	default:
		return []string{"ambiguous " + p.Store.ID + " " + p.Store.Address}
	}
}

// Message returns a constant description of the kind of problem, for the msg of a log line.
func (p Problem) Message() string {
	switch p.Kind {
	case ProblemQueryFailed:
		return "query failed"
	case ProblemResponseRejected:
		return "response dropped"
	case ProblemPartialResponse:
		return "partial response"
	case ProblemStoreLimit:
		return "stores left out"
	case ProblemNoTargets:
		return "no TiKV targets"
	default:
		return "store has no gauges"
	}
}

// LogFields returns the problem as the keys and values of a log line: cluster, query, reason,
// store, err and hint, as far as they apply.
func (p Problem) LogFields() []any {
	fields := []any{"cluster", p.Cluster}
	add := func(key, value string) {
		if value != "" {
			fields = append(fields, key, value)
		}
	}

	add("query", strings.Join(p.Queries, ","))
	add("reason", string(p.Reason))
	if p.AboutStore() {
		fields = append(fields, "store", p.Store.Address)
		add("store_id", p.Store.ID)
	}
	if p.Kind == ProblemResponseRejected {
		add("target", Describe(p.Target))
	}
	add("err", p.Cause())
	add("hint", p.Hint())

	return fields
}

// Cause returns what happened, without how to fix it.
func (p Problem) Cause() string {
	switch p.Kind {
	case ProblemQueryFailed:
		return httpclient.Cause(p.Err)
	case ProblemResponseRejected:
		return p.Err.Error()
	case ProblemPartialResponse:
		return "upstream reports that its response may lack series, which partial_response accepts"
	case ProblemStoreLimit:
		return fmt.Sprintf("there are %d stores more than store_limit, %d", p.Dropped, p.Limit)
	case ProblemNoTargets:
		return "upstream has no target that exports TiKV's series"
	case ProblemAmbiguousMatch:
		return describeMatch(p.Match)
	case ProblemDuplicateTargets:
		return "upstream has several targets with its job and instance: " + strings.Join(p.Targets, " and ")
	default:
		return "another store has the same ID and address"
	}
}

// Hint returns how to fix the problem; "" if that is not known.
func (p Problem) Hint() string {
	switch p.Kind {
	case ProblemQueryFailed:
		return httpclient.HintOf(p.Err)
	case ProblemPartialResponse:
		return "check upstream's storage nodes"
	case ProblemStoreLimit:
		return "narrow upstream with selector, or raise store_limit"
	case ProblemNoTargets:
		return "does upstream scrape TiKV, and does selector match?"
	case ProblemAmbiguousMatch:
		return "set its instance, or narrow upstream with selector"
	case ProblemDuplicateTargets:
		return "keep one with selector, or add the label that distinguishes replicas to replica_labels"
	default:
		return ""
	}
}

// String returns the problem as text for people: what happened to what, and how to fix it.
func (p Problem) String() string {
	if p.Kind == ProblemQueryFailed {
		return p.subject() + ": " + p.Err.Error() // It includes the hints.
	}

	text := p.subject() + ": " + p.Cause()
	if hint := p.Hint(); hint != "" {
		text += ": " + hint
	}

	return text
}

// subject returns what the problem is about.
func (p Problem) subject() string {
	names := make([]string, len(p.Queries))
	for i, q := range p.Queries {
		names[i] = strconv.Quote(q)
	}

	switch p.Kind {
	case ProblemQueryFailed:
		return fmt.Sprintf("query %s of cluster %q failed", strings.Join(names, ", "), p.Cluster)
	case ProblemPartialResponse:
		return fmt.Sprintf("query %s of cluster %q", strings.Join(names, ", "), p.Cluster)
	case ProblemResponseRejected:
		return fmt.Sprintf("query %q of cluster %q: dropped the response for %s",
			p.Queries[0], p.Cluster, Describe(p.Target))
	case ProblemStoreLimit, ProblemNoTargets:
		return fmt.Sprintf("cluster %q", p.Cluster)
	case ProblemDuplicateStore:
		return fmt.Sprintf("store %q of cluster %q is left out", p.Store.Address, p.Cluster)
	default:
		return fmt.Sprintf("store %q of cluster %q has no gauges", p.Store.Address, p.Cluster)
	}
}

// Describe returns targets in the notation of PromQL selectors.
func Describe(targets ...storematch.Identity) string {
	names := make([]string, len(targets))
	for i, t := range targets {
		names[i] = fmt.Sprintf("{job=%q, instance=%q}", t.Job, t.Instance)
	}

	return strings.Join(names, " and ")
}

// describeMatch says which targets match a store that therefore has none.
func describeMatch(m storematch.Match) string {
	const maxTargets = 4
	var targets []storematch.Identity
	for _, t := range m.Candidates[:min(len(m.Candidates), maxTargets)] {
		targets = append(targets, t.Identity)
	}

	text := fmt.Sprintf("it matches %s by rule %q", Describe(targets...), m.Rule)
	switch more := len(m.Candidates) - maxTargets; {
	case len(m.Candidates) == 1:
		text += ", which another store matches too"
	case more > 0:
		text += fmt.Sprintf(" and %d more", more)
	}

	return text
}
