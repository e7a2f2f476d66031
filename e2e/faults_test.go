// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/operator-store/operator_store_exporter/e2e/truth"
)

// There is one table of faults for each mechanism. To add a fault, add a row to the table of its
// mechanism.

// A networkFault is between the exporter and its upstream. No query gets a response, so all gauges
// are absent.
type networkFault struct {
	name   string
	tls    bool                       // The upstream uses TLS.
	toxic  string                     // A toxic of toxiproxy, or
	inject func(*testing.T, *network) // another fault.
	reason string                     // The label reason of the failures.
	err    string                     // A pattern of the cause in the log.
	hint   string                     // A pattern of the hint in the log.
}

var networkFaults = []networkFault{
	{
		name:   "connections are closed at once",
		inject: func(t *testing.T, n *network) { n.reroute(t, "127.0.0.1:1") },
		reason: "connection",
		hint:   "is it running",
	},
	{
		name:   "connections are refused",
		inject: func(_ *testing.T, n *network) { n.proxy.Stop() },
		reason: "connection",
		err:    "connection refused$",
	},
	{
		name: "certificate of another authority",
		tls:  true,
		inject: func(t *testing.T, n *network) {
			other := newCertificate(t)
			n.certificate.Store(&other)
			n.reroute(t, n.upstreamProxy) // Connections that are open keep the old certificate.
		},
		reason: "connection",
		hint:   "certificate is not trusted",
	},
	{
		name:   "black hole",
		toxic:  `{"type":"timeout","attributes":{"timeout":0}}`,
		reason: "timeout",
		err:    timeoutMessage,
	},
	{
		name:   "latency of 5 s",
		toxic:  `{"type":"latency","attributes":{"latency":5000}}`,
		reason: "timeout",
		err:    timeoutMessage,
	},
	{
		name:   "1 byte per second",
		toxic:  `{"type":"slicer","attributes":{"average_size":1,"delay":1000000}}`,
		reason: "timeout",
		err:    timeoutMessage,
	},
	{
		name:   "reset in the middle of the body",
		toxic:  `{"type":"limit_data","attributes":{"bytes":150}}`,
		reason: "connection",
		err:    "unexpected EOF$",
	},
}

func (f networkFault) fault() fault {
	return fault{
		tls: f.tls,
		inject: func(t *testing.T, n *network) {
			if f.inject != nil {
				f.inject(t, n)
				return
			}
			if _, err := n.proxy.Toxics.AddToxicJson(strings.NewReader(f.toxic)); err != nil {
				t.Fatal(err)
			}
		},
		want: outcome{absent: truth.Names(), reason: f.reason, err: f.err, hint: f.hint},
	}
}

// A responseFault replaces the responses to a query, or to all of them. The gauges that depend on
// the query are absent.
type responseFault struct {
	name    string
	config  string // More fields of the configuration of the upstream.
	query   string // Empty for all queries.
	respond http.HandlerFunc
	reason  string // The label reason of the failures.
	err     string // A pattern of the cause in the log.
	hint    string // A pattern of the hint in the log.
}

