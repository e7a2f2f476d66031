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

// shape describes the series of a store of one TiKV version, as far as a client in this package
// queries them.
type shape struct {
	version      string
	messageTypes int
	priorities   []string // The values of the label priority; "" means that there is no such label.
	bounds       int      // The number of finite bounds of the gRPC histogram.
	commands     int
}

var (
	// tikv75 has 748 series per store.
	tikv75 = &shape{version: "v7.5", messageTypes: 30, priorities: []string{""}, bounds: 22, commands: 30}

	// tikv85 has 5,000 bucket series per store.
	tikv85 = &shape{
		version: "v8.5", messageTypes: 50, priorities: []string{"high", "medium", "low", "unknown"},
		bounds: 24, commands: 43,
	}
)

const (
	interval = 15 * time.Second // The scrape interval of the data.
	past     = 2 * time.Minute  // How far the data reaches into the past.
)

// instance returns the label instance of a store.
func instance(store int) string { return fmt.Sprintf("tikv-%d:20180", store) }

// writeBlock writes a block with the series of all stores into dir. Its samples begin in the past
// and end ahead from now. Latencies differ between stores and message types, and one store in
// twenty is ten times slower. The block also has the series that recording rules would have
// written, so that /federate has something to return.
func writeBlock(ctx context.Context, dir string, s *shape, stores int, ahead time.Duration) error {
	w, err := tsdb.NewBlockWriter(slog.New(slog.DiscardHandler), dir, (24 * time.Hour).Milliseconds())
	if err != nil {
		return err
	}
	defer func() { _ = w.Close() }()

	b := &block{app: w.Appender(ctx)}
	start := time.Now().Add(-past).Truncate(interval)
	for at := start; at.Before(time.Now().Add(ahead)); at = at.Add(interval) {
		b.times = append(b.times, at.UnixMilli())
	}

	for i := range stores {
		b.addStore(s, i)
		if b.err != nil {
			return b.err
		}
		if i%50 == 49 { // Limits the memory for uncommitted samples.
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

// block collects series. After an error it ignores them.
type block struct {
	app   storage.Appender
	times []int64 // The timestamps of the samples of each series, in milliseconds.
	err   error
}

// value is the value of a series by the number of seconds since the first sample.
type value func(seconds float64) float64

// add adds a series with the given label names and values.
func (b *block) add(v value, labelPairs ...string) {
	l := labels.FromStrings(labelPairs...)
	var ref storage.SeriesRef
	for _, at := range b.times {
		if b.err != nil {
			return
		}
		ref, b.err = b.app.Append(ref, l, at, v(float64(at-b.times[0])/1000))
	}
}

// constant is a gauge that never changes.
func constant(v float64) value { return func(float64) float64 { return v } }

// counter is a counter that increases at rate per second.
func counter(rate float64) value {
	return func(t float64) float64 { return math.Floor(1e6 + rate*t) }
}

// cumulativeBucket is a cumulative bucket: the sum of buckets that increase at rates. TiKV counts
// each bucket by itself and adds them up when it is scraped, so the counts of a scrape never
// decrease from one bound to the next.
func cumulativeBucket(rates []float64) value {
	return func(t float64) float64 {
		sum := 0.0
		for _, r := range rates {
			sum += math.Floor(r * (1e5 + t))
		}
		return sum
	}
}

// storeSeries adds the series of one store.
type storeSeries struct {
	*block
	instance string
}

// add adds a series of the store. extra are the names and values of more labels.
func (s storeSeries) add(v value, name string, extra ...string) {
	pairs := []string{"__name__", name, "job", "tikv", "instance", s.instance}
	s.block.add(v, append(pairs, extra...)...)
}

// addStore adds all series of the store with number i.
func (b *block) addStore(s *shape, i int) {
	random := rand.New(rand.NewPCG(uint64(i), 1))
	store := storeSeries{block: b, instance: instance(i)}
	slowness := 1.0
	if i%20 == 7 {
		slowness = 10
	}
	median := 0.002 * math.Exp(0.25*random.NormFloat64()) * slowness

	store.add(constant(1), "up")
	store.add(constant(1.7e9), "process_start_time_seconds")
	store.add(constant(1), "tikv_server_info", "version", "v")
	store.add(constant(8), "tikv_server_cpu_cores_quota")
	store.add(counter(1+3*random.Float64()), "process_cpu_seconds_total")

	for n, kind := range []string{"capacity", "available", "used", "snap_size", "raft_size", "kv_size"} {
		store.add(constant(1e12/float64(n+1)), "tikv_store_size_bytes", "type", kind)
	}

	for c := range s.commands {
		rate := 1000 * random.ExpFloat64()
		store.add(counter(rate), "tikv_storage_command_total", "type", fmt.Sprintf("command_%d", c))
	}

	for t := range s.messageTypes {
		rate := 300 * random.ExpFloat64()
		store.addMessageType(s, t, rate, median*math.Exp(0.5*random.NormFloat64()))
	}
	store.addRaftLogLag()

	for _, g := range catalog.Gauges() {
		store.add(constant(1), recordedName(g))
	}
}

// addMessageType adds the histograms of the durations of one type of gRPC messages, one per
// priority. The durations are distributed log-normally around median.
func (s storeSeries) addMessageType(shape *shape, messageType int, rate, median float64) {
	for _, priority := range shape.priorities {
		extra := []string{"type", fmt.Sprintf("kv_%d", messageType)}
		if priority != "" {
			extra = append(extra, "priority", priority)
		}

		bound, below := 0.00005, 0.0
		var rates []float64 // Of each bucket by itself.
		for n := range shape.bounds + 1 {
			le, share := strconv.FormatFloat(bound, 'g', -1, 64), 0.5*math.Erfc(-math.Log(bound/median)/math.Sqrt2)
			if n == shape.bounds {
				le, share = "+Inf", 1
			}
			rates = append(rates, rate*(share-below))
			labelPairs := append([]string{"le", le}, extra...)
			s.add(cumulativeBucket(rates), "tikv_grpc_msg_duration_seconds_bucket", labelPairs...)
			bound *= 2
			below = share
		}
	}
}

// raftLogLagBounds are the bounds of TiKV's histogram of the raft log lag.
var raftLogLagBounds = []string{
	"2", "4", "8", "16", "32", "64", "128", "256", "512", "1024", "5120", "10240", "+Inf",
}

// addRaftLogLag adds the histogram of the raft log lag.
func (s storeSeries) addRaftLogLag() {
	share := 0.9
	var rates []float64 // Of each bucket by itself.
	for _, le := range raftLogLagBounds {
		rates = append(rates, 100*share)
		s.add(cumulativeBucket(rates), "tikv_raftstore_log_lag_bucket", "le", le)
		share = (1 - share) / 2
	}

	s.add(constant(0), "tikv_raftstore_log_lag_sum")
}
