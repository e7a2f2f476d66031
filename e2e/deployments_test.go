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

// deployments are TiKV clusters whose targets are in one upstream, where selectors set them apart.
type deployments struct {
	targets  []stack.Target
	subjects []subject
	infos    []string // What operator_store_info must have: cluster, ID, address, instance and job.
	stores   int
}

// add adds a fleet to the upstream.
func (d *deployments) add(f *fleet) {
	d.targets = append(d.targets, f.targets...)
	d.stores += f.stores
}

// expect adds a store that the exporter must expose.
func (d *deployments) expect(cluster, id, address, job, instance, matcher string) {
	matchers := fmt.Sprintf(`job=%q,instance=%q,%s`, job, instance, matcher)
	d.subjects = append(d.subjects, subject{cluster: cluster, address: address, matchers: matchers})
	d.infos = append(d.infos, fmt.Sprintf("%s %s %s %s %s", cluster, id, address, instance, job))
}

// addTiUP adds a deployment by TiUP: PD is scraped too, and two TiKVs share a host with a node
// exporter, a TiDB and port probes.
func (d *deployments) addTiUP(t *testing.T) {
	t.Helper()

	f := newFleet(t)
	f.cluster.AddProcess("other")

	labels := map[string]string{"tidb_cluster": "tiup"}
	for i, store := range []struct{ host, port, statusPort string }{
		{host: "10.0.0.1", port: "20160", statusPort: "20180"},
		{host: "10.0.0.10", port: "20160", statusPort: "20180"},
		{host: "10.0.0.10", port: "20161", statusPort: "20181"},
	} {
		address, instance := store.host+":"+store.port, store.host+":"+store.statusPort
		f.addAs(stack.Target{Job: "tikv", Instance: instance, Labels: labels}, address, address, simulator.V7)
		d.expect("tiup", strconv.Itoa(i+1), address, "tikv", instance, `tidb_cluster="tiup"`)

		for job, instance := range map[string]string{
			"tidb_port_probe":   instance,
			"overwritten-nodes": store.host + ":9100",
			"tidb":              store.host + ":10080",
		} {
			f.addTarget(stack.Target{Job: job, Instance: instance, Path: "/process/other", Labels: labels})
		}
	}
	f.addTarget(stack.Target{Job: "pd", Instance: "10.0.0.1:2379", Path: "/pd", Labels: labels})
	d.add(f)
}

// addOperator adds a deployment by TiDB Operator in a namespace, with pods of the same names as in
// other namespaces. It returns the URL of the deployment's PD.
func (d *deployments) addOperator(t *testing.T, namespace string, seed uint64) string {
	t.Helper()

	f := newFleetWithSeed(t, seed)

	job := namespace + "-basic-tikv"
	labels := map[string]string{
		"tidb_cluster": namespace + "-basic", "cluster": "basic",
		"kubernetes_namespace": namespace, "component": "tikv",
	}
	var pd []string
	for i := range 2 {
		pod := fmt.Sprintf("basic-tikv-%d", i)
		host := fmt.Sprintf("%s.basic-tikv-peer.%s.svc", pod, namespace)
		f.addAs(stack.Target{Job: job, Instance: pod, Labels: labels}, pod, host+":20160", simulator.V7)
		matcher := fmt.Sprintf(`tidb_cluster="%s-basic"`, namespace)
		d.expect(namespace, strconv.Itoa(10+i), host+":20160", job, pod, matcher)
		pd = append(pd, fmt.Sprintf(`{"store":{"id":%d,"address":"%[2]s:20160",`+
			`"status_address":"%[2]s:20180","state_name":"Up"},"status":{}}`, 10+i, host))
	}
	pd = append(pd, `{"store":{"id":99,"address":"basic-tiflash-0:3930","state_name":"Up",`+
		`"labels":[{"key":"engine","value":"tiflash"}]},"status":{}}`)
	d.add(f)
	body := fmt.Sprintf(`{"count":%d,"stores":[%s]}`, len(pd), strings.Join(pd, ","))

	return serve(t, respondWith(http.StatusOK, body))
}

// addPair adds a deployment that an HA pair of Prometheus servers scrapes: every series exists
// twice, with different values of the label replica. The stores are at the instances that it
// returns.
func (d *deployments) addPair(t *testing.T) []string {
	t.Helper()

	f := newFleetWithSeed(t, 4)
	var instances []string
	for i := range 2 {
		name := fmt.Sprintf("tikv%d", i)
		instance := name + ":20180"
		f.cluster.AddStore(name, name+":20160", simulator.V7)

		for _, replica := range []string{"a", "b"} {
			f.addTarget(stack.Target{
				Job: "pair-" + replica, Instance: instance, Path: "/tikv/" + name,
				Labels: map[string]string{"job": "tikv", "tidb_cluster": "pair", "replica": replica},
			})
		}
		instances = append(instances, instance)
		d.infos = append(d.infos, fmt.Sprintf("pair  %[1]s %[1]s tikv", instance))
	}
	d.targets = append(d.targets, f.targets...)
	return instances
}

