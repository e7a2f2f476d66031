// SPDX-License-Identifier: Apache-2.0

// Package promqlexpr builds PromQL expressions from parsed parts.
//
// All text is read by Prometheus' own parser and written by its own printer. Nothing concatenates
// strings, so a label value with quotes or braces in it can never change the shape of a query.
package promqlexpr

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

var promql = parser.NewParser(parser.Options{})

// Expr is a valid PromQL expression. It is immutable: every method and function that changes an
// expression returns a new one. Expressions with the same text are equal (==), and the zero Expr
// is no expression.
//
// It holds only the text. Parsing takes microseconds, and each caller that changes a syntax tree
// gets one of its own.
type Expr struct{ text string }

// Parse parses an expression. The error quotes the expression and describes the mistake and its
// position.
func Parse(text string) (Expr, error) {
	if _, err := promql.ParseExpr(text); err != nil {
		return Expr{}, fmt.Errorf("expression %s: %w", text, err)
	}
	return Expr{text}, nil
}

// MustParse is like Parse but panics if the text is invalid. It is meant for expressions in code.
func MustParse(text string) Expr {
	e, err := Parse(text)
	if err != nil {
		panic(err)
	}
	return e
}

// String returns the expression as it was written, or as the parser prints it if it was built.
func (e Expr) String() string { return e.text }

// parse returns a new syntax tree of e, which the caller may change.
func (e Expr) parse() parser.Expr {
	root, err := promql.ParseExpr(e.text)
	if err != nil {
		panic(err) // Parse accepted the same text.
	}
	return root
}

// format prints a syntax tree. The parser rejects a literal U+FFFD inside a string, because its
// lexer takes it for invalid UTF-8, but the printer writes it so. The escape sequence means the
// same.
func format(node parser.Node) string {
	return strings.ReplaceAll(node.String(), "\uFFFD", `\ufffd`)
}

// WithMatchers returns e with matchers added to every vector selector, including those in ranges:
// sum(rate(a[1m])) / b becomes sum(rate(a{job="x"}[1m])) / b{job="x"}.
func (e Expr) WithMatchers(matchers []*labels.Matcher) Expr {
	root := e.parse()

	for _, s := range selectors(root) {
		s.LabelMatchers = append(s.LabelMatchers, matchers...)
	}

	return Expr{format(root)}
}

// WithGrouping returns e with labels added to the `by` clause of every aggregation and to every
// `on` clause: sum by (job) (a) becomes sum by (job, replica) (a). An aggregation without a
// clause gets one. `without` and `ignoring` clauses stay as they are, because they keep the
// labels already.
func (e Expr) WithGrouping(labelNames []string) Expr {
	root := e.parse()

	parser.Inspect(root, func(node parser.Node, _ []parser.Node) error {
		switch n := node.(type) {
		case *parser.AggregateExpr:
			if !n.Without {
				n.Grouping = union(n.Grouping, labelNames)
			}
		case *parser.BinaryExpr:
			if n.VectorMatching != nil && n.VectorMatching.On {
				n.VectorMatching.MatchingLabels = union(n.VectorMatching.MatchingLabels, labelNames)
			}
		}
		return nil
	})

	return Expr{format(root)}
}

// WithRange returns e with the range of every range selector set to d: rate(a[1m]) becomes
// rate(a[5m]). Subqueries keep their range. The built-in expressions are written with [1m] and
// get the rate window this way. d is positive and in whole milliseconds.
func (e Expr) WithRange(d time.Duration) Expr {
	root := e.parse()

	parser.Inspect(root, func(node parser.Node, _ []parser.Node) error {
		if m, ok := node.(*parser.MatrixSelector); ok {
			m.Range, m.RangeExpr = d, nil
		}
		return nil
	})

	return Expr{format(root)}
}

// bucketSuffix is the suffix of the metric name of a classic histogram's buckets.
const bucketSuffix = "_bucket"

