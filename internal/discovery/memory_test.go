// SPDX-License-Identifier: Apache-2.0

package discovery_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/operator-store/operator_store_exporter/internal/discovery"
	"github.com/operator-store/operator_store_exporter/internal/httpclient"
	"github.com/operator-store/operator_store_exporter/internal/storematch"
)

// errPartial is the error of a response that has a warning.
var errPartial = &httpclient.Error{
	Reason: httpclient.ReasonPartial, Err: errors.New("the response may lack series: fetch series"),
}

// describeTargets returns the targets of a state as text. Those that are not live are in
// parentheses.
func describeTargets(s *discovery.State) string {
	var targets []string
	for _, t := range s.Targets {
		format := "%s"
		if !t.Live {
			format = "(%s)"
		}
		targets = append(targets, fmt.Sprintf(format, t.Instance))
	}

	return strings.Join(targets, " ")
}

// Targets that vanish stay known for the lookback after they were last live: their stores are not
// monitored, but neither down nor gone. The times are those of upstream, whose clock may differ
// from the local one.
func TestVanishedTargets(t *testing.T) {
	const all, onlyB, none = "a b", "b", ""
	series := func(instances string) []labels.Labels {
		var targets []labels.Labels
		for _, instance := range strings.Fields(instances) {
			targets = append(targets, target(instance))
		}

		return targets
	}
	type step struct {
		after  time.Duration // Since the step before.
		recent string        // The instances that had samples within the lookback.
		live   string        // Those that have samples now.
		err    error         // Of the query for targets.
		want   string
	}
	for _, tc := range []struct {
		name  string
		steps []step
	}{
		{
			name: "without a warning, and it returns",
			steps: []step{
				{recent: all, live: all, want: "a b"},
				{after: time.Minute, recent: onlyB, live: onlyB, want: "(a) b"},
				{after: time.Minute, recent: onlyB, live: onlyB, want: "(a) b"},
				{after: time.Minute, recent: all, live: all, want: "a b"},
			},
		},
		{
			name: "with a warning: the state before is kept",
			steps: []step{
				{recent: all, live: all, want: "a b"},
				{after: time.Minute, recent: onlyB, live: onlyB, err: errPartial, want: "a b"},
				{after: 100 * lookback, recent: onlyB, live: onlyB, err: errPartial, want: "a b"},
				{after: time.Minute, recent: all, live: all, want: "a b"},
			},
		},
		{
			name: "with a warning, and then without one",
			steps: []step{
				{recent: all, live: all, want: "a b"},
				{after: time.Minute, recent: onlyB, live: onlyB, err: errPartial, want: "a b"},
				{after: time.Minute, recent: onlyB, live: onlyB, want: "(a) b"},
			},
		},
		{
			name: "forgotten after the lookback",
			steps: []step{
				{recent: all, live: all, want: "a b"},
				{after: lookback, recent: onlyB, live: onlyB, want: "(a) b"},
				{after: time.Millisecond, recent: onlyB, live: onlyB, want: "b"},
				{after: time.Millisecond, recent: onlyB, live: onlyB, want: "b"},
				{after: time.Minute, recent: all, live: all, want: "a b"},
			},
		},
		{
			name: "the lookback begins when it was last live",
			steps: []step{
				{recent: all, live: all, want: "a b"},
				{after: 30 * time.Minute, recent: all, live: all, want: "a b"},
				{after: lookback, recent: onlyB, live: onlyB, want: "(a) b"},
				{after: time.Millisecond, recent: onlyB, live: onlyB, want: "b"},
			},
		},
		{
			name: "not live any more, then gone: no longer than the lookback after it was last live",
			steps: []step{
				{recent: all, live: all, want: "a b"},
				{after: 30 * time.Minute, recent: all, live: onlyB, want: "(a) b"},
				{after: 30 * time.Minute, recent: onlyB, live: onlyB, want: "(a) b"},
				{after: time.Millisecond, recent: onlyB, live: onlyB, want: "b"},
			},
		},
		{
			name: "upstream's own lookback is longer",
			steps: []step{
				{recent: all, live: all, want: "a b"},
				{after: 2 * lookback, recent: all, live: onlyB, want: "(a) b"},
				{after: time.Minute, recent: onlyB, live: onlyB, want: "b"},
			},
		},
		{
			name: "never seen live: from when it was first seen",
			steps: []step{
				{recent: all, live: onlyB, want: "(a) b"},
				{after: lookback, recent: onlyB, live: onlyB, want: "(a) b"},
				{after: time.Millisecond, recent: onlyB, live: onlyB, want: "b"},
			},
		},
		{
			name: "live in the query for live targets only",
			steps: []step{
				{recent: none, live: all, want: "a b"},
				{after: time.Minute, recent: none, live: onlyB, want: "(a) b"},
			},
		},
		{
			name: "all at once, such as those of a Thanos that lost its only endpoint",
			steps: []step{
				{recent: all, live: all, want: "a b"},
				{after: time.Minute, recent: none, live: none, want: "(a) (b)"},
				{after: lookback - time.Minute, recent: none, live: none, want: "(a) (b)"},
				{after: time.Millisecond, recent: none, live: none, want: ""},
			},
		},
		{
			name: "it returns and vanishes again: the lookback begins again",
			steps: []step{
				{recent: all, live: all, want: "a b"},
				{after: 50 * time.Minute, recent: onlyB, live: onlyB, want: "(a) b"},
				{after: time.Minute, recent: all, live: all, want: "a b"},
				{after: 50 * time.Minute, recent: onlyB, live: onlyB, want: "(a) b"},
				{after: 10 * time.Minute, recent: onlyB, live: onlyB, want: "(a) b"},
				{after: time.Millisecond, recent: onlyB, live: onlyB, want: "b"},
			},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFixture(nil)
			var state *discovery.State
			for i, s := range tc.steps {
				f.up.passed += s.after
				f.up.recent, f.up.live, f.up.seriesErr = series(s.recent), series(s.live), s.err

				before := state
				var beforeText string
				if before != nil {
					beforeText = describeTargets(before)
				}
				state = f.Refresh(t.Context(), state)
				if got := describeTargets(state); got != s.want {
					t.Errorf("step %d: the targets are %q, want %q", i, got, s.want)
				}
				if before != nil && describeTargets(before) != beforeText {
					t.Errorf("step %d: the refresh changed the state before", i)
				}
				if want := len(strings.Fields(s.want)); len(state.Queried) != want || len(state.Matches) != want {
					t.Errorf("step %d: %d targets are queried for %d stores, want %d",
						i, len(state.Queried), len(state.Matches), want)
				}
			}
		})
	}
}

