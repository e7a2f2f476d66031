// SPDX-License-Identifier: Apache-2.0

package scrape_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"go.uber.org/goleak"

	"github.com/operator-store/operator_store_exporter/config"
	"github.com/operator-store/operator_store_exporter/internal/bucketwindow"
	"github.com/operator-store/operator_store_exporter/internal/gauge"
	"github.com/operator-store/operator_store_exporter/internal/httpclient"
	"github.com/operator-store/operator_store_exporter/internal/promapi"
	"github.com/operator-store/operator_store_exporter/internal/promqlexpr"
	"github.com/operator-store/operator_store_exporter/internal/scrape"
	"github.com/operator-store/operator_store_exporter/internal/storematch"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// errHTTP is the error of a server that fails.
var errHTTP = &httpclient.Error{Reason: httpclient.ReasonHTTP, Request: "POST http://a", Err: errors.New("500")}

// errTooLarge is the error of a server that rejects a query for its size.
var errTooLarge = &httpclient.Error{
	Reason: httpclient.ReasonQuery, Request: "POST http://a", Err: errors.New("422: too many series"),
	Hint: httpclient.HintTooLarge, TooLarge: true,
}

// evaluatedAt is upstream's current time.
var evaluatedAt = time.Unix(1_700_000_000, 0)

// fakeUpstream responds to the expressions that contain a key of the maps. Others return no series.
type fakeUpstream struct {
	responses map[string][]string // Samples as parseSample reads them.
	failing   map[string]error
	limits    map[string]int  // The largest number of targets; queries about more are rejected as too large.
	partial   map[string]bool // These may lack series.
	blocked   map[string]bool // These wait until their context ends.

	mu       sync.Mutex
	requests []request
}

type request struct {
	expression string
	at         time.Time
}

func (f *fakeUpstream) Now() (time.Time, bool) { return evaluatedAt.Add(1500 * time.Microsecond), true }

func (f *fakeUpstream) Query(
	ctx context.Context, expression string, at time.Time,
) (promapi.Result, error) {
	f.mu.Lock()
	f.requests = append(f.requests, request{expression: expression, at: at})
	f.mu.Unlock()

	for key := range f.blocked {
		if strings.Contains(expression, key) {
			<-ctx.Done()

			return promapi.Result{}, &httpclient.Error{Reason: httpclient.ReasonTimeout, Err: ctx.Err()}
		}
	}

	for key, err := range f.failing {
		if strings.Contains(expression, key) {
			return promapi.Result{}, err
		}
	}

	for key, limit := range f.limits {
		if strings.Contains(expression, key) && countTargets(expression) > limit {
			return promapi.Result{}, errTooLarge
		}
	}

	var vector promql.Vector
	for key, samples := range f.responses {
		if strings.Contains(expression, key) {
			vector = append(vector, parseVector(samples...)...)
		}
	}

	if at.IsZero() {
		at = evaluatedAt
	}

	result := promapi.Result{Vector: vector, EvaluatedAt: at}
	for key := range f.partial {
		result.Partial = result.Partial || strings.Contains(expression, key)
	}

	return result, nil
}

// expressions returns the expressions so far that contain a text.
func (f *fakeUpstream) expressions(text string) []string {
	f.mu.Lock()
	defer f.mu.Unlock()

	var matching []string
	for _, r := range f.requests {
		if strings.Contains(r.expression, text) {
			matching = append(matching, r.expression)
		}
	}

	return matching
}

// countTargets returns the number of instances that an expression names.
func countTargets(expression string) int {
	root, err := parser.NewParser(parser.Options{}).ParseExpr(expression)
	if err != nil {
		panic(err)
	}

	most := 0
	for _, matchers := range parser.ExtractSelectors(root) {
		for _, m := range matchers {
			if m.Name == "instance" {
				most = max(most, 1+strings.Count(m.Value, "|"))
			}
		}
	}

	return most
}

// sentSizes returns the numbers of targets in the requests since the previous call of forget that
// contain a text, in ascending order.
func (f *fakeUpstream) sentSizes(text string) []int {
	var sizes []int
	for _, e := range f.expressions(text) {
		sizes = append(sizes, countTargets(e))
	}
	slices.Sort(sizes)

	return sizes
}

// forget forgets the requests so far.
func (f *fakeUpstream) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.requests = nil
}

// parseVector reads samples written as NAME=VALUE,NAME=VALUE NUMBER. Samples without a job are of
// the job tikv.
func parseVector(samples ...string) promql.Vector {
	var vector promql.Vector
	for _, text := range samples {
		pairs, number, _ := strings.Cut(text, " ")
		metric := map[string]string{"job": "tikv"}
		for _, pair := range strings.Split(pairs, ",") {
			name, value, _ := strings.Cut(pair, "=")
			metric[name] = value
		}
		v, err := strconv.ParseFloat(number, 64)
		if err != nil {
			panic(err)
		}
		vector = append(vector, promql.Sample{Metric: labels.FromMap(metric), F: v})
	}

	return vector
}

