// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/operator-store/operator_store_exporter/e2e/simulator"
	"github.com/operator-store/operator_store_exporter/e2e/stack"
)

// What each gauge of one store is, as somebody would ask upstream by hand for that store alone.
// $t stands for the target's matchers.
var byHand = map[string]string{
	"operator_store_up":                            `up{$t}`,
	"operator_store_qps":                           `sum(rate(tikv_storage_command_total{$t}[10s]))`,
	"operator_store_grpc_qps":                      `sum(rate(tikv_grpc_msg_duration_seconds_bucket{le="+Inf",$t}[10s]))`,
	"operator_store_latency_p95_seconds":           `histogram_quantile(0.95, sum by (le) (rate(tikv_grpc_msg_duration_seconds_bucket{$t}[10s])))`,
	"operator_store_latency_p99_seconds":           `histogram_quantile(0.99, sum by (le) (rate(tikv_grpc_msg_duration_seconds_bucket{$t}[10s])))`,
	"operator_store_disk_used_bytes":               `tikv_store_size_bytes{type="used",$t}`,
	"operator_store_disk_available_bytes":          `tikv_store_size_bytes{type="available",$t}`,
	"operator_store_disk_total_bytes":              `tikv_store_size_bytes{type="capacity",$t}`,
	"operator_store_disk_utilization_ratio":        `tikv_store_size_bytes{type="used",$t} / ignoring (type) (tikv_store_size_bytes{type="capacity",$t} > 0)`,
	"operator_store_disk_fill_ratio":               `1 - tikv_store_size_bytes{type="available",$t} / ignoring (type) (tikv_store_size_bytes{type="capacity",$t} > 0)`,
	"operator_store_cpu_percent":                   `100 * rate(process_cpu_seconds_total{$t}[10s])`,
	"operator_store_cpu_cores":                     `tikv_server_cpu_cores_quota{$t}`,
	"operator_store_raft_lag":                      `histogram_quantile(0.99, sum by (le) (rate(tikv_raftstore_log_lag_bucket{$t}[10s])))`,
	"operator_store_last_scrape_timestamp_seconds": `max(timestamp(tikv_store_size_bytes{type="available",$t}))`,
}

// The stores of the end-to-end test: every prefix trap, three versions, and each kind of trouble.
var fleet = []struct {
	id       int
	host     string
	instance string // Where it is not host:20180.
	version  simulator.Version
	trouble  func(*simulator.Store)
	absent   []string // The gauges that the trouble takes.
}{
	{id: 1, host: "tikv-1", version: simulator.V7},
	{id: 2, host: "tikv-10", version: simulator.V7},
	{id: 3, host: "tikv-11", version: simulator.V7},
	{id: 4, host: "10.0.0.1", version: simulator.V7},
	{id: 5, host: "10.0.0.10", version: simulator.V7},
	{id: 6, host: "[2001:db8::1]", version: simulator.V7},
	{id: 7, host: "TiKV-A.example.com", instance: "tikv-a.example.com:20180", version: simulator.V7},
	{
		id: 8, host: "old", version: simulator.V4,
		absent: []string{"operator_store_disk_used_bytes", "operator_store_disk_utilization_ratio", "operator_store_cpu_cores"},
	},
	{id: 9, host: "new", version: simulator.V8},
	{
		id: 10, host: "idle", version: simulator.V7, trouble: (*simulator.Store).Idle,
		absent: []string{"operator_store_latency_p95_seconds", "operator_store_latency_p99_seconds", "operator_store_raft_lag"},
	},
	{
		id: 11, host: "stopped", version: simulator.V7, trouble: (*simulator.Store).Stop,
		absent: allBut("operator_store_up"),
	},
	{
		id: 12, host: "no-capacity", version: simulator.V7, trouble: (*simulator.Store).DropCapacity,
		absent: []string{"operator_store_disk_total_bytes", "operator_store_disk_utilization_ratio", "operator_store_disk_fill_ratio"},
	},
}

func allBut(gauge string) []string {
	var others []string
	for g := range byHand {
		if g != gauge {
			others = append(others, g)
		}
	}
	return others
}

