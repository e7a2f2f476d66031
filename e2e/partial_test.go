// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/operator-store/operator_store_exporter/e2e/stack"
	"github.com/operator-store/operator_store_exporter/e2e/truth"
)

// Warnings with which upstreams return status 200.
const (
	remoteReadWarning = `remote_read: remote server http://other:9090/api/v1/read returned http status 500 ` +
		`Internal Server Error: storage is down`
	thanosWarning = `fetch series for {replica=\"0\", shard=\"b\"} Addr: 10.0.0.1:10901: rpc error: ` +
		`code = Unavailable desc = connection error: desc = \"transport: Error while dialing\"`
	truncationWarning = `results truncated due to limit`
	annotation        = `PromQL warning: quantile value should be between 0 and 1, got 2 (1:19)`
	infoAnnotation    = `PromQL info: metric might not be a counter, name does not end in _total`
)

// warned returns a change that adds warnings to the responses to a query.
func warned(warnings ...string) func(body string) string {
	return addField(`"warnings":["` + strings.Join(warnings, `","`) + `"]`)
}

// partialFaults are responses with status 200 and warnings. The gauges that depend on the query are
// absent, although the response has samples.
var partialFaults = []bodyFault{
	{
		name:   "failed remote read",
		query:  "cpu_seconds",
		change: warned(remoteReadWarning),
		err:    "the response may lack series: remote_read: .*storage is down",
	},
	{
		name:   "Thanos endpoint that cannot be reached",
		query:  "grpc_duration",
		change: warned(thanosWarning),
		err:    "the response may lack series: fetch series for .*Unavailable",
	},
	{
		name:   "truncated result",
		query:  "store_size",
		change: warned(truncationWarning),
		err:    "the response may lack series: results truncated due to limit",
	},
	{
		name:   "warning after an annotation",
		query:  "storage_commands",
		change: warned(annotation, truncationWarning),
		err:    "results truncated due to limit",
	},
	{
		name:   "isPartial",
		query:  "cpu_quota",
		change: addField(`"isPartial":true`),
		err:    "isPartial",
	},
	{
		name:  "no series of any store",
		query: "up",
		change: func(body string) string {
			isOfStore := func(s sample) bool { return s.Metric["instance"] != "" } // The others are of vector(0).
			return warned(thanosWarning)(string(changeVector([]byte(body), func(all []sample) []sample {
				return slices.DeleteFunc(all, isOfStore)
			})))
		},
		err: "the response may lack series",
	},
}

// completeResponses have annotations, which do not say that series are missing.
var completeResponses = []harmless{
	{
		name:   "annotation of PromQL",
		change: change{query: "cpu_seconds", body: warned(annotation, infoAnnotation)},
	},
	{
		name:   "infos",
		change: change{query: "cpu_seconds", body: addField(`"infos":["` + infoAnnotation + `"]`)},
	},
	{
		name:   "no warnings",
		change: change{query: "cpu_seconds", body: addField(`"warnings":null`)},
	},
}

// A response that may lack series removes the gauges that depend on it, and no others.
func TestPartialResponses(t *testing.T) {
	t.Parallel()
	upstream := startFleet(t, faultStores)

	for _, f := range partialFaults {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			rejected := f
			rejected.reason, rejected.hint = "partial", "partial_response: true"
			testFault(t, upstream.URL, rejected.fault())
		})
		t.Run(f.name+", accepted", func(t *testing.T) {
			t.Parallel()
			testAcceptedPartial(t, upstream.URL, f)
		})
	}

	for _, h := range completeResponses {
		t.Run(h.name, func(t *testing.T) {
			t.Parallel()
			testFault(t, upstream.URL, h.fault())
		})
	}

	t.Run("another server has a complete response", func(t *testing.T) {
		t.Parallel()
		testPartialFailover(t, upstream.URL)
	})
	t.Run("discovery", func(t *testing.T) {
		t.Parallel()
		testPartialDiscovery(t, upstream.URL)
	})
	t.Run("targets vanish", func(t *testing.T) {
		t.Parallel()
		testVanishingTarget(t, upstream.URL)
	})
}

