// SPDX-License-Identifier: Apache-2.0

package collector

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/operator-store/operator_store_exporter/internal/httpclient"
	"github.com/operator-store/operator_store_exporter/internal/storematch"
)

// A round is what one scrape found out about one cluster. It does not change once it is made.
type round struct {
	cluster  string
	table    *table
	instant  time.Time // On upstream's clock; zero if there was nothing to ask about.
	queries  []queryReport
	stores   []storeReport
	problems []problem

	serving string   // The URL of the server that answers.
	servers []string // Those of all.
	queued  uint64   // The requests that have ever waited for others.

	storesKnown bool      // False before upstream has told its targets.
	storesTold  time.Time // When PD itself told the stores in use, zero if it never did.
	ambiguities int       // The stores of which nothing decides which series are theirs.
	left        int       // The stores that are left out because there are too many.
}

// A queryReport tells how one query went.
type queryReport struct {
	name        string
	expressions []string // As they were sent.
	duration    time.Duration
	failures    []httpclient.Reason // One a request that failed.
}

// A storeReport is one store with its gauges, in the order of the table. NaN is absent.
type storeReport struct {
	storematch.Match
	values     []float64
	twins      bool     // Several targets share its target's identity.
	unanswered []*Query // That did not answer for the store, though its target is known.
}

// A problem is what the operator should hear of, once: its keys stay the same from round to round, while
// its text may change.
type problem struct {
	keys []string
	text string
}

// newRound reports how the queries went. Queries that failed alike are one problem.
func newRound(cluster string, t *table, all results) *round {
	r := &round{cluster: cluster, table: t}
	type failure struct {
		text    string // Of the first query that failed so.
		queries []*Query
	}
	alike := map[string]*failure{}
	for _, q := range t.reported {
		result, ok := all[q]
		if !ok || !result.asked {
			continue
		}
		report := queryReport{name: q.Name, expressions: result.expressions, duration: result.duration}
		for _, err := range result.errs {
			report.failures = append(report.failures, httpclient.ReasonOf(err))
			failed := alike[kind(err)]
			if failed == nil {
				failed = &failure{text: err.Error()}
				alike[kind(err)] = failed
			}
			if !slices.Contains(failed.queries, q) {
				failed.queries = append(failed.queries, q)
			}
		}
		for t, why := range result.refused {
			report.failures = append(report.failures, httpclient.ReasonResponse)
			text := fmt.Sprintf("query %q of cluster %q: %s for %s: that answer is dropped", q.Name, r.cluster, why, describe(t))
			r.problems = append(r.problems, problem{[]string{q.Name + " refused " + describe(t)}, text})
		}
		r.queries = append(r.queries, report)
	}
	for _, failed := range alike {
		var names, keys []string
		for _, q := range failed.queries {
			names = append(names, strconv.Quote(q.Name))
			for _, failure := range all[q].errs {
				keys = append(keys, q.Name+" "+string(httpclient.ReasonOf(failure)))
			}
		}
		text := fmt.Sprintf("query %s of cluster %q: %s", strings.Join(names, ", "), r.cluster, failed.text)
		r.problems = append(r.problems, problem{keys, text})
	}
	return r
}

// kind is the same for failures that are one: a server that is gone breaks connections in several ways at once.
func kind(err error) string {
	var e *httpclient.Error
	if errors.As(err, &e) && e.Reason == httpclient.ReasonConnection {
		return e.Request + " " + string(e.Reason)
	}
	return err.Error()
}

// reportStores decides what is known of each store.
func (r *round) reportStores(found *found, all results) {
	r.storesKnown, r.storesTold, r.left = true, found.told, found.left
	if r.left > 0 {
		text := fmt.Sprintf("cluster %q has %d stores more than store_limit of %d: they are left out: narrow upstream with selector, or raise store_limit",
			r.cluster, r.left, len(found.matches))
		r.problems = append(r.problems, problem{[]string{"store limit"}, text})
	}
	if len(found.targets) == 0 {
		text := fmt.Sprintf("upstream of cluster %q has seen no target that exports TiKV's series: does it scrape TiKV, and does selector match?", r.cluster)
		r.problems = append(r.problems, problem{[]string{"no targets"}, text})
	}
	seen := map[storematch.Store]bool{}
	for _, m := range found.matches {
		labels := storematch.Store{ID: m.Store.ID, Address: m.Store.Address}
		if seen[labels] {
			r.ambiguous(m.Store, "a second store has the same id and address, and is left out")
			continue
		}
		seen[labels] = true
		r.stores = append(r.stores, r.judge(m, all))
	}
}

// judge takes a store's gauges from what upstream said of it.
func (r *round) judge(m storematch.Match, all results) storeReport {
	var s said
	report := storeReport{Match: m}
	target, found := m.Target()
	switch {
	case m.Ambiguous:
		r.ambiguous(m.Store, undecided(m))
	case !found:
		// That upstream does not know the store is known only if upstream answered.
		if len(all[queryUp].errs) == 0 {
			s = said{queryUp: answer{}, queryLastScrape: answer{}}
		}
	default:
		if !all[queryUp].answered(target.Identity) && !all[queryLastScrape].answered(target.Identity) {
			report.unanswered = r.table.queries
			break // Whether the target has its identity for itself alone is not known, so nothing is.
		}
		s = all.of(target.Identity)
		for _, q := range r.table.queries {
			if _, answered := s[q]; !answered && all[q].asked {
				report.unanswered = append(report.unanswered, q)
			}
		}
		if twins := s.twins(); twins != "" {
			r.ambiguous(m.Store, "upstream has several targets of its job and instance: "+twins+": keep one with selector, or name the label that tells replicas apart in replica_labels")
			s, report.twins = nil, true
		}
	}
	known := row{s, r.table, make([]float64, len(r.table.gauges))}
	for i := range known.values { // One that another is derived from may stand behind it.
		known.values[i] = math.NaN()
	}
	for i, g := range r.table.gauges {
		if v, ok := g.value.take(known); ok && !math.IsInf(v, 0) {
			known.values[i] = v
		}
	}
	report.values = known.values
	return report
}

// ambiguous tells of a store that has no gauges because nothing decides which series are its own.
func (r *round) ambiguous(s storematch.Store, why string) {
	r.ambiguities++
	text := fmt.Sprintf("store %q of cluster %q has no gauges: %s", s.Address, r.cluster, why)
	r.problems = append(r.problems, problem{[]string{"ambiguous " + s.ID + " " + s.Address}, text})
}

func describe(targets ...storematch.Identity) string {
	names := make([]string, len(targets))
	for i, t := range targets {
		names[i] = fmt.Sprintf("{job=%q, instance=%q}", t.Job, t.Instance)
	}
	return strings.Join(names, " and ")
}

// undecided says why a store has no target though there are some that fit.
func undecided(m storematch.Match) string {
	const most = 4
	var names []storematch.Identity
	for _, t := range m.Candidates[:min(len(m.Candidates), most)] {
		names = append(names, t.Identity)
	}
	text := "by its " + m.Rule + " it fits " + describe(names...)
	switch more := len(m.Candidates) - most; {
	case len(m.Candidates) == 1:
		text += ", which another store fits too"
	case more > 0:
		text += fmt.Sprintf(" and %d more", more)
	}
	return text + ", and nothing decides: set its instance, or narrow upstream with selector"
}
