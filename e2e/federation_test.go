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
	"github.com/operator-store/operator_store_exporter/e2e/truth"
)

// fleetStore is a store of TestFederation.
type fleetStore struct {
	id       int
	host     string
	instance string // If it is not HOST:20180.
	version  simulator.Version
	fault    func(*simulator.Store)
	absent   []string // The gauges that are absent because of the version or the fault.
}

func (s fleetStore) address() string { return s.host + ":20160" }

func (s fleetStore) target() stack.Target {
	target := stack.Target{Job: "tikv", Instance: s.instance}
	if target.Instance == "" {
		target.Instance = s.host + ":20180"
	}
	return target
}

// The stores of TestFederation: addresses that are prefixes of each other, three versions, and each
// kind of fault.
var fleetStores = []fleetStore{
	{id: 1, host: "tikv-1", version: simulator.V7},
	{id: 2, host: "tikv-10", version: simulator.V7},
	{id: 3, host: "tikv-11", version: simulator.V7},
	{id: 4, host: "10.0.0.1", version: simulator.V7},
	{id: 5, host: "10.0.0.10", version: simulator.V7},
	{id: 6, host: "[2001:db8::1]", version: simulator.V7},
	{id: 7, host: "TiKV-A.example.com", instance: "tikv-a.example.com:20180", version: simulator.V7},
	{
		id: 8, host: "old", version: simulator.V4,
		absent: truth.Select(func(g truth.Gauge) bool { return g.AbsentOnV4 }),
	},
	{id: 9, host: "new", version: simulator.V8},
	{
		id: 10, host: "idle", version: simulator.V7, fault: (*simulator.Store).Idle,
		absent: truth.Select(func(g truth.Gauge) bool { return g.AbsentIdle }),
	},
	{
		id: 11, host: "stopped", version: simulator.V7, fault: (*simulator.Store).Stop,
		absent: truth.Select(func(g truth.Gauge) bool { return g.Query != "up" }),
	},
	{
		id: 12, host: "no-capacity", version: simulator.V7, fault: (*simulator.Store).DropCapacity,
		absent: truth.Select(func(g truth.Gauge) bool { return g.AbsentWithoutCapacity }),
	},
}

// healthyStores is the number of the first stores of fleetStores that have no fault and all gauges.
const healthyStores = 7

// upstreamKind is a server that can be an upstream.
type upstreamKind struct {
	name   string
	binary string
	start  func(
		ctx context.Context, name, binary, dir string, interval time.Duration, targets []stack.Target, flags ...string,
	) (*stack.Process, error)

	keepsWhenStopped string  // A gauge that a stopped store keeps.
	tolerance        float64 // Relative difference of two evaluations of the same sum.
}

var upstreamKinds = []upstreamKind{
	{name: "Prometheus", binary: prometheusBinary, start: stack.Prometheus},
	{name: "Prometheus 2", binary: oldPrometheusBinary, start: stack.Prometheus},
	{
		// timestamp() returns the time of the last sample even if the series has ended, and the
		// order of sums varies.
		name: "VictoriaMetrics", binary: victoriaMetricsBinary, start: stack.VictoriaMetrics,
		keepsWhenStopped: "operator_store_last_scrape_timestamp_seconds", tolerance: 1e-12,
	},
}

// Simulated stores, a real upstream that scrapes them, the exporter, and a real federation
// Prometheus: every gauge in the federation Prometheus equals what upstream returns for that one
// store.
func TestFederation(t *testing.T) {
	t.Parallel()

	for _, kind := range upstreamKinds {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			testFederation(t, kind)
		})
	}
}