// Native returns e, an expression for the buckets of a classic histogram, for the native
// histogram of the same name: the metric names lack the suffix _bucket, and the `by` clauses the
// label le. For example, sum by (job, le) (rate(http_duration_bucket[1m])) becomes sum by (job)
// (rate(http_duration[1m])).
func (e Expr) Native() Expr {
	root := e.parse()
	parser.Inspect(root, func(node parser.Node, _ []parser.Node) error {
		switch n := node.(type) {
		case *parser.VectorSelector:
			n.Name = strings.TrimSuffix(n.Name, bucketSuffix)
			n.LabelMatchers = slices.DeleteFunc(n.LabelMatchers, func(m *labels.Matcher) bool {
				return m.Name == model.BucketLabel || m.Name == model.MetricNameLabel
			})
		case *parser.AggregateExpr:
			n.Grouping = slices.DeleteFunc(n.Grouping, func(l string) bool { return l == model.BucketLabel })
		}

		return nil
	})

	return build(root)
}

// Only returns e restricted to the series that matcher selects. The matcher replaces those of the
// same label in every vector selector. Its label is removed from every grouping, because it has
// one value only: with le="+Inf", sum by (job, le) (rate(a_bucket[1m])) becomes sum by (job)
// (rate(a_bucket{le="+Inf"}[1m])).
func (e Expr) Only(matcher *labels.Matcher) Expr {
	root := e.parse()

	sameLabel := func(m *labels.Matcher) bool { return m.Name == matcher.Name }
	parser.Inspect(root, func(node parser.Node, _ []parser.Node) error {
		switch n := node.(type) {
		case *parser.VectorSelector:
			n.LabelMatchers = append(slices.DeleteFunc(n.LabelMatchers, sameLabel), matcher)
		case *parser.AggregateExpr:
			n.Grouping = slices.DeleteFunc(n.Grouping, func(l string) bool { return l == matcher.Name })
		}
		return nil
	})

	return Expr{format(root)}
}

// CountSelectors returns the number of vector selectors, including those in ranges.
func (e Expr) CountSelectors() int { return len(selectors(e.parse())) }

// Series returns the distinct vector selectors of e in the order in which they appear, without
// range, offset and @: rate(a[1m]) / (a offset 1h) has the series a.
func (e Expr) Series() []Expr {
	var series []Expr

	for _, s := range selectors(e.parse()) {
		plain := parser.VectorSelector{Name: s.Name, LabelMatchers: s.LabelMatchers}
		series = union(series, []Expr{{format(&plain)}})
	}

	return series
}

// ShortestRange returns the shortest range of the range selectors, or 0 if there are none.
// Subqueries do not count.
func (e Expr) ShortestRange() time.Duration {
	var shortest time.Duration

	parser.Inspect(e.parse(), func(node parser.Node, _ []parser.Node) error {
		if m, ok := node.(*parser.MatrixSelector); ok && (shortest == 0 || m.Range < shortest) {
			shortest = m.Range
		}
		return nil
	})

	return shortest
}

// AllMetricsHavePrefix reports whether the metric name of every vector selector begins with prefix.
func (e Expr) AllMetricsHavePrefix(prefix string) bool {
	for _, s := range selectors(e.parse()) {
		if !strings.HasPrefix(s.Name, prefix) {
			return false
		}
	}
	return true
}

// selectors returns the vector selectors of a syntax tree, from left to right.
func selectors(root parser.Expr) []*parser.VectorSelector {
	var all []*parser.VectorSelector

	parser.Inspect(root, func(node parser.Node, _ []parser.Node) error {
		if s, ok := node.(*parser.VectorSelector); ok {
			all = append(all, s)
		}
		return nil
	})

	return all
}

// union appends to a the elements of b that it lacks.
func union[T comparable](a, b []T) []T {
	for _, x := range b {
		if !slices.Contains(a, x) {
			a = append(a, x)
		}
	}
	return a
}
