// SPDX-License-Identifier: Apache-2.0

package storematch

import (
	"cmp"
	"slices"
	"strings"
)

// FillMissingFields returns stores with missing ids and status addresses taken from the known
// store with the same address, if there is one.
func FillMissingFields(stores, known []Store) []Store {
	byAddress := map[string]Store{}
	for _, k := range LatestPerAddress(known) {
		byAddress[normalize(k.Address)] = k
	}

	filled := slices.Clone(stores)
	for i, s := range filled {
		k := byAddress[normalize(s.Address)]
		filled[i].ID = cmp.Or(s.ID, k.ID)
		filled[i].StatusAddress = cmp.Or(s.StatusAddress, k.StatusAddress)
	}
	return filled
}

// LatestPerAddress returns one store for each address, ordered by id. PD assigns ids in ascending
// order, so of several stores with the same address, the one with the highest id is the current
// one.
func LatestPerAddress(stores []Store) []Store {
	byAddress := map[string]Store{}
	for _, s := range stores {
		key := normalize(s.Address)
		if other, ok := byAddress[key]; !ok || compareIDs(s.ID, other.ID) > 0 {
			byAddress[key] = s
		}
	}

	var latest []Store
	for _, s := range byAddress {
		latest = append(latest, s)
	}

	slices.SortFunc(latest, func(a, b Store) int {
		return cmp.Or(compareIDs(a.ID, b.ID), strings.Compare(a.Address, b.Address))
	})
	return latest
}

// compareIDs compares ids as numbers of any length.
func compareIDs(a, b string) int {
	return cmp.Or(cmp.Compare(len(a), len(b)), strings.Compare(a, b))
}

// CurrentTargets returns the distinct targets, ordered by identity, without the past targets that
// a live one has replaced. A live target replaces a past one of the same namespace and cluster if
// it has the same instance, because the job was renamed, or if it has the same pod, because the
// pod was moved.
func CurrentTargets(targets []Target) []Target {
	type key struct{ kind, name, namespace, cluster string }
	keysOf := func(t Target) []key {
		keys := []key{{"instance", t.Instance, t.Namespace, t.Cluster}}
		if t.Pod != "" {
			keys = append(keys, key{"pod", t.Pod, t.Namespace, t.Cluster})
		}
		return keys
	}

	live := map[key]bool{}
	for _, t := range targets {
		if t.Live {
			for _, k := range keysOf(t) {
				live[k] = true
			}
		}
	}

	var current []Target
	for _, t := range UniqueTargets(targets) {
		replaced := slices.ContainsFunc(keysOf(t), func(k key) bool { return live[k] })
		if t.Live || !replaced {
			current = append(current, t)
		}
	}

	return current
}

// UniqueTargets returns one target for each identity, ordered by identity. Several targets with
// the same identity are one target at different times, perhaps with different labels. The live
// one counts.
func UniqueTargets(targets []Target) []Target {
	sorted := slices.SortedFunc(slices.Values(targets), func(a, b Target) int {
		return cmp.Or(
			a.Compare(b.Identity),
			compareBools(b.Live, a.Live), // Live targets first.
			strings.Compare(a.Pod, b.Pod),
			strings.Compare(a.Namespace, b.Namespace),
			strings.Compare(a.Cluster, b.Cluster),
		)
	})
	return slices.CompactFunc(sorted, func(a, b Target) bool { return a.Identity == b.Identity })
}

// compareBools orders false before true.
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