// The whole story: simulated stores, a real upstream that scrapes them, the exporter that asks it, and a
// real federation Prometheus on top, whose every number is held against what upstream says of that one store.
func TestFederationHasWhatUpstreamSaysOfEachStore(t *testing.T) {
	for _, u := range []struct {
		name  string
		start func(*testing.T, ...stack.Target) *stack.Process
		stays string  // What a stopped store keeps there.
		sums  float64 // The relative difference of a sum that is added up in another order.
	}{
		{"Prometheus", startWith(stack.Prometheus, prometheusBinary), "", 0},
		{"an old Prometheus", startWith(stack.Prometheus, oldPrometheusBinary), "", 0},
		// Its timestamp() tells of the last sample, even if the series has ended since, and it adds up in any order.
		{"VictoriaMetrics", startWith(stack.VictoriaMetrics, victoriaMetricsBinary), "operator_store_last_scrape_timestamp_seconds", 1e-12},
	} {
		t.Run(u.name, func(t *testing.T) { requireFederation(t, u.start, u.stays, u.sums) })
	}
}

// startWith is how an upstream of binary is started.
func startWith(start func(context.Context, string, string, string, time.Duration, []stack.Target) (*stack.Process, error), binary string) func(*testing.T, ...stack.Target) *stack.Process {
	return func(t *testing.T, targets ...stack.Target) *stack.Process {
		t.Helper()
		p, err := start(t.Context(), "upstream", binary, t.TempDir(), time.Second, targets)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = p.Kill() })
		return p
	}
}

