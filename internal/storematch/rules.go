// SPDX-License-Identifier: Apache-2.0

package storematch

import (
	"slices"
	"strings"
)

// A rule finds the targets that fit a store. It has a row in the table of docs/stores.md, in the
// same order.
type rule struct {
	// name says what is compared. It appears in messages about ambiguous stores.
	name string

	// prepare is called once per run with everything that the earlier rules left over, builds
	// whatever index the rule needs, and returns the function that finds the candidates of one
	// store. That function must take constant time on average. It may return the same slice for
	// several stores, which are then all ambiguous or, if the slice has one element, claim the
	// same target.
	prepare func(unmatched) candidatesFunc

	// final reports whether the later rules must not be tried for a store, even if this one finds
	// no candidate. nil means that they may.
	final func(Store) bool
}

// candidatesFunc returns the targets that fit a store.
type candidatesFunc func(Store) []Target

// unmatched is the input of a rule: the stores and targets that the earlier rules left over.
type unmatched struct {
	stores          []Store
	targets         []Target              // Ordered by identity.
	previousTargets map[storeKey]Identity // The targets that stores had at the last discovery.
}

// rules are tried from top to bottom: what is configured, or known from PD, comes before what has
// to be concluded from names and ports. To change the matching, add, change or move a row here
// and in docs/stores.md, and add cases to rules_test.go: targets that must match, and similar
// ones that must not.
var rules = []rule{
	{name: "configured instance", prepare: byConfiguredInstance, final: hasConfiguredInstance},
	{name: "status address", prepare: byStatusAddress},
	{name: "address", prepare: byAddress},
	{name: "pod name", prepare: byPodName},
	{name: "previous target", prepare: byPreviousTarget},
	{name: "equal port offsets", prepare: byPortOffset},
	{name: "host", prepare: byHost},
}

// RuleNames returns the names of the rules in their order.
func RuleNames() []string {
	names := make([]string, len(rules))
	for i, r := range rules {
		names[i] = r.name
	}
	return names
}

// byConfiguredInstance matches the target whose instance is exactly the one that the
// configuration has for the store.
//
// The store {address: "h:20160", instance: "proxy:9000"} matches instance="proxy:9000". It does
// not match instance="PROXY:9000", because the configuration quotes a label value rather than an
// address.
func byConfiguredInstance(u unmatched) candidatesFunc {
	return byKey(u, func(s Store) string { return s.Instance }, func(t Target) string { return t.Instance })
}

// hasConfiguredInstance makes byConfiguredInstance final: if there is no target with the configured
// instance, the store has none. Falling back to another target would hide the mistake.
func hasConfiguredInstance(s Store) bool { return s.Instance != "" }

// byStatusAddress matches the target whose instance is the store's status address, where TiKV
// serves its metrics according to PD.
//
// The store "h:20160" with the status address "h:20181" matches instance="h:20181", even if there
// is also a target with instance="h:20180". A status address that every TiKV registers, such as
// 127.0.0.1:20180, is not used; see Store.statusAddress.
func byStatusAddress(u unmatched) candidatesFunc {
	return byKey(u,
		func(s Store) string { return normalize(s.statusAddress()) },
		func(t Target) string { return normalize(t.Instance) })
}

// byAddress matches the target whose instance is the store's address. Some setups relabel it so.
//
// The store "tikv-1:20160" matches instance="tikv-1:20160", and the store "tikv0", without a
// port, matches instance="tikv0".
func byAddress(u unmatched) candidatesFunc {
	return byKey(u,
		func(s Store) string { return normalize(s.Address) },
		func(t Target) string { return normalize(t.Instance) })
}

// byKey finds the targets whose key is equal to the store's. A store with the key "" has no
// candidates.
func byKey(u unmatched, storeKey func(Store) string, targetKey func(Target) string) candidatesFunc {
	index := map[string][]Target{}
	for _, t := range u.targets {
		key := targetKey(t)
		index[key] = append(index[key], t)
	}

	return func(s Store) []Target {
		if key := storeKey(s); key != "" {
			return index[key]
		}
		return nil
	}
}