// A target that vanished keeps what it is known by, so that its store does not change its labels.
func TestVanishedTargetKeepsItsLabels(t *testing.T) {
	f := newFixture(func(f *fixture, _ *discovery.Options) {
		l := labels.FromStrings(
			"job", "tikv", "instance", "10.0.0.1:20180", "pod", "tikv-0", "namespace", "n", "cluster", "c")
		f.up.recent, f.up.live = []labels.Labels{l}, []labels.Labels{l}
	})
	first := f.Refresh(t.Context(), nil)
	f.up.recent, f.up.live = nil, nil
	second := f.Refresh(t.Context(), first)

	want := storematch.Target{
		Identity: storematch.Identity{Job: "tikv", Instance: "10.0.0.1:20180"},
		Pod:      "tikv-0", Namespace: "n", Cluster: "c",
	}
	if len(second.Targets) != 1 || second.Targets[0] != want {
		t.Errorf("the targets are %+v, want %+v", second.Targets, want)
	}
}

// A target that a reload of the configuration inherits is remembered as long as any other.
func TestVanishedTargetAfterReload(t *testing.T) {
	f := newFixture(nil)
	first := f.Refresh(t.Context(), nil)
	inherited := f.Inherit(first, true, true)
	f.up.recent = []labels.Labels{target("b:20180")}
	f.up.live = f.up.recent
	f.up.passed = lookback

	second := f.Refresh(t.Context(), inherited)
	if got, want := describeTargets(second), "(a:20180) b:20180"; got != want {
		t.Errorf("the targets are %q, want %q", got, want)
	}
}
