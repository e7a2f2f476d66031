// SPDX-License-Identifier: Apache-2.0

package discovery_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"go.uber.org/goleak"

	"github.com/operator-store/operator_store_exporter/internal/promapi"
	"github.com/operator-store/operator_store_exporter/internal/promqlexpr"
	"github.com/operator-store/operator_store_exporter/internal/storematch"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// upstreamNow is upstream's current time.
var upstreamNow = time.Unix(1_700_000_000, 0)

// fakeUpstream responds as a test scripts it, and records what it received.
type fakeUpstream struct {
	recent     []labels.Labels // The series within the lookback.
	live       []labels.Labels // The series that have samples now.
	pdSeries   []labels.Labels
	seriesErr  error
	queryErr   error                      // Of all queries.
	storesErr  error                      // Of the query for PD's series.
	native     map[string][]labels.Labels // The series of native histograms, by metric name.
	classic    map[string][]labels.Labels // Those of buckets.
	nativeErr  error                      // Of queries for histograms.
	samples    []sampledSeries
	samplesErr error
	clockKnown bool
	passed     time.Duration // Since upstreamNow.

	mu          sync.Mutex
	expressions []string
	ranges      []time.Duration // Of the queries for samples.
	start, end  time.Time
}

// sampledSeries is a series of up, or of another metric, with the times of its samples.
type sampledSeries struct {
	metric labels.Labels
	times  []time.Duration // Since upstreamNow.
}

func (f *fakeUpstream) Series(_ context.Context, matchers []string, start, end time.Time) ([]labels.Labels, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.expressions = append(f.expressions, matchers...)
	f.start, f.end = start, end

	return f.recent, f.seriesErr
}

func (f *fakeUpstream) Query(_ context.Context, expression string, at time.Time) (promapi.Result, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.expressions = append(f.expressions, expression)
	if f.queryErr != nil {
		return promapi.Result{}, f.queryErr
	}
	if at.IsZero() {
		at = upstreamNow
	}

	response := f.live
	switch {
	case strings.Contains(expression, "pd_scheduler_store_status"):
		if f.storesErr != nil {
			return promapi.Result{}, f.storesErr
		}
		response = f.pdSeries
	case strings.HasPrefix(expression, "group by (job, instance) ("):
		if f.nativeErr != nil {
			return promapi.Result{}, f.nativeErr
		}
		response = f.histograms(expression)
	}

	var vector promql.Vector
	for _, m := range response {
		vector = append(vector, promql.Sample{Metric: m})
	}

	return promapi.Result{Vector: vector, EvaluatedAt: at}, nil
}

func (f *fakeUpstream) Samples(
	_ context.Context, selector promqlexpr.Expr, within time.Duration, at time.Time,
) (promql.Matrix, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.expressions = append(f.expressions, promqlexpr.Range(selector, within))
	f.ranges = append(f.ranges, within)

	root, err := parser.NewParser(parser.Options{}).ParseExpr(selector.String())
	if err != nil {
		panic(err)
	}
	matchers := root.(*parser.VectorSelector).LabelMatchers

	var matrix promql.Matrix
	for _, s := range f.samples {
		var points []promql.FPoint
		for _, since := range s.times {
			// A range does not include its start.
			if t := upstreamNow.Add(since); t.After(at.Add(-within)) && !t.After(at) {
				points = append(points, promql.FPoint{T: t.UnixMilli(), F: 1})
			}
		}
		if len(points) > 0 && labels.Selector(matchers).Matches(s.metric) {
			matrix = append(matrix, promql.Series{Metric: s.metric, Floats: points})
		}
	}

	return matrix, f.samplesErr
}

func (f *fakeUpstream) Now() (time.Time, bool) { return upstreamNow.Add(f.passed), f.clockKnown }

// histograms returns the targets that have the histogram that an expression selects.
func (f *fakeUpstream) histograms(expression string) []labels.Labels {
	name, _, _ := strings.Cut(strings.TrimPrefix(expression, "group by (job, instance) ("), "{")
	name = strings.TrimSuffix(name, ")")
	if classic, ok := strings.CutSuffix(name, "_bucket"); ok {
		return f.classic[classic]
	}

	return f.native[name]
}

// fakePD is a PD that responds as a test scripts it.
type fakePD struct {
	stores []storematch.Store
	err    error
	closed bool
}

func (f *fakePD) Stores(context.Context) ([]storematch.Store, error) { return f.stores, f.err }
func (f *fakePD) Close()                                             { f.closed = true }

// target returns the labels of a series of a target of the job tikv.
func target(instance string) labels.Labels {
	return labels.FromStrings("job", "tikv", "instance", instance)
}

// pdStore returns the labels of PD's series of a store.
func pdStore(id, address string) labels.Labels {
	return labels.FromStrings("store", id, "address", address)
}
