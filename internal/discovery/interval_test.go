// SPDX-License-Identifier: Apache-2.0

package discovery_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/operator-store/operator_store_exporter/internal/discovery"
	"github.com/operator-store/operator_store_exporter/internal/gauge"
	"github.com/operator-store/operator_store_exporter/internal/storematch"
)

const (
	upName     = "up"
	pushedName = "tikv_store_size_bytes"
	hour       = time.Hour
	second     = time.Second
)

// every returns the times of scrapes at an interval, from a time on until another one, both
// included.
func every(interval, from, until time.Duration) []time.Duration {
	var times []time.Duration
	for t := from; t <= until; t += interval {
		times = append(times, t)
	}

	return times
}

// pastHour returns the times of scrapes at an interval during the last hour. The last one is now.
func pastHour(interval time.Duration) []time.Duration {
	times := every(interval, 0, hour)
	for i, t := range times {
		times[i] = -t
	}
	slices.Reverse(times)

	return times
}

// sampled returns a series of a target with additional or other labels.
func sampled(name, instance string, times []time.Duration, more ...string) sampledSeries {
	metric := labels.NewBuilder(labels.FromStrings("__name__", name, "job", "tikv", "instance", instance))
	for i := 0; i < len(more); i += 2 {
		metric.Set(more[i], more[i+1])
	}
	if name == pushedName {
		metric.Set("type", "available")
	}

	return sampledSeries{metric: metric.Labels(), times: times}
}

func liveTarget(instance string) storematch.Target {
	return storematch.Target{Identity: storematch.Identity{Job: "tikv", Instance: instance}, Live: true}
}

