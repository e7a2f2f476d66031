// SPDX-License-Identifier: Apache-2.0

package collector_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-kit/log"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"go.uber.org/goleak"

	"github.com/operator-store/operator_store_exporter/collector"
	"github.com/operator-store/operator_store_exporter/config"
	"github.com/operator-store/operator_store_exporter/internal/gauge"
	"github.com/operator-store/operator_store_exporter/internal/httpclient"
	"github.com/operator-store/operator_store_exporter/internal/promapi"
	"github.com/operator-store/operator_store_exporter/internal/promqlexpr"
	"github.com/operator-store/operator_store_exporter/internal/storematch"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeUpstream answers queries as a test scripts them, including what real upstreams rarely do.
// Its clock is an hour behind the local one. The maps have the names of queries as keys, see
// queryName.
type fakeUpstream struct {
	targets   []labels.Labels
	responses map[string][]string      // The series of each response, see parseSample. Other queries return none.
	blocked   map[string]chan struct{} // Queries that wait until the channel is closed or their context ends.
	failing   map[string]error
	partial   map[string]bool // Queries whose responses may lack series, and are accepted.
	interval  time.Duration   // At which the targets are scraped; there are no raw samples if it is zero.
	pd        fakePD

	mu         sync.Mutex
	requests   []request
	clockKnown bool
}

// request is what an upstream received.
type request struct {
	query      string    // See queryName.
	expression string    // For a request for series, its matchers.
	at         time.Time // The evaluation time; zero for upstream's current time.
}

// Names of requests that are not instant queries of a gauge.
const (
	queryTargets        = "targets"      // The series of all targets.
	queryLiveTargets    = "live targets" // Which targets have samples now.
	queryStoreIDs       = "store_ids"
	queryNativeTargets  = "native targets"  // Which targets have native histograms.
	queryClassicTargets = "classic targets" // Which targets have classic histograms.
	queryTime           = "time"
	querySamples        = "samples" // Raw samples, to learn the scrape interval.
	queryExternalURL    = "external URL"
	anyQuery            = "any query" // In fakeUpstream.blocked.
)

// clockOffset is upstream's clock minus the local one.
const clockOffset = -time.Hour

func (f *fakeUpstream) Now() (time.Time, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.clockKnown {
		return time.Now(), false
	}

	return time.Now().Add(clockOffset), true
}

func (f *fakeUpstream) Servers() (string, []string) {
	return "http://a", []string{"http://a", "http://b"}
}

func (f *fakeUpstream) Queued() uint64 { return 3 }

func (f *fakeUpstream) ExternalURL(ctx context.Context) (string, error) {
	if err := f.receive(ctx, request{query: queryExternalURL}); err != nil {
		return "", err
	}

	return "http://people", nil
}

func (f *fakeUpstream) Close() {}

func (f *fakeUpstream) Series(ctx context.Context, matchers []string, _, _ time.Time) ([]labels.Labels, error) {
	return f.targets, f.receive(ctx, request{query: queryTargets, expression: strings.Join(matchers, "\n")})
}

func (f *fakeUpstream) Query(
	ctx context.Context, expression string, at time.Time,
) (promapi.Result, error) {
	name := queryName(expression)
	if err := f.receive(ctx, request{query: name, expression: expression, at: at}); err != nil {
		return promapi.Result{}, err
	}
	if at.IsZero() {
		at = time.Now().Add(clockOffset)
		f.mu.Lock()
		f.clockKnown = true
		f.mu.Unlock()
	}

	var vector promql.Vector
	for _, s := range f.responses[name] {
		vector = append(vector, parseSample(s, at))
	}

	return promapi.Result{Vector: vector, EvaluatedAt: at, Partial: f.partial[name]}, nil
}

func (f *fakeUpstream) Samples(
	ctx context.Context, selector promqlexpr.Expr, within time.Duration, at time.Time,
) (promql.Matrix, error) {
	err := f.receive(ctx, request{query: querySamples, expression: promqlexpr.Range(selector, within), at: at})
	if err != nil || f.interval == 0 {
		return nil, err
	}

	var matrix promql.Matrix
	for _, t := range f.targets {
		var points []promql.FPoint
		for age := within - f.interval; age >= 0; age -= f.interval {
			points = append(points, promql.FPoint{T: at.Add(-age).UnixMilli(), F: 1})
		}
		matrix = append(matrix, promql.Series{Metric: t, Floats: points})
	}

	return matrix, nil
}