// With partial_response, samples of a response that may lack series are used. Nothing is known
// about stores without a sample, and upstream_up is 0.
func testAcceptedPartial(t *testing.T, upstream string, f bodyFault) {
	n := newNetwork(t, upstream, false)
	const config = "clusters:\n- name: c\n  upstream: {url: %q, partial_response: true}\n"
	exporter := startConfigured(t, fmt.Sprintf(config, n.url), "--discovery.interval=1h")
	exporter.scrape(t).requireComplete(t, faultStores)

	n.change.Store(&change{query: f.query, body: f.change})
	p := exporter.scrape(t)
	want := faultStores * gaugesPerStore
	if f.query == "up" { // Its response has no samples of stores.
		want -= faultStores * len(truth.GaugesOf("up"))
	}
	p.requireGauges(t, want)
	v := view{cluster: "c"}
	if up := v.own(p, "upstream_up"); up != 0 {
		t.Errorf("upstream_up is %g, want 0", up)
	}
	if counted := v.failures(p); len(counted) > 0 {
		t.Errorf("failures are counted: %v", counted)
	}
}

// If a server has a response that may lack series, another one is queried.
func testPartialFailover(t *testing.T, upstream string) {
	partial := newNetwork(t, upstream, false)
	partial.change.Store(&change{body: warned(thanosWarning)})
	config := fmt.Sprintf("clusters:\n- name: c\n  upstream: {url: [%q, %q]}\n", partial.url, upstream)
	exporter := startConfigured(t, config)

	p := exporter.scrape(t)
	p.requireComplete(t, faultStores)
	if up := (view{cluster: "c"}).own(p, "upstream_up"); up != 1 {
		t.Errorf("upstream_up is %g, want 1", up)
	}
}

// Responses to the discovery that may lack series leave the known stores as they are.
func testPartialDiscovery(t *testing.T, upstream string) {
	var partial atomic.Bool
	partial.Store(true)
	p := startProxy(t, upstream, func(form url.Values) http.HandlerFunc {
		if !partial.Load() || !strings.Contains(expressionOf(form), " or tikv_server_info") {
			return nil
		}
		empty := successWith(`{"resultType":"vector","result":[]}`)
		return respondWith(http.StatusOK, warned(thanosWarning)(empty))
	})
	v := view{cluster: "c"}
	config := fmt.Sprintf("clusters:\n- name: c\n  upstream: {url: %q}\n", p.url)
	exporter := startConfigured(t, config, "--discovery.interval=1s")

	partialDiscovery := func(stores int) func(page) error {
		return func(p page) error {
			p.requireGauges(t, stores*gaugesPerStore)
			up, failures := v.own(p, "upstream_up"), failuresBecause(p, "c", "partial", "targets")
			if up != 0 || failures == 0 {
				return fmt.Errorf("upstream_up is %g, %g failures are counted", up, failures)
			}
			return nil
		}
	}
	waitForPage(t, exporter, "the discovery to fail", partialDiscovery(0))
	exporter.log.requireOnlyWarning(t, warning{
		msg: queryFailed, cluster: "c", query: "targets", reason: "partial", err: "the response may lack series",
	})

	partial.Store(false)
	waitForPage(t, exporter, "the discovery to succeed", func(p page) error {
		if got := len(p.storeGauges()); got != faultStores*gaugesPerStore {
			return fmt.Errorf("the page has %d gauges", got)
		}
		return nil
	})
	partial.Store(true)
	waitForPage(t, exporter, "the discovery to fail again", partialDiscovery(faultStores))
}

