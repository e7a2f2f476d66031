// SPDX-License-Identifier: Apache-2.0

package promqlexpr_test

import (
	"strings"
	"testing"

	"github.com/operator-store/operator_store_exporter/internal/promqlexpr"
)

func TestPerTarget(t *testing.T) {
	for _, tc := range []struct {
		name       string
		expression string
		want       string
	}{
		{
			name:       "plain series",
			expression: `x`,
			want:       `x`,
		}, {
			name:       "sum by instance",
			expression: `sum by (instance) (x)`,
			want:       `sum by (instance, job) (x)`,
		}, {
			name:       "sum without a clause is per target",
			expression: `sum(x)`,
			want:       `sum by (job, instance) (x)`,
		}, {
			name:       "sum without other labels",
			expression: `sum without (type) (x)`,
			want:       `sum without (type) (x)`,
		}, {
			name:       "quotient matched on one label",
			expression: `a / on (instance) b`,
			want:       `a / on (instance, job) b`,
		}, {
			name:       "quotient matched on no labels",
			expression: `a / on () group_left () sum(b)`,
			want:       `a / on (job, instance) group_left () sum by (job, instance) (b)`,
		}, {
			name:       "quotient ignoring other labels",
			expression: `a / ignoring (type) b`,
			want:       `a / ignoring (type) b`,
		}, {
			name:       "scalar operand",
			expression: `2 * x`,
			want:       `2 * x`,
		}, {
			name:       "rate",
			expression: `sum by (instance) (rate(x[5m]))`,
			want:       `sum by (instance, job) (rate(x[5m]))`,
		}, {
			name:       "subquery",
			expression: `max_over_time(sum(x)[5m:1m])`,
			want:       `max_over_time(sum by (job, instance) (x)[5m:1m])`,
		}, {
			name:       "histogram quantile",
			expression: `histogram_quantile(0.9, sum by (le) (rate(x[1m])))`,
			want:       `histogram_quantile(0.9, sum by (le, job, instance) (rate(x[1m])))`,
		}, {
			name:       "topk is per target",
			expression: `topk(1, x)`,
			want:       `topk by (job, instance) (1, x)`,
		}, {
			name:       "current time",
			expression: `time() - x`,
			want:       `time() - x`,
		}, {
			name:       "union",
			expression: `a or b`,
			want:       `a or b`,
		}, {
			name:       "offset",
			expression: `x - x offset 1h`,
			want:       `x - x offset 1h`,
		}, {
			name:       "label_replace of another label",
			expression: `label_replace(x, "type", "a", "", "")`,
			want:       `label_replace(x, "type", "a", "", "")`,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			e, err := promqlexpr.PerTarget(tc.expression)
			if err != nil {
				t.Fatal(err)
			}
			if e.String() != tc.want {
				t.Errorf("got %s, want %s", e, tc.want)
			}
			if again, err := promqlexpr.PerTarget(e.String()); err != nil || again != e {
				t.Errorf("PerTarget(%s) = %s, %v, want it unchanged", e, again, err)
			}
		})
	}
}

func TestPerTargetErrors(t *testing.T) {
	for _, tc := range []struct {
		name       string
		expression string
		want       string
	}{
		{name: "invalid PromQL", expression: `sum(x`, want: "unclosed left parenthesis"},
		{name: "empty", expression: ``, want: "no expression"},
		{name: "number", expression: `1`, want: "it is a scalar"},
		{name: "string", expression: `"x"`, want: "it is a string"},
		{name: "range vector", expression: `x[5m]`, want: "it is a range vector"},
		{
			name:       "sum over targets",
			expression: `sum without (instance) (x)`,
			want:       "without (instance) aggregates over targets: keep job and instance",
		},
		{
			name:       "match across targets",
			expression: `a / ignoring (job) b`,
			want:       "ignoring (job) combines different targets: keep job and instance",
		},
		{
			name:       "zero instead of a missing sample",
			expression: `x or vector(0)`,
			want:       "vector(0) has no labels job and instance: remove it, missing samples can't be filled in",
		},
		{
			name:       "sample for a missing series",
			expression: `absent(x)`,
			want:       "absent(x) has no labels job and instance: remove it, missing samples can't be filled in",
		},
		{
			name:       "unless without labels",
			expression: `x unless vector(1)`,
			want:       "vector(1) has no labels job and instance",
		},
		{
			name:       "label_replace of instance",
			expression: `label_replace(x, "instance", "a", "", "")`,
			want:       "label_replace overwrites the label instance: use another label",
		},
		{
			name:       "label_join into job",
			expression: `label_join(x, "job", "-", "a")`,
			want:       "label_join overwrites the label job: use another label",
		},
		{
			name:       "count_values into instance",
			expression: `count_values("instance", x)`,
			want:       "count_values overwrites the label instance: use another label",
		},
		{
			name:       "count_values into instance in parentheses",
			expression: `count_values(("instance"), x)`,
			want:       "count_values overwrites the label instance: use another label",
		},
		{
			name:       "scalar as an operand",
			expression: `x / scalar(y)`,
			want: "scalar(y) reduces y of many targets to a single number: " +
				"match by labels instead of using scalar()",
		},
		{
			name:       "scalar as a parameter",
			expression: `topk(scalar(y), x)`,
			want:       "match by labels instead of using scalar()",
		},
		{
			name:       "hour",
			expression: `hour()`,
			want:       "hour() has no labels job and instance",
		},
		{
			name:       "fixed time",
			expression: `x @ 1700000000`,
			want:       "x @ 1700000000.000 always returns values from the same point in the past: leave out @",
		},
		{
			name:       "fixed time of a subquery",
			expression: `max_over_time(x[5m:1m] @ 1700000000)`,
			want:       "leave out @",
		},
		{
			name:       "added label conflicts with group_left",
			expression: `a * on (type) group_left (job) b`,
			want:       `label "job" must not occur in ON and GROUP clause at once`,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if _, err := promqlexpr.PerTarget(tc.expression); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want one with %q", err, tc.want)
			}
		})
	}
}