// One upstream has clusters of every kind of deployment, which selectors set apart. Each gauge of
// each store equals what upstream returns for that one store.
func TestEveryDeployment(t *testing.T) {
	t.Parallel()
	var d deployments
	d.addTiUP(t)
	pdOne, pdTwo := d.addOperator(t, "one", 2), d.addOperator(t, "two", 3)
	pair := d.addPair(t)
	upstream := startPrometheus(t, "upstream", time.Second, d.targets...)
	until(t, "upstream to have rates of all stores", func(ctx context.Context) (bool, error) {
		// The HA pair scrapes its two stores twice. The TiUP deployment has three port probes, and
		// a node exporter and a TiDB on each of its two hosts.
		const tikvs, processes = 3 + 2 + 2 + 2*2, 11 + 3 + 2*2
		s, err := query(ctx, upstream.URL, fmt.Sprintf(`count(rate(tikv_raftstore_log_lag_count[10s])) == %d`+
			` and on () count(rate(process_cpu_seconds_total[10s])) == %d`+
			` and on () pd_scheduler_store_status{store="3",type="store_capacity"}`, tikvs, processes), "")
		return len(s) == 1, err
	})

	exporter := startConfigured(t, fmt.Sprintf(`
clusters:
- {name: tiup, rate_window: 10s, selector: '{tidb_cluster="tiup"}', upstream: {url: %[1]q}}
- {name: one, rate_window: 10s, selector: '{tidb_cluster="one-basic"}', upstream: {url: %[1]q}, pd: {url: %[2]q}}
- {name: two, rate_window: 10s, selector: '{tidb_cluster="two-basic"}', upstream: {url: %[1]q}, pd: {url: %[3]q}}
- {name: pair, rate_window: 10s, selector: '{tidb_cluster="pair"}', upstream: {url: %[1]q}, replica_labels: [replica]}
- {name: unpaired, rate_window: 10s, selector: '{tidb_cluster="pair"}', upstream: {url: %[1]q}}
`, upstream.URL, pdOne, pdTwo))
	federation := startFederation(t, exporter, federationInterval)
	gauges := requireTruth(t, federation.URL, upstream.URL, 0, func(f federated) []subject {
		subjects := slices.Clone(d.subjects)
		for _, instance := range pair {
			replica := latestReplica(t, upstream.URL, instance, f.evaluationTime("pair"))
			matchers := fmt.Sprintf(`job="tikv",instance=%q,replica=%q`, instance, replica)
			subjects = append(subjects, subject{cluster: "pair", address: instance, matchers: matchers})
		}
		return subjects
	})

	t.Run("operator_store_info has the target of each store", func(t *testing.T) {
		var got []string
		for _, s := range gauges {
			if l := s.Labels; l["__name__"] == "operator_store_info" && l["cluster"] != "unpaired" {
				got = append(got, strings.Join([]string{
					l["cluster"], l["store_id"], l["address"], l["upstream_instance"], l["upstream_job"],
				}, " "))
			}
		}
		slices.Sort(got)
		want := slices.Sorted(slices.Values(d.infos))
		if !slices.Equal(got, want) {
			t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	})
	t.Run("each store is counted once", func(t *testing.T) {
		for cluster, want := range map[string]float64{"tiup": 3, "one": 2, "two": 2, "pair": 2} {
			if got := gauges.own("operator_store_exporter_stores", cluster, "cluster", cluster); got != want {
				t.Errorf("%s has %g stores, want %g", cluster, got, want)
			}
		}
	})
	t.Run("an HA pair without replica_labels has no gauges", func(t *testing.T) {
		for _, instance := range pair {
			if of := gauges.of("unpaired", instance); len(of) > 1 { // operator_store_info remains.
				t.Errorf("%s has %v", instance, of)
			}
		}
		exporter.log.requireWarning(t, warning{
			msg: noGauges, cluster: "unpaired", store: pair[0], reason: "ambiguous",
			err: "^upstream has several targets with its job and instance: ", hint: "replica_labels",
		})
	})
}

// latestReplica returns the replica that scraped an instance last.
func latestReplica(t *testing.T, upstream, instance, at string) string {
	t.Helper()

	const expression = `timestamp(tikv_store_size_bytes{type="available",instance=%q,tidb_cluster="pair"})`
	result, err := query(t.Context(), upstream, fmt.Sprintf(expression, instance), at)
	if err != nil {
		t.Fatal(err)
	}

	var replica string
	var latest float64
	for _, s := range result {
		if s.Value > latest {
			replica, latest = s.Labels["replica"], s.Value
		}
	}
	return replica
}

// changingFleet is a fleet whose targets change while it is scraped.
type changingFleet struct {
	*fleet
	exporter *exporter
	targets  map[string]stack.Target
}

// reload makes the Prometheus scrape the current targets.
func (f *changingFleet) reload(t *testing.T) {
	t.Helper()

	if err := stack.Retarget(f.dir, time.Second, slices.Collect(maps.Values(f.targets))); err != nil {
		t.Fatal(err)
	}
	if err := f.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
}

// setTarget changes the target of a store.
func (f *changingFleet) setTarget(key, store, instance string) {
	f.targets[key] = stack.Target{Job: "tikv", Instance: instance, Address: f.pages, Path: "/tikv/" + store}
}

// labelsOf returns the labels of a series of a page.
func labelsOf(series string) map[string]string {
	labels := map[string]string{}
	_, rest, _ := strings.Cut(strings.TrimSuffix(series, "}"), "{")
	for _, pair := range strings.Split(rest, ", ") {
		name, value, _ := strings.Cut(pair, "=")
		labels[name] = strings.Trim(value, `"`)
	}
	return labels
}

// waitForStores waits until the page has exactly the wanted stores, "ID ADDRESS MONITORED" each.
// With keeps, every page until then must have that store. No page may have a store that is down.
func (f *changingFleet) waitForStores(t *testing.T, what, keeps string, want ...string) {
	t.Helper()

	until(t, what, func(ctx context.Context) (bool, error) {
		p, err := tryScrape(ctx, f.exporter.URL+"/metrics", 5*time.Second)
		if err != nil {
			return false, err
		}

		var got []string
		requireNoneDown(t, p)

		for series, monitored := range p.with("operator_store_monitored{") {
			l := labelsOf(series)
			got = append(got, fmt.Sprintf("%s %s %g", l["store_id"], l["address"], monitored))
		}
		slices.Sort(got)
		if keeps != "" && !slices.Contains(got, keeps) {
			t.Errorf("%s: a page lacks the store %q: %q", what, keeps, got)
		}
		return slices.Equal(got, want), fmt.Errorf("the stores are %q, want %q", got, want)
	})
}

// Stores are added, replaced, moved and removed. Whatever happens to one of them, the others stay
// on every page.
func TestChangingStores(t *testing.T) {
	t.Parallel()
	f := &changingFleet{fleet: newFleet(t), targets: map[string]stack.Target{}}
	f.cluster.AddStore("steady", "steady:20160", simulator.Small)
	f.cluster.AddStore("old", "replaced:20160", simulator.Small)
	moving := f.cluster.AddStore("moving", "here:20160", simulator.Small)
	f.targets["pd"] = stack.Target{Job: "pd", Instance: "pd:2379", Address: f.pages, Path: "/pd"}
	f.setTarget("steady", "steady", "steady:20180")
	f.setTarget("replaced", "old", "replaced:20180")
	f.setTarget("moving", "moving", "here:20180")
	f.Process = startPrometheusIn(t, f.dir, "upstream", time.Second, slices.Collect(maps.Values(f.targets))...)
	f.exporter = startExporter(t, "--cluster=c", "--upstream.url="+f.URL,
		"--discovery.interval=500ms", "--discovery.lookback=10s")
	const steady, replaced, replacement = "1 steady:20160 1", "2 replaced:20160 1", "5 replaced:20160 1"
	const here, there, added = "3 here:20160 1", "3 there:20160 1", "4 added:20160 1"
	f.waitForStores(t, "the first stores", "", steady, replaced, here)

	f.cluster.AddStore("added", "added:20160", simulator.Small)
	f.setTarget("added", "added", "added:20180")
	f.reload(t)
	f.waitForStores(t, "an added store", steady, steady, replaced, here, added)

	f.cluster.AddStore("new", "replaced:20160", simulator.Small)
	f.setTarget("replaced", "new", "replaced:20180")
	f.reload(t)
	f.waitForStores(t, "a replacement at the same address", steady, steady, here, added, replacement)

	moving.Move("there:20160")
	f.setTarget("moving", "moving", "there:20180")
	f.reload(t)
	f.waitForStores(t, "a move to another address", steady, steady, there, added, replacement)

	delete(f.targets, "added")
	f.reload(t)
	f.waitForStores(t, "a removed store", steady, steady, there, replacement)

	// An upstream that scrapes no store has no up of any store. That is a response too: the stores
	// are not monitored. One job must stay, because Prometheus does not mark the series of a
	// removed job as stale.
	f.targets = map[string]stack.Target{"other": {Job: "tikv", Instance: "other", Address: f.pages, Path: "/pd"}}
	f.reload(t)
	until(t, "the stores not to be monitored", func(ctx context.Context) (bool, error) {
		p, err := tryScrape(ctx, f.exporter.URL+"/metrics", 5*time.Second)
		if err != nil {
			return false, err
		}
		requireNoneDown(t, p)
		monitored, ok := p[`operator_store_monitored{address="steady:20160", cluster="c", store_id="1"}`]
		return ok && monitored == 0 && p[`operator_store_exporter_upstream_up{cluster="c"}`] == 1, nil
	})
	f.waitForStores(t, "no store after the lookback", "")
}