func testFederation(t *testing.T, kind upstreamKind) {
	f := newFleet(t)
	upstream, subjects := startFaultyFleet(t, f, kind)

	var stores strings.Builder
	for _, s := range fleetStores {
		fmt.Fprintf(&stores, "  - {id: %d, address: %q}\n", s.id, s.address())
	}
	exporter := startConfigured(t, fmt.Sprintf(`
clusters:
- name: configured
  upstream: {url: %[1]q}
  rate_window: 10s
  stores:
%[2]s  - {id: 13, address: "shared:20160"}
  - {id: 14, address: "unknown:20160"}
- name: discovered
  upstream: {url: %[1]q}
  rate_window: 10s
`, upstream.URL, stores.String()))
	federation := startFederation(t, exporter, federationInterval)
	gauges := requireTruth(t, federation.URL, upstream.URL, kind.tolerance, func(federated) []subject {
		return subjects
	})

	t.Run("versions and faults remove the gauges that depend on them", func(t *testing.T) {
		for _, s := range fleetStores {
			for _, gauge := range truth.Names() {
				_, ok := gauges.value(gauge, "configured", s.address())
				want := !slices.Contains(s.absent, gauge) || s.host == "stopped" && gauge == kind.keepsWhenStopped
				if ok != want {
					t.Errorf("%s of %s: present %v, want %v", gauge, s.host, ok, want)
				}
			}
		}
	})
	t.Run("gauges match the simulator", func(t *testing.T) {
		for _, s := range fleetStores[:healthyStores] {
			of := gauges.of("configured", s.address())
			for _, difference := range compareSimulated(of, s.host, f.cluster.Store(s.host).Truth()) {
				t.Error(difference)
			}
		}
	})
	t.Run("a store that matches two targets has no gauges, and the log names both", func(t *testing.T) {
		if of := gauges.of("configured", "shared:20160"); len(of) > 0 {
			t.Errorf("the store has %v", of)
		}
		if v := gauges.own("operator_store_exporter_query_failures_total", "configured", "reason", "ambiguous"); v < 1 {
			t.Errorf("%g ambiguous stores were counted, want at least 1", v)
		}
		exporter.log.requireWarning(t, warning{
			msg: noGauges, cluster: "configured", store: "shared:20160", reason: "ambiguous",
			err:  `instance="shared:20180".* and .*instance="shared:20181"`,
			hint: "^set its instance, or ",
		})
	})
	t.Run("a store that upstream does not know is not monitored", func(t *testing.T) {
		of := gauges.of("configured", "unknown:20160")
		if monitored, ok := of["operator_store_monitored"]; len(of) != 1 || !ok || monitored != 0 {
			t.Errorf("the store has %v, want only operator_store_monitored with 0", of)
		}
	})
	t.Run("without configured stores, targets are stores", func(t *testing.T) { requireDiscovered(t, gauges) })
	t.Run("upstream is up", func(t *testing.T) {
		for _, cluster := range []string{"configured", "discovered"} {
			if v := gauges.own("operator_store_exporter_upstream_up", cluster, "cluster", cluster); v != 1 {
				t.Errorf("upstream_up of %s is %g, want 1", cluster, v)
			}
		}
	})
}

