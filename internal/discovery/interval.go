// SPDX-License-Identifier: Apache-2.0

package discovery

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"

	"github.com/operator-store/operator_store_exporter/internal/promqlexpr"
	"github.com/operator-store/operator_store_exporter/internal/storematch"
)

// up has one sample per scrape, whether or not the scrape succeeded, so the distance between its
// samples is the scrape interval. Targets whose series are pushed have no up.
var (
	upSeries     = promqlexpr.MustParse(`up`)
	pushedSeries = promqlexpr.MustParse(`tikv_store_size_bytes{type="available"}`)
)

const (
	// recentSamples is how many samples of a target are looked at. The median of their distances
	// does not change if one scrape is late or missing, or if upstream was restarted.
	recentSamples = 4
	// defaultRange is the range of the samples while the scrape interval is unknown.
	defaultRange = 5 * time.Minute
	// maxRange is the range for targets that have too few samples in defaultRange.
	maxRange = time.Hour
	// intervalTolerance is the relative difference up to which two scrape intervals are the same.
	intervalTolerance = 0.05
)

// ScrapeInterval returns the longest interval at which upstream scrapes any of the live targets.
// Known is the interval that the previous call returned, or 0. It is returned again if the interval
// has not changed by more than the tolerance, or if no target has two samples.
//
// The samples are looked for in as short a range as possible. For example, the known interval is
// 15s, and upstream now scrapes one of three targets every 5m. The range of 90s has four samples of
// the other two targets. The third one is looked for again in 5m, and then in an hour, which has
// enough samples of it. The result is 5m.
func (f *Finder) ScrapeInterval(
	ctx context.Context, targets []storematch.Target, known time.Duration, now time.Time,
) (time.Duration, error) {
	var missing []storematch.Identity // Targets without enough samples so far.
	for _, t := range targets {
		if t.Live {
			missing = append(missing, t.Identity)
		}
	}

	intervals := map[storematch.Identity]observedInterval{}
	for _, within := range sampleRanges(known) {
		if len(missing) == 0 {
			break
		}

		found, err := f.intervals(ctx, missing, within, now)
		if err != nil {
			return 0, err
		}

		maps.Copy(intervals, found)
		missing = slices.DeleteFunc(missing, func(t storematch.Identity) bool {
			return found[t].count >= recentSamples-1
		})
	}

	var longest time.Duration
	for _, observed := range intervals {
		longest = max(longest, observed.median)
	}
	if longest == 0 || abs(longest-known) <= time.Duration(intervalTolerance*float64(known)) {
		return known, nil
	}

	return longest, nil
}

// sampleRanges returns the ranges in which to look for samples, one after another until there are
// enough. If the known interval is still right, the first range has enough samples even if two
// scrapes are missing. The longer ranges are needed for targets whose interval has become longer,
// or that were not scraped for a while.
func sampleRanges(known time.Duration) []time.Duration {
	var ranges []time.Duration
	if known > 0 {
		ranges = append(ranges, known*(recentSamples+2))
	}

	for _, r := range []time.Duration{defaultRange, maxRange} {
		if len(ranges) == 0 || r > ranges[len(ranges)-1] {
			ranges = append(ranges, r)
		}
	}

	return ranges
}

func abs(d time.Duration) time.Duration { return max(d, -d) }

// observedInterval is the median of the distances between the newest samples of a target.
type observedInterval struct {
	median time.Duration
	count  int // How many distances there are.
}

// intervals returns the scrape interval of each target that has at least two samples within a range
// before now. The samples are those of up or, if no target has two of them, of a pushed series.
func (f *Finder) intervals(
	ctx context.Context, targets []storematch.Identity, within time.Duration, now time.Time,
) (map[storematch.Identity]observedInterval, error) {
	intervals := map[storematch.Identity]observedInterval{}
	for _, series := range []promqlexpr.Expr{upSeries, pushedSeries} {
		for _, part := range splitTargets(targets) {
			matrix, err := f.upstream.Samples(ctx, series.WithMatchers(f.targetMatchers(part)), within, now)
			if err != nil {
				return nil, err
			}

			for _, s := range matrix {
				// Jobs and instances are matched independently.
				if id := newTarget(s.Metric, true).Identity; slices.Contains(part, id) {
					addInterval(intervals, id, s)
				}
			}
		}
		if len(intervals) > 0 {
			break
		}
	}

	return intervals, nil
}

// addInterval adds the interval of one series of a target. Of several series, such as those of
// replicas, the one that is scraped most often counts: a replica that is gone has a gap.
func addInterval(
	intervals map[storematch.Identity]observedInterval, target storematch.Identity, s promql.Series,
) {
	o, ok := newObservedInterval(s)
	before, known := intervals[target]
	if ok && (!known || o.median < before.median) {
		intervals[target] = o
	}
}

// splitTargets cuts targets into parts that one query may name.
func splitTargets(targets []storematch.Identity) [][]storematch.Identity {
	return promqlexpr.SplitForMatchers(targets, promqlexpr.MaxMatcherBytes,
		func(t storematch.Identity) string { return t.Job },
		func(t storematch.Identity) string { return t.Instance })
}

func (f *Finder) targetMatchers(targets []storematch.Identity) []*labels.Matcher {
	jobs, instances := make([]string, len(targets)), make([]string, len(targets))
	for i, t := range targets {
		jobs[i], instances[i] = t.Job, t.Instance
	}

	return append(slices.Clone(f.selector),
		promqlexpr.OneOf(model.JobLabel, jobs), promqlexpr.OneOf(model.InstanceLabel, instances))
}

// newObservedInterval returns the interval of one series. It is not ok if there are fewer than
// two samples.
func newObservedInterval(s promql.Series) (o observedInterval, ok bool) {
	points := s.Floats[max(0, len(s.Floats)-recentSamples):]
	var distances []time.Duration
	for i := 1; i < len(points); i++ {
		distances = append(distances, time.Duration(points[i].T-points[i-1].T)*time.Millisecond)
	}
	if len(distances) == 0 {
		return observedInterval{}, false
	}
	slices.Sort(distances)

	// Of two distances, the longer one may be a gap.
	return observedInterval{median: distances[(len(distances)-1)/2], count: len(distances)}, true
}

// A rate needs two samples in its window. With four, one scrape may fail and scrapes need not be
// on time.
const samplesPerWindow = 4

// RateWindow returns the rate window for a scrape interval: 1m for intervals of 15 s and less,
// doubled for longer ones until it is at least four times the interval. It may be shorter by the
// tolerance, so that an interval of 15.1 s, which is one of 15 s with jitter, does not double the
// window. An unknown interval of 0 gets 1m.
func RateWindow(interval time.Duration) time.Duration {
	window := time.Minute
	for float64(samplesPerWindow*interval) > float64(window)*(1+intervalTolerance) {
		window *= 2
	}

	return window
}
