// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/operator-store/operator_store_exporter/e2e/simulator"
	"github.com/operator-store/operator_store_exporter/e2e/stack"
)

// thanos is two shards behind real Thanos queriers. Shard a is an HA pair of Prometheus servers.
type thanos struct {
	sidecars  []*sidecar // Two of shard a, then the one of shard b.
	instances [2][]string

	endpoint, strict, frontend string // URLs of queriers; the frontend is in front of strict.
}

// sidecar is a Thanos sidecar with its Prometheus.
type sidecar struct {
	*stack.Process
	name, dir, address string
	prometheus         *stack.Process
}

// start starts the sidecar, always at the same address. It runs until t ends.
func (s *sidecar) start(t *testing.T) {
	t.Helper()

	var err error
	s.Process, err = stack.ThanosSidecar(t.Context(), s.name, thanosBinary, s.prometheus.URL, s.dir, s.address)
	if err != nil {
		t.Fatal(err)
	}
	process := s.Process
	t.Cleanup(func() { _ = process.Kill() })
}

// startSidecar starts a Prometheus that scrapes targets, and its sidecar.
func startSidecar(t *testing.T, shard, replica string, targets []stack.Target) *sidecar {
	t.Helper()

	s := &sidecar{name: "sidecar " + shard + replica, dir: t.TempDir()}
	config := stack.Config{
		Interval: time.Second, Targets: targets,
		ExternalLabels: map[string]string{"shard": shard, "replica": replica},
	}
	var err error
	s.prometheus, err = stack.ConfiguredPrometheus(
		t.Context(), "Prometheus "+shard+replica, prometheusBinary, s.dir, config, stack.ThanosFlags...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.prometheus.Kill() })

	if s.address, err = stack.FreeAddress(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.start(t)
	return s
}

func startThanos(t *testing.T) *thanos {
	t.Helper()

	f := newFleet(t)
	for _, name := range []string{"tikv-a0", "tikv-a1", "tikv-b0", "tikv-b1"} {
		f.add(name, simulator.Small)
	}
	th := &thanos{
		sidecars: []*sidecar{
			startSidecar(t, "a", "0", f.targets[:2]),
			startSidecar(t, "a", "1", f.targets[:2]),
			startSidecar(t, "b", "0", f.targets[2:]),
		},
		instances: [2][]string{{"tikv-a0:20180", "tikv-a1:20180"}, {"tikv-b0:20180", "tikv-b1:20180"}},
	}
	th.endpoint = th.startQuerier(t, "endpoint")
	th.strict = th.startQuerier(t, "endpoint-strict")
	frontend, err := stack.ThanosQueryFrontend(t.Context(), "Thanos query frontend", thanosBinary, th.strict)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = frontend.Kill() })
	th.frontend = frontend.URL

	for _, url := range []string{th.endpoint, th.frontend} {
		waitForRates(t, url, f.stores)
	}

	return th
}

// startQuerier starts a querier of all sidecars that are given by a flag, and returns its URL.
func (th *thanos) startQuerier(t *testing.T, flag string) string {
	t.Helper()

	flags := []string{"--query.replica-label=replica"}
	for _, s := range th.sidecars {
		flags = append(flags, "--"+flag+"="+s.address)
	}
	querier, err := stack.ThanosQuery(t.Context(), "Thanos query --"+flag, thanosBinary, flags...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = querier.Kill() })
	return querier.URL
}

// views returns the clusters of the exporter: one per querier.
func (th *thanos) views() []view {
	instances := slices.Concat(th.instances[0], th.instances[1])
	return []view{
		{cluster: "endpoint", upstream: th.endpoint, instances: instances},
		{cluster: "strict", upstream: th.strict, instances: instances},
		{cluster: "frontend", upstream: th.frontend, instances: instances},
	}
}

