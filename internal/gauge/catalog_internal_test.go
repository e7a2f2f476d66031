// SPDX-License-Identifier: Apache-2.0

package gauge

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"

	"github.com/operator-store/operator_store_exporter/internal/bucketwindow"
)

// position returns the place of a text in builtin.go, for failures that say what to change.
func position(t *testing.T, text string) string {
	t.Helper()
	const file = "builtin.go"
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, _, ok := strings.Cut(string(content), text)
	if !ok {
		return "internal/gauge/" + file
	}

	return fmt.Sprintf("internal/gauge/%s:%d", file, 1+strings.Count(before, "\n"))
}

// Every row of the table of built-in gauges has what the documentation needs.
func TestBuiltinGaugesAreComplete(t *testing.T) {
	seen := map[string]bool{}
	for i, g := range builtin {
		if g.Name == "" {
			t.Errorf("%s: row %d has no Name", position(t, "var builtin"), i+1)

			continue
		}

		where := position(t, fmt.Sprintf("%q", g.Name))
		if !strings.HasPrefix(g.Name, "operator_store_") || strings.HasPrefix(g.Name, "operator_store_exporter_") {
			t.Errorf("%s: %s is not the name of a store gauge: use operator_store_NAME", where, g.Name)
		}
		if seen[g.Name] {
			t.Errorf("%s: %s has a second row: remove one", where, g.Name)
		}
		seen[g.Name] = true
		if !strings.HasSuffix(g.Help, ".") {
			t.Errorf("%s: the Help of %s is %q: write a sentence with a period", where, g.Name, g.Help)
		}
		if g.AbsentWhen == "" || strings.HasSuffix(g.AbsentWhen, ".") {
			t.Errorf("%s: the AbsentWhen of %s is %q: write a clause without a period", where, g.Name, g.AbsentWhen)
		}
		if g.source == nil {
			t.Errorf("%s: %s has no source: set how it is computed", where, g.Name)
		}
	}
	if t.Failed() {
		return
	}

	if _, err := newCatalog(Builtin()); err != nil {
		t.Error(err)
	}
}

// Every query that a built-in gauge needs is in the list of queries, which has no duplicates.
func TestBuiltinQueriesAreComplete(t *testing.T) {
	where := position(t, "var instantQueries")
	for _, g := range builtin {
		for _, q := range g.source.queries() {
			if !slices.Contains(instantQueries, q) {
				t.Errorf("%s: add the query %q, which %s needs", where, q.Name, g.Name)
			}
		}
	}

	seen := map[string]bool{}
	for _, q := range BuiltinQueries() {
		if q.Name == "" || seen[q.Name] {
			t.Errorf("%s: the name %q of a query is empty, or that of another one", where, q.Name)
		}
		seen[q.Name] = true
		if slices.Contains(instantQueries, q) != q.HasExpr() {
			t.Errorf("%s: the query %q must have an expression if, and only if, it is an instant query", where, q.Name)
		}
	}
	if instantQueries[0] != QueryUp {
		t.Errorf("%s: the first query is %s, want up, which determines the time", where, instantQueries[0].Name)
	}
}

// A built-in query without a gauge would be sent for nothing. Those listed here are for the
// exporter itself.
func TestBuiltinQueriesAreNeeded(t *testing.T) {
	needed := []*Query{QueryReplicaTime, QueryStartTime}
	for _, g := range builtin {
		needed = append(needed, g.source.queries()...)
	}

	for _, q := range instantQueries {
		if !slices.Contains(needed, q) {
			where := position(t, fmt.Sprintf("%q", q.Name))
			t.Errorf("%s: no gauge needs the query %q: remove it", where, q.Name)
		}
	}
}

