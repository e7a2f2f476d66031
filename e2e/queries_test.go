// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/operator-store/operator_store_exporter/collector"
	"github.com/operator-store/operator_store_exporter/e2e/simulator"
	"github.com/operator-store/operator_store_exporter/e2e/stack"
)

// small is a TiKV with few series, for tests with many stores.
var small = simulator.Version{
	Name: "7.5.4", GRPCTypes: 2, CommandTypes: 2, FirstBucket: 0.00005, Buckets: 22,
	StoreUsed: true, CPUQuota: true, WholeSeconds: true,
}

// startFleet starts a real Prometheus that scrapes n simulated stores, tikv-0 … with instances tikv-0:20180 …,
// and waits until each gauge of each store has a value.
func startFleet(t *testing.T, n int) *stack.Process {
	t.Helper()
	cluster := simulator.NewCluster(1)
	pages := stack.Host(serve(t, cluster))
	var targets []stack.Target
	for i := range n {
		name := fmt.Sprintf("tikv-%d", i)
		cluster.AddStore(name, name+":20160", small)
		targets = append(targets, stack.Target{Job: "tikv", Instance: name + ":20180", Address: pages, Path: "/tikv/" + name})
	}
	upstream := startPrometheus(t, "upstream", 2*time.Second, targets...)
	until(t, "upstream to have quantiles of all stores", func(ctx context.Context) (bool, error) {
		s, err := query(ctx, upstream.URL, `count(rate(tikv_raftstore_log_lag_bucket{le="+Inf"}[1m]) > 0 and on (instance) sum by (instance) (rate(tikv_grpc_msg_duration_seconds_count[1m])) > 0 and on (instance) sum by (instance) (rate(process_cpu_seconds_total[1m])))`, "")
		return len(s) == 1 && s[0].Value == float64(n), err
	})
	return upstream
}

// proxy stands between the exporter and upstream. It remembers the requests, and breaks some.
type proxy struct {
	upstream *httputil.ReverseProxy
	broken   func(form url.Values) http.HandlerFunc // nil: the request passes.

	mu       sync.Mutex
	requests []url.Values
}

// startProxy starts a proxy in front of upstream.
func startProxy(t *testing.T, upstream string, broken func(url.Values) http.HandlerFunc) (*proxy, string) {
	t.Helper()
	u, err := url.Parse(upstream)
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{upstream: httputil.NewSingleHostReverseProxy(u), broken: broken}
	p.upstream.Transport = client.Transport
	p.upstream.ErrorLog = nil
	p.upstream.ErrorHandler = func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) }
	return p, serve(t, p)
}

// ServeHTTP implements http.Handler.
func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	p.mu.Lock()
	p.requests = append(p.requests, form)
	p.mu.Unlock()
	if p.broken != nil {
		if fail := p.broken(form); fail != nil {
			fail(w, r)
			return
		}
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	p.upstream.ServeHTTP(w, r)
}

// seen returns the requests since it was called last.
func (p *proxy) seen() []url.Values {
	p.mu.Lock()
	defer p.mu.Unlock()
	requests := p.requests
	p.requests = nil
	return requests
}

func TestTheNumberOfQueriesDoesNotGrowWithTheStores(t *testing.T) {
	upstream := startFleet(t, 251)
	requests := map[int]int{}
	for _, tc := range []struct {
		stores  int
		windows bool
	}{{1, false}, {12, false}, {250, false}, {251, false}, {12, true}, {250, true}} {
		n := tc.stores
		t.Run(fmt.Sprintf("%d stores, windows %v", n, tc.windows), func(t *testing.T) {
			p, address := startProxy(t, upstream.URL, nil)
			stores := &strings.Builder{}
			for i := range n {
				fmt.Fprintf(stores, "  - {id: %d, address: 'tikv-%d:20160'}\n", i+1, i)
			}
			exporter, _ := startExporter(t, "--config.file="+writeFile(t, "config.yml", fmt.Sprintf(
				"clusters:\n- name: c\n  upstream: {url: %q}\n  bucket_windows: %v\n  stores_per_query: 250\n  stores:\n%s", address, tc.windows, stores)))
			scrape(t, exporter+"/metrics", 10*time.Second) // The first one has to find the stores.
			if n := len(p.seen()); n > 24 {
				t.Errorf("the first scrape took %d requests", n)
			}
			page := scrape(t, exporter+"/metrics", 10*time.Second)
			if got, want := len(page.with("operator_store_", `address="tikv-`)), n*perStore; got != want {
				t.Errorf("%d gauges, want %d", got, want)
			}
			seen := p.seen()
			if tc.windows {
				// Each of the two queries of buckets is asked apart for stores whose windows differ much or that need all buckets, and
				// again for those that their windows did not suffice for.
				if !slices.ContainsFunc(seen, func(form url.Values) bool { return strings.Contains(form.Get("query"), "le=~") }) {
					t.Error("no query asks for some buckets alone")
				}
				if most := requests[n] + 8; len(seen) > most {
					t.Errorf("%d requests with windows, want at most %d", len(seen), most)
				}
			} else {
				requests[n] = len(seen)
			}
			instants := map[string]int{}
			for _, form := range seen {
				if form.Get("query") != "" {
					instants[form.Get("time")]++
				}
			}
			if len(instants) != 2 || instants[""] != 1 {
				t.Errorf("queries by time %v, want one without and all others at the same", instants)
			}
		})
	}
	if requests[1] != requests[12] || requests[1] != requests[250] || requests[1] > 9 {
		t.Errorf("requests by number of stores %v, want the same few for 1, 12 and 250", requests)
	}
	// One more store than a matcher may name asks each query once more.
	if requests[251] != 2*requests[1] {
		t.Errorf("requests by number of stores %v, want each query twice for 251", requests)
	}
}

