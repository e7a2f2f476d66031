// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"sync"
	"testing"
	"time"

	"github.com/go-kit/log"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"

	"github.com/operator-store/operator_store_exporter/collector"
	"github.com/operator-store/operator_store_exporter/config"
	"github.com/operator-store/operator_store_exporter/e2e/oracle"
)

// replay responds to a request as the oracle did the first time, so that benchmarks do not measure
// the oracle.
type replay struct {
	oracle oracle.Oracle

	mu        sync.Mutex
	responses map[string][]byte
}

var timeParameter = regexp.MustCompile(`time=[0-9.]+`)

// ServeHTTP implements http.Handler.
func (r *replay) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	key := req.URL.Path + timeParameter.ReplaceAllString(string(body), "")
	r.mu.Lock()
	response := r.responses[key]
	r.mu.Unlock()

	if response == nil {
		recorder := httptest.NewRecorder()
		req.Body = io.NopCloser(bytes.NewReader(body))
		r.oracle.ServeHTTP(recorder, req)
		response = recorder.Body.Bytes()
		r.mu.Lock()
		r.responses[key] = response
		r.mu.Unlock()
	}
	_, _ = w.Write(response)
}

// BenchmarkScrape measures a scrape, from the queries to the page, with an upstream that takes no
// time.
func BenchmarkScrape(b *testing.B) {
	for _, stores := range []int{3, 30, 300, 3000} {
		b.Run(fmt.Sprintf("stores=%d", stores), func(b *testing.B) { benchmarkScrape(b, stores) })
	}
}

func benchmarkScrape(b *testing.B, stores int) {
	upstream := httptest.NewServer(&replay{
		oracle:    oracle.Oracle{Stores: stores, Frozen: time.Unix(1_700_000_000, 0)},
		responses: map[string][]byte{},
	})
	defer upstream.Close()
	cfg, err := config.SingleCluster("c", upstream.URL)
	if err != nil {
		b.Fatal(err)
	}
	cfg.Clusters[0].StoresPerQuery = 250
	exporter, err := collector.New(cfg, collector.Options{
		Lookback: time.Hour, Interval: time.Hour, Logger: log.NewNopLogger(),
	})
	if err != nil {
		b.Fatal(err)
	}
	defer exporter.Close()

	for range 3 { // The exporter learns the bucket windows, and replay learns the responses.
		if _, err := exporter.Scrape(b.Context()); err != nil {
			b.Fatal(err)
		}
	}

	b.ReportAllocs()

	for b.Loop() {
		scrape, err := exporter.Scrape(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		if err := encode(scrape); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(stores), "ns/store")
}

// encode writes the page of a scrape.
func encode(scrape prometheus.Collector) error {
	registry := prometheus.NewRegistry()
	registry.MustRegister(scrape)
	families, err := registry.Gather()
	if err != nil {
		return err
	}

	encoder := expfmt.NewEncoder(io.Discard, expfmt.NewFormat(expfmt.TypeTextPlain))
	for _, f := range families {
		if err := encoder.Encode(f); err != nil {
			return err
		}
	}
	return nil
}
