// SPDX-License-Identifier: Apache-2.0

package bucketwindow

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Layout holds the bounds of a histogram's buckets, ascending. The last one is +Inf. A layout is
// immutable.
type Layout struct {
	labels []string // The values of the label le as upstream spells them, ascending.
	bounds []float64
	index  map[string]int // From a value of le to its position in bounds.
}

// NewLayout returns the layout of buckets with the given values of the label le, in any order. The
// error says which value is not a number, or that +Inf is missing.
func NewLayout(les []string) (*Layout, error) {
	l := &Layout{labels: slices.Clone(les), index: make(map[string]int, len(les))}
	number := make(map[string]float64, len(les))
	for _, le := range les {
		v, err := strconv.ParseFloat(le, 64)
		if err != nil || math.IsNaN(v) {
			return nil, fmt.Errorf("the response has a bucket whose bound is not a number: le=%q", le)
		}
		number[le] = v
	}

	slices.SortFunc(l.labels, func(a, b string) int {
		return cmp.Or(cmp.Compare(number[a], number[b]), strings.Compare(a, b))
	})

	for _, le := range l.labels {
		if len(l.bounds) == 0 || number[le] != l.bounds[len(l.bounds)-1] {
			l.bounds = append(l.bounds, number[le])
		}
		l.index[le] = len(l.bounds) - 1
	}

	if len(l.bounds) == 0 || !math.IsInf(l.bounds[len(l.bounds)-1], 1) {
		return nil, errors.New(`the response has buckets, but not the one with le="+Inf"`)
	}

	return l, nil
}

// Labels returns the values of the label le, ascending. They must not be modified.
func (l *Layout) Labels() []string { return l.labels }

// Unambiguous reports whether each bound has only one spelling. Some have two while a Prometheus 2,
// which writes 1, is replaced by a Prometheus 3, which writes 1.0.
func (l *Layout) Unambiguous() bool { return len(l.labels) == len(l.bounds) }

// Index returns the position of the bound with a value of the label le.
func (l *Layout) Index(le string) (int, bool) {
	i, ok := l.index[le]

	return i, ok
}