// A target that vanishes makes its store unmonitored, unless upstream warns that its response may
// lack series: then nothing is known. It is never down.
func testVanishingTarget(t *testing.T, upstream string) {
	var refreshes atomic.Int64 // Of the exporter's stores.
	var vanished atomic.Value  // How the responses change.
	vanished.Store(func(body string) string { return body })
	handler := func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err != nil {
			panic(http.ErrAbortHandler)
		}
		status, body := forward(r, upstream, 0)
		if len(r.Form["match[]"]) > 0 {
			refreshes.Add(1)
		}
		w.WriteHeader(status)
		_, _ = w.Write([]byte(vanished.Load().(func(string) string)(string(body))))
	}
	config := "clusters:\n- name: c\n  upstream: {url: " + serve(t, http.HandlerFunc(handler)) + "}\n"
	exporter := startConfigured(t, config, "--discovery.interval=1s")
	exporter.scrape(t).requireComplete(t, faultStores)
	v := view{cluster: "c", instances: []string{"tikv-0:20180", "tikv-1:20180"}}
	lost, others := v.instances[:1], view{cluster: "c", instances: v.instances[1:]}

	vanished.Store(withoutFirstStore)
	requireForRefreshes(t, exporter, v, &refreshes, func(p page) error {
		if err := requireUnmonitored(v, p, lost); err != nil {
			return err
		}
		return others.missing(p)
	})
	if warnings := exporter.log.warnings(t); len(warnings) > 0 {
		t.Errorf("the log has warnings, want none:\n%s", joinLines(warnings))
	}

	vanished.Store(func(body string) string { return warned(thanosWarning)(withoutFirstStore(body)) })
	requireForRefreshes(t, exporter, v, &refreshes, func(p page) error { return requirePartial(v, p) })

	vanished.Store(func(body string) string { return body })
	waitForPage(t, exporter, "the store to return", v.missing)
}

// requireForRefreshes waits until a page is as wanted, and fails the test if one of the next pages
// is not, until the stores have been discovered again twice.
func requireForRefreshes(
	t *testing.T, e *exporter, v view, refreshes *atomic.Int64, want func(page) error,
) {
	t.Helper()

	waitForPage(t, e, "the fault", want)
	last := refreshes.Load() + 3 // The first one may have begun.
	waitForPage(t, e, "two refreshes", func(p page) error {
		if err := want(p); err != nil {
			t.Fatal(err)
		}
		if stores := v.own(p, "stores"); stores != float64(len(v.instances)) {
			t.Fatalf("there are %g stores, want %d", stores, len(v.instances))
		}
		if refreshes.Load() < last {
			return errors.New("there were no two refreshes")
		}
		return nil
	})
}

// withoutFirstStore removes the series of the first store from a response of any kind.
func withoutFirstStore(body string) string {
	var response struct {
		Status string          `json:"status"`
		Data   json.RawMessage `json:"data"`
	}
	if err := json.Unmarshal([]byte(body), &response); err != nil {
		panic(err)
	}
	isOfFirstStore := func(series json.RawMessage) bool { return strings.Contains(string(series), `"tikv-0:20180"`) }

	var data any
	if strings.HasPrefix(string(response.Data), "[") {
		var series []json.RawMessage
		mustUnmarshal(response.Data, &series)
		data = slices.DeleteFunc(series, isOfFirstStore)
	} else {
		var result struct {
			ResultType string            `json:"resultType"`
			Result     []json.RawMessage `json:"result"`
		}
		mustUnmarshal(response.Data, &result)
		result.Result = slices.DeleteFunc(result.Result, isOfFirstStore)
		data = result
	}
	changed, err := json.Marshal(map[string]any{"data": data})
	if err != nil {
		panic(err)
	}

	return `{"status":"success",` + strings.TrimPrefix(string(changed), "{")
}

func mustUnmarshal(text []byte, v any) {
	if err := json.Unmarshal(text, v); err != nil {
		panic(err)
	}
}

// A real Prometheus whose remote read fails responds with its own series and a warning.
func TestFailedRemoteRead(t *testing.T) {
	t.Parallel()
	f := newFleetOf(t, 1)
	f.startConfigured(t, stack.Config{RemoteRead: "http://127.0.0.1:1/api/v1/read"})
	waitForRates(t, f.URL, f.stores)
	exporter := startConfigured(t, fmt.Sprintf(`
clusters:
- name: strict
  upstream: {url: %[1]q}
- name: lenient
  upstream: {url: %[1]q, partial_response: true}
`, f.URL))
	lenient := view{cluster: "lenient", upstream: f.URL, instances: []string{"tikv-0:20180"}}

	p := requireUpstreamValues(t, exporter, lenient)
	if up := lenient.own(p, "upstream_up"); up != 0 {
		t.Errorf("upstream_up is %g, though responses may lack series", up)
	}
	if stores := len(p.with("operator_store_", `cluster="strict"`, "address=")); stores > 0 {
		t.Errorf("there are %d gauges, though the targets may lack some", stores)
	}
	exporter.log.requireWarning(t, warning{
		msg: queryFailed, cluster: "strict", query: "targets,store_ids", reason: "partial", err: "remote_read",
	})
}