func requireFederation(t *testing.T, start func(*testing.T, ...stack.Target) *stack.Process, stays string, sums float64) {
	t.Helper()
	cluster := simulator.NewCluster(1)
	pages := stack.Host(serve(t, cluster))
	config := &strings.Builder{}
	var targets []stack.Target
	instances := map[string]string{} // By the store's address.
	var subjects []subject
	var troubles []func()
	for _, f := range fleet {
		address := f.host + ":20160"
		instance := f.instance
		if instance == "" {
			instance = f.host + ":20180"
		}
		instances[address] = instance
		subjects = append(subjects, subject{"prod", address, fmt.Sprintf(`job="tikv",instance=%q`, instance)})
		store := cluster.AddStore(f.host, address, f.version)
		if f.trouble != nil {
			troubles = append(troubles, func() { f.trouble(store) })
		}
		targets = append(targets, stack.Target{Job: "tikv", Instance: instance, Address: pages, Path: "/tikv/" + f.host})
		fmt.Fprintf(config, "    - {id: %d, address: %q}\n", f.id, address)
	}
	// The neighbours that must not be taken for a store: a node exporter on each host, a probe whose
	// instance is that of the TiKV it probes, and a second TiKV on the host of a store that does not say which.
	cluster.AddProcess("neighbour")
	for _, f := range fleet {
		targets = append(targets, stack.Target{Job: "node", Instance: f.host + ":9100", Address: pages, Path: "/process/neighbour"})
	}
	targets = append(targets, stack.Target{Job: "tidb_port_probe", Instance: "tikv-1:20180", Address: pages, Path: "/process/neighbour"})
	for _, port := range []string{"20180", "20181"} {
		cluster.AddStore("twin"+port, "twin", simulator.V7)
		targets = append(targets, stack.Target{Job: "tikv", Instance: "twin:" + port, Address: pages, Path: "/tikv/twin" + port})
	}
	upstream := start(t, targets...)

	// The troubles begin once upstream has seen every store well.
	until(t, "upstream to have rates of all stores", func(ctx context.Context) (bool, error) {
		s, err := query(ctx, upstream.URL, `count(rate(process_cpu_seconds_total{job="tikv"}[10s]))`, "")
		return err == nil && len(s) == 1 && s[0].Value == float64(len(fleet)+2), err
	})
	for _, trouble := range troubles {
		trouble()
	}
	until(t, "upstream to see no rate of the idle store", func(ctx context.Context) (bool, error) {
		s, err := query(ctx, upstream.URL, `sum(rate(tikv_grpc_msg_duration_seconds_count{instance="idle:20180"}[10s])) == 0 and on () (up{instance="stopped:20180"} == 0)`, "")
		return len(s) == 1, err
	})

	exporter, log := startExporter(t, "--config.file="+writeFile(t, "config.yml", fmt.Sprintf(`
clusters:
- name: prod
  upstream: {url: %[1]q}
  rate_window: 10s
  stores:
%[2]s    - {id: 13, address: "twin:20160"}
    - {id: 14, address: "ghost:20160"}
- name: seen
  upstream: {url: %[1]q}
  rate_window: 10s
`, upstream.URL, config)))
	federation := startPrometheus(t, "federation", time.Second, stack.Target{Job: "operator_store", Address: stack.Host(exporter), Path: "/metrics"})

	gauges := requireTruth(t, federation.URL, upstream.URL, sums, func(federated) []subject { return subjects })

	t.Run("each trouble takes the gauges that it must", func(t *testing.T) {
		for _, f := range fleet {
			for gauge := range byHand {
				_, there := gauges.value(gauge, "prod", f.host+":20160")
				if want := !slices.Contains(f.absent, gauge) || f.host == "stopped" && gauge == stays; there != want {
					t.Errorf("%s of %s: there = %v, want %v", gauge, f.host, there, want)
				}
			}
		}
	})
	t.Run("what the simulator knows is what comes out", func(t *testing.T) {
		for _, f := range fleet[:7] {
			truth := cluster.Store(f.host).Truth()
			address := f.host + ":20160"
			if qps, _ := gauges.value("operator_store_qps", "prod", address); math.Abs(qps/truth.QPS()-1) > 0.05 {
				t.Errorf("%s: QPS %g, want about %g", f.host, qps, truth.QPS())
			}
			if total, _ := gauges.value("operator_store_disk_total_bytes", "prod", address); total != truth.Capacity {
				t.Errorf("%s: capacity %g, want %g", f.host, total, truth.Capacity)
			}
			// A bucket bound is twice the one below it, so an interpolated quantile is off by a factor of two at most.
			p99, _ := gauges.value("operator_store_latency_p99_seconds", "prod", address)
			if truth.Below(p99*2) < 0.99 || truth.Below(p99/2) > 0.99 {
				t.Errorf("%s: p99 %g, but %g of the messages are below twice and %g below half of it", f.host, p99, truth.Below(p99*2), truth.Below(p99/2))
			}
		}
	})
	t.Run("a store that two targets fit has no gauge, and both are named", func(t *testing.T) {
		if found := gauges.of("prod", "twin:20160"); len(found) > 0 {
			t.Errorf("there is %v", found)
		}
		if v := gauges.self("operator_store_exporter_query_failures_total", "prod", "reason", "ambiguous"); v < 1 {
			t.Errorf("%g stores were counted as ambiguous, want at least 1", v)
		}
		if lines := log.matching("twin:20160", "twin:20180", "twin:20181"); len(lines) != 1 {
			t.Errorf("the log says %q, want one line with the store and both targets", lines)
		}
	})
	t.Run("a store that upstream does not know is down", func(t *testing.T) {
		if found := gauges.of("prod", "ghost:20160"); len(found) != 1 || found["operator_store_up"] != 0 {
			t.Errorf("there is %v, want operator_store_up 0 alone", found)
		}
	})
	t.Run("without configured stores there are those that upstream saw", func(t *testing.T) {
		want := map[string]bool{"twin:20180": true, "twin:20181": true}
		for _, instance := range instances {
			want[instance] = true
		}
		for instance := range want {
			qps, there := gauges.value("operator_store_qps", "seen", instance)
			if there == (instance == "stopped:20180") {
				t.Errorf("QPS of %s is %g, there = %v", instance, qps, there)
			}
			if up, there := gauges.value("operator_store_up", "seen", instance); !there || (up == 1) == (instance == "stopped:20180") {
				t.Errorf("%s is up = %g, there = %v", instance, up, there)
			}
		}
		if n := gauges.self("operator_store_exporter_stores", "seen", "cluster", "seen"); n != float64(len(want)) {
			t.Errorf("%g stores, want %d", n, len(want))
		}
	})
	t.Run("upstream is up and no query failed", func(t *testing.T) {
		for _, cluster := range []string{"prod", "seen"} {
			if v := gauges.self("operator_store_exporter_upstream_up", cluster, "cluster", cluster); v != 1 {
				t.Errorf("upstream_up of %s is %g", cluster, v)
			}
		}
	})
}