// perStore is the number of series that a store has when nothing is absent: its gauges and operator_store_info.
var perStore = len(collector.Gauges) + 1

// asked is a query with what makes it known in a request, and the gauges that need it.
type asked struct {
	name   string
	word   string
	gauges []string
}

var queries = []asked{
	{"up", "up{", []string{"operator_store_up"}},
	{"last_scrape", "timestamp(", []string{"operator_store_last_scrape_timestamp_seconds"}},
	{"start_time", "process_start_time_seconds", nil},
	{"storage_commands", "tikv_storage_command_total", []string{"operator_store_qps"}},
	{"grpc_duration", "tikv_grpc_msg_duration_seconds_bucket", []string{"operator_store_grpc_qps", "operator_store_latency_p95_seconds", "operator_store_latency_p99_seconds"}},
	{"store_size", "by (job, instance, type)", []string{
		"operator_store_disk_used_bytes", "operator_store_disk_available_bytes", "operator_store_disk_total_bytes",
		"operator_store_disk_utilization_ratio", "operator_store_disk_fill_ratio",
	}},
	{"cpu_seconds", "process_cpu_seconds_total", []string{"operator_store_cpu_percent"}},
	{"cpu_quota", "tikv_server_cpu_cores_quota", []string{"operator_store_cpu_cores"}},
	{"raft_log_lag", "tikv_raftstore_log_lag_bucket", []string{"operator_store_raft_lag"}},
	{"targets", "tikv_server_info", nil},
	{"store_ids", "pd_scheduler_store_status", nil},
}

