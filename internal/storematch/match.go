// SPDX-License-Identifier: Apache-2.0

// Package storematch matches TiKV stores to the targets that upstream scrapes.
//
// TiKV serves its clients on one port and its metrics on another. PD knows a store by the first
// address, Prometheus knows its target by the second, and in Kubernetes often by the name of a
// pod. The rules in rules.go find the target of each store. A gauge under the wrong store's name
// is worse than a missing gauge, so a store gets a target only if exactly one fits.
//
// All functions are pure: they use no network and no clock, and their results do not depend on
// the order of the targets. The cost per store does not grow with the number of stores.
package storematch

import (
	"cmp"
	"slices"
	"strings"
)

// Store is a TiKV store as the configuration or PD describes it.
type Store struct {
	ID            string // PD's store id, or "" if it is unknown.
	Address       string // The address that PD and TiKV's clients use, usually host:20160.
	StatusAddress string // Where TiKV serves its metrics according to PD, usually host:20180, or "".
	Instance      string // The target's instance label if it is configured, or "".
}

// Identity identifies a target of an upstream. It takes both labels: a port probe has the same
// instance as the TiKV that it probes, but another job.
type Identity struct {
	Job      string
	Instance string
}

// Compare orders identities by job, then by instance.
func (i Identity) Compare(o Identity) int {
	return cmp.Or(strings.Compare(i.Job, o.Job), strings.Compare(i.Instance, o.Instance))
}

// Target is a TiKV process that upstream scrapes or has scraped.
type Target struct {
	Identity
	Pod       string // The Kubernetes pod, or "" if there is no such label.
	Namespace string // The namespace of the pod, or "" if there is no such label.
	Cluster   string // The TiDB cluster, or "" if there is no such label.
	Live      bool   // Whether it has samples now. A past target has older samples only.
}

// Match is the result for one store.
type Match struct {
	Store Store
	// Candidates are the targets that fit the store by Rule. There are none if upstream does not
	// know the store.
	Candidates []Target
	// Ambiguous means that there are several candidates, or that the only candidate fits another
	// store too. An ambiguous store has no target.
	Ambiguous bool
	// Rule is the name of the rule that found the candidates, or "" if there are none.
	Rule string
}

// Target returns the store's target, and false if there is no target or the match is ambiguous.
func (m Match) Target() (Target, bool) {
	if m.Ambiguous || len(m.Candidates) != 1 {
		return Target{}, false
	}
	return m.Candidates[0], true
}

// MatchStores finds the targets of stores. It returns one Match per store, in the order of
// stores.
//
// It tries the rules in their order. A store that a rule has found candidates for is not passed
// to the next rules, and neither are the candidates, even if the match is ambiguous. Previous are
// the matches of the last discovery, if there are any. They matter for stores that share a host
// with others: such a store keeps its target when a neighbor is added or removed.
func MatchStores(stores []Store, targets []Target, previous ...Match) []Match {
	run := &matchRun{
		matches:         make([]Match, len(stores)),
		freeTargets:     CurrentTargets(targets),
		previousTargets: map[storeKey]Identity{},
	}
	for i, s := range stores {
		run.matches[i].Store = s
		run.openStores = append(run.openStores, i)
	}

	for _, m := range previous {
		if t, ok := m.Target(); ok {
			run.previousTargets[m.Store.key()] = t.Identity
		}
	}

	for _, r := range rules {
		run.apply(r)
	}
	return run.matches
}

// storeKey identifies a store across discoveries. Its status address may be unknown in one of them.
type storeKey struct{ id, address string }

func (s Store) key() storeKey { return storeKey{s.ID, s.Address} }

// matchRun is the state of one call of MatchStores.
type matchRun struct {
	matches         []Match
	openStores      []int    // Indexes into matches of the stores that no rule has handled yet.
	freeTargets     []Target // The targets that no rule has found for any store.
	previousTargets map[storeKey]Identity
}

// apply runs one rule on the open stores and free targets, and removes from them what the rule
// handled.
func (run *matchRun) apply(r rule) {
	candidatesOf := r.prepare(run.unmatched())

	taken := map[Identity]bool{} // Targets that fit any store.
	claims := map[Identity]int{} // For each target, the number of stores whose only candidate it is.
	var handled, open []int
	for _, i := range run.openStores {
		m := &run.matches[i]
		candidates := candidatesOf(m.Store)
		if len(candidates) == 0 {
			if r.final == nil || !r.final(m.Store) {
				open = append(open, i)
			}
			continue
		}

		m.Candidates, m.Ambiguous, m.Rule = candidates, len(candidates) > 1, r.name
		handled = append(handled, i)
		if !m.Ambiguous {
			claims[candidates[0].Identity]++
		}

		// Stores with the same key share one slice of candidates. Its first element shows whether
		// the slice has been marked already. Marking it for every store would take quadratic
		// time.
		if !m.Ambiguous || !taken[candidates[0].Identity] {
			for _, t := range candidates {
				taken[t.Identity] = true
			}
		}
	}

	for _, i := range handled {
		m := &run.matches[i]
		m.Ambiguous = m.Ambiguous || claims[m.Candidates[0].Identity] > 1
	}

	run.openStores = open
	run.freeTargets = slices.DeleteFunc(run.freeTargets, func(t Target) bool { return taken[t.Identity] })
}

// unmatched returns the input of the next rule.
func (run *matchRun) unmatched() unmatched {
	stores := make([]Store, len(run.openStores))
	for n, i := range run.openStores {
		stores[n] = run.matches[i].Store
	}
	return unmatched{stores: stores, targets: run.freeTargets, previousTargets: run.previousTargets}
}

// tiFlashPort is TiFlash's default port.
const tiFlashPort = 3930

// MatchTargets finds the stores of targets, for clusters whose stores are neither configured nor
// listed by PD itself. Known are the stores that upstream knows from PD's metrics.
//
// A target that fits exactly one known store belongs to that store. The other targets become
// stores without an id, one for each instance label, which is also the address.
//
// Known stores without a target are left out, because TiFlash nodes are among them and nothing
// marks them as such. Those on TiFlash's default port are ignored altogether, so that they do not
// make the match of a TiKV on the same host ambiguous.
func MatchTargets(known []Store, targets []Target, previous ...Match) []Match {
	known = slices.DeleteFunc(LatestPerAddress(known), func(s Store) bool { return portOf(s.Address) == tiFlashPort })
	targets = CurrentTargets(targets)

	var matches []Match
	matched := map[Identity]bool{}
	for _, m := range MatchStores(known, targets, previous...) {
		if t, ok := m.Target(); ok {
			matches = append(matches, m)
			matched[t.Identity] = true
		}
	}

	rest := slices.DeleteFunc(targets, func(t Target) bool { return matched[t.Identity] })
	return append(matches, targetsAsStores(rest)...)
}

// targetsAsStores makes a store of every instance, ordered by address. If the same instance
// exists in several jobs, their stores would have the same labels, so there is one ambiguous
// store instead.
func targetsAsStores(targets []Target) []Match {
	byInstance := map[string][]Target{}
	for _, t := range targets {
		byInstance[t.Instance] = append(byInstance[t.Instance], t)
	}

	var matches []Match
	for instance, candidates := range byInstance {
		matches = append(matches, Match{
			Store:      Store{Address: instance},
			Candidates: candidates,
			Ambiguous:  len(candidates) > 1,
			Rule:       "own instance",
		})
	}

	slices.SortFunc(matches, func(a, b Match) int { return strings.Compare(a.Store.Address, b.Store.Address) })
	return matches
}
