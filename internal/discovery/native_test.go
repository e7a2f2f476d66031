// SPDX-License-Identifier: Apache-2.0

package discovery_test

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/operator-store/operator_store_exporter/internal/discovery"
	"github.com/operator-store/operator_store_exporter/internal/gauge"
)

// The metric names of the histograms.
const (
	durationName = "tikv_grpc_msg_duration_seconds"
	lagName      = "tikv_raftstore_log_lag"
)

// withHistograms learns which targets have native histograms.
func withHistograms(t *testing.T) func(*fixture, *discovery.Options) {
	t.Helper()
	catalog, err := gauge.NewCatalog(nil)
	if err != nil {
		t.Fatal(err)
	}

	return func(f *fixture, o *discovery.Options) {
		o.Histograms = catalog.Histograms()
		o.Selector = parseSelector(t, `{tidb_cluster="x"}`)
		f.up.native, f.up.classic = map[string][]labels.Labels{}, map[string][]labels.Labels{}
	}
}

// native returns the instances that have native histograms only, by query.
func native(s *discovery.State) map[string][]string {
	instances := map[string][]string{}
	for q, targets := range s.Native {
		for id, isNative := range targets {
			if isNative {
				instances[q.Name] = append(instances[q.Name], id.Instance)
			}
		}
		slices.Sort(instances[q.Name])
	}

	return instances
}

// Which targets have native histograms, and no classic ones.
func TestNativeTargets(t *testing.T) {
	a, b := target("a:20180"), target("b:20180")
	both, instances := []labels.Labels{a, b}, []string{"a:20180", "b:20180"}
	onlyB := []labels.Labels{b}
	for _, tc := range []struct {
		name    string
		native  map[string][]labels.Labels // By metric.
		classic map[string][]labels.Labels
		want    map[string][]string
		queries int // For both histograms.
	}{
		{
			name:    "none",
			classic: map[string][]labels.Labels{durationName: both, lagName: both},
			queries: 2, // Those for classic histograms are not needed.
		},
		{
			name:    "all",
			native:  map[string][]labels.Labels{durationName: both, lagName: both},
			want:    map[string][]string{"grpc_duration": instances, "raft_log_lag": instances},
			queries: 4,
		},
		{
			name:    "half of the fleet",
			native:  map[string][]labels.Labels{durationName: onlyB, lagName: onlyB},
			classic: map[string][]labels.Labels{durationName: {a}, lagName: {a}},
			want:    map[string][]string{"grpc_duration": {"b:20180"}, "raft_log_lag": {"b:20180"}},
			queries: 4,
		},
		{
			name:    "both forms",
			native:  map[string][]labels.Labels{durationName: both, lagName: both},
			classic: map[string][]labels.Labels{durationName: both, lagName: both},
			queries: 4,
		},
		{
			name:    "one target has both forms, the other one is converted",
			native:  map[string][]labels.Labels{durationName: both, lagName: both},
			classic: map[string][]labels.Labels{durationName: {a}, lagName: {a}},
			want:    map[string][]string{"grpc_duration": {"b:20180"}, "raft_log_lag": {"b:20180"}},
			queries: 4,
		},
		{
			name:    "only one of the histograms",
			native:  map[string][]labels.Labels{lagName: both},
			classic: map[string][]labels.Labels{durationName: both},
			want:    map[string][]string{"raft_log_lag": {"a:20180", "b:20180"}},
			queries: 3,
		},
		{
			name:    "neither form",
			queries: 2,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFixture(withHistograms(t))
			maps.Copy(f.up.native, tc.native)
			maps.Copy(f.up.classic, tc.classic)

			got := native(f.Refresh(t.Context(), nil))
			for _, name := range []string{"grpc_duration", "raft_log_lag"} {
				if !slices.Equal(got[name], tc.want[name]) {
					t.Errorf("%s: native histograms have %q, want %q", name, got[name], tc.want[name])
				}
			}

			queries := 0
			for _, e := range f.up.expressions {
				if !strings.HasPrefix(e, "group by (job, instance)") {
					continue
				}
				queries++
				if !strings.Contains(e, `tidb_cluster="x"`) {
					t.Errorf("%s lacks the selector", e)
				}
				// One bucket of each histogram is enough.
				if strings.Contains(e, "_bucket") != strings.Contains(e, `le="+Inf"`) {
					t.Errorf("%s is not about one bucket", e)
				}
			}
			if queries != tc.queries {
				t.Errorf("sent %d queries for histograms, want %d: %q", queries, tc.queries, f.up.expressions)
			}
		})
	}
}

// While upstream is switched, each refresh finds the form that a target has by then.
func TestNativeTargetsChange(t *testing.T) {
	a, b := target("a:20180"), target("b:20180")
	f := newFixture(withHistograms(t))
	var state *discovery.State

	for _, step := range []struct {
		name            string
		native, classic []labels.Labels
		want            []string
	}{
		{name: "classic", classic: []labels.Labels{a, b}},
		{name: "one is converted, old buckets linger", native: []labels.Labels{a}, classic: []labels.Labels{a, b}},
		{name: "they are stale", native: []labels.Labels{a}, classic: []labels.Labels{b}, want: []string{"a:20180"}},
		{name: "all are converted", native: []labels.Labels{a, b}, want: []string{"a:20180", "b:20180"}},
		{name: "and back", native: []labels.Labels{a, b}, classic: []labels.Labels{a, b}},
	} {
		f.up.native[durationName], f.up.classic[durationName] = step.native, step.classic
		state = f.Refresh(t.Context(), state)
		if got := native(state)["grpc_duration"]; !slices.Equal(got, step.want) {
			t.Errorf("%s: native histograms have %q, want %q", step.name, got, step.want)
		}
	}
}

// If the histograms cannot be queried, what is known is kept, and the query targets fails.
func TestNativeTargetsCannotBeQueried(t *testing.T) {
	f := newFixture(withHistograms(t))
	f.up.native[durationName] = []labels.Labels{target("a:20180")}
	first := f.Refresh(t.Context(), nil)
	f.up.native[durationName], f.up.nativeErr = nil, errPartial
	second := f.Refresh(t.Context(), first)

	if got, want := native(second)["grpc_duration"], []string{"a:20180"}; !slices.Equal(got, want) {
		t.Errorf("native histograms have %q, want %q as before", got, want)
	}
	errs := second.Queries[gauge.QueryTargets].Errs
	if len(errs) != 1 || !errors.Is(errs[0], errPartial) || f.failures["targets partial"] != 1 {
		t.Errorf("got the errors %v, counted %v, want one partial response", errs, f.failures)
	}
	if !second.Usable() {
		t.Error("the state is not usable")
	}
}
