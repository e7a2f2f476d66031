// SPDX-License-Identifier: Apache-2.0

package stores

import (
	"slices"
	"strconv"
)

// A rule finds the targets that fit a store.
type rule struct {
	name string
	// prepare makes of the free targets, and of the stores that are still open, a function that returns
	// the candidates of a store. It may return the same slice for several stores.
	prepare func(open []Store, free []Target) func(Store) []Target
	// final keeps a store that the rule applies to from the next rules, whether or not there is a candidate.
	final func(Store) bool
}

func never(Store) bool { return false }

// rules are the rules in their order.
var rules = []rule{
	{
		"configured instance",
		byKey(func(s Store) string { return s.Instance }, func(t Target) string { return t.Instance }),
		func(s Store) bool { return s.Instance != "" },
	},
	{
		"status address",
		byKey(func(s Store) string { return endpoint(s.statusAddress()) }, func(t Target) string { return endpoint(t.Instance) }),
		never,
	},
	{
		"address",
		byKey(func(s Store) string { return endpoint(s.Address) }, func(t Target) string { return endpoint(t.Instance) }),
		never,
	},
	{"pod name", byPod, never},
	{"equal port offsets", byPortOffset, never},
	{"host alone", byHost, never},
}

// Rules returns the names of the rules, in their order.
func Rules() []string {
	names := make([]string, len(rules))
	for i, r := range rules {
		names[i] = r.name
	}
	return names
}

// finder is the state of one Find.
type finder struct {
	matches []Match
	open    []int // The stores that no rule has decided yet.
	free    []Target
}

func (f *finder) apply(r rule) {
	open := make([]Store, len(f.open))
	for n, i := range f.open {
		open[n] = f.matches[i].Store
	}
	candidatesOf := r.prepare(open, f.free)
	taken := map[Identity]bool{}
	claims := map[Identity]int{}
	var undecided, decided []int
	for _, i := range f.open {
		m := &f.matches[i]
		candidates := candidatesOf(m.Store)
		switch {
		case len(candidates) > 0:
			m.Candidates, m.Ambiguous, m.Rule = candidates, len(candidates) > 1, r.name
			decided = append(decided, i)
			// A list that several stores share has been taken with the first of them.
			if first := candidates[0].Identity; len(candidates) == 1 || !taken[first] {
				for _, t := range candidates {
					taken[t.Identity] = true
				}
			}
			if len(candidates) == 1 {
				claims[candidates[0].Identity]++
			}
		case r.final(m.Store):
		default:
			undecided = append(undecided, i)
		}
	}
	for _, i := range decided {
		if m := &f.matches[i]; !m.Ambiguous && claims[m.Candidates[0].Identity] > 1 {
			m.Ambiguous = true
		}
	}
	f.open = undecided
	f.free = slices.DeleteFunc(f.free, func(t Target) bool { return taken[t.Identity] })
}

// byKey fits what has the same key; "" is no key. Of several candidates, which are one target at
// different times or in different jobs, the live one counts.
func byKey(ofStore func(Store) string, ofTarget func(Target) string) func([]Store, []Target) func(Store) []Target {
	return func(_ []Store, free []Target) func(Store) []Target {
		index := map[string][]Target{}
		for _, t := range free {
			index[ofTarget(t)] = append(index[ofTarget(t)], t)
		}
		for key, candidates := range index {
			index[key] = preferLive(candidates)
		}
		return func(s Store) []Target {
			if key := ofStore(s); key != "" {
				return index[key]
			}
			return nil
		}
	}
}

