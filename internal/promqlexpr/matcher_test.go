// SPDX-License-Identifier: Apache-2.0

package promqlexpr_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/operator-store/operator_store_exporter/internal/promqlexpr"
)

func TestParseSelectorErrors(t *testing.T) {
	for _, tc := range []struct {
		name     string
		selector string
		want     string
	}{
		{name: "missing brace", selector: `{a="b"`, want: "unexpected end of input"},
		{name: "metric name", selector: `up{a="b"}`, want: "leave out the metric name"},
		{name: "metric name as a matcher", selector: `{__name__=~"a.*"}`, want: "leave out the metric name"},
		{name: "expression", selector: `{a="b"} or up`, want: "parse error"},
		{name: "invalid regular expression", selector: `{a=~"("}`, want: "missing closing )"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := promqlexpr.ParseSelector(tc.selector)
			if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), tc.selector) {
				t.Errorf("error %v, want one with %q and the selector", err, tc.want)
			}
		})
	}
}

func TestSelector(t *testing.T) {
	for _, text := range []string{`{}`, `{a="b"}`, `{a="b",c!~"d|e"}`, `{a="\"}"}`} {
		matchers, err := promqlexpr.ParseSelector(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := promqlexpr.Selector(matchers); got != text {
			t.Errorf("got %s, want %s", got, text)
		}
	}
}

func TestOneOf(t *testing.T) {
	for _, tc := range []struct {
		name   string
		values []string
		want   string
	}{
		{name: "one value", values: []string{"a.b:1"}, want: `instance="a.b:1"`},
		{name: "same value twice", values: []string{"a", "a"}, want: `instance="a"`},
		{name: "several values", values: []string{"c", "a.b:1", "c"}, want: `instance=~"a\\.b:1|c"`},
		{name: "not UTF-8", values: []string{"a\xff"}, want: "instance=\"a\uFFFD\""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := promqlexpr.OneOf("instance", tc.values).String(); got != tc.want {
				t.Errorf("got %s, want %s", got, tc.want)
			}
		})
	}
}

// FuzzOneOf checks that for any values, the matcher matches these and no others, and that it does
// not change the shape of the expression to which it is added.
func FuzzOneOf(f *testing.F) {
	f.Add("tikv-1:20180", "10.0.0.1:20180", "10a0.0.1:20180")
	f.Add(`a"} or vector(1) #`, "a|b", "b")
	f.Add("", "\xff\n\\", "\x00`'")

	f.Fuzz(func(t *testing.T, a, b, other string) {
		for _, values := range [][]string{{a}, {a, b}, {a, b, a}} {
			m := promqlexpr.OneOf("instance", values)
			for _, v := range values {
				if utf8.ValidString(v) && !m.Matches(v) {
					t.Errorf("%s does not match %q", m, v)
				}
			}
			listed := other == a || len(values) > 1 && other == b
			if !strings.Contains(other, "\uFFFD") && !listed && m.Matches(other) {
				t.Errorf("%s matches %q", m, other)
			}

			checkSumOfUp(t, promqlexpr.MustParse("sum(up)").WithMatchers([]*labels.Matcher{m}), m)
		}
	})
}

// checkSumOfUp checks that e is sum(up{...}) with the matcher want and no other.
func checkSumOfUp(t *testing.T, e promqlexpr.Expr, want *labels.Matcher) {
	t.Helper()

	root, err := parser.NewParser(parser.Options{}).ParseExpr(e.String())
	if err != nil {
		t.Fatalf("%s: %v", e, err)
	}
	sum, ok := root.(*parser.AggregateExpr)
	if !ok {
		t.Fatalf("%s is not a sum", e)
	}
	up, ok := sum.Expr.(*parser.VectorSelector)
	if !ok || len(up.LabelMatchers) != 2 { // The other one is that of the metric name.
		t.Fatalf("%s is not the sum of one selector with two matchers", e)
	}

	for _, got := range up.LabelMatchers {
		if got.Name == "instance" && (got.Value != want.Value || got.Type != want.Type) {
			t.Errorf("%s has the matcher %s, want %s", e, got, want)
		}
	}
}
