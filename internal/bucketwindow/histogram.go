// SPDX-License-Identifier: Apache-2.0

// Package histogram computes quantiles of classic histograms from as few of their buckets as suffice.
//
// A quantile needs the counts of the two bounds that it falls between, that of the highest finite bound and the total. Whether
// those that are there suffice can be told from them, as counts of finite bounds do not fall: a process adds them up when it is
// scraped. Where they do, the result is that of all buckets to the last bit, and that of PromQL's histogram_quantile; where
// they do not, there is none.
package bucketwindow

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/prometheus/promql"
)

// Layout is the bounds of a histogram's buckets, ascending. The last one is +Inf. It does not change once it is made.
type Layout struct {
	les    []string // The label le as upstream spells it, by place.
	bounds []float64
	index  map[string]int
}

// NewLayout returns the layout of buckets with the given labels le, in any order. The error is of one that is no number,
// or of +Inf that is not among them.
func NewLayout(les []string) (*Layout, error) {
	l := &Layout{les: slices.Clone(les), index: make(map[string]int, len(les))}
	number := make(map[string]float64, len(les))
	for _, le := range les {
		v, err := strconv.ParseFloat(le, 64)
		if err != nil || math.IsNaN(v) {
			return nil, fmt.Errorf("a bucket without a bound: le=%q", le)
		}
		number[le] = v
	}
	slices.SortFunc(l.les, func(a, b string) int { return cmp.Or(cmp.Compare(number[a], number[b]), strings.Compare(a, b)) })
	for _, le := range l.les {
		if len(l.bounds) == 0 || number[le] != l.bounds[len(l.bounds)-1] {
			l.bounds = append(l.bounds, number[le])
		}
		l.index[le] = len(l.bounds) - 1
	}
	if len(l.bounds) == 0 || !math.IsInf(l.bounds[len(l.bounds)-1], 1) {
		return nil, errors.New(`buckets, but not the one of le="+Inf"`)
	}
	return l, nil
}

// Les returns the labels le, ascending. They must not be changed.
func (l *Layout) Les() []string { return l.les }

// Plain tells whether each bound is spelled in one way alone. It is not while a Prometheus of 2.x is replaced by one of 3.x, which
// writes 1.0 for 1.
func (l *Layout) Plain() bool { return len(l.les) == len(l.bounds) }

// Index returns the place of a label le.
func (l *Layout) Index(le string) (int, bool) {
	i, ok := l.index[le]
	return i, ok
}

// Histogram holds the cumulative counts of some of a layout's buckets.
type Histogram struct {
	layout *Layout
	counts []float64 // NaN where a bucket is not there.
}

// New returns a histogram without buckets.
func New(l *Layout) Histogram {
	h := Histogram{l, make([]float64, len(l.bounds))}
	for i := range h.counts {
		h.counts[i] = math.NaN()
	}
	return h
}

// Add adds the cumulative count of a bucket at a place: those of one bound spelled in several ways are added up, as PromQL does.
func (h Histogram) Add(i int, count float64) {
	if !math.IsNaN(h.counts[i]) {
		count += h.counts[i]
	}
	h.counts[i] = count
}

// Has tells whether the bucket at a place is there.
func (h Histogram) Has(i int) bool { return !math.IsNaN(h.counts[i]) }

// Layout returns the layout, nil of the zero Histogram.
func (h Histogram) Layout() *Layout { return h.layout }

// Count returns the count of all observations, NaN if it is not there.
func (h Histogram) Count() float64 { return h.counts[len(h.counts)-1] }

// Counts that differ by less than this share of them may be equal but for the order in which they were added up, which
// PromQL takes for equal: it takes all counts to do as it does. The same goes for a bucket that has less than this share of them.
const (
	equal  = 1e-12 // PromQL's own measure.
	noise  = 1e-9
	little = 1e-4
)

// Quantile returns the quantile of phi, between 0 and 1, in the unit of the bounds: NaN without observations. It is not ok
// where the buckets that are there do not tell. Needs are the places of those that would have, the first and the last one,
// with another one to the side that the quantile is near to: it may be there the next time.
func (h Histogram) Quantile(phi float64) (v float64, needs [2]int, ok bool) {
	last := len(h.counts) - 1
	all := [2]int{0, last}
	total, ok := h.total()
	if !ok {
		return 0, all, false
	}
	if total == 0 && h.zero() {
		return math.NaN(), [2]int{last, last}, true
	}
	// What can't be told from a few buckets is told as PromQL does it, from all.
	complete := func() (float64, [2]int, bool) {
		buckets := make(promql.Buckets, 0, len(h.counts))
		for i, c := range h.counts {
			if math.IsNaN(c) {
				return 0, all, false
			}
			buckets = append(buckets, promql.Bucket{UpperBound: h.layout.bounds[i], Count: c})
		}
		v, _, _, _, _, _ := promql.BucketQuantile(phi, buckets)
		return v, all, true
	}
	rank := phi * total
	b, lowest := -1, -1
	for i, previous := 0, 0.0; i < last; i++ {
		c := h.counts[i]
		if math.IsNaN(c) {
			continue
		}
		if c < previous || math.IsInf(c, 0) {
			return complete()
		}
		previous = c
		if lowest < 0 {
			lowest = i
		}
		if b < 0 && c >= rank {
			b = i
		}
	}
	below, lower := 0.0, 0.0 // The count and the bound below the bucket that the rank falls into.
	switch {
	case b < 0: // Beyond the highest bound, or there is but one.
		return complete()
	case b == 0 && h.layout.bounds[0] <= 0:
		return complete()
	case b == 0:
	case b == lowest || !h.Has(b-1):
		return complete() // Another one below may reach the rank too.
	default:
		below, lower = h.counts[b-1], h.layout.bounds[b-1]
	}
	count := h.counts[b]
	if rank-below <= noise*rank || count-rank <= noise*rank || count-below <= little*count {
		return complete()
	}
	share := (rank - below) / (count - below)
	needs = [2]int{max(0, b-1), b}
	switch {
	case share < near:
		needs[0] = max(0, b-2)
	case share > 1-near:
		needs[1] = min(last, b+1)
	}
	return lower + (h.layout.bounds[b]-lower)*share, needs, true
}

// near is how much of a bucket's width is near to its bound: a bound more costs a twentieth of all buckets, which is about how often
// a quantile moves further than that from one scrape to the next.
const near = 0.3

// total is the count of all observations as PromQL takes it: that of the highest finite bound where the one of +Inf falls
// behind it, for a process counts the two one after the other.
func (h Histogram) total() (float64, bool) {
	last := len(h.counts) - 1
	total := h.counts[last]
	if last == 0 {
		return total, !math.IsNaN(total)
	}
	finite := h.counts[last-1]
	if total < finite || math.Abs(total-finite) <= equal*finite {
		total = finite
	}
	return total, !math.IsNaN(total) && !math.IsNaN(finite)
}

// zero tells whether no bucket that is there has a count.
func (h Histogram) zero() bool {
	return !slices.ContainsFunc(h.counts, func(c float64) bool { return c != 0 && !math.IsNaN(c) })
}
