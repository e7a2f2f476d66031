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
	"go.uber.org/goleak"

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
	queryErr   error // Of all queries.
	storesErr  error // Of the query for PD's series.
	clockKnown bool

	mu          sync.Mutex
	expressions []string
	start, end  time.Time
}

func (f *fakeUpstream) Series(_ context.Context, matchers []string, start, end time.Time) ([]labels.Labels, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.expressions = append(f.expressions, matchers...)
	f.start, f.end = start, end

	return f.recent, f.seriesErr
}

func (f *fakeUpstream) Query(_ context.Context, expression string, at time.Time) (promql.Vector, time.Time, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.expressions = append(f.expressions, expression)
	if f.queryErr != nil {
		return nil, time.Time{}, f.queryErr
	}
	if at.IsZero() {
		at = upstreamNow
	}

	response := f.live
	if strings.Contains(expression, "pd_scheduler_store_status") {
		if f.storesErr != nil {
			return nil, time.Time{}, f.storesErr
		}
		response = f.pdSeries
	}

	var vector promql.Vector
	for _, m := range response {
		vector = append(vector, promql.Sample{Metric: m})
	}

	return vector, at, nil
}

func (f *fakeUpstream) Now() (time.Time, bool) { return upstreamNow, f.clockKnown }

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