// startFaultyFleet starts an upstream that scrapes fleetStores, and other targets that must not be
// taken for them. It returns once the upstream has scraped the stores with their faults.
func startFaultyFleet(t *testing.T, f *fleet, kind upstreamKind) (*stack.Process, []subject) {
	t.Helper()

	var subjects []subject
	var faults []func()
	f.cluster.AddProcess("other")

	for _, s := range fleetStores {
		target := s.target()
		store := f.addAs(target, s.host, s.address(), s.version)
		if s.fault != nil {
			faults = append(faults, func() { s.fault(store) })
		}
		matchers := fmt.Sprintf(`job="tikv",instance=%q`, target.Instance)
		subjects = append(subjects, subject{cluster: "configured", address: s.address(), matchers: matchers})
		// A node exporter on the same host.
		f.addTarget(stack.Target{Job: "node", Instance: s.host + ":9100", Path: "/process/other"})
	}
	// A probe whose instance is that of the TiKV that it probes.
	f.addTarget(stack.Target{Job: "tidb_port_probe", Instance: "tikv-1:20180", Path: "/process/other"})
	// Two TiKVs on one host: the port of the store does not show which of them it is.
	for _, instance := range []string{"shared:20180", "shared:20181"} {
		f.add(instance, simulator.V7)
	}

	upstream, err := kind.start(t.Context(), "upstream", kind.binary, f.dir, time.Second, f.targets)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = upstream.Kill() })
	waitForRates(t, upstream.URL, f.stores) // Before the faults, upstream has scraped every store.

	for _, fault := range faults {
		fault()
	}
	until(t, "upstream to have the faults", func(ctx context.Context) (bool, error) {
		const expression = `sum(rate(tikv_grpc_msg_duration_seconds_count{instance="idle:20180"}[10s])) == 0` +
			` and on () (up{instance="stopped:20180"} == 0)`
		s, err := query(ctx, upstream.URL, expression, "")
		return len(s) == 1, err
	})

	return upstream, subjects
}

// federationInterval is the scrape interval, and timeout, of the federation Prometheus: a busy
// machine must not let the exporter's queries time out.
const federationInterval = 3 * time.Second

// startFederation starts a Prometheus that scrapes the exporter every interval.
func startFederation(t *testing.T, e *exporter, interval time.Duration) *stack.Process {
	t.Helper()
	target := stack.Target{
		Job: "operator_store", Instance: "exporter:9820", Address: stack.Host(e.URL), Path: "/metrics",
	}
	return startPrometheus(t, "federation", interval, target)
}

// compareSimulated returns how the gauges of a store differ from what is true in the simulator.
func compareSimulated(gauges map[string]float64, store string, want simulator.Truth) (differences []string) {
	if qps := gauges["operator_store_qps"]; math.Abs(qps/want.QPS()-1) > 0.05 {
		differences = append(differences, fmt.Sprintf("%s: QPS is %g, want about %g", store, qps, want.QPS()))
	}
	if total := gauges["operator_store_disk_total_bytes"]; total != want.Capacity {
		differences = append(differences, fmt.Sprintf("%s: capacity is %g, want %g", store, total, want.Capacity))
	}

	// Each bound of a bucket is twice the previous one, so an interpolated quantile is off by a
	// factor of two at most.
	p99 := gauges["operator_store_latency_p99_seconds"]
	if want.Below(p99*2) < 0.99 || want.Below(p99/2) > 0.99 {
		differences = append(differences, fmt.Sprintf(
			"%s: p99 is %g, but %g of the messages are below twice and %g below half of it",
			store, p99, want.Below(p99*2), want.Below(p99/2)))
	}
	return differences
}

// requireDiscovered fails the test unless the cluster without configured stores has a store for
// each target.
func requireDiscovered(t *testing.T, gauges federated) {
	t.Helper()

	instances := []string{"shared:20180", "shared:20181"}
	for _, s := range fleetStores {
		instances = append(instances, s.target().Instance)
	}

	for _, instance := range instances {
		stopped := instance == "stopped:20180"
		if qps, ok := gauges.value("operator_store_qps", "discovered", instance); ok == stopped {
			t.Errorf("QPS of %s is %g, present %v", instance, qps, ok)
		}
		if up, ok := gauges.value("operator_store_up", "discovered", instance); !ok || (up == 1) == stopped {
			t.Errorf("%s is up: %g, present %v", instance, up, ok)
		}
	}
	stores := gauges.own("operator_store_exporter_stores", "discovered", "cluster", "discovered")
	if stores != float64(len(instances)) {
		t.Errorf("the cluster has %g stores, want %d", stores, len(instances))
	}
}

// federated is the series that the federation Prometheus got in one scrape of the exporter.
type federated []stack.Series

// subject is a store of a cluster, with the matchers that select its series and no others.
type subject struct{ cluster, address, matchers string }

