// SPDX-License-Identifier: Apache-2.0

package promqlexpr_test

import (
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/operator-store/operator_store_exporter/internal/promqlexpr"
)

func TestWith(t *testing.T) {
	for _, tc := range []struct {
		name       string
		expression string
		selector   string
		groupBy    []string
		want       string
	}{
		{"a bare selector", `up`, `{a="b"}`, nil, `up{a="b"}`},
		{"beside a matcher of its own", `x{y="z"}`, `{a="b"}`, nil, `x{a="b",y="z"}`},
		{"inside a range and a function", `sum by (job) (rate(x[1m]))`, `{a!="b"}`, nil, `sum by (job) (rate(x{a!="b"}[1m]))`},
		{"each of several selectors", `x / y`, `{a=~"b|c"}`, nil, `x{a=~"b|c"} / y{a=~"b|c"}`},
		{"grouping is added", `sum by (job) (x)`, `{}`, []string{"replica"}, `sum by (job, replica) (x)`},
		{"a grouping that leaves labels out stays", `sum without (type) (x)`, `{}`, []string{"replica"}, `sum without (type) (x)`},
		{"the replacement character", `up`, `{a="\ufffd"}`, nil, `up{a="\ufffd"}`},
		{"quotes stay inside", `up`, `{a="\"} or vector(1) #"}`, nil, `up{a="\"} or vector(1) #"}`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			matchers, err := promqlexpr.ParseSelector(tc.selector)
			if err != nil {
				t.Fatal(err)
			}
			e, err := promqlexpr.Parse(tc.expression)
			if err != nil {
				t.Fatal(err)
			}
			for range 2 { // What is added once is not there the next time.
				if got := e.With(matchers, tc.groupBy); got != tc.want {
					t.Errorf("got %s, want %s", got, tc.want)
				}
			}
		})
	}
}

func TestParseErrors(t *testing.T) {
	for _, tc := range []struct{ name, selector, want string }{
		{"no end", `{a="b"`, "unexpected end of input"},
		{"a metric's name", `up{a="b"}`, "leave out the metric name"},
		{"a metric's name as a matcher", `{__name__=~"a.*"}`, "leave out the metric name"},
		{"an expression", `{a="b"} or up`, "parse error"},
		{"a bad regular expression", `{a=~"("}`, "missing closing )"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if _, err := promqlexpr.ParseSelector(tc.selector); err == nil || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), tc.selector) {
				t.Errorf("the error is %v, want one with %q and the selector", err, tc.want)
			}
		})
	}
	if _, err := promqlexpr.Parse("sum("); err == nil || !strings.Contains(err.Error(), "sum(") {
		t.Errorf("the error is %v, want one with the expression", err)
	}
}

// Whatever the values, the matcher matches them and nothing else, and the expression keeps its shape.
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
			if !strings.Contains(other, "\uFFFD") && other != a && (len(values) == 1 || other != b) && m.Matches(other) {
				t.Errorf("%s matches %q", m, other)
			}
			text := promqlexpr.MustParse("sum(up)").With([]*labels.Matcher{m}, nil)
			root, err := parser.NewParser(parser.Options{}).ParseExpr(text)
			if err != nil {
				t.Fatalf("%s: %v", text, err)
			}
			sum, ok := root.(*parser.AggregateExpr)
			if !ok {
				t.Fatalf("%s is no sum", text)
			}
			up, ok := sum.Expr.(*parser.VectorSelector)
			if !ok || len(up.LabelMatchers) != 2 {
				t.Fatalf("%s is no sum of one selector with two matchers", text)
			}
			for _, got := range up.LabelMatchers {
				if got.Name == "instance" && (got.Value != m.Value || got.Type != m.Type) {
					t.Errorf("%s holds %s, want %s", text, got, m)
				}
			}
		}
	})
}

// BenchmarkWith puts the matchers of as many targets into an expression as one query may have.
func BenchmarkWith(b *testing.B) {
	var instances []string
	for i := range 250 {
		instances = append(instances, fmt.Sprintf("tikv-%d.tikv-peer.ns.svc:20180", i))
	}
	e := promqlexpr.MustParse("sum by (job, instance, le) (rate(tikv_grpc_msg_duration_seconds_bucket[1m]))")
	b.ReportAllocs()
	for b.Loop() {
		e.With([]*labels.Matcher{promqlexpr.OneOf("instance", instances)}, nil)
	}
}
