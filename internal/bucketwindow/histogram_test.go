// SPDX-License-Identifier: Apache-2.0

package bucketwindow_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"

	"github.com/prometheus/prometheus/promql"

	"github.com/operator-store/operator_store_exporter/internal/bucketwindow"
)

// nan marks a bucket that is not present.
var nan = math.NaN()

func TestQuantile(t *testing.T) {
	layout := newLayout(t, "1", "2", "4", "8", "+Inf")
	for _, tc := range []struct {
		name   string
		phi    float64
		counts [5]float64 // Cumulative counts of the layout's bounds; nan if the bucket is not present.
		want   float64
		ok     bool
	}{
		{
			name: "all buckets", phi: 0.95,
			counts: [5]float64{0, 90, 100, 100, 100},
			want:   3, ok: true,
		},
		{
			name: "two around the rank, the highest finite one, and +Inf", phi: 0.95,
			counts: [5]float64{nan, 90, 100, 100, 100},
			want:   3, ok: true,
		},
		{
			name: "highest finite bucket missing", phi: 0.95,
			counts: [5]float64{nan, 90, 100, nan, 100},
		},
		{
			name: "+Inf counts less than the highest finite bucket", phi: 0.95,
			counts: [5]float64{nan, 90, 100, 100, 50},
			want:   3, ok: true,
		},
		{
			name: "bucket below the rank missing", phi: 0.95,
			counts: [5]float64{0, nan, 100, 100, 100},
		},
		{
			name: "+Inf missing", phi: 0.95,
			counts: [5]float64{0, 90, 100, 100, nan},
		},
		{
			name: "lowest present bucket reaches the rank", phi: 0.95,
			counts: [5]float64{nan, nan, 96, 100, 100},
		},
		{
			name: "highest present bucket does not reach the rank", phi: 0.95,
			counts: [5]float64{0, 90, nan, 92, 100},
		},
		{
			name: "rank in the first bucket", phi: 0.5,
			counts: [5]float64{100, nan, nan, 100, 100},
			want:   0.5, ok: true,
		},
		{
			name: "rank above the highest finite bound", phi: 0.95,
			counts: [5]float64{0, 0, 0, 50, 100},
			want:   8, ok: true,
		},
		{
			name: "rank above the highest finite bound, a bucket missing", phi: 0.95,
			counts: [5]float64{nan, 0, 0, 50, 100},
		},
		{
			name: "no observations", phi: 0.95,
			counts: [5]float64{nan, nan, 0, 0, 0},
			want:   nan, ok: true,
		},
		{
			name: "falling counts, all buckets", phi: 0.95,
			counts: [5]float64{10, 5, 98, 100, 100},
			want:   2 + 2*85.0/88, ok: true,
		},
		{
			name: "falling counts, a bucket missing", phi: 0.95,
			counts: [5]float64{nan, 95, 90, 100, 100},
		},
		{
			name: "rank equal to a count, all buckets", phi: 0.9,
			counts: [5]float64{0, 90, 100, 100, 100},
			want:   2, ok: true,
		},
		{
			name: "rank equal to a count, the bucket below missing", phi: 0.9,
			counts: [5]float64{nan, 90, 100, 100, 100},
		},
		{
			name: "rank equal to a count, the bucket above missing", phi: 0.9,
			counts: [5]float64{0, 90, nan, 100, 100},
		},
		{
			name: "rank almost equal to a count, all buckets", phi: 0.9,
			counts: [5]float64{0, 90 + 1e-10, 100, 100, 100},
			want:   1 + 90/(90+1e-10), ok: true,
		},
		{
			name: "rank almost equal to a count, a bucket missing", phi: 0.9,
			counts: [5]float64{0, 90 + 1e-10, nan, 100, 100},
		},
		{
			name: "almost no observations in the bucket, all buckets", phi: 0.5,
			counts: [5]float64{0, 49.998, 50.002, 100, 100},
			want:   2 + 2*(50-49.998)/(50.002-49.998), ok: true,
		},
		{
			name: "almost no observations in the bucket, a bucket missing", phi: 0.5,
			counts: [5]float64{nan, 49.998, 50.002, 100, 100},
		},
		{
			name: "infinite counts", phi: 0.9,
			counts: [5]float64{0, 90, math.Inf(1), math.Inf(1), nan},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := bucketwindow.New(layout)
			for i, c := range tc.counts {
				if !math.IsNaN(c) {
					h.Add(i, c)
				}
			}

			got, _, ok := h.Quantile(tc.phi)
			equal := got == tc.want || math.IsNaN(got) && math.IsNaN(tc.want)
			if ok != tc.ok || ok && !equal {
				t.Errorf("got %v, %v, want %v, %v", got, ok, tc.want, tc.ok)
			}
		})
	}
}