// receive records a request. It blocks and fails as the test scripted it.
func (f *fakeUpstream) receive(ctx context.Context, r request) error {
	f.mu.Lock()
	f.requests = append(f.requests, r)
	f.mu.Unlock()

	gate, blocked := f.blocked[r.query]
	if !blocked {
		gate, blocked = f.blocked[anyQuery]
	}
	if blocked {
		select {
		case <-gate:
		case <-ctx.Done():
			return &httpclient.Error{Reason: httpclient.ReasonTimeout, Request: "POST /", Err: ctx.Err()}
		}
	}

	return f.failing[r.query]
}

// received returns the requests so far.
func (f *fakeUpstream) received() []request {
	f.mu.Lock()
	defer f.mu.Unlock()

	return slices.Clone(f.requests)
}

// count returns how many requests a query sent so far.
func (f *fakeUpstream) count(query string) int {
	n := 0
	for _, r := range f.received() {
		if r.query == query {
			n++
		}
	}

	return n
}

// fakePD is a PD that returns what a test wants.
type fakePD struct {
	stores []storematch.Store
	err    error
}

func (f *fakePD) Stores(context.Context) ([]storematch.Store, error) { return f.stores, f.err }
func (f *fakePD) Close()                                             {}

// queryName returns the name of the query that an expression belongs to. An expression that is
// not built in, such as one of a custom metric, is its own name, without matchers and groupings.
func queryName(expression string) string {
	bare := withoutMatchers(expression)
	if name, ok := namesOfQueries()[bare]; ok {
		return name
	}

	return bare
}

// namesOfQueries maps the expressions of queries, without matchers, to their names.
var namesOfQueries = sync.OnceValue(func() map[string]string {
	names := map[string]string{
		"vector(0)": queryTime,
		"tikv_store_size_bytes or tikv_server_info": queryLiveTargets,
		"group(pd_scheduler_store_status)":          queryStoreIDs,
	}
	for _, q := range gauge.BuiltinQueries() {
		if q.HasExpr() {
			names[withoutMatchers(q.Expr.String())] = q.Name
		}
		if q.Shape == gauge.Buckets {
			for _, buckets := range q.Expr.Series() {
				names["group("+withoutMatchers(buckets.Native().String())+")"] = queryNativeTargets
				names["group("+withoutMatchers(buckets.String())+")"] = queryClassicTargets
			}
		}
	}

	return names
})

// withoutMatchers returns an expression without its label matchers, groupings and rate windows,
// in which the queries of different clusters differ.
func withoutMatchers(expression string) string {
	root, err := parser.NewParser(parser.Options{}).ParseExpr(expression)
	if err != nil {
		panic(err)
	}

	parser.Inspect(root, func(n parser.Node, _ []parser.Node) error {
		switch n := n.(type) {
		case *parser.VectorSelector:
			n.LabelMatchers = nil
		case *parser.MatrixSelector:
			n.Range = time.Minute
		case *parser.AggregateExpr:
			n.Grouping = nil
		}

		return nil
	})

	return root.String()
}

// parseSample reads a sample written as NAME=VALUE,NAME=VALUE NUMBER.
func parseSample(text string, at time.Time) promql.Sample {
	pairs, number, _ := strings.Cut(text, " ")
	metric := map[string]string{}
	for _, pair := range strings.Split(pairs, ",") {
		name, value, _ := strings.Cut(pair, "=")
		metric[name] = value
	}

	v, err := strconv.ParseFloat(number, 64)
	if err != nil {
		panic(err)
	}

	return promql.Sample{Metric: labels.FromMap(metric), F: v, T: at.UnixMilli()}
}

// target returns the labels of a target's series.
func target(job, instance string) labels.Labels {
	return labels.FromStrings("job", job, "instance", instance)
}

// manyTargets returns n targets of one job.
func manyTargets(n int) []labels.Labels {
	targets := make([]labels.Labels, n)
	for i := range targets {
		targets[i] = target("tikv", fmt.Sprintf("t%d", i))
	}

	return targets
}

// The labels of the target that most tests have, and of another one, as parseSample reads them.
const (
	tikvA = "job=tikv,instance=a:20180"
	tikvB = "job=tikv,instance=b:20180"
)

// oneTarget is the target tikvA.
var oneTarget = []labels.Labels{target("tikv", "a:20180")}

// The lines of storeGauges about up, for the target tikvA.
const (
	monitoredLineA   = `operator_store_monitored{address="a:20180",cluster="c",store_id=""} 1`
	unmonitoredLineA = `operator_store_monitored{address="a:20180",cluster="c",store_id=""} 0`
	upLineA          = `operator_store_up{address="a:20180",cluster="c",store_id=""} 1`
	downLineA        = `operator_store_up{address="a:20180",cluster="c",store_id=""} 0`
)