// The interval that is learned from the samples of the last hour.
func TestScrapeInterval(t *testing.T) {
	a, b := liveTarget("a:20180"), liveTarget("b:20180")
	withGaps := []time.Duration{-280 * second, -250 * second, -130 * second, 0}
	gone := storematch.Target{Identity: storematch.Identity{Job: "tikv", Instance: "gone:20180"}}
	for _, tc := range []struct {
		name    string
		targets []storematch.Target // If nil, only a.
		known   time.Duration
		samples []sampledSeries
		want    time.Duration
	}{
		{name: "5s", samples: []sampledSeries{sampled(upName, "a:20180", pastHour(5*second))}, want: 5 * second},
		{name: "15s", samples: []sampledSeries{sampled(upName, "a:20180", pastHour(15*second))}, want: 15 * second},
		{name: "16s", samples: []sampledSeries{sampled(upName, "a:20180", pastHour(16*second))}, want: 16 * second},
		{name: "30s", samples: []sampledSeries{sampled(upName, "a:20180", pastHour(30*second))}, want: 30 * second},
		{name: "1m", samples: []sampledSeries{sampled(upName, "a:20180", pastHour(60*second))}, want: 60 * second},
		{name: "2m", samples: []sampledSeries{sampled(upName, "a:20180", pastHour(120*second))}, want: 120 * second},
		{name: "5m", samples: []sampledSeries{sampled(upName, "a:20180", pastHour(300*second))}, want: 300 * second},
		{name: "20m", samples: []sampledSeries{sampled(upName, "a:20180", pastHour(1200*second))}, want: 1200 * second},
		{
			name: "jitter: the median of 15.02s, 14.98s and 15.01s",
			samples: []sampledSeries{sampled(upName, "a:20180", []time.Duration{
				-60 * second, -45010 * time.Millisecond, -29990 * time.Millisecond, -15010 * time.Millisecond, 0,
			})},
			want: 15010 * time.Millisecond,
		},
		{
			name: "one scrape is missing",
			samples: []sampledSeries{sampled(upName, "a:20180",
				append(every(15*second, -hour, -45*second), -15*second, 0))},
			want: 15 * second,
		},
		{
			name: "the last two scrapes are missing",
			samples: []sampledSeries{sampled(upName, "a:20180",
				every(15*second, -hour, -30*second))},
			want: 15 * second,
		},
		{
			name: "upstream was restarted, one sample since",
			samples: []sampledSeries{sampled(upName, "a:20180",
				append(every(15*second, -hour, -200*second), 0))},
			want: 15 * second,
		},
		{
			name: "upstream was down for almost five minutes, which have one sample before and one after",
			samples: []sampledSeries{sampled(upName, "a:20180",
				append(every(15*second, -3595*second, -295*second), 0))},
			want: 15 * second,
		},
		{
			name: "upstream was down for almost five minutes, which have one sample before and two after",
			samples: []sampledSeries{sampled(upName, "a:20180",
				append(every(15*second, -3595*second, -295*second), -15*second, 0))},
			want: 15 * second,
		},
		{
			name: "upstream was down for half an hour",
			samples: []sampledSeries{sampled(upName, "a:20180",
				append(every(15*second, -hour, -1800*second), 0))},
			want: 15 * second,
		},
		{
			name:    "a new upstream with two samples",
			samples: []sampledSeries{sampled(upName, "a:20180", []time.Duration{-30 * second, 0})},
			want:    30 * second,
		},
		{
			name:    "a new upstream with a gap",
			samples: []sampledSeries{sampled(upName, "a:20180", []time.Duration{-200 * second, -15 * second, 0})},
			want:    15 * second,
		},
		{
			name:    "one sample",
			samples: []sampledSeries{sampled(upName, "a:20180", []time.Duration{0})},
		},
		{name: "no sample"},
		{name: "no sample, but the interval was known", known: 30 * second, want: 30 * second},
		{
			name:    "samples of the future do not exist yet",
			samples: []sampledSeries{sampled(upName, "a:20180", every(5*second, second, hour))},
		},
		{
			name:    "the longest of several targets",
			targets: []storematch.Target{a, b},
			samples: []sampledSeries{
				sampled(upName, "a:20180", pastHour(15*second)), sampled(upName, "b:20180", pastHour(60*second)),
			},
			want: 60 * second,
		},
		{
			name:    "the longest of several targets, which has no sample within five minutes",
			targets: []storematch.Target{a, b},
			known:   15 * second,
			samples: []sampledSeries{
				sampled(upName, "a:20180", pastHour(15*second)), sampled(upName, "b:20180", pastHour(600*second)),
			},
			want: 600 * second,
		},
		{
			name:    "targets that are not live do not count",
			targets: []storematch.Target{a, gone},
			samples: []sampledSeries{
				sampled(upName, "a:20180", pastHour(15*second)), sampled(upName, "gone:20180", pastHour(60*second)),
			},
			want: 15 * second,
		},
		{
			name: "targets of others do not count",
			targets: []storematch.Target{
				{Identity: storematch.Identity{Job: "x", Instance: "a"}, Live: true},
				{Identity: storematch.Identity{Job: "y", Instance: "b"}, Live: true},
			},
			samples: []sampledSeries{
				sampled(upName, "a", pastHour(15*second), "job", "x"),
				sampled(upName, "b", pastHour(15*second), "job", "y"),
				sampled(upName, "b", pastHour(60*second), "job", "x"),
			},
			want: 15 * second,
		},
		{
			name: "replicas: one is gone, and returned",
			samples: []sampledSeries{
				sampled(upName, "a:20180", pastHour(15*second), "replica", "x"),
				sampled(upName, "a:20180", withGaps, "replica", "y"),
			},
			want: 15 * second,
		},
		{
			name: "replicas: the first one is gone",
			samples: []sampledSeries{
				sampled(upName, "a:20180", withGaps, "replica", "x"),
				sampled(upName, "a:20180", pastHour(15*second), "replica", "y"),
			},
			want: 15 * second,
		},
		{
			name:    "pushed series without up",
			samples: []sampledSeries{sampled(pushedName, "a:20180", pastHour(30*second))},
			want:    30 * second,
		},
		{
			name: "up wins over other series",
			samples: []sampledSeries{
				sampled(upName, "a:20180", pastHour(15*second)), sampled(pushedName, "a:20180", pastHour(60*second)),
			},
			want: 15 * second,
		},
		{
			name:    "one target is scraped, and one is pushed",
			targets: []storematch.Target{a, b},
			samples: []sampledSeries{
				sampled(upName, "a:20180", pastHour(15*second)), sampled(pushedName, "b:20180", pastHour(60*second)),
			},
			want: 60 * second,
		},
		{
			name:    "a difference within the tolerance is no change",
			known:   15 * second,
			samples: []sampledSeries{sampled(upName, "a:20180", pastHour(15700*time.Millisecond))},
			want:    15 * second,
		},
		{
			name:    "a difference above the tolerance is a change",
			known:   15 * second,
			samples: []sampledSeries{sampled(upName, "a:20180", pastHour(15800*time.Millisecond))},
			want:    15800 * time.Millisecond,
		},
		{
			name:    "shorter than before",
			known:   60 * second,
			samples: []sampledSeries{sampled(upName, "a:20180", pastHour(15*second))},
			want:    15 * second,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			targets := tc.targets
			if targets == nil {
				targets = []storematch.Target{a}
			}
			finder := discovery.NewFinder(&fakeUpstream{samples: tc.samples}, nil, lookback)

			got, err := finder.ScrapeInterval(t.Context(), targets, tc.known, upstreamNow)
			if err != nil || got != tc.want {
				t.Errorf("got the interval %s, %v, want %s", got, err, tc.want)
			}
		})
	}
}

