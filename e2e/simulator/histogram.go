// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"bytes"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// histogram is a histogram of a page. Everything except for the numbers is prepared, because the
// pages of all stores of a test are mostly histograms, and with the race detector writing them
// would take most of the time of the tests.
type histogram struct {
	load       Load
	buckets    []bucket
	sum, count string // The lines up to their numbers.
	size       int    // About how many bytes the histogram has.
}

type bucket struct {
	series string  // The line up to its number.
	share  float64 // The share of the observations that are in this bucket and not in a lower one.
}

// newHistogram returns a histogram with the given labels, such as `type="kv_get",`, and finite
// bounds.
func newHistogram(name, labels string, load Load, bounds []float64) histogram {
	h := histogram{load: load}
	below := 0.0
	add := func(le string, upTo float64) {
		h.buckets = append(h.buckets, bucket{
			series: fmt.Sprintf("%s_bucket{%sle=%q} ", name, labels, le), share: upTo - below,
		})
		below = upTo
	}
	for _, b := range bounds {
		add(strconv.FormatFloat(b, 'g', -1, 64), load.below(b))
	}
	add("+Inf", 1)

	braced := ""
	if labels != "" {
		braced = "{" + strings.TrimSuffix(labels, ",") + "}"
	}
	h.sum, h.count = name+"_sum"+braced+" ", name+"_count"+braced+" "
	h.size = (len(h.buckets) + 2) * (len(h.buckets[0].series) + 16)
	return h
}

// write writes the buckets, sum and count after t seconds under load.
func (h *histogram) write(w *bytes.Buffer, t float64) {
	w.Grow(h.size)

	text := w.AvailableBuffer()
	all := 0.0 // Each bucket is counted alone and added to those below, as in TiKV.
	for _, b := range h.buckets {
		all += math.Floor(h.load.Rate * t * b.share)
		text = strconv.AppendInt(append(text, b.series...), int64(all), 10)
		text = append(text, '\n')
	}

	text = strconv.AppendFloat(append(text, h.sum...), all*h.load.Median, 'g', -1, 64)
	text = append(text, '\n')
	text = strconv.AppendInt(append(text, h.count...), int64(all), 10)
	text = append(text, '\n')
	w.Write(text)
}
