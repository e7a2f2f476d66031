// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"cmp"
	"compress/gzip"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	stdlog "log"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
)

// A fault is what goes wrong between the exporter and its upstream, and what must come of it.
type fault struct {
	name string
	// What goes wrong, one of these: on the way there, as toxiproxy has it; in the answer to any request; in the real
	// answer to the one query.
	toxic  string
	way    func(*testing.T, *route)
	answer http.HandlerFunc
	vector func([]point) []point
	body   func(string) string

	query  string   // The query concerned; "" for all.
	tls    bool     // It is about TLS, which is spoken then.
	config string   // What the configuration of upstream says beside its url.
	absent []string // The gauges that are absent; nil for all that need the query.
	only   bool     // They are absent of the first store alone.
	whole  bool     // Nothing is absent, and no query has failed.
	silent bool     // No query has failed, though gauges are absent.
	reason string
	says   string             // What the log's one line says.
	want   map[string]float64 // Gauges of the first store.
}

// everyGauge is absent where upstream can't be asked at all.
var everyGauge = func() []string {
	var all []string
	for _, q := range queries {
		all = append(all, q.gauges...)
	}
	return all
}()

var faults = []fault{
	// The way to upstream.
	{name: "down: connections are accepted and closed", way: func(t *testing.T, r *route) { r.reroute(t, "127.0.0.1:1") }, reason: "connection", says: "is it running"},
	{name: "refused", way: func(_ *testing.T, r *route) { r.toxics.Stop() }, reason: "connection", says: "connection refused"},
	{name: "TLS failure", tls: true, way: func(t *testing.T, r *route) {
		other, _, _ := newCertificate(t)
		r.certificate.Store(&other)
		r.reroute(t, r.behind)
	}, reason: "connection", says: "certificate is not trusted"},
	{name: "black hole", toxic: `{"type":"timeout","attributes":{"timeout":0}}`, reason: "timeout", says: "no answer in time"},
	{name: "5 s latency", toxic: `{"type":"latency","attributes":{"latency":5000}}`, reason: "timeout", says: "no answer in time"},
	{name: "1 byte/s", toxic: `{"type":"slicer","attributes":{"average_size":1,"delay":1000000}}`, reason: "timeout", says: "no answer in time"},
	{name: "reset in the middle of the body", toxic: `{"type":"limit_data","attributes":{"bytes":150}}`, reason: "connection", says: "unexpected EOF"},

	// What upstream refuses.
	{name: "401", answer: answerWith(401, "no"), reason: "http", says: "check basic_auth"},
	{name: "403", answer: answerWith(403, "no"), reason: "http", says: "check basic_auth"},
	{name: "404 from a wrong path prefix", answer: answerWith(404, "404 page not found"), reason: "http", says: "path prefix"},
	{name: "405 to POST", answer: onlyPOST(answerWith(405, "use GET")), whole: true},
	{name: "400 with an error body", query: "storage_commands", answer: answerWith(400, `{"status":"error","errorType":"bad_data","error":"parse error"}`), reason: "query", says: "parse error"},
	{name: "422 with an error body", query: "storage_commands", answer: answerWith(422, `{"status":"error","errorType":"execution","error":"too many samples"}`), reason: "query", says: "too many samples"},
	{name: "429 with Retry-After", query: "cpu_quota", answer: retryAfter(429), reason: "http", says: "retry after 7"},
	{name: "503 with Retry-After", query: "cpu_quota", answer: retryAfter(503), reason: "http", says: "retry after 7"},
	{name: "500 HTML", query: "cpu_quota", answer: answerWith(500, "<html>oops</html>"), reason: "http", says: "500 Internal Server Error"},
	{name: "a redirect to another host", answer: redirect("http://localhost.invalid/x?token=hunter2"), reason: "http", says: "302 Found to http://localhost.invalid/x: redirects are not followed"},
	{name: "an endless redirect", config: "follow_redirects: true", answer: func(w http.ResponseWriter, r *http.Request) { redirect(r.URL.Path)(w, r) }, reason: "http", says: "only ten times"},

	// Answers that are none.
	{name: "200 with HTML", query: "cpu_seconds", answer: answerWith(200, "<html>log in</html>"), reason: "response", says: "path prefix"},
	{name: "truncated JSON", query: "cpu_seconds", body: func(s string) string { return s[:len(s)/2] }, reason: "response", says: "answer of http"},
	{name: "status: error", query: "cpu_seconds", answer: answerWith(200, `{"status":"error","errorType":"execution","error":"boom"}`), reason: "query", says: "boom"},
	{name: "a scalar", query: "cpu_seconds", answer: answerWith(200, `{"status":"success","data":{"resultType":"scalar","result":[1700000000,"1"]}}`), reason: "response", says: `where a vector is wanted`},
	{name: "a matrix", query: "cpu_seconds", answer: answerWith(200, `{"status":"success","data":{"resultType":"matrix","result":[]}}`), reason: "response", says: `where a vector is wanted`},
	{name: "a string", query: "cpu_seconds", answer: answerWith(200, `{"status":"success","data":{"resultType":"string","result":[1700000000,"x"]}}`), reason: "response", says: "answer of http"},
	{name: "null for a series", query: "cpu_seconds", body: func(s string) string { return strings.Replace(s, `"result":[`, `"result":[null,`, 1) }, reason: "response", says: "a series that is null"},
	{name: "null for a value", query: "cpu_seconds", vector: first(func(p *point) { p.Value[1] = nil }), reason: "response", says: "answer of http"},
	{name: "a series without a value", query: "cpu_seconds", vector: first(func(p *point) { p.Value = nil }), reason: "response", says: "a series without a value"},
	{name: "a native histogram", query: "cpu_seconds", vector: first(func(p *point) {
		p.Histogram = []any{p.Value[0], map[string]any{"count": "1", "sum": "1", "buckets": [][]any{{0, "1", "2", "1"}}}}
		p.Value = nil
	}), reason: "response", says: "a native histogram where a number"},
	{name: "a number that is none", query: "cpu_seconds", vector: first(func(p *point) { p.Value[1] = "abc" }), reason: "response", says: "abc"},
	{name: "a partial answer", query: "cpu_seconds", body: func(s string) string {
		return strings.Replace(s, `{"status":"success",`, `{"status":"success","isPartial":true,`, 1)
	}, reason: "response", says: "isPartial"},
	{name: "a partial answer that may be", config: "partial_response: true", query: "cpu_seconds", body: func(s string) string {
		return strings.Replace(s, `{"status":"success",`, `{"status":"success","isPartial":true,`, 1)
	}, whole: true},
	{name: "a warning that is a PromQL annotation", query: "cpu_seconds", body: func(s string) string {
		return strings.Replace(s, `{"status":"success",`, `{"status":"success","warnings":["PromQL info: x"],`, 1)
	}, whole: true},

	// Answers that are too much.
	{name: "a million series", config: "body_size_limit: 1MB", query: "cpu_quota", answer: million, reason: "limit", says: "body_size_limit"},
	{name: "more series than may be", config: "series_limit: 50", query: "cpu_quota", vector: func(p []point) []point { return slices.Repeat(p, 26) }, reason: "limit", says: "more series than series_limit, 50"},
	{name: "a body of 2 GB", config: "body_size_limit: 1MB", query: "cpu_quota", answer: zeros, reason: "limit", says: "body_size_limit"},
	{name: "a body that says it has 2 GB", query: "cpu_quota", answer: func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Length", "2000000000") }, reason: "limit", says: "2000000000 bytes"},
	{name: "a gzip bomb", config: "body_size_limit: 1MB", query: "cpu_quota", answer: bomb, reason: "response", says: "compressed with gzip"},

	// Numbers that are none, of one store.
	{name: "NaN", query: "storage_commands", vector: first(func(p *point) { p.Value[1] = "NaN" }), only: true, silent: true},
	{name: "+Inf", query: "storage_commands", vector: first(func(p *point) { p.Value[1] = "+Inf" }), only: true, silent: true},
	{name: "a negative capacity", query: "store_size", vector: typed("capacity", "-1"), absent: []string{"operator_store_disk_utilization_ratio", "operator_store_disk_fill_ratio"}, only: true, silent: true},
	{name: "a capacity of 0", query: "store_size", vector: typed("capacity", "0"), absent: []string{"operator_store_disk_utilization_ratio", "operator_store_disk_fill_ratio"}, only: true, silent: true, want: map[string]float64{"operator_store_disk_total_bytes": 0}},
	{name: "used more than total", query: "store_size", vector: func(p []point) []point { return typed("capacity", "100")(typed("used", "150")(p)) }, whole: true, want: map[string]float64{"operator_store_disk_utilization_ratio": 1.5}},
	{name: "a series twice", query: "storage_commands", vector: func(p []point) []point { return append(p, p[0]) }, only: true, reason: "response", says: "a series twice"},
	{name: "a missing le", query: "grpc_duration", vector: first(func(p *point) { delete(p.Metric, "le") }), only: true, reason: "response", says: "a bucket without a bound"},
	{name: "no bucket of +Inf", query: "raft_log_lag", vector: func(p []point) []point {
		return slices.DeleteFunc(p, func(p point) bool { return p.Metric["le"] == "+Inf" && p.Metric["instance"] == "tikv-0:20180" })
	}, only: true, reason: "response", says: `the one of le=`},
	// 10 observations up to 2, and 100 in all: the count of 5 up to 4 is taken for 10. 99 % lie in the last bucket, whose lower bound is 8.
	{name: "buckets that are not monotonic", query: "raft_log_lag", vector: buckets("2", "10", "4", "5", "8", "98", "+Inf", "100"), whole: true, want: map[string]float64{"operator_store_raft_lag": 8}},
	{name: "a clock an hour ahead", answer: nil, way: func(_ *testing.T, r *route) { r.ahead.Store(3600) }, whole: true},
}

// Whatever goes wrong: the page is there before the scraper gives up, what is absent is what is concerned, the reason is
// told, the log says it once, and the scrape after it is whole.
func TestFaults(t *testing.T) {
	const stores = 2
	upstream := startFleet(t, stores)
	for _, f := range faults {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			r := newRoute(t, upstream.URL, f)
			exporter, log := startExporter(t, "--discovery.interval=1h", "--config.file="+writeFile(t, "config.yml",
				fmt.Sprintf("clusters:\n- name: c\n  upstream:\n    url: %s\n    %s\n", r.url, cmp.Or(r.config, f.config))))
			r.requireWhole(t, exporter, stores)

			r.fault.Store(&f)
			if f.way != nil {
				f.way(t, r)
			}
			if f.toxic != "" {
				if _, err := r.toxics.Toxics.AddToxicJson(strings.NewReader(f.toxic)); err != nil {
					t.Fatal(err)
				}
			}
			const timeout = 2 * time.Second
			for range 2 {
				page := scrapeInTime(t, exporter, timeout)
				f.check(t, page, stores)
			}
			lines := log.matching("level=warn")
			switch {
			case f.whole || f.silent:
				if len(lines) > 0 {
					t.Errorf("the log says %q", lines)
				}
			case len(lines) != 1 || !strings.Contains(lines[0], f.says) || f.query != "" && !strings.Contains(lines[0], f.query):
				t.Errorf("the log says %q, want one line with %q", lines, f.says)
			}
			if secret := log.matching("hunter2"); len(secret) > 0 {
				t.Errorf("the log tells a secret: %q", secret)
			}

			r.heal(t)
			r.requireWhole(t, exporter, stores)
		})
	}
}

