// SPDX-License-Identifier: Apache-2.0

package gauge_test

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"

	"github.com/operator-store/operator_store_exporter/config"
	"github.com/operator-store/operator_store_exporter/internal/bucketwindow"
	"github.com/operator-store/operator_store_exporter/internal/gauge"
)

// newCatalog returns the catalog of a cluster with metrics in YAML's flow style.
func newCatalog(t *testing.T, metrics string) (*gauge.Catalog, error) {
	t.Helper()
	cfg, err := config.Load([]byte("clusters: [{name: c, upstream: {url: http://a}, metrics: [" + metrics + "]}]"))
	if err != nil {
		t.Fatal(err)
	}

	return gauge.NewCatalog(cfg.Clusters[0].Metrics)
}

// mustCatalog is newCatalog for metrics that are valid.
func mustCatalog(t *testing.T, metrics string) *gauge.Catalog {
	t.Helper()
	c, err := newCatalog(t, metrics)
	if err != nil {
		t.Fatal(err)
	}

	return c
}

// queryNamed returns a query of a catalog by name; nil if the catalog does not have it.
func queryNamed(c *gauge.Catalog, name string) *gauge.Query {
	for _, q := range c.ReportedQueries() {
		if q.Name == name {
			return q
		}
	}

	return nil
}

// A cluster only sends the queries that its gauges need.
func TestQueriesOfReplacedGauges(t *testing.T) {
	const (
		p95     = "{name: operator_store_latency_p95_seconds, expr: a}"
		p99     = "{name: operator_store_latency_p99_seconds, expr: b}"
		grpcQPS = "{name: operator_store_grpc_qps, expr: c}"
		raftLag = "{name: operator_store_raft_lag, expr: d}"
	)
	for _, tc := range []struct {
		name      string
		metrics   []string
		removed   []string // Built-in queries that are not needed any longer.
		quantiles []float64
	}{
		{
			name:      "none",
			quantiles: []float64{0.95, 0.99},
		},
		{
			name:      "one latency gauge",
			metrics:   []string{p95},
			quantiles: []float64{0.99},
		},
		{
			name:    "both latency gauges: the query is needed for the rate, without quantiles",
			metrics: []string{p95, p99},
		},
		{
			name:    "all gauges of the histogram",
			metrics: []string{p95, p99, grpcQPS},
			removed: []string{"grpc_duration"},
		},
		{
			name:    "all gauges of all histograms: restarts do not matter",
			metrics: []string{p95, p99, grpcQPS, raftLag},
			removed: []string{"start_time", "grpc_duration", "raft_log_lag"},
		},
		{
			name: "the only gauge of a query",
			metrics: []string{
				"{name: operator_store_cpu_cores, expr: a}",
			},
			removed:   []string{"cpu_quota"},
			quantiles: []float64{0.95, 0.99},
		},
		{
			name: "an input of derived gauges, whose query has other gauges",
			metrics: []string{
				"{name: operator_store_disk_total_bytes, expr: a}",
			},
			quantiles: []float64{0.95, 0.99},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := mustCatalog(t, strings.Join(tc.metrics, ", "))

			var want []string
			for _, q := range gauge.BuiltinQueries() {
				if !slices.Contains(tc.removed, q.Name) {
					want = append(want, q.Name)
				}
			}

			var got []string
			for _, q := range c.ReportedQueries() {
				if q.Shape != gauge.Custom {
					got = append(got, q.Name)
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("the built-in queries are %q, want %q", got, want)
			}
			custom := len(c.ReportedQueries()) - len(got)
			if custom != len(tc.metrics) {
				t.Errorf("there are %d custom queries, want one per metric, %d", custom, len(tc.metrics))
			}

			grpc := queryNamed(mustCatalog(t, ""), "grpc_duration")
			if got := c.Quantiles(grpc); !slices.Equal(got, tc.quantiles) {
				t.Errorf("the quantiles are %v, want %v", got, tc.quantiles)
			}
		})
	}
}

// The queries for buckets, which targets may have as native histograms instead.
func TestHistograms(t *testing.T) {
	for _, tc := range []struct {
		name    string
		metrics string
		want    []string
	}{
		{name: "built in", want: []string{"grpc_duration", "raft_log_lag"}},
		{
			name:    "one histogram is replaced",
			metrics: "{name: operator_store_raft_lag, expr: a}",
			want:    []string{"grpc_duration"},
		},
		{
			name: "all are replaced",
			metrics: "{name: operator_store_raft_lag, expr: a}, {name: operator_store_grpc_qps, expr: b}, " +
				"{name: operator_store_latency_p95_seconds, expr: c}, " +
				"{name: operator_store_latency_p99_seconds, expr: d}",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := mustCatalog(t, tc.metrics)
			queries := len(c.Queries())

			var got []string
			for _, q := range c.Histograms() {
				got = append(got, q.Name)
			}
			if !slices.Equal(got, tc.want) {
				t.Errorf("got %q, want %q", got, tc.want)
			}
			if len(c.Queries()) != queries {
				t.Error("the queries of the catalog changed")
			}
		})
	}
}

