// SPDX-License-Identifier: Apache-2.0

package bucketwindow

import (
	"slices"
	"time"

	"github.com/operator-store/operator_store_exporter/internal/storematch"
)

const (
	// queryCost is what a query costs by itself, here and in upstream.
	queryCost = 3 * time.Millisecond
	// maxExtraQueries is how many more queries than necessary are sent in order to select fewer buckets.
	maxExtraQueries = 4
)

// group cuts targets, which are sorted by their windows, into groups that are queried together.
//
// A query selects the union of its targets' windows for all of its targets. Few large groups thus select buckets that
// most of their targets do not need; many small groups pay for queries. For example, if 100 targets need the bounds
// {1, 2} and 100 targets need {8, 16}, one query selects 200 x 4 buckets and two queries select 2 x (100 x 2), half as
// many. Two queries are better if those 400 buckets cost upstream more than one query by itself.
//
// The best cut into consecutive groups is found by dynamic programming, see cheapestGroups. If it has too many queries,
// the cost of a query is doubled until it does not.
func (l *Learner) group(targets []storematch.Identity, size int) [][]storematch.Identity {
	var runs [][]storematch.Identity // Consecutive targets with equal windows are never cut.
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

// cheapestGroups joins consecutive runs to the groups with the least total cost, given the cost of one query by itself.
//
// cheapest[n] is the cheapest way to group the first n runs. It ends with some group of the runs from `first` to n, so
// it costs cheapest[first] plus that group's cost, minimized over first:
//
//	cost of a group = queries x cost of a query + targets x selected buckets x cost of a bucket
//
// The groups are read back from the end, following first. This takes time quadratic in the number of distinct windows,
// of which there are a few dozen even for thousands of targets.
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
			if cheapest[n].cost == 0 || cost < cheapest[n].cost {
				cheapest[n] = grouping{cost, first, cheapest[first].queries + queries}
			}
		}
	}

	for n := len(runs); n > 0; n = cheapest[n].first {
		groups = append(groups, slices.Concat(runs[cheapest[n].first:n]...))
	}

	return groups, cheapest[len(runs)].queries
}

// evenSize returns the size of parts that n is cut into if each has at most size, and all have about the same size.
func evenSize(n, size int) int {
	parts := max(1, ceilDiv(n, size))

	return max(1, ceilDiv(n, parts))
}

// ceilDiv returns n / size, rounded up.
func ceilDiv(n, size int) int { return (n + size - 1) / size }
