// SPDX-License-Identifier: Apache-2.0

package bucketwindow

import (
	"slices"
	"time"

	"github.com/operator-store/operator_store_exporter/internal/storematch"
)

const (
	// queryCost is the fixed cost of a query, in the exporter and in upstream together.
	queryCost = 3 * time.Millisecond
	// maxExtraQueries is how many more queries than necessary are sent in order to select fewer
	// buckets.
	maxExtraQueries = 4
)

// group cuts targets, which are sorted by their windows, into groups that are queried together.
//
// A query selects the same bounds for all of its targets: the union of their windows. So a large
// group selects buckets that most of its targets do not need, and a small group needs a query of
// its own. For example, if 100 targets need the bounds 1 and 2, and 100 other targets need 8 and
// 16, then one query selects 200 x 4 buckets, and two queries select 100 x 2 + 100 x 2, half as
// many. Two queries are better if the 400 buckets that they save cost upstream more than one query
// by itself.
//
// Similar windows are neighbors, because the targets are sorted. Therefore only cuts into groups of
// consecutive targets are considered; cheapestGroups finds the best one of them. If the best one
// has too many queries, the search is repeated with twice the cost of a query, until it has few
// enough.
func (l *Learner) group(targets []storematch.Identity, size int) [][]storematch.Identity {
	var runs [][]storematch.Identity // Targets with equal windows, which stay in one group.
	for i, t := range targets {
		if i > 0 && l.windows[t].equal(l.windows[targets[i-1]]) {
			runs[len(runs)-1] = append(runs[len(runs)-1], t)
		} else {
			runs = append(runs, []storematch.Identity{t})
		}
	}

	maxQueries := ceilDiv(len(targets), size) + maxExtraQueries
	for cost := queryCost; ; cost *= 2 {
		groups, queries := l.cheapestGroups(runs, size, cost)
		if queries <= maxQueries || len(groups) <= 1 {
			return groups
		}
	}
}

// cheapestGroups joins consecutive runs of targets with equal windows to groups, so that all groups
// together cost least. Each group costs
//
//	queries x cost of a query + targets x selected bounds x cost of a bucket
//
// This is dynamic programming: the best groups of the first n runs are found from the best groups
// of fewer runs. The last group of the first n runs begins with some run, `first`. Before it are
// the first `first` runs, whose best groups are known already. So the cost of the first n runs is
//
//	cheapest[first].cost + cost of the group of the runs from first to n-1
//
// and cheapest[n] is the minimum for all values of first. At the end, cheapest[len(runs)] has the
// first run of the last group, cheapest of that run has the first run of the group before it, and
// so on. This takes time quadratic in the number of distinct windows, of which there are a few
// dozen even for thousands of targets.
func (l *Learner) cheapestGroups(
	runs [][]storematch.Identity, size int, perQuery time.Duration,
) (groups [][]storematch.Identity, queries int) {
	type grouping struct {
		cost    time.Duration
		first   int // The first run of the last group.
		queries int
	}
	cheapest := make([]grouping, len(runs)+1)
	for n := 1; n <= len(runs); n++ {
		les, targets := map[string]bool{}, 0
		for first := n - 1; first >= 0; first-- {
			l.windows[runs[first][0]].addTo(les)
			targets += len(runs[first])

			queries := ceilDiv(targets, size)
			cost := cheapest[first].cost +
				time.Duration(queries)*perQuery + time.Duration(targets*len(les))*l.bucketCost
			if cheapest[n].cost == 0 || cost < cheapest[n].cost { // Zero: nothing was found yet.
				cheapest[n] = grouping{cost, first, cheapest[first].queries + queries}
			}
		}
	}

	for n := len(runs); n > 0; n = cheapest[n].first {
		groups = append(groups, slices.Concat(runs[cheapest[n].first:n]...))
	}

	return groups, cheapest[len(runs)].queries
}

// evenSize returns the size of parts that n is cut into if each has at most size, and all have
// about the same size.
func evenSize(n, size int) int {
	parts := max(1, ceilDiv(n, size))

	return max(1, ceilDiv(n, parts))
}

// ceilDiv returns n / size, rounded up.
func ceilDiv(n, size int) int { return (n + size - 1) / size }
