// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/operator-store/operator_store_exporter/e2e/simulator"
	"github.com/operator-store/operator_store_exporter/e2e/stack"
)

// One upstream with clusters of every deployment in it, told apart by selector: each gauge of each store against
// an exact query for that store alone.
func TestEveryDeploymentInOneUpstream(t *testing.T) {
	var targets []stack.Target
	var subjects []subject
	var want []string // The targets: cluster, id, address, instance, job.
	add := func(cluster *simulator.Cluster, pages, name, address, job, instance string, labels map[string]string) {
		cluster.AddStore(name, address, simulator.V7)
		targets = append(targets, stack.Target{Job: job, Instance: instance, Address: pages, Path: "/tikv/" + name, Labels: labels})
	}
	expect := func(cluster, id, address, job, instance, matcher string) {
		subjects = append(subjects, subject{cluster, address, fmt.Sprintf(`job=%q,instance=%q,%s`, job, instance, matcher)})
		want = append(want, fmt.Sprintf("%s %s %s %s %s", cluster, id, address, instance, job))
	}

	// TiUP: PD is scraped too, two TiKVs share a host, on which there are a node exporter, a TiDB and port probes.
	tiup := simulator.NewCluster(1)
	tiupPages := stack.Host(serve(t, tiup))
	tiup.AddProcess("neighbour")
	of := map[string]string{"tidb_cluster": "tiup"}
	for i, ports := range [][2]string{{"10.0.0.1:20160", "10.0.0.1:20180"}, {"10.0.0.10:20160", "10.0.0.10:20180"}, {"10.0.0.10:20161", "10.0.0.10:20181"}} {
		add(tiup, tiupPages, ports[0], ports[0], "tikv", ports[1], of)
		expect("tiup", strconv.Itoa(i+1), ports[0], "tikv", ports[1], `tidb_cluster="tiup"`)
		for job, instance := range map[string]string{"tidb_port_probe": ports[1], "overwritten-nodes": strings.Split(ports[0], ":")[0] + ":9100", "tidb": strings.Split(ports[0], ":")[0] + ":10080"} {
			targets = append(targets, stack.Target{Job: job, Instance: instance, Address: tiupPages, Path: "/process/neighbour", Labels: of})
		}
	}
	targets = append(targets, stack.Target{Job: "pd", Instance: "10.0.0.1:2379", Address: tiupPages, Path: "/pd", Labels: of})

	// TiDB Operator: pods of the same names in two namespaces, which PD itself names.
	pds := map[string]string{}
	for _, ns := range []string{"one", "two"} {
		operator := simulator.NewCluster(uint64(len(ns) + len(targets)))
		pages := stack.Host(serve(t, operator))
		var list []string
		for i := range 2 {
			pod := fmt.Sprintf("basic-tikv-%d", i)
			address := fmt.Sprintf("%s.basic-tikv-peer.%s.svc:20160", pod, ns)
			add(operator, pages, pod, address, ns+"-basic-tikv", pod, map[string]string{
				"tidb_cluster": ns + "-basic", "cluster": "basic", "kubernetes_namespace": ns, "component": "tikv",
			})
			expect(ns, strconv.Itoa(10+i), address, ns+"-basic-tikv", pod, fmt.Sprintf(`tidb_cluster="%s-basic"`, ns))
			list = append(list, fmt.Sprintf(`{"store":{"id":%d,"address":%q,"status_address":"%s.basic-tikv-peer.%s.svc:20180","state_name":"Up"},"status":{}}`, 10+i, address, pod, ns))
		}
		list = append(list, `{"store":{"id":99,"address":"basic-tiflash-0:3930","state_name":"Up","labels":[{"key":"engine","value":"tiflash"}]},"status":{}}`)
		pds[ns] = serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(w, `{"count":%d,"stores":[%s]}`, len(list), strings.Join(list, ","))
		}))
	}

	// An HA pair: everything twice, told apart by the label replica.
	pair := simulator.NewCluster(3)
	pairPages := stack.Host(serve(t, pair))
	for i := range 2 {
		name := fmt.Sprintf("tikv%d", i)
		pair.AddStore(name, name+":20160", simulator.V7)
		for _, replica := range []string{"a", "b"} {
			targets = append(targets, stack.Target{
				Job: "pair-" + replica, Instance: name + ":20180", Address: pairPages, Path: "/tikv/" + name,
				Labels: map[string]string{"job": "tikv", "tidb_cluster": "pair", "replica": replica},
			})
		}
		want = append(want, fmt.Sprintf("pair  %[1]s:20180 %[1]s:20180 tikv", name))
	}

	upstream := startPrometheus(t, "upstream", time.Second, targets...)
	until(t, "upstream to have rates of all stores", func(ctx context.Context) (bool, error) {
		s, err := query(ctx, upstream.URL, `count(rate(tikv_raftstore_log_lag_count[10s])) == 11 and on () count(rate(process_cpu_seconds_total[10s])) == 18 and on () pd_scheduler_store_status{store="3",type="store_capacity"}`, "")
		return len(s) == 1, err
	})
	config := &strings.Builder{}
	fmt.Fprintf(config, `
clusters:
- {name: tiup, rate_window: 10s, selector: '{tidb_cluster="tiup"}', upstream: {url: %[1]q}}
- {name: one, rate_window: 10s, selector: '{tidb_cluster="one-basic"}', upstream: {url: %[1]q}, pd: {url: %[2]q}}
- {name: two, rate_window: 10s, selector: '{tidb_cluster="two-basic"}', upstream: {url: %[1]q}, pd: {url: %[3]q}}
- {name: pair, rate_window: 10s, selector: '{tidb_cluster="pair"}', upstream: {url: %[1]q}, replica_labels: [replica]}
- {name: unpaired, rate_window: 10s, selector: '{tidb_cluster="pair"}', upstream: {url: %[1]q}}
`, upstream.URL, pds["one"], pds["two"])
	exporter, log := startExporter(t, "--config.file="+writeFile(t, "config.yml", config.String()))
	federation := startPrometheus(t, "federation", time.Second, stack.Target{Job: "operator_store", Address: stack.Host(exporter), Path: "/metrics"})

	gauges := requireTruth(t, federation.URL, upstream.URL, 0, func(f federated) []subject {
		all := slices.Clone(subjects)
		for i := range 2 {
			instance := fmt.Sprintf("tikv%d:20180", i)
			all = append(all, subject{"pair", instance, fmt.Sprintf(`job="tikv",instance=%q,replica=%q`, instance, freshest(t, upstream.URL, instance, f.instant("pair")))})
		}
		return all
	})
	t.Run("operator_store_info tells what was matched to what", func(t *testing.T) {
		var got []string
		for _, s := range gauges {
			if l := s.Labels; l["__name__"] == "operator_store_info" && l["cluster"] != "unpaired" {
				got = append(got, fmt.Sprintf("%s %s %s %s %s", l["cluster"], l["store_id"], l["address"], l["upstream_instance"], l["upstream_job"]))
			}
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	})
	t.Run("no store is counted twice, nor left out", func(t *testing.T) {
		for cluster, n := range map[string]float64{"tiup": 3, "one": 2, "two": 2, "pair": 2} {
			if got := gauges.self("operator_store_exporter_stores", cluster, "cluster", cluster); got != n {
				t.Errorf("%s has %g stores, want %g", cluster, got, n)
			}
		}
	})
	t.Run("an HA pair that nobody told of is not summed up", func(t *testing.T) {
		for i := range 2 {
			if found := gauges.of("unpaired", fmt.Sprintf("tikv%d:20180", i)); len(found) > 1 { // operator_store_info is there.
				t.Errorf("there is %v", found)
			}
		}
		if lines := log.matching("unpaired", "tikv0:20180", "replica_labels"); len(lines) != 1 {
			t.Errorf("the log says %q, want one line that names replica_labels", lines)
		}
	})
}