var responseFaults = []responseFault{
	// Responses to all queries.
	{
		name:    "401",
		respond: respondWith(http.StatusUnauthorized, "no"),
		reason:  "http",
		err:     ": 401 Unauthorized: no$",
		hint:    "check basic_auth",
	},
	{
		name:    "403",
		respond: respondWith(http.StatusForbidden, "no"),
		reason:  "http",
		err:     ": 403 Forbidden: no$",
		hint:    "check basic_auth",
	},
	{
		name:    "404 because of a wrong path prefix",
		respond: respondWith(http.StatusNotFound, "404 page not found"),
		reason:  "http",
		err:     ": 404 Not Found: 404 page not found$",
		hint:    urlHint,
	},
	{
		name:    "redirect to another host",
		respond: redirect("http://localhost.invalid/x?token=hunter2"),
		reason:  "http",
		err:     `: 302 Found: redirect to http://localhost\.invalid/x$`,
		hint:    "redirects are not followed",
	},
	{
		name:    "endless redirect",
		config:  "follow_redirects: true",
		respond: func(w http.ResponseWriter, r *http.Request) { redirect(r.URL.Path)(w, r) },
		reason:  "http",
		err:     ": 302 Found: redirect to http://",
		hint:    "only ten times",
	},

	// Error responses.
	{
		name:    "400 with an error",
		query:   "storage_commands",
		respond: respondWith(http.StatusBadRequest, `{"status":"error","errorType":"bad_data","error":"parse error"}`),
		reason:  "query",
		err:     "parse error",
	},
	{
		name:  "422 with an error",
		query: "storage_commands",
		respond: respondWith(http.StatusUnprocessableEntity,
			`{"status":"error","errorType":"execution","error":"found duplicate series"}`),
		reason: "query",
		err:    "found duplicate series",
	},
	{
		name:    "429 with Retry-After",
		query:   "cpu_quota",
		respond: retryAfter(http.StatusTooManyRequests),
		reason:  "http",
		err:     "retry after 7",
	},
	{
		name:    "503 with Retry-After",
		query:   "cpu_quota",
		respond: retryAfter(http.StatusServiceUnavailable),
		reason:  "http",
		err:     "retry after 7",
	},
	{
		name:    "500 with HTML",
		query:   "cpu_quota",
		respond: respondWith(http.StatusInternalServerError, "<html>oops</html>"),
		reason:  "http",
		err:     "500 Internal Server Error: <html>oops</html>$",
	},
	{
		name:    "200 with an error",
		query:   "cpu_seconds",
		respond: respondWith(http.StatusOK, `{"status":"error","errorType":"execution","error":"boom"}`),
		reason:  "query",
		err:     ": boom$",
	},

	// Responses that are not the result of an instant query.
	{
		name:    "200 with HTML",
		query:   "cpu_seconds",
		respond: respondWith(http.StatusOK, "<html>log in</html>"),
		reason:  "response",
		err:     malformedMessage,
		hint:    urlHint,
	},
	{
		name:    "scalar",
		query:   "cpu_seconds",
		respond: respondWith(http.StatusOK, successWith(`{"resultType":"scalar","result":[1700000000,"1"]}`)),
		reason:  "response",
		err:     `the response is a "scalar", want a vector$`,
	},
	{
		name:    "matrix",
		query:   "cpu_seconds",
		respond: respondWith(http.StatusOK, successWith(`{"resultType":"matrix","result":[]}`)),
		reason:  "response",
		err:     `the response is a "matrix", want a vector$`,
	},
	{
		name:    "string",
		query:   "cpu_seconds",
		respond: respondWith(http.StatusOK, successWith(`{"resultType":"string","result":[1700000000,"x"]}`)),
		reason:  "response",
		err:     `the response is a "string", want a vector$`,
	},

	// Responses that are too large.
	{
		name:    "a million series",
		config:  "body_size_limit: 1MB",
		query:   "cpu_quota",
		respond: respondWithMillionSeries,
		reason:  "limit",
		err:     "body_size_limit",
	},
	{
		name:    "body of 2 GB",
		config:  "body_size_limit: 1MB",
		query:   "cpu_quota",
		respond: respondWithZeros,
		reason:  "limit",
		err:     "body_size_limit",
	},
	{
		name:  "Content-Length of 2 GB",
		query: "cpu_quota",
		respond: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "2000000000")
		},
		reason: "limit",
		err:    "2000000000 bytes, over body_size_limit",
	},
	{
		name:    "gzip bomb",
		config:  "body_size_limit: 1MB",
		query:   "cpu_quota",
		respond: respondWithGzipBomb,
		reason:  "response",
		err:     "compressed with gzip",
	},
}