// byPodName matches the target of the pod that the store's address names, as with TiDB Operator.
//
// The store "basic-tikv-0.basic-tikv-peer.ns.svc:20160" is the pod basic-tikv-0 of the TiDB
// cluster basic in the namespace ns. It matches a target with pod="basic-tikv-0", and one with
// instance="basic-tikv-0", if neither the namespace nor the cluster says otherwise:
//
//   - If the target has a namespace, it must be ns. If the store's address has none, as in
//     "basic-tikv-0:20160", any namespace will do.
//   - A cluster label can have several meanings. cluster="eu-west-1" is no reason to reject a
//     target. But TiDB Operator writes tidb_cluster="NAMESPACE-CLUSTER", so "other-basic" is the
//     cluster basic of another namespace, and is rejected.
//   - If several targets are left, those with the cluster label basic or ns-basic are preferred.
//
// basic-tikv-0 is a common name, and one upstream may scrape many TiDB clusters. These checks
// keep the stores of one from getting the gauges of another.
func byPodName(u unmatched) candidatesFunc {
	type key struct{ pod, namespace string }
	const anyNamespace = "*" // Not a valid name of a namespace.
	index := map[key][]Target{}
	for _, t := range u.targets {
		if pod := t.podName(); pod != "" {
			index[key{pod, t.Namespace}] = append(index[key{pod, t.Namespace}], t)
			index[key{pod, anyNamespace}] = append(index[key{pod, anyNamespace}], t)
		}
	}

	// Many stores and targets may have the same pod name. Filtering the targets once for all of
	// these stores keeps the cost linear.
	cache := map[storePod][]Target{}

	return func(s Store) []Target {
		pod := s.pod()
		if pod.name == "" {
			return nil
		}
		if candidates, ok := cache[pod]; ok {
			return candidates
		}

		samePod := index[key{pod.name, anyNamespace}]
		if pod.namespace != "" {
			samePod = slices.Concat(index[key{pod.name, pod.namespace}], index[key{pod.name, ""}])
		}
		cache[pod] = pod.filterByCluster(samePod)
		return cache[pod]
	}
}

// filterByCluster removes the targets whose cluster label contradicts the pod's cluster, and, if
// several are left and the labels of some confirm it, those that do not confirm it.
func (p storePod) filterByCluster(targets []Target) []Target {
	full := p.namespace + "-" + p.cluster
	contradicts := func(t Target) bool {
		return p.namespace != "" && strings.HasSuffix(t.Cluster, "-"+p.cluster) && t.Cluster != full
	}
	confirms := func(t Target) bool {
		return p.cluster != "" && (t.Cluster == p.cluster || t.Cluster == full)
	}

	var possible, confirmed []Target
	for _, t := range targets {
		if contradicts(t) {
			continue
		}
		possible = append(possible, t)
		if confirms(t) {
			confirmed = append(confirmed, t)
		}
	}

	if len(possible) > 1 && len(confirmed) > 0 {
		return confirmed
	}

	return possible
}

// byPreviousTarget matches the target that the store had at the last discovery, no matter which
// rule found it then.
//
// The rules below look at all stores and targets of a host at once, so a change of one would
// change the matches of the others. Take the stores "h:20160" and "h:20161" with the targets
// "h:20180" and "h:20181". When a third TiKV is started on h and only its target "h:20182" is
// known yet, the ports no longer match up. This rule keeps the first two stores as they were.
//
// The target must still be on the store's host, and must not contradict the status port, if PD
// knows it.
func byPreviousTarget(u unmatched) candidatesFunc {
	index := make(map[Identity]Target, len(u.targets))
	for _, t := range u.targets {
		index[t.Identity] = t
	}

	return func(s Store) []Target {
		previous, ok := u.previousTargets[s.key()]
		if !ok {
			return nil
		}
		t, ok := index[previous]
		if !ok || hostOf(t.Instance) != hostOf(s.Address) || !s.statusPortAllows(t) {
			return nil
		}
		return []Target{t}
	}
}

// defaultPortOffset is the distance between TiKV's default ports: 20160 for clients, 20180 for
// metrics.
const defaultPortOffset = 20

