// SPDX-License-Identifier: Apache-2.0

package web

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/go-kit/log"
	"github.com/go-kit/log/level"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/common/version"

	"github.com/operator-store/operator_store_exporter/internal/statuspage"
	"github.com/operator-store/operator_store_exporter/internal/storejson"
)

// serveMetrics is a scrapeFunc for scrapers. The status is 200 whatever upstream does. The metrics
// of the process are only part of the scrape of all clusters.
func (o Options) serveMetrics(w http.ResponseWriter, r *http.Request, clusters []string) error {
	exporter, release := o.Acquire()
	release = sync.OnceFunc(release)
	defer release()
	scrape, err := exporter.Bind(r.Context(), clusters...)
	if err != nil {
		return err
	}

	registry := prometheus.NewRegistry()
	registry.MustRegister(releasingCollector{scrape, release})
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

// releasingCollector releases an exporter as soon as it has been collected. An exporter that is in
// use is not closed after a reload, and the process waits for it when it ends. A client that does
// not read the response must not cause that.
type releasingCollector struct {
	prometheus.Collector
	release func()
}

// Collect implements prometheus.Collector.
func (c releasingCollector) Collect(ch chan<- prometheus.Metric) {
	defer c.release()
	c.Collector.Collect(ch)
}

// servePage is a scrapeFunc for people.
func (o Options) servePage(w http.ResponseWriter, r *http.Request, clusters []string) error {
	exporter, release := o.Acquire()
	reports, err := exporter.Report(r.Context(), clusters...)
	cfg := exporter.Config()
	release() // Before the response is written: see releasingCollector.
	if err != nil {
		return err
	}

	page := statuspage.Page{
		Reports:       reports,
		Clusters:      clusters,
		Config:        cfg,
		TelemetryPath: o.TelemetryPath,
		Version:       version.Version,
		Now:           time.Now(),
	}
	w.Header().Set("Content-Security-Policy", statuspage.PagePolicy)
	w.Header().Set("Referrer-Policy", "no-referrer")
	o.render(w, "text/html; charset=utf-8", func(w io.Writer) error { return statuspage.WritePage(w, page) })

	return nil
}

// serveStores is a scrapeFunc for scripts.
func (o Options) serveStores(w http.ResponseWriter, r *http.Request, clusters []string) error {
	exporter, release := o.Acquire()
	scrape, err := exporter.Scrape(r.Context(), clusters...)
	release() // Before the response is written: see releasingCollector.
	if err != nil {
		return err
	}

	o.render(w, "application/json", func(w io.Writer) error { return storejson.Write(w, scrape.Reports()) })

	return nil
}

// render responds with a whole document, or with an error. It is only valid now, so it must not be
// cached.
func (o Options) render(w http.ResponseWriter, contentType string, write func(io.Writer) error) {
	var body bytes.Buffer
	if err := write(&body); err != nil {
		_ = level.Error(o.Logger).Log("msg", "response not rendered", "content_type", contentType, "err", err)
		http.Error(w, "The response could not be rendered, see the exporter's log.", http.StatusInternalServerError)

		return
	}

	w.Header().Set("Content-Type", contentType)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = body.WriteTo(w) // The client may be gone.
}

// errorLog is the promhttp.Logger for metrics that cannot be collected or sent.
type errorLog struct{ logger log.Logger }

// Println implements promhttp.Logger.
func (l errorLog) Println(v ...any) {
	_ = level.Error(l.logger).Log("msg", "metrics response incomplete", "err", strings.TrimSpace(fmt.Sprintln(v...)))
}