func (f responseFault) fault() fault {
	return fault{
		config: f.config,
		inject: func(_ *testing.T, n *network) {
			n.change.Store(&change{query: f.query, respond: f.respond})
		},
		want: outcome{absent: gaugesOf(f.query), failed: f.query, reason: f.reason, err: f.err, hint: f.hint},
	}
}

// A bodyFault changes the body of the responses to a query. The gauges that depend on the query are
// absent.
type bodyFault struct {
	name   string
	query  string
	change func(body string) string
	reason string // The label reason of the failures.
	err    string // A pattern of the cause in the log.
	hint   string // A pattern of the hint in the log.
}

var bodyFaults = []bodyFault{
	{
		name:   "truncated JSON",
		query:  "cpu_seconds",
		change: func(body string) string { return body[:len(body)/2] },
		reason: "response",
		err:    malformedMessage,
	},
	{
		name:   "null for a series",
		query:  "cpu_seconds",
		change: func(body string) string { return strings.Replace(body, `"result":[`, `"result":[null,`, 1) },
		reason: "response",
		err:    "a series that is null$",
	},
	{
		name:   "partial response",
		query:  "cpu_seconds",
		change: addField(`"isPartial":true`),
		reason: "partial",
		err:    "isPartial",
	},
}

func (f bodyFault) fault() fault {
	return fault{
		inject: func(_ *testing.T, n *network) {
			n.change.Store(&change{query: f.query, body: f.change})
		},
		want: outcome{absent: gaugesOf(f.query), failed: f.query, reason: f.reason, err: f.err, hint: f.hint},
	}
}

// A vectorFault changes the result of a query so that the whole query fails. The gauges that depend
// on the query are absent for all stores.
type vectorFault struct {
	name   string
	config string // More fields of the configuration of the upstream.
	query  string
	change func([]sample) []sample
	reason string // The label reason of the failures.
	err    string // A pattern of the cause in the log.
	hint   string // A pattern of the hint in the log.
}

var vectorFaults = []vectorFault{
	{
		name:   "null for a value",
		query:  "cpu_seconds",
		change: firstSample(func(s *sample) { s.Value[1] = nil }),
		reason: "response",
		err:    malformedMessage,
	},
	{
		name:   "series without a value",
		query:  "cpu_seconds",
		change: firstSample(func(s *sample) { s.Value = nil }),
		reason: "response",
		err:    "a series without a value",
	},
	{
		name:  "native histogram",
		query: "cpu_seconds",
		change: firstSample(func(s *sample) {
			buckets := [][]any{{0, "1", "2", "1"}}
			s.Histogram = []any{s.Value[0], map[string]any{"count": "1", "sum": "1", "buckets": buckets}}
			s.Value = nil
		}),
		reason: "response",
		err:    "a native histogram, want a number$",
	},
	{
		name:   "value that is not a number",
		query:  "cpu_seconds",
		change: firstSample(func(s *sample) { s.Value[1] = "abc" }),
		reason: "response",
		err:    "abc",
	},
	{
		name:   "more series than series_limit",
		config: "series_limit: 50",
		query:  "cpu_quota",
		change: func(all []sample) []sample { return slices.Repeat(all, 26) },
		reason: "limit",
		err:    "more series than series_limit, 50$",
	},
}

func (f vectorFault) fault() fault {
	return fault{
		config: f.config,
		inject: func(_ *testing.T, n *network) {
			n.change.Store(&change{query: f.query, vector: f.change})
		},
		want: outcome{absent: gaugesOf(f.query), failed: f.query, reason: f.reason, err: f.err, hint: f.hint},
	}
}

// A storeFault changes the samples of the first store in the result of a query. Gauges of that
// store are absent, while the other stores have all of theirs.
type storeFault struct {
	name   string
	query  string
	change func([]sample) []sample
	absent []string           // If it is nil, the gauges that depend on the query.
	reason string             // The label reason of the failures, or "" if no query fails.
	err    string             // A pattern of the cause in the log, or "" if nothing is logged.
	values map[string]float64 // Gauges of the store that must have these values.
}

