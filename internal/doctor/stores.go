// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/operator-store/operator_store_exporter/internal/display"
	"github.com/operator-store/operator_store_exporter/internal/gauge"
	"github.com/operator-store/operator_store_exporter/internal/report"
	"github.com/operator-store/operator_store_exporter/internal/storematch"
)

// storeGroups are the stores of a scrape by how they were matched.
type storeGroups struct {
	matched     map[storematch.Identity]bool // The targets of the stores that have one.
	unmatched   []string                     // Addresses of the stores that no target matches.
	ambiguous   bool                         // More than one target matches a store.
	down        []string                     // Addresses of the matched stores whose scrapes fail.
	unmonitored []string                     // Addresses of the matched stores without a sample of up.
}

// maxListed is how many stores with the same problem are listed.
const maxListed = 5

func groupStores(r *report.Report) storeGroups {
	groups := storeGroups{matched: map[storematch.Identity]bool{}}
	for _, s := range r.Stores {
		target, found := s.Match.Target()
		switch {
		case found:
			groups.matched[target.Identity] = true
			if up := r.Value(s, gauge.Up); up.OK && up.V != 1 {
				groups.down = append(groups.down, s.Address)
			}
			if monitored := r.Value(s, gauge.Monitored); monitored.OK && monitored.V != 1 {
				groups.unmonitored = append(groups.unmonitored, s.Address)
			}
		case s.Match.Ambiguous:
			groups.ambiguous = true
		default:
			groups.unmatched = append(groups.unmatched, s.Address)
		}
	}

	return groups
}

// checkStores checks that each store has exactly one target, and each target a store.
func (c *checker) checkStores(r *report.Report) {
	groups := groupStores(r)
	free := c.freeTargets(groups.matched)

	if n := len(groups.matched); n > 0 {
		c.add(OK, nameStores, "%d of %s matched to a target", n, display.Plural(len(r.Stores), "store"))
	}
	c.reportUnmatched(groups.unmatched, free)
	c.reportStoreProblems(r)

	complete := len(groups.unmatched) == 0 && !groups.ambiguous
	if len(free) > 0 && complete && len(c.cluster.Stores) > 0 {
		c.add(Warn, nameStores,
			"upstream scrapes TiKV targets that are not in stores: %s: add them, or remove stores to include all",
			display.Names(free))
	}
	if len(groups.down) > 0 {
		c.add(Warn, nameStores,
			"upstream's scrapes of %s fail: check whether TiKV is down or unreachable from upstream: see %s",
			display.Names(groups.down), c.targetsPage())
	}
	if len(groups.unmonitored) > 0 {
		c.add(Warn, nameStores,
			"upstream has no up sample of %s: check whether it still scrapes them: see %s",
			display.Names(groups.unmonitored), c.targetsPage())
	}
}

// freeTargets returns the instances of the targets that belong to no store, sorted.
func (c *checker) freeTargets(matched map[storematch.Identity]bool) []string {
	var free []string
	for _, t := range storematch.CurrentTargets(c.targets) {
		if !matched[t.Identity] {
			free = append(free, t.Instance)
		}
	}
	slices.Sort(free)

	return free
}

// reportUnmatched adds a check for each store that no target matches.
func (c *checker) reportUnmatched(unmatched, free []string) {
	for _, address := range unmatched[:min(len(unmatched), maxListed)] {
		c.add(Fail, nameStores, "no target matches %q; %s", address, advice(address, free))
	}
	if more := len(unmatched) - maxListed; more > 0 {
		c.add(Fail, nameStores, "no target matches %s", display.Plural(more, "more store"))
	}
}

// reportStoreProblems adds a check for each store that has no gauges because another target or
// store has the same labels or address.
func (c *checker) reportStoreProblems(r *report.Report) {
	count := 0
	for _, p := range r.Problems {
		if !p.AboutStore() {
			continue
		}
		count++
		if count <= maxListed {
			c.add(Fail, nameStores, "%s", p)
		}
	}
	if more := count - maxListed; more > 0 {
		c.add(Fail, nameStores, "%s without gauges", display.Plural(more, "more store"))
	}
}

// advice suggests which of the free targets may be the store's.
func advice(address string, free []string) string {
	host := address
	if h, _, err := net.SplitHostPort(address); err == nil {
		host = h
	}
	name := firstLabel(host)
	similar := slices.DeleteFunc(slices.Clone(free), func(instance string) bool {
		instanceHost, _, _ := strings.Cut(instance, ":")

		return !strings.EqualFold(firstLabel(instanceHost), name)
	})

	switch {
	case len(similar) > 0 && net.ParseIP(host) == nil:
		return fmt.Sprintf("upstream has %s: set instance", display.Names(similar))
	case len(free) > 0:
		return fmt.Sprintf("upstream has these targets without a store: %s: set instance if one of them is the store, "+
			"otherwise add the store to upstream's scrape_configs", display.Names(free))
	default:
		return "upstream has no TiKV target without a store: add the store to upstream's scrape_configs, " +
			"or remove it from stores"
	}
}

// firstLabel returns a host name up to its first dot.
func firstLabel(host string) string {
	label, _, _ := strings.Cut(host, ".")

	return label
}
