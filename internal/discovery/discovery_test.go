// SPDX-License-Identifier: Apache-2.0

package discovery_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/operator-store/operator_store_exporter/internal/discovery"
	"github.com/operator-store/operator_store_exporter/internal/gauge"
	"github.com/operator-store/operator_store_exporter/internal/httpclient"
	"github.com/operator-store/operator_store_exporter/internal/storematch"
)

const lookback = time.Hour

var (
	errRefused = &httpclient.Error{Reason: httpclient.ReasonConnection, Err: errors.New("connection refused")}
	errQuery   = &httpclient.Error{Reason: httpclient.ReasonQuery, Err: errors.New("unknown metric")}
)

// fixture is a discovery, and what its refreshes counted.
type fixture struct {
	*discovery.Discovery
	up *fakeUpstream
	pd *fakePD

	mu       sync.Mutex
	failures map[string]int // By query and reason.
}

// newFixture returns a discovery of the targets a:20180 and b:20180. Change may change its options.
func newFixture(change func(*fixture, *discovery.Options)) *fixture {
	two := []labels.Labels{target("a:20180"), target("b:20180")}
	f := &fixture{
		up: &fakeUpstream{recent: two, live: two, clockKnown: true}, pd: &fakePD{}, failures: map[string]int{},
	}
	opts := discovery.Options{Upstream: f.up, Lookback: lookback, StoreLimit: 100, CountFailure: f.count}
	if change != nil {
		change(f, &opts)
	}
	f.Discovery = discovery.New(opts)

	return f
}

// withPD configures a PD that returns stores.
func withPD(stores ...storematch.Store) func(*fixture, *discovery.Options) {
	return func(f *fixture, o *discovery.Options) {
		f.pd.stores = stores
		o.PD = f.pd
	}
}

func (f *fixture) count(q *gauge.Query, reason httpclient.Reason) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failures[q.Name+" "+string(reason)]++
}

// describe returns the stores of a state as text, written ID ADDRESS -> INSTANCE.
func describe(s *discovery.State) string {
	var stores []string
	for _, m := range s.Matches {
		target, _ := m.Target()
		stores = append(stores, fmt.Sprintf("%s %s -> %s", m.Store.ID, m.Store.Address, target.Instance))
	}

	return strings.Join(stores, "; ")
}

// succeeded returns which queries ran, and whether they succeeded.
func succeeded(s *discovery.State) map[string]bool {
	queries := map[string]bool{}
	for q, r := range s.Queries {
		if q.Name != r.Name {
			panic("the report of " + q.Name + " is of " + r.Name)
		}
		queries[r.Name] = !r.Failed()
	}

	return queries
}

