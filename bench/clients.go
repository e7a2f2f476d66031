// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/operator-store/operator_store_exporter/internal/gauge"
)

// catalog has the built-in gauges.
var catalog = newCatalog()

func newCatalog() *gauge.Catalog {
	c, err := gauge.NewCatalog(nil)
	if err != nil {
		panic(err) // The built-in gauges are always valid.
	}
	return c
}

// handwritten are the queries that you would write by hand: the queries that the gauges are
// computed from, each over all stores and buckets. Queries that the exporter needs only to detect
// replicas and restarts are not part of them.
var handwritten = gaugeQueries()

func gaugeQueries() []string {
	needed := map[*gauge.Query]bool{}
	for i := range catalog.Gauges() {
		for _, q := range catalog.Needs(i) {
			needed[q] = true
		}
	}

	var expressions []string
	for _, q := range catalog.Queries() {
		if needed[q] {
			expressions = append(expressions, q.Expr.String())
		}
	}

	return expressions
}

// perStore are the queries of a client that queries store by store. $instance is the instance of
// the store.
var perStore = []string{
	`sum(rate(tikv_storage_command_total{instance="$instance"}[1m]))`,
	`histogram_quantile(0.99, sum by (le) (rate(tikv_grpc_msg_duration_seconds_bucket{instance="$instance"}[1m])))`,
	`tikv_store_size_bytes{type="used",instance="$instance"}`,
	`tikv_store_size_bytes{type="capacity",instance="$instance"}`,
	`rate(process_cpu_seconds_total{job="tikv",instance="$instance"}[1m])`,
}

// runHandwritten sends the handwritten queries, all in parallel.
func runHandwritten(ctx context.Context, base string, stores int) error {
	at := time.Now()

	return inParallel(len(handwritten), len(handwritten), func(i int) error {
		response, err := queryInstant(ctx, base, handwritten[i], at, false)
		if err == nil && response.series < stores {
			err = fmt.Errorf("%s returned %d series for %d stores: add its series to addStore in bench/data.go",
				handwritten[i], response.series, stores)
		}
		return err
	})
}

// runStoreByStore sends the queries of one store after another, at most limit in parallel.
func runStoreByStore(ctx context.Context, base string, stores, limit int) error {
	at := time.Now()

	return inParallel(stores*len(perStore), limit, func(i int) error {
		query := strings.ReplaceAll(perStore[i%len(perStore)], "$instance", instance(i/len(perStore)))
		response, err := queryInstant(ctx, base, query, at, false)
		if err == nil && response.series != 1 {
			err = fmt.Errorf("%s returned %d series, want 1", query, response.series)
		}
		return err
	})
}

// samplesRead returns the number of samples that upstream reads for queries.
func samplesRead(ctx context.Context, base string, queries []string, at time.Time) (float64, error) {
	total := 0.0
	for _, q := range queries {
		response, err := queryInstant(ctx, base, q, at, true)
		if err != nil {
			return 0, err
		}
		total += response.samples
	}

	return total, nil
}

// httpClient keeps connections alive, as all clients that are measured do.
var httpClient = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}

// instantResponse is the part of the response to an instant query that is checked.
type instantResponse struct {
	series  int
	samples float64 // The samples that upstream read, if the statistics were requested.
}

// queryInstant sends an instant query and decodes the response as a client would.
func queryInstant(ctx context.Context, base, query string, at time.Time, statistics bool) (instantResponse, error) {
	form := url.Values{"query": {query}, "time": {strconv.FormatFloat(float64(at.UnixMilli())/1000, 'f', -1, 64)}}
	if statistics {
		form.Set("stats", "all")
	}
	body := strings.NewReader(form.Encode())
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, base+"/api/v1/query", body)
	if err != nil {
		return instantResponse{}, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")

	resp, err := httpClient.Do(req)
	if err != nil {
		return instantResponse{}, err
	}
	defer resp.Body.Close()
	var decoded struct {
		Status string
		Error  string
		Data   struct {
			Result []struct {
				Metric map[string]string
				Value  [2]any
			}
			Stats struct {
				Samples struct{ TotalQueryableSamples float64 }
			}
		}
	}
	if err := json.NewDecoder(resp.Body).Decode(&decoded); err != nil {
		return instantResponse{}, err
	}

	if decoded.Status != "success" {
		return instantResponse{}, fmt.Errorf("%s: %s", query, decoded.Error)
	}

	return instantResponse{
		series:  len(decoded.Data.Result),
		samples: decoded.Data.Stats.Samples.TotalQueryableSamples,
	}, nil
}

// inParallel calls f for 0 to n-1, with at most limit calls in parallel. It returns one of the
// errors.
func inParallel(n, limit int, f func(int) error) error {
	var (
		workers  sync.WaitGroup
		mu       sync.Mutex
		firstErr error
	)
	next := make(chan int)
	for range limit {
		workers.Go(func() {
			for i := range next {
				if err := f(i); err != nil {
					mu.Lock()
					if firstErr == nil {
						firstErr = err
					}
					mu.Unlock()
				}
			}
		})
	}

	for i := range n {
		next <- i
	}
	close(next)
	workers.Wait()

	return firstErr
}

// get returns the body of a page.
func get(ctx context.Context, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("X-Prometheus-Scrape-Timeout-Seconds", "300")

	resp, err := httpClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", url, resp.Status)
	}

	return body, err
}
