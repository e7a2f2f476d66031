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

func layout(t testing.TB, les ...string) *bucketwindow.Layout {
	t.Helper()
	l, err := bucketwindow.NewLayout(les)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestLayout(t *testing.T) {
	l := layout(t, "+Inf", "2", "0.5", "1.0", "1")
	if got := l.Labels(); !slices.Equal(got, []string{"0.5", "1", "1.0", "2", "+Inf"}) || l.Unambiguous() {
		t.Errorf("got %q, plain %v", got, l.Unambiguous())
	}
	for le, want := range map[string]int{"0.5": 0, "1": 1, "1.0": 1, "2": 2, "+Inf": 3} {
		if got, ok := l.Index(le); !ok || got != want {
			t.Errorf("%s is at %d, want %d", le, got, want)
		}
	}
	if _, ok := l.Index("3"); ok {
		t.Error("3 is there")
	}
	for _, les := range [][]string{{}, {"1", "2"}, {"x", "+Inf"}, {"", "+Inf"}, {"NaN", "+Inf"}} {
		if _, err := bucketwindow.NewLayout(les); err == nil {
			t.Errorf("%q is a layout", les)
		}
	}
}

// Cumulative counts of the bounds 1, 2, 4, 8, +Inf, NaN where a bucket is not there, and what can be told of them.
func TestQuantile(t *testing.T) {
	nan := math.NaN()
	l := layout(t, "1", "2", "4", "8", "+Inf")
	for _, tc := range []struct {
		name   string
		phi    float64
		counts [5]float64
		want   float64
		ok     bool
	}{
		{"all are there", 0.95, [5]float64{0, 90, 100, 100, 100}, 3, true},
		{"the two around it, the highest and the total suffice", 0.95, [5]float64{nan, 90, 100, 100, 100}, 3, true},
		{"the highest is missing", 0.95, [5]float64{nan, 90, 100, nan, 100}, 0, false},
		{"the total falls behind the highest", 0.95, [5]float64{nan, 90, 100, 100, 50}, 3, true},
		{"the one below is missing", 0.95, [5]float64{0, nan, 100, 100, 100}, 0, false},
		{"the total is missing", 0.95, [5]float64{0, 90, 100, 100, nan}, 0, false},
		{"the lowest that is there reaches the rank", 0.95, [5]float64{nan, nan, 96, 100, 100}, 0, false},
		{"the highest that is there does not", 0.95, [5]float64{0, 90, nan, 92, 100}, 0, false},
		{"the first bucket of all", 0.5, [5]float64{100, nan, nan, 100, 100}, 0.5, true},
		{"beyond the last bound", 0.95, [5]float64{0, 0, 0, 50, 100}, 8, true},
		{"beyond the last bound, and some are missing", 0.95, [5]float64{nan, 0, 0, 50, 100}, 0, false},
		{"no observations", 0.95, [5]float64{nan, nan, 0, 0, 0}, nan, true},
		{"counts that fall, and all are there", 0.95, [5]float64{10, 5, 98, 100, 100}, 2 + 2*85.0/88, true},
		{"counts that fall, and some are missing", 0.95, [5]float64{nan, 95, 90, 100, 100}, 0, false},
		{"a rank on a bound, and all are there", 0.9, [5]float64{0, 90, 100, 100, 100}, 2, true},
		{"a rank on a bound, and some are missing", 0.9, [5]float64{nan, 90, 100, 100, 100}, 0, false},
		{"infinite counts", 0.9, [5]float64{0, 90, math.Inf(1), math.Inf(1), nan}, 0, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := bucketwindow.New(l)
			for i, c := range tc.counts {
				if !math.IsNaN(c) {
					h.Add(i, c)
				}
			}
			got, _, ok := h.Quantile(tc.phi)
			if ok != tc.ok || ok && got != tc.want && !(math.IsNaN(got) && math.IsNaN(tc.want)) {
				t.Errorf("got %v, %v, want %v, %v", got, ok, tc.want, tc.ok)
			}
		})
	}
}

// Whatever buckets are left of a histogram: if a quantile can be told of them, it is that of all buckets to the last bit, and
// that of histogram_quantile as nearly as counts are.
func TestFewBucketsTellWhatAllDo(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	told := 0
	for range 200_000 {
		n := 2 + random.IntN(24)
		les := make([]string, n)
		counts := make([]float64, n)
		bound, count := 0.00005, 0.0
		for i := range n {
			les[i] = strconv.FormatFloat(bound, 'g', -1, 64)
			bound *= 2
			switch random.IntN(4) {
			case 0: // Nothing in this bucket.
			case 1:
				count += math.Floor(random.Float64() * 100)
			default:
				count += random.ExpFloat64() * 100
			}
			counts[i] = count
		}
		les[n-1] = "+Inf"
		if random.IntN(4) == 0 { // It is counted before the others, or after them.
			counts[n-1] = math.Max(0, counts[n-2]+random.NormFloat64())
		}
		l := layout(t, les...)
		all, few := bucketwindow.New(l), bucketwindow.New(l)
		buckets := make(promql.Buckets, 0, n)
		for i, c := range counts {
			all.Add(i, c)
			bound, _ := strconv.ParseFloat(les[i], 64) // It is one.
			buckets = append(buckets, promql.Bucket{UpperBound: bound, Count: c})
			if random.IntN(3) > 0 {
				few.Add(i, c)
			}
		}
		phi := []float64{0.5, 0.95, 0.99}[random.IntN(3)]
		want, needs, ok := all.Quantile(phi)
		if !ok {
			t.Fatalf("%v tell nothing", counts)
		}
		upstream, _, _, _, _, _ := promql.BucketQuantile(phi, slices.Clone(buckets))
		if !same(want, upstream) && !(math.Abs(want-upstream) <= 1e-9*math.Abs(upstream)) {
			t.Fatalf("%v of %v: %v, want %v", phi, counts, want, upstream)
		}
		if got, _, ok := few.Quantile(phi); ok {
			told++
			if !same(got, want) {
				t.Fatalf("%v of %v: %v of few, %v of all", phi, counts, got, want)
			}
		}
		window := bucketwindow.New(l)
		for i := needs[0]; i <= needs[1]; i++ {
			window.Add(i, counts[i])
		}
		for i := max(0, n-2); i < n; i++ {
			if !window.Has(i) {
				window.Add(i, counts[i])
			}
		}
		if got, _, ok := window.Quantile(phi); !ok || !same(got, want) {
			t.Fatalf("%v of %v: %v (%v) of those that are needed, %v of all", phi, counts, got, ok, want)
		}
	}
	if told < 10_000 {
		t.Errorf("few buckets told only %d times", told)
	}
}

func same(a, b float64) bool { return math.Float64bits(a) == math.Float64bits(b) }

func BenchmarkQuantile(b *testing.B) {
	les := make([]string, 0, 23)
	for i := range 22 {
		les = append(les, strconv.FormatFloat(0.00005*math.Pow(2, float64(i)), 'g', -1, 64))
	}
	l := layout(b, append(les, "+Inf")...)
	h := bucketwindow.New(l)
	for i := range 23 {
		h.Add(i, 1000*(1-math.Exp(-float64(i)/3)))
	}
	b.ReportAllocs()
	for b.Loop() {
		h.Quantile(0.99)
	}
}