// The exporter with a real Thanos: an HA pair with dedup and a second shard, with --endpoint, with
// --endpoint-strict and behind a query frontend. When a sidecar dies, Thanos warns that its
// responses may lack series, or drops the endpoint without a warning. In neither case is a store
// reported as down. After the sidecar has returned, every gauge is there again.
func TestThanos(t *testing.T) {
	t.Parallel()
	th := startThanos(t)

	views := th.views()
	exporter := startConfigured(t, configOf(views...), "--discovery.interval=1s")
	requireUpstreamValues(t, exporter, views...)

	t.Run("one replica of an HA pair dies", func(t *testing.T) {
		testReplicaDies(t, th, exporter, views)
	})
	th.sidecars[1].start(t)
	requireUpstreamValues(t, exporter, views...)

	t.Run("a shard dies", func(t *testing.T) {
		testShardDies(t, th, exporter, views)
	})
	th.sidecars[2].start(t)
	requireUpstreamValues(t, exporter, views...)
}

// testReplicaDies ends one sidecar of the HA pair. With --endpoint, the other replica is enough.
// With --endpoint-strict, Thanos warns although the other replica has all series, since it cannot
// know that.
func testReplicaDies(t *testing.T, th *thanos, e *exporter, views []view) {
	endpoint, warned := views[0], views[1:]
	_ = th.sidecars[1].Kill()
	waitForPage(t, e, "all clusters to see that the replica is dead", func(p page) error {
		err := endpoint.missing(p)
		for _, v := range warned {
			err = errors.Join(err, requirePartial(v, p))
		}
		return err
	})
	requireUpstreamValues(t, e, endpoint)
}

// testShardDies ends the only sidecar of a shard. With --endpoint, its stores are not monitored.
// With --endpoint-strict, every query fails.
func testShardDies(t *testing.T, th *thanos, e *exporter, views []view) {
	endpoint, warned := views[0], views[1:]
	survivors := endpoint
	survivors.instances = th.instances[0]
	_ = th.sidecars[2].Kill()
	waitForPage(t, e, "all clusters to see that the shard is dead", func(p page) error {
		err := requireUnmonitored(endpoint, p, th.instances[1])
		if up := endpoint.own(p, "upstream_up"); up != 1 {
			err = fmt.Errorf("upstream_up is %g, though no query fails", up)
		}

		for _, v := range warned {
			err = errors.Join(err, requirePartial(v, p))
		}
		return err
	})

	p := requireUpstreamValues(t, e, survivors)
	for _, v := range views {
		if got := v.own(p, "stores"); got != float64(len(v.instances)) {
			t.Errorf("%s has %g stores, want the %d stores of both shards", v.cluster, got, len(v.instances))
		}
	}
	if lines := e.log.matching("level=warn", "reason=partial", "cluster=strict"); len(lines) == 0 {
		t.Errorf("the log has no warning with the reason partial: %q", e.log.matching("level=warn"))
	}
}

// requirePartial returns an error unless all queries about a cluster failed because the responses
// may lack series.
func requirePartial(v view, p page) error {
	if up := v.own(p, "upstream_up"); up != 0 {
		return fmt.Errorf("upstream_up of %s is %g, want 0", v.cluster, up)
	}

	for _, instance := range v.instances {
		if present := v.present(p, instance); len(present) > 0 {
			return fmt.Errorf("%s of %s has %q, want no gauge", instance, v.cluster, present)
		}
	}
	if failuresBecause(p, v.cluster, "partial", "up") == 0 {
		return fmt.Errorf("no failure of %s is counted with the reason partial", v.cluster)
	}
	return nil
}

// failuresBecause returns how often a query failed for a reason.
func failuresBecause(p page, cluster, reason, query string) float64 {
	const format = "operator_store_exporter_query_failures_total{cluster=%q, query=%q, reason=%q}"
	return p[fmt.Sprintf(format, cluster, query, reason)]
}

// requireUnmonitored returns an error unless instances are unmonitored and have no other gauge.
func requireUnmonitored(v view, p page, instances []string) error {
	for _, instance := range instances {
		monitored, _ := v.gauge(p, "operator_store_monitored", instance)
		present := v.present(p, instance)
		if monitored != 0 || !slices.Equal(present, []string{"operator_store_monitored"}) {
			return fmt.Errorf("%s of %s has %q, monitored %g, want only monitored with 0",
				instance, v.cluster, present, monitored)
		}
	}
	return nil
}