// federated is what the federation Prometheus has of one scrape of the exporter.
type federated []stack.Series

// A subject is a store of a cluster, with the matchers that select its series and no other's.
type subject struct{ cluster, address, matchers string }

// requireTruth takes a scrape of the exporter from the federation and holds each gauge of the subjects against
// what upstream answers to the queries by hand.
//
// A sample that upstream stamped before the scrape's instant may reach its storage only after it: then
// upstream answers otherwise later on. Such a scrape proves nothing, and the next one is looked at.
func requireTruth(t *testing.T, federation, upstream string, sums float64, subjects func(federated) []subject) federated {
	t.Helper()
	var (
		gauges     federated
		mismatches []string
	)
	for range 10 {
		gauges = nextScrape(t, federation, gauges)
		if mismatches = compare(t, gauges, upstream, sums, subjects(gauges)); len(mismatches) == 0 {
			return gauges
		}
	}
	t.Errorf("the federation's numbers are not upstream's:\n%s", strings.Join(mismatches, "\n"))
	return gauges
}

// nextScrape waits for a scrape of the exporter that is newer than last.
func nextScrape(t *testing.T, federation string, last federated) federated {
	t.Helper()
	var next federated
	until(t, "a scrape of the exporter", func(ctx context.Context) (bool, error) {
		var err error
		next, err = query(ctx, federation, `{__name__=~"operator_store_.+"}`, "")
		return len(next) > 0 && next.scraped() > last.scraped(), err
	})
	return next
}

// instant is the time at which upstream evaluated the queries about a cluster, as the API wants it.
func (f federated) instant(cluster string) string {
	return strconv.FormatFloat(f.self("operator_store_exporter_evaluation_timestamp_seconds", cluster, "cluster", cluster), 'f', -1, 64)
}

// scraped grows from scrape to scrape.
func (f federated) scraped() float64 {
	var latest float64
	for _, s := range f {
		if s.Labels["__name__"] == "operator_store_exporter_evaluation_timestamp_seconds" {
			latest = max(latest, s.Value)
		}
	}
	return latest
}

func (f federated) value(gauge, cluster, address string) (float64, bool) {
	v, ok := f.of(cluster, address)[gauge]
	return v, ok
}

// of returns the gauges of one store, by name.
func (f federated) of(cluster, address string) map[string]float64 {
	found := map[string]float64{}
	for _, s := range f {
		if s.Labels["cluster"] == cluster && s.Labels["address"] == address {
			found[s.Labels["__name__"]] = s.Value
		}
	}
	return found
}

// self returns the exporter's own metric of a cluster whose label has the value.
func (f federated) self(name, cluster, label, value string) float64 {
	for _, s := range f {
		if s.Labels["__name__"] == name && s.Labels["cluster"] == cluster && s.Labels[label] == value && s.Value != 0 {
			return s.Value
		}
	}
	return 0
}

// compare returns where gauges are not what upstream answers to the queries by hand.
func compare(t *testing.T, gauges federated, upstream string, sums float64, subjects []subject) []string {
	t.Helper()
	var mismatches []string
	for _, s := range subjects {
		at := gauges.instant(s.cluster)
		for gauge, expression := range byHand {
			expression = strings.ReplaceAll(expression, "$t", s.matchers)
			answer, err := query(t.Context(), upstream, expression, at)
			if err != nil {
				t.Fatal(err)
			}
			want, there := 0.0, false
			if len(answer) == 1 && !math.IsNaN(answer[0].Value) {
				want, there = answer[0].Value, true
			}
			got, found := gauges.value(gauge, s.cluster, s.address)
			tolerance := sums * math.Abs(want)
			if strings.Contains(expression, "histogram_quantile") {
				tolerance = 1e-9 * math.Abs(want)
			}
			if found != there || math.Abs(got-want) > tolerance || len(answer) > 1 {
				mismatches = append(mismatches, fmt.Sprintf("%s of %s in %s at %s: %v (there: %v), by hand %v (there: %v, series: %d): %s",
					gauge, s.address, s.cluster, at, got, found, want, there, len(answer), expression))
			}
		}
	}
	slices.Sort(mismatches)
	return mismatches
}
