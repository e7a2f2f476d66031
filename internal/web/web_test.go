// SPDX-License-Identifier: Apache-2.0

package web_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/go-kit/log"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"

	"github.com/operator-store/operator_store_exporter/collector"
	"github.com/operator-store/operator_store_exporter/config"
	"github.com/operator-store/operator_store_exporter/internal/httpclient"
	"github.com/operator-store/operator_store_exporter/internal/statuspage"
	"github.com/operator-store/operator_store_exporter/internal/web"
)

// recorder is an upstream with one target, and remembers how much time a query was given.
type recorder struct{ given *time.Duration }

func (r recorder) Query(ctx context.Context, expression string, at time.Time) (promql.Vector, time.Time, error) {
	if strings.HasPrefix(expression, "sum by (job, instance) (tikv_server_cpu_cores_quota") {
		deadline, _ := ctx.Deadline()
		*r.given = time.Until(deadline)
	}
	if at.IsZero() {
		return nil, time.Time{}, &httpclient.Error{Reason: httpclient.ReasonHTTP, Err: errors.New("no")}
	}
	return nil, at, nil
}

func (recorder) Series(context.Context, []string, time.Time, time.Time) ([]labels.Labels, error) {
	return []labels.Labels{labels.FromStrings("job", "tikv", "instance", "a:20180")}, nil
}
func (recorder) Now() (time.Time, bool)      { return time.Now(), true }
func (recorder) Serving() (string, []string) { return "http://a", []string{"http://a"} }
func (recorder) Queued() uint64              { return 0 }
func (recorder) ExternalURL(context.Context) (string, error) {
	return "", nil
}

func (recorder) Close() {}

func handler(t *testing.T, given *time.Duration, change func(*web.Options)) http.Handler {
	t.Helper()
	cfg, err := config.SingleCluster("c", "http://upstream")
	if err != nil {
		t.Fatal(err)
	}
	exporter, err := collector.New(cfg, collector.Options{
		Interval: time.Hour, Logger: log.NewNopLogger(),
		Connect: func(config.Upstream) (collector.Upstream, error) { return recorder{given}, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(exporter.Close)
	o := web.Options{
		Scrape: exporter.Scrape, Report: exporter.Report, Config: func() fmt.Stringer { return exporter.Config() }, Reload: func() error { return nil },
		Process: prometheus.NewRegistry(), TelemetryPath: "/metrics", TimeoutOffset: 500 * time.Millisecond, Logger: log.NewNopLogger(),
	}
	if change != nil {
		change(&o)
	}
	h, err := web.Handler(o)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestAScrapeEndsBeforeItsScraperGivesUp(t *testing.T) {
	for _, tc := range []struct {
		name, header string
		want         time.Duration
	}{
		{"the scraper's timeout less the offset", "3", 2500 * time.Millisecond},
		{"a fraction of a second", "1.5", time.Second},
		{"no header: Prometheus' default", "", 9500 * time.Millisecond},
		{"less than the offset leaves half", "0.4", 200 * time.Millisecond},
		{"nonsense", "soon", 9500 * time.Millisecond},
		{"NaN", "NaN", 9500 * time.Millisecond},
		{"infinite", "+Inf", 9500 * time.Millisecond},
		{"negative", "-3", 9500 * time.Millisecond},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var given time.Duration
			for _, path := range []string{"/metrics", "/", "/api/v1/stores"} {
				req := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil)
				req.Header.Set("X-Prometheus-Scrape-Timeout-Seconds", tc.header)
				w := httptest.NewRecorder()
				handler(t, &given, nil).ServeHTTP(w, req)
				if w.Code != http.StatusOK {
					t.Errorf("%s: status %d", path, w.Code)
				}
				if given > tc.want || given < tc.want-tc.want/2 {
					t.Errorf("%s: upstream was given %s, want %s or a little less", path, given, tc.want)
				}
			}
		})
	}
}

func TestPaths(t *testing.T) {
	off := func(*web.Options) {}
	on := func(o *web.Options) { o.EnableLifecycle = true }
	bad := func(o *web.Options) {
		o.EnableLifecycle = true
		o.Reload = func() error { return errors.New("config.yml:3: bad duration") }
	}
	elsewhere := func(o *web.Options) { o.TelemetryPath = "/m" }
	root := func(o *web.Options) { o.TelemetryPath = "/" }
	for _, tc := range []struct {
		name, method, path string
		options            func(*web.Options)
		code               int
		body               string
	}{
		{"metrics", "GET", "/metrics", off, 200, "operator_store_exporter_upstream_up{cluster=\"c\"} 0"},
		{"one cluster's metrics", "GET", "/metrics?cluster=c", off, 200, "operator_store_exporter_upstream_up{cluster=\"c\"} 0"},
		{"a cluster that there is not", "GET", "/metrics?cluster=d", off, 400, `no cluster "d": there are ["c"]`},
		{"parameters that can't be read", "GET", "/metrics?cluster=c;cluster=d", off, 400, "?cluster=NAME"},
		{"metrics elsewhere", "GET", "/m", elsewhere, 200, "operator_store_exporter_upstream_up"},
		{"metrics at the root", "GET", "/", root, 200, "operator_store_exporter_upstream_up"},
		{"metrics are elsewhere", "GET", "/metrics", elsewhere, 404, ""},
		{"metrics cannot be posted", "POST", "/metrics", off, 405, ""},
		{"status page", "GET", "/", off, 200, `<a href="./metrics">`},
		{"status page of one cluster", "GET", "/?cluster=c", off, 200, `<a href="./metrics?cluster=c">`},
		{"status page of a cluster that there is not", "GET", "/?cluster=%3Cb%3E", off, 400, `no cluster "<b>": there are ["c"]`},
		{"status page beside metrics elsewhere", "GET", "/", elsewhere, 200, `<a href="./m">`},
		{"the configuration", "GET", "/", off, 200, "http://upstream"},
		{"status page cannot be posted", "POST", "/", off, 405, ""},
		{"stores", "GET", "/api/v1/stores", off, 200, `"cluster": "c"`},
		{"one cluster's stores", "GET", "/api/v1/stores?cluster=c", off, 200, `"upstream_up": false`},
		{"stores of a cluster that there is not", "GET", "/api/v1/stores?cluster=c&cluster=d", off, 400, `no cluster "d": there are ["c"]`},
		{"stores with parameters that can't be read", "GET", "/api/v1/stores?%zz", off, 400, "?cluster=NAME"},
		{"stores with the metrics at the root", "GET", "/api/v1/stores", root, 200, `"address": "a:20180"`},
		{"healthy", "GET", "/-/healthy", off, 200, "healthy"},
		{"ready", "GET", "/-/ready", off, 200, "ready"},
		{"reload is off", "POST", "/-/reload", off, 403, "--web.enable-lifecycle"},
		{"reload", "POST", "/-/reload", on, 200, "reloaded"},
		{"reload of a bad file", "POST", "/-/reload", bad, 500, "config.yml:3: bad duration"},
		{"reload cannot be got", "GET", "/-/reload", on, 405, ""},
		{"anything else", "GET", "/metrics/x", off, 404, ""},
		{"profiles", "GET", "/debug/pprof/", off, 404, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := httptest.NewRecorder()
			handler(t, new(time.Duration), tc.options).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), tc.method, tc.path, nil))
			if w.Code != tc.code || !strings.Contains(w.Body.String(), tc.body) {
				t.Errorf("status %d, want %d, with %q:\n%s", w.Code, tc.code, tc.body, w.Body)
			}
		})
	}
}

