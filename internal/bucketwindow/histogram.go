// SPDX-License-Identifier: Apache-2.0

// Package bucketwindow chooses the histogram buckets that a query needs.
//
// # Why
//
// Nine tenths of the series that a scrape would make upstream rate are buckets: TiKV's gRPC histogram alone has
// thousands of series per store. A quantile needs only four of a histogram's cumulative counts: those of the two bounds
// that it lies between, that of the highest finite bound, and that of +Inf, the total. So each target is queried for
// the few bounds around which its quantiles lay on the last scrape, its window.
//
// # When a window is too narrow
//
// The response shows whether the window was wide enough. Cumulative counts never fall from bound to bound, because
// the process adds them up when it is scraped. So if the count of bound b-1 is below the quantile's rank and the count
// of bound b is not, the quantile lies between them, no matter what the other bounds say. For example, with 100
// observations, the 99th percentile has rank 99. If the window has le=0.1 with 97 and le=0.2 with 99.5, then the
// quantile is 0.1 + 0.1 * (99-97)/(99.5-97) = 0.18. If instead the window's lowest bound, le=0.1, already counts
// 99.2, then a lower bound may have reached the rank as well, and the target is queried again, for all of its buckets,
// within the same scrape. The result equals that of all buckets, and of PromQL's histogram_quantile, to the last bit.
//
// # What must hold
//
// The counts of a target fall between bounds for one rate window after its process restarted, because each bound's
// counter resets on its own, and the bounds differ between versions of TiKV. Therefore a window only applies to a
// target whose process has not restarted since it was learned, and that started longer than the rate window ago.
package bucketwindow

import (
	"math"
	"slices"

	"github.com/prometheus/prometheus/promql"
)

// Histogram holds the cumulative counts of some or all of a layout's buckets. The zero Histogram has no layout.
type Histogram struct {
	layout *Layout
	counts []float64 // NaN for buckets that were not queried.
}

// New returns a histogram without counts.
func New(l *Layout) Histogram {
	h := Histogram{l, make([]float64, len(l.bounds))}
	for i := range h.counts {
		h.counts[i] = math.NaN()
	}

	return h
}

// Add adds the cumulative count of the bucket at a position of the layout. Counts of one bound that is spelled in
// several ways add up, as in PromQL.
func (h Histogram) Add(i int, count float64) {
	if !math.IsNaN(h.counts[i]) {
		count += h.counts[i]
	}
	h.counts[i] = count
}

// Has reports whether the bucket at a position of the layout has a count.
func (h Histogram) Has(i int) bool { return !math.IsNaN(h.counts[i]) }

// Layout returns the layout, which is nil for the zero Histogram.
func (h Histogram) Layout() *Layout { return h.layout }

// Count returns the count of all observations, or NaN if it was not queried.
func (h Histogram) Count() float64 { return h.counts[len(h.counts)-1] }

// Span is the first and the last position of consecutive buckets.
type Span [2]int

const (
	// equalTolerance is the relative difference below which PromQL considers two counts equal.
	equalTolerance = 1e-12
	// rankTolerance is the relative distance of a count from the rank below which rounding may decide on which side it
	// lies. PromQL evens out such differences using all counts, so all are needed.
	rankTolerance = 1e-9
	// smallBucket is the share of observations below which a bucket may hold nothing but rounding errors.
	smallBucket = 1e-4
	// nearBound is the share of a bucket's width within which a quantile is near the bucket's bound, and may be beyond
	// it on the next scrape. Querying one bound more costs about a twentieth of all buckets, which is about how often a
	// quantile moves farther than this between two scrapes.
	nearBound = 0.3
)

// Quantile returns the quantile phi, between 0 and 1, in the unit of the bounds; NaN without observations. It is not
// ok if the buckets that are present do not determine it.
//
// The span covers the buckets that determine the quantile, and one more on a side that the quantile is near to, because
// it may have moved there by the next scrape. It covers all buckets if it took all to compute the quantile.
func (h Histogram) Quantile(phi float64) (v float64, span Span, ok bool) {
	last := len(h.counts) - 1
	all := Span{0, last}
	total, ok := h.total()
	switch {
	case !ok:
		return 0, all, false
	case total == 0 && h.isZero():
		return math.NaN(), Span{last, last}, true
	}

	rank := phi * total
	b, certain := h.bucketOf(rank)
	if !certain {
		return h.quantileOfAll(phi)
	}

	// The count and the bound below the bucket that the rank falls into.
	below, lower := 0.0, 0.0
	if b > 0 {
		below, lower = h.counts[b-1], h.layout.bounds[b-1]
	}
	count := h.counts[b]
	if rank-below <= rankTolerance*rank || count-rank <= rankTolerance*rank || count-below <= smallBucket*count {
		return h.quantileOfAll(phi)
	}

	share := (rank - below) / (count - below)
	span = Span{max(0, b-1), b}
	switch {
	case share < nearBound:
		span[0] = max(0, b-2)
	case share > 1-nearBound:
		span[1] = min(last, b+1)
	}

	return lower + (h.layout.bounds[b]-lower)*share, span, true
}

// bucketOf returns the first finite bucket whose count reaches rank. It is not certain if a bucket that is not present
// could be that bucket, if the counts are not ascending, or if PromQL has a special rule for it.
func (h Histogram) bucketOf(rank float64) (bucket int, certain bool) {
	bucket, lowest := -1, -1
	previous := 0.0
	for i, c := range h.counts[:len(h.counts)-1] {
		if math.IsNaN(c) {
			continue
		}
		if c < previous || math.IsInf(c, 0) {
			return 0, false
		}
		previous = c
		if lowest < 0 {
			lowest = i
		}
		if bucket < 0 && c >= rank {
			bucket = i
		}
	}

	switch {
	case bucket < 0: // Above the highest finite bound, or +Inf is the only one.
		return 0, false
	case bucket == 0:
		return 0, h.layout.bounds[0] > 0
	default: // Otherwise a lower bucket that is not present may reach the rank as well.
		return bucket, bucket != lowest && h.Has(bucket-1)
	}
}

// quantileOfAll computes the quantile as PromQL does, from all buckets. It is not ok if one is not present.
func (h Histogram) quantileOfAll(phi float64) (float64, Span, bool) {
	all := Span{0, len(h.counts) - 1}
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

// total returns the count of all observations as PromQL takes it: the count of the highest finite bound if it exceeds
// that of +Inf, because a process increments the two one after the other.
func (h Histogram) total() (float64, bool) {
	last := len(h.counts) - 1
	total := h.counts[last]
	if last == 0 {
		return total, !math.IsNaN(total)
	}

	finite := h.counts[last-1]
	if total < finite || math.Abs(total-finite) <= equalTolerance*finite {
		total = finite
	}

	return total, !math.IsNaN(total) && !math.IsNaN(finite)
}

// isZero reports whether every count that is present is zero.
func (h Histogram) isZero() bool {
	return !slices.ContainsFunc(h.counts, func(c float64) bool { return c != 0 && !math.IsNaN(c) })
}
