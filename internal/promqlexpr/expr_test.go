// SPDX-License-Identifier: Apache-2.0

package promqlexpr_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/operator-store/operator_store_exporter/internal/promqlexpr"
)

func TestParseError(t *testing.T) {
	if _, err := promqlexpr.Parse("sum("); err == nil || !strings.Contains(err.Error(), "expression sum(: ") {
		t.Errorf("error %v, want one that quotes the expression", err)
	}
}

func TestMustParsePanics(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("no panic for an invalid expression")
		}
	}()
	promqlexpr.MustParse("sum(")
}

func TestStringKeepsText(t *testing.T) {
	const text = `sum  by(job)( x{ b="1",a='2' } )`
	if got := promqlexpr.MustParse(text).String(); got != text {
		t.Errorf("got %s, want the text as it was written: %s", got, text)
	}
}

func TestWithMatchers(t *testing.T) {
	for _, tc := range []struct {
		name       string
		expression string
		selector   string
		want       string
	}{
		{
			name:       "selector without matchers",
			expression: `up`,
			selector:   `{a="b"}`,
			want:       `up{a="b"}`,
		}, {
			name:       "selector with another matcher",
			expression: `x{y="z"}`,
			selector:   `{a="b"}`,
			want:       `x{a="b",y="z"}`,
		}, {
			name:       "inside a range and a function",
			expression: `sum by (job) (rate(x[1m]))`,
			selector:   `{a!="b"}`,
			want:       `sum by (job) (rate(x{a!="b"}[1m]))`,
		}, {
			name:       "several selectors",
			expression: `x / y`,
			selector:   `{a=~"b|c"}`,
			want:       `x{a=~"b|c"} / y{a=~"b|c"}`,
		}, {
			name:       "no matchers",
			expression: `x/y`,
			selector:   `{}`,
			want:       `x / y`,
		}, {
			name:       "replacement character in a value",
			expression: `up`,
			selector:   `{a="\ufffd"}`,
			want:       `up{a="\ufffd"}`,
		}, {
			name:       "quotes in a value",
			expression: `up`,
			selector:   `{a="\"} or vector(1) #"}`,
			want:       `up{a="\"} or vector(1) #"}`,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			matchers, err := promqlexpr.ParseSelector(tc.selector)
			if err != nil {
				t.Fatal(err)
			}

			e := promqlexpr.MustParse(tc.expression)
			for range 2 { // The second time shows that the first did not change e.
				if got := e.WithMatchers(matchers).String(); got != tc.want {
					t.Errorf("got %s, want %s", got, tc.want)
				}
			}
		})
	}
}

func TestWithGrouping(t *testing.T) {
	for _, tc := range []struct {
		name       string
		expression string
		labels     []string
		want       string
	}{
		{
			name:       "by clause",
			expression: `sum by (job) (x)`,
			labels:     []string{"replica"},
			want:       `sum by (job, replica) (x)`,
		}, {
			name:       "by clause that has one of the labels",
			expression: `sum by (replica, job) (x)`,
			labels:     []string{"job", "instance"},
			want:       `sum by (replica, job, instance) (x)`,
		}, {
			name:       "aggregation without a clause",
			expression: `sum(x)`,
			labels:     []string{"job", "instance"},
			want:       `sum by (job, instance) (x)`,
		}, {
			name:       "without clause",
			expression: `sum without (type) (x)`,
			labels:     []string{"replica"},
			want:       `sum without (type) (x)`,
		}, {
			name:       "on clause",
			expression: `x / on (job) y`,
			labels:     []string{"replica"},
			want:       `x / on (job, replica) y`,
		}, {
			name:       "ignoring clause",
			expression: `x / ignoring (type) y`,
			labels:     []string{"replica"},
			want:       `x / ignoring (type) y`,
		}, {
			name:       "nested aggregations",
			expression: `max by (job) (sum by (job, type) (x))`,
			labels:     []string{"replica"},
			want:       `max by (job, replica) (sum by (job, type, replica) (x))`,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			e := promqlexpr.MustParse(tc.expression)
			for range 2 { // The second time shows that the first did not change e.
				if got := e.WithGrouping(tc.labels).String(); got != tc.want {
					t.Errorf("got %s, want %s", got, tc.want)
				}
			}
		})
	}
}

func TestWithRange(t *testing.T) {
	for _, tc := range []struct {
		name       string
		expression string
		d          time.Duration
		want       string
	}{
		{
			name:       "one range",
			expression: `sum by (job) (rate(x{a="b"}[1m]))`,
			d:          5 * time.Minute,
			want:       `sum by (job) (rate(x{a="b"}[5m]))`,
		}, {
			name:       "several ranges",
			expression: `rate(x[1m]) / rate(y[2m] offset 1h)`,
			d:          90 * time.Second,
			want:       `rate(x[1m30s]) / rate(y[1m30s] offset 1h)`,
		}, {
			name:       "subquery keeps its range",
			expression: `max_over_time(rate(x[1m])[10m:1m])`,
			d:          2 * time.Minute,
			want:       `max_over_time(rate(x[2m])[10m:1m])`,
		}, {
			name:       "no range",
			expression: `x`,
			d:          time.Minute,
			want:       `x`,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := promqlexpr.MustParse(tc.expression).WithRange(tc.d).String(); got != tc.want {
				t.Errorf("got %s, want %s", got, tc.want)
			}
		})
	}
}