// freshest is the replica that scraped the instance last, as upstream tells.
func freshest(t *testing.T, upstream, instance, at string) string {
	t.Helper()
	answer, err := query(t.Context(), upstream, fmt.Sprintf(`timestamp(tikv_store_size_bytes{type="available",instance=%q,tidb_cluster="pair"})`, instance), at)
	if err != nil {
		t.Fatal(err)
	}
	var replica string
	var latest float64
	for _, s := range answer {
		if s.Value > latest {
			replica, latest = s.Labels["replica"], s.Value
		}
	}
	return replica
}

// A cluster that changes while it is scraped: whatever happens to one store, the others are on each page.
func TestScaleOutReplacementAndMove(t *testing.T) {
	const interval = time.Second
	cluster := simulator.NewCluster(1)
	pages := stack.Host(serve(t, cluster))
	target := func(name, instance string) stack.Target {
		return stack.Target{Job: "tikv", Instance: instance, Address: pages, Path: "/tikv/" + name}
	}
	cluster.AddStore("steady", "steady:20160", small)
	cluster.AddStore("old", "replaced:20160", small)
	moving := cluster.AddStore("moving", "here:20160", small)
	targets := map[string]stack.Target{
		"pd": {Job: "pd", Instance: "pd:2379", Address: pages, Path: "/pd"}, "steady": target("steady", "steady:20180"),
		"replaced": target("old", "replaced:20180"), "moving": target("moving", "here:20180"),
	}
	dir := t.TempDir()
	upstream := startPrometheusIn(t, dir, "upstream", interval, slices.Collect(maps.Values(targets))...)
	exporter, _ := startExporter(t, "--cluster=c", "--upstream.url="+upstream.URL, "--discovery.interval=500ms", "--discovery.lookback=10s")

	// stores waits until the page has exactly the stores that are wanted, "id address up" each. Every page on the
	// way has the steady store, and no store twice.
	stores := func(what string, want ...string) {
		t.Helper()
		until(t, what, func(ctx context.Context) (bool, error) {
			p, err := tryScrape(ctx, exporter+"/metrics", 5*time.Second)
			if err != nil {
				return false, err
			}
			var got []string
			for series, up := range p.with("operator_store_up{") {
				_, address, _ := strings.Cut(series, `address="`)
				address, _, _ = strings.Cut(address, `"`)
				_, id, _ := strings.Cut(series, `store_id="`)
				id, _, _ = strings.Cut(id, `"`)
				got = append(got, fmt.Sprintf("%s %s %g", id, address, up))
			}
			slices.Sort(got)
			if what != "the beginning" && len(want) > 0 && !slices.Contains(got, "1 steady:20160 1") {
				t.Errorf("%s: a page lacks the steady store: %q", what, got)
			}
			return slices.Equal(got, want), fmt.Errorf("the stores are %q, want %q", got, want)
		})
	}
	retarget := func() {
		t.Helper()
		if err := stack.Retarget(dir, interval, slices.Collect(maps.Values(targets))); err != nil {
			t.Fatal(err)
		}
		if err := upstream.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	stores("the beginning", "1 steady:20160 1", "2 replaced:20160 1", "3 here:20160 1")

	cluster.AddStore("added", "added:20160", small)
	targets["added"] = target("added", "added:20180")
	retarget()
	stores("scaling out", "1 steady:20160 1", "2 replaced:20160 1", "3 here:20160 1", "4 added:20160 1")

	cluster.AddStore("new", "replaced:20160", small)
	targets["replaced"] = target("new", "replaced:20180")
	retarget()
	stores("a replacement at the same address", "1 steady:20160 1", "3 here:20160 1", "4 added:20160 1", "5 replaced:20160 1")

	moving.Move("there:20160")
	targets["moving"] = target("moving", "there:20180")
	retarget()
	stores("a move to another address", "1 steady:20160 1", "3 there:20160 1", "4 added:20160 1", "5 replaced:20160 1")

	delete(targets, "added")
	retarget()
	stores("scaling in", "1 steady:20160 1", "3 there:20160 1", "5 replaced:20160 1")

	// Without a store among its targets upstream has no up of any, which is an answer still: they are down. A job must
	// stay, for Prometheus marks the series of a job that is removed as a whole no staler than they are.
	targets = map[string]stack.Target{"other": {Job: "tikv", Instance: "other", Address: pages, Path: "/pd"}}
	retarget()
	until(t, "the stores to be down", func(ctx context.Context) (bool, error) {
		p, err := tryScrape(ctx, exporter+"/metrics", 5*time.Second)
		up, there := p[`operator_store_up{address="steady:20160", cluster="c", store_id="1"}`]
		return there && up == 0 && p[`operator_store_exporter_upstream_up{cluster="c"}`] == 1, err
	})
	stores("everything gone for longer than the lookback")
}
