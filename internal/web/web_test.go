// SPDX-License-Identifier: Apache-2.0

package web_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-kit/log"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/operator-store/operator_store_exporter/collector"
	"github.com/operator-store/operator_store_exporter/config"
	"github.com/operator-store/operator_store_exporter/internal/promtest"
	"github.com/operator-store/operator_store_exporter/internal/statuspage"
	"github.com/operator-store/operator_store_exporter/internal/web"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// harness is a handler with what it uses: one cluster "c" with one store "a:20180", and the server
// that scrapes it. The query of up fails, so the cluster's upstream_up is 0.
type harness struct {
	http.Handler
	upstream string // URL.

	timeout  atomic.Int64  // Time that upstream was given for the last query of CPU cores, in nanoseconds.
	acquired atomic.Int64  // Exporters that were acquired and not released.
	gate     chan struct{} // If it is not nil, queries of up wait until it is closed.
	waiting  chan struct{} // Gets a value when a query starts to wait.
}

// newHarness returns a harness whose options are changed by change, which may be nil.
func newHarness(t *testing.T, change func(*web.Options)) *harness {
	t.Helper()
	h := &harness{waiting: make(chan struct{}, 1)}
	h.upstream = promtest.Prometheus{
		Targets:   []promtest.Target{promtest.TiKV("a:20180")},
		Intercept: h.intercept,
	}.Start(t)

	options := web.Options{
		Acquire:       h.newAcquire(t),
		Reload:        func() error { return nil },
		Process:       prometheus.NewRegistry(),
		TelemetryPath: "/metrics",
		TimeoutOffset: 500 * time.Millisecond,
		Logger:        log.NewNopLogger(),
	}
	if change != nil {
		change(&options)
	}
	handler, err := web.Handler(options)
	if err != nil {
		t.Fatal(err)
	}
	h.Handler = handler

	return h
}

func (h *harness) newAcquire(t *testing.T) func() (*collector.Exporter, func()) {
	t.Helper()
	cfg, err := config.SingleCluster("c", h.upstream)
	if err != nil {
		t.Fatal(err)
	}
	exporter, err := collector.New(cfg, collector.Options{Interval: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		exporter.Close()
		if n := h.acquired.Load(); n != 0 {
			t.Errorf("%d exporters were not released", n)
		}
	})

	return func() (*collector.Exporter, func()) {
		h.acquired.Add(1)

		return exporter, func() { h.acquired.Add(-1) }
	}
}

func (h *harness) intercept(w http.ResponseWriter, r *http.Request, query string) bool {
	switch {
	case strings.HasPrefix(query, "sum by (job, instance) (tikv_server_cpu_cores_quota"):
		seconds, _ := strconv.ParseFloat(r.Form.Get("timeout"), 64)
		h.timeout.Store(int64(seconds * float64(time.Second)))

		return false
	case strings.HasPrefix(query, "up{") && !strings.HasSuffix(query, "]"): // Not the raw samples for the discovery.
		if h.gate != nil {
			h.waiting <- struct{}{}
			<-h.gate
		}
		promtest.Fail(w, http.StatusInternalServerError, "internal", "made to fail")

		return true
	default:
		return false
	}
}

// get requests a path.
func (h *harness) get(t *testing.T, path string, header http.Header) *httptest.ResponseRecorder {
	t.Helper()

	request := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil)
	for name, values := range header {
		request.Header[name] = values
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, request)

	return w
}

// A scrape ends before its scraper's timeout. Upstream is given 95% of the time of the request.
func TestScrapeTimeout(t *testing.T) {
	for _, tc := range []struct {
		name   string
		header string
		want   time.Duration
	}{
		{name: "timeout of the scraper minus the offset", header: "3", want: 2500 * time.Millisecond},
		{name: "fraction of a second", header: "1.5", want: time.Second},
		{name: "no header: default of Prometheus", header: "", want: 9500 * time.Millisecond},
		{name: "less than the offset: half remains", header: "0.4", want: 200 * time.Millisecond},
		{name: "not a number", header: "soon", want: 9500 * time.Millisecond},
		{name: "NaN", header: "NaN", want: 9500 * time.Millisecond},
		{name: "infinity", header: "+Inf", want: 9500 * time.Millisecond},
		{name: "negative", header: "-3", want: 9500 * time.Millisecond},
	} {
		for _, path := range []string{"/metrics", "/", "/api/v1/stores"} {
			t.Run(tc.name+" "+path, func(t *testing.T) {
				h := newHarness(t, nil)

				w := h.get(t, path, http.Header{"X-Prometheus-Scrape-Timeout-Seconds": {tc.header}})

				if w.Code != http.StatusOK {
					t.Errorf("the status is %d, want 200", w.Code)
				}
				if got := time.Duration(h.timeout.Load()); got > tc.want || got < tc.want/2 {
					t.Errorf("upstream was given %s, want a little less than %s", got, tc.want)
				}
			})
		}
	}
}