// The first refresh: which queries run, and which stores result.
func TestFirstRefresh(t *testing.T) {
	const unidentified = " a:20180 -> a:20180;  b:20180 -> b:20180"
	storeA := storematch.Store{ID: "1", Address: "a:20160"}
	for _, tc := range []struct {
		name     string
		change   func(*fixture, *discovery.Options)
		usable   bool
		stores   string
		queries  map[string]bool // That ran, and whether they succeeded.
		failures map[string]int
	}{
		{
			name:    "upstream does not scrape PD",
			usable:  true,
			stores:  unidentified,
			queries: map[string]bool{"targets": true, "store_ids": true},
		},
		{
			name: "upstream scrapes PD",
			change: func(f *fixture, _ *discovery.Options) {
				f.up.pdSeries = []labels.Labels{pdStore("1", "a:20160"), pdStore("4", "b:20160")}
			},
			usable:  true,
			stores:  "1 a:20160 -> a:20180; 4 b:20160 -> b:20180",
			queries: map[string]bool{"targets": true, "store_ids": true},
		},
		{
			name:    "PD's stores, without a query for its series",
			change:  withPD(storeA),
			usable:  true,
			stores:  "1 a:20160 -> a:20180",
			queries: map[string]bool{"targets": true, "pd": true},
		},
		{
			name: "PD fails, upstream scrapes it",
			change: func(f *fixture, o *discovery.Options) {
				withPD()(f, o)
				f.pd.err = errRefused
				f.up.pdSeries = []labels.Labels{pdStore("1", "a:20160")}
			},
			usable:   true,
			stores:   "1 a:20160 -> a:20180;  b:20180 -> b:20180",
			queries:  map[string]bool{"targets": true, "pd": false, "store_ids": true},
			failures: map[string]int{"pd connection": 1},
		},
		{
			name:   "the query for targets fails",
			change: func(f *fixture, _ *discovery.Options) { f.up.seriesErr = errRefused },
			// Upstream's time is known, so the query for PD's series can run.
			queries:  map[string]bool{"targets": false, "store_ids": true},
			failures: map[string]int{"targets connection": 1},
		},
		{
			name: "upstream is down",
			change: func(f *fixture, _ *discovery.Options) {
				f.up.clockKnown, f.up.queryErr = false, errRefused
			},
			queries:  map[string]bool{"targets": false},
			failures: map[string]int{"targets connection": 1},
		},
		{
			name: "upstream is down, PD is not",
			change: func(f *fixture, o *discovery.Options) {
				withPD(storeA)(f, o)
				f.up.clockKnown, f.up.queryErr = false, errRefused
			},
			stores:   "1 a:20160 -> ",
			queries:  map[string]bool{"targets": false, "pd": true},
			failures: map[string]int{"targets connection": 1},
		},
		{
			name:   "the query for PD's series fails for now: the labels are not final",
			change: func(f *fixture, _ *discovery.Options) { f.up.storesErr = errRefused },
			stores: unidentified,

			queries:  map[string]bool{"targets": true, "store_ids": false},
			failures: map[string]int{"store_ids connection": 1},
		},
		{
			name:     "the query for PD's series always fails: the labels are final",
			change:   func(f *fixture, _ *discovery.Options) { f.up.storesErr = errQuery },
			usable:   true,
			stores:   unidentified,
			queries:  map[string]bool{"targets": true, "store_ids": false},
			failures: map[string]int{"store_ids query": 1},
		},
		{
			name: "the query for PD's series fails, but the configuration identifies every store",
			change: func(f *fixture, o *discovery.Options) {
				f.up.storesErr = errRefused
				o.Configured = []storematch.Store{storeA}
			},
			usable:   true,
			stores:   "1 a:20160 -> a:20180",
			queries:  map[string]bool{"targets": true, "store_ids": false},
			failures: map[string]int{"store_ids connection": 1},
		},
		{
			name: "the query for PD's series fails, and a configured store has no ID",
			change: func(f *fixture, o *discovery.Options) {
				f.up.storesErr = errRefused
				o.Configured = []storematch.Store{storeA, {Address: "b:20160"}}
			},
			stores:   "1 a:20160 -> a:20180;  b:20160 -> b:20180",
			queries:  map[string]bool{"targets": true, "store_ids": false},
			failures: map[string]int{"store_ids connection": 1},
		},
		{
			name: "configured stores get missing IDs",
			change: func(f *fixture, o *discovery.Options) {
				f.up.pdSeries = []labels.Labels{pdStore("1", "a:20160"), pdStore("4", "b:20160")}
				o.Configured = []storematch.Store{{Address: "b:20160"}}
			},
			usable:  true,
			stores:  "4 b:20160 -> b:20180",
			queries: map[string]bool{"targets": true, "store_ids": true},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFixture(tc.change)
			s := f.Refresh(t.Context(), nil)

			if s.Usable() != tc.usable {
				t.Errorf("the state is usable: %v, want %v", s.Usable(), tc.usable)
			}
			if got := describe(s); got != tc.stores {
				t.Errorf("the stores are %q, want %q", got, tc.stores)
			}
			if got := succeeded(s); !maps.Equal(got, tc.queries) {
				t.Errorf("the queries succeeded %v, want %v", got, tc.queries)
			}
			if !maps.Equal(f.failures, tc.failures) {
				t.Errorf("the failures %v are counted, want %v", f.failures, tc.failures)
			}
		})
	}
}

