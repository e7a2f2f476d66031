// SPDX-License-Identifier: Apache-2.0

package scrape_test

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/operator-store/operator_store_exporter/internal/gauge"
	"github.com/operator-store/operator_store_exporter/internal/promqlexpr"
	"github.com/operator-store/operator_store_exporter/internal/scrape"
	"github.com/operator-store/operator_store_exporter/internal/storematch"
)

// Whatever the names of the targets, no matcher is larger than what every upstream looks up as a
// set, and every query names every target exactly once.
func TestMatchersStayWithinBounds(t *testing.T) {
	for _, tc := range []struct {
		name    string
		targets int
		target  func(int) storematch.Identity
		batches int
	}{
		{
			name:    "one full batch",
			targets: 250,
			target:  func(i int) storematch.Identity { return identity(fmt.Sprintf("t%d", i)) },
			batches: 1,
		},
		{
			name:    "one target more than a batch",
			targets: 251,
			target:  func(i int) storematch.Identity { return identity(fmt.Sprintf("t%d", i)) },
			batches: 2,
		},
		{
			name:    "many jobs",
			targets: 251,
			target: func(i int) storematch.Identity {
				return storematch.Identity{Job: fmt.Sprintf("j%d", i), Instance: fmt.Sprintf("t%d", i)}
			},
			batches: 2,
		},
		{
			name:    "long names",
			targets: 100,
			target:  func(i int) storematch.Identity { return identity(fmt.Sprintf("%0500d", i)) },
			batches: 5,
		},
		{
			name:    "names of dots, each of which takes three bytes when it is escaped",
			targets: 100,
			target: func(i int) storematch.Identity {
				return identity(fmt.Sprintf("%s%03d", strings.Repeat(".", 200), i))
			},
			batches: 6,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var targets []storematch.Identity
			for i := range tc.targets {
				targets = append(targets, tc.target(i))
			}
			slices.SortFunc(targets, storematch.Identity.Compare)
			up := &fakeUpstream{}
			newFixture(t, up).run(t.Context(), targets...)

			if n := len(up.expressions("rate(tikv_storage_command_total")); n != tc.batches {
				t.Errorf("%d queries for storage commands, want %d", n, tc.batches)
			}
			checkNames(t, up.expressions(""), targets)
		})
	}
}

// checkNames verifies that every query, which may be sent in several expressions, names each target
// once.
func checkNames(t *testing.T, expressions []string, targets []storematch.Identity) {
	t.Helper()

	named := map[string]map[string]int{} // By query, then by instance.
	for _, expression := range expressions {
		query, _, _ := strings.Cut(expression, "{")
		if named[query] == nil {
			named[query] = map[string]int{}
		}

		for _, instance := range checkMatchers(t, expression) {
			named[query][instance]++
		}
	}
	if want := len(builtinQueries(t)) - 1; len(named) != want { // All but replica_time.
		t.Errorf("%d different queries, want %d", len(named), want)
	}

	for query, instances := range named {
		for _, target := range targets {
			if n := instances[regexp.QuoteMeta(target.Instance)]; n != 1 {
				t.Fatalf("%s...} names %s %d times, want once", query, target.Instance, n)
			}
		}
	}
}

// checkMatchers verifies the size of an expression's matchers, and returns the alternatives of the
// label instance.
func checkMatchers(t *testing.T, expression string) (instances []string) {
	t.Helper()
	const (
		maxValues = 250
		maxBytes  = 12_000 + 100 // With the label name, the operator and the quotes.
	)
	root, err := parser.NewParser(parser.Options{}).ParseExpr(expression)
	if err != nil {
		t.Fatal(err)
	}

	parser.Inspect(root, func(n parser.Node, _ []parser.Node) error {
		selector, ok := n.(*parser.VectorSelector)
		if !ok {
			return nil
		}

		for _, m := range selector.LabelMatchers {
			values := strings.Split(m.Value, "|")
			if len(values) > maxValues || len(m.String()) > maxBytes {
				t.Errorf("the matcher of %s has %d values in %d bytes", m.Name, len(values), len(m.String()))
			}
			if m.Name == "instance" {
				instances = append(instances, values...)
			}
		}

		return nil
	})

	return instances
}

