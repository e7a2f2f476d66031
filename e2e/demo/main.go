// SPDX-License-Identifier: Apache-2.0

// Command demo runs six simulated TiKV stores, their Prometheus, the exporter and a federation
// Prometheus on loopback, and prints the gauges that the federation Prometheus has.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"maps"
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

	"github.com/operator-store/operator_store_exporter/e2e/simulator"
	"github.com/operator-store/operator_store_exporter/e2e/stack"
	"github.com/operator-store/operator_store_exporter/e2e/truth"
	"github.com/operator-store/operator_store_exporter/internal/display"
)

const (
	stores         = 6
	scrapeInterval = 2 * time.Second
	tableTimeout   = 2 * time.Minute  // How long the federation may take to have all gauges.
	queryTimeout   = 10 * time.Second // How long a query may take.
)

func main() {
	var d demo
	flag.StringVar(&d.exporterBinary, "exporter", "./operator_store_exporter", "Path of the exporter.")
	flag.StringVar(&d.prometheusBinary, "prometheus", ".bin/prometheus", "Path of Prometheus.")
	flag.BoolVar(&d.once, "once", false, "Exit after the table, with an error if a gauge is missing.")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := d.run(ctx, os.Stdout)
	interrupted := ctx.Err() != nil
	stop()
	if err != nil && !interrupted {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

type demo struct {
	exporterBinary, prometheusBinary string
	once                             bool

	upstream, exporter, federation *stack.Process
}

func (d *demo) run(ctx context.Context, out io.Writer) error {
	dir, err := os.MkdirTemp("", "operator_store_demo")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()

	fmt.Fprintf(out, "Starting %d simulated TiKV stores, their Prometheus, the exporter "+
		"and a federation Prometheus ...\n", stores)
	defer d.stop()
	if err := d.start(ctx, dir); err != nil {
		return err
	}

	fmt.Fprintln(out, "Waiting until the federation Prometheus has every gauge of every store ...")
	t, err := waitForTable(ctx, d.federation.URL)
	t.print(out)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, `
upstream Prometheus    %s/api/v1/query?query=up
exporter               %s/metrics
federation Prometheus  %s/api/v1/query?query=operator_store_qps
`, d.upstream.URL, d.exporter.URL, d.federation.URL)
	if d.once {
		return nil
	}

	fmt.Fprintln(out, "\nEverything keeps running until Ctrl-C.")
	if err := d.wait(ctx); err != nil {
		return err
	}
	fmt.Fprintln(out, "\nStopping.")

	return nil
}

// start starts the simulator and the servers. The simulator runs until the program ends.
func (d *demo) start(ctx context.Context, dir string) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}

	cluster := simulator.NewCluster(uint64(time.Now().Unix()))
	var targets []stack.Target
	for i := range stores {
		name := fmt.Sprintf("tikv-%d", i)
		cluster.AddStore(name, name+":20160", simulator.V7)
		targets = append(targets, stack.Target{
			Job: "tikv", Instance: name + ":20180", Address: listener.Addr().String(), Path: "/tikv/" + name,
		})
	}

	pages := &http.Server{Handler: cluster, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = pages.Serve(listener) }()

	d.upstream, err = stack.Prometheus(
		ctx, "the upstream Prometheus", d.prometheusBinary, filepath.Join(dir, "upstream"), scrapeInterval, targets)
	if err != nil {
		return err
	}
	d.exporter, err = stack.Start(ctx, "the exporter", exec.CommandContext(ctx, d.exporterBinary,
		"--cluster=demo", "--upstream.url="+d.upstream.URL, "--web.listen-address=127.0.0.1:0"))
	if err != nil {
		return err
	}
	target := stack.Target{Job: "operator_store", Address: stack.Host(d.exporter.URL), Path: "/metrics"}
	d.federation, err = stack.Prometheus(
		ctx, "the federation Prometheus", d.prometheusBinary, filepath.Join(dir, "federation"), scrapeInterval,
		[]stack.Target{target})

	return err
}

// stop stops the servers that were started.
func (d *demo) stop() {
	for _, p := range []*stack.Process{d.federation, d.exporter, d.upstream} {
		if p != nil {
			_ = p.Stop()
		}
	}
}

// wait waits until ctx ends. The error is that of a server that ended by itself.
func (d *demo) wait(ctx context.Context) error {
	var ended *stack.Process
	select {
	case <-ctx.Done():
		return nil
	case <-d.upstream.Exited():
		ended = d.upstream
	case <-d.exporter.Exited():
		ended = d.exporter
	case <-d.federation.Exited():
		ended = d.federation
	}

	if ctx.Err() == nil { // Otherwise, Ctrl-C ended the servers too.
		return fmt.Errorf("%s ended by itself; its log:\n%s", ended.Name, ended.Log())
	}

	return nil
}

// table holds the gauges that the federation Prometheus has, by store and name.
type table map[string]map[string]float64

// waitForTable queries the federation Prometheus until it has every gauge of every store. If the
// error is not nil, it names the missing gauges, and the table has the others.
func waitForTable(ctx context.Context, federation string) (table, error) {
	ctx, cancel := context.WithTimeout(ctx, tableTimeout)
	defer cancel()

	var t table
	err := stack.Until(ctx, "the federation Prometheus", func(ctx context.Context) (bool, error) {
		ctx, cancel := context.WithTimeout(ctx, queryTimeout)
		defer cancel()
		const expression = `{__name__=~"operator_store_.+",address!=""}`
		result, err := stack.Query(ctx, http.DefaultClient, federation, expression, "")
		if err != nil {
			return false, err
		}

		t = table{}
		for _, s := range result {
			address := s.Labels["address"]
			if t[address] == nil {
				t[address] = map[string]float64{}
			}
			t[address][s.Labels["__name__"]] = s.Value
		}
		if missing := t.missing(); len(missing) > 0 {
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
		for _, name := range truth.Names() {
			if _, ok := gauges[name]; !ok {
				missing = append(missing, name+" of "+store)
			}
		}
	}
	slices.Sort(missing)
	return missing
}

// print prints a row for each store, and nothing if there is no store.
func (t table) print(out io.Writer) {
	if len(t) == 0 {
		return
	}

	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(w, "\nSTORE\t")

	for _, name := range truth.Names() {
		fmt.Fprint(w, strings.ToUpper(display.Title(name)), "\t")
	}
	fmt.Fprintln(w)

	for _, address := range slices.Sorted(maps.Keys(t)) {
		fmt.Fprint(w, address, "\t")

		for _, name := range truth.Names() {
			cell := "-"
			if v, ok := t[address][name]; ok {
				cell = display.Human(name, v, time.Now())
			}
			fmt.Fprint(w, cell, "\t")
		}
		fmt.Fprintln(w)
	}
	_ = w.Flush()
}