// Data from a source that fails is kept. Data from a source that responds is replaced.
func TestRefreshKeepsDataOfFailedSources(t *testing.T) {
	storeA, storeB := storematch.Store{ID: "1", Address: "a:20160"}, storematch.Store{ID: "4", Address: "b:20160"}
	seriesA := []labels.Labels{pdStore("1", "a:20160")}
	onlyB := []labels.Labels{target("b:20180")}
	for _, tc := range []struct {
		name   string
		before func(*fixture, *discovery.Options) // On the first refresh.
		after  func(*fixture)                     // On the second one.
		wait   time.Duration                      // Between them.
		want   string
	}{
		{
			name:  "targets that are missing are kept",
			after: func(f *fixture) { f.up.recent, f.up.live = onlyB, onlyB },
			want:  " a:20180 -> a:20180;  b:20180 -> b:20180",
		},
		{
			name: "targets that are missing are kept for the lookback",
			after: func(f *fixture) {
				f.up.recent, f.up.live = onlyB, onlyB
				f.up.passed = lookback
			},
			want: " a:20180 -> a:20180;  b:20180 -> b:20180",
		},
		{
			name: "targets that are missing are forgotten after that",
			after: func(f *fixture) {
				f.up.recent, f.up.live = onlyB, onlyB
				f.up.passed = lookback + time.Second
			},
			want: " b:20180 -> b:20180",
		},
		{
			name: "new targets are added",
			after: func(f *fixture) {
				f.up.recent = append(slices.Clone(onlyB), target("c:20180"))
				f.up.live = f.up.recent
			},
			want: " a:20180 -> a:20180;  b:20180 -> b:20180;  c:20180 -> c:20180",
		},
		{
			name:  "targets are kept if their query fails",
			after: func(f *fixture) { f.up.recent, f.up.live, f.up.seriesErr = onlyB, onlyB, errRefused },
			want:  " a:20180 -> a:20180;  b:20180 -> b:20180",
		},
		{
			name:   "PD's stores are replaced",
			before: withPD(storeA),
			after:  func(f *fixture) { f.pd.stores = []storematch.Store{storeB} },
			want:   "4 b:20160 -> b:20180",
		},
		{
			name:   "PD's stores are kept if it fails",
			before: withPD(storeA),
			after:  func(f *fixture) { f.pd.stores, f.pd.err = nil, errRefused },
			wait:   100 * lookback,
			want:   "1 a:20160 -> a:20180",
		},
		{
			name:   "PD's stores are kept if it fails, whatever its series in upstream are",
			before: withPD(storeA),
			after: func(f *fixture) {
				f.pd.stores, f.pd.err = nil, errRefused
				f.up.pdSeries = []labels.Labels{pdStore("9", "b:20160")}
			},
			want: "1 a:20160 -> a:20180",
		},
		{
			name:   "PD's series are replaced",
			before: func(f *fixture, _ *discovery.Options) { f.up.pdSeries = seriesA },
			after:  func(f *fixture) { f.up.pdSeries = []labels.Labels{pdStore("9", "a:20160")} },
			want:   "9 a:20160 -> a:20180;  b:20180 -> b:20180",
		},
		{
			name:   "PD's series are kept if their query fails",
			before: func(f *fixture, _ *discovery.Options) { f.up.pdSeries = seriesA },
			after:  func(f *fixture) { f.up.pdSeries, f.up.storesErr = nil, errRefused },
			wait:   100 * lookback,
			want:   "1 a:20160 -> a:20180;  b:20180 -> b:20180",
		},
		{
			name:   "PD's series are kept for the lookback after they have ended",
			before: func(f *fixture, _ *discovery.Options) { f.up.pdSeries = seriesA },
			after:  func(f *fixture) { f.up.pdSeries = nil },
			wait:   lookback,
			want:   "1 a:20160 -> a:20180;  b:20180 -> b:20180",
		},
		{
			name:   "PD's series are forgotten after that",
			before: func(f *fixture, _ *discovery.Options) { f.up.pdSeries = seriesA },
			after:  func(f *fixture) { f.up.pdSeries = nil },
			wait:   lookback + time.Second,
			want:   " a:20180 -> a:20180;  b:20180 -> b:20180",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(tc.before)
				first := f.Refresh(t.Context(), nil)
				before := describe(first)
				tc.after(f)
				time.Sleep(tc.wait)

				second := f.Refresh(t.Context(), first)
				if got := describe(second); got != tc.want || !second.Usable() {
					t.Errorf("the stores are %q, usable: %v, want %q", got, second.Usable(), tc.want)
				}
				if len(second.Queried) != len(second.Matches) { // Each store has a target.
					t.Errorf("queried %v for the stores %q", second.Queried, tc.want)
				}
				if got := describe(first); got != before {
					t.Errorf("the refresh changed the previous state to %q from %q", got, before)
				}
			})
		})
	}
}