// What is queried of native histograms.
func TestNativeExpr(t *testing.T) {
	q := queryNamed(mustCatalog(t, ""), "raft_log_lag")
	const histograms = `sum by (job, instance) (rate(tikv_raftstore_log_lag[1m]))`

	for _, tc := range []struct {
		name      string
		quantiles []float64
		want      string
	}{
		{
			name: "only the rate",
			want: `label_replace(histogram_count(` + histograms + `), "quantile", "count", "", "")`,
		},
		{
			name:      "quantiles",
			quantiles: []float64{0.5, 0.999},
			want: `label_replace(histogram_count(` + histograms + `), "quantile", "count", "", "")` +
				` or label_replace(histogram_quantile(0.5, ` + histograms + `), "quantile", "0.5", "", "")` +
				` or label_replace(histogram_quantile(0.999, ` + histograms + `), "quantile", "0.999", "", "")`,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := q.NativeExpr(tc.quantiles).String(); got != tc.want {
				t.Errorf("got %s, want %s", got, tc.want)
			}
		})
	}
}

func TestQueriesInOrder(t *testing.T) {
	c := mustCatalog(t, "{name: operator_store_z, expr: z}, {name: operator_store_a, expr: a}")

	queries := c.Queries()
	if queries[0] != gauge.QueryUp {
		t.Errorf("the first query is %s, want up", queries[0].Name)
	}

	var last []string
	for _, q := range queries[len(queries)-2:] {
		last = append(last, q.Name)
	}
	if want := []string{"operator_store_z", "operator_store_a"}; !slices.Equal(last, want) {
		t.Errorf("the last queries are %q, want those of the configuration in its order, %q", last, want)
	}
	if got := c.ReportedQueries(); !slices.Equal(got[len(got)-len(queries):], queries) {
		t.Error("the reported queries do not end with the instant queries")
	}
	if queryNamed(c, "pd") == nil || slices.Contains(queries, gauge.QueryPD) {
		t.Error("the query pd is not reported, or is an instant query")
	}
}

func TestCustomGauges(t *testing.T) {
	const custom = "operator_store_threads"
	for _, tc := range []struct {
		name    string
		metric  string
		gauge   string
		help    string
		isAdded bool
	}{
		{
			name:    "with help",
			metric:  "{name: operator_store_threads, help: Threads of TiKV., expr: tikv_threads}",
			gauge:   custom,
			help:    "Threads of TiKV.",
			isAdded: true,
		},
		{
			name:    "without help, the expression is the help",
			metric:  "{name: operator_store_threads, expr: tikv_threads}",
			gauge:   custom,
			help:    "tikv_threads",
			isAdded: true,
		},
		{
			name:   "a built-in gauge keeps its help",
			metric: "{name: operator_store_cpu_cores, expr: tikv_cores}",
			gauge:  gauge.CPUCores,
			help:   "CPU cores that the TiKV process may use.",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := mustCatalog(t, tc.metric)
			added := len(c.Gauges()) - len(gauge.Builtin())
			if tc.isAdded && added != 1 || !tc.isAdded && added != 0 {
				t.Errorf("the catalog has %d gauges more than the built-in ones", added)
			}

			i, ok := c.Index(tc.gauge)
			if !ok {
				t.Fatalf("there is no gauge %s", tc.gauge)
			}
			g := c.Gauges()[i]
			if g.Name != tc.gauge || g.Help != tc.help || g.AbsentWhen != "no sample of its expression" {
				t.Errorf("got the gauge %+v", g)
			}
			if tc.isAdded && i != len(c.Gauges())-1 {
				t.Errorf("the gauge has the position %d, want the last one", i)
			}
			if needs := c.Needs(i); len(needs) != 1 || needs[0].Name != tc.gauge || needs[0].Shape != gauge.Custom {
				t.Errorf("the gauge needs %v, want only its own query", needs)
			}
		})
	}
	if i, ok := mustCatalog(t, "").Index(custom); ok {
		t.Errorf("a catalog without custom gauges has %s at %d", custom, i)
	}
}

