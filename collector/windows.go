// SPDX-License-Identifier: Apache-2.0

package collector

import (
	"cmp"
	"errors"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/common/model"

	"github.com/operator-store/operator_store_exporter/internal/bucketwindow"
	"github.com/operator-store/operator_store_exporter/internal/promqlexpr"
	"github.com/operator-store/operator_store_exporter/internal/storematch"
)

// A query of buckets is most of what upstream has to do, and of most of its buckets nobody needs to know. So each target is
// asked only for those around which its quantiles lay the last time: its window. Whether that sufficed is seen from the
// answer; where it did not, all buckets are asked for in the same scrape.
type windows struct {
	off     bool
	pinned  int // Targets a query, 0 to learn it.
	atOnce  int // Queries that may be under way.
	planner planner

	rateWindow time.Duration

	mu      sync.Mutex
	layouts map[string]*bucketwindow.Layout // By their les: most targets have the same one.
	queries map[*Query]*learned
}

// learned is what is known for one query.
type learned struct {
	targets map[storematch.Identity]window
	size    int // Targets a query.

	bucketCost time.Duration // What upstream takes for one bucket of one target.

	// What was planned, as long as it holds.
	found  *found
	stale  bool
	chunks []bucketChunk
}

// window is what one target's buckets were like.
type window struct {
	started float64 // When its process started, as a Unix time.
	layout  *bucketwindow.Layout
	places  [][2]int // First and last of the buckets for each quantile.
}

// bucketChunk is as many targets as one query of buckets may name.
type bucketChunk struct {
	targets    []storematch.Identity
	les        []string // Of the buckets that are asked for; nil for all.
	expression string
}

// The number of targets a query is learned from how long upstream takes for it: several shorter ones go on side by side.
const (
	leastSize = 50
	slow      = 250 * time.Millisecond
	quick     = 60 * time.Millisecond
	queryCost = 3 * time.Millisecond // Of a query by itself, here and there.

	moreQueries = 4 // How many more than are needed there may be, for the sake of fewer buckets.
)

// maxLayouts bounds what is kept of upstreams that make bounds up: all versions of TiKV have three layouts.
const maxLayouts = 1000

func newWindows(off bool, pinned, atOnce int, p planner, rateWindow time.Duration) *windows {
	return &windows{off: off, pinned: pinned, atOnce: atOnce, planner: p, rateWindow: rateWindow, layouts: map[string]*bucketwindow.Layout{}, queries: map[*Query]*learned{}}
}

func (w *windows) of(q *Query) *learned {
	l := w.queries[q]
	if l == nil {
		l = &learned{targets: map[storematch.Identity]window{}, size: min(cmp.Or(w.pinned, maxMatcherValues), maxMatcherValues)}
		w.queries[q] = l
	}
	return l
}

// plan returns the chunks of a query of buckets about all targets that were found.
func (w *windows) plan(q *Query, f *found) []bucketChunk {
	w.mu.Lock()
	defer w.mu.Unlock()
	l := w.of(q)
	if l.found == f && !l.stale {
		return l.chunks
	}
	var known, unknown []storematch.Identity
	wanted := map[storematch.Identity]bool{}
	for _, t := range f.asked {
		wanted[t] = true
		if before, ok := l.targets[t]; ok && !w.off && !before.needsAll() {
			known = append(known, t)
		} else {
			unknown = append(unknown, t)
		}
	}
	maps.DeleteFunc(l.targets, func(t storematch.Identity, _ window) bool { return !wanted[t] })
	size := l.size
	if w.pinned == 0 { // More queries than may be under way at once do not go on side by side.
		size = max(size, min(maxMatcherValues, atLeast(len(f.asked), w.atOnce)))
	}
	l.found, l.stale, l.chunks = f, false, w.allBuckets(q, unknown, size)
	// Those whose quantiles lie in like places go into one chunk.
	slices.SortFunc(known, func(a, b storematch.Identity) int {
		x, y := l.targets[a], l.targets[b]
		return cmp.Or(strings.Compare(x.layout.Les()[0], y.layout.Les()[0]), slices.CompareFunc(x.places, y.places, func(a, b [2]int) int { return cmp.Or(a[0]-b[0], a[1]-b[1]) }), a.Compare(b))
	})
	for _, alike := range l.group(known, size) {
		for part := range slices.Chunk(alike, even(len(alike), size)) {
			for _, part := range w.planner.split(part) {
				chunk := bucketChunk{targets: part, les: slices.Sorted(maps.Keys(l.union(part)))}
				chunk.expression = w.expression(q, part, chunk.les)
				l.chunks = append(l.chunks, chunk)
			}
		}
	}
	return l.chunks
}