// upLinesA is the result of storeGauges if the target tikvA is up and upstream returns nothing
// else.
const upLinesA = monitoredLineA + "\n" + upLineA

// errHTTP is the error of a server that fails.
var errHTTP = &httpclient.Error{
	Reason: httpclient.ReasonHTTP, Request: "POST http://upstream", Err: errors.New("500 Internal Server Error"),
	Hint: "try again",
}

// errRefused is the error of a PD that is gone.
var errRefused = &httpclient.Error{
	Reason: httpclient.ReasonConnection, Request: "GET http://pd", Err: errors.New("connection refused"),
}

// discoveryInterval is the store discovery interval of these tests.
const discoveryInterval = time.Hour

// loadConfig returns the configuration of one cluster "c" with additional fields.
func loadConfig(t *testing.T, fields string) *config.Config {
	t.Helper()
	cfg, err := config.Load([]byte("clusters:\n- name: c\n  upstream: {url: http://upstream}\n" + fields))
	if err != nil {
		t.Fatal(err)
	}

	return cfg
}

// newExporter returns an exporter of one cluster "c" with additional configuration fields. It is
// closed with the test.
func newExporter(t *testing.T, up *fakeUpstream, fields string) *collector.Exporter {
	t.Helper()

	return newExporterWith(t, loadConfig(t, fields), up, collector.Options{})
}

// newLoggingExporter is newExporter with a log.
func newLoggingExporter(t *testing.T, up *fakeUpstream, fields string, w io.Writer) *collector.Exporter {
	t.Helper()

	return newExporterWith(t, loadConfig(t, fields), up, collector.Options{Logger: log.NewLogfmtLogger(w)})
}

// newExporterWith returns an exporter whose clusters all have the same upstream. It is closed
// with the test.
func newExporterWith(
	t *testing.T, cfg *config.Config, up *fakeUpstream, opts collector.Options,
) *collector.Exporter {
	t.Helper()
	opts.Lookback, opts.Interval = 2*discoveryInterval, discoveryInterval
	e, err := collector.New(cfg, opts.WithClients(up, &up.pd))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)

	return e
}

func scrape(ctx context.Context, t *testing.T, e *collector.Exporter) *collector.Scrape {
	t.Helper()
	s, err := e.Scrape(ctx)
	if err != nil {
		t.Fatal(err)
	}

	return s
}

// storeGauges returns the series of the built-in gauges in exposition format, one line each.
func storeGauges(t *testing.T, c prometheus.Collector) string {
	t.Helper()

	var names []string
	for _, g := range gauge.Builtin() {
		names = append(names, g.Name)
	}

	return strings.Join(series(t, c, names...), "\n")
}

// series returns the series of the metrics with the given names in exposition format.
func series(t *testing.T, c prometheus.Collector, names ...string) []string {
	t.Helper()
	text, err := testutil.CollectAndFormat(c, expfmt.TypeTextPlain, names...)
	if err != nil {
		t.Fatal(err)
	}

	var lines []string
	for _, line := range strings.Split(string(text), "\n") {
		if line != "" && !strings.HasPrefix(line, "#") {
			lines = append(lines, line)
		}
	}

	return lines
}

// metricNames returns the names of the metrics in the lines of storeGauges.
func metricNames(lines string) []string {
	var names []string
	for _, line := range strings.Split(lines, "\n") {
		if name, _, ok := strings.Cut(line, "{"); ok {
			names = append(names, name)
		}
	}

	return names
}

// queriesPerBatch is how many requests a scrape sends for each batch of targets: one per instant
// query of the catalog, except for replica_time, which is not needed without replica_labels. It
// is derived, because a new gauge may add a query.
func queriesPerBatch(t *testing.T) int {
	t.Helper()
	catalog, err := gauge.NewCatalog(nil)
	if err != nil {
		t.Fatal(err)
	}

	return len(catalog.Queries()) - 1
}

// bucketQueries is how many queries of the catalog are for histogram buckets.
func bucketQueries() int {
	n := 0
	for _, q := range gauge.BuiltinQueries() {
		if q.Shape == gauge.Buckets {
			n++
		}
	}

	return n
}

// vectorSelectors returns the vector selectors of an expression.
func vectorSelectors(t *testing.T, expression string) []*parser.VectorSelector {
	t.Helper()
	root, err := parser.NewParser(parser.Options{}).ParseExpr(expression)
	if err != nil {
		t.Fatal(err)
	}

	var selectors []*parser.VectorSelector
	parser.Inspect(root, func(n parser.Node, _ []parser.Node) error {
		if s, ok := n.(*parser.VectorSelector); ok {
			selectors = append(selectors, s)
		}

		return nil
	})

	return selectors
}