// pathCase is a request and its response.
type pathCase struct {
	name   string
	method string // GET by default.
	path   string
	status int
	body   string // Part of the response.
}

func testPaths(t *testing.T, options func(*web.Options), cases []pathCase) {
	t.Helper()

	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			h := newHarness(t, options)
			w := httptest.NewRecorder()

			h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), tc.method, tc.path, nil))

			body := strings.ReplaceAll(tc.body, "UPSTREAM", h.upstream)
			if w.Code != tc.status || !strings.Contains(w.Body.String(), body) {
				t.Errorf("the status is %d, want %d with %q:\n%s", w.Code, tc.status, body, w.Body)
			}
		})
	}
}

func TestMetrics(t *testing.T) {
	testPaths(t, nil, []pathCase{
		{
			name:   "all clusters",
			path:   "/metrics",
			status: http.StatusOK,
			body:   `operator_store_exporter_upstream_up{cluster="c"} 0`,
		},
		{
			name:   "one cluster",
			path:   "/metrics?cluster=c",
			status: http.StatusOK,
			body:   `operator_store_exporter_upstream_up{cluster="c"} 0`,
		},
		{
			name:   "store gauge",
			path:   "/metrics",
			status: http.StatusOK,
			body:   `operator_store_qps{address="a:20180",cluster="c",store_id=""} 1`,
		},
		{
			name:   "unknown cluster",
			path:   "/metrics?cluster=d",
			status: http.StatusBadRequest,
			body:   `unknown cluster "d": the clusters are ["c"]`,
		},
		{
			name:   "invalid parameters",
			path:   "/metrics?cluster=c;cluster=d",
			status: http.StatusBadRequest,
			body:   "?cluster=NAME",
		},
		{name: "POST", method: http.MethodPost, path: "/metrics", status: http.StatusMethodNotAllowed},
		{name: "path below", path: "/metrics/x", status: http.StatusNotFound},
	})
}

func TestTelemetryPath(t *testing.T) {
	t.Run("other path", func(t *testing.T) {
		testPaths(t, func(o *web.Options) { o.TelemetryPath = "/m" }, []pathCase{
			{name: "metrics", path: "/m", status: http.StatusOK, body: "operator_store_exporter_upstream_up"},
			{name: "default path", path: "/metrics", status: http.StatusNotFound},
			{name: "status page", path: "/", status: http.StatusOK, body: `<a href="./m">`},
		})
	})

	t.Run("root", func(t *testing.T) {
		testPaths(t, func(o *web.Options) { o.TelemetryPath = "/" }, []pathCase{
			{name: "metrics", path: "/", status: http.StatusOK, body: "operator_store_exporter_upstream_up"},
			{name: "stores", path: "/api/v1/stores", status: http.StatusOK, body: `"address": "a:20180"`},
			{name: "path below", path: "/x", status: http.StatusNotFound},
		})
	})

	t.Run("path with a slash at the end", func(t *testing.T) {
		testPaths(t, func(o *web.Options) { o.TelemetryPath = "/m/" }, []pathCase{
			{name: "metrics", path: "/m/", status: http.StatusOK, body: "operator_store_exporter_upstream_up"},
			{name: "path below", path: "/m/x", status: http.StatusNotFound},
		})
	})
}

