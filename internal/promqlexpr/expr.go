// SPDX-License-Identifier: Apache-2.0

// Package expr puts label matchers into PromQL expressions.
//
// Everything goes through Prometheus' own parser and printer, never through string
// concatenation, so no label value can break out of its place.
package promqlexpr

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

var promql = parser.NewParser(parser.Options{})

// ParseSelector parses a selector without a metric name, such as `{tidb_cluster="prod"}`.
func ParseSelector(s string) ([]*labels.Matcher, error) {
	matchers, err := promql.ParseMetricSelector(s)
	if err != nil {
		return nil, fmt.Errorf("selector %s: %w", s, err)
	}
	for _, m := range matchers {
		if m.Name == model.MetricNameLabel {
			return nil, fmt.Errorf("selector %s: it is added to every metric, so it must not name one: leave out the metric name", s)
		}
	}
	return matchers, nil
}

// Selector is the text of a selector without a metric name.
func Selector(matchers []*labels.Matcher) string {
	texts := make([]string, len(matchers))
	for i, m := range matchers {
		texts[i] = m.String()
	}
	return "{" + strings.Join(texts, ",") + "}"
}

// Expr is a PromQL expression that parses.
type Expr struct{ text string }

// Parse parses expression. The error says what is wrong with it, and where.
func Parse(expression string) (Expr, error) {
	if _, err := promql.ParseExpr(expression); err != nil {
		return Expr{}, fmt.Errorf("expression %s: %w", expression, err)
	}
	return Expr{expression}, nil
}

// MustParse is Parse for an expression that stands in the code. It panics on one that does not parse.
func MustParse(expression string) Expr {
	e, err := Parse(expression)
	if err != nil {
		panic(err)
	}
	return e
}

// Text is the expression as it was written.
func (e Expr) Text() string { return e.text }

// root is e to read and to change.
func (e Expr) root() parser.Expr {
	root, err := promql.ParseExpr(e.text)
	if err != nil {
		panic(err) // It has parsed before.
	}
	return root
}

// write writes what is printed the way that it is parsed: this one character is written as it is inside a string, where the
// parser takes it for an error.
func write(root parser.Expr) string { return strings.ReplaceAll(root.String(), "\uFFFD", `\ufffd`) }

// With returns the text of e with matchers added to each vector selector and the labels groupBy to each
// `by` and `on` clause.
func (e Expr) With(matchers []*labels.Matcher, groupBy []string) string {
	root := e.root()
	parser.Inspect(root, func(node parser.Node, _ []parser.Node) error {
		switch n := node.(type) {
		case *parser.VectorSelector:
			n.LabelMatchers = append(n.LabelMatchers, matchers...)
		case *parser.AggregateExpr:
			if !n.Without {
				n.Grouping = union(n.Grouping, groupBy)
			}
		case *parser.BinaryExpr:
			if n.VectorMatching != nil && n.VectorMatching.On {
				n.VectorMatching.MatchingLabels = union(n.VectorMatching.MatchingLabels, groupBy)
			}
		}
		return nil
	})
	return write(root)
}

// union is a with those of b that it lacks.
func union(a, b []string) []string {
	for _, l := range b {
		if !slices.Contains(a, l) {
			a = append(a, l)
		}
	}
	return a
}

// Only returns the text of e for the series that matcher matches by equality, whose label no `by` clause keeps.
func (e Expr) Only(matcher *labels.Matcher) string {
	root := e.root()
	parser.Inspect(root, func(node parser.Node, _ []parser.Node) error {
		switch n := node.(type) {
		case *parser.VectorSelector:
			n.LabelMatchers = slices.DeleteFunc(n.LabelMatchers, func(m *labels.Matcher) bool { return m.Name == matcher.Name })
			n.LabelMatchers = append(n.LabelMatchers, matcher)
		case *parser.AggregateExpr:
			n.Grouping = slices.DeleteFunc(n.Grouping, func(l string) bool { return l == matcher.Name })
		}
		return nil
	})
	return write(root)
}

// selectors are the vector selectors of e.
func (e Expr) selectors() []*parser.VectorSelector {
	var all []*parser.VectorSelector
	parser.Inspect(e.root(), func(node parser.Node, _ []parser.Node) error {
		if s, ok := node.(*parser.VectorSelector); ok {
			all = append(all, s)
		}
		return nil
	})
	return all
}

// Selectors counts the vector selectors.
func (e Expr) Selectors() int { return len(e.selectors()) }

// Series are the vector selectors' texts, each once, as of now.
func (e Expr) Series() []string {
	var texts []string
	for _, s := range e.selectors() {
		plain := parser.VectorSelector{Name: s.Name, LabelMatchers: s.LabelMatchers}
		texts = union(texts, []string{plain.String()})
	}
	return texts
}

// ShortestRange is that of the range selectors, 0 if there is none.
func (e Expr) ShortestRange() time.Duration {
	var shortest time.Duration
	parser.Inspect(e.root(), func(node parser.Node, _ []parser.Node) error {
		if m, ok := node.(*parser.MatrixSelector); ok && (shortest == 0 || m.Range < shortest) {
			shortest = m.Range
		}
		return nil
	})
	return shortest
}

// AllNamed tells whether the names of all metrics begin with prefix.
func (e Expr) AllNamed(prefix string) bool {
	return !slices.ContainsFunc(e.selectors(), func(s *parser.VectorSelector) bool { return !strings.HasPrefix(s.Name, prefix) })
}

// OneOf returns a matcher for label being exactly one of values. More than one value becomes an
// alternation of escaped literals, which Prometheus looks up as a set instead of walking every value
// of the label, as long as there are at most 255 of them. No series has a value that is not UTF-8;
// what stands for it does not match it either.
func OneOf(label string, values []string) *labels.Matcher {
	values = slices.Clone(values)
	for i, v := range values {
		values[i] = strings.ToValidUTF8(v, "\uFFFD")
	}
	slices.Sort(values)
	values = slices.Compact(values)
	if len(values) == 1 {
		return labels.MustNewMatcher(labels.MatchEqual, label, values[0])
	}
	literals := make([]string, len(values))
	for i, v := range values {
		literals[i] = regexp.QuoteMeta(v)
	}
	return labels.MustNewMatcher(labels.MatchRegexp, label, strings.Join(literals, "|"))
}
