// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/operator-store/operator_store_exporter/e2e/truth"
)

// maxStoresPerQuery is the number of stores of which TestRequestCount allows one query.
const maxStoresPerQuery = 250

// A scrape needs the same few requests for any number of stores that one query may name.
func TestRequestCount(t *testing.T) {
	t.Parallel()
	upstream := startFleet(t, maxStoresPerQuery+1)

	requests := map[int]int{} // By number of stores.
	for _, n := range []int{1, 12, maxStoresPerQuery, maxStoresPerQuery + 1} {
		t.Run(fmt.Sprintf("%d stores", n), func(t *testing.T) {
			requests[n] = len(requestsOfScrape(t, upstream.URL, n, false))
		})
	}
	if requests[1] != requests[12] || requests[1] != requests[maxStoresPerQuery] || requests[1] > 9 {
		t.Errorf("the requests by number of stores are %v, want the same for 1, 12 and 250, at most 9", requests)
	}
	// With one more store than a query may name, each query is sent twice.
	if requests[maxStoresPerQuery+1] != 2*requests[1] {
		t.Errorf("the requests by number of stores are %v, want twice as many for 251 as for 1", requests)
	}

	for _, n := range []int{12, maxStoresPerQuery} {
		t.Run(fmt.Sprintf("%d stores with bucket windows", n), func(t *testing.T) {
			seen := requestsOfScrape(t, upstream.URL, n, true)
			// The two queries of buckets are sent separately for stores whose windows differ much
			// or that need all buckets, and again for stores whose windows turn out to be too
			// narrow.
			if most := requests[n] + 8; len(seen) > most {
				t.Errorf("the scrape sent %d requests, want at most %d", len(seen), most)
			}
			selectsBuckets := func(form url.Values) bool { return strings.Contains(form.Get("query"), "le=~") }
			if !slices.ContainsFunc(seen, selectsBuckets) {
				t.Error("no query selects buckets")
			}
		})
	}
}

// requestsOfScrape returns the requests of the second scrape of n stores, which all have the same
// evaluation time.
func requestsOfScrape(t *testing.T, upstream string, n int, bucketWindows bool) []url.Values {
	t.Helper()

	p := startProxy(t, upstream, nil)

	var stores strings.Builder
	for i := range n {
		fmt.Fprintf(&stores, "  - {id: %d, address: 'tikv-%d:20160'}\n", i+1, i)
	}
	exporter := startConfigured(t, fmt.Sprintf(`
clusters:
- name: c
  upstream: {url: %q}
  bucket_windows: %v
  stores_per_query: %d
  stores:
%s`, p.url, bucketWindows, maxStoresPerQuery, stores.String()))
	// The first scrape includes discovery: for the time, the targets, which of them are live,
	// native histograms of two metrics, the scrape interval and PD's stores.
	exporter.scrape(t)
	if first, most := len(p.takeRequests()), 18+6+2; first > most {
		t.Errorf("the first scrape sent %d requests, want at most %d", first, most)
	}

	exporter.scrape(t).requireComplete(t, n)

	requests := p.takeRequests()
	times := map[string]int{}
	for _, form := range requests {
		if form.Get("query") != "" {
			times[form.Get("time")]++
		}
	}
	if len(times) != 2 || times[""] != 1 {
		t.Errorf("the queries by evaluation time are %v, want one without a time and all others with the same", times)
	}

	return requests
}

// queryFailure is a way in which a query fails.
type queryFailure struct {
	reason  string // The label reason of the failure.
	respond http.HandlerFunc
	err     string // A pattern of the cause in the log.
	hint    string // A pattern of the hint in the log.
}

var queryFailures = []queryFailure{
	{
		reason:  "http",
		respond: respondWith(http.StatusInternalServerError, "<html>out of order</html>"),
		err:     ": 500 Internal Server Error: <html>out of order</html>$",
	},
	{
		reason:  "timeout",
		respond: func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		err:     timeoutMessage,
	},
	{
		reason: "query",
		respond: respondWith(http.StatusUnprocessableEntity,
			`{"status":"error","errorType":"execution","error":"found duplicate series"}`),
		err: "found duplicate series",
	},
	{
		reason:  "connection",
		respond: closeConnection,
		err:     "EOF",
	},
	{
		reason:  "response",
		respond: respondWith(http.StatusOK, "<html>log in</html>"),
		err:     malformedMessage,
		hint:    urlHint,
	},
}

// A failed query removes only the gauges that depend on it, and they are back with the first scrape
// after the fault.
//
// No other test runs at the same time: a busy machine would let scrapes time out that must not.
func TestFailedQuery(t *testing.T) {
	const stores = 3
	upstream := startFleet(t, stores)
	for _, q := range truth.Queries {
		if q.Optional {
			continue
		}

		for _, f := range queryFailures {
			t.Run(q.Name+" "+f.reason, func(t *testing.T) {
				t.Parallel()
				testFailedQuery(t, upstream.URL, stores, q, f)
			})
		}
	}
}