// union are the labels le of the targets' windows.
func (l *learned) union(targets []storematch.Identity) map[string]bool {
	les := map[string]bool{}
	for _, t := range targets {
		l.targets[t].add(les)
	}
	return les
}

// group cuts targets, which are in the order of their windows, where it is worth a query more: where fewer buckets are asked
// for than all together would be, and what they cost, as far as that is learned, is more than a query by itself.
func (l *learned) group(targets []storematch.Identity, size int) [][]storematch.Identity {
	var runs [][]storematch.Identity // Of one and the same window.
	for i, t := range targets {
		if i > 0 && l.targets[t].layout == l.targets[targets[i-1]].layout && slices.Equal(l.targets[t].places, l.targets[targets[i-1]].places) {
			runs[len(runs)-1] = append(runs[len(runs)-1], t)
			continue
		}
		runs = append(runs, []storematch.Identity{t})
	}
	most := atLeast(len(targets), size) + moreQueries
	for cost := queryCost; ; cost *= 2 {
		if groups, queries := l.cheapest(runs, size, cost); queries <= most || len(groups) <= 1 {
			return groups
		}
	}
}

// cheapest joins runs of targets to the groups that cost least, if a query by itself costs what is given.
func (l *learned) cheapest(runs [][]storematch.Identity, size int, query time.Duration) (groups [][]storematch.Identity, queries int) {
	// best is the least cost of the first runs, and from where the last group of them goes.
	type plan struct {
		cost    time.Duration
		from    int
		queries int
	}
	best := make([]plan, len(runs)+1)
	for to := 1; to <= len(runs); to++ {
		les, n := map[string]bool{}, 0
		for from := to - 1; from >= 0; from-- {
			l.targets[runs[from][0]].add(les)
			n += len(runs[from])
			queries := atLeast(n, size)
			cost := best[from].cost + time.Duration(queries)*query + time.Duration(n*len(les))*l.bucketCost
			if best[to].cost == 0 || cost < best[to].cost {
				best[to] = plan{cost, from, best[from].queries + queries}
			}
		}
	}
	for to := len(runs); to > 0; to = best[to].from {
		groups = append(groups, slices.Concat(runs[best[to].from:to]...))
	}
	return groups, best[len(runs)].queries
}

// needsAll tells whether all buckets were needed, as where a quantile lies beyond the last bound.
func (w window) needsAll() bool {
	return slices.Contains(w.places, [2]int{0, len(w.layout.Les()) - 1})
}

// add adds the labels le of the window.
func (w window) add(les map[string]bool) {
	all := w.layout.Les()
	for _, p := range w.places {
		for _, le := range all[p[0] : p[1]+1] {
			les[le] = true
		}
	}
	for _, le := range all[max(0, len(all)-2):] { // The highest finite one, and +Inf.
		les[le] = true
	}
}

// allBuckets returns chunks that ask for all buckets, of about the same size.
func (w *windows) allBuckets(q *Query, targets []storematch.Identity, size int) []bucketChunk {
	var chunks []bucketChunk
	for part := range slices.Chunk(targets, even(len(targets), size)) {
		for _, part := range w.planner.split(part) {
			chunks = append(chunks, bucketChunk{part, nil, w.expression(q, part, nil)})
		}
	}
	return chunks
}

// even is how many of n go into each chunk, so that each has at most size and about the same number.
func even(n, size int) int {
	return max(1, atLeast(n, max(1, atLeast(n, size))))
}

// atLeast is how many chunks n takes if each has at most size.
func atLeast(n, size int) int { return (n + size - 1) / size }

func (w *windows) expression(q *Query, targets []storematch.Identity, les []string) string {
	matchers := w.planner.matchers(targets)
	if les != nil {
		matchers = append(matchers, promqlexpr.OneOf(model.BucketLabel, les))
	}
	return w.planner.expressions[q].With(matchers, w.planner.groupBy)
}

// took learns from how long upstream took for a chunk.
func (w *windows) took(q *Query, c bucketChunk, d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	l := w.of(q)
	if len(c.les) > 0 {
		cost := max(0, d-queryCost) / time.Duration(len(c.targets)*len(c.les))
		l.bucketCost += (cost - l.bucketCost) / 4
	}
	switch {
	case w.pinned > 0:
	case len(c.targets) > l.size/2 && d > slow && l.size > leastSize:
		l.size, l.stale = max(leastSize, l.size/2), true
	case len(c.targets) == l.size && d < quick && l.size < maxMatcherValues:
		l.size, l.stale = min(maxMatcherValues, 2*l.size), true
	}
}

