// SPDX-License-Identifier: Apache-2.0

package bucketwindow

import (
	"cmp"
	"errors"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/promql"

	"github.com/operator-store/operator_store_exporter/internal/storematch"
)

// Options configure a Learner.
type Options struct {
	Quantiles    []float64 // The quantiles that are computed from the histogram.
	Disabled     bool      // Always query all buckets.
	BatchSize    int       // Targets per query; 0 to learn it.
	MaxBatchSize int       // Upper bound of what is learned or configured.
	Concurrency  int       // Queries that upstream evaluates at once.
	RateWindow   time.Duration
	// Split cuts targets into parts that each fit into the label matchers of one query.
	Split func([]storematch.Identity) [][]storematch.Identity
}

// A Learner plans the queries for the buckets of one histogram metric of many targets, and learns
// from the responses. It is safe for concurrent use. Each scrape uses it like this:
//
//  1. Plan returns the queries to send. The first plan selects all buckets of all targets. Later
//     ones select the window of each target that has one.
//  2. ObserveDuration learns from each query how long upstream takes.
//  3. Read returns the histograms in the response about each target, and learns the target's window
//     from them. If Read returns ErrTooNarrow, the window does not determine the quantiles.
//  4. AllBounds returns the queries for all buckets of those targets. Their responses are read too.
type Learner struct {
	opts Options

	mu         sync.Mutex
	layouts    map[string]*Layout // By their labels: most targets share one layout.
	windows    map[storematch.Identity]window
	batchSize  int
	bucketCost time.Duration // The time that upstream takes for one bucket of one target.
	stale      bool          // Whether the last plan does not reflect what was learned since.
	planned    any           // The generation of the last plan.
	plan       []Batch
}

// Batch is one query: the targets that it names and the bounds that it selects.
type Batch struct {
	Targets []storematch.Identity
	Bounds  []string // Values of the label le; nil for all buckets.
}

// window is what one target's histogram looked like when it was last read.
type window struct {
	startTime float64 // Start of the target's process, as a Unix time.
	layout    *Layout
	spans     []Span // The buckets that determined each quantile.
}

// The batch size is learned from the duration of queries: several short queries run in parallel.
const (
	minBatchSize = 50
	slowQuery    = 250 * time.Millisecond // Batches whose query is slower are halved.
	fastQuery    = 60 * time.Millisecond  // Batches whose query is faster are doubled.
)

// maxLayouts bounds the layouts that are remembered. All versions of TiKV together have three; only
// a misbehaving upstream has many.
const maxLayouts = 1000

// NewLearner returns a learner that has not learned anything: its first plan queries all buckets.
func NewLearner(opts Options) *Learner {
	return &Learner{
		opts:      opts,
		layouts:   map[string]*Layout{},
		windows:   map[storematch.Identity]window{},
		batchSize: min(cmp.Or(opts.BatchSize, opts.MaxBatchSize), opts.MaxBatchSize),
	}
}

// Plan returns the queries for the buckets of targets. Most scrapes reuse the last plan. It is
// replaced if generation, any comparable value that stands for targets, is another one, or if what
// was learned since then would change it. The batches must not be modified.
func (l *Learner) Plan(targets []storematch.Identity, generation any) []Batch {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.planned == generation && !l.stale {
		return l.plan
	}

	wanted := make(map[storematch.Identity]bool, len(targets))
	var known, unknown []storematch.Identity
	for _, t := range targets {
		wanted[t] = true
		if w, ok := l.windows[t]; ok && !l.opts.Disabled && !w.needsAll() {
			known = append(known, t)
		} else {
			unknown = append(unknown, t)
		}
	}
	maps.DeleteFunc(l.windows, func(t storematch.Identity, _ window) bool { return !wanted[t] })

	size := l.batchSize
	if l.opts.BatchSize == 0 {
		// Queries beyond the concurrency limit do not run in parallel, so splitting further gains
		// nothing.
		size = max(size, min(l.opts.MaxBatchSize, ceilDiv(len(targets), l.opts.Concurrency)))
	}
	l.planned, l.stale = generation, false
	l.plan = append(l.allBounds(unknown, size), l.withWindows(known, size)...)

	return l.plan
}

// AllBounds returns the queries for all buckets of targets, whose windows were too narrow.
func (l *Learner) AllBounds(targets []storematch.Identity) []Batch {
	return l.allBounds(targets, l.opts.MaxBatchSize)
}

