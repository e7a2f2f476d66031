// SPDX-License-Identifier: Apache-2.0

// Package web serves the exporter's HTTP endpoints.
package web

import (
	"fmt"
	"net/http"
	"path"
	"regexp"
	"strings"
	"time"

	"github.com/go-kit/log"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/operator-store/operator_store_exporter/collector"
)

// Options configure the endpoints.
type Options struct {
	// Acquire returns the exporter of the current configuration, which stays open until release is
	// called.
	Acquire         func() (e *collector.Exporter, release func())
	Reload          func() error
	Process         *prometheus.Registry // Metrics that do not depend on a scrape.
	TelemetryPath   string
	TimeoutOffset   time.Duration // How long before the scraper's timeout a scrape ends.
	MaxRequests     int           // Maximum number of parallel scrapes; 0 means no limit.
	EnableLifecycle bool
	Logger          log.Logger
}

// Handler returns the handler of all endpoints. The error says which option is invalid.
func Handler(o Options) (http.Handler, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}

	scrape := newScrapeHandlers(o)
	mux := http.NewServeMux()
	mux.Handle("GET "+storesPath, scrape.handler(o.serveStores))
	mux.Handle("GET "+healthyPath, textHandler("operator_store_exporter is healthy.\n"))
	mux.Handle("GET "+readyPath, textHandler("operator_store_exporter is ready.\n"))
	mux.Handle("POST "+reloadPath, o.reloadHandler())
	mux.Handle("PUT "+reloadPath, o.reloadHandler())
	mux.HandleFunc("GET "+faviconPath, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusNoContent)
	})

	metrics := promhttp.InstrumentMetricHandler(o.Process, scrape.handler(o.serveMetrics))
	mux.Handle(exactPattern(o.TelemetryPath), metrics)
	if o.TelemetryPath != "/" {
		mux.Handle(exactPattern("/"), scrape.handler(o.servePage))
	}

	return mux, nil
}

// The paths of the endpoints other than the metrics and the status page.
const (
	storesPath  = "/api/v1/stores"
	healthyPath = "/-/healthy"
	readyPath   = "/-/ready"
	reloadPath  = "/-/reload"
	faviconPath = "/favicon.ico"
)

var pathPattern = regexp.MustCompile(`^/[A-Za-z0-9/_.~-]*$`)

func (o Options) validate() error {
	clean := path.Clean(o.TelemetryPath)
	isClean := clean == o.TelemetryPath || clean+"/" == o.TelemetryPath
	switch {
	case !pathPattern.MatchString(o.TelemetryPath) || !isClean:
		return fmt.Errorf("--web.telemetry-path=%s: must be a path such as /metrics", o.TelemetryPath)
	case o.TimeoutOffset < 0:
		return fmt.Errorf("--scrape.timeout-offset=%s: must not be negative", o.TimeoutOffset)
	case o.MaxRequests < 0:
		return fmt.Errorf("--web.max-requests=%d: must not be negative", o.MaxRequests)
	}

	switch o.TelemetryPath {
	case storesPath, healthyPath, readyPath, faviconPath:
		return fmt.Errorf("--web.telemetry-path=%s is another endpoint of the exporter: choose a path such as /metrics",
			o.TelemetryPath)
	}

	return nil
}

// exactPattern returns the pattern for GET requests of a path, but not of the paths below it.
func exactPattern(path string) string {
	if strings.HasSuffix(path, "/") {
		path += "{$}"
	}

	return "GET " + path
}

// reloadHandler reloads the configuration.
func (o Options) reloadHandler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if !o.EnableLifecycle {
			http.Error(w, "Reloading over HTTP is disabled: start the exporter with --web.enable-lifecycle, "+
				"or send it SIGHUP.", http.StatusForbidden)

			return
		}
		if err := o.Reload(); err != nil {
			http.Error(w, "The configuration was not reloaded, the previous one stays in use:\n"+err.Error(),
				http.StatusInternalServerError)

			return
		}

		fmt.Fprintln(w, "The configuration was reloaded.")
	})
}

func textHandler(s string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, s) })
}
