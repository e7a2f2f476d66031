// SPDX-License-Identifier: Apache-2.0

package storematch

import (
	"slices"
	"strconv"
	"strings"
)

// A rule finds the targets that fit a store.
type rule struct {
	name string
	// prepare makes of what is not decided yet a function that returns the candidates of a store. It may
	// return the same slice for several stores.
	prepare func(undecided) func(Store) []Target
	// final keeps a store that the rule applies to from the next rules, whether or not there is a candidate.
	final func(Store) bool
}

// undecided is what the rules before have left.
type undecided struct {
	stores  []Store
	targets []Target
	before  map[Store]Identity // The targets that stores had, by the stores' names.
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
	{"same as before", asBefore, never},
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
	before  map[Store]Identity
}

func (f *finder) apply(r rule) {
	open := make([]Store, len(f.open))
	for n, i := range f.open {
		open[n] = f.matches[i].Store
	}
	candidatesOf := r.prepare(undecided{open, f.free, f.before})
	taken := map[Identity]bool{}
	claims := map[Identity]int{}
	var left, decided []int
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
			left = append(left, i)
		}
	}
	for _, i := range decided {
		if m := &f.matches[i]; !m.Ambiguous && claims[m.Candidates[0].Identity] > 1 {
			m.Ambiguous = true
		}
	}
	f.open = left
	f.free = slices.DeleteFunc(f.free, func(t Target) bool { return taken[t.Identity] })
}

// byKey fits what has the same key; "" is no key.
func byKey(ofStore func(Store) string, ofTarget func(Target) string) func(undecided) func(Store) []Target {
	return func(u undecided) func(Store) []Target {
		index := map[string][]Target{}
		for _, t := range u.targets {
			index[ofTarget(t)] = append(index[ofTarget(t)], t)
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
// pod's name. Where both sides tell the namespace it is the same, and so is the TiDB cluster if the target names
// it with its namespace. Where several are left, those of the cluster that the address names count.
func byPod(u undecided) func(Store) []Target {
	type key struct{ pod, namespace string }
	const everywhere = "*" // No namespace has this name.
	index := map[key][]Target{}
	for _, t := range u.targets {
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
		candidates := index[key{pod, everywhere}]
		if namespace != "" {
			candidates = slices.Concat(index[key{pod, namespace}], index[key{pod, ""}])
		}
		candidates = slices.DeleteFunc(slices.Clone(candidates), func(t Target) bool {
			return namespace != "" && strings.HasSuffix(t.Cluster, "-"+cluster) && t.Cluster != namespace+"-"+cluster
		})
		same := slices.DeleteFunc(slices.Clone(candidates), func(t Target) bool {
			return cluster == "" || t.Cluster != cluster && t.Cluster != namespace+"-"+cluster
		})
		if len(candidates) > 1 && len(same) > 0 {
			candidates = same
		}
		answers[q] = candidates
		return candidates
	}
}

// asBefore fits the target that the store had.
func asBefore(u undecided) func(Store) []Target {
	free := map[Identity]int{}
	for i, t := range u.targets {
		free[t.Identity] = i
	}
	return func(s Store) []Target {
		had, ok := u.before[s.named()]
		if !ok {
			return nil
		}
		i, ok := free[had]
		if !ok || host(u.targets[i].Instance) != host(s.Address) || !s.accepts(u.targets[i]) {
			return nil
		}
		return []Target{u.targets[i]}
	}
}

// defaultOffset is the distance of TiKV's status port to its port, if nobody chose others.
const defaultOffset = 20

// byPortOffset fits several stores of one host to as many targets, if one and the same number added to
// each store's port gives all of the targets' ports. If the default number gives some of them it must give all,
// lest everyone gets the neighbour's. Targets of the past count where those that are live are not as many.
func byPortOffset(u undecided) func(Store) []Target {
	storesOf, targetsOf := map[string][]Store{}, map[string][]Target{}
	for _, s := range u.stores {
		storesOf[host(s.Address)] = append(storesOf[host(s.Address)], s)
	}
	for _, t := range u.targets {
		targetsOf[host(t.Instance)] = append(targetsOf[host(t.Instance)], t)
	}
	found := map[Store][]Target{}
	for h, ss := range storesOf {
		ts := targetsOf[h]
		if h == "" || len(ss) < 2 {
			continue
		}
		if len(ts) != len(ss) {
			ts = slices.DeleteFunc(slices.Clone(ts), func(t Target) bool { return !t.Live })
		}
		if pairs, ok := equalOffsets(ss, ts, someAt(defaultOffset, ss, targetsOf[h])); ok {
			for s, t := range pairs {
				found[s] = []Target{t}
			}
		}
	}
	return func(s Store) []Target { return found[s] }
}

// equalOffsets pairs all of stores with all of targets by one offset of their ports, which is the default one
// where mustBeDefault.
func equalOffsets(stores []Store, targets []Target, mustBeDefault bool) (map[Store]Target, bool) {
	if len(stores) != len(targets) {
		return nil, false
	}
	byPort := func(a, b string) int {
		_, p := hostPort(a)
		_, q := hostPort(b)
		return p - q
	}
	stores = slices.SortedFunc(slices.Values(stores), func(a, b Store) int { return byPort(a.Address, b.Address) })
	targets = slices.SortedFunc(slices.Values(targets), func(a, b Target) int { return byPort(a.Instance, b.Instance) })
	pairs := make(map[Store]Target, len(stores))
	var offset, last int
	for i, s := range stores {
		_, from := hostPort(s.Address)
		_, to := hostPort(targets[i].Instance)
		if i == 0 {
			offset = to - from
		}
		if from == 0 || to == 0 || to-from != offset || from == last || !s.accepts(targets[i]) {
			return nil, false
		}
		last = from
		pairs[s] = targets[i]
	}
	return pairs, !mustBeDefault || offset == defaultOffset
}

// someAt tells whether a target's port is a store's at the given offset.
func someAt(offset int, stores []Store, targets []Target) bool {
	ports := map[int]bool{}
	for _, t := range targets {
		_, port := hostPort(t.Instance)
		ports[port] = port > 0
	}
	return slices.ContainsFunc(stores, func(s Store) bool {
		_, port := hostPort(s.Address)
		return ports[port+offset]
	})
}

// byHost fits the store's host to the target's, if there is one of either on it. Where PD tells the port
// of the status address, it is the target's.
func byHost(u undecided) func(Store) []Target {
	type place struct {
		host string
		port int // -1 for any.
	}
	index := map[place][]Target{}
	for _, t := range u.targets {
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
