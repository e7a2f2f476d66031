// SPDX-License-Identifier: Apache-2.0

package promqlexpr

import (
	"fmt"
	"time"

	"github.com/prometheus/prometheus/promql/parser"
)

// The functions in this file build larger expressions out of smaller ones. They construct syntax
// tree nodes, add parentheses where operator precedence needs them, and panic if the parts do not
// fit together, such as the quantile of a string. That is a mistake in code, like an invalid
// MustParse.

// HistogramQuantile returns histogram_quantile(phi, buckets).
func HistogramQuantile(phi float64, buckets Expr) Expr {
	return call("histogram_quantile", number(phi), buckets.parse())
}

// HistogramCount returns histogram_count(histograms).
func HistogramCount(histograms Expr) Expr { return call("histogram_count", histograms.parse()) }

// Scale returns factor * e.
func Scale(factor float64, e Expr) Expr {
	return binary(number(factor), parser.MUL, e.parse())
}

// Complement returns 1 - e.
func Complement(e Expr) Expr {
	return binary(number(1), parser.SUB, e.parse())
}

// Divide returns numerator / (denominator > 0). The comparison drops the denominators that are
// not above 0, so that the result has no sample for them instead of an infinite or negative one.
func Divide(numerator, denominator Expr) Expr {
	positive := binary(denominator.parse(), parser.GTR, number(0))
	return binary(numerator.parse(), parser.DIV, positive.parse())
}

// AtLeast returns e >= v, which drops the samples below v, and those that are NaN.
func AtLeast(e Expr, v float64) Expr {
	return binary(e.parse(), parser.GTE, number(v))
}

// AndOn returns e and on (labelNames) other: the samples of e for which other has one with the same
// values of these labels.
func AndOn(e, other Expr, labelNames ...string) Expr {
	lhs, rhs := operands(e.parse(), parser.LAND, other.parse())
	return build(&parser.BinaryExpr{Op: parser.LAND, LHS: lhs, RHS: rhs, VectorMatching: &parser.VectorMatching{
		Card: parser.CardManyToMany, On: true, MatchingLabels: labelNames,
	}})
}

// Or returns es[0] or es[1] or es[2] and so on: the union of their samples. It panics without any.
func Or(es ...Expr) Expr {
	root := es[0].parse()

	for _, e := range es[1:] {
		lhs, rhs := operands(root, parser.LOR, e.parse())
		root = &parser.BinaryExpr{Op: parser.LOR, LHS: lhs, RHS: rhs}
	}

	return build(root)
}

// GroupBy returns group by (labelNames) (e): one sample of value 1 for each combination of values
// that these labels have in e.
func GroupBy(e Expr, labelNames ...string) Expr {
	return build(&parser.AggregateExpr{Op: parser.GROUP, Grouping: labelNames, Expr: e.parse()})
}

// LastOverTime returns last_over_time(selector[d]). The selector is a plain vector selector; d is
// positive and in whole milliseconds.
func LastOverTime(selector Expr, d time.Duration) Expr {
	vector, ok := selector.parse().(*parser.VectorSelector)
	if !ok {
		panic(fmt.Sprintf("last_over_time needs a vector selector, not %s", selector))
	}
	return call("last_over_time", &parser.MatrixSelector{VectorSelector: vector, Range: d})
}

// Range returns the range selector of a vector selector: the samples within d.
func Range(selector Expr, d time.Duration) string {
	return format(&parser.MatrixSelector{VectorSelector: selector.parse(), Range: d})
}

// LabelReplace returns label_replace(e, dst, replacement, src, regex): where regex matches the
// label src, the label dst is set to replacement.
func LabelReplace(e Expr, dst, replacement, src, regex string) Expr {
	return call("label_replace", e.parse(), text(dst), text(replacement), text(src), text(regex))
}

// build prints a syntax tree and checks the result. Operands of unsuitable types are only found by
// parsing it again.
func build(root parser.Expr) Expr { return MustParse(format(root)) }

func call(function string, args ...parser.Expr) Expr {
	return build(&parser.Call{Func: parser.Functions[function], Args: args})
}

func binary(lhs parser.Expr, op parser.ItemType, rhs parser.Expr) Expr {
	lhs, rhs = operands(lhs, op, rhs)
	return build(&parser.BinaryExpr{Op: op, LHS: lhs, RHS: rhs})
}

// operands puts parentheses around the operands of op that would be taken apart without them. All
// operators used here associate to the left: a - b - c is (a - b) - c, so a right operand of the
// same precedence needs parentheses, but a left one does not.
func operands(lhs parser.Expr, op parser.ItemType, rhs parser.Expr) (parser.Expr, parser.Expr) {
	if precedence(lhs) < operatorPrecedence[op] {
		lhs = &parser.ParenExpr{Expr: lhs}
	}
	if precedence(rhs) <= operatorPrecedence[op] {
		rhs = &parser.ParenExpr{Expr: rhs}
	}
	return lhs, rhs
}

// operatorPrecedence follows https://prometheus.io/docs/prometheus/latest/querying/operators/. An
// operator that is missing here has precedence 0, and is always put into parentheses.
var operatorPrecedence = map[parser.ItemType]int{
	parser.LOR:  1,
	parser.LAND: 2, parser.LUNLESS: 2,
	parser.EQLC: 3, parser.NEQ: 3, parser.LTE: 3, parser.LSS: 3, parser.GTE: 3, parser.GTR: 3,
	parser.ADD: 4, parser.SUB: 4,
	parser.MUL: 5, parser.DIV: 5, parser.MOD: 5, parser.ATAN2: 5,
	parser.POW: 6,
}

// precedence returns how tightly an expression holds together. A unary minus is rare and gets
// parentheses everywhere.
func precedence(e parser.Expr) int {
	const atom = 7

	switch n := e.(type) {
	case *parser.BinaryExpr:
		return operatorPrecedence[n.Op]
	case *parser.UnaryExpr:
		return 0
	default:
		return atom
	}
}

func number(v float64) parser.Expr { return &parser.NumberLiteral{Val: v} }

func text(s string) parser.Expr { return &parser.StringLiteral{Val: s} }
