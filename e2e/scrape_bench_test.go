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

// replay answers what the oracle answered to the same question before, so that its own work is not measured.
type replay struct {
	oracle oracle.Oracle
	mu     sync.Mutex
	known  map[string][]byte
}

var when = regexp.MustCompile(`time=[0-9.]+`)

func (r *replay) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	key := req.URL.Path + when.ReplaceAllString(string(body), "")
	r.mu.Lock()
	answer := r.known[key]
	r.mu.Unlock()
	if answer == nil {
		recorder := httptest.NewRecorder()
		req.Body = io.NopCloser(bytes.NewReader(body))
		r.oracle.ServeHTTP(recorder, req)
		answer = recorder.Body.Bytes()
		r.mu.Lock()
		r.known[key] = answer
		r.mu.Unlock()
	}
	_, _ = w.Write(answer)
}

// BenchmarkScrape is a whole scrape, from the queries to the page, against an upstream that costs nothing.
func BenchmarkScrape(b *testing.B) {
	for _, n := range []int{3, 30, 300, 3000} {
		b.Run(fmt.Sprintf("stores=%d", n), func(b *testing.B) {
			server := httptest.NewServer(&replay{oracle: oracle.Oracle{Stores: n, Frozen: time.Unix(1_700_000_000, 0)}, known: map[string][]byte{}})
			defer server.Close()
			cfg, err := config.SingleCluster("c", server.URL)
			if err != nil {
				b.Fatal(err)
			}
			cfg.Clusters[0].StoresPerQuery = 250
			e, err := collector.New(cfg, collector.Options{Lookback: time.Hour, Interval: time.Hour, Logger: log.NewNopLogger()})
			if err != nil {
				b.Fatal(err)
			}
			defer e.Close()
			for range 3 { // The oracle's own work, and what windows and chunks have to learn.
				if _, err := e.Scrape(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportAllocs()
			for b.Loop() {
				c, err := e.Scrape(b.Context())
				if err != nil {
					b.Fatal(err)
				}
				registry := prometheus.NewRegistry()
				registry.MustRegister(c)
				families, err := registry.Gather()
				if err != nil {
					b.Fatal(err)
				}
				encoder := expfmt.NewEncoder(io.Discard, expfmt.NewFormat(expfmt.TypeTextPlain))
				for _, f := range families {
					if err := encoder.Encode(f); err != nil {
						b.Fatal(err)
					}
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/store")
		})
	}
}