// The gauges that are absent if the capacity is not above 0.
var dividedByCapacity = []string{"operator_store_disk_utilization_ratio", "operator_store_disk_fill_ratio"}

var storeFaults = []storeFault{
	{
		name:   "NaN",
		query:  "storage_commands",
		change: firstSample(func(s *sample) { s.Value[1] = "NaN" }),
	},
	{
		name:   "+Inf",
		query:  "storage_commands",
		change: firstSample(func(s *sample) { s.Value[1] = "+Inf" }),
	},
	{
		name:   "negative capacity",
		query:  "store_size",
		change: setSize("capacity", "-1"),
		absent: dividedByCapacity,
	},
	{
		name:   "capacity of 0",
		query:  "store_size",
		change: setSize("capacity", "0"),
		absent: dividedByCapacity,
		values: map[string]float64{"operator_store_disk_total_bytes": 0},
	},
	{
		name:   "duplicate series",
		query:  "storage_commands",
		change: func(all []sample) []sample { return append(all, all[0]) },
		reason: "response",
		err:    "^the response has a series twice$",
	},
	{
		name:   "bucket without le",
		query:  "grpc_duration",
		change: firstSample(func(s *sample) { delete(s.Metric, "le") }),
		reason: "response",
		err:    `a bucket whose bound is not a number: le=""$`,
	},
	{
		name:  "no +Inf bucket",
		query: "raft_log_lag",
		change: func(all []sample) []sample {
			return slices.DeleteFunc(all, func(s sample) bool { return s.Metric["le"] == "+Inf" && s.ofFirstStore() })
		},
		reason: "response",
		err:    `not the one with le="\+Inf"$`,
	},
}

func (f storeFault) fault() fault {
	absent := f.absent
	if absent == nil {
		absent = gaugesOf(f.query)
	}
	failed := f.query
	if f.reason == "" {
		failed = ""
	}
	return fault{
		inject: func(_ *testing.T, n *network) {
			n.change.Store(&change{query: f.query, vector: f.change})
		},
		want: outcome{
			absent: absent, firstStoreOnly: true, values: f.values,
			failed: failed, reason: f.reason, err: f.err,
		},
	}
}

// A harmless peculiarity of an upstream: all gauges are there, no query fails and nothing is
// logged.
type harmless struct {
	name   string
	config string // More fields of the configuration of the upstream.
	change change
	ahead  int64              // How many seconds the clock of the upstream is ahead.
	values map[string]float64 // Gauges of the first store that must have these values.
}

var harmlessPeculiarities = []harmless{
	{
		name:   "405 for POST",
		change: change{respond: refusePOST},
	},
	{
		name:   "warning that is a PromQL annotation",
		change: change{query: "cpu_seconds", body: addField(`"warnings":["PromQL info: x"]`)},
	},
	{
		name: "used more than the capacity",
		change: change{query: "store_size", vector: func(all []sample) []sample {
			return setSize("capacity", "100")(setSize("used", "150")(all))
		}},
		values: map[string]float64{"operator_store_disk_utilization_ratio": 1.5},
	},
	{
		// 10 of 100 observations are up to 2, so the count of 5 up to 4 is taken for 10. Rank 99 is
		// in the last bucket, whose lower bound is 8.
		name:   "bucket counts that are not monotonic",
		change: change{query: "raft_log_lag", vector: setBuckets("2", "10", "4", "5", "8", "98", "+Inf", "100")},
		values: map[string]float64{"operator_store_raft_lag": 8},
	},
	{
		name:  "clock an hour ahead",
		ahead: 3600,
	},
}

func (h harmless) fault() fault {
	return fault{
		config: h.config,
		inject: func(_ *testing.T, n *network) {
			n.change.Store(&h.change)
			n.ahead.Store(h.ahead)
		},
		want: outcome{values: h.values},
	}
}

