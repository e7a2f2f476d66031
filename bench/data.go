// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
)

// shape is the series that a store of some version of TiKV has, as far as anyone here asks for them.
type shape struct {
	name       string
	types      int
	priorities []string // "" for none.
	bounds     int      // Finite ones.
	commands   int
}

var (
	shape75 = shape{"v7.5, 748 series a store", 30, []string{""}, 22, 30}
	shape85 = shape{"v8.5, 5,000 bucket series a store", 50, []string{"high", "medium", "low", "unknown"}, 24, 43}
)

const (
	step = 15 * time.Second
	back = 2 * time.Minute // How far the data reaches into the past.
)

// write writes a block with the series of stores, from a while ago until ahead from now, into dir. Latencies differ between
// stores and types of messages, and one store in twenty is ten times slower. The gauges are there as recording rules would
// have written them, for what reads them from there.
func write(ctx context.Context, dir string, s shape, stores int, ahead time.Duration) error {
	w, err := tsdb.NewBlockWriter(slog.New(slog.DiscardHandler), dir, (24 * time.Hour).Milliseconds())
	if err != nil {
		return err
	}
	defer func() { _ = w.Close() }()
	from := time.Now().Add(-back).Truncate(step)
	b := &block{writer: w, times: nil, app: w.Appender(ctx)}
	for at := from; at.Before(time.Now().Add(ahead)); at = at.Add(step) {
		b.times = append(b.times, at.UnixMilli())
	}
	for i := range stores {
		b.store(s, i)
		if b.err != nil {
			return b.err
		}
		if i%50 == 49 { // What is not committed is held in memory.
			if err := b.app.Commit(); err != nil {
				return err
			}
			b.app = w.Appender(ctx)
		}
	}
	if err := b.app.Commit(); err != nil {
		return err
	}
	_, err = w.Flush(ctx)
	return err
}

type block struct {
	writer *tsdb.BlockWriter
	app    storage.Appender
	times  []int64
	err    error
}

// series writes one series: its value by the number of seconds since the start of the data.
func (b *block) series(value func(seconds float64) float64, pairs ...string) {
	l := labels.FromStrings(pairs...)
	var ref storage.SeriesRef
	for _, at := range b.times {
		if b.err != nil {
			return
		}
		ref, b.err = b.app.Append(ref, l, at, value(float64(at-b.times[0])/1000))
	}
}

func constant(v float64) func(float64) float64 { return func(float64) float64 { return v } }
func rising(rate float64) func(float64) float64 {
	return func(t float64) float64 { return math.Floor(1e6 + rate*t) }
}

// cumulative is the sum of what rises at each of rates.
func cumulative(rates []float64) func(float64) float64 {
	return func(t float64) float64 {
		sum := 0.0
		for _, r := range rates {
			sum += math.Floor(r * (1e5 + t))
		}
		return sum
	}
}

func (b *block) store(s shape, i int) {
	random := rand.New(rand.NewPCG(uint64(i), 1))
	target := []string{"job", "tikv", "instance", fmt.Sprintf("tikv-%d:20180", i)}
	with := func(name string, more ...string) []string {
		return append(append([]string{"__name__", name}, target...), more...)
	}
	slow := 1.0
	if i%20 == 7 {
		slow = 10
	}
	median := 0.002 * math.Exp(0.25*random.NormFloat64()) * slow
	b.series(constant(1), with("up")...)
	b.series(constant(1.7e9), with("process_start_time_seconds")...)
	b.series(constant(1), with("tikv_server_info", "version", "v")...)
	b.series(constant(8), with("tikv_server_cpu_cores_quota")...)
	b.series(rising(1+3*random.Float64()), with("process_cpu_seconds_total")...)
	for n, kind := range []string{"capacity", "available", "used", "snap_size", "raft_size", "kv_size"} {
		b.series(constant(1e12/float64(n+1)), with("tikv_store_size_bytes", "type", kind)...)
	}
	for c := range s.commands {
		b.series(rising(1000*random.ExpFloat64()), with("tikv_storage_command_total", "type", fmt.Sprintf("command_%d", c))...)
	}
	for t := range s.types {
		rate := 300 * random.ExpFloat64()
		middle := median * math.Exp(0.5*random.NormFloat64())
		for _, priority := range s.priorities {
			more := []string{"type", fmt.Sprintf("kv_%d", t)}
			if priority != "" {
				more = append(more, "priority", priority)
			}
			bound, before := 0.00005, 0.0
			var rates []float64 // Of each bucket by itself: TiKV counts them so, and adds them up.
			for n := range s.bounds + 1 {
				le, share := strconv.FormatFloat(bound, 'g', -1, 64), 0.5*math.Erfc(-math.Log(bound/middle)/math.Sqrt2)
				if n == s.bounds {
					le, share = "+Inf", 1
				}
				rates = append(rates, rate*(share-before))
				b.series(cumulative(rates), with("tikv_grpc_msg_duration_seconds_bucket", append([]string{"le", le}, more...)...)...)
				bound *= 2
				before = share
			}
		}
	}
	share := 0.9
	var rates []float64
	for _, le := range []string{"2", "4", "8", "16", "32", "64", "128", "256", "512", "1024", "5120", "10240", "+Inf"} {
		rates = append(rates, 100*share)
		b.series(cumulative(rates), with("tikv_raftstore_log_lag_bucket", "le", le)...)
		share = (1 - share) / 2
	}
	b.series(constant(0), with("tikv_raftstore_log_lag_sum")...)
	for _, gauge := range recorded {
		b.series(constant(1), with(gauge)...)
	}
}

// recorded are the names that recording rules would write.
var recorded = []string{
	"recorded_qps", "recorded_grpc_qps", "recorded_p95", "recorded_p99", "recorded_used", "recorded_available", "recorded_total",
	"recorded_utilization", "recorded_fill", "recorded_cpu", "recorded_cores", "recorded_lag", "recorded_up", "recorded_last_scrape",
}
