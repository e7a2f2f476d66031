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

	"github.com/operator-store/operator_store_exporter/config"
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
	catalog := newCatalog(t, customMetric(`sum by (job, instance) (a) / on (job, instance) b`))
	planner := scrape.NewPlanner(catalog, time.Minute, nil, nil)

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

const (
	nativeDuration = `sum by (job, instance) (rate(tikv_grpc_msg_duration_seconds` +
		`{instance="a:1",job="tikv"}[5m]))`
	nativeLagOfReplica = `sum by (job, instance, replica) (rate(tikv_raftstore_log_lag` +
		`{instance="a:1",job="tikv",tidb_cluster="x"}[5m]))`
)

// labeled returns an expression whose samples have the given value of the label quantile.
func labeled(quantile, expression string) string {
	return fmt.Sprintf(`label_replace(%s, "quantile", %q, "", "")`, expression, quantile)
}

// The expressions that are sent for one query, with the selector, the targets, the replica labels
// and the rate window.
func TestExpressions(t *testing.T) {
	selector := []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "tidb_cluster", "x")}
	a := []storematch.Identity{identity("a:1")}
	for _, tc := range []struct {
		name          string
		query         string
		custom        string // The expression of a custom metric, if any.
		selector      []*labels.Matcher
		replicaLabels []string
		targets       []storematch.Identity
		native        []storematch.Identity // Those with native histograms of the query.
		want          string                // Empty if the query is not sent.
	}{
		{
			name:    "one target",
			query:   "cpu_quota",
			targets: a,
			want:    `sum by (job, instance) (tikv_server_cpu_cores_quota{instance="a:1",job="tikv"})`,
		},
		{
			name:     "selector and rate window",
			query:    "cpu_seconds",
			selector: selector,
			targets:  []storematch.Identity{identity("a:1"), identity("b:1")},
			want: `sum by (job, instance) (rate(process_cpu_seconds_total` +
				`{instance=~"a:1|b:1",job="tikv",tidb_cluster="x"}[5m]))`,
		},
		{
			name:          "replica labels",
			query:         "cpu_quota",
			replicaLabels: []string{"replica"},
			targets:       a,
			want:          `sum by (job, instance, replica) (tikv_server_cpu_cores_quota{instance="a:1",job="tikv"})`,
		},
		{
			name:          "replica_time with replica labels",
			query:         "replica_time",
			replicaLabels: []string{"replica"},
			targets:       a,
			want:          `timestamp(up{instance="a:1",job="tikv"})`,
		},
		{
			name:    "replica_time is needless without replica labels",
			query:   "replica_time",
			targets: a,
		},
		{
			name:    "custom expressions keep their ranges",
			query:   customName,
			custom:  `max_over_time(tikv_threads[10m])`,
			targets: a,
			want:    `max_over_time(tikv_threads{instance="a:1",job="tikv"}[10m])`,
		},
		{
			name:    "all buckets",
			query:   "raft_log_lag",
			targets: a,
			want: `sum by (job, instance, le) (rate(tikv_raftstore_log_lag_bucket` +
				`{instance="a:1",job="tikv"}[5m]))`,
		},
		{
			name:    "native histograms: the quantiles of the gauges and the rate in one expression",
			query:   "grpc_duration",
			targets: a,
			native:  a,
			want: labeled("count", `histogram_count(`+nativeDuration+`)`) +
				` or ` + labeled("0.95", `histogram_quantile(0.95, `+nativeDuration+`)`) +
				` or ` + labeled("0.99", `histogram_quantile(0.99, `+nativeDuration+`)`),
		},
		{
			name:          "native histograms with a selector and replica labels",
			query:         "raft_log_lag",
			selector:      selector,
			replicaLabels: []string{"replica"},
			targets:       a,
			native:        a,
			want: labeled("count", `histogram_count(`+nativeLagOfReplica+`)`) +
				` or ` + labeled("0.99", `histogram_quantile(0.99, `+nativeLagOfReplica+`)`),
		},
		{
			name:  "without targets, upstream is only queried for the time",
			query: "up",
			want:  `vector(0)`,
		},
		{
			name:  "without targets, nothing else is queried",
			query: "cpu_quota",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var metrics []config.Metric
			if tc.custom != "" {
				metrics = append(metrics, customMetric(tc.custom))
			}
			catalog := newCatalog(t, metrics...)
			planner := scrape.NewPlanner(catalog, 5*time.Minute, tc.selector, tc.replicaLabels)
			runner := scrape.NewRunner(scrape.Options{
				Upstream: &fakeUpstream{}, Queries: catalog.Queries(), Planner: planner,
				ReplicaLabels: tc.replicaLabels,
				Learners:      newLearners(catalog.Queries(), planner), Concurrency: 1,
			})

			plan := planner.Plan(tc.targets, nativeFor(catalog, tc.query, tc.native...))
			results := runner.Run(t.Context(), plan, ignoreFailure)

			var got string
			for q, r := range results.Reports() { // Only the expressions of tc.query are compared.
				if q.Name == tc.query {
					got = strings.Join(r.Expressions, "\n")
				}
			}
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