// settle makes histograms of what came back of chunks, and learns from them. It returns the targets that must be asked for
// all of their buckets. Nothing else may use the result meanwhile.
func (w *windows) settle(r *result, chunks []bucketChunk, started *result) (again []storematch.Identity) {
	w.mu.Lock()
	defer w.mu.Unlock()
	l := w.of(r.query)
	for _, c := range chunks {
		for _, t := range c.targets {
			if len(r.answers[t]) == 0 {
				continue
			}
			before := l.targets[t]
			now, err := w.read(r, t, before, c.les, started)
			switch {
			case err != nil && c.les != nil:
				again = append(again, t)
			case err != nil:
				r.refuse(t, "the answer has "+err.Error())
				l.forget(t)
			case now.layout == nil:
				l.forget(t)
			case before.layout != now.layout || before.started != now.started || !slices.Equal(before.places, now.places):
				l.targets[t], l.stale = now, true
			}
		}
	}
	return again
}

func (l *learned) forget(t storematch.Identity) {
	if _, ok := l.targets[t]; ok {
		delete(l.targets, t)
		l.stale = true
	}
}

var errWindow = errors.New("other buckets than before")

// read makes histograms of the answers about a target. The window that they tell has no layout where there can be none.
func (w *windows) read(r *result, t storematch.Identity, before window, les []string, started *result) (now window, err error) {
	start, known := startOf(started, t)
	known = known && start < w.settled(r)
	if les != nil && (!known || before.layout == nil || start != before.started) {
		return window{}, errWindow
	}
	now.started = start
	can := known
	for replica, a := range r.answers[t] {
		h, err := w.histogram(a, before.layout, les)
		if err != nil {
			return window{}, err
		}
		for _, phi := range r.query.quantiles {
			_, needs, ok := h.Quantile(phi)
			if !ok && les != nil {
				return window{}, errWindow
			}
			can = can && ok
			now.places = append(now.places, needs)
		}
		can = can && h.Layout().Plain() && (now.layout == nil || now.layout == h.Layout())
		now.layout = h.Layout()
		r.answers[t][replica] = answer{histogram: h}
	}
	if !can {
		now.layout = nil
	}
	return now, nil
}

// settled is the Unix time before which a process must have started for its counters not to have begun anew within the rate
// window, on a clock of its own: while they have, counts of bounds may fall.
func (w *windows) settled(r *result) float64 {
	return float64(r.instant.Unix()) - (w.rateWindow + clockSkew).Seconds()
}

const clockSkew = 5 * time.Minute

// histogram reads an answer: one to les of a layout, or to all buckets.
func (w *windows) histogram(a answer, layout *bucketwindow.Layout, les []string) (bucketwindow.Histogram, error) {
	if les == nil {
		var err error
		if layout, err = w.layout(a); err != nil {
			return bucketwindow.Histogram{}, err
		}
	}
	h := bucketwindow.New(layout)
	for _, s := range a.series {
		place, ok := layout.Index(s.Metric.Get(model.BucketLabel))
		if !ok || les != nil && h.Has(place) {
			return h, errWindow
		}
		h.Add(place, s.F)
	}
	for _, le := range les {
		if place, ok := layout.Index(le); ok && !h.Has(place) {
			return h, errWindow
		}
	}
	return h, nil
}

// layout is that of all buckets. Most targets share one.
func (w *windows) layout(a answer) (*bucketwindow.Layout, error) {
	les := make([]string, len(a.series))
	for i, s := range a.series {
		les[i] = s.Metric.Get(model.BucketLabel)
	}
	slices.Sort(les)
	if len(slices.Compact(slices.Clone(les))) < len(les) {
		return nil, errors.New("a series twice")
	}
	key := strings.Join(les, "|")
	if known := w.layouts[key]; known != nil {
		return known, nil
	}
	layout, err := bucketwindow.NewLayout(les)
	if len(w.layouts) >= maxLayouts {
		clear(w.layouts)
	}
	if err == nil {
		w.layouts[key] = layout
	}
	return layout, err
}

// startOf is when the target's process started, if that is known and the same for all replicas.
func startOf(r *result, t storematch.Identity) (float64, bool) {
	start := math.NaN()
	for _, a := range r.answers[t] {
		for _, s := range a.series {
			if !math.IsNaN(start) && start != s.F {
				return 0, false
			}
			start = s.F
		}
	}
	return start, r.answered(t) && !math.IsNaN(start)
}