// scrapeInTime scrapes as a Prometheus does, which hangs up after timeout.
func scrapeInTime(t *testing.T, exporter string, timeout time.Duration) page {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	p, err := tryScrape(ctx, exporter+"/metrics", timeout)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// check holds a page against what must come of the fault.
func (f fault) check(t *testing.T, p page, stores int) {
	t.Helper()
	absent := f.absent
	for _, q := range queries {
		if q.name == f.query && absent == nil {
			absent = q.gauges
		}
	}
	if absent == nil && !f.whole {
		absent = everyGauge
	}
	if f.whole {
		absent = nil
	}
	for i := range stores {
		for _, gauge := range everyGauge {
			_, there := p[gaugeOf(gauge, i)]
			want := !slices.Contains(absent, gauge) || f.only && i > 0
			if there != want {
				t.Errorf("%s of store %d: there = %v, want %v", gauge, i, there, want)
			}
		}
	}
	for gauge, want := range f.want {
		if got := p[gaugeOf(gauge, 0)]; got != want {
			t.Errorf("%s is %g, want %g", gauge, got, want)
		}
	}
	failed := map[string]bool{}
	for series, n := range p.with("operator_store_exporter_query_failures_total{") {
		if n > 0 {
			_, reason, _ := strings.Cut(series, `reason="`)
			failed[strings.TrimSuffix(reason, `"}`)] = true
			if f.query != "" && !strings.Contains(series, fmt.Sprintf("query=%q", f.query)) {
				t.Errorf("%s is %g", series, n)
			}
		}
	}
	want := map[string]bool{}
	if f.reason != "" {
		want[f.reason] = true
	}
	if !maps.Equal(failed, want) {
		t.Errorf("the reasons are %v, want %v", failed, want)
	}
	if up := p[`operator_store_exporter_upstream_up{cluster="c"}`]; (up == 1) != (f.whole || f.silent) {
		t.Errorf("operator_store_exporter_upstream_up is %g", up)
	}
}

func gaugeOf(name string, store int) string {
	return fmt.Sprintf(`%s{address="tikv-%d:20180", cluster="c", store_id=""}`, name, store)
}

// route is the way from an exporter to its upstream: toxiproxy for what happens to bytes, and behind it a proxy for
// what happens to answers.
type route struct {
	url    string // Of what the exporter asks.
	config string // What the exporter needs to ask it.
	toxics *toxiproxy.Proxy
	behind string // The proxy behind.

	certificate atomic.Pointer[tls.Certificate]

	fault atomic.Pointer[fault]
	heals []func()
	ahead atomic.Int64 // How many seconds upstream's clock is ahead.
}

func newRoute(t *testing.T, upstream string, f fault) *route {
	t.Helper()
	r := &route{}
	r.fault.Store(&fault{})
	behind := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) { r.answer(w, req, upstream) }))
	scheme, host := "http", "127.0.0.1"
	if f.tls {
		scheme = "https"
		certificate, file, _ := newCertificate(t)
		r.certificate.Store(&certificate)
		behind.Config.ErrorLog = stdlog.New(io.Discard, "", 0) // It would tell of the handshakes that fail.
		behind.TLS = &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			return &tls.Config{Certificates: []tls.Certificate{*r.certificate.Load()}}, nil
		}}
		behind.StartTLS()
		r.heals = append(r.heals, func() { r.certificate.Store(&certificate) })
		r.config = fmt.Sprintf("tls_config: {ca_file: %q}", file)
	} else {
		behind.Start()
	}
	r.behind = behind.Listener.Addr().String()
	r.toxics = toxiproxy.NewProxy(toxiproxy.NewServer(toxiproxy.NewMetricsContainer(prometheus.NewRegistry()), zerolog.Nop()), t.Name(), "127.0.0.1:0", r.behind)
	if err := r.toxics.Start(); err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(r.toxics.Listen)
	if err != nil {
		t.Fatal(err)
	}
	r.url = scheme + "://" + net.JoinHostPort(host, port)
	t.Cleanup(func() {
		r.toxics.Stop()
		behind.CloseClientConnections()
		behind.Close()
	})
	return r
}

