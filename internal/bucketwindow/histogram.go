// SPDX-License-Identifier: Apache-2.0

// Package bucketwindow chooses the histogram buckets that a query needs.
//
// # Purpose
//
// Without this package, nine tenths of the series that a scrape makes upstream evaluate would be
// histogram buckets: TiKV's gRPC histogram alone has thousands of series per store. But a quantile
// needs only four of a histogram's cumulative counts: those of the two bounds that it lies between,
// and those of the two highest bounds, the highest finite one and +Inf, which give the number of
// all observations (see Histogram.total). So each target is queried for a few bounds: those around
// which its quantiles lay on the last scrape, and the two highest. These bounds are the target's
// window.
//
// # Windows that are too narrow
//
// Latencies change, so a quantile may have left the window since the last scrape. The response
// shows whether it has, because cumulative counts never fall from one bound to the next: the
// process adds up its buckets before it exports them. So if the count of one bound is below the
// quantile's rank and the count of the next bound is not, then the quantile lies between these two
// bounds, whatever the counts of all other bounds are.
//
// For example, of 100 observations per second the 99th percentile has the rank 99. If the window
// has le=0.1 with the count 97 and le=0.2 with 99.5, and these are neighbors, then the quantile
// lies between them, at 0.1 + 0.1 * (99 - 97) / (99.5 - 97) = 0.18. But if the lowest bound of the
// window is le=0.1 and its count is 99.2, then a lower bound, which was not queried, may have
// reached 99 as well. In that case, the target is queried for all of its buckets within the same
// scrape.
//
// Either way, the result equals that of all buckets to the last bit, and that of PromQL's
// histogram_quantile within rounding errors. Where rounding could decide, as for a rank that is
// almost equal to a count, a window counts as too narrow.
//
// # Conditions
//
// Two things can make counts fall from one bound to the next, or change the bounds themselves. When
// a process restarts, upstream estimates the rate of each bound's counter separately, and these
// estimates may not fit together for one rate window. And another version of TiKV may have other
// bounds. Therefore, a window only applies to a target whose process has not restarted since the
// window was learned, and that started longer than the rate window ago.
//
// # Types
//
// Layout holds the bounds of a histogram, Histogram computes quantiles from some of its buckets,
// and Learner chooses the buckets of all targets, scrape after scrape. Learner.group puts targets
// with similar windows into one query.
package bucketwindow

import (
	"math"
	"slices"

	"github.com/prometheus/prometheus/promql"
)

// Histogram holds the cumulative counts of some or all of a layout's buckets. The zero Histogram
// has no layout.
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

// Add adds the cumulative count of the bucket at a position of the layout. Counts of one bound that
// is spelled in several ways add up, as in PromQL.
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
	// equalTolerance is the relative difference up to which PromQL considers two counts equal.
	equalTolerance = 1e-12
	// rankTolerance is a relative difference. If a count is closer to the rank than this, rounding
	// may decide which of the two is larger. PromQL removes such small differences between counts,
	// but needs all counts to do so.
	rankTolerance = 1e-9
	// smallBucket is the share of observations below which a bucket may hold nothing but rounding
	// errors.
	smallBucket = 1e-4
	// nearBound is the share of a bucket's width within which a quantile is near the bucket's
	// bound, and may be beyond it on the next scrape. It balances two costs. One more bound costs
	// about a twentieth of all buckets, on every scrape. A quantile that moves farther than
	// nearBound costs all buckets, on about one scrape in twenty.
	nearBound = 0.3
)

// Quantile returns the quantile phi, between 0 and 1, in the unit of the bounds; NaN without
// observations. It is not ok if the buckets that are present do not determine it.
//
// The span is what the next scrape should query. It covers the buckets that determine the quantile,
// and one more if the quantile is near to a bound, because it may be beyond it by then. For
// example, with the bounds 1, 2, 4 and 8, a quantile of 3 has the span of 2 and 4, and a quantile
// of 3.9 that of 2, 4 and 8. The span covers all buckets if all of them were needed to compute the
// quantile.
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

// bucketOf returns the first finite bucket whose count reaches rank. It is not certain if a bucket
// that is not present could be that bucket, if the counts are not ascending, or if PromQL has a
// special rule for it.
func (h Histogram) bucketOf(rank float64) (bucket int, certain bool) {
	bucket = -1
	previous := 0.0
	for i, c := range h.counts[:len(h.counts)-1] {
		if math.IsNaN(c) {
			continue
		}
		if c < previous || math.IsInf(c, 0) {
			return 0, false
		}
		previous = c
		if bucket < 0 && c >= rank {
			bucket = i
		}
	}

	switch {
	case bucket < 0: // The rank is above the highest finite bound, or +Inf is the only one.
		return 0, false
	case bucket == 0: // PromQL interpolates from 0, but only if the bound is positive.
		return 0, h.layout.bounds[0] > 0
	default: // If the bucket below is not present, its count may reach the rank as well.
		return bucket, h.Has(bucket - 1)
	}
}

// quantileOfAll computes the quantile as PromQL does, from all buckets. It is not ok if one is not
// present.
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

// total returns the count of all observations as PromQL computes it. That is the count of +Inf, or
// the count of the highest finite bound if it is larger: a process does not increment its buckets
// at the same instant, so it may export an observation in one of them that is missing in the other.
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
