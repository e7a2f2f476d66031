// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"slices"
	"syscall"
	"testing"

	"github.com/operator-store/operator_store_exporter/e2e/simulator"
	"github.com/operator-store/operator_store_exporter/e2e/stack"
	"github.com/operator-store/operator_store_exporter/e2e/truth"
)

// histogramFleet returns the stores of TestNativeHistograms: one with few series, and one whose
// histograms have the label priority. The Prometheus decides in which form it stores histograms.
func histogramFleet(t *testing.T) *fleet {
	t.Helper()

	f := newFleet(t)
	f.add("tikv-0", simulator.Small)
	f.add("tikv-1", simulator.V8)
	return f
}

// startView starts a Prometheus that scrapes the stores of a fleet, as the upstream of a cluster.
func (f *fleet) startView(t *testing.T, cluster string, histograms stack.Histograms) view {
	t.Helper()

	f.startConfigured(t, stack.Config{Histograms: histograms})

	v := view{cluster: cluster, upstream: f.URL, native: histograms == stack.NativeHistograms}
	for _, target := range f.targets {
		v.instances = append(v.instances, target.Instance)
	}
	return v
}

// startHalfConverted starts a Prometheus that converts the histograms of the first store only. It
// returns the cluster with one view for each form.
func startHalfConverted(t *testing.T) (native, classic view) {
	t.Helper()

	f := histogramFleet(t)
	f.targets[0].Job, f.targets[0].Labels = "converted", map[string]string{"job": "tikv"}
	f.startConfigured(t, stack.Config{Jobs: map[string]stack.Job{
		"converted": {Interval: defaultScrapeInterval, Histograms: stack.NativeHistograms},
	}})
	native = view{
		cluster: "half", upstream: f.URL, native: true, instances: []string{f.targets[0].Instance},
	}
	classic = view{cluster: "half", upstream: f.URL, instances: []string{f.targets[1].Instance}}
	return native, classic
}

// The exporter with real Prometheus servers that convert classic histograms to native ones.
func TestNativeHistograms(t *testing.T) {
	t.Parallel()
	switching := histogramFleet(t)
	converted := histogramFleet(t).startView(t, "converted", stack.NativeHistograms)
	both := histogramFleet(t).startView(t, "both", stack.BothHistograms)
	switched := switching.startView(t, "switched", stack.ClassicHistograms)
	halfNative, halfClassic := startHalfConverted(t)

	const classicCount, nativeCount = "tikv_raftstore_log_lag_count", "tikv_raftstore_log_lag"
	converted.waitForSamples(t, nativeCount)
	halfNative.waitForSamples(t, nativeCount)

	for _, v := range []view{both, switched, halfClassic} {
		v.waitForSamples(t, classicCount)
	}

	exporter := startConfigured(t, configOf(converted, both, switched, halfNative), "--discovery.interval=2s")

	requireUpstreamValues(t, exporter, converted, both, switched, halfNative, halfClassic)
	converted.requireClassic(t, false)
	both.requireClassic(t, true)
	t.Run("an upstream that starts to convert", func(t *testing.T) {
		testStartToConvert(t, exporter, switching, switched)
	})
}

// testStartToConvert lets an upstream convert histograms from now on.
func testStartToConvert(t *testing.T, e *exporter, f *fleet, before view) {
	if err := stack.Reconfigure(f.dir, stack.Config{
		Interval: defaultScrapeInterval, Targets: f.targets, Histograms: stack.NativeHistograms,
	}); err != nil {
		t.Fatal(err)
	}
	if err := f.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	after := before
	after.native = true
	after.waitForSamples(t, "tikv_raftstore_log_lag")

	waitForPage(t, e, "the exporter to use native histograms", func(p page) error {
		requireOtherGauges(t, p, before)

		differences, err := after.differences(t.Context(), p)
		switch {
		case err != nil:
			return err
		case len(differences) > 0:
			return fmt.Errorf("the gauges differ from those of native histograms: %q", differences)
		default:
			return after.missing(p)
		}
	})
	after.requireClassic(t, false)
	requireUpstreamValues(t, e, after)
}

// requireOtherGauges fails the test if a gauge is absent that does not depend on histograms.
func requireOtherGauges(t *testing.T, p page, v view) {
	t.Helper()

	others := truth.Select(func(g truth.Gauge) bool { return g.Native == "" })
	for _, instance := range v.instances {
		present := v.present(p, instance)
		for _, name := range others {
			if !slices.Contains(present, name) {
				t.Errorf("%s of %s is absent", name, instance)
			}
		}
	}
}

// requireClassic fails the test unless upstream has classic histograms, or none.
func (v view) requireClassic(t *testing.T, want bool) {
	t.Helper()

	s, err := v.query(t.Context(), "count(tikv_grpc_msg_duration_seconds_bucket)", "")
	if err != nil || (len(s) > 0) != want {
		t.Errorf("the buckets of %s are %v (error %v), want some: %v", v.cluster, s, err, want)
	}
}
