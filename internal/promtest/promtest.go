// SPDX-License-Identifier: Apache-2.0

// Package promtest simulates a Prometheus that scrapes TiKV, for tests without real servers.
package promtest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
)

// Prometheus describes a simulated server. It knows just enough PromQL for the queries of the
// exporter: it selects series by their labels and groups them, but the values are made up.
type Prometheus struct {
	Targets []Target
	// ScrapeInterval is how often the targets are scraped. It is unknown if it is 0: then each
	// target was scraped only once.
	ScrapeInterval time.Duration
	SampleAge      time.Duration // How old the newest samples are.
	ClockOffset    time.Duration // By how much the clock is ahead of the local one.
	// Intercept may respond to a request in place of the server. It returns whether it did. Query
	// is an expression, or the selectors of a request for series. Intercept may be nil.
	Intercept func(w http.ResponseWriter, r *http.Request, query string) bool
}

// Target is a target that the server scrapes or has scraped.
type Target struct {
	Labels  labels.Labels
	NotTiKV bool     // It has no series of TiKV.
	Down    bool     // Its scrapes fail: of its series, only up is current.
	Without []string // Names of the metrics that it does not export.
}

// TiKV returns a target of job "tikv".
func TiKV(instance string) Target {
	return Target{Labels: labels.FromStrings("job", "tikv", "instance", instance)}
}

// Start starts the server and returns its URL. The server stops when the test ends.
func (p Prometheus) Start(t testing.TB) string {
	t.Helper()
	server := httptest.NewServer(p)
	t.Cleanup(server.Close)

	return server.URL
}

// ServeHTTP implements http.Handler.
func (p Prometheus) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		Fail(w, http.StatusBadRequest, "bad_data", err.Error())

		return
	}

	forSeries := strings.HasSuffix(r.URL.Path, "/api/v1/series")
	query := r.Form.Get("query")
	if forSeries {
		query = strings.Join(r.Form["match[]"], " or ")
	}

	switch {
	case p.Intercept != nil && p.Intercept(w, r, query):
	case forSeries:
		p.serveSeries(w, query)
	case strings.HasSuffix(r.URL.Path, "/api/v1/query"):
		p.serveQuery(w, query, r.Form.Get("time"))
	default:
		http.NotFound(w, r)
	}
}

// Fail responds with an error of the query API.
func Fail(w http.ResponseWriter, status int, errorType, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	respond(w, map[string]any{"status": "error", "errorType": errorType, "error": message})
}

func (p Prometheus) serveSeries(w http.ResponseWriter, query string) {
	samples, err := p.evaluate(query, true)
	if err != nil {
		Fail(w, http.StatusBadRequest, "bad_data", err.Error())

		return
	}

	data := []labels.Labels{}
	for _, s := range samples {
		data = append(data, s.labels)
	}
	respond(w, map[string]any{"status": "success", "data": data})
}

func (p Prometheus) serveQuery(w http.ResponseWriter, query, at string) {
	kind, evaluate := "vector", p.instantVector
	if isRange(query) {
		kind, evaluate = "matrix", p.rangeVector
	}

	seconds, err := strconv.ParseFloat(at, 64)
	if err != nil {
		seconds = unixSeconds(p.now())
	}
	result, err := evaluate(query, seconds)
	if err != nil {
		Fail(w, http.StatusBadRequest, "bad_data", err.Error())

		return
	}
	respond(w, map[string]any{
		"status": "success",
		"data":   map[string]any{"resultType": kind, "result": result},
	})
}

// instantVector returns the series of an expression, each with a value at a Unix time.
func (p Prometheus) instantVector(query string, at float64) ([]any, error) {
	samples, err := p.evaluate(query, false)
	if err != nil {
		return nil, err
	}

	result := []any{}
	for _, s := range samples {
		result = append(result, map[string]any{"metric": s.labels, "value": encodeValue(at, s.value)})
	}

	return result, nil
}

// rangeVector returns the series of a range selector, each with one sample per scrape within the
// range before a Unix time.
func (p Prometheus) rangeVector(query string, at float64) ([]any, error) {
	samples, err := p.evaluate(query, false)
	if err != nil {
		return nil, err
	}

	times := p.scrapeTimes(rangeOf(query), at)
	result := []any{}
	for _, s := range samples {
		var values []any
		for _, t := range times {
			values = append(values, encodeValue(t, s.value))
		}
		if len(values) > 0 {
			result = append(result, map[string]any{"metric": s.labels, "values": values})
		}
	}

	return result, nil
}

// scrapeTimes returns the Unix times of the scrapes within a range before a time, oldest first.
func (p Prometheus) scrapeTimes(within time.Duration, at float64) []float64 {
	var times []float64
	for age := p.SampleAge; age < within; age += p.ScrapeInterval {
		times = append(times, at-age.Seconds())
		if p.ScrapeInterval == 0 {
			break
		}
	}
	slices.Reverse(times)

	return times
}

// encodeValue encodes a sample in the format of the API.
func encodeValue(seconds, v float64) []any {
	return []any{seconds, strconv.FormatFloat(v, 'f', -1, 64)}
}

func respond(w http.ResponseWriter, body map[string]any) {
	content, err := json.Marshal(body)
	if err != nil {
		panic(fmt.Sprintf("encode a response: %s", err))
	}
	_, _ = w.Write(content) // The client may be gone.
}

func (p Prometheus) now() time.Time { return time.Now().Add(p.ClockOffset) }

// unixSeconds has the precision of the API, milliseconds.
func unixSeconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }
