// SPDX-License-Identifier: Apache-2.0

package promqlexpr

import (
	"regexp"
	"strings"
)

// Bounds of one label matcher. Prometheus compiles a matcher with at most 255 alternatives into a
// lookup in a set, which is much faster than a regular expression. Some upstreams limit the length
// of a query; VictoriaMetrics limits it to 16 KiB.
const (
	MaxMatcherValues = 250
	MaxMatcherBytes  = 12_000
)

// SplitForMatchers cuts items into consecutive parts so that two matchers of each part, for the
// values first and second of its items as OneOf writes them, stay within the bounds:
// MaxMatcherValues, and maxBytes, which is at most MaxMatcherBytes. A value that several items
// share counts once. There is at least one part, which is empty if there are no items.
func SplitForMatchers[T any](items []T, maxBytes int, first, second func(T) string) [][]T {
	var parts [][]T
	start := 0
	a, b := newMatcherSize(), newMatcherSize()
	for i, item := range items {
		if i > start && (!a.fits(first(item), maxBytes) || !b.fits(second(item), maxBytes)) {
			parts = append(parts, items[start:i])
			start = i
			a, b = newMatcherSize(), newMatcherSize()
		}
		a.add(first(item))
		b.add(second(item))
	}

	return append(parts, items[start:])
}

// matcherSize is the size of a matcher for the values added to it.
type matcherSize struct {
	values map[string]bool
	bytes  int
}

func newMatcherSize() *matcherSize { return &matcherSize{values: map[string]bool{}} }

// fits reports whether the matcher stays within the bounds with one more value.
func (m *matcherSize) fits(v string, maxBytes int) bool {
	return m.values[v] || len(m.values) < MaxMatcherValues && m.bytes+literalBytes(v) <= maxBytes
}

func (m *matcherSize) add(v string) {
	if !m.values[v] {
		m.values[v] = true
		m.bytes += literalBytes(v)
	}
}

// literalBytes returns how many bytes v adds to a matcher. A matcher is written as a regular
// expression in a quoted string: a.b is written as a\\.b|, which is two backslashes and a separator
// more.
func literalBytes(v string) int {
	literal := regexp.QuoteMeta(v)

	return len(literal) + strings.Count(literal, `\`) + len("|")
}
