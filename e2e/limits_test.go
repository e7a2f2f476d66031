// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/operator-store/operator_store_exporter/e2e/simulator"
	"github.com/operator-store/operator_store_exporter/e2e/stack"
	"github.com/operator-store/operator_store_exporter/e2e/truth"
)

// rejection is how an engine rejects a query for its size or cost.
type rejection struct {
	name    string
	status  int
	message string
}

// response returns the response of the query API.
func (r rejection) response() http.HandlerFunc {
	if r.message == "" { // That of a proxy.
		return respondWith(r.status, http.StatusText(r.status))
	}
	if r.status == http.StatusOK {
		return respondWith(r.status, warned(r.message)(successWith(`{"resultType":"vector","result":[]}`)))
	}

	const format = `{"status":"error","errorType":"execution","error":%q}`
	return respondWith(r.status, fmt.Sprintf(format, r.message))
}

// rejections are the limits of each engine, in its own words.
var rejections = []rejection{
	{
		name:    "Prometheus, samples",
		status:  http.StatusUnprocessableEntity,
		message: "query processing would load too many samples into memory in query execution",
	},
	{
		name:   "Thanos, series of a store",
		status: http.StatusUnprocessableEntity,
		message: "expanding series: proxy Series(): rpc error: code = Aborted desc = receive series from " +
			"Addr: 10.0.0.1:10901 MinTime: 0 MaxTime: 9223372036854775807: rpc error: code = Unknown " +
			"desc = failed to send series: limit 1200 violated (got 1201)",
	},
	{
		name:   "Thanos, chunks of a store gateway",
		status: http.StatusUnprocessableEntity,
		message: "expanding series: proxy Series(): rpc error: code = Aborted desc = receive series from " +
			"Addr: 10.0.0.1:10901: rpc error: code = ResourceExhausted desc = exceeded chunks limit: " +
			"limit 1000 violated (got 1500)",
	},
	{
		name:   "Thanos, a warning",
		status: http.StatusOK,
		message: "receive series from Addr: 10.0.0.1:10901: rpc error: code = Unknown desc = failed to send series: " +
			"limit 1200 violated (got 1201)",
	},
	{
		name:   "Cortex, series",
		status: http.StatusUnprocessableEntity,
		message: "expanding series: the query hit the max number of series limit (limit: 1200 series) while fetching " +
			"series for metric tikv_grpc_msg_duration_seconds_bucket",
	},
	{
		name:    "Cortex, chunks",
		status:  http.StatusUnprocessableEntity,
		message: "expanding series: the query hit the max number of chunks limit (limit: 2000 chunks)",
	},
	{
		name:    "Cortex, bytes",
		status:  http.StatusUnprocessableEntity,
		message: "expanding series: the query hit the aggregated chunks size limit (limit: 1000 bytes)",
	},
	{
		name:   "Mimir, series",
		status: http.StatusUnprocessableEntity,
		message: "the query exceeded the maximum number of series (limit: 1200 series) " +
			"(err-mimir-max-series-per-query). Consider reducing the time range and/or number of series selected by " +
			"the query. One way to reduce the number of selected series is to add more label matchers to the query.",
	},
	{
		name:   "Mimir, chunks",
		status: http.StatusUnprocessableEntity,
		message: "the query exceeded the maximum number of chunks (limit: 2000000 chunks) " +
			"(err-mimir-max-chunks-per-query). Consider reducing the time range and/or number of series selected by " +
			"the query.",
	},
	{
		name:   "Mimir, bytes",
		status: http.StatusUnprocessableEntity,
		message: "the query exceeded the aggregated chunks size limit (limit: 1000 bytes) " +
			"(err-mimir-max-chunks-bytes-per-query).",
	},
	{
		name:   "Mimir, memory",
		status: http.StatusUnprocessableEntity,
		message: "the query exceeded the maximum allowed estimated amount of memory consumed by a single query " +
			"(limit: 1000 bytes) (err-mimir-max-estimated-memory-consumption-per-query).",
	},
	{
		name:   "Mimir, length",
		status: http.StatusBadRequest,
		message: "the raw query size in bytes exceeds the limit (query size: 5000, limit: 4096) " +
			"(err-mimir-max-query-expression-size-bytes).",
	},
	{
		name:   "VictoriaMetrics, series",
		status: http.StatusUnprocessableEntity,
		message: `error when executing query="x" for (time=1, step=300000): cannot execute query: search error: ` +
			`cannot find metric ids: the number of matching timeseries exceeds 1200; either narrow down the search ` +
			`or increase -search.max* command-line flag values (the most likely limit is -search.maxUniqueTimeseries)`,
	},
	{
		name:   "VictoriaMetrics, samples",
		status: http.StatusUnprocessableEntity,
		message: `error when executing query="x" for (time=1, step=300000): cannot execute query: cannot select more ` +
			`than -search.maxSamplesPerQuery=1000 samples; possible solutions: increase the ` +
			`-search.maxSamplesPerQuery; reduce time range for the query`,
	},
	{
		name:    "VictoriaMetrics, length",
		status:  http.StatusBadRequest,
		message: "too long query; got 20000 bytes; mustn't exceed `-search.maxQueryLen=16384` bytes",
	},
	{
		name:   "proxy, body",
		status: http.StatusRequestEntityTooLarge,
	},
	{
		name:   "proxy, URL",
		status: http.StatusRequestURITooLong,
	},
}

