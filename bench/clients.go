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
)

// The queries that somebody would write by hand, one a metric for all stores.
var batched = []string{
	`up{job="tikv"}`,
	`timestamp(tikv_store_size_bytes{type="available"})`,
	`sum by (job, instance) (rate(tikv_storage_command_total[1m]))`,
	`sum by (job, instance, le) (rate(tikv_grpc_msg_duration_seconds_bucket[1m]))`,
	`sum by (job, instance, type) (tikv_store_size_bytes{type=~"used|available|capacity"})`,
	`sum by (job, instance) (rate(process_cpu_seconds_total{job="tikv"}[1m]))`,
	`sum by (job, instance) (tikv_server_cpu_cores_quota)`,
	`sum by (job, instance, le) (rate(tikv_raftstore_log_lag_bucket[1m]))`,
}

// The queries that a client asks for each store, $i.
var perStore = []string{
	`sum(rate(tikv_storage_command_total{instance="$i"}[1m]))`,
	`histogram_quantile(0.99, sum by (le) (rate(tikv_grpc_msg_duration_seconds_bucket{instance="$i"}[1m])))`,
	`tikv_store_size_bytes{type="used",instance="$i"}`,
	`tikv_store_size_bytes{type="capacity",instance="$i"}`,
	`rate(process_cpu_seconds_total{job="tikv",instance="$i"}[1m])`,
}

// The rules that record the same gauges.
func rules() string {
	b := &strings.Builder{}
	b.WriteString("groups:\n- name: gauges\n  interval: 15s\n  rules:\n")
	grpc := `sum by (job, instance, le) (rate(tikv_grpc_msg_duration_seconds_bucket[1m]))`
	size := func(kind string) string { return `sum by (job, instance) (tikv_store_size_bytes{type="` + kind + `"})` }
	for i, expression := range []string{
		`sum by (job, instance) (rate(tikv_storage_command_total[1m]))`,
		`sum by (job, instance) (rate(tikv_grpc_msg_duration_seconds_bucket{le="+Inf"}[1m]))`,
		`histogram_quantile(0.95, ` + grpc + `)`, `histogram_quantile(0.99, ` + grpc + `)`,
		size("used"), size("available"), size("capacity"),
		size("used") + " / " + size("capacity"), "1 - " + size("available") + " / " + size("capacity"),
		`100 * sum by (job, instance) (rate(process_cpu_seconds_total{job="tikv"}[1m]))`,
		`sum by (job, instance) (tikv_server_cpu_cores_quota)`,
		`histogram_quantile(0.99, sum by (job, instance, le) (rate(tikv_raftstore_log_lag_bucket[1m])))`,
		`max by (job, instance) (up{job="tikv"})`, `max by (job, instance) (timestamp(tikv_store_size_bytes{type="available"}))`,
	} {
		fmt.Fprintf(b, "  - {record: %s, expr: '%s'}\n", recorded[i], expression)
	}
	return b.String()
}

// pool keeps connections alive, as everybody does who is measured.
var pool = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}

// ask asks one query, and reads the answer as a client would. It returns the samples that upstream touched, if it was asked for them.
func ask(ctx context.Context, base, query string, at time.Time, stats bool) (series int, samples float64, err error) {
	form := url.Values{"query": {query}, "time": {strconv.FormatFloat(float64(at.UnixMilli())/1000, 'f', -1, 64)}}
	if stats {
		form.Set("stats", "all")
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, base+"/api/v1/query", strings.NewReader(form.Encode()))
	if err != nil {
		return 0, 0, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := pool.Do(req)
	if err != nil {
		return 0, 0, err
	}
	defer resp.Body.Close()
	var answer struct {
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
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return 0, 0, err
	}
	if answer.Status != "success" {
		return 0, 0, fmt.Errorf("%s: %s", query, answer.Error)
	}
	return len(answer.Data.Result), answer.Data.Stats.Samples.TotalQueryableSamples, nil
}

// byHand asks the batched queries all at once.
func byHand(ctx context.Context, base string, _ int) error {
	at := time.Now()
	return each(len(batched), len(batched), func(i int) error {
		n, _, err := ask(ctx, base, batched[i], at, false)
		if err == nil && n == 0 {
			err = fmt.Errorf("%s: no series", batched[i])
		}
		return err
	})
}

// storeByStore asks the queries of one store after the other, so many at once.
func storeByStore(atOnce int) func(context.Context, string, int) error {
	return func(ctx context.Context, base string, stores int) error {
		at := time.Now()
		return each(stores*len(perStore), atOnce, func(i int) error {
			query := strings.ReplaceAll(perStore[i%len(perStore)], "$i", fmt.Sprintf("tikv-%d:20180", i/len(perStore)))
			n, _, err := ask(ctx, base, query, at, false)
			if err == nil && n != 1 {
				err = fmt.Errorf("%s: %d series", query, n)
			}
			return err
		})
	}
}

// each calls f for 0 … n-1, so many at once.
func each(n, atOnce int, f func(int) error) error {
	var (
		all   sync.WaitGroup
		mu    sync.Mutex
		first error
	)
	next := make(chan int)
	for range atOnce {
		all.Go(func() {
			for i := range next {
				if err := f(i); err != nil {
					mu.Lock()
					first = err
					mu.Unlock()
				}
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	all.Wait()
	return first
}

// get gets a page, and returns its body.
func get(ctx context.Context, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("X-Prometheus-Scrape-Timeout-Seconds", "300")
	resp, err := pool.Do(req)
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