// The samples that are queried: as few as possible, only of live targets, with the selector.
func TestScrapeIntervalQueries(t *testing.T) {
	a, b := liveTarget("a:20180"), liveTarget("b:20180")
	fast, slow := sampled(upName, "a:20180", pastHour(15*second)), sampled(upName, "b:20180", pastHour(300*second))
	const (
		upA      = `up{instance="a:20180",job="tikv",tidb_cluster="x"}`
		upB      = `up{instance="b:20180",job="tikv",tidb_cluster="x"}`
		upAB     = `up{instance=~"a:20180|b:20180",job="tikv",tidb_cluster="x"}`
		pushedA  = `tikv_store_size_bytes{instance="a:20180",job="tikv",tidb_cluster="x",type="available"}`
		noTarget = "gone:20180"
	)
	for _, tc := range []struct {
		name    string
		targets []storematch.Target
		known   time.Duration
		samples []sampledSeries
		want    []string
	}{
		{
			name:    "unknown",
			targets: []storematch.Target{a},
			samples: []sampledSeries{fast},
			want:    []string{upA + "[5m]"},
		},
		{
			name:    "known: six intervals",
			targets: []storematch.Target{a},
			known:   15 * second,
			samples: []sampledSeries{fast},
			want:    []string{upA + "[1m30s]"},
		},
		{
			name:    "known and longer than a minute: still six intervals",
			targets: []storematch.Target{b},
			known:   300 * second,
			samples: []sampledSeries{slow},
			want:    []string{upB + "[30m]"},
		},
		{
			name:    "only targets without enough samples are queried for more",
			targets: []storematch.Target{a, b},
			known:   15 * second,
			samples: []sampledSeries{fast, slow},
			want: []string{
				upAB + "[1m30s]", upB + "[5m]", strings.Replace(pushedA, "a:", "b:", 1) + "[5m]", upB + "[1h]",
			},
		},
		{
			name:    "no up",
			targets: []storematch.Target{a},
			samples: []sampledSeries{sampled(pushedName, "a:20180", pastHour(15*second))},
			want:    []string{upA + "[5m]", pushedA + "[5m]"},
		},
		{
			name:    "no live target",
			targets: []storematch.Target{{Identity: storematch.Identity{Job: "tikv", Instance: noTarget}}},
		},
		{name: "no target"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			up := &fakeUpstream{samples: tc.samples}
			finder := discovery.NewFinder(up, parseSelector(t, `{tidb_cluster="x"}`), lookback)

			for i, s := range tc.samples { // The selector applies to them, too.
				tc.samples[i].metric = labels.NewBuilder(s.metric).Set("tidb_cluster", "x").Labels()
			}

			if _, err := finder.ScrapeInterval(t.Context(), tc.targets, tc.known, upstreamNow); err != nil {
				t.Fatal(err)
			}

			var got []string
			for i, e := range up.expressions {
				got = append(got, sortMatchers(e))
				if !strings.HasSuffix(e, "]") || up.ranges[i] <= 0 {
					t.Errorf("%s is not a range", e)
				}
			}
			if !slices.Equal(got, tc.want) {
				t.Errorf("sent\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(tc.want, "\n"))
			}
		})
	}
}

// sortMatchers returns a selector of one series with its matchers in alphabetical order.
func sortMatchers(selector string) string {
	name, rest, _ := strings.Cut(selector, "{")
	matchers, end, _ := strings.Cut(rest, "}")
	sorted := strings.Split(matchers, ",")
	slices.Sort(sorted)

	return name + "{" + strings.Join(sorted, ",") + "}" + end
}

