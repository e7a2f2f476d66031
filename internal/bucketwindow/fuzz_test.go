// SPDX-License-Identifier: Apache-2.0

package bucketwindow_test

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/operator-store/operator_store_exporter/internal/bucketwindow"
)

// A quantile equals the definition of histogram_quantile in PromQL's documentation.
func FuzzQuantile(f *testing.F) {
	f.Add("0.1:5,0.2:9,+Inf:10")
	f.Add("1:90,2:100,+Inf:100")
	f.Add("2:10,4:5,8:98,+Inf:100")
	f.Add("+Inf:1,-1:0.5")
	f.Add("0:0,+Inf:0")
	f.Add("-1:100,2:100,+Inf:100")
	f.Add("0:100,2:100,+Inf:100")
	f.Fuzz(func(t *testing.T, list string) {
		les, counts, ok := parseBuckets(list)
		if !ok {
			return
		}

		got, gotOK := quantileOf(les, counts)
		want, wantOK := documentedQuantile(0.99, counts)
		if gotOK != wantOK {
			t.Fatalf("%s: got %v, %v, want %v, %v", list, got, gotOK, want, wantOK)
		}
		if gotOK && !(math.Abs(got-want) <= 1e-9*math.Max(math.Abs(want), 1e-9)) {
			t.Errorf("%s: got %v, want %v", list, got, want)
		}
	})
}

// parseBuckets reads buckets written as LE:COUNT,LE:COUNT. It is not ok if they are not what a
// histogram can have.
func parseBuckets(list string) (les []string, counts map[float64]float64, ok bool) {
	counts = map[float64]float64{}
	for _, item := range strings.Split(list, ",") {
		le, number, _ := strings.Cut(item, ":")
		bound, err := strconv.ParseFloat(le, 64)
		if err != nil || math.IsNaN(bound) || math.IsInf(bound, -1) {
			return nil, nil, false
		}
		if math.Abs(bound) > 1e15 && !math.IsInf(bound, 1) {
			return nil, nil, false
		}
		count, err := strconv.ParseFloat(number, 64)
		if err != nil || !(count >= 0 && count < 1e15) {
			return nil, nil, false
		}
		if _, duplicate := counts[bound]; duplicate {
			return nil, nil, false
		}
		les = append(les, le)
		counts[bound] = count
	}

	return les, counts, true
}

// quantileOf returns the 99th percentile, as the exporter does. It is not ok if the gauge is
// absent.
func quantileOf(les []string, counts map[float64]float64) (float64, bool) {
	layout, err := bucketwindow.NewLayout(les)
	if err != nil {
		return 0, false
	}

	h := bucketwindow.New(layout)
	for _, le := range les {
		i, _ := layout.Index(le)
		bound, _ := strconv.ParseFloat(le, 64) // NewLayout has parsed it.
		h.Add(i, counts[bound])
	}

	v, _, ok := h.Quantile(0.99)

	return v, ok && !math.IsNaN(v) && !math.IsInf(v, 0)
}

// documentedQuantile is histogram_quantile as PromQL's documentation defines it: it interpolates
// linearly within the bucket that the rank falls into. The lower bound of the first bucket is 0 if
// its upper bound is positive. If the rank falls into the bucket +Inf, the result is the highest
// finite bound. There is no result without observations, with fewer than two buckets, or without
// +Inf. A count that falls counts as the one before.
func documentedQuantile(phi float64, counts map[float64]float64) (float64, bool) {
	var bounds []float64
	for b := range counts {
		bounds = append(bounds, b)
	}
	slices.Sort(bounds)
	n := len(bounds)
	if n < 2 || !math.IsInf(bounds[n-1], 1) {
		return 0, false
	}

	cumulative := make([]float64, n)
	highest := 0.0
	for i, b := range bounds {
		highest = math.Max(highest, counts[b])
		cumulative[i] = highest
	}
	total := cumulative[n-1]
	if total == 0 {
		return 0, false
	}

	rank := phi * total
	i := 0
	for i < n-1 && cumulative[i] < rank {
		i++
	}

	switch {
	case i == n-1:
		return bounds[n-2], true
	case i == 0 && bounds[0] <= 0:
		return bounds[0], true
	}
	lower, below := 0.0, 0.0
	if i > 0 {
		lower, below = bounds[i-1], cumulative[i-1]
	}

	return lower + (bounds[i]-lower)*(rank-below)/(cumulative[i]-below), true
}
