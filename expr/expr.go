// SPDX-License-Identifier: Apache-2.0

// Package expr puts label matchers into PromQL expressions.
//
// Everything goes through Prometheus' own parser and printer, never through string
// concatenation, so no label value can break out of its place.
package expr

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

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

// With returns the text of e with matchers added to each vector selector and the labels groupBy to each
// `by` clause.
func (e Expr) With(matchers []*labels.Matcher, groupBy []string) string {
	root, err := promql.ParseExpr(e.text) // Again, for what is printed is changed.
	if err != nil {
		panic(err) // It has parsed before.
	}
	parser.Inspect(root, func(node parser.Node, _ []parser.Node) error {
		switch n := node.(type) {
		case *parser.VectorSelector:
			n.LabelMatchers = append(n.LabelMatchers, matchers...)
		case *parser.AggregateExpr:
			if !n.Without {
				n.Grouping = append(n.Grouping, groupBy...)
			}
		}
		return nil
	})
	// The printer writes this one character as it is inside a string, where the parser takes it for an error.
	return strings.ReplaceAll(root.String(), "\uFFFD", `\ufffd`)
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