// reroute sends what comes from now on to another address.
func (r *route) reroute(t *testing.T, address string) {
	t.Helper()
	listen := r.toxics.Listen
	r.toxics.Stop()
	r.toxics.Upstream, r.toxics.Listen = address, listen
	if err := r.toxics.Start(); err != nil {
		t.Fatal(err)
	}
}

// heal ends the fault.
func (r *route) heal(t *testing.T) {
	t.Helper()
	r.fault.Store(&fault{})
	r.ahead.Store(0)
	for _, heal := range r.heals {
		heal()
	}
	r.toxics.Toxics.ResetToxics(t.Context())
	r.reroute(t, r.behind)
}

func (r *route) requireWhole(t *testing.T, exporter string, stores int) {
	t.Helper()
	p := scrape(t, exporter+"/metrics", 10*time.Second)
	if got, want := len(p.with("operator_store_", "address=")), stores*perStore; got != want {
		t.Fatalf("%d gauges without the fault, want %d", got, want)
	}
}

// answer asks upstream, and does to its answer what the fault does.
func (r *route) answer(w http.ResponseWriter, req *http.Request, upstream string) {
	if err := req.ParseForm(); err != nil {
		panic(http.ErrAbortHandler)
	}
	f := r.fault.Load()
	text := req.Form.Get("query") + strings.Join(req.Form["match[]"], " ")
	concerned := f.query == "" || slices.ContainsFunc(queries, func(q asked) bool { return q.name == f.query && strings.Contains(text, q.word) })
	if concerned && f.answer != nil {
		// It may go by the method, and to where it asks.
		f.answer(w, req)
		if w.Header().Get(passes) == "" {
			return
		}
		w.Header().Del(passes)
	}
	ahead := r.ahead.Load()
	form := req.Form
	for _, name := range []string{"time", "start", "end"} {
		if at, err := strconv.ParseFloat(form.Get(name), 64); err == nil {
			form.Set(name, strconv.FormatFloat(at-float64(ahead), 'f', 3, 64))
		}
	}
	ask, err := http.NewRequestWithContext(req.Context(), http.MethodPost, upstream+req.URL.Path, strings.NewReader(form.Encode()))
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	ask.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := client.Do(ask)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	switch {
	case concerned && f.body != nil:
		body = []byte(f.body(string(body)))
	case concerned && f.vector != nil:
		body = changed(body, f.vector)
	case ahead != 0 && strings.HasSuffix(req.URL.Path, "/query"):
		body = changed(body, func(all []point) []point {
			for _, p := range all {
				p.Value[0] = p.Value[0].(float64) + float64(ahead)
			}
			return all
		})
	}
	w.WriteHeader(resp.StatusCode)
	_, _ = w.Write(body)
}