// fault is a fault of any mechanism.
type fault struct {
	config string // More fields of the configuration of the upstream.
	tls    bool   // The upstream uses TLS.
	inject func(*testing.T, *network)
	want   outcome
}

// outcome is what a fault leads to.
type outcome struct {
	absent         []string           // The gauges that are absent,
	firstStoreOnly bool               // for the first store only.
	values         map[string]float64 // Gauges of the first store that must have these values.
	failed         string             // The query that fails, or "" for any query.
	reason         string             // The label reason of the failures, or "" if no query fails.
	err            string             // A pattern of the cause in the log.
	hint           string             // A pattern of the hint in the log.
}

// The number of stores in the tests of faults.
const faultStores = 2

// Whatever fails, the page is there before the scraper gives up, only the gauges that depend on the
// failure are absent, the failure is counted by its reason and logged once, and the first scrape
// after the fault is complete.
//
// No other test runs at the same time: a busy machine would let scrapes time out that must not.
func TestFaults(t *testing.T) {
	_ = gzipBomb() // With the race detector, this would take too long during a scrape.
	upstream := startFleet(t, faultStores)

	run := func(mechanism, name string, f fault) {
		t.Run(mechanism+"/"+name, func(t *testing.T) {
			t.Parallel()
			testFault(t, upstream.URL, f)
		})
	}
	for _, f := range networkFaults {
		run("network", f.name, f.fault())
	}

	for _, f := range responseFaults {
		run("response", f.name, f.fault())
	}

	for _, f := range bodyFaults {
		run("body", f.name, f.fault())
	}

	for _, f := range vectorFaults {
		run("vector", f.name, f.fault())
	}

	for _, f := range storeFaults {
		run("store", f.name, f.fault())
	}

	for _, f := range harmlessPeculiarities {
		run("harmless", f.name, f.fault())
	}
}

func testFault(t *testing.T, upstream string, f fault) {
	isFailed := func(q truth.Query) bool { return q.Name == f.want.failed }
	if f.want.failed != "" && !slices.ContainsFunc(truth.Queries, isFailed) {
		t.Fatalf("no query has the name %q: see the names in e2e/truth/truth.go", f.want.failed)
	}

	n := newNetwork(t, upstream, f.tls)

	config := fmt.Sprintf("clusters:\n- name: c\n  upstream:\n    url: %s\n    %s\n    %s\n", n.url, n.config, f.config)
	exporter := startConfigured(t, config, "--discovery.interval=1h")
	exporter.scrape(t).requireComplete(t, faultStores)

	const timeout = 2 * time.Second
	f.inject(t, n)

	for range 2 {
		f.want.check(t, scrapeInTime(t, exporter, timeout))
		if t.Failed() {
			return // The second scrape and the log would only repeat the failure.
		}
	}
	f.want.checkLog(t, exporter.log)
	if secrets := exporter.log.matching("hunter2"); len(secrets) > 0 {
		t.Errorf("the log has a secret: %q", secrets)
	}

	n.heal(t)
	exporter.scrape(t).requireComplete(t, faultStores)
}

