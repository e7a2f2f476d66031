// SPDX-License-Identifier: Apache-2.0

// Package stores matches TiKV stores to the targets that upstream scrapes.
//
// It is pure: no network, no clock, the same answer for the same input in any order. The rules stand in
// docs/stores.md.
package storematch

import (
	"cmp"
	"slices"
	"strings"
)

// Store is a TiKV store as its user or PD names it.
type Store struct {
	ID            string // PD's store id, "" where nobody knows it.
	Address       string // As PD and TiKV's clients use it, mostly host:20160.
	StatusAddress string // Where PD says that it serves its metrics, mostly host:20180; "" where PD was not asked.
	Instance      string // The target's instance label, "" where it is to be found.
}

// Identity tells one target of an upstream from another. Neither label does alone: a port probe shares
// the instance of the TiKV that it probes.
type Identity struct {
	Job      string
	Instance string
}

// Compare orders identities by job, then instance.
func (i Identity) Compare(o Identity) int {
	return cmp.Or(strings.Compare(i.Job, o.Job), strings.Compare(i.Instance, o.Instance))
}

// Target is what upstream scrapes.
type Target struct {
	Identity
	Pod       string // The Kubernetes pod, "" elsewhere.
	Namespace string // The pod's namespace, "" where no label tells it.
	Cluster   string // The TiDB cluster, "" where no label tells it.
	Live      bool   // It has samples now, not only in the past.
}

// Match is one store with the target that was found for it.
type Match struct {
	Store Store
	// Candidates are the targets that fit the store: one is its target, none means that upstream does
	// not know the store, more than one (or one that another store claims too) that nothing decides.
	Candidates []Target
	// Ambiguous is true where nothing decides. Such a store has no target.
	Ambiguous bool
	Rule      string // The rule that decided, or could not.
}

// Target returns the store's target, and false where there is none or nothing decides.
func (m Match) Target() (Target, bool) {
	if m.Ambiguous || len(m.Candidates) != 1 {
		return Target{}, false
	}
	return m.Candidates[0], true
}

// Find pairs stores with targets by the rules, in their order; what one rule has decided is out of reach
// of the next. A target that two stores claim is given to neither, nor is a store given one of two
// targets. The result has one Match a store, in the order of stores. Previous are matches found before: a
// store keeps its target where otherwise only the neighbours on its host would decide, for these come and go.
func Find(stores []Store, targets []Target, previous ...Match) []Match {
	f := &finder{matches: make([]Match, len(stores)), free: Current(targets), before: map[Store]Identity{}}
	for i, s := range stores {
		f.matches[i].Store = s
		f.open = append(f.open, i)
	}
	for _, m := range previous {
		if t, ok := m.Target(); ok {
			f.before[m.Store.named()] = t.Identity
		}
	}
	for _, r := range rules {
		f.apply(r)
	}
	return f.matches
}

// named is the store by its name alone.
func (s Store) named() Store { return Store{ID: s.ID, Address: s.Address} }

// FromTargets makes a store of every target: its address is the instance, its id is unknown.
// Targets that share an instance would share all of a store's labels, so such a store is ambiguous.
func FromTargets(targets []Target) []Match {
	byInstance := map[string][]Target{}
	for _, t := range Current(targets) {
		byInstance[t.Instance] = append(byInstance[t.Instance], t)
	}
	var matches []Match
	for instance, candidates := range byInstance {
		matches = append(matches, Match{
			Store: Store{Address: instance}, Candidates: candidates, Ambiguous: len(candidates) > 1, Rule: "own instance",
		})
	}
	slices.SortFunc(matches, func(a, b Match) int { return strings.Compare(a.Store.Address, b.Store.Address) })
	return matches
}

// tiFlashPort is where TiFlash serves, if it is not told otherwise.
const tiFlashPort = 3930

// Named is FromTargets with the ids and addresses of known stores, such as PD tells upstream: a target that
// exactly one known store fits is that store. Known stores without a target are left out, for TiFlash is
// among them without a mark; those at TiFlash's own port do not count at all.
func Named(known []Store, targets []Target, previous ...Match) []Match {
	known = slices.DeleteFunc(Latest(known), func(s Store) bool {
		_, port := hostPort(s.Address)
		return port == tiFlashPort
	})
	targets = Current(targets)
	var matches []Match
	named := map[Identity]bool{}
	for _, m := range Find(known, targets, previous...) {
		if t, ok := m.Target(); ok {
			matches = append(matches, m)
			named[t.Identity] = true
		}
	}
	rest := slices.DeleteFunc(targets, func(t Target) bool { return named[t.Identity] })
	return append(matches, FromTargets(rest)...)
}

// Complete returns stores with the ids and status addresses that known stores of the same address have,
// where they have none of their own.
func Complete(stores, known []Store) []Store {
	byAddress := map[string]Store{}
	for _, k := range Latest(known) {
		byAddress[endpoint(k.Address)] = k
	}
	complete := slices.Clone(stores)
	for i, s := range complete {
		k := byAddress[endpoint(s.Address)]
		complete[i].ID = cmp.Or(s.ID, k.ID)
		complete[i].StatusAddress = cmp.Or(s.StatusAddress, k.StatusAddress)
	}
	return complete
}

// Latest leaves one store an address: PD counts ids up, so the highest id is who has the address now.
func Latest(stores []Store) []Store {
	byAddress := map[string]Store{}
	for _, s := range stores {
		key := endpoint(s.Address)
		if old, ok := byAddress[key]; !ok || compareIDs(s.ID, old.ID) > 0 {
			byAddress[key] = s
		}
	}
	var kept []Store
	for _, s := range byAddress {
		kept = append(kept, s)
	}
	slices.SortFunc(kept, func(a, b Store) int {
		return cmp.Or(compareIDs(a.ID, b.ID), strings.Compare(a.Address, b.Address))
	})
	return kept
}

// compareIDs compares ids as numbers without a bound.
func compareIDs(a, b string) int {
	return cmp.Or(cmp.Compare(len(a), len(b)), strings.Compare(a, b))
}

// Current returns targets in order, each identity once, without those of the past that a live one has
// replaced: its instance in another job, or its pod at another address.
func Current(targets []Target) []Target {
	type place struct{ name, namespace, cluster string }
	live := map[place]bool{}
	for _, t := range targets {
		if t.Live {
			live[place{"instance " + t.Instance, t.Namespace, t.Cluster}] = true
			if t.Pod != "" {
				live[place{"pod " + t.Pod, t.Namespace, t.Cluster}] = true
			}
		}
	}
	var current []Target
	for _, t := range Unique(targets) {
		replaced := live[place{"instance " + t.Instance, t.Namespace, t.Cluster}] || t.Pod != "" && live[place{"pod " + t.Pod, t.Namespace, t.Cluster}]
		if t.Live || !replaced {
			current = append(current, t)
		}
	}
	return current
}

// Unique returns targets in order, each identity once. Of several with one identity, which are the same
// target at different times, the live one counts.
func Unique(targets []Target) []Target {
	sorted := slices.SortedFunc(slices.Values(targets), func(a, b Target) int {
		return cmp.Or(a.Compare(b.Identity), compareBools(b.Live, a.Live), strings.Compare(a.Pod, b.Pod),
			strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Cluster, b.Cluster))
	})
	return slices.CompactFunc(sorted, func(a, b Target) bool { return a.Identity == b.Identity })
}

func compareBools(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	default:
		return -1
	}
}