// identity returns the identity of a target of the job tikv.
func identity(instance string) storematch.Identity {
	return storematch.Identity{Job: "tikv", Instance: instance}
}

// manyTargets returns n targets, sorted.
func manyTargets(n int) []storematch.Identity {
	targets := make([]storematch.Identity, n)
	for i := range targets {
		targets[i] = identity(fmt.Sprintf("t%04d", i))
	}

	return targets
}

// newCatalog returns the gauges of a cluster with custom metrics.
func newCatalog(t *testing.T, metrics ...config.Metric) *gauge.Catalog {
	t.Helper()
	catalog, err := gauge.NewCatalog(metrics)
	if err != nil {
		t.Fatal(err)
	}

	return catalog
}

// customName is the name of customMetric.
const customName = "operator_store_custom"

// customMetric returns a custom gauge.
func customMetric(expression string) config.Metric {
	return config.Metric{
		Name: customName, Expr: config.Expression{Expr: promqlexpr.MustParse(expression)},
	}
}

// nativeFor returns which targets have native histograms in place of a query of a catalog.
func nativeFor(
	catalog *gauge.Catalog, name string, targets ...storematch.Identity,
) map[*gauge.Query]map[storematch.Identity]bool {
	native := map[*gauge.Query]map[storematch.Identity]bool{}
	for _, q := range catalog.Queries() {
		if q.Name != name {
			continue
		}

		native[q] = map[storematch.Identity]bool{}
		for _, t := range targets {
			native[q][t] = true
		}
	}

	return native
}

// builtinQueries returns the queries of a cluster without custom metrics.
func builtinQueries(t *testing.T) []*gauge.Query {
	t.Helper()

	return newCatalog(t).Queries()
}

// query returns a built-in query by name.
func query(t *testing.T, name string) *gauge.Query {
	t.Helper()

	for _, q := range gauge.BuiltinQueries() {
		if q.Name == name {
			return q
		}
	}
	t.Fatalf("there is no query %q", name)

	return nil
}

// fixture is a runner of the built-in queries, and what its scrapes counted.
type fixture struct {
	t       *testing.T
	catalog *gauge.Catalog
	native  map[*gauge.Query]map[storematch.Identity]bool // The targets that have native histograms only.
	runner  *scrape.Runner
	planner *scrape.Planner

	mu       sync.Mutex
	failures map[string]int // By query and reason.
}

func newFixture(t *testing.T, up *fakeUpstream, replicaLabels ...string) *fixture {
	t.Helper()

	return newFixtureWithOffset(t, up, 0, replicaLabels...)
}

// newFixtureWithOffset returns a fixture that evaluates queries that long before upstream's now.
func newFixtureWithOffset(
	t *testing.T, up *fakeUpstream, offset time.Duration, replicaLabels ...string,
) *fixture {
	t.Helper()
	catalog := newCatalog(t)
	f := &fixture{
		t: t, catalog: catalog, planner: scrape.NewPlanner(catalog, time.Minute, nil, replicaLabels),
		failures: map[string]int{},
	}
	f.runner = scrape.NewRunner(scrape.Options{
		Upstream: up, Queries: catalog.Queries(), Planner: f.planner, ReplicaLabels: replicaLabels,
		Learners: newLearners(catalog.Queries(), f.planner), Concurrency: concurrency, Offset: offset,
	})

	return f
}

const concurrency = 8

// newLearners returns a learner for each query for buckets.
func newLearners(queries []*gauge.Query, planner *scrape.Planner) map[*gauge.Query]*bucketwindow.Learner {
	learners := map[*gauge.Query]*bucketwindow.Learner{}
	for _, q := range queries {
		if q.Shape == gauge.Buckets {
			learners[q] = bucketwindow.NewLearner(bucketwindow.Options{
				Quantiles: []float64{0.99}, MaxBatchSize: promqlexpr.MaxMatcherValues, Concurrency: concurrency,
				RateWindow: time.Minute, Split: planner.Split,
			})
		}
	}

	return learners
}

func ignoreFailure(*gauge.Query, httpclient.Reason) {}

// run scrapes targets, which must be sorted.
func (f *fixture) run(ctx context.Context, targets ...storematch.Identity) *scrape.Results {
	f.t.Helper()

	return f.runner.Run(ctx, f.planner.Plan(targets, f.native), f.count)
}

func (f *fixture) count(q *gauge.Query, reason httpclient.Reason) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failures[q.Name+" "+string(reason)]++
}