func TestOnly(t *testing.T) {
	e := promqlexpr.MustParse(`sum by (job, le) (rate(x{le=~"a|b",type="t"}[1m])) / x offset 5m`)
	want := `sum by (job) (rate(x{le="+Inf",type="t"}[1m])) / x{le="+Inf"} offset 5m`
	if got := e.Only(labels.MustNewMatcher(labels.MatchEqual, "le", "+Inf")).String(); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestNative(t *testing.T) {
	for _, tc := range []struct{ name, expression, want string }{
		{
			name:       "rate of buckets",
			expression: `sum by (job, instance, le) (rate(x_bucket[1m]))`,
			want:       `sum by (job, instance) (rate(x[1m]))`,
		}, {
			name:       "matchers except for that of the bucket",
			expression: `x_bucket{a="b",le=~"1|\\+Inf",type!="t"}`,
			want:       `x{a="b",type!="t"}`,
		}, {
			name:       "several selectors",
			expression: `x_bucket / on (job) y_bucket offset 5m`,
			want:       `x / on (job) y offset 5m`,
		}, {
			name:       "the suffix only at the end",
			expression: `a_bucket_total`,
			want:       `a_bucket_total`,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			e := promqlexpr.MustParse(tc.expression)
			if got := e.Native().String(); got != tc.want {
				t.Errorf("got %s, want %s", got, tc.want)
			}
			if got := e.String(); got != tc.expression {
				t.Errorf("the expression changed to %s", got)
			}
		})
	}
}

func TestRange(t *testing.T) {
	for _, tc := range []struct {
		selector string
		d        time.Duration
		want     string
	}{
		{selector: `up`, d: time.Minute, want: `up[1m]`},
		{selector: `up{a="b"}`, d: 90 * time.Second, want: `up{a="b"}[1m30s]`},
		{selector: `up{a="\ufffd"}`, d: 63 * time.Millisecond, want: `up{a="\ufffd"}[63ms]`},
	} {
		if got := promqlexpr.Range(promqlexpr.MustParse(tc.selector), tc.d); got != tc.want {
			t.Errorf("got %s, want %s", got, tc.want)
		}
	}
}

func TestInspection(t *testing.T) {
	for _, tc := range []struct {
		name          string
		expression    string
		series        []string
		selectors     int
		shortestRange time.Duration
		allTiKV       bool
	}{
		{
			name:          "same metric with different matchers",
			expression:    `sum by (job, le) (rate(x{le=~"a|b",type="t"}[1m])) / x offset 5m`,
			series:        []string{`x{le=~"a|b",type="t"}`, `x`},
			selectors:     2,
			shortestRange: time.Minute,
		}, {
			name:          "repeated selector",
			expression:    `rate(tikv_a[5m]) / (rate(tikv_a[2m]) + tikv_b @ 1700000000)`,
			series:        []string{`tikv_a`, `tikv_b`},
			selectors:     3,
			shortestRange: 2 * time.Minute,
			allTiKV:       true,
		}, {
			name:       "metrics of TiKV and others",
			expression: `tikv_a / up`,
			series:     []string{`tikv_a`, `up`},
			selectors:  2,
		}, {
			name:       "replacement character in a value",
			expression: `tikv_a{a="\ufffd"}`,
			series:     []string{`tikv_a{a="\ufffd"}`},
			selectors:  1,
			allTiKV:    true,
		}, {
			name:       "no series",
			expression: `vector(1)`,
			allTiKV:    true,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			e := promqlexpr.MustParse(tc.expression)
			if got := texts(e.Series()); !slices.Equal(got, tc.series) {
				t.Errorf("series %q, want %q", got, tc.series)
			}
			if got := e.CountSelectors(); got != tc.selectors {
				t.Errorf("%d selectors, want %d", got, tc.selectors)
			}
			if got := e.ShortestRange(); got != tc.shortestRange {
				t.Errorf("shortest range %s, want %s", got, tc.shortestRange)
			}
			if got := e.AllMetricsHavePrefix("tikv_"); got != tc.allTiKV {
				t.Errorf("all metrics begin with tikv_: %t, want %t", got, tc.allTiKV)
			}
		})
	}
}

func texts(es []promqlexpr.Expr) []string {
	var texts []string
	for _, e := range es {
		texts = append(texts, e.String())
	}
	return texts
}

// BenchmarkWithMatchers adds the matchers of the largest number of targets that one query may have.
func BenchmarkWithMatchers(b *testing.B) {
	var instances []string
	for i := range 250 {
		instances = append(instances, fmt.Sprintf("tikv-%d.tikv-peer.ns.svc:20180", i))
	}
	e := promqlexpr.MustParse("sum by (job, instance, le) (rate(tikv_grpc_msg_duration_seconds_bucket[1m]))")

	b.ReportAllocs()

	for b.Loop() {
		e.WithMatchers([]*labels.Matcher{promqlexpr.OneOf("instance", instances)})
	}
}