func TestBuiltinGaugeWithHelp(t *testing.T) {
	_, err := newCatalog(t, "\n{name: operator_store_threads, expr: a},\n"+
		"{name: operator_store_qps, help: Mine., expr: b}")
	want := "line 3: operator_store_qps is built in and keeps its help text: remove help"
	if err == nil || err.Error() != want {
		t.Errorf("got the error %v, want %s", err, want)
	}
}

// The built-in table is not changed by the catalog of a cluster.
func TestBuiltinIsImmutable(t *testing.T) {
	before := gauge.Builtin()
	mustCatalog(t, "{name: operator_store_cpu_cores, expr: a}")
	gauge.Builtin()[0].Name = "changed"

	for i, g := range gauge.Builtin() {
		if g.Name != before[i].Name || g.AbsentWhen != before[i].AbsentWhen {
			t.Errorf("the built-in gauge %+v has changed to %+v", before[i], g)
		}
	}
}

// values are the values of samples by the label type, which may be empty.
type values map[string]float64

// byType returns the response with samples of these values.
func byType(values values) gauge.Response {
	var r gauge.Response

	for typ, v := range values {
		r.Samples = append(r.Samples, promql.Sample{Metric: labels.FromStrings("type", typ), F: v})
	}

	return r
}

// partial returns a response that may lack series.
func partial(r gauge.Response) gauge.Response {
	r.Partial = true

	return r
}

// native returns a response with values of native histograms.
func native(values map[string]float64) gauge.Response {
	var r gauge.Response
	for name, v := range values {
		r.Samples = append(r.Samples, promql.Sample{Metric: labels.FromStrings("quantile", name), F: v})
	}

	return r
}

// histogram returns the buckets 1, 2 and +Inf with cumulative counts.
func histogram(t *testing.T, counts ...float64) gauge.Response {
	t.Helper()
	layout, err := bucketwindow.NewLayout([]string{"1", "2", "+Inf"})
	if err != nil {
		t.Fatal(err)
	}

	h := bucketwindow.New(layout)
	for i, c := range counts {
		h.Add(i, c)
	}

	return gauge.Response{Histogram: h}
}

