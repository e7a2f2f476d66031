// SPDX-License-Identifier: Apache-2.0

// Package web answers the exporter's HTTP requests.
package web

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"regexp"
	"strconv"
	"time"

	"github.com/go-kit/log"
	"github.com/go-kit/log/level"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/common/version"
	toolkit "github.com/prometheus/exporter-toolkit/web"

	"github.com/operator-store/operator_store_exporter/collector"
)

// Options are what the handlers need.
type Options struct {
	Scrape          func(ctx context.Context, clusters ...string) (*collector.Collector, error)
	Reload          func() error
	Process         *prometheus.Registry // The metrics that do not depend on a scrape.
	TelemetryPath   string
	TimeoutOffset   time.Duration // What a scrape ends before its scraper gives up.
	MaxRequests     int           // Scrapes at once; 0 for any number.
	EnableLifecycle bool
	Logger          log.Logger
}

var pathPattern = regexp.MustCompile(`^/[A-Za-z0-9/_.~-]*$`)

// Handler returns the handler of all paths. The error says what is wrong with an option.
func Handler(o Options) (http.Handler, error) {
	if clean := path.Clean(o.TelemetryPath); !pathPattern.MatchString(o.TelemetryPath) || clean != o.TelemetryPath && clean+"/" != o.TelemetryPath {
		return nil, fmt.Errorf("--web.telemetry-path=%s: write a path such as /metrics", o.TelemetryPath)
	}
	if o.TimeoutOffset < 0 {
		return nil, fmt.Errorf("--scrape.timeout-offset=%s: write a duration that is not negative", o.TimeoutOffset)
	}
	if o.MaxRequests < 0 {
		return nil, fmt.Errorf("--web.max-requests=%d: write a number that is not negative", o.MaxRequests)
	}
	taken := map[string]http.Handler{
		"GET /-/healthy":   text("operator_store_exporter is healthy.\n"),
		"GET /-/ready":     text("operator_store_exporter is ready.\n"),
		"POST /-/reload":   o.reload(),
		"PUT /-/reload":    o.reload(),
		"GET /favicon.ico": http.NotFoundHandler(),
	}
	mux := http.NewServeMux()
	for pattern, h := range taken {
		if pattern == "GET "+o.TelemetryPath {
			return nil, fmt.Errorf("--web.telemetry-path=%s is taken: choose another such as /metrics", o.TelemetryPath)
		}
		mux.Handle(pattern, h)
	}
	metrics := "GET " + o.TelemetryPath
	if o.TelemetryPath[len(o.TelemetryPath)-1] == '/' {
		metrics += "{$}"
	}
	mux.Handle(metrics, promhttp.InstrumentMetricHandler(o.Process, o.metrics()))
	if o.TelemetryPath != "/" {
		landing, err := toolkit.NewLandingPage(toolkit.LandingConfig{
			Name:        "operator_store_exporter",
			Description: "Few, normalised numbers of each TiKV store, asked of the Prometheus that scrapes TiKV.",
			Version:     version.Info(),
			Profiling:   "false",
			Links:       []toolkit.LandingLinks{{Address: o.TelemetryPath, Text: "Metrics"}},
		})
		if err != nil {
			return nil, fmt.Errorf("make the landing page: %w", err)
		}
		mux.Handle("GET /{$}", landing)
	}
	return mux, nil
}

// metrics answers a scrape. Whatever upstream does, the answer is 200.
func (o Options) metrics() http.Handler {
	slots := make(chan struct{}, o.MaxRequests)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if o.MaxRequests > 0 {
			select {
			case slots <- struct{}{}:
				defer func() { <-slots }()
			default:
				http.Error(w, fmt.Sprintf("%d scrapes are under way: scrape less often, or raise --web.max-requests.", o.MaxRequests), http.StatusServiceUnavailable)
				return
			}
		}
		left := budget(r, o.TimeoutOffset)
		// A scraper that does not take its answer must not hold its place for ever. What can't be set is not needed.
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(left + writeTimeout))
		ctx, cancel := context.WithTimeout(r.Context(), left)
		defer cancel()
		query, err := url.ParseQuery(r.URL.RawQuery)
		if err != nil {
			http.Error(w, "The parameters can't be read: "+err.Error()+": write ?cluster=NAME&cluster=NAME.", http.StatusBadRequest)
			return
		}
		clusters := query["cluster"]
		scrape, err := o.Scrape(ctx, clusters...)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		registry := prometheus.NewRegistry()
		registry.MustRegister(scrape)
		gatherers := prometheus.Gatherers{registry}
		if len(clusters) == 0 {
			gatherers = append(gatherers, o.Process)
		}
		promhttp.HandlerFor(gatherers, promhttp.HandlerOpts{
			ErrorHandling: promhttp.ContinueOnError,
			ErrorLog:      errorLog{o.Logger},
			Registry:      o.Process,
		}).ServeHTTP(w, r)
	})
}

// writeTimeout is how long a scraper may take to read its answer.
const writeTimeout = 30 * time.Second

// Prometheus' own default, for a scraper that does not say how long it waits.
const defaultScrapeTimeout = 10 * time.Second

// budget is how long a scrape may take: what the scraper grants less offset, and half of what it
// grants where the offset would leave less.
func budget(r *http.Request, offset time.Duration) time.Duration {
	timeout := defaultScrapeTimeout
	if s, err := strconv.ParseFloat(r.Header.Get("X-Prometheus-Scrape-Timeout-Seconds"), 64); err == nil && s > 0 && s <= time.Hour.Seconds() {
		timeout = time.Duration(s * float64(time.Second))
	}
	return max(timeout-offset, timeout/2)
}

func (o Options) reload() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if !o.EnableLifecycle {
			http.Error(w, "Reloading over HTTP is off: start with --web.enable-lifecycle, or send SIGHUP.", http.StatusForbidden)
			return
		}
		if err := o.Reload(); err != nil {
			http.Error(w, "The configuration was not reloaded, the old one stays in use:\n"+err.Error(), http.StatusInternalServerError)
			return
		}
		fmt.Fprintln(w, "The configuration was reloaded.")
	})
}

func text(s string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, s) })
}

// errorLog lets promhttp log through go-kit.
type errorLog struct{ logger log.Logger }

// Println implements promhttp.Logger.
func (l errorLog) Println(v ...any) { level.Error(l.logger).Log("msg", fmt.Sprint(v...)) }
