// SPDX-License-Identifier: Apache-2.0

package promqlexpr_test

import (
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/operator-store/operator_store_exporter/internal/promqlexpr"
)

func TestBuild(t *testing.T) {
	parse := promqlexpr.MustParse
	for _, tc := range []struct {
		name string
		got  promqlexpr.Expr
		want string
	}{
		{
			name: "histogram quantile",
			got:  promqlexpr.HistogramQuantile(0.99, parse(`sum by (le) (rate(a_bucket[1m]))`)),
			want: `histogram_quantile(0.99, sum by (le) (rate(a_bucket[1m])))`,
		}, {
			name: "scaled sum",
			got:  promqlexpr.Scale(100, parse(`a + b`)),
			want: `100 * (a + b)`,
		}, {
			name: "scaled by a small number",
			got:  promqlexpr.Scale(1e-9, parse(`a`)),
			want: `0.000000001 * a`,
		}, {
			name: "scaled quotient",
			got:  promqlexpr.Scale(100, parse(`a / b`)),
			want: `100 * (a / b)`,
		}, {
			name: "complement of a quotient",
			got:  promqlexpr.Complement(parse(`a / b`)),
			want: `1 - a / b`,
		}, {
			name: "complement of a difference",
			got:  promqlexpr.Complement(parse(`a - b`)),
			want: `1 - (a - b)`,
		}, {
			name: "complement of a negation",
			got:  promqlexpr.Complement(parse(`-a`)),
			want: `1 - (-a)`,
		}, {
			name: "ratio",
			got:  promqlexpr.Divide(parse(`a`), parse(`b`)),
			want: `a / (b > 0)`,
		}, {
			name: "ratio of sums",
			got:  promqlexpr.Divide(parse(`a + b`), parse(`c + d`)),
			want: `(a + b) / (c + d > 0)`,
		}, {
			name: "ratio of unions",
			got:  promqlexpr.Divide(parse(`a or b`), parse(`c or d`)),
			want: `(a or b) / ((c or d) > 0)`,
		}, {
			name: "count of native histograms",
			got:  promqlexpr.HistogramCount(parse(`sum by (job) (rate(a[1m]))`)),
			want: `histogram_count(sum by (job) (rate(a[1m])))`,
		}, {
			name: "lower bound",
			got:  promqlexpr.AtLeast(parse(`a`), 0),
			want: `a >= 0`,
		}, {
			name: "lower bound of a comparison",
			got:  promqlexpr.AtLeast(parse(`a > 1`), 0.5),
			want: `a > 1 >= 0.5`,
		}, {
			name: "intersection",
			got:  promqlexpr.AndOn(parse(`a >= 0`), parse(`last_over_time(b[1h])`), "job", "instance"),
			want: `a >= 0 and on (job, instance) last_over_time(b[1h])`,
		}, {
			name: "intersection of unions",
			got:  promqlexpr.AndOn(parse(`a or b`), parse(`c or d`), "job"),
			want: `(a or b) and on (job) (c or d)`,
		}, {
			name: "intersection with an intersection",
			got:  promqlexpr.AndOn(parse(`a and b`), parse(`c and d`), "job"),
			want: `a and b and on (job) (c and d)`,
		}, {
			name: "union of one",
			got:  promqlexpr.Or(parse(`a`)),
			want: `a`,
		}, {
			name: "union of three",
			got:  promqlexpr.Or(parse(`a`), parse(`b and c`), parse(`d`)),
			want: `a or b and c or d`,
		}, {
			name: "union with a union",
			got:  promqlexpr.Or(parse(`a`), parse(`b or c`)),
			want: `a or (b or c)`,
		}, {
			name: "group",
			got:  promqlexpr.GroupBy(parse(`a or b`), "job", "instance"),
			want: `group by (job, instance) (a or b)`,
		}, {
			name: "group by a label whose name needs quotes",
			got:  promqlexpr.GroupBy(parse(`a`), `x") (up) #`),
			want: `group by ("x\") (up) #") (a)`,
		}, {
			name: "last value",
			got:  promqlexpr.LastOverTime(parse(`a{b="c"}`), 90*time.Minute),
			want: `last_over_time(a{b="c"}[1h30m])`,
		}, {
			name: "last value with an offset",
			got:  promqlexpr.LastOverTime(parse(`a offset 1m`), time.Hour),
			want: `last_over_time(a[1h] offset 1m)`,
		}, {
			name: "label replacement",
			got:  promqlexpr.LabelReplace(parse(`a or b`), "dst", `$1"\`, "src", `(.*)\.svc`),
			want: `label_replace(a or b, "dst", "$1\"\\", "src", "(.*)\\.svc")`,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := tc.got.String(); got != tc.want {
				t.Errorf("got %s, want %s", got, tc.want)
			}
		})
	}
}

func TestBuildPanics(t *testing.T) {
	parse := promqlexpr.MustParse
	for _, tc := range []struct {
		name  string
		build func() promqlexpr.Expr
	}{
		{
			name:  "group of a number",
			build: func() promqlexpr.Expr { return promqlexpr.GroupBy(parse(`1`), "job") },
		}, {
			name:  "quantile of a string",
			build: func() promqlexpr.Expr { return promqlexpr.HistogramQuantile(0.5, parse(`"a"`)) },
		}, {
			name:  "union with a number",
			build: func() promqlexpr.Expr { return promqlexpr.Or(parse(`a`), parse(`1`)) },
		}, {
			name:  "union of nothing",
			build: func() promqlexpr.Expr { return promqlexpr.Or() },
		}, {
			name:  "last value of a sum",
			build: func() promqlexpr.Expr { return promqlexpr.LastOverTime(parse(`sum(a)`), time.Hour) },
		}, {
			name:  "last value with a range of zero",
			build: func() promqlexpr.Expr { return promqlexpr.LastOverTime(parse(`a`), 0) },
		}, {
			name:  "zero expression",
			build: func() promqlexpr.Expr { return promqlexpr.Complement(promqlexpr.Expr{}) },
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			t.Errorf("built %s", tc.build())
		})
	}
}

// operandShapes are vectors of every shape that an operand may have: one for each operator and for
// each kind of syntax tree node.
var operandShapes = []string{
	`a`, `a{b="c"} offset 5m`, `-a`, `+a`, `(a)`, `sum by (job) (a)`, `rate(a[1m])`, `last_over_time(sum(a)[5m:1m])`,
	`a or b`, `a and b`, `a unless on (job) b`,
	`a == b`, `a != b`, `a > bool b`, `a < b`, `a <= b`, `a >= 1`,
	`a + b`, `a - b`, `1 - a`, `a * b`, `a / ignoring (type) group_left () b`, `a % b`, `a atan2 b`,
	`a ^ b`, `-a ^ 2`, `2 ^ -a`, `a + b * c or d`, `1 - a / b`,
}

// TestBuildKeepsOperands checks for every pair of operand shapes that the text of a built
// expression parses to a syntax tree with the intended operator at the root and the intended
// operands below it.
func TestBuildKeepsOperands(t *testing.T) {
	for _, left := range operandShapes {
		l := promqlexpr.MustParse(left)
		checkBinary(t, promqlexpr.Scale(-2, l), parser.MUL, `-2`, left)
		checkBinary(t, promqlexpr.Complement(l), parser.SUB, `1`, left)
		checkBinary(t, promqlexpr.AtLeast(l, -0.5), parser.GTE, left, `-0.5`)

		for _, right := range operandShapes {
			r := promqlexpr.MustParse(right)
			checkBinary(t, promqlexpr.Or(l, r), parser.LOR, left, right)
			checkBinary(t, promqlexpr.AndOn(l, r, "job"), parser.LAND, left, right)

			ratio := promqlexpr.Divide(l, r)
			positive := checkBinary(t, ratio, parser.DIV, left, "")
			checkBinary(t, promqlexpr.MustParse(positive.String()), parser.GTR, right, `0`)
		}
	}
}

// checkBinary checks that e is left op right and returns its right operand. An empty right is not
// checked.
func checkBinary(t *testing.T, e promqlexpr.Expr, op parser.ItemType, left, right string) parser.Expr {
	t.Helper()

	root, ok := parse(t, e.String()).(*parser.BinaryExpr)
	if !ok || root.Op != op {
		t.Fatalf("%s does not have the operator %s at its root", e, op)
	}
	lhs, rhs := withoutParens(root.LHS), withoutParens(root.RHS)
	if want := withoutParens(parse(t, left)); parser.Tree(lhs) != parser.Tree(want) {
		t.Errorf("%s has the left operand %s, want %s", e, lhs, want)
	}
	if right == "" {
		return rhs
	}
	if want := withoutParens(parse(t, right)); parser.Tree(rhs) != parser.Tree(want) {
		t.Errorf("%s has the right operand %s, want %s", e, rhs, want)
	}
	return rhs
}

func parse(t *testing.T, text string) parser.Expr {
	t.Helper()

	e, err := parser.NewParser(parser.Options{}).ParseExpr(text)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return e
}

func withoutParens(e parser.Expr) parser.Expr {
	for {
		paren, ok := e.(*parser.ParenExpr)
		if !ok {
			return e
		}
		e = paren.Expr
	}
}

// FuzzTransform checks that whatever a user may write as an expression of a gauge can be changed
// and built upon: the results are valid, and no builder panics.
func FuzzTransform(f *testing.F) {
	for _, text := range operandShapes {
		f.Add(text, "tikv-1:20180")
	}
	f.Add(`label_replace(x, "type", "\ufffd", "", "")`, "\uFFFD")
	f.Add(`{"a b",job="\xff"}`, `"} or vector(1) #`)

	f.Fuzz(func(t *testing.T, text, value string) {
		e, err := promqlexpr.PerTarget(text)
		if err != nil {
			t.Skip()
		}

		matchers := []*labels.Matcher{promqlexpr.OneOf("instance", []string{value})}

		changed := []promqlexpr.Expr{
			e,
			e.WithMatchers(matchers),
			e.WithRange(5 * time.Minute),
			e.Only(matchers[0]),
			promqlexpr.GroupBy(promqlexpr.Or(e, promqlexpr.MustParse("up")), "job"),
			promqlexpr.Divide(promqlexpr.Scale(2, e), promqlexpr.Complement(e)),
			promqlexpr.AndOn(promqlexpr.AtLeast(e, 0), e, "job", "instance"),
		}
		for _, c := range append(changed, e.Series()...) {
			parse(t, c.String())
		}
	})
}