// No query names more targets than every upstream accepts, and each target is named.
func TestScrapeIntervalOfManyTargets(t *testing.T) {
	const n, most = 1001, 250
	up := &fakeUpstream{}
	var targets []storematch.Target
	for i := range n {
		instance := fmt.Sprintf("basic-tikv-%d.basic-tikv-peer.production-namespace.svc.cluster.local:20180", i)
		targets = append(targets, liveTarget(instance))
		interval := 15 * second
		if i == n-1 {
			interval = 60 * second
		}
		up.samples = append(up.samples, sampled(upName, instance, pastHour(interval)))
	}

	got, err := discovery.NewFinder(up, nil, lookback).ScrapeInterval(t.Context(), targets, 0, upstreamNow)
	if want := 60 * second; err != nil || got != want {
		t.Errorf("got the interval %s, %v, want that of the last target, %s", got, err, want)
	}

	named := 0
	for _, e := range up.expressions {
		k := strings.Count(e, ":20180")
		named += k
		if k > most || len(e) > 12_000+100 {
			t.Errorf("a query names %d targets in %d bytes, want at most %d in about 12000", k, len(e), most)
		}
	}
	if named != n {
		t.Errorf("the queries name %d targets, want each of %d once", named, n)
	}
}

func TestRateWindow(t *testing.T) {
	for _, tc := range []struct{ interval, want time.Duration }{
		{interval: 0, want: time.Minute}, // It is unknown.
		{interval: 5 * second, want: time.Minute},
		{interval: 15 * second, want: time.Minute},
		{interval: 15100 * time.Millisecond, want: time.Minute}, // Scrapes are not exactly on time.
		{interval: 16 * second, want: 2 * time.Minute},
		{interval: 30 * second, want: 2 * time.Minute},
		{interval: 31500 * time.Millisecond, want: 2 * time.Minute},
		{interval: 31600 * time.Millisecond, want: 4 * time.Minute},
		{interval: 60 * second, want: 4 * time.Minute},
		{interval: 61 * second, want: 4 * time.Minute},
		{interval: 2 * time.Minute, want: 8 * time.Minute},
		{interval: 5 * time.Minute, want: 32 * time.Minute},
		{interval: time.Hour, want: 256 * time.Minute},
	} {
		if got := discovery.RateWindow(tc.interval); got != tc.want {
			t.Errorf("RateWindow(%s) is %s, want %s", tc.interval, got, tc.want)
		}
	}
}

// change is a rate window that is used from a refresh on.
type change struct{ from, window time.Duration }

