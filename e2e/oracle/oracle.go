// SPDX-License-Identifier: Apache-2.0

// Package oracle is an upstream whose responses are a pure function of store and time.
//
// Because every value can be computed, a test can prove that an exporter under load, reloads and
// faults never exposes a value of another store or of another time than the page claims.
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

// Oracle is an http.Handler for the query API. It has the stores 0 to Stores-1.
type Oracle struct {
	Stores int
	Frozen time.Time // If set, the time of every response.

	// Condition is the condition of each store at each time; nil if all stores are always healthy.
	Condition func(store int, at time.Time) Condition
}

// Condition is the condition of a store, as far as the upstream knows.
type Condition int

// The conditions.
const (
	Healthy  Condition = iota
	Down               // The upstream fails to scrape the store: its only series is up, which is 0.
	Vanished           // The upstream has no series of the store.
)

// condition returns the condition of a store at a time.
func (o Oracle) condition(store int, ms int64) Condition {
	if o.Condition == nil {
		return Healthy
	}
	return o.Condition(store, time.UnixMilli(ms))
}

// Address returns the address of a store, as PD has it.
func Address(store int) string { return fmt.Sprintf("tikv-%d:20160", store) }

// Instance returns the instance label of a store's target.
func Instance(store int) string { return fmt.Sprintf("tikv-%d:20180", store) }

// ID returns PD's ID of a store.
func ID(store int) string { return strconv.Itoa(store + 1) }

// The kinds of series that have one value per store.
const (
	commands = iota + 1
	_
	used
	available
	capacity
	cpuSeconds
	cpuQuota
)

// number returns the value of a kind of series at a time. It has few digits, so that all notations
// give the same value.
func number(kind, store int, ms int64) float64 {
	return float64(store+1)*1000 + float64(kind)*100 + float64(ms%9973)/16
}

const (
	buckets = 16 // Buckets of a histogram, without +Inf.

	firstGRPCBound = 0.001
	firstLagBound  = 2
)

// bounds returns the upper bounds of the buckets of a histogram.
func bounds(first float64) []float64 {
	all := make([]float64, buckets)
	for i := range all {
		all[i] = first
		first *= 2
	}
	return all
}

// shift returns the index of the bucket up to which a histogram has 900 of its 1000 observations.
// The next bucket has another 60, and the one two further has the remaining 40.
func shift(store int, ms int64) int { return int((int64(store) + ms/1000) % 8) }