// scrapeInTime scrapes as a Prometheus that closes the connection after its scrape timeout.
func scrapeInTime(t *testing.T, e *exporter, timeout time.Duration) page {
	t.Helper()

	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	p, err := tryScrape(ctx, e.URL+"/metrics", timeout)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// check compares a page with the outcome.
func (o outcome) check(t *testing.T, p page) {
	t.Helper()

	for store := range faultStores {
		for _, gauge := range truth.Names() {
			_, ok := p[gaugeOfStore(gauge, store)]
			want := !slices.Contains(o.absent, gauge) || o.firstStoreOnly && store > 0
			if ok != want {
				t.Errorf("%s of store %d: present %v, want %v", gauge, store, ok, want)
			}
		}
	}

	for gauge, want := range o.values {
		if got := p[gaugeOfStore(gauge, 0)]; got != want {
			t.Errorf("%s is %g, want %g", gauge, got, want)
		}
	}

	reasons, wantReasons := map[string]bool{}, map[string]bool{}
	if o.reason != "" {
		wantReasons[o.reason] = true
	}

	for series, n := range p.with("operator_store_exporter_query_failures_total{") {
		if n == 0 {
			continue
		}
		l := labelsOf(series)
		reasons[l["reason"]] = true
		if o.failed != "" && l["query"] != o.failed {
			t.Errorf("%s is %g, want 0", series, n)
		}
	}
	if !maps.Equal(reasons, wantReasons) {
		t.Errorf("the reasons of failures are %v, want %v", reasons, wantReasons)
	}

	up := p[`operator_store_exporter_upstream_up{cluster="c"}`]
	if (up == 1) != (o.reason == "") {
		t.Errorf("operator_store_exporter_upstream_up is %g with the reason %q", up, o.reason)
	}
}

// checkLog fails the test unless the log has the one warning that the outcome wants, or none.
func (o outcome) checkLog(t *testing.T, log *logLines) {
	t.Helper()

	if o.reason == "" {
		if warnings := log.warnings(t); len(warnings) > 0 {
			t.Errorf("the log has warnings, want none:\n%s", joinLines(warnings))
		}
		return
	}

	want := warning{
		msg: queryFailed, cluster: "c", query: cmp.Or(o.failed, scrapeQueries),
		reason: o.reason, err: o.err, hint: o.hint,
	}
	if o.firstStoreOnly {
		want.msg, want.target = responseDropped, `{job="tikv", instance="tikv-0:20180"}`
	}
	log.requireOnlyWarning(t, want)
}

func gaugeOfStore(name string, store int) string {
	return fmt.Sprintf(`%s{address="tikv-%d:20180", cluster="c", store_id=""}`, name, store)
}

// gaugesOf returns the gauges that depend on a query, or all gauges if it is empty.
func gaugesOf(query string) []string {
	if query == "" {
		return truth.Names()
	}
	return truth.GaugesOf(query)
}

// network connects an exporter to its upstream: toxiproxy changes what happens to bytes, and a
// proxy behind it changes what happens to responses.
type network struct {
	url    string // The URL that the exporter queries.
	config string // What the configuration of the upstream needs for it.

	proxy         *toxiproxy.Proxy
	upstreamProxy string // The address of the proxy behind it.

	trusted     certificate
	certificate atomic.Pointer[certificate] // What the proxy presents with TLS.
	change      atomic.Pointer[change]
	ahead       atomic.Int64 // How many seconds the clock of the upstream is ahead.
}

// change is what happens to responses. At most one of its functions is set.
type change struct {
	query   string // Empty for all queries.
	respond http.HandlerFunc
	body    func(body string) string
	vector  func([]sample) []sample
}

// concerns reports whether the change applies to a request.
func (c *change) concerns(r *http.Request) bool {
	if c.query == "" {
		return true
	}

	for _, q := range truth.Queries {
		if q.Name == c.query {
			return strings.Contains(expressionOf(r.Form), q.Mark)
		}
	}
	panic("no query has the name " + c.query)
}

func newNetwork(t *testing.T, upstream string, useTLS bool) *network {
	t.Helper()

	n := &network{}
	n.change.Store(&change{})
	handler := func(w http.ResponseWriter, r *http.Request) { n.respond(w, r, upstream) }
	behind := httptest.NewUnstartedServer(http.HandlerFunc(handler))
	scheme := "http"
	if useTLS {
		scheme = "https"
		n.startTLS(t, behind)
	} else {
		behind.Start()
	}
	n.upstreamProxy = behind.Listener.Addr().String()

	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(prometheus.NewRegistry()), zerolog.Nop())
	n.proxy = startToxiproxy(t, server, n.upstreamProxy)
	n.url = scheme + "://" + n.proxy.Listen
	t.Cleanup(func() {
		n.proxy.Stop()
		behind.CloseClientConnections()
		behind.Close()
	})

	return n
}