func (l *Learner) allBounds(targets []storematch.Identity, size int) []Batch {
	var batches []Batch
	for part := range slices.Chunk(targets, evenSize(len(targets), size)) {
		for _, fitting := range l.opts.Split(part) {
			batches = append(batches, Batch{Targets: fitting})
		}
	}

	return batches
}

// withWindows returns the queries for the windows of targets. Targets with similar windows share a
// query.
func (l *Learner) withWindows(targets []storematch.Identity, size int) []Batch {
	slices.SortFunc(targets, func(a, b storematch.Identity) int {
		return cmp.Or(l.windows[a].compare(l.windows[b]), a.Compare(b))
	})

	var batches []Batch
	for _, group := range l.group(targets, size) {
		for part := range slices.Chunk(group, evenSize(len(group), size)) {
			for _, fitting := range l.opts.Split(part) {
				batches = append(batches, Batch{Targets: fitting, Bounds: l.boundsOf(fitting)})
			}
		}
	}

	return batches
}

// boundsOf returns the union of the windows of targets.
func (l *Learner) boundsOf(targets []storematch.Identity) []string {
	les := map[string]bool{}
	for _, t := range targets {
		l.windows[t].addTo(les)
	}

	return slices.Sorted(maps.Keys(les))
}

// compare orders windows so that similar ones are neighbors.
func (w window) compare(o window) int {
	return cmp.Or(
		strings.Compare(w.layout.Labels()[0], o.layout.Labels()[0]),
		slices.CompareFunc(w.spans, o.spans, func(a, b Span) int { return cmp.Or(a[0]-b[0], a[1]-b[1]) }),
	)
}

// equal reports whether two windows select the same bounds.
func (w window) equal(o window) bool { return w.layout == o.layout && slices.Equal(w.spans, o.spans) }

// needsAll reports whether a quantile needed all buckets, as one above the highest finite bound
// does.
func (w window) needsAll() bool {
	return slices.Contains(w.spans, Span{0, len(w.layout.bounds) - 1})
}

// addTo adds the values of le that the window selects to les. The highest finite bound and +Inf,
// the total, are always among them.
func (w window) addTo(les map[string]bool) {
	labels := w.layout.Labels()
	for _, span := range w.spans {
		for _, le := range labels[span[0] : span[1]+1] {
			les[le] = true
		}
	}

	for _, le := range labels[max(0, len(labels)-2):] {
		les[le] = true
	}
}

// ObserveDuration learns from how long upstream took for a batch: what a bucket costs, and whether
// batches are too large or too small.
func (l *Learner) ObserveDuration(b Batch, d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(b.Bounds) > 0 {
		cost := max(0, d-queryCost) / time.Duration(len(b.Targets)*len(b.Bounds))
		l.bucketCost += (cost - l.bucketCost) / 4
	}

	n := len(b.Targets)
	switch {
	case l.opts.BatchSize > 0: // It is configured.
	case n > l.batchSize/2 && d > slowQuery && l.batchSize > minBatchSize:
		l.batchSize, l.stale = max(minBatchSize, l.batchSize/2), true
	case n == l.batchSize && d < fastQuery && l.batchSize < l.opts.MaxBatchSize:
		l.batchSize, l.stale = min(l.opts.MaxBatchSize, 2*l.batchSize), true
	}
}

// Reading is what upstream returned about one target for a batch.
type Reading struct {
	Target      storematch.Identity
	Bounds      []string                   // Of the batch; nil for all buckets.
	Replicas    map[string][]promql.Sample // The samples of each replica.
	StartTime   float64                    // Start of the target's process, as a Unix time.
	StartKnown  bool                       // Whether StartTime is known, and the same for all replicas.
	EvaluatedAt time.Time
}

// ErrTooNarrow reports that the buckets of a window do not determine every quantile.
var ErrTooNarrow = errors.New("the queried buckets do not determine the quantiles")

// Read returns the histogram of each replica, and learns the target's window from them. The error
// is ErrTooNarrow if the target must be queried for all of its buckets; any other error says why
// the samples are no histogram.
func (l *Learner) Read(r Reading) (map[string]Histogram, error) {
	l.mu.Lock()
	defer l.mu.Unlock()

	before := l.windows[r.Target]
	histograms, now, err := l.read(r, before)
	switch {
	case errors.Is(err, ErrTooNarrow):
		return nil, err
	case err != nil || now.layout == nil:
		l.forget(r.Target)
	case !before.equal(now) || before.startTime != now.startTime:
		l.windows[r.Target], l.stale = now, true
	}

	return histograms, err
}