// byPod fits the first DNS label of the store's host to the target's pod, or to an instance that is a
// pod's name. Where both sides tell the namespace it is the same. Where several are left, the TiDB cluster
// that the address names decides, then the live one.
func byPod(_ []Store, free []Target) func(Store) []Target {
	type key struct{ pod, namespace string }
	const everywhere = "*" // No namespace has this name.
	index := map[key][]Target{}
	for _, t := range free {
		pod := t.pod()
		if pod == "" {
			continue
		}
		index[key{pod, t.Namespace}] = append(index[key{pod, t.Namespace}], t)
		index[key{pod, everywhere}] = append(index[key{pod, everywhere}], t)
	}
	type question struct{ pod, namespace, cluster string }
	answers := map[question][]Target{}
	return func(s Store) []Target {
		pod, cluster, namespace := s.pod()
		if pod == "" {
			return nil
		}
		q := question{pod, namespace, cluster}
		if a, ok := answers[q]; ok {
			return a
		}
		var candidates []Target
		if namespace == "" {
			candidates = index[key{pod, everywhere}]
		} else {
			candidates = slices.Concat(index[key{pod, namespace}], index[key{pod, ""}])
		}
		same := slices.DeleteFunc(slices.Clone(candidates), func(t Target) bool {
			return cluster == "" || t.Cluster != cluster && t.Cluster != namespace+"-"+cluster
		})
		if len(candidates) > 1 && len(same) > 0 {
			candidates = same
		}
		answers[q] = preferLive(candidates)
		return answers[q]
	}
}

// byPortOffset fits several stores of one host to as many targets, if one and the same number added to
// each store's port gives all of the targets' ports.
func byPortOffset(open []Store, free []Target) func(Store) []Target {
	type ported struct {
		port  int
		store Store
		index int // Of the target in free.
	}
	byPort := func(a, b ported) int { return a.port - b.port }
	storesOf, targetsOf := map[string][]ported{}, map[string][]ported{}
	for _, s := range open {
		h, port := hostPort(s.Address)
		storesOf[h] = append(storesOf[h], ported{port: port, store: s})
	}
	for i, t := range free {
		h, port := hostPort(t.Instance)
		targetsOf[h] = append(targetsOf[h], ported{port: port, index: i})
	}
	found := map[Store][]Target{}
	for h, ss := range storesOf {
		ts := targetsOf[h]
		if h == "" || len(ss) < 2 || len(ss) != len(ts) {
			continue
		}
		slices.SortFunc(ss, byPort)
		slices.SortFunc(ts, byPort)
		fits := true
		for i := range ss {
			fits = fits && ss[i].port > 0 && ts[i].port > 0 && // A port for everyone,
				ts[i].port-ss[i].port == ts[0].port-ss[0].port && // at the same distance,
				(i == 0 || ss[i].port != ss[i-1].port) && // another one each,
				ss[i].store.accepts(free[ts[i].index]) // and not against what PD says.
		}
		if !fits {
			continue
		}
		for i := range ss {
			found[ss[i].store] = []Target{free[ts[i].index]}
		}
	}
	return func(s Store) []Target { return found[s] }
}

// byHost fits the store's host to the target's, if there is one of either on it. Where PD tells the port
// of the status address, it is the target's.
func byHost(_ []Store, free []Target) func(Store) []Target {
	type place struct {
		host string
		port int // -1 for any.
	}
	index := map[place][]Target{}
	for _, t := range free {
		h, port := hostPort(t.Instance)
		index[place{h, -1}] = append(index[place{h, -1}], t)
		index[place{h, port}] = append(index[place{h, port}], t)
	}
	return func(s Store) []Target {
		h := host(s.Address)
		if h == "" {
			return nil
		}
		if _, port := hostPort(s.statusAddress()); port > 0 {
			return slices.Concat(index[place{h, port}], index[place{h, 0}])
		}
		return index[place{h, -1}]
	}
}

// accepts is false where PD's status address tells that the target is another process of the same host.
func (s Store) accepts(t Target) bool {
	_, want := hostPort(s.statusAddress())
	_, got := hostPort(t.Instance)
	return want == 0 || got == 0 || want == got
}

func hostPort(address string) (string, int) {
	h, port := split(address)
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return h, 0
	}
	return h, int(n)
}