// passes is the header with which an answer says that upstream is to be asked all the same.
const passes = "X-Test-Passes"

// point is a series of an instant query's answer.
type point struct {
	Metric    map[string]string `json:"metric"`
	Value     []any             `json:"value,omitempty"`
	Histogram []any             `json:"histogram,omitempty"`
}

// changed is the answer of an instant query with other series.
func changed(body []byte, change func([]point) []point) []byte {
	var answer struct {
		Status string `json:"status"`
		Data   struct {
			ResultType string  `json:"resultType"`
			Result     []point `json:"result"`
		} `json:"data"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		panic(err)
	}
	slices.SortStableFunc(answer.Data.Result, func(a, b point) int { return strings.Compare(a.Metric["instance"], b.Metric["instance"]) })
	answer.Data.Result = change(answer.Data.Result)
	body, err := json.Marshal(answer)
	if err != nil {
		panic(err)
	}
	return body
}

// first changes a series of the first store, if the answer is about it.
func first(change func(*point)) func([]point) []point {
	return func(all []point) []point {
		if len(all) > 0 && all[0].Metric["instance"] == "tikv-0:20180" {
			change(&all[0])
		}
		return all
	}
}

// typed gives the first store's series of a type another value.
func typed(name, value string) func([]point) []point {
	return func(all []point) []point {
		i := slices.IndexFunc(all, func(p point) bool { return p.Metric["type"] == name })
		all[i].Value[1] = value
		return all
	}
}

// buckets gives the first store those counts, by le.
func buckets(counts ...string) func([]point) []point {
	return func(all []point) []point {
		if len(all) == 0 || all[0].Metric["instance"] != "tikv-0:20180" {
			return all
		}
		var others []point
		for _, p := range all {
			if p.Metric["instance"] != all[0].Metric["instance"] {
				others = append(others, p)
			}
		}
		for i := 0; i < len(counts); i += 2 {
			p := point{Metric: maps.Clone(all[0].Metric), Value: []any{all[0].Value[0], counts[i+1]}}
			p.Metric["le"] = counts[i]
			others = append(others, p)
		}
		return others
	}
}

func answerWith(code int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(code)
		_, _ = io.WriteString(w, body)
	}
}

func onlyPOST(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			w.Header().Set(passes, "1")
			return
		}
		h(w, r)
	}
}

func retryAfter(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "7")
		w.WriteHeader(code)
	}
}

func redirect(to string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, to, http.StatusFound) }
}

// million answers with a million series.
func million(w http.ResponseWriter, _ *http.Request) {
	_, _ = io.WriteString(w, `{"status":"success","data":{"resultType":"vector","result":[`)
	for i := range 1_000_000 {
		if _, err := fmt.Fprintf(w, `{"metric":{"job":"tikv","instance":"store-%d:20180"},"value":[1700000000,"1"]},`, i); err != nil {
			return
		}
	}
}

// zeros answers with 2 GB of zeros.
func zeros(w http.ResponseWriter, _ *http.Request) {
	chunk := make([]byte, 1<<20)
	for range 2000 {
		if _, err := w.Write(chunk); err != nil {
			return
		}
	}
}

// bomb answers with 10 MB in 10 kB.
func bomb(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Encoding", "gzip")
	z := gzip.NewWriter(w)
	chunk := []byte(strings.Repeat(" ", 1<<20))
	for range 10 {
		if _, err := z.Write(chunk); err != nil {
			return
		}
	}
	_ = z.Close()
}