func (l *Learner) forget(t storematch.Identity) {
	if _, ok := l.windows[t]; ok {
		delete(l.windows, t)
		l.stale = true
	}
}

// read returns the histograms of a reading, and the window that the next scrape should query. That
// window has no layout if nothing can be learned. Before is the window of the last scrape, which
// has no layout if the target has none.
func (l *Learner) read(r Reading, before window) (map[string]Histogram, window, error) {
	settled := r.StartKnown && r.StartTime < l.settledBefore(r.EvaluatedAt)

	if r.Bounds != nil && (!settled || before.layout == nil || r.StartTime != before.startTime) {
		return nil, window{}, ErrTooNarrow
	}

	now := window{startTime: r.StartTime}
	learnable := settled
	histograms := make(map[string]Histogram, len(r.Replicas))
	for _, replica := range slices.Sorted(maps.Keys(r.Replicas)) { // The order of spans must not change.
		samples := r.Replicas[replica]
		h, err := l.histogram(samples, before.layout, r.Bounds)
		if err != nil {
			return nil, window{}, err
		}

		for _, phi := range l.opts.Quantiles {
			_, span, ok := h.Quantile(phi)
			if !ok && r.Bounds != nil {
				return nil, window{}, ErrTooNarrow
			}
			learnable = learnable && ok
			now.spans = append(now.spans, span)
		}
		// Replicas must agree on the layout, because a window has only one.
		learnable = learnable && h.layout.Unambiguous() && (now.layout == nil || now.layout == h.layout)
		now.layout = h.layout
		histograms[replica] = h
	}

	if !learnable {
		now.layout = nil
	}

	return histograms, now, nil
}

// clockSkew is how much the clock of a TiKV, which its start time is read from, may differ from
// upstream's.
const clockSkew = 5 * time.Minute

// settledBefore returns the Unix time before which a process must have started so that none of its
// counters was reset within the rate window. Otherwise, counts may fall from one bound to the next.
func (l *Learner) settledBefore(evaluatedAt time.Time) float64 {
	return float64(evaluatedAt.Unix()) - (l.opts.RateWindow + clockSkew).Seconds()
}

// histogram reads samples as the histogram of a layout. If bounds is nil, the samples are all
// buckets, and show the layout themselves. Otherwise they are those of a window, and the error is
// ErrTooNarrow if they are not exactly the expected ones.
func (l *Learner) histogram(samples []promql.Sample, layout *Layout, bounds []string) (Histogram, error) {
	if bounds == nil {
		var err error
		if layout, err = l.layoutOf(samples); err != nil {
			return Histogram{}, err
		}
	}

	h := New(layout)
	for _, s := range samples {
		i, ok := layout.Index(s.Metric.Get(model.BucketLabel))
		if !ok || bounds != nil && h.Has(i) {
			return h, ErrTooNarrow
		}
		h.Add(i, s.F)
	}

	for _, le := range bounds {
		// A batch selects the union of the windows of its targets, so a bound may be of another
		// layout.
		if i, ok := layout.Index(le); ok && !h.Has(i) {
			return h, ErrTooNarrow
		}
	}

	return h, nil
}

var errDuplicateBucket = errors.New("the response has a bucket twice")

// layoutOf returns the layout of samples that are all buckets of a histogram.
func (l *Learner) layoutOf(samples []promql.Sample) (*Layout, error) {
	les := make([]string, len(samples))
	for i, s := range samples {
		les[i] = s.Metric.Get(model.BucketLabel)
	}
	slices.Sort(les)

	for i := 1; i < len(les); i++ {
		if les[i] == les[i-1] {
			return nil, errDuplicateBucket
		}
	}

	key := strings.Join(les, "\xff")
	if known := l.layouts[key]; known != nil {
		return known, nil
	}
	layout, err := NewLayout(les)
	if err != nil {
		return nil, err
	}
	if len(l.layouts) >= maxLayouts {
		clear(l.layouts)
	}
	l.layouts[key] = layout

	return layout, nil
}

// StartTime returns the start time in the samples of all replicas of a target. It is not ok if
// there is none, or if they differ.
func StartTime(replicas map[string][]promql.Sample) (start float64, ok bool) {
	start = math.NaN()
	for _, samples := range replicas {
		for _, s := range samples {
			if !math.IsNaN(start) && start != s.F {
				return 0, false
			}
			start = s.F
		}
	}

	return start, !math.IsNaN(start)
}