func TestStatusPage(t *testing.T) {
	testPaths(t, nil, []pathCase{
		{name: "all clusters", path: "/", status: http.StatusOK, body: `<a href="./metrics">`},
		{name: "one cluster", path: "/?cluster=c", status: http.StatusOK, body: `<a href="./metrics?cluster=c">`},
		{
			name:   "unknown cluster",
			path:   "/?cluster=%3Cb%3E",
			status: http.StatusBadRequest,
			body:   `unknown cluster "<b>": the clusters are ["c"]`,
		},
		{name: "configuration", path: "/", status: http.StatusOK, body: "- UPSTREAM"},
		{name: "POST", method: http.MethodPost, path: "/", status: http.StatusMethodNotAllowed},
	})
}

func TestStores(t *testing.T) {
	testPaths(t, nil, []pathCase{
		{name: "all clusters", path: "/api/v1/stores", status: http.StatusOK, body: `"cluster": "c"`},
		{name: "one cluster", path: "/api/v1/stores?cluster=c", status: http.StatusOK, body: `"upstream_up": false`},
		{
			name:   "unknown cluster",
			path:   "/api/v1/stores?cluster=c&cluster=d",
			status: http.StatusBadRequest,
			body:   `unknown cluster "d": the clusters are ["c"]`,
		},
		{
			name:   "invalid parameters",
			path:   "/api/v1/stores?%zz",
			status: http.StatusBadRequest,
			body:   "?cluster=NAME",
		},
	})
}

func TestReload(t *testing.T) {
	t.Run("disabled", func(t *testing.T) {
		testPaths(t, nil, []pathCase{
			{
				name:   "POST",
				method: http.MethodPost,
				path:   "/-/reload",
				status: http.StatusForbidden,
				body:   "--web.enable-lifecycle",
			},
		})
	})

	t.Run("enabled", func(t *testing.T) {
		testPaths(t, func(o *web.Options) { o.EnableLifecycle = true }, []pathCase{
			{
				name:   "POST",
				method: http.MethodPost,
				path:   "/-/reload",
				status: http.StatusOK,
				body:   "The configuration was reloaded.",
			},
			{
				name:   "PUT",
				method: http.MethodPut,
				path:   "/-/reload",
				status: http.StatusOK,
				body:   "The configuration was reloaded.",
			},
			{name: "GET", path: "/-/reload", status: http.StatusMethodNotAllowed},
		})
	})

	t.Run("invalid configuration", func(t *testing.T) {
		options := func(o *web.Options) {
			o.EnableLifecycle = true
			o.Reload = func() error { return errors.New("config.yml:3: invalid duration") }
		}
		testPaths(t, options, []pathCase{
			{
				name:   "POST",
				method: http.MethodPost,
				path:   "/-/reload",
				status: http.StatusInternalServerError,
				body:   "config.yml:3: invalid duration",
			},
		})
	})
}

func TestOtherPaths(t *testing.T) {
	testPaths(t, nil, []pathCase{
		{name: "healthy", path: "/-/healthy", status: http.StatusOK, body: "healthy"},
		{name: "ready", path: "/-/ready", status: http.StatusOK, body: "ready"},
		{name: "icon", path: "/favicon.ico", status: http.StatusNoContent},
		{name: "profiles", path: "/debug/pprof/", status: http.StatusNotFound},
	})
}

// Results of scrapes are not cached, and the status page loads nothing.
func TestHeaders(t *testing.T) {
	for path, want := range map[string]map[string]string{
		"/": {
			"Content-Type":            "text/html; charset=utf-8",
			"Cache-Control":           "no-store",
			"X-Content-Type-Options":  "nosniff",
			"Referrer-Policy":         "no-referrer",
			"Content-Security-Policy": statuspage.PagePolicy,
		},
		"/api/v1/stores": {
			"Content-Type":           "application/json",
			"Cache-Control":          "no-store",
			"X-Content-Type-Options": "nosniff",
		},
	} {
		header := newHarness(t, nil).get(t, path, nil).Header()
		for name, value := range want {
			if got := header.Get(name); got != value {
				t.Errorf("%s: the header %s is %q, want %q", path, name, got, value)
			}
		}
	}
}