// A derived gauge that cannot be computed is an error when the catalog is made.
func TestInvalidDerivedGauges(t *testing.T) {
	from := func(name string, inputs ...string) Gauge {
		return Gauge{Name: name, source: ratio{inputs[0], inputs[1]}}
	}
	base := Gauge{Name: "base", source: sample{fromQuery{queryCPUQuota}}}

	for _, tc := range []struct {
		name   string
		gauges []Gauge
		want   string // Empty if the gauges are valid.
	}{
		{
			name:   "valid",
			gauges: []Gauge{from("a", "b", "base"), from("b", "base", "base"), base},
		},
		{
			name:   "unknown input",
			gauges: []Gauge{base, from("a", "base", "bsae")},
			want:   "gauge a is derived from bsae, which does not exist",
		},
		{
			name:   "unknown input below a wrapper",
			gauges: []Gauge{base, {Name: "a", source: complement{ratio{"base", "bsae"}}}},
			want:   "gauge a is derived from bsae, which does not exist",
		},
		{
			name:   "derived from itself",
			gauges: []Gauge{base, from("a", "base", "a")},
			want:   "gauge a is derived from itself",
		},
		{
			name:   "cycle of two",
			gauges: []Gauge{base, from("a", "b", "base"), from("b", "a", "base")},
			want:   "gauge a is derived from itself",
		},
		{
			name: "cycle of three below wrappers",
			gauges: []Gauge{
				from("a", "b", "base"),
				{Name: "b", source: scaled{ratio{"base", "c"}, 2}},
				from("c", "a", "base"),
				base,
			},
			want: "gauge a is derived from itself",
		},
		{
			name:   "same name twice",
			gauges: []Gauge{base, base},
			want:   "gauge base is defined twice",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := ""
			if _, err := newCatalog(tc.gauges); err != nil {
				got = err.Error()
			}
			if got != tc.want {
				t.Errorf("got the error %q, want %q", got, tc.want)
			}
		})
	}
}

// Values, needed queries, and the order of queries do not depend on the order of the table.
func TestOrderOfTableDoesNotMatter(t *testing.T) {
	chained := append(Builtin(),
		Gauge{Name: "chained", source: scaled{ratio{DiskFill, DiskUtilization}, 3}},
		Gauge{Name: "chained twice", source: complement{ratio{"chained", CPUCores}}},
	)
	responses := responsesToAll(t, chained)
	want, err := newCatalog(slices.Clone(chained))
	if err != nil {
		t.Fatal(err)
	}

	wantValues := want.Evaluate(responses)
	for i, v := range wantValues {
		if !v.OK {
			t.Fatalf("%s is absent, so the test would not see whether it is computed", want.gauges[i].Name)
		}
	}

	random := rand.New(rand.NewPCG(1, 1))
	for range 200 {
		shuffled := slices.Clone(chained)
		random.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		got, err := newCatalog(shuffled)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got.Queries(), want.Queries()) {
			t.Fatal("the queries depend on the order of the table")
		}

		values := got.Evaluate(responses)
		for i, g := range shuffled {
			j := want.index[g.Name]
			if values[i] != wantValues[j] {
				t.Fatalf("%s is %+v, want %+v", g.Name, values[i], wantValues[j])
			}
			if !slices.Equal(got.Needs(i), want.Needs(j)) {
				t.Fatalf("%s needs other queries", g.Name)
			}
		}
	}
}

// responsesToAll returns responses from which all of gauges can be computed, most of them to
// different values.
func responsesToAll(t *testing.T, gauges []Gauge) Responses {
	t.Helper()

	responses := Responses{}
	for i, g := range gauges {
		v := 100 + float64(i)
		for _, q := range g.source.queries() {
			r := responses[q]
			switch s := innermost(g.source).(type) {
			case typed:
				r.Samples = append(r.Samples, promql.Sample{Metric: labels.FromStrings("type", s.typ), F: v})
			case quantile, observations:
				r.Histogram = histogramOf(t, v)
			default:
				r.Samples = []promql.Sample{{F: v}}
			}
			responses[q] = r
		}
	}

	return responses
}

// histogramOf returns a histogram with n observations.
func histogramOf(t *testing.T, n float64) bucketwindow.Histogram {
	t.Helper()
	layout, err := bucketwindow.NewLayout([]string{"1", "2", "+Inf"})
	if err != nil {
		t.Fatal(err)
	}

	h := bucketwindow.New(layout)
	for i, count := range []float64{n / 2, n, n} {
		h.Add(i, count)
	}

	return h
}