// If an expression has several vector selectors, all of them together stay within the bound.
func TestMatchersOfSeveralSelectors(t *testing.T) {
	custom := &gauge.Query{
		Name: "custom", Shape: gauge.Custom,
		Expr: promqlexpr.MustParse(`sum by (job, instance) (a) / on (job, instance) b`),
	}
	planner := scrape.NewPlanner([]*gauge.Query{gauge.QueryUp, custom}, time.Minute, nil, nil)

	var targets []storematch.Identity
	for i := range 100 {
		targets = append(targets, identity(fmt.Sprintf("%0500d", i)))
	}

	parts := planner.Split(targets)
	if want := 10; len(parts) != want { // Twice as many as in the case "long names" above.
		t.Errorf("%d parts, want %d", len(parts), want)
	}
	if got := slices.Concat(parts...); !slices.Equal(got, targets) {
		t.Error("the parts do not have every target once, in order")
	}
}

// The expressions that are sent for one query, with the selector, the targets, the replica labels
// and the rate window.
func TestExpressions(t *testing.T) {
	selector := []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "tidb_cluster", "x")}
	custom := func(expression string) *gauge.Query {
		return &gauge.Query{Name: "custom", Shape: gauge.Custom, Expr: promqlexpr.MustParse(expression)}
	}
	for _, tc := range []struct {
		name          string
		query         *gauge.Query
		selector      []*labels.Matcher
		replicaLabels []string
		targets       []storematch.Identity
		want          string // Empty if the query is not sent.
	}{
		{
			name:    "one target",
			query:   query(t, "cpu_quota"),
			targets: []storematch.Identity{identity("a:1")},
			want:    `sum by (job, instance) (tikv_server_cpu_cores_quota{instance="a:1",job="tikv"})`,
		},
		{
			name:     "selector and rate window",
			query:    query(t, "cpu_seconds"),
			selector: selector,
			targets:  []storematch.Identity{identity("a:1"), identity("b:1")},
			want: `sum by (job, instance) (rate(process_cpu_seconds_total` +
				`{instance=~"a:1|b:1",job="tikv",tidb_cluster="x"}[5m]))`,
		},
		{
			name:          "replica labels",
			query:         query(t, "cpu_quota"),
			replicaLabels: []string{"replica"},
			targets:       []storematch.Identity{identity("a:1")},
			want:          `sum by (job, instance, replica) (tikv_server_cpu_cores_quota{instance="a:1",job="tikv"})`,
		},
		{
			name:          "replica_time with replica labels",
			query:         gauge.QueryReplicaTime,
			replicaLabels: []string{"replica"},
			targets:       []storematch.Identity{identity("a:1")},
			want:          `timestamp(up{instance="a:1",job="tikv"})`,
		},
		{
			name:    "replica_time is needless without replica labels",
			query:   gauge.QueryReplicaTime,
			targets: []storematch.Identity{identity("a:1")},
		},
		{
			name:    "custom expressions keep their ranges",
			query:   custom(`max_over_time(tikv_threads[10m])`),
			targets: []storematch.Identity{identity("a:1")},
			want:    `max_over_time(tikv_threads{instance="a:1",job="tikv"}[10m])`,
		},
		{
			name:    "all buckets",
			query:   query(t, "raft_log_lag"),
			targets: []storematch.Identity{identity("a:1")},
			want: `sum by (job, instance, le) (rate(tikv_raftstore_log_lag_bucket` +
				`{instance="a:1",job="tikv"}[5m]))`,
		},
		{
			name:  "without targets, upstream is only queried for the time",
			query: gauge.QueryUp,
			want:  `vector(0)`,
		},
		{
			name:  "without targets, nothing else is queried",
			query: query(t, "cpu_quota"),
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			// Only the expressions of tc.query are compared.
			queries := []*gauge.Query{gauge.QueryUp, gauge.QueryStartTime}
			if !slices.Contains(queries, tc.query) {
				queries = append(queries, tc.query)
			}
			planner := scrape.NewPlanner(queries, 5*time.Minute, tc.selector, tc.replicaLabels)
			runner := scrape.NewRunner(scrape.Options{
				Upstream: &fakeUpstream{}, Queries: queries, Planner: planner, ReplicaLabels: tc.replicaLabels,
				Learners: newLearners(queries, planner), Concurrency: 1,
			})

			results := runner.Run(t.Context(), planner.Plan(tc.targets), ignoreFailure)
			got := strings.Join(results.Reports()[tc.query].Expressions, "\n")
			if !sameExpression(t, got, tc.want) {
				t.Errorf("got  %s\nwant %s", got, tc.want)
			}
		})
	}
}

// sameExpression compares two expressions as the parser prints them, which may each be empty.
func sameExpression(t *testing.T, a, b string) bool {
	t.Helper()
	if a == "" || b == "" {
		return a == b
	}

	printed := [2]string{}
	for i, text := range []string{a, b} {
		root, err := parser.NewParser(parser.Options{}).ParseExpr(text)
		if err != nil {
			t.Fatal(err)
		}
		printed[i] = root.String()
	}

	return printed[0] == printed[1]
}