// All endpoints that scrape share one limit.
func TestMaxRequests(t *testing.T) {
	for _, path := range []string{"/metrics", "/", "/api/v1/stores"} {
		t.Run(path, func(t *testing.T) {
			h := newHarness(t, func(o *web.Options) { o.MaxRequests = 1 })
			h.gate = make(chan struct{})

			first := make(chan int)
			go func() { first <- h.get(t, "/metrics?cluster=c", nil).Code }()
			<-h.waiting
			during := h.get(t, path, nil)
			if n := h.acquired.Load(); n != 1 {
				t.Errorf("%d exporters are in use during the first scrape, want 1", n)
			}
			close(h.gate)

			if during.Code != http.StatusServiceUnavailable {
				t.Errorf("the status is %d while another scrape is in progress, want 503", during.Code)
			}
			const message = "1 scrapes are in progress: scrape less often, or raise --web.max-requests."
			if body := strings.TrimSpace(during.Body.String()); body != message {
				t.Errorf("the response is %q, want %q", body, message)
			}
			if code := <-first; code != http.StatusOK {
				t.Errorf("the status of the first scrape is %d, want 200", code)
			}
			if code := h.get(t, path, nil).Code; code != http.StatusOK {
				t.Errorf("the status is %d after the first scrape, want 200", code)
			}
		})
	}
}

func TestInvalidOptions(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*web.Options)
		want   string
	}{
		{
			name:   "path without a slash",
			change: func(o *web.Options) { o.TelemetryPath = "metrics" },
			want:   "--web.telemetry-path=metrics: must be a path such as /metrics",
		},
		{
			name:   "path with a wildcard",
			change: func(o *web.Options) { o.TelemetryPath = "/{x}" },
			want:   "--web.telemetry-path=/{x}: must be a path such as /metrics",
		},
		{
			name:   "path that leaves the root",
			change: func(o *web.Options) { o.TelemetryPath = "/../x" },
			want:   "--web.telemetry-path=/../x: must be a path such as /metrics",
		},
		{
			name:   "path with two slashes",
			change: func(o *web.Options) { o.TelemetryPath = "//x" },
			want:   "--web.telemetry-path=//x: must be a path such as /metrics",
		},
		{
			name:   "empty path",
			change: func(o *web.Options) { o.TelemetryPath = "" },
			want:   "--web.telemetry-path=: must be a path such as /metrics",
		},
		{
			name:   "path of another endpoint",
			change: func(o *web.Options) { o.TelemetryPath = "/-/ready" },
			want:   "--web.telemetry-path=/-/ready is another endpoint of the exporter",
		},
		{
			name:   "path of the stores",
			change: func(o *web.Options) { o.TelemetryPath = "/api/v1/stores" },
			want:   "--web.telemetry-path=/api/v1/stores is another endpoint of the exporter",
		},
		{
			name:   "negative offset",
			change: func(o *web.Options) { o.TimeoutOffset = -time.Second },
			want:   "--scrape.timeout-offset=-1s: must not be negative",
		},
		{
			name:   "negative number of requests",
			change: func(o *web.Options) { o.MaxRequests = -1 },
			want:   "--web.max-requests=-1: must not be negative",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o := web.Options{TelemetryPath: "/metrics", Process: prometheus.NewRegistry()}
			tc.change(&o)

			if _, err := web.Handler(o); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("the error is %v, want one that contains %q", err, tc.want)
			}
		})
	}
}

// writeObserver is a ResponseWriter that calls a function before the body is written.
type writeObserver struct {
	*httptest.ResponseRecorder
	before func()
}

// Write implements http.ResponseWriter.
func (w writeObserver) Write(b []byte) (int, error) {
	w.before()

	return w.ResponseRecorder.Write(b)
}

// A client that does not read its response must not keep the exporter open: it is released before
// the response is written.
func TestExporterIsReleasedBeforeWriting(t *testing.T) {
	for _, path := range []string{"/metrics", "/", "/api/v1/stores"} {
		t.Run(path, func(t *testing.T) {
			h := newHarness(t, nil)
			writes := 0
			w := writeObserver{ResponseRecorder: httptest.NewRecorder(), before: func() {
				writes++
				if n := h.acquired.Load(); n != 0 {
					t.Errorf("%d exporters are in use while the response is written, want 0", n)
				}
			}}
			h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))

			if writes == 0 || w.Code != http.StatusOK {
				t.Errorf("got %d writes and the status %d, want a response", writes, w.Code)
			}
		})
	}
}