// What is as of now is kept by nobody, and the page lets nothing in.
func TestHeaders(t *testing.T) {
	for path, want := range map[string]map[string]string{
		"/": {
			"Content-Type": "text/html; charset=utf-8", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff",
			"Referrer-Policy": "no-referrer", "Content-Security-Policy": statuspage.PagePolicy,
		},
		"/api/v1/stores": {"Content-Type": "application/json", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"},
	} {
		w := httptest.NewRecorder()
		handler(t, new(time.Duration), nil).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
		for name, value := range want {
			if got := w.Header().Get(name); got != value {
				t.Errorf("%s: %s is %q, want %q", path, name, got, value)
			}
		}
	}
}

// All that scrape share the places there are.
func TestPagesTakePlacesToo(t *testing.T) {
	for _, path := range []string{"/metrics", "/", "/api/v1/stores"} {
		t.Run(path, func(t *testing.T) {
			arrived, gate := make(chan struct{}), make(chan struct{})
			h := handler(t, new(time.Duration), func(o *web.Options) {
				o.MaxRequests = 1
				scrape := o.Scrape
				o.Scrape = func(ctx context.Context, clusters ...string) (*collector.Collector, error) {
					if len(clusters) > 0 {
						close(arrived)
						<-gate
					}
					return scrape(ctx, clusters...)
				}
			})
			get := func(path string) int {
				w := httptest.NewRecorder()
				h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
				return w.Code
			}
			first := make(chan int)
			go func() { first <- get("/metrics?cluster=c") }()
			<-arrived
			if code := get(path); code != http.StatusServiceUnavailable {
				t.Errorf("status %d while another scrape has the only place", code)
			}
			close(gate)
			if code := <-first; code != http.StatusOK {
				t.Errorf("the first one has status %d", code)
			}
			if code := get(path); code != http.StatusOK {
				t.Errorf("status %d when the place is free again", code)
			}
		})
	}
}

func TestOptionsThatCannotBe(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*web.Options)
		want   string
	}{
		{"a path without a slash", func(o *web.Options) { o.TelemetryPath = "metrics" }, "--web.telemetry-path=metrics"},
		{"a path with a wildcard", func(o *web.Options) { o.TelemetryPath = "/{x}" }, "--web.telemetry-path=/{x}"},
		{"a path that goes up", func(o *web.Options) { o.TelemetryPath = "/../x" }, "write a path such as /metrics"},
		{"a path with two slashes", func(o *web.Options) { o.TelemetryPath = "//x" }, "write a path such as /metrics"},
		{"no path", func(o *web.Options) { o.TelemetryPath = "" }, "write a path such as /metrics"},
		{"a path that is taken", func(o *web.Options) { o.TelemetryPath = "/-/ready" }, "is taken"},
		{"the path of the stores", func(o *web.Options) { o.TelemetryPath = "/api/v1/stores" }, "is taken"},
		{"a negative offset", func(o *web.Options) { o.TimeoutOffset = -time.Second }, "--scrape.timeout-offset=-1s"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o := web.Options{TelemetryPath: "/metrics", Process: prometheus.NewRegistry()}
			tc.change(&o)
			if _, err := web.Handler(o); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("the error is %v, want one with %q", err, tc.want)
			}
		})
	}
}