// requireTruth compares each gauge of the subjects in the federation Prometheus with what upstream
// returns for the expression of the truth table, and returns the gauges. Sums may differ by a
// relative tolerance.
//
// Upstream may store a sample only after the exporter's queries although it is stamped before their
// evaluation time. Then a later query for the same time returns another value. Such a scrape proves
// nothing, and the next one is compared.
func requireTruth(
	t *testing.T, federation, upstream string, tolerance float64, subjects func(federated) []subject,
) federated {
	t.Helper()

	var gauges federated
	var differences []string
	for range 10 {
		gauges = nextScrape(t, federation, gauges)
		differences = compare(t, gauges, upstream, tolerance, subjects(gauges))
		if len(differences) == 0 {
			return gauges
		}
	}
	t.Errorf("the gauges in the federation Prometheus differ from upstream:\n%s", strings.Join(differences, "\n"))
	return gauges
}

// nextScrape waits for a scrape of the exporter that is newer than last.
func nextScrape(t *testing.T, federation string, last federated) federated {
	t.Helper()

	var next federated
	until(t, "a scrape of the exporter", func(ctx context.Context) (bool, error) {
		var err error
		next, err = query(ctx, federation, `{__name__=~"operator_store_.+"}`, "")
		return len(next) > 0 && next.latestEvaluation() > last.latestEvaluation(), err
	})
	return next
}

// evaluationTime returns the time at which upstream evaluated the queries about a cluster, as the
// query API wants it.
func (f federated) evaluationTime(cluster string) string {
	at := f.own("operator_store_exporter_evaluation_timestamp_seconds", cluster, "cluster", cluster)
	return strconv.FormatFloat(at, 'f', -1, 64)
}

// latestEvaluation returns the latest evaluation time of all clusters, which grows from scrape to
// scrape.
func (f federated) latestEvaluation() float64 {
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

// of returns the gauges of a store, by name.
func (f federated) of(cluster, address string) map[string]float64 {
	gauges := map[string]float64{}
	for _, s := range f {
		if s.Labels["cluster"] == cluster && s.Labels["address"] == address {
			gauges[s.Labels["__name__"]] = s.Value
		}
	}
	return gauges
}

// own returns the value of one of the exporter's own metrics that has a label with a value, or 0.
func (f federated) own(name, cluster, label, value string) float64 {
	for _, s := range f {
		l := s.Labels
		if l["__name__"] == name && l["cluster"] == cluster && l[label] == value && s.Value != 0 {
			return s.Value
		}
	}
	return 0
}

// compare returns the differences between gauges and what upstream returns for the expressions of
// the truth table.
func compare(t *testing.T, gauges federated, upstream string, tolerance float64, subjects []subject) []string {
	t.Helper()

	var differences []string
	for _, s := range subjects {
		at := gauges.evaluationTime(s.cluster)
		for _, g := range truth.Gauges {
			expression := strings.ReplaceAll(g.Expr, "$target", s.matchers)
			result, err := query(t.Context(), upstream, expression, at)
			if err != nil {
				t.Fatal(err)
			}
			want, wantPresent := 0.0, false
			if len(result) == 1 && !math.IsNaN(result[0].Value) {
				want, wantPresent = result[0].Value, true
			}

			got, present := gauges.value(g.Name, s.cluster, s.address)
			allowed := tolerance * math.Abs(want)
			if strings.Contains(expression, "histogram_quantile") {
				allowed = 1e-9 * math.Abs(want)
			}
			if present != wantPresent || math.Abs(got-want) > allowed || len(result) > 1 {
				differences = append(differences, fmt.Sprintf(
					"%s of %s in %s at %s is %v (present %v), upstream has %v (present %v, %d series) for %s",
					g.Name, s.address, s.cluster, at, got, present, want, wantPresent, len(result), expression))
			}
		}
	}
	slices.Sort(differences)

	return differences
}
