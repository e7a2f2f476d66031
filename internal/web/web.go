// SPDX-License-Identifier: Apache-2.0

// Package web answers the exporter's HTTP requests.
package web

import (
	"bytes"
	"context"
	"fmt"
	"io"
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

	"github.com/operator-store/operator_store_exporter/collector"
	"github.com/operator-store/operator_store_exporter/internal/statuspage"
)

// Options are what the handlers need.
type Options struct {
	Scrape          func(ctx context.Context, clusters ...string) (*collector.Collector, error)
	Report          func(ctx context.Context, clusters ...string) ([]collector.Report, error) // Of a scrape, for people.
	Config          func() fmt.Stringer                                                       // What is in use, without secrets.
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
	scraping := o.scraping()
	taken := map[string]http.Handler{
		"GET /api/v1/stores": scraping(o.stores),
		"GET /-/healthy":     text("operator_store_exporter is healthy.\n"),
		"GET /-/ready":       text("operator_store_exporter is ready.\n"),
		"POST /-/reload":     o.reload(),
		"PUT /-/reload":      o.reload(),
		"GET /favicon.ico":   http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }),
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
	mux.Handle(metrics, promhttp.InstrumentMetricHandler(o.Process, scraping(o.metrics)))
	if o.TelemetryPath != "/" {
		mux.Handle("GET /{$}", scraping(o.page))
	}
	return mux, nil
}

// An answerer answers a request by a scrape of the named clusters, which ends with the request's context. Its error is of what
// the client asked for; whatever upstream does is none.
type answerer func(w http.ResponseWriter, r *http.Request, clusters []string) error

// scraping returns what makes handlers of answerers, which share the places for scrapes.
func (o Options) scraping() func(answerer) http.Handler {
	slots := make(chan struct{}, o.MaxRequests)
	return func(answer answerer) http.Handler {
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
			if err := answer(w, r.WithContext(ctx), query["cluster"]); err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
			}
		})
	}
}

// metrics answers a scraper. Whatever upstream does, the answer is 200.
func (o Options) metrics(w http.ResponseWriter, r *http.Request, clusters []string) error {
	scrape, err := o.Scrape(r.Context(), clusters...)
	if err != nil {
		return err
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
	return nil
}

// page answers people.
func (o Options) page(w http.ResponseWriter, r *http.Request, clusters []string) error {
	reports, err := o.Report(r.Context(), clusters...)
	if err != nil {
		return err
	}
	p := statuspage.Page{Reports: reports, Clusters: clusters, Config: o.Config(), TelemetryPath: o.TelemetryPath, Version: version.Version, Now: time.Now()}
	w.Header().Set("Content-Security-Policy", statuspage.PagePolicy)
	w.Header().Set("Referrer-Policy", "no-referrer")
	o.write(w, "text/html; charset=utf-8", func(w io.Writer) error { return statuspage.WritePage(w, p) })
	return nil
}

// stores answers scripts.
func (o Options) stores(w http.ResponseWriter, r *http.Request, clusters []string) error {
	scrape, err := o.Scrape(r.Context(), clusters...)
	if err != nil {
		return err
	}
	o.write(w, "application/json", func(w io.Writer) error { return statuspage.WriteJSON(w, statuspage.NewDocument(scrape.Reports())) })
	return nil
}

// write answers with what is as of now, whole or not at all.
func (o Options) write(w http.ResponseWriter, contentType string, to func(io.Writer) error) {
	var body bytes.Buffer
	if err := to(&body); err != nil {
		level.Error(o.Logger).Log("msg", "A page was not made", "err", err)
		http.Error(w, "The page was not made: the log tells why.", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = body.WriteTo(w) // A client that goes away is none of our business.
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
