// SPDX-License-Identifier: Apache-2.0

// Command demo runs six simulated TiKV stores, the Prometheus that scrapes them, the exporter that asks
// it and a federation Prometheus on top, all on loopback, and prints what the federation has.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/operator-store/operator_store_exporter/collector"
	"github.com/operator-store/operator_store_exporter/e2e/simulator"
	"github.com/operator-store/operator_store_exporter/e2e/stack"
)

const (
	stores    = 6
	interval  = 2 * time.Second
	patience  = 2 * time.Minute
	readLimit = 10 * time.Second
)

func main() {
	exporter := flag.String("exporter", "./operator_store_exporter", "the exporter's binary")
	prometheus := flag.String("prometheus", ".bin/prometheus", "Prometheus' binary")
	once := flag.Bool("once", false, "end after the table, with an error if a gauge is missing")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, *exporter, *prometheus, *once, os.Stdout)
	interrupted := ctx.Err() != nil
	stop()
	if err != nil && !interrupted {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, exporterBinary, prometheusBinary string, once bool, out io.Writer) error {
	dir, err := os.MkdirTemp("", "operator_store_demo")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()

	fmt.Fprintf(out, "Starting %d simulated TiKV stores, their Prometheus, the exporter and a federation Prometheus ...\n", stores)
	cluster := simulator.NewCluster(uint64(time.Now().Unix()))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	pages := &http.Server{Handler: cluster, ReadHeaderTimeout: 10 * time.Second}
	defer func() { _ = pages.Close() }()
	go func() { _ = pages.Serve(listener) }() // It ends with Close.

	var targets []stack.Target
	for i := range stores {
		name := fmt.Sprintf("tikv-%d", i)
		cluster.AddStore(name, name+":20160", simulator.V7)
		targets = append(targets, stack.Target{Job: "tikv", Instance: name + ":20180", Address: listener.Addr().String(), Path: "/tikv/" + name})
	}
	upstream, err := stack.Prometheus(ctx, "the upstream Prometheus", prometheusBinary, filepath.Join(dir, "upstream"), interval, targets)
	if err != nil {
		return err
	}
	defer func() { _ = upstream.Stop() }()
	exporter, err := stack.Start(ctx, "the exporter", exec.CommandContext(ctx, exporterBinary,
		"--cluster=demo", "--upstream.url="+upstream.URL, "--web.listen-address=127.0.0.1:0"))
	if err != nil {
		return err
	}
	defer func() { _ = exporter.Stop() }()
	federation, err := stack.Prometheus(ctx, "the federation Prometheus", prometheusBinary, filepath.Join(dir, "federation"), interval,
		[]stack.Target{{Job: "operator_store", Address: stack.Host(exporter.URL), Path: "/metrics"}})
	if err != nil {
		return err
	}
	defer func() { _ = federation.Stop() }()

	fmt.Fprintln(out, "Waiting until the federation has every gauge of every store ...")
	t, err := waitForTable(ctx, federation.URL)
	if t != nil {
		t.print(out)
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(out, `
upstream Prometheus    %s/api/v1/query?query=up
exporter               %s/metrics
federation Prometheus  %s/api/v1/query?query=operator_store_qps
`, upstream.URL, exporter.URL, federation.URL)
	if once {
		return nil
	}
	fmt.Fprintln(out, "\nAll of it keeps running until Ctrl-C.")
	var ended *stack.Process
	select {
	case <-ctx.Done():
	case <-upstream.Exited():
		ended = upstream
	case <-exporter.Exited():
		ended = exporter
	case <-federation.Exited():
		ended = federation
	}
	if ended != nil && ctx.Err() == nil {
		return fmt.Errorf("%s ended by itself; it said:\n%s", ended.Name, ended.Log())
	}
	fmt.Fprintln(out, "\nStopping.")
	return nil
}

// table holds the gauges that the federation has, by store and name.
type table map[string]map[string]float64

// waitForTable reads the federation until it has every gauge of every store. What it has is
// returned with the error that names what is missing.
func waitForTable(ctx context.Context, federation string) (table, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var t table
	err := stack.Until(ctx, "the federation", func(ctx context.Context) (bool, error) {
		ctx, cancel := context.WithTimeout(ctx, readLimit)
		defer cancel()
		answer, err := stack.Query(ctx, http.DefaultClient, federation, `{__name__=~"operator_store_.+",address!=""}`, "")
		if err != nil {
			return false, err
		}
		t = table{}
		for _, s := range answer {
			address := s.Labels["address"]
			if t[address] == nil {
				t[address] = map[string]float64{}
			}
			t[address][s.Labels["__name__"]] = s.Value
		}
		missing := t.missing()
		if len(missing) > 0 {
			return false, fmt.Errorf("missing: %s", strings.Join(missing, ", "))
		}
		return true, nil
	})
	return t, err
}

func (t table) missing() []string {
	var missing []string
	if len(t) != stores {
		missing = append(missing, fmt.Sprintf("%d of %d stores", stores-len(t), stores))
	}
	for store, gauges := range t {
		for _, g := range collector.Gauges {
			if _, ok := gauges[g.Name]; !ok {
				missing = append(missing, g.Name+" of "+store)
			}
		}
	}
	slices.Sort(missing)
	return missing
}

// The columns of the table: what they are headed, and how a person reads the gauge.
var columns = []struct {
	head, gauge string
	format      func(float64) string
}{
	{"UP", "operator_store_up", plain("%.0f")},
	{"QPS", "operator_store_qps", plain("%.1f")},
	{"GRPC QPS", "operator_store_grpc_qps", plain("%.1f")},
	{"P95", "operator_store_latency_p95_seconds", milliseconds},
	{"P99", "operator_store_latency_p99_seconds", milliseconds},
	{"USED", "operator_store_disk_used_bytes", gibibytes},
	{"AVAILABLE", "operator_store_disk_available_bytes", gibibytes},
	{"TOTAL", "operator_store_disk_total_bytes", gibibytes},
	{"UTILIZATION", "operator_store_disk_utilization_ratio", percent},
	{"FILL", "operator_store_disk_fill_ratio", percent},
	{"CPU", "operator_store_cpu_percent", plain("%.0f%%")},
	{"CORES", "operator_store_cpu_cores", plain("%.0f")},
	{"RAFT LAG", "operator_store_raft_lag", plain("%.1f")},
	{"LAST SCRAPE", "operator_store_last_scrape_timestamp_seconds", func(v float64) string {
		return time.UnixMilli(int64(v * 1000)).Format(time.TimeOnly)
	}},
}

func plain(format string) func(float64) string {
	return func(v float64) string { return fmt.Sprintf(format, v) }
}

func milliseconds(v float64) string { return fmt.Sprintf("%.2f ms", v*1e3) }
func gibibytes(v float64) string    { return fmt.Sprintf("%.0f GiB", v/(1<<30)) }
func percent(v float64) string      { return fmt.Sprintf("%.0f%%", v*100) }

func (t table) print(out io.Writer) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(w, "\nSTORE\t")
	for _, c := range columns {
		fmt.Fprint(w, c.head, "\t")
	}
	fmt.Fprintln(w)
	addresses := make([]string, 0, len(t))
	for a := range t {
		addresses = append(addresses, a)
	}
	slices.Sort(addresses)
	for _, a := range addresses {
		fmt.Fprint(w, a, "\t")
		for _, c := range columns {
			cell := "-"
			if v, ok := t[a][c.gauge]; ok {
				cell = c.format(v)
			}
			fmt.Fprint(w, cell, "\t")
		}
		fmt.Fprintln(w)
	}
	_ = w.Flush()
}