// startToxiproxy starts a proxy in front of an address. Its port is below those that the system
// gives to outgoing connections: one of them could take the port while the proxy is restarted.
func startToxiproxy(t *testing.T, server *toxiproxy.ApiServer, upstream string) *toxiproxy.Proxy {
	t.Helper()

	var err error
	for range 100 {
		p := toxiproxy.NewProxy(server, t.Name(), fmt.Sprintf("127.0.0.1:%d", 10_000+rand.IntN(20_000)), upstream)
		if err = p.Start(); err == nil {
			return p
		}
	}
	t.Fatal(err)
	return nil
}

// startTLS starts a server with a certificate that the configuration trusts.
func (n *network) startTLS(t *testing.T, server *httptest.Server) {
	t.Helper()

	n.trusted = newCertificate(t)
	n.certificate.Store(&n.trusted)
	n.config = fmt.Sprintf("tls_config: {ca_file: %q}", n.trusted.certFile)
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // It would have the failed handshakes.
	server.TLS = &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		return &tls.Config{Certificates: []tls.Certificate{n.certificate.Load().Certificate}}, nil
	}}
	server.StartTLS()
}

// reroute closes all connections and sends new ones to an address.
func (n *network) reroute(t *testing.T, address string) {
	t.Helper()

	listen := n.proxy.Listen
	n.proxy.Stop()
	n.proxy.Upstream, n.proxy.Listen = address, listen
	// The port stays in use as long as a process that another test has forked has the old listener,
	// which is until the process executes its program.
	until(t, "the port of the proxy", func(context.Context) (bool, error) {
		err := n.proxy.Start()
		return err == nil, err
	})
}

// heal ends the fault.
func (n *network) heal(t *testing.T) {
	t.Helper()

	n.change.Store(&change{})
	n.ahead.Store(0)
	n.certificate.Store(&n.trusted)
	n.proxy.Toxics.ResetToxics(t.Context())
	n.reroute(t, n.upstreamProxy)
}