// Every kind of source: from the responses about one target to the value of a gauge.
func TestEvaluate(t *testing.T) {
	absent := gauge.Value{}
	single := func(v float64) gauge.Response { return byType(values{"": v}) }
	for _, tc := range []struct {
		name      string
		metrics   string
		responses map[string]gauge.Response // By query. A query that is missing failed.
		gauge     string
		want      gauge.Value
	}{
		{
			name:      "sample",
			responses: map[string]gauge.Response{"cpu_quota": single(8)},
			gauge:     gauge.CPUCores,
			want:      gauge.Of(8),
		},
		{
			name:      "sample of zero",
			responses: map[string]gauge.Response{"cpu_quota": single(0)},
			gauge:     gauge.CPUCores,
			want:      gauge.Of(0),
		},
		{
			name:  "sample, query failed",
			gauge: gauge.CPUCores,
			want:  absent,
		},
		{
			name:      "sample, no series",
			responses: map[string]gauge.Response{"cpu_quota": {}},
			gauge:     gauge.CPUCores,
			want:      absent,
		},
		{
			name:      "sample, NaN",
			responses: map[string]gauge.Response{"cpu_quota": single(math.NaN())},
			gauge:     gauge.CPUCores,
			want:      absent,
		},
		{
			name:      "sample, several series",
			responses: map[string]gauge.Response{"cpu_quota": byType(values{"x": 1, "y": 2})},
			gauge:     gauge.CPUCores,
			want:      absent,
		},
		{
			name:      "scaled",
			responses: map[string]gauge.Response{"cpu_seconds": single(0.25)},
			gauge:     gauge.CPUPercent,
			want:      gauge.Of(25),
		},
		{
			name:      "scaled, no series",
			responses: map[string]gauge.Response{"cpu_seconds": {}},
			gauge:     gauge.CPUPercent,
			want:      absent,
		},
		{
			name:      "by type",
			responses: map[string]gauge.Response{"store_size": byType(values{"used": 1, "capacity": 8})},
			gauge:     gauge.DiskTotal,
			want:      gauge.Of(8),
		},
		{
			name:      "by type, no such type",
			responses: map[string]gauge.Response{"store_size": byType(values{"used": 1})},
			gauge:     gauge.DiskTotal,
			want:      absent,
		},
		{
			name:      "ratio",
			responses: map[string]gauge.Response{"store_size": byType(values{"used": 1, "capacity": 8})},
			gauge:     gauge.DiskUtilization,
			want:      gauge.Of(0.125),
		},
		{
			name:      "ratio, no numerator",
			responses: map[string]gauge.Response{"store_size": byType(values{"capacity": 8})},
			gauge:     gauge.DiskUtilization,
			want:      absent,
		},
		{
			name:      "ratio, no denominator",
			responses: map[string]gauge.Response{"store_size": byType(values{"used": 1})},
			gauge:     gauge.DiskUtilization,
			want:      absent,
		},
		{
			name:      "ratio, denominator of zero",
			responses: map[string]gauge.Response{"store_size": byType(values{"used": 1, "capacity": 0})},
			gauge:     gauge.DiskUtilization,
			want:      absent,
		},
		{
			name:      "ratio, negative denominator",
			responses: map[string]gauge.Response{"store_size": byType(values{"used": 1, "capacity": -8})},
			gauge:     gauge.DiskUtilization,
			want:      absent,
		},
		{
			name:      "complement",
			responses: map[string]gauge.Response{"store_size": byType(values{"available": 2, "capacity": 8})},
			gauge:     gauge.DiskFill,
			want:      gauge.Of(0.75),
		},
		{
			name:      "complement, absent",
			responses: map[string]gauge.Response{"store_size": byType(values{"capacity": 8})},
			gauge:     gauge.DiskFill,
			want:      absent,
		},
		{
			name:    "ratio of a custom expression",
			metrics: "{name: operator_store_disk_total_bytes, expr: a}",
			responses: map[string]gauge.Response{
				"operator_store_disk_total_bytes": single(4),
				"store_size":                      byType(values{"used": 1, "capacity": 8}),
			},
			gauge: gauge.DiskUtilization,
			want:  gauge.Of(0.25),
		},
		{
			name: "quantile",
			// In the bucket from 1 to 2, 99 % of 100 is reached at 9/10.
			responses: map[string]gauge.Response{"grpc_duration": histogram(t, 90, 100, 100)},
			gauge:     gauge.LatencyP99,
			want:      gauge.Of(1.9),
		},
		{
			name:      "quantile, no observations",
			responses: map[string]gauge.Response{"grpc_duration": histogram(t, 0, 0, 0)},
			gauge:     gauge.LatencyP99,
			want:      absent,
		},
		{
			name:      "quantile, not determined",
			responses: map[string]gauge.Response{"grpc_duration": histogram(t, 90)},
			gauge:     gauge.LatencyP99,
			want:      absent,
		},
		{
			name:      "quantile, no series",
			responses: map[string]gauge.Response{"grpc_duration": {}},
			gauge:     gauge.LatencyP99,
			want:      absent,
		},
		{
			name:      "observations",
			responses: map[string]gauge.Response{"grpc_duration": histogram(t, 90, 95, 100)},
			gauge:     "operator_store_grpc_qps",
			want:      gauge.Of(100),
		},
		{
			name:      "observations, none",
			responses: map[string]gauge.Response{"grpc_duration": histogram(t, 0, 0, 0)},
			gauge:     "operator_store_grpc_qps",
			want:      gauge.Of(0),
		},
		{
			name:      "observations, no series",
			responses: map[string]gauge.Response{"grpc_duration": {}},
			gauge:     "operator_store_grpc_qps",
			want:      absent,
		},
		{
			name:      "up",
			responses: map[string]gauge.Response{"up": single(1)},
			gauge:     gauge.Up,
			want:      gauge.Of(1),
		},
		{
			name:      "up, scrape failed",
			responses: map[string]gauge.Response{"up": single(0)},
			gauge:     gauge.Up,
			want:      gauge.Of(0),
		},
		{
			name:      "up, no sample",
			responses: map[string]gauge.Response{"up": {}, "last_scrape": single(1_700_000_000)},
			gauge:     gauge.Up,
			want:      absent,
		},
		{
			name:      "up, failed",
			responses: map[string]gauge.Response{"last_scrape": {}},
			gauge:     gauge.Up,
			want:      absent,
		},
		{
			name:      "monitored",
			responses: map[string]gauge.Response{"up": single(1)},
			gauge:     gauge.Monitored,
			want:      gauge.Of(1),
		},
		{
			name:      "monitored, scrape failed",
			responses: map[string]gauge.Response{"up": single(0)},
			gauge:     gauge.Monitored,
			want:      gauge.Of(1),
		},
		{
			name:      "monitored, no sample",
			responses: map[string]gauge.Response{"up": {}},
			gauge:     gauge.Monitored,
			want:      gauge.Of(0),
		},
		{
			name:      "monitored, no sample in a partial response",
			responses: map[string]gauge.Response{"up": {Partial: true}},
			gauge:     gauge.Monitored,
			want:      absent,
		},
		{
			name:      "monitored, sample in a partial response",
			responses: map[string]gauge.Response{"up": partial(single(1))},
			gauge:     gauge.Monitored,
			want:      gauge.Of(1),
		},
		{
			name:      "monitored, failed",
			responses: map[string]gauge.Response{"last_scrape": single(1_700_000_000)},
			gauge:     gauge.Monitored,
			want:      absent,
		},
		{
			name:      "quantile of native histograms",
			responses: map[string]gauge.Response{"grpc_duration": native(map[string]float64{"count": 5, "0.99": 0.25})},
			gauge:     gauge.LatencyP99,
			want:      gauge.Of(0.25),
		},
		{
			name: "quantile of native histograms, no observations",
			responses: map[string]gauge.Response{
				"grpc_duration": native(map[string]float64{"count": 0, "0.99": math.NaN()}),
			},
			gauge: gauge.LatencyP99,
			want:  absent,
		},
		{
			name:      "quantile of native histograms, another quantile",
			responses: map[string]gauge.Response{"grpc_duration": native(map[string]float64{"count": 5, "0.99": 0.25})},
			gauge:     gauge.LatencyP95,
			want:      absent,
		},
		{
			name:      "observations of native histograms",
			responses: map[string]gauge.Response{"grpc_duration": native(map[string]float64{"count": 5, "0.99": 0.25})},
			gauge:     "operator_store_grpc_qps",
			want:      gauge.Of(5),
		},
		{
			name:      "observations of native histograms, none",
			responses: map[string]gauge.Response{"grpc_duration": native(map[string]float64{"count": 0})},
			gauge:     "operator_store_grpc_qps",
			want:      gauge.Of(0),
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := mustCatalog(t, tc.metrics)
			responses := gauge.Responses{}
			for name, response := range tc.responses {
				q := queryNamed(c, name)
				if q == nil {
					t.Fatalf("there is no query %s", name)
				}
				responses[q] = response
			}

			i, ok := c.Index(tc.gauge)
			if !ok {
				t.Fatalf("there is no gauge %s", tc.gauge)
			}
			got := c.Evaluate(responses)[i]
			if got.OK != tc.want.OK || got.OK && got.V != tc.want.V {
				t.Errorf("got %+v, want %+v", got, tc.want)
			}
		})
	}
}