func testFailedQuery(t *testing.T, upstream string, stores int, q truth.Query, f queryFailure) {
	var broken atomic.Bool
	p := startProxy(t, upstream, func(form url.Values) http.HandlerFunc {
		if broken.Load() && strings.Contains(expressionOf(form), q.Mark) {
			return f.respond
		}
		return nil
	})
	interval := "1h"
	if q.Background {
		interval = "1ms"
	}
	// With bucket windows, one scrape may send a query of buckets several times.
	config := fmt.Sprintf("clusters:\n- name: c\n  upstream: {url: %q}\n  bucket_windows: false\n", p.url)
	exporter := startConfigured(t, config, "--discovery.interval="+interval)
	healthy := exporter.scrape(t)
	healthy.requireComplete(t, stores)

	broken.Store(true)
	timeout := 10 * time.Second
	if f.reason == "timeout" && !q.Background { // No scrape waits for background queries.
		timeout = 2 * time.Second
	}
	success := fmt.Sprintf(`operator_store_exporter_query_success{cluster="c", query=%q}`, q.Name)
	faulty := scrape(t, exporter.URL+"/metrics", timeout)
	if q.Background { // The page has the failure once the query has ended.
		until(t, "the failure", func(ctx context.Context) (bool, error) {
			var err error
			faulty, err = tryScrape(ctx, exporter.URL+"/metrics", timeout)
			return faulty[success] == 0, err
		})
	}
	requireOnlyGaugesOf(t, healthy, faulty, q.Name)

	for series, want := range map[string]float64{
		`operator_store_exporter_upstream_up{cluster="c"}`: 0,
		`operator_store_exporter_stores{cluster="c"}`:      float64(stores),
		success: 0,
	} {
		if got, ok := faulty[series]; !ok || got != want {
			t.Errorf("%s is %g (present %v), want %g", series, got, ok, want)
		}
	}
	requireCounted(t, faulty, q, f.reason)
	exporter.log.requireWarning(t, warning{
		msg: queryFailed, cluster: "c", query: q.Name, reason: f.reason, err: f.err, hint: f.hint,
	})

	broken.Store(false)
	exporter.scrape(t).requireComplete(t, stores)
}

// requireOnlyGaugesOf fails the test unless the gauges that depend on a query are missing from a
// page, and no others.
func requireOnlyGaugesOf(t *testing.T, healthy, faulty page, query string) {
	t.Helper()

	depends := func(series string) bool {
		name, _, _ := strings.Cut(series, "{")
		return slices.Contains(truth.GaugesOf(query), name)
	}
	want := slices.DeleteFunc(slices.Sorted(maps.Keys(healthy.storeGauges())), depends)
	got := slices.Sorted(maps.Keys(faulty.storeGauges()))
	if !slices.Equal(got, want) {
		t.Errorf("with the fault, the gauges are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// requireCounted fails the test unless a page reports every query, and counts the failures of one
// query only.
func requireCounted(t *testing.T, p page, q truth.Query, reason string) {
	t.Helper()

	want := 0
	for _, q := range truth.Queries {
		if !q.Optional {
			want++
		}
	}
	if got := len(p.with("operator_store_exporter_query_success{")); got != want {
		t.Errorf("the page reports %d queries, want %d", got, want)
	}

	const format = `operator_store_exporter_query_failures_total{cluster="c", query=%q, reason=%q}`

	counted := fmt.Sprintf(format, q.Name, reason)
	for series, n := range p.with("operator_store_exporter_query_failures_total{") {
		switch {
		case series != counted && n != 0:
			t.Errorf("%s is %g, want 0", series, n)
		case series == counted && (n < 1 || n > 1 && !q.Background):
			t.Errorf("%s is %g, want 1", series, n)
		}
	}
}

// Until upstream has returned which stores its targets are, the names of the stores are unknown,
// and a page does not have gauges whose names would change. If upstream cannot ever return that,
// the targets are the stores.
func TestStoresAppearWithTheirNames(t *testing.T) {
	t.Parallel()
	const stores = 3

	upstream := startFleet(t, stores)
	for _, tc := range []struct {
		name    string
		status  int
		body    string
		config  string
		present bool // Whether the page has gauges.
	}{
		{
			name:   "unavailable upstream",
			status: http.StatusInternalServerError,
			body:   "<html>out of order</html>",
		},
		{
			name:   "malformed response",
			status: http.StatusOK,
			body:   "<html>log in</html>",
		},
		{
			name:    "refused query",
			status:  http.StatusUnprocessableEntity,
			body:    `{"status":"error","errorType":"execution","error":"not here"}`,
			present: true,
		},
		{
			name:    "unavailable upstream with configured stores",
			status:  http.StatusInternalServerError,
			body:    "<html>out of order</html>",
			config:  "  stores: [{id: 1, address: a}]\n",
			present: true,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			var healthy atomic.Bool
			p := startProxy(t, upstream.URL, func(form url.Values) http.HandlerFunc {
				if !healthy.Load() && strings.Contains(form.Get("query"), "pd_scheduler_store_status") {
					return respondWith(tc.status, tc.body)
				}
				return nil
			})
			config := fmt.Sprintf("clusters:\n- name: c\n  upstream: {url: %q}\n%s", p.url, tc.config)
			exporter := startConfigured(t, config, "--discovery.interval=1ms")

			const success = `operator_store_exporter_query_success{cluster="c", query="store_ids"}`
			before := exporter.scrape(t)
			if present := len(before.with("operator_store_monitored", "address=")) > 0; present != tc.present {
				t.Errorf("the page has stores: %v, want %v", present, tc.present)
			}
			if before[success] != 0 {
				t.Errorf("%s is %g, want 0", success, before[success])
			}

			healthy.Store(true)
			until(t, "the stores", func(ctx context.Context) (bool, error) {
				p, err := tryScrape(ctx, exporter.URL+"/metrics", 10*time.Second)
				return len(p.with("operator_store_monitored", "address=")) > 0 && p[success] == 1, err
			})
		})
	}
}