// respond forwards a request to the upstream and applies the change to the response.
func (n *network) respond(w http.ResponseWriter, r *http.Request, upstream string) {
	if err := r.ParseForm(); err != nil {
		panic(http.ErrAbortHandler)
	}
	c := n.change.Load()
	concerned := c.concerns(r)
	if concerned && c.respond != nil {
		c.respond(w, r)
		if w.Header().Get(forwardHeader) == "" {
			return
		}
		w.Header().Del(forwardHeader)
	}

	ahead := n.ahead.Load()
	status, body := forward(r, upstream, ahead)
	switch {
	case concerned && c.body != nil:
		body = []byte(c.body(string(body)))
	case concerned && c.vector != nil:
		body = changeVector(body, c.vector)
	case ahead != 0 && strings.HasSuffix(r.URL.Path, "/query"):
		body = changeVector(body, func(all []sample) []sample {
			for _, s := range all {
				s.Value[0] = s.Value[0].(float64) + float64(ahead)
			}
			return all
		})
	}
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

// forwardHeader is the header by which a response asks to forward the request to the upstream.
const forwardHeader = "X-Test-Forward"

// forward sends a request to an upstream whose clock seems to be some seconds ahead.
func forward(r *http.Request, upstream string, ahead int64) (status int, body []byte) {
	for _, name := range []string{"time", "start", "end"} {
		if at, err := strconv.ParseFloat(r.Form.Get(name), 64); err == nil {
			r.Form.Set(name, strconv.FormatFloat(at-float64(ahead), 'f', 3, 64))
		}
	}
	form := strings.NewReader(r.Form.Encode())
	req, err := http.NewRequestWithContext(r.Context(), http.MethodPost, upstream+r.URL.Path, form)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")

	resp, err := client.Do(req)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(resp.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}

	return resp.StatusCode, body
}

// sample is an element of the result of an instant query.
type sample struct {
	Metric    map[string]string `json:"metric"`
	Value     []any             `json:"value,omitempty"`
	Histogram []any             `json:"histogram,omitempty"`
}

func (s sample) ofFirstStore() bool { return s.Metric["instance"] == "tikv-0:20180" }

// changeVector changes the result of an instant query. The samples of the first store are the first
// ones.
func changeVector(body []byte, change func([]sample) []sample) []byte {
	var response struct {
		Status string `json:"status"`
		Data   struct {
			ResultType string   `json:"resultType"`
			Result     []sample `json:"result"`
		} `json:"data"`
	}
	if err := json.Unmarshal(body, &response); err != nil {
		panic(err)
	}
	slices.SortStableFunc(response.Data.Result, func(a, b sample) int {
		return strings.Compare(a.Metric["instance"], b.Metric["instance"])
	})

	response.Data.Result = change(response.Data.Result)
	body, err := json.Marshal(response)
	if err != nil {
		panic(err)
	}
	return body
}

// firstSample changes the first sample of the first store, if the result is about that store.
func firstSample(change func(*sample)) func([]sample) []sample {
	return func(all []sample) []sample {
		if len(all) > 0 && all[0].ofFirstStore() {
			change(&all[0])
		}
		return all
	}
}

// setSize sets the sample of the first store with a value of the label type.
func setSize(kind, value string) func([]sample) []sample {
	return func(all []sample) []sample {
		i := slices.IndexFunc(all, func(s sample) bool { return s.Metric["type"] == kind })
		all[i].Value[1] = value
		return all
	}
}

// setBuckets replaces the buckets of the first store by pairs of le and count.
func setBuckets(counts ...string) func([]sample) []sample {
	return func(all []sample) []sample {
		if len(all) == 0 || !all[0].ofFirstStore() {
			return all
		}

		first := all[0]
		changed := slices.DeleteFunc(all, sample.ofFirstStore)
		for i := 0; i < len(counts); i += 2 {
			s := sample{Metric: maps.Clone(first.Metric), Value: []any{first.Value[0], counts[i+1]}}
			s.Metric["le"] = counts[i]
			changed = append(changed, s)
		}
		return changed
	}
}

// successWith returns a successful response with data.
func successWith(data string) string { return `{"status":"success","data":` + data + `}` }

// addField adds a field to a successful response.
func addField(field string) func(body string) string {
	return func(body string) string {
		return strings.Replace(body, `{"status":"success",`, `{"status":"success",`+field+`,`, 1)
	}
}

// refusePOST responds to POST requests with 405, and forwards others.
func refusePOST(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		w.Header().Set(forwardHeader, "1")
		return
	}
	respondWith(http.StatusMethodNotAllowed, "use GET")(w, r)
}

func retryAfter(status int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "7")
		w.WriteHeader(status)
	}
}

func respondWithMillionSeries(w http.ResponseWriter, _ *http.Request) {
	_, _ = io.WriteString(w, `{"status":"success","data":{"resultType":"vector","result":[`)
	for i := range 1_000_000 {
		const format = `{"metric":{"job":"tikv","instance":"store-%d:20180"},"value":[1700000000,"1"]},`
		if _, err := fmt.Fprintf(w, format, i); err != nil {
			return
		}
	}
}

// respondWithZeros responds with 2 GB of zeros.
func respondWithZeros(w http.ResponseWriter, _ *http.Request) {
	chunk := make([]byte, 1<<20)
	for range 2000 {
		if _, err := w.Write(chunk); err != nil {
			return
		}
	}
}

// respondWithGzipBomb responds with 10 kB that decompress to 10 MB.
func respondWithGzipBomb(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Encoding", "gzip")
	_, _ = w.Write(gzipBomb())
}

var gzipBomb = sync.OnceValue(func() []byte {
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	_, _ = z.Write(bytes.Repeat([]byte(" "), 10<<20)) // Writing to a buffer does not fail.
	_ = z.Close()
	return bomb.Bytes()
})