// counts returns the cumulative counts of the buckets of a histogram.
func counts(store int, ms int64) []float64 {
	s := shift(store, ms)
	all := make([]float64, buckets)
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

// p95 returns the 95th percentile of a histogram: rank 950 is 50 of 60 into the bucket after shift.
func p95(first float64, store int, ms int64) float64 {
	b, s := bounds(first), shift(store, ms)
	return b[s] + (b[s+1]-b[s])*(50.0/60)
}

// p99 returns the 99th percentile of a histogram: rank 990 is 30 of 40 into the third bucket after
// shift.
func p99(first float64, store int, ms int64) float64 {
	b, s := bounds(first), shift(store, ms)
	return b[s+2] + (b[s+3]-b[s+2])*(30.0/40)
}

// Gauges returns the gauges that the exporter must expose for a store at an evaluation time, by
// name. A gauge that is not written here is the sum of one metric; see derivedGauges.
func Gauges(store int, at time.Time) map[string]float64 {
	ms := max(0, at.UnixMilli())
	usedBytes := number(used, store, ms)
	availableBytes := number(available, store, ms)
	totalBytes := number(capacity, store, ms)

	gauges := map[string]float64{
		"operator_store_up":                            1,
		"operator_store_monitored":                     1,
		"operator_store_qps":                           number(commands, store, ms),
		"operator_store_grpc_qps":                      1000,
		"operator_store_latency_p95_seconds":           p95(firstGRPCBound, store, ms),
		"operator_store_latency_p99_seconds":           p99(firstGRPCBound, store, ms),
		"operator_store_disk_used_bytes":               usedBytes,
		"operator_store_disk_available_bytes":          availableBytes,
		"operator_store_disk_total_bytes":              totalBytes,
		"operator_store_disk_utilization_ratio":        usedBytes / totalBytes,
		"operator_store_disk_fill_ratio":               1 - availableBytes/totalBytes,
		"operator_store_cpu_percent":                   100 * number(cpuSeconds, store, ms),
		"operator_store_cpu_cores":                     number(cpuQuota, store, ms),
		"operator_store_raft_lag":                      p99(firstLagBound, store, ms),
		"operator_store_last_scrape_timestamp_seconds": float64(ms/1000 - 1),
	}
	for _, d := range derivedGauges() {
		if _, ok := gauges[d.name]; !ok {
			gauges[d.name] = number(d.kind, store, ms)
		}
	}

	return gauges
}

// gauges returns the gauges that the exporter must expose for a store in its condition at an
// evaluation time.
func (o Oracle) gauges(store int, at time.Time) map[string]float64 {
	switch o.condition(store, at.UnixMilli()) {
	case Down:
		return map[string]float64{"operator_store_up": 0, "operator_store_monitored": 1}
	case Vanished:
		return map[string]float64{"operator_store_monitored": 0}
	default:
		return Gauges(store, at)
	}
}

// series is a series of a query's result.
type series struct {
	metric map[string]string
	value  float64
}

// matches reports whether the series has the labels that a selector requires.
func (s series) matches(selector *parser.VectorSelector) bool {
	for _, m := range selector.LabelMatchers {
		if m.Name != "__name__" && !m.Matches(s.metric[m.Name]) {
			return false
		}
	}
	return true
}

// groupedBy returns the series without the labels that an aggregation removes. Without a grouping,
// it keeps all labels.
func (s series) groupedBy(grouping []string) series {
	if len(grouping) == 0 {
		return s
	}

	metric := map[string]string{}
	for _, name := range grouping {
		if v, ok := s.metric[name]; ok {
			metric[name] = v
		}
	}
	return series{metric: metric, value: s.value}
}

// seriesOf returns the series that a metric of one store has after rate and sum, or its timestamps.
func seriesOf(metric string, timestamps bool, store int, ms int64) []series {
	one := func(v float64, labels ...string) series {
		m := map[string]string{"job": "tikv", "instance": Instance(store)}
		for i := 0; i < len(labels); i += 2 {
			m[labels[i]] = labels[i+1]
		}
		return series{metric: m, value: v}
	}
	histogram := func(first float64) []series {
		var all []series
		c := counts(store, ms)
		for i, bound := range bounds(first) {
			all = append(all, one(c[i], "le", strconv.FormatFloat(bound, 'g', -1, 64)))
		}
		return append(all, one(1000, "le", "+Inf"))
	}

	switch metric {
	case "up", "tikv_server_info", "process_start_time_seconds":
		return []series{one(1)}
	case "tikv_store_size_bytes":
		if timestamps {
			return []series{one(float64(ms/1000-1), "type", "available")}
		}
		return []series{
			one(number(used, store, ms), "type", "used"),
			one(number(available, store, ms), "type", "available"),
			one(number(capacity, store, ms), "type", "capacity"),
		}
	case "tikv_storage_command_total":
		return []series{one(number(commands, store, ms))}
	case "process_cpu_seconds_total":
		return []series{one(number(cpuSeconds, store, ms))}
	case "tikv_server_cpu_cores_quota":
		return []series{one(number(cpuQuota, store, ms))}
	case "tikv_grpc_msg_duration_seconds_bucket":
		return histogram(firstGRPCBound)
	case "tikv_raftstore_log_lag_bucket":
		return histogram(firstLagBound)
	case "pd_scheduler_store_status":
		labels := map[string]string{"address": Address(store), "store": ID(store), "type": "store_capacity"}
		return []series{{metric: labels, value: 1}}
	default:
		var all []series
		for _, d := range derivedGauges() {
			if d.metric == metric {
				all = append(all, one(number(d.kind, store, ms), d.labels...))
			}
		}
		return all
	}
}

// seriesOf is the function of the same name for a store in its condition. PD has series of every
// store.
func (o Oracle) seriesOf(metric string, timestamps bool, store int, ms int64) []series {
	all := seriesOf(metric, timestamps, store, ms)
	condition := o.condition(store, ms)
	switch {
	case condition == Healthy || metric == "pd_scheduler_store_status":
		return all
	case condition == Down && metric == "up":
		for i := range all {
			all[i].value = 0
		}
		return all
	default:
		return nil
	}
}

// evaluate returns the series that the selectors of an expression select, with the labels that the
// expression groups by.
func (o Oracle) evaluate(expression string, ms int64) ([]series, error) {
	root, err := parser.NewParser(parser.Options{}).ParseExpr(expression)
	if err != nil {
		return nil, err
	}

	var result []series
	var grouping []string
	timestamps := strings.HasPrefix(expression, "timestamp(")
	parser.Inspect(root, func(n parser.Node, _ []parser.Node) error {
		if a, ok := n.(*parser.AggregateExpr); ok {
			grouping = a.Grouping
		}
		selector, ok := n.(*parser.VectorSelector)
		if !ok {
			return nil
		}

		for store := range o.Stores {
			for _, s := range o.seriesOf(selector.Name, timestamps, store, ms) {
				if s.matches(selector) {
					result = append(result, s.groupedBy(grouping))
				}
			}
		}
		return nil
	})
	if strings.Contains(expression, "vector(0)") {
		result = append(result, series{metric: map[string]string{}})
	}

	return result, nil
}

// ServeHTTP implements http.Handler.
func (o Oracle) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	now := time.Now()
	if at, err := strconv.ParseFloat(r.FormValue("time")+r.FormValue("end"), 64); err == nil {
		now = time.UnixMilli(int64(at*1000 + 0.5))
	}
	if !o.Frozen.IsZero() {
		now = o.Frozen
	}

	var result []series
	for _, expression := range slices.Concat(r.Form["match[]"], r.Form["query"]) {
		selected, err := o.evaluate(expression, now.UnixMilli())
		if err != nil {
			w.WriteHeader(http.StatusBadRequest)
			respond(w, map[string]any{"status": "error", "errorType": "bad_data", "error": err.Error()})
			return
		}
		result = append(result, selected...)
	}

	w.Header().Set("Content-Type", "application/json")
	if strings.HasSuffix(r.URL.Path, "/series") {
		respond(w, map[string]any{"status": "success", "data": labelSets(result)})
		return
	}
	data := map[string]any{"resultType": "vector", "result": vector(result, now)}
	if within, ok := rangeOf(r.FormValue("query")); ok {
		data = map[string]any{"resultType": "matrix", "result": matrix(result, within, now)}
	}
	respond(w, map[string]any{"status": "success", "data": data})
}