// If PD fails, its error says how old the stores in use are.
func TestRefreshErrorOfPD(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(withPD(storematch.Store{ID: "1", Address: "a:20160"}))
		first := f.Refresh(t.Context(), nil)
		f.pd.err = errRefused
		time.Sleep(90 * time.Second)

		second := f.Refresh(t.Context(), first)
		errs := second.Queries[gauge.QueryPD].Errs
		want := errRefused.Error() + ": the stores that PD returned 1m30s ago stay in use"
		if len(errs) != 1 || errs[0].Error() != want || !errors.Is(errs[0], errRefused) {
			t.Errorf("got the errors %v, want %s", errs, want)
		}
		if !second.PDTime.Equal(first.PDTime) || first.PDTime.IsZero() {
			t.Errorf("PD returned the stores at %s, want %s", second.PDTime, first.PDTime)
		}
	})
}

// Errors of a canceled refresh are not counted, as those of an exporter that a reload replaces.
func TestCanceledRefreshIsNotCounted(t *testing.T) {
	f := newFixture(func(f *fixture, _ *discovery.Options) { f.up.seriesErr, f.up.storesErr = errRefused, errRefused })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()

	s := f.Refresh(ctx, nil)
	if want := map[string]bool{"targets": false, "store_ids": false}; !maps.Equal(succeeded(s), want) {
		t.Errorf("the queries succeeded %v, want %v", succeeded(s), want)
	}
	if len(f.failures) > 0 {
		t.Errorf("the failures %v are counted", f.failures)
	}
}

// Stores above the limit are left out, and their targets are not queried.
func TestStoreLimit(t *testing.T) {
	for _, tc := range []struct {
		limit   int
		dropped int
		queried []string
	}{
		{limit: 3, queried: []string{"a:20180", "b:20180"}},
		{limit: 2, queried: []string{"a:20180", "b:20180"}},
		{limit: 1, dropped: 1, queried: []string{"a:20180"}},
	} {
		t.Run(strconv.Itoa(tc.limit), func(t *testing.T) {
			f := newFixture(func(_ *fixture, o *discovery.Options) { o.StoreLimit = tc.limit })
			s := f.Refresh(t.Context(), nil)

			var queried []string
			for _, identity := range s.Queried {
				queried = append(queried, identity.Instance)
			}
			if s.Dropped != tc.dropped || len(s.Matches) != len(tc.queried) || !slices.Equal(queried, tc.queried) {
				t.Errorf("dropped %d, kept %d, queried %q, want %d dropped, queried %q",
					s.Dropped, len(s.Matches), queried, tc.dropped, tc.queried)
			}
		})
	}
}