// The span of buckets that the next scrape queries: those around the quantile, and one more if it
// is near to a bound.
func TestQuantileSpan(t *testing.T) {
	type span = bucketwindow.Span

	layout := newLayout(t, "1", "2", "4", "8", "16", "+Inf")
	for _, tc := range []struct {
		name   string
		counts [6]float64
		want   span
	}{
		{name: "in the middle of a bucket", counts: [6]float64{0, 0, 100, 100, 100, 100}, want: span{1, 2}},
		{name: "near the lower bound", counts: [6]float64{0, 40, 100, 100, 100, 100}, want: span{0, 2}},
		{name: "near the upper bound", counts: [6]float64{0, 0, 60, 100, 100, 100}, want: span{1, 3}},
		{name: "in the first bucket", counts: [6]float64{100, 100, 100, 100, 100, 100}, want: span{0, 0}},
		{name: "above the highest finite bound", counts: [6]float64{0, 0, 0, 0, 10, 100}, want: span{0, 5}},
		{name: "falling counts", counts: [6]float64{20, 10, 100, 100, 100, 100}, want: span{0, 5}},
		{name: "no observations", counts: [6]float64{}, want: span{5, 5}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := bucketwindow.New(layout)
			for i, c := range tc.counts {
				h.Add(i, c)
			}
			if _, got, ok := h.Quantile(0.5); !ok || got != tc.want {
				t.Errorf("got the span %v, %v, want %v", got, ok, tc.want)
			}
		})
	}
}

// Counts of the same bound, spelled in two ways, add up.
func TestAddTwice(t *testing.T) {
	h := bucketwindow.New(newLayout(t, "1", "1.0", "+Inf"))
	if h.Has(0) {
		t.Error("an empty histogram has a count")
	}
	h.Add(0, 5)
	h.Add(0, 6)
	h.Add(1, 12)
	if v, _, ok := h.Quantile(0.5); !ok || v != 6.0/11 {
		t.Errorf("the quantile is %v, %v, want that of 11 observations up to 1, 6/11", v, ok)
	}
	if got := h.Count(); got != 12 {
		t.Errorf("the count is %v, want 12", got)
	}
}

// randomHistogram returns a random layout with cumulative counts, as upstream may return them.
func randomHistogram(random *rand.Rand) (les []string, counts []float64) {
	n := 2 + random.IntN(24)
	les, counts = make([]string, n), make([]float64, n)
	bound, count := 0.00005, 0.0
	for i := range n {
		les[i] = strconv.FormatFloat(bound, 'g', -1, 64)
		bound *= 2

		switch random.IntN(4) {
		case 0: // No observations in this bucket.
		case 1:
			count += math.Floor(random.Float64() * 100)
		default:
			count += random.ExpFloat64() * 100
		}
		counts[i] = count
	}

	les[n-1] = "+Inf"
	if random.IntN(4) == 0 { // It was incremented before the others, or after them.
		counts[n-1] = math.Max(0, counts[n-2]+random.NormFloat64())
	}

	return les, counts
}

// If some of the buckets determine a quantile, it equals that of all buckets to the last bit, and
// histogram_quantile of PromQL within rounding errors. The buckets of the span always determine it.
func TestSomeBucketsEqualAllBuckets(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	determined := 0
	for range 200_000 {
		les, counts := randomHistogram(random)

		layout := newLayout(t, les...)
		all, some := bucketwindow.New(layout), bucketwindow.New(layout)
		buckets := make(promql.Buckets, 0, len(les))
		for i, c := range counts {
			all.Add(i, c)
			if random.IntN(3) > 0 {
				some.Add(i, c)
			}
			bound, err := strconv.ParseFloat(les[i], 64)
			if err != nil {
				t.Fatal(err)
			}
			buckets = append(buckets, promql.Bucket{UpperBound: bound, Count: c})
		}

		phi := []float64{0.5, 0.95, 0.99}[random.IntN(3)]
		want, span, ok := all.Quantile(phi)
		if !ok {
			t.Fatalf("all buckets of %v do not determine the quantile %v", counts, phi)
		}
		ofPromQL, _, _, _, _, _ := promql.BucketQuantile(phi, slices.Clone(buckets))
		if !same(want, ofPromQL) && !(math.Abs(want-ofPromQL) <= 1e-9*math.Abs(ofPromQL)) {
			t.Fatalf("the quantile %v of %v is %v, want %v", phi, counts, want, ofPromQL)
		}

		if got, _, ok := some.Quantile(phi); ok {
			determined++
			if !same(got, want) {
				t.Fatalf("the quantile %v of %v is %v from some buckets, %v from all", phi, counts, got, want)
			}
		}
		if got, _, ok := windowOf(layout, counts, span).Quantile(phi); !ok || !same(got, want) {
			t.Fatalf("the quantile %v of %v is %v, %v from its window, %v from all buckets", phi, counts, got, ok, want)
		}
	}

	if determined < 10_000 {
		t.Errorf("some buckets determined the quantile only %d times", determined)
	}
}

// windowOf returns the buckets of a span, the highest finite one, and +Inf.
func windowOf(layout *bucketwindow.Layout, counts []float64, span bucketwindow.Span) bucketwindow.Histogram {
	window := bucketwindow.New(layout)
	for i, c := range counts {
		if i >= span[0] && i <= span[1] || i >= len(counts)-2 {
			window.Add(i, c)
		}
	}

	return window
}

// same reports whether two numbers are equal to the last bit.
func same(a, b float64) bool { return math.Float64bits(a) == math.Float64bits(b) }

func BenchmarkQuantile(b *testing.B) {
	les := make([]string, 0, 23)
	for i := range 22 {
		les = append(les, strconv.FormatFloat(0.00005*math.Pow(2, float64(i)), 'g', -1, 64))
	}

	h := bucketwindow.New(newLayout(b, append(les, "+Inf")...))
	for i := range 23 {
		h.Add(i, 1000*(1-math.Exp(-float64(i)/3)))
	}

	b.ReportAllocs()

	for b.Loop() {
		h.Quantile(0.99)
	}
}