// limitedStores is the number of stores in the tests with rejections.
const limitedStores = 5

// If upstream rejects queries for their size, they are made smaller until they fit, within the
// first scrape: every gauge is there, no failure is counted, and the next scrape sends no query
// that is rejected.
func TestRejectedQueries(t *testing.T) {
	t.Parallel()

	upstream := startFleet(t, limitedStores)
	for _, r := range rejections {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			testRejected(t, upstream.URL, r)
		})
	}
	t.Run("a store that alone is too large", func(t *testing.T) {
		t.Parallel()
		testAlwaysRejected(t, upstream.URL)
	})
}

// testRejected lets an upstream reject every query of a scrape that is about more than one store.
func testRejected(t *testing.T, upstream string, r rejection) {
	var rejected atomic.Int64
	p := startProxy(t, upstream, func(form url.Values) http.HandlerFunc {
		expression := expressionOf(form)
		isOfDiscovery := strings.HasSuffix(expression, "]") // A range vector.
		if isOfDiscovery || strings.Count(expression, "tikv-") < 2 {
			return nil
		}
		rejected.Add(1)
		return r.response()
	})
	config := fmt.Sprintf("clusters:\n- name: c\n  upstream: {url: %q}\n", p.url)
	exporter := startConfigured(t, config, "--discovery.interval=1h")
	v := view{cluster: "c"}

	page := exporter.scrape(t)
	page.requireComplete(t, limitedStores)
	if rejected.Load() < int64(len(queriesOfScrape())) {
		t.Errorf("%d queries were rejected, want at least one of each kind", rejected.Load())
	}
	if up, counted := v.own(page, "upstream_up"), v.failures(page); up != 1 || len(counted) > 0 {
		t.Errorf("upstream_up is %g, the failures are %v, want none", up, counted)
	}

	before := rejected.Load()
	exporter.scrape(t).requireComplete(t, limitedStores)
	if more := rejected.Load() - before; more > 0 {
		t.Errorf("the next scrape sends %d queries that are rejected, want none", more)
	}
	if warnings := exporter.log.warnings(t); len(warnings) > 0 {
		t.Errorf("the log has warnings, want none:\n%s", joinLines(warnings))
	}
}

