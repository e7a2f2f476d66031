// SPDX-License-Identifier: Apache-2.0

package promqlexpr_test

import (
	"strings"
	"testing"
	"time"

	"github.com/operator-store/operator_store_exporter/internal/promqlexpr"
)

func TestPerTarget(t *testing.T) {
	for _, tc := range []struct{ name, expression, want string }{
		{"a plain series", `x`, `x`},
		{"a sum by instance", `sum by (instance) (x)`, `sum by (instance, job) (x)`},
		{"a sum of everything is one of each target", `sum(x)`, `sum by (job, instance) (x)`},
		{"a sum without other labels", `sum without (type) (x)`, `sum without (type) (x)`},
		{"a quotient matched by one label", `a / on (instance) b`, `a / on (instance, job) b`},
		{"a quotient matched by none", `a / on () group_left () sum(b)`, `a / on (job, instance) group_left () sum by (job, instance) (b)`},
		{"a quotient that ignores other labels", `a / ignoring (type) b`, `a / ignoring (type) b`},
		{"a scalar on a side", `2 * x`, `2 * x`},
		{"a rate", `sum by (instance) (rate(x[5m]))`, `sum by (instance, job) (rate(x[5m]))`},
		{"a subquery", `max_over_time(sum(x)[5m:1m])`, `max_over_time(sum by (job, instance) (x)[5m:1m])`},
		{"a quantile", `histogram_quantile(0.9, sum by (le) (rate(x[1m])))`, `histogram_quantile(0.9, sum by (le, job, instance) (rate(x[1m])))`},
		{"the top of each target", `topk(1, x)`, `topk by (job, instance) (1, x)`},
		{"the time that has passed", `time() - x`, `time() - x`},
		{"one or another", `a or b`, `a or b`},
		{"an offset", `x - x offset 1h`, `x - x offset 1h`},
		{"other labels are replaced", `label_replace(x, "type", "a", "", "")`, `label_replace(x, "type", "a", "", "")`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			e, err := promqlexpr.PerTarget(tc.expression)
			if err != nil {
				t.Fatal(err)
			}
			if e.Text() != tc.want {
				t.Errorf("got %s, want %s", e.Text(), tc.want)
			}
			if again, err := promqlexpr.PerTarget(e.Text()); err != nil || again.Text() != tc.want {
				t.Errorf("it does not take its own text: %s, %v", again.Text(), err)
			}
		})
	}
	for _, tc := range []struct{ name, expression, want string }{
		{"no PromQL", `sum(x`, "unclosed left parenthesis"},
		{"nothing", ``, "no expression"},
		{"a number", `1`, "it is a scalar"},
		{"a string", `"x"`, "it is a string"},
		{"a range", `x[5m]`, "it is a range vector"},
		{"a sum over targets", `sum without (instance) (x)`, "keep job and instance"},
		{"a match over targets", `a / ignoring (job) b`, "ignoring (job) mixes targets"},
		{"a zero for what is absent", `x or vector(0)`, "what is absent stays absent"},
		{"an alarm for what is absent", `absent(x)`, "what is absent stays absent"},
		{"one that is not", `x unless vector(1)`, "no labels job and instance"},
		{"a label overwritten", `label_replace(x, "instance", "a", "", "")`, "overwrites the label instance"},
		{"a label joined", `label_join(x, "job", "-", "a")`, "overwrites the label job"},
		{"values counted into a label", `count_values("instance", x)`, "overwrites the label instance"},
		{"one number of many", `x / scalar(y)`, "in place of scalar()"},
		{"one number as a parameter", `topk(scalar(y), x)`, "in place of scalar()"},
		{"the hour", `hour()`, "no labels job and instance"},
		{"the past", `x @ 1700000000`, "leave out @"},
		{"the past of a subquery", `max_over_time(x[5m:1m] @ 1700000000)`, "leave out @"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if _, err := promqlexpr.PerTarget(tc.expression); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want one with %q", err, tc.want)
			}
		})
	}
}

func TestOnlyAndSeries(t *testing.T) {
	e := promqlexpr.MustParse(`sum by (job, le) (rate(x{le=~"a|b",type="t"}[1m])) / x offset 5m`)
	matchers, err := promqlexpr.ParseSelector(`{le="+Inf"}`)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := e.Only(matchers[0]), `sum by (job) (rate(x{le="+Inf",type="t"}[1m])) / x{le="+Inf"} offset 5m`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, want := strings.Join(e.Series(), " "), `x{le=~"a|b",type="t"} x`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if d := e.ShortestRange(); d != time.Minute {
		t.Errorf("the shortest range is %s, want 1m", d)
	}
	if n := e.Selectors(); n != 2 {
		t.Errorf("%d selectors, want 2", n)
	}
}