// labelSets returns the data of a response about series.
func labelSets(result []series) []map[string]string {
	var sets []map[string]string
	for _, s := range result {
		sets = append(sets, s.metric)
	}
	return sets
}

// vector returns the result of an instant query.
func vector(result []series, now time.Time) []map[string]any {
	at := float64(now.UnixMilli()) / 1000
	samples := []map[string]any{}
	for _, s := range result {
		value := []any{at, strconv.FormatFloat(s.value, 'g', -1, 64)}
		samples = append(samples, map[string]any{"metric": s.metric, "value": value})
	}
	return samples
}

// rangeOf returns the range of an expression that is a range vector.
func rangeOf(expression string) (within time.Duration, ok bool) {
	root, err := parser.NewParser(parser.Options{}).ParseExpr(expression)
	if err != nil {
		return 0, false
	}
	selector, ok := root.(*parser.MatrixSelector)
	if !ok {
		return 0, false
	}
	return selector.Range, true
}

// scrapeInterval is the distance between the samples of a series.
const scrapeInterval = 15 * time.Second

// matrix returns the result of an instant query for a range vector: what each series is at the
// given time, at all times.
func matrix(result []series, within time.Duration, now time.Time) []map[string]any {
	all := []map[string]any{}
	for _, s := range result {
		var values [][]any
		for at := now.Truncate(scrapeInterval); at.After(now.Add(-within)); at = at.Add(-scrapeInterval) {
			values = append(values, []any{float64(at.UnixMilli()) / 1000, strconv.FormatFloat(s.value, 'g', -1, 64)})
		}
		slices.Reverse(values)
		all = append(all, map[string]any{"metric": s.metric, "values": values})
	}
	return all
}

func respond(w http.ResponseWriter, body map[string]any) {
	_ = json.NewEncoder(w).Encode(body) // If it fails, the client has gone.
}