// byPortOffset matches several stores of one host to as many targets, if the distance between the
// ports is the same for all of them.
//
// The stores "h:20160" and "h:20161" match the targets "h:20180" and "h:20181": each target's
// port is its store's port plus 20. Any distance will do, also a negative one, because the ports
// are configurable. There must be as many targets as stores, at least two, and all of them must
// line up. Otherwise the rule does not apply to the host:
//
//   - "h:20160" and "h:20161" do not match "h:20180" and "h:20190": the distances are 20 and 29.
//   - "h:20160" and "h:20161" do not match "h:20181" and "h:20182", although all distances are
//     21. The port 20181 is also that of the second store plus 20, the default. Most likely the
//     target of the first store and the second target's store are unknown, and matching would
//     give every store the gauges of its neighbor. So if the default offset fits any store and
//     target, it must fit all of them.
//
// If the number of targets differs, the past ones are left out and the live ones tried. Targets
// that have just gone down are past, but still belong to a store.
func byPortOffset(u unmatched) candidatesFunc {
	storesByHost, targetsByHost := map[string][]Store{}, map[string][]Target{}
	for _, s := range u.stores {
		host := hostOf(s.Address)
		storesByHost[host] = append(storesByHost[host], s)
	}

	for _, t := range u.targets {
		host := hostOf(t.Instance)
		targetsByHost[host] = append(targetsByHost[host], t)
	}

	candidates := map[Store][]Target{}
	for host, stores := range storesByHost {
		if host == "" || len(stores) < 2 {
			continue
		}

		for s, t := range pairByOffset(stores, targetsByHost[host]) {
			candidates[s] = []Target{t}
		}
	}

	return func(s Store) []Target { return candidates[s] }
}

// pairByOffset returns the target of each of the stores of one host, or nil if they do not line up.
func pairByOffset(stores []Store, targets []Target) map[Store]Target {
	needsDefault := anyAtOffset(defaultPortOffset, stores, targets)

	if len(targets) != len(stores) {
		targets = slices.DeleteFunc(slices.Clone(targets), func(t Target) bool { return !t.Live })
	}
	if len(targets) != len(stores) {
		return nil
	}

	// If all ports have the same distance, the stores and targets are in the same order by port.
	stores = slices.SortedFunc(slices.Values(stores), func(a, b Store) int {
		return portOf(a.Address) - portOf(b.Address)
	})
	targets = slices.SortedFunc(slices.Values(targets), func(a, b Target) int {
		return portOf(a.Instance) - portOf(b.Instance)
	})
	offset := portOf(targets[0].Instance) - portOf(stores[0].Address)
	if needsDefault && offset != defaultPortOffset {
		return nil
	}

	pairs := make(map[Store]Target, len(stores))
	lastPort := 0
	for i, s := range stores {
		storePort, targetPort := portOf(s.Address), portOf(targets[i].Instance)
		unknownPort := storePort == 0 || targetPort == 0
		samePortAgain := storePort == lastPort
		if unknownPort || samePortAgain || targetPort-storePort != offset || !s.statusPortAllows(targets[i]) {
			return nil
		}
		lastPort = storePort
		pairs[s] = targets[i]
	}

	return pairs
}

// anyAtOffset reports whether the port of any target is that of any store plus offset.
func anyAtOffset(offset int, stores []Store, targets []Target) bool {
	targetPorts := map[int]bool{}
	for _, t := range targets {
		if port := portOf(t.Instance); port > 0 {
			targetPorts[port] = true
		}
	}

	return slices.ContainsFunc(stores, func(s Store) bool { return targetPorts[portOf(s.Address)+offset] })
}

// byHost matches the target on the store's host. If PD knows the status port, the target's port
// must be the same, unless the instance has no port.
//
// The store "10.0.0.1:20160" matches instance="10.0.0.1:20180". Several stores or several targets
// on one host are ambiguous, unless their status ports differ: the store "h:20160" with
// the status address "10.0.0.1:20181" matches "h:20181" and not "h:20180".
func byHost(u unmatched) candidatesFunc {
	type key struct {
		host string
		port int
	}
	const anyPort = -1 // 0 stands for an instance without a port.
	index := map[key][]Target{}
	for _, t := range u.targets {
		host, port := hostOf(t.Instance), portOf(t.Instance)
		index[key{host, port}] = append(index[key{host, port}], t)
		index[key{host, anyPort}] = append(index[key{host, anyPort}], t)
	}

	return func(s Store) []Target {
		host, statusPort := hostOf(s.Address), portOf(s.statusAddress())
		switch {
		case host == "":
			return nil
		case statusPort != 0:
			return slices.Concat(index[key{host, statusPort}], index[key{host, 0}])
		default:
			return index[key{host, anyPort}]
		}
	}
}