// Targets of ambiguous stores are not queried. The others are sorted.
func TestQueriedTargets(t *testing.T) {
	f := newFixture(func(f *fixture, _ *discovery.Options) {
		f.up.live = []labels.Labels{
			labels.FromStrings("job", "z", "instance", "a:20180"),
			labels.FromStrings("job", "y", "instance", "b:20180"),
			labels.FromStrings("job", "y", "instance", "c:20180"),
			labels.FromStrings("job", "z", "instance", "c:20180"),
		}
		f.up.recent = f.up.live
	})

	got := f.Refresh(t.Context(), nil).Queried
	want := []storematch.Identity{{Job: "y", Instance: "b:20180"}, {Job: "z", Instance: "a:20180"}}
	if !slices.Equal(got, want) {
		t.Errorf("queried %v, want %v", got, want)
	}
}

// What a discovery knows after a reload of the configuration.
func TestInherit(t *testing.T) {
	pdTime := time.Unix(1_600_000_000, 0)
	stores := []storematch.Store{{ID: "1", Address: "a:20160"}}
	targets := []storematch.Target{{Identity: storematch.Identity{Job: "tikv", Instance: "a:20180"}, Live: true}}
	complete := &discovery.State{
		TargetsKnown: true, Identified: true, Targets: targets, Stores: stores, PDTime: pdTime,
		Matches: storematch.MatchStores(stores, targets),
	}
	withoutPD := &discovery.State{TargetsKnown: true, Identified: true, Targets: targets}
	onlyPD := &discovery.State{Identified: true, Stores: stores, PDTime: pdTime}
	onlyTargets := &discovery.State{TargetsKnown: true, Targets: targets}

	for _, tc := range []struct {
		name         string
		previous     *discovery.State
		sameUpstream bool
		samePD       bool
		options      func(*fixture, *discovery.Options)
		want         string // The stores; "nothing" if there is no state.
		usable       bool
	}{
		{
			name:         "same upstream and PD",
			previous:     complete,
			sameUpstream: true, samePD: true,
			want:   "1 a:20160 -> a:20180",
			usable: true,
		},
		{
			name:         "same upstream, no PD",
			previous:     withoutPD,
			sameUpstream: true, samePD: true,
			want:   " a:20180 -> a:20180",
			usable: true,
		},
		{
			name:         "other stores are configured",
			previous:     complete,
			sameUpstream: true, samePD: true,
			options: func(_ *fixture, o *discovery.Options) {
				o.Configured = []storematch.Store{{ID: "7", Address: "a:20160"}, {ID: "8", Address: "z:20160"}}
			},
			want:   "7 a:20160 -> a:20180; 8 z:20160 -> ",
			usable: true,
		},
		{
			name:     "another upstream: PD's stores are kept",
			previous: complete,
			samePD:   true,
			want:     "1 a:20160 -> a:20180", // The matches matter for the next refresh.
		},
		{
			name:     "another upstream, without PD",
			previous: withoutPD,
			samePD:   true,
			want:     "nothing",
		},
		{
			name:         "another PD",
			previous:     complete,
			sameUpstream: true,
			want:         "nothing",
		},
		{
			name:         "only PD has responded",
			previous:     onlyPD,
			sameUpstream: true, samePD: true,
			want: "",
		},
		{
			name:         "the stores were not identified yet",
			previous:     onlyTargets,
			sameUpstream: true, samePD: true,
			want: "nothing",
		},
		{
			name:         "nothing was known",
			sameUpstream: true, samePD: true,
			want: "nothing",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := newFixture(tc.options).Inherit(tc.previous, tc.sameUpstream, tc.samePD)

			described := "nothing"
			if got != nil {
				described = describe(got)
			}
			if described != tc.want || got.Usable() != tc.usable {
				t.Errorf("got %q, usable: %v, want %q, usable: %v", described, got.Usable(), tc.want, tc.usable)
			}
			if got != nil && (!got.PDTime.Equal(tc.previous.PDTime) || !slices.Equal(got.Stores, tc.previous.Stores)) {
				t.Errorf("got the stores %v of %s, want those of before", got.Stores, got.PDTime)
			}
		})
	}
}

func TestClosePD(t *testing.T) {
	f := newFixture(withPD())
	f.Close()
	if !f.pd.closed {
		t.Error("the connections to PD are not closed")
	}
	newFixture(nil).Close() // Without PD, there is nothing to close.
}
