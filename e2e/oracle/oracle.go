// SPDX-License-Identifier: Apache-2.0

// Package oracle is an upstream whose every answer can be computed by anyone: a pure function of store and time. It
// shows whether an exporter that is under load, reloaded and cut off tells a number that is not the store's, or not of the
// instant it claims.
package oracle

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/prometheus/promql/parser"
)

// Oracle is an http.Handler for the query API. It answers for stores 0 … Stores-1.
type Oracle struct {
	Stores int
	Frozen time.Time // If it is set, it is always this time.
}

// Address is the store's address as PD tells it.
func Address(store int) string { return fmt.Sprintf("tikv-%d:20160", store) }

// Instance is the instance label of the store's target.
func Instance(store int) string { return fmt.Sprintf("tikv-%d:20180", store) }

// ID is PD's id of the store.
func ID(store int) string { return strconv.Itoa(store + 1) }

// number is the value that a kind of series has at a time. It has few digits, so that it is the same in any notation.
func number(kind, store int, ms int64) float64 {
	return float64(store+1)*1000 + float64(kind)*100 + float64(ms%9973)/16
}

// bounds are the upper bounds of a histogram's buckets.
func bounds(first float64) []float64 {
	all := make([]float64, 16)
	for i := range all {
		all[i] = first
		first *= 2
	}
	return all
}

// A histogram has 900 of 1000 observations up to its bucket number shift, 60 in the next, 40 in the third after it.
func shift(store int, ms int64) int { return int((int64(store) + ms/1000) % 8) }

func counts(store int, ms int64) []float64 {
	all := make([]float64, 16)
	s := shift(store, ms)
	for i := range all {
		switch {
		case i >= s+3:
			all[i] = 1000
		case i >= s+1:
			all[i] = 960
		case i == s:
			all[i] = 900
		}
	}
	return all
}

const (
	grpcFirst = 0.001
	lagFirst  = 2
)

// Gauges are what the exporter must tell of a store at an instant, by name.
func Gauges(store int, at time.Time) map[string]float64 {
	ms := max(0, at.UnixMilli())
	used, available, capacity := number(3, store, ms), number(4, store, ms), number(5, store, ms)
	// Rank 950 is 50 of 60 into the bucket after shift, rank 990 30 of 40 into the third after it.
	p95 := func(b []float64) float64 {
		s := shift(store, ms)
		return b[s] + (b[s+1]-b[s])*(50.0/60)
	}
	p99 := func(b []float64) float64 {
		s := shift(store, ms)
		return b[s+2] + (b[s+3]-b[s+2])*(30.0/40)
	}
	return map[string]float64{
		"operator_store_up":                            1,
		"operator_store_qps":                           number(1, store, ms),
		"operator_store_grpc_qps":                      1000,
		"operator_store_latency_p95_seconds":           p95(bounds(grpcFirst)),
		"operator_store_latency_p99_seconds":           p99(bounds(grpcFirst)),
		"operator_store_disk_used_bytes":               used,
		"operator_store_disk_available_bytes":          available,
		"operator_store_disk_total_bytes":              capacity,
		"operator_store_disk_utilization_ratio":        used / capacity,
		"operator_store_disk_fill_ratio":               1 - available/capacity,
		"operator_store_cpu_percent":                   100 * number(6, store, ms),
		"operator_store_cpu_cores":                     number(7, store, ms),
		"operator_store_raft_lag":                      p99(bounds(lagFirst)),
		"operator_store_last_scrape_timestamp_seconds": float64(ms/1000 - 1),
	}
}

type series struct {
	metric map[string]string
	value  float64
}

// all are the series that a metric has once it is rated and summed.
func (o Oracle) all(metric string, timestamps bool, ms int64) []series {
	var all []series
	for i := range o.Stores {
		add := func(v float64, labels ...string) {
			m := map[string]string{"job": "tikv", "instance": Instance(i)}
			for l := 0; l < len(labels); l += 2 {
				m[labels[l]] = labels[l+1]
			}
			all = append(all, series{m, v})
		}
		histogram := func(first float64) {
			c := counts(i, ms)
			for n, b := range bounds(first) {
				add(c[n], "le", strconv.FormatFloat(b, 'g', -1, 64))
			}
			add(1000, "le", "+Inf")
		}
		switch metric {
		case "up":
			add(1)
		case "tikv_store_size_bytes":
			if timestamps {
				add(float64(ms/1000-1), "type", "available")
				continue
			}
			add(number(3, i, ms), "type", "used")
			add(number(4, i, ms), "type", "available")
			add(number(5, i, ms), "type", "capacity")
		case "tikv_storage_command_total":
			add(number(1, i, ms))
		case "process_cpu_seconds_total":
			add(number(6, i, ms))
		case "tikv_server_cpu_cores_quota":
			add(number(7, i, ms))
		case "tikv_grpc_msg_duration_seconds_bucket":
			histogram(grpcFirst)
		case "tikv_raftstore_log_lag_bucket":
			histogram(lagFirst)
		case "tikv_server_info", "process_start_time_seconds":
			add(1)
		case "pd_scheduler_store_status":
			all = append(all, series{map[string]string{"address": Address(i), "store": ID(i), "type": "store_capacity"}, 1})
		}
	}
	return all
}

// ServeHTTP implements http.Handler.
func (o Oracle) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	now := time.Now()
	if at, err := strconv.ParseFloat(r.FormValue("time"), 64); err == nil {
		now = time.UnixMilli(int64(at*1000 + 0.5))
	}
	if !o.Frozen.IsZero() {
		now = o.Frozen
	}
	var result []any
	kind := "vector"
	expressions := slices.Concat(r.Form["match[]"], r.Form["query"])
	if strings.HasSuffix(r.URL.Path, "/series") {
		kind = ""
	}
	for _, e := range expressions {
		root, err := parser.NewParser(parser.Options{}).ParseExpr(e)
		if err != nil {
			w.WriteHeader(http.StatusBadRequest)
			_ = json.NewEncoder(w).Encode(map[string]string{"status": "error", "errorType": "bad_data", "error": err.Error()})
			return
		}
		at := float64(now.UnixMilli()) / 1000
		parser.Inspect(root, func(n parser.Node, _ []parser.Node) error {
			selector, ok := n.(*parser.VectorSelector)
			if !ok {
				return nil
			}
		series:
			for _, s := range o.all(selector.Name, strings.HasPrefix(e, "timestamp("), now.UnixMilli()) {
				for _, m := range selector.LabelMatchers {
					if m.Name != "__name__" && !m.Matches(s.metric[m.Name]) {
						continue series
					}
				}
				if kind == "" {
					result = append(result, s.metric)
					continue
				}
				result = append(result, map[string]any{"metric": s.metric, "value": []any{at, strconv.FormatFloat(s.value, 'g', -1, 64)}})
			}
			return nil
		})
		if strings.Contains(e, "vector(0)") {
			result = append(result, map[string]any{"metric": map[string]string{}, "value": []any{at, "0"}})
		}
	}
	answer := map[string]any{"status": "success", "data": result}
	if kind != "" {
		if result == nil {
			result = []any{}
		}
		answer["data"] = map[string]any{"resultType": kind, "result": result}
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(answer) // Nobody listens if it fails.
}
