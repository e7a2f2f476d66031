// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/operator-store/operator_store_exporter/collector"
	"github.com/operator-store/operator_store_exporter/internal/storematch"
)

// matched looks at which target was found for which store.
func (e *examination) matched(r collector.Report) {
	taken := map[storematch.Identity]bool{}
	fit, down := 0, []string(nil)
	var lost, undecided []collector.StoreReport
	for _, s := range r.Stores {
		target, found := s.Match.Target()
		switch {
		case found:
			taken[target.Identity] = true
			fit++
			if up, known := r.Value(s, "operator_store_up"); known && up != 1 {
				down = append(down, s.Address)
			}
		case s.Match.Ambiguous:
			undecided = append(undecided, s)
		default:
			lost = append(lost, s)
		}
	}
	var free []string
	for _, t := range storematch.CurrentTargets(e.targets) {
		if !taken[t.Identity] {
			free = append(free, t.Instance)
		}
	}
	slices.Sort(free)
	if fit > 0 {
		e.add(OK, "stores", "%s of %s", plural(fit, "target"), plural(len(r.Stores), "store"))
	}
	for i, s := range lost {
		if i == most {
			e.add(Fail, "stores", "and %d more that no target matches", len(lost)-most)
			break
		}
		e.add(Fail, "stores", "no target matches %s; %s", s.Address, advice(s.Address, free))
	}
	ambiguous := 0
	for _, p := range r.Problems {
		if strings.HasPrefix(p, "store ") {
			ambiguous++
			if ambiguous <= most {
				e.add(Fail, "stores", "%s", p)
			}
		}
	}
	if ambiguous > most {
		e.add(Fail, "stores", "and %d more that nothing decides", ambiguous-most)
	}
	if len(free) > 0 && len(lost) == 0 && len(undecided) == 0 && len(e.cluster.Stores) > 0 {
		e.add(Warn, "stores", "upstream scrapes TiKVs that are not among stores: %s: add them, or leave stores out for all", few(free))
	}
	if len(down) > 0 {
		e.add(Warn, "stores", "upstream's scrapes of %s fail: is TiKV down, or out of its reach? see %s/targets", few(down), r.Serving)
	}
}

// advice says which target may be the one meant.
func advice(address string, free []string) string {
	host := address
	if h, _, err := net.SplitHostPort(address); err == nil {
		host = h
	}
	name, _, _ := strings.Cut(host, ".")
	near := slices.DeleteFunc(slices.Clone(free), func(instance string) bool {
		other, _, _ := strings.Cut(instance, ":")
		other, _, _ = strings.Cut(other, ".")
		return !strings.EqualFold(other, name)
	})
	switch {
	case len(near) > 0 && net.ParseIP(host) == nil:
		return fmt.Sprintf("upstream has %s: set instance", few(near))
	case len(free) > 0:
		return fmt.Sprintf("upstream has, for no other store, %s: set instance if one of them is it, or let upstream scrape it", few(free))
	default:
		return "and upstream has no TiKV that is no other store's: let upstream scrape it, or take it out of stores"
	}
}