// The rate windows of refreshes every 30 seconds for two hours, of an upstream that has scraped for
// an hour before. They change only if the scrape interval does.
func TestRateWindowIsStable(t *testing.T) {
	const twoHours = 2 * hour
	random := rand.New(rand.NewPCG(1, 2))
	jitter := func(times []time.Duration, most time.Duration) []time.Duration {
		for i := range times {
			times[i] += time.Duration(random.Int64N(int64(2*most))) - most
		}

		return times
	}
	without := func(times []time.Duration, gaps ...[2]time.Duration) []time.Duration {
		return slices.DeleteFunc(times, func(t time.Duration) bool {
			return slices.ContainsFunc(gaps, func(gap [2]time.Duration) bool { return gap[0] <= t && t < gap[1] })
		})
	}

	var missing [][2]time.Duration // One scrape every five minutes.
	for from := time.Duration(0); from < twoHours; from += 5 * time.Minute {
		missing = append(missing, [2]time.Duration{from, from + 15*second})
	}

	for _, tc := range []struct {
		name  string
		times []time.Duration // Of the samples of up.
		want  []change
	}{
		{
			name:  "15s",
			times: every(15*second, -hour, twoHours),
			want:  []change{{from: 0, window: time.Minute}},
		},
		{
			name:  "15s with jitter",
			times: jitter(every(15*second, -hour, twoHours), 200*time.Millisecond),
			want:  []change{{from: 0, window: time.Minute}},
		},
		{
			name:  "60s with jitter",
			times: jitter(every(60*second, -hour, twoHours), 500*time.Millisecond),
			want:  []change{{from: 0, window: 4 * time.Minute}},
		},
		{
			name:  "15s with missing scrapes",
			times: without(every(15*second, -hour, twoHours), missing...),
			want:  []change{{from: 0, window: time.Minute}},
		},
		{
			name: "15s, and upstream is down now and then",
			times: without(every(15*second, -hour, twoHours),
				[2]time.Duration{600 * second, 640 * second}, [2]time.Duration{1200 * second, 1320 * second},
				[2]time.Duration{2000 * second, 2280 * second}, [2]time.Duration{3000 * second, 3291 * second},
				[2]time.Duration{4000 * second, 4300 * second}, [2]time.Duration{5000 * second, 6000 * second}),
			want: []change{{from: 0, window: time.Minute}},
		},
		{
			name: "60s, and upstream is down now and then",
			times: without(every(60*second, -hour, twoHours),
				[2]time.Duration{600 * second, 640 * second}, [2]time.Duration{1200 * second, 1500 * second},
				[2]time.Duration{3000 * second, 4200 * second}),
			want: []change{{from: 0, window: 4 * time.Minute}},
		},
		{
			name:  "5m",
			times: every(300*second, -hour, twoHours),
			want:  []change{{from: 0, window: 32 * time.Minute}},
		},
		{
			// With two distances of 60s among the last three, the interval is 60s.
			name: "from 15s to 60s and back",
			times: slices.Concat(every(15*second, -hour, 1800*second), every(60*second, 1860*second, 3600*second),
				every(15*second, 3615*second, twoHours)),
			want: []change{
				{from: 0, window: time.Minute},
				{from: 1920 * second, window: 4 * time.Minute},
				{from: 3630 * second, window: time.Minute},
			},
		},
		{
			name:  "from 15s to 5m",
			times: append(every(15*second, -hour, 1800*second), every(300*second, 2100*second, twoHours)...),
			want:  []change{{from: 0, window: time.Minute}, {from: 2400 * second, window: 32 * time.Minute}},
		},
		{
			name:  "a new upstream",
			times: every(30*second, 10*second, twoHours),
			want:  []change{{from: 0, window: time.Minute}, {from: 60 * second, window: 2 * time.Minute}},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFixture(func(f *fixture, o *discovery.Options) {
				o.LearnInterval = true
				f.up.samples = []sampledSeries{
					sampled(upName, "a:20180", tc.times), sampled(upName, "b:20180", tc.times),
				}
			})

			var state *discovery.State
			var got []change
			for passed := time.Duration(0); passed <= twoHours; passed += 30 * second {
				f.up.passed = passed
				state = f.Refresh(t.Context(), state)
				window := discovery.RateWindow(state.ScrapeInterval)
				if len(got) == 0 || got[len(got)-1].window != window {
					got = append(got, change{from: passed, window: window})
				}
			}
			if !slices.Equal(got, tc.want) {
				t.Errorf("the rate windows are %v, want %v", got, tc.want)
			}
			if len(f.failures) > 0 {
				t.Errorf("counted the failures %v, want none", f.failures)
			}
		})
	}
}

// With a configured rate window, no samples are queried.
func TestIntervalIsNotLearned(t *testing.T) {
	f := newFixture(func(f *fixture, _ *discovery.Options) {
		f.up.samples = []sampledSeries{sampled(upName, "a:20180", pastHour(60*second))}
	})
	s := f.Refresh(t.Context(), nil)
	if s.ScrapeInterval != 0 || len(f.up.ranges) > 0 {
		t.Errorf("learned the interval %s with %d queries, want none", s.ScrapeInterval, len(f.up.ranges))
	}
}

// If the samples cannot be queried, the query targets fails, but the targets are known, and the
// interval known before is kept.
func TestIntervalCannotBeQueried(t *testing.T) {
	f := newFixture(func(f *fixture, o *discovery.Options) {
		o.LearnInterval = true
		f.up.samples = []sampledSeries{sampled(upName, "a:20180", pastHour(60*second))}
	})
	first := f.Refresh(t.Context(), nil)
	f.up.samplesErr = errRefused
	second := f.Refresh(t.Context(), first)

	if first.ScrapeInterval != time.Minute || second.ScrapeInterval != time.Minute {
		t.Errorf("the intervals are %s and %s, want 1m", first.ScrapeInterval, second.ScrapeInterval)
	}
	if !second.Usable() || len(second.Targets) != 2 {
		t.Errorf("the state is usable: %v, with the targets %v, want both", second.Usable(), second.Targets)
	}
	errs := second.Queries[gauge.QueryTargets].Errs
	if len(errs) != 1 || !errors.Is(errs[0], errRefused) || f.failures["targets connection"] != 1 {
		t.Errorf("got the errors %v, counted %v, want one of upstream", errs, f.failures)
	}
}
