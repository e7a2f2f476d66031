// SPDX-License-Identifier: Apache-2.0

// Package stores matches TiKV stores to the targets that upstream scrapes.
//
// It is pure: no network, no clock, the same answer for the same input in any order.
package stores

import (
	"cmp"
	"net"
	"net/netip"
	"slices"
	"strings"
)

// Store is a TiKV store as its user or PD names it.
type Store struct {
	ID       string // PD's store id, "" where nobody knows it.
	Address  string // As PD and TiKV's clients use it, mostly host:20160.
	Instance string // The target's instance label, "" where it is to be found by Match.
}

// Target is the identity of what upstream scrapes. Two targets of one upstream never share both
// labels, while instance alone is shared, by a port probe and the TiKV it probes for one.
type Target struct {
	Job      string
	Instance string
}

// Compare orders targets by job, then instance.
func (t Target) Compare(o Target) int {
	return cmp.Or(strings.Compare(t.Job, o.Job), strings.Compare(t.Instance, o.Instance))
}

// Match is one store with the target that was found for it.
type Match struct {
	Store Store
	// Candidates are the targets that fit the store: one is its target, none means that upstream does
	// not know the store, more than one (or one that another store claims too) that nothing decides.
	Candidates []Target
	// Ambiguous is true where nothing decides. Such a store has no target.
	Ambiguous bool
}

// Target returns the store's target, and false where there is none or nothing decides.
func (m Match) Target() (Target, bool) {
	if m.Ambiguous || len(m.Candidates) != 1 {
		return Target{}, false
	}
	return m.Candidates[0], true
}

// Find pairs stores with targets by these rules, in order; what one rule has decided is out of
// reach of the next:
//
//  1. the store's configured instance is the target's;
//  2. the store's address is the target's instance;
//  3. the store's host is the target's, of which there is one on either side.
//
// Hosts compare without regard to letter case or a trailing dot, IP addresses by value. A target
// that two stores claim is given to neither, nor is a store given one of two targets. The result has
// one Match a store, in the order of stores.
func Find(stores []Store, targets []Target) []Match {
	matches := make([]Match, len(stores))
	open := make([]int, len(stores)) // The stores that no rule has decided yet.
	for i, s := range stores {
		matches[i].Store = s
		open[i] = i
	}
	free := Sorted(targets)

	for _, rule := range []struct {
		store  func(Store) string  // What the store is looked up by, "" if the rule does not apply.
		target func(Target) string // The same of a target.
		final  bool                // A store that the rule applies to is not left to the next rule.
	}{
		{func(s Store) string { return s.Instance }, func(t Target) string { return t.Instance }, true},
		{func(s Store) string { return endpoint(s.Address) }, func(t Target) string { return endpoint(t.Instance) }, false},
		{func(s Store) string { return host(s.Address) }, func(t Target) string { return host(t.Instance) }, false},
	} {
		byKey := make(map[string][]Target)
		for _, t := range free {
			byKey[rule.target(t)] = append(byKey[rule.target(t)], t)
		}
		claims := make(map[string]int)
		for _, i := range open {
			claims[rule.store(stores[i])]++
		}
		taken := make(map[Target]bool)
		open = slices.DeleteFunc(open, func(i int) bool {
			key := rule.store(stores[i])
			if key == "" {
				return false
			}
			candidates := byKey[key]
			if len(candidates) == 0 {
				return rule.final
			}
			matches[i].Candidates = candidates
			matches[i].Ambiguous = len(candidates) > 1 || claims[key] > 1
			for _, t := range candidates {
				taken[t] = true
			}
			return true
		})
		free = slices.DeleteFunc(free, func(t Target) bool { return taken[t] })
	}
	return matches
}

// FromTargets makes a store of every target: its address is the instance, its id is unknown.
// Targets that share an instance would share all of a store's labels, so such a store is ambiguous.
func FromTargets(targets []Target) []Match {
	var matches []Match
	index := make(map[string]int)
	for _, t := range Sorted(targets) {
		i, seen := index[t.Instance]
		if !seen {
			i = len(matches)
			index[t.Instance] = i
			matches = append(matches, Match{Store: Store{Address: t.Instance}})
		}
		matches[i].Candidates = append(matches[i].Candidates, t)
		matches[i].Ambiguous = seen
	}
	slices.SortFunc(matches, func(a, b Match) int { return strings.Compare(a.Store.Address, b.Store.Address) })
	return matches
}

// Sorted returns targets in order, each once.
func Sorted(targets []Target) []Target {
	return slices.Compact(slices.SortedFunc(slices.Values(targets), Target.Compare))
}

// endpoint is address in the one spelling that addresses are compared in.
func endpoint(address string) string {
	h, port, err := net.SplitHostPort(address)
	if err != nil {
		return host(address)
	}
	return net.JoinHostPort(canonical(h), port)
}

// host is the host of address, with or without a port, in the one spelling that hosts are compared in.
func host(address string) string {
	h, _, err := net.SplitHostPort(address)
	if err != nil {
		h = strings.TrimSuffix(strings.TrimPrefix(address, "["), "]")
	}
	return canonical(h)
}

func canonical(host string) string {
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.Unmap().String()
	}
	return strings.ToLower(strings.TrimSuffix(host, "."))
}