func TestAQueryThatFailsTakesOnlyItsGauges(t *testing.T) {
	const stores = 3
	upstream := startFleet(t, stores)
	faults := []struct {
		reason string
		fail   http.HandlerFunc
		log    string // What the line says beside the query.
	}{
		{"http", func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "<html>out of order</html>", http.StatusInternalServerError)
		}, "500 Internal Server Error"},
		{"timeout", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, "no answer in time"},
		{"query", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusUnprocessableEntity)
			fmt.Fprint(w, `{"status":"error","errorType":"execution","error":"query processing would load too many samples"}`)
		}, "too many samples"},
		{"connection", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "EOF"},
		{"response", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>log in</html>") }, "path prefix"},
	}
	for _, q := range queries {
		for _, f := range faults {
			t.Run(q.name+" "+f.reason, func(t *testing.T) {
				t.Parallel()
				var broken sync.Map
				_, address := startProxy(t, upstream.URL, func(form url.Values) http.HandlerFunc {
					_, on := broken.Load("on")
					if on && strings.Contains(form.Get("query")+strings.Join(form["match[]"], " "), q.word) {
						return f.fail
					}
					return nil
				})
				inBackground := q.gauges == nil && q.name != "start_time"
				exporter, log := startExporter(t, "--cluster=c", "--upstream.url="+address, "--discovery.interval="+map[bool]string{true: "1ms", false: "1h"}[inBackground])
				whole := scrape(t, exporter+"/metrics", 10*time.Second)
				if got, want := len(whole.with("operator_store_", "address=")), stores*perStore; got != want {
					t.Fatalf("%d gauges before the fault, want %d", got, want)
				}

				broken.Store("on", true)
				timeout := 10 * time.Second
				if f.reason == "timeout" {
					timeout = 2 * time.Second
				}
				faulty := scrape(t, exporter+"/metrics", timeout)
				if inBackground { // It is told once it is over.
					until(t, "the failure", func(ctx context.Context) (bool, error) {
						var err error
						faulty, err = tryScrape(ctx, exporter+"/metrics", timeout)
						return faulty[fmt.Sprintf(`operator_store_exporter_query_success{cluster="c", query=%q}`, q.name)] == 0, err
					})
				}
				want := slices.DeleteFunc(slices.Sorted(maps.Keys(whole.with("operator_store_", "address="))), func(s string) bool {
					return slices.ContainsFunc(q.gauges, func(gauge string) bool { return strings.HasPrefix(s, gauge+"{") })
				})
				if got := slices.Sorted(maps.Keys(faulty.with("operator_store_", "address="))); !slices.Equal(got, want) {
					t.Errorf("with the fault there are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
				}
				for series, want := range map[string]float64{
					`operator_store_exporter_upstream_up{cluster="c"}`:                                  0,
					fmt.Sprintf(`operator_store_exporter_query_success{cluster="c", query=%q}`, q.name): 0,
					`operator_store_exporter_stores{cluster="c"}`:                                       stores,
				} {
					if got, there := faulty[series]; !there || got != want {
						t.Errorf("%s is %g (there: %v), want %g", series, got, there, want)
					}
				}
				if n := len(faulty.with("operator_store_exporter_query_success{")); n != len(queries) {
					t.Errorf("%d queries are reported, want %d", n, len(queries))
				}
				counted := fmt.Sprintf(`operator_store_exporter_query_failures_total{cluster="c", query=%q, reason=%q}`, q.name, f.reason)
				for series, n := range faulty.with("operator_store_exporter_query_failures_total{") {
					if series == counted && (n < 1 || n > 1 && !inBackground) || series != counted && n != 0 {
						t.Errorf("%s is %g", series, n)
					}
				}
				if lines := log.matching(`\"`+q.name+`\"`, f.log, "level=warn"); len(lines) != 1 {
					t.Errorf("the log has %q, want one line with the query and %q", lines, f.log)
				}

				broken.Delete("on")
				healed := scrape(t, exporter+"/metrics", 10*time.Second)
				if got, want := len(healed.with("operator_store_", "address=")), stores*perStore; got != want {
					t.Errorf("%d gauges after the fault, want %d", got, want)
				}
			})
		}
	}
}

// Before upstream has said which stores its targets are, their names might be others than once it has: no gauge has a name that
// it does not keep. Where upstream never will say, there is no other name.
func TestStoresAreNotToldOfBeforeTheirNamesAreKnown(t *testing.T) {
	const stores = 3
	upstream := startFleet(t, stores)
	for _, tc := range []struct {
		name   string
		status int
		answer string
		config string
		told   bool
	}{
		{"a server that is out of order", http.StatusInternalServerError, "<html>out of order</html>", "", false},
		{"an answer that can't be read", http.StatusOK, "<html>log in</html>", "", false},
		{"a query that upstream refuses", http.StatusUnprocessableEntity, `{"status":"error","errorType":"execution","error":"not here"}`, "", true},
		{"a server that is out of order, of stores that are named", http.StatusInternalServerError, "<html>out of order</html>", "  stores: [{id: 1, address: a}]\n", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var well atomic.Bool
			_, address := startProxy(t, upstream.URL, func(form url.Values) http.HandlerFunc {
				if !well.Load() && strings.Contains(form.Get("query"), "pd_scheduler_store_status") {
					return answerWith(tc.status, tc.answer)
				}
				return nil
			})
			exporter, _ := startExporter(t, "--discovery.interval=1ms", "--config.file="+writeFile(t, "c.yml", fmt.Sprintf("clusters:\n- name: c\n  upstream: {url: %q}\n%s", address, tc.config)))
			page := scrape(t, exporter+"/metrics", 10*time.Second)
			if told := len(page.with("operator_store_up", "address=")) > 0; told != tc.told {
				t.Errorf("stores are told of: %v, want %v", told, tc.told)
			}
			if v := page[`operator_store_exporter_query_success{cluster="c", query="store_ids"}`]; v != 0 {
				t.Errorf("the query succeeded: %v", v)
			}
			well.Store(true)
			until(t, "the stores, once upstream has said which they are", func(ctx context.Context) (bool, error) {
				page, err := tryScrape(ctx, exporter+"/metrics", 10*time.Second)
				return len(page.with("operator_store_up", "address=")) > 0 && page[`operator_store_exporter_query_success{cluster="c", query="store_ids"}`] == 1, err
			})
		})
	}
}