// testAlwaysRejected lets an upstream reject every query for buckets, no matter how small it is.
func testAlwaysRejected(t *testing.T, upstream string) {
	p := startProxy(t, upstream, func(form url.Values) http.HandlerFunc {
		if !strings.Contains(expressionOf(form), markOf("grpc_duration")) {
			return nil
		}
		return rejections[0].response()
	})
	exporter := startConfigured(t, fmt.Sprintf("clusters:\n- name: c\n  upstream: {url: %q}\n", p.url))

	page := exporter.scrape(t)
	page.requireGauges(t, limitedStores*(gaugesPerStore-len(truth.GaugesOf("grpc_duration"))))
	exporter.log.requireOnlyWarning(t, warning{
		msg: queryFailed, cluster: "c", query: "grpc_duration", reason: "query",
		err: "too many samples", hint: "about a single store is too large .* raise the limit",
	})
}

// markOf returns a part of a query that no other query has.
func markOf(query string) string {
	for _, q := range truth.Queries {
		if q.Name == query {
			return q.Mark
		}
	}
	panic("no query has the name " + query)
}

// victoriaMetricsSeriesBytes is how much memory VictoriaMetrics estimates for a series of an
// instant query.
const victoriaMetricsSeriesBytes = 1016

// limitedEngine is a real engine with a limit that the buckets of two stores exceed, but not those
// of one.
type limitedEngine struct {
	name    string
	start   func(t *testing.T, f *fleet) (upstream string)
	message string // Part of the error when it rejects a query.
}

// limitedEngines are the engines that are tested with a limit, except Cortex. VictoriaMetrics has a
// limit of memory, because version 1.150 ignores -search.maxUniqueTimeseries in instant queries.
var limitedEngines = []limitedEngine{
	{
		name: "Prometheus",
		start: func(t *testing.T, f *fleet) string {
			f.startConfigured(t, stack.Config{}, fmt.Sprintf("--query.max-samples=%d", seriesLimit))
			return f.URL
		},
		message: "too many samples",
	},
	{
		name: "VictoriaMetrics",
		start: func(t *testing.T, f *fleet) string {
			limit := fmt.Sprintf("-search.maxMemoryPerQuery=%d", seriesLimit*victoriaMetricsSeriesBytes)
			p, err := stack.VictoriaMetrics(
				t.Context(), "VictoriaMetrics", victoriaMetricsBinary, f.dir, 2*time.Second, f.targets, limit)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = p.Kill() })
			return p.URL
		},
		message: "-search.maxMemoryPerQuery",
	},
	{
		name: "Thanos",
		start: func(t *testing.T, f *fleet) string {
			s := startSidecar(t, "a", "0", f.targets)
			p, err := stack.ThanosQuery(t.Context(), "Thanos query", thanosBinary,
				"--endpoint="+s.address, fmt.Sprintf("--store.limits.request-series=%d", seriesLimit))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = p.Kill() })
			return p.URL
		},
		message: "limit 1200 violated",
	},
}

// The exporter with real engines that reject the query for the buckets of several stores. Cortex is
// in TestCortex.
func TestLimitedEngines(t *testing.T) {
	t.Parallel()

	for _, e := range limitedEngines {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			e.test(t)
		})
	}
}

func (e limitedEngine) test(t *testing.T) {
	f := newFleet(t)
	v := view{cluster: "c"}
	for i := range 3 {
		f.add(fmt.Sprintf("tikv-%d", i), simulator.V7)
		v.instances = append(v.instances, f.targets[i].Instance)
	}
	v.upstream = e.start(t, f)
	v.waitForSamples(t, "tikv_raftstore_log_lag_count")
	until(t, "upstream to reject the buckets of all stores", func(ctx context.Context) (bool, error) {
		s, err := v.query(ctx, "sum by (le) (rate(tikv_grpc_msg_duration_seconds_bucket[1m]))", "")
		if err == nil {
			err = fmt.Errorf("upstream returns %d series", len(s))
		}
		return strings.Contains(err.Error(), e.message), err
	})

	exporter := startConfigured(t, fmt.Sprintf("clusters:\n- name: c\n  upstream: {url: %q}\n", v.upstream))
	p := requireUpstreamValues(t, exporter, v)
	if up, counted := v.own(p, "upstream_up"), v.failures(p); up != 1 || len(counted) > 0 {
		t.Errorf("upstream_up is %g, the failures are %v, want none", up, counted)
	}
}