// Without any response, every gauge is absent.
func TestEvaluateNothing(t *testing.T) {
	c := mustCatalog(t, "{name: operator_store_threads, expr: a}")
	for i, v := range c.Evaluate(nil) {
		if v.OK {
			t.Errorf("%s is %v without any response", c.Gauges()[i].Name, v.V)
		}
	}
}

func TestValueOf(t *testing.T) {
	for _, v := range []float64{0, -1, 1.5, math.MaxFloat64} {
		if got := gauge.Of(v); got != (gauge.Value{V: v, OK: true}) {
			t.Errorf("got %+v, want %v", got, v)
		}
	}

	for _, v := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
		if got := gauge.Of(v); got.OK {
			t.Errorf("%v exists, want it to be absent", v)
		}
	}
}

// The series that a gauge is computed from, as doctor looks for them.
func TestSeries(t *testing.T) {
	for _, tc := range []struct {
		name  string
		gauge string
		want  []string
	}{
		{name: "up", gauge: gauge.Up, want: []string{"up"}},
		{name: "monitored", gauge: gauge.Monitored, want: []string{"up"}},
		{name: "sample", gauge: "operator_store_qps", want: []string{"tikv_storage_command_total"}},
		{name: "scaled", gauge: gauge.CPUPercent, want: []string{"process_cpu_seconds_total"}},
		{name: "by type", gauge: gauge.DiskUsed, want: []string{`tikv_store_size_bytes{type="used"}`}},
		{
			name:  "quantile",
			gauge: gauge.LatencyP99,
			want:  []string{"tikv_grpc_msg_duration_seconds_bucket", "tikv_grpc_msg_duration_seconds"},
		},
		{
			name:  "observations",
			gauge: "operator_store_grpc_qps",
			want:  []string{`tikv_grpc_msg_duration_seconds_bucket{le="+Inf"}`, "tikv_grpc_msg_duration_seconds"},
		},
		{name: "derived", gauge: gauge.DiskFill},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := mustCatalog(t, "")
			i, ok := c.Index(tc.gauge)
			if !ok {
				t.Fatalf("there is no gauge %s", tc.gauge)
			}

			var got []string
			for _, series := range c.Gauges()[i].Series() {
				got = append(got, series.String())
			}
			if !slices.Equal(got, tc.want) {
				t.Errorf("got the series %q, want %q", got, tc.want)
			}
		})
	}
}
