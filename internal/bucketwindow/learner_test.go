// SPDX-License-Identifier: Apache-2.0

package bucketwindow_test

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"

	"github.com/operator-store/operator_store_exporter/internal/bucketwindow"
	"github.com/operator-store/operator_store_exporter/internal/storematch"
)

const (
	rateWindow = time.Minute
	longAgo    = 1000 // A start time, as a Unix time.
)

// evaluatedAt is when the samples of these tests were evaluated, long after longAgo.
var evaluatedAt = time.Unix(1_700_000_000, 0)

// newLearner returns a learner of medians. Change may change its options.
func newLearner(change func(*bucketwindow.Options)) *bucketwindow.Learner {
	opts := bucketwindow.Options{
		Quantiles:    []float64{0.5},
		MaxBatchSize: 250,
		Concurrency:  8,
		RateWindow:   rateWindow,
		Split: func(targets []storematch.Identity) [][]storematch.Identity {
			return [][]storematch.Identity{targets}
		},
	}
	if change != nil {
		change(&opts)
	}

	return bucketwindow.NewLearner(opts)
}

// targetsNamed returns n targets whose names begin with prefix, sorted.
func targetsNamed(prefix string, n int) []storematch.Identity {
	targets := make([]storematch.Identity, n)
	for i := range targets {
		targets[i] = storematch.Identity{Job: "tikv", Instance: fmt.Sprintf("%s%04d", prefix, i)}
	}

	return targets
}

// counts are cumulative counts by the label le.
type counts map[string]float64

// The bounds of the histograms are 1, 2, 4, 8, 16 and 32. In the middle of each bucket, the window
// has the bucket's two bounds, and always 32 and +Inf.
var (
	medianAt3  = counts{"1": 0, "2": 0, "4": 100, "8": 100, "16": 100, "32": 100, "+Inf": 100}
	windowAt3  = []string{"+Inf", "2", "32", "4"}
	medianAt12 = counts{"1": 0, "2": 0, "4": 0, "8": 0, "16": 100, "32": 100, "+Inf": 100}
	windowAt12 = []string{"+Inf", "16", "32", "8"}
)

// only returns the counts of some bounds.
func (c counts) only(les ...string) counts {
	some := counts{}
	for _, le := range les {
		some[le] = c[le]
	}

	return some
}

func (c counts) samples() []promql.Sample {
	var samples []promql.Sample
	for _, le := range slices.Sorted(maps.Keys(c)) {
		samples = append(samples, promql.Sample{Metric: labels.FromStrings("le", le), F: c[le]})
	}

	return samples
}

// reading returns a reading of one replica of a target that started long ago, for all buckets.
func reading(target storematch.Identity, c counts) bucketwindow.Reading {
	return bucketwindow.Reading{
		Target: target, Replicas: map[string][]promql.Sample{"": c.samples()}, StartTime: longAgo, StartKnown: true,
		EvaluatedAt: evaluatedAt,
	}
}

// learn lets a learner read all buckets of targets.
func learn(t *testing.T, l *bucketwindow.Learner, targets []storematch.Identity, c counts) {
	t.Helper()

	for _, target := range targets {
		if _, err := l.Read(reading(target, c)); err != nil {
			t.Fatal(err)
		}
	}
}

// describe returns batches as text, a line each: the number of targets, and the bounds.
func describe(batches []bucketwindow.Batch) string {
	var lines []string
	for _, b := range batches {
		bounds := "all"
		if b.Bounds != nil {
			bounds = strings.Join(b.Bounds, " ")
		}
		lines = append(lines, fmt.Sprintf("%d targets: %s", len(b.Targets), bounds))
	}

	return strings.Join(lines, "\n")
}

// What a learner reads of all buckets, and which buckets it then queries.
func TestLearnWindow(t *testing.T) {
	ambiguous := maps.Clone(medianAt3)
	ambiguous["1.0"] = 0
	otherLayout := maps.Clone(medianAt3)
	otherLayout["64"] = 100
	settled := float64(evaluatedAt.Unix()) - (rateWindow + 5*time.Minute).Seconds()

	for _, tc := range []struct {
		name    string
		options func(*bucketwindow.Options)
		reading func(*bucketwindow.Reading)
		want    []string // Nil for all buckets.
	}{
		{
			name: "two bounds around the quantile, the highest one and +Inf",
			want: windowAt3,
		},
		{
			name:    "windows are disabled",
			options: func(o *bucketwindow.Options) { o.Disabled = true },
		},
		{
			name:    "without quantiles, only the count is needed",
			options: func(o *bucketwindow.Options) { o.Quantiles = nil },
			want:    []string{"+Inf", "32"},
		},
		{
			name:    "several quantiles",
			options: func(o *bucketwindow.Options) { o.Quantiles = []float64{0.5, 0.99} },
			// 99 % is reached near 4, so one more bound is selected.
			want: []string{"+Inf", "2", "32", "4", "8"},
		},
		{
			name: "a quantile above the highest finite bound needs all buckets",
			reading: func(r *bucketwindow.Reading) {
				r.Replicas[""] = counts{"1": 0, "2": 0, "4": 10, "+Inf": 100}.samples()
			},
		},
		{
			name: "no observations",
			reading: func(r *bucketwindow.Reading) {
				r.Replicas[""] = counts{"1": 0, "2": 0, "4": 0, "+Inf": 0}.samples()
			},
			want: []string{"+Inf", "4"},
		},
		{
			name:    "the start time is unknown",
			reading: func(r *bucketwindow.Reading) { r.StartKnown = false },
		},
		{
			name:    "the process started within the rate window and the clock skew",
			reading: func(r *bucketwindow.Reading) { r.StartTime = settled },
		},
		{
			name:    "the process started just before that",
			reading: func(r *bucketwindow.Reading) { r.StartTime = settled - 1 },
			want:    windowAt3,
		},
		{
			name:    "a bound that is spelled in two ways",
			reading: func(r *bucketwindow.Reading) { r.Replicas[""] = ambiguous.samples() },
		},
		{
			name:    "replicas with the same layout have the union of their windows",
			reading: func(r *bucketwindow.Reading) { r.Replicas["y"] = medianAt12.samples() },
			want:    []string{"+Inf", "16", "2", "32", "4", "8"},
		},
		{
			name:    "replicas with different layouts",
			reading: func(r *bucketwindow.Reading) { r.Replicas["y"] = otherLayout.samples() },
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := newLearner(tc.options)
			targets := targetsNamed("t", 1)
			if got, want := describe(l.Plan(targets, 1)), "1 targets: all"; got != want {
				t.Errorf("the first plan is\n%s\nwant\n%s", got, want)
			}

			r := reading(targets[0], medianAt3)
			if tc.reading != nil {
				tc.reading(&r)
			}
			histograms, err := l.Read(r)
			if err != nil || len(histograms) != len(r.Replicas) {
				t.Fatalf("got the histograms %v, %v, want one per replica", histograms, err)
			}
			plan := l.Plan(targets, 1)
			if len(plan) != 1 || !slices.Equal(plan[0].Bounds, tc.want) {
				t.Errorf("the second plan is\n%s\nwant the bounds %q", describe(plan), tc.want)
			}
		})
	}
}

// The response to a window either gives the same quantile as all buckets, or it is too narrow.
func TestReadWindow(t *testing.T) {
	for _, tc := range []struct {
		name    string
		learned counts // If nil, medianAt3.
		reading func(*bucketwindow.Reading)
		want    float64
		err     error
	}{
		{
			name: "wide enough",
			want: 3,
		},
		{
			name: "bounds of other targets of the batch",
			reading: func(r *bucketwindow.Reading) {
				r.Bounds = append(r.Bounds, "77") // Of another layout.
			},
			want: 3,
		},
		{
			name: "the quantile moved below the window",
			reading: func(r *bucketwindow.Reading) {
				r.Replicas[""] = counts{"2": 99, "4": 100, "32": 100, "+Inf": 100}.samples()
			},
			err: bucketwindow.ErrTooNarrow,
		},
		{
			name: "the quantile moved above the window",
			reading: func(r *bucketwindow.Reading) {
				r.Replicas[""] = counts{"2": 0, "4": 10, "32": 100, "+Inf": 100}.samples()
			},
			err: bucketwindow.ErrTooNarrow,
		},
		{
			name:    "the process restarted",
			reading: func(r *bucketwindow.Reading) { r.StartTime++ },
			err:     bucketwindow.ErrTooNarrow,
		},
		{
			name:    "the start time is unknown",
			reading: func(r *bucketwindow.Reading) { r.StartKnown = false },
			err:     bucketwindow.ErrTooNarrow,
		},
		{
			name: "a bound is missing",
			reading: func(r *bucketwindow.Reading) {
				r.Replicas[""] = medianAt3.only("2", "4", "+Inf").samples()
			},
			err: bucketwindow.ErrTooNarrow,
		},
		{
			name:    "a bound is missing that does not matter now",
			learned: counts{"1": 0, "2": 0, "4": 55, "8": 100, "32": 100, "+Inf": 100}, // Near 4: 8 is selected.
			reading: func(r *bucketwindow.Reading) { r.Bounds = append(r.Bounds, "8") },
			err:     bucketwindow.ErrTooNarrow,
		},
		{
			name: "an unknown bound",
			reading: func(r *bucketwindow.Reading) {
				r.Replicas[""] = append(r.Replicas[""], counts{"3": 50}.samples()...)
			},
			err: bucketwindow.ErrTooNarrow,
		},
		{
			name: "a bound twice",
			reading: func(r *bucketwindow.Reading) {
				r.Replicas[""] = append(r.Replicas[""], medianAt3.only("2").samples()...)
			},
			err: bucketwindow.ErrTooNarrow,
		},
		{
			name: "one of the replicas is too narrow",
			reading: func(r *bucketwindow.Reading) {
				r.Replicas["y"] = medianAt12.only(windowAt3...).samples()
			},
			err: bucketwindow.ErrTooNarrow,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := newLearner(nil)
			targets := targetsNamed("t", 1)
			learned := tc.learned
			if learned == nil {
				learned = medianAt3
			}
			learn(t, l, targets, learned)

			r := reading(targets[0], medianAt3.only(windowAt3...))
			r.Bounds = slices.Clone(windowAt3)
			if tc.reading != nil {
				tc.reading(&r)
			}
			histograms, err := l.Read(r)
			if !errors.Is(err, tc.err) || tc.err == nil && err != nil {
				t.Fatalf("got the error %v, want %v", err, tc.err)
			}
			if err != nil {
				return
			}
			if got, _, ok := histograms[""].Quantile(0.5); !ok || got != tc.want {
				t.Errorf("the median is %v, %v, want %v", got, ok, tc.want)
			}
		})
	}
}

// A target without a window is never read as if it had one.
func TestReadWindowBeforeItIsLearned(t *testing.T) {
	r := reading(targetsNamed("t", 1)[0], medianAt3.only(windowAt3...))
	r.Bounds = windowAt3
	if _, err := newLearner(nil).Read(r); !errors.Is(err, bucketwindow.ErrTooNarrow) {
		t.Errorf("got the error %v, want %v", err, bucketwindow.ErrTooNarrow)
	}
}

// Samples that are not a histogram are an error, and the window of their target is forgotten.
func TestReadInvalidBuckets(t *testing.T) {
	twice := append(medianAt3.samples(), medianAt3.only("4").samples()...)
	for _, tc := range []struct {
		name    string
		samples []promql.Sample
		want    string
	}{
		{
			name:    "a bucket twice",
			samples: twice,
			want:    "the response has a bucket twice",
		},
		{
			name:    "without +Inf",
			samples: medianAt3.only("1", "2").samples(),
			want:    `the response has buckets, but not the one with le="+Inf"`,
		},
		{
			name:    "a bound that is not a number",
			samples: counts{"x": 1, "+Inf": 1}.samples(),
			want:    `the response has a bucket whose bound is not a number: le="x"`,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := newLearner(nil)
			targets := targetsNamed("t", 1)
			learn(t, l, targets, medianAt3)

			r := reading(targets[0], medianAt3)
			r.Replicas[""] = tc.samples
			if _, err := l.Read(r); err == nil || err.Error() != tc.want {
				t.Errorf("got the error %v, want %s", err, tc.want)
			}
			if got, want := describe(l.Plan(targets, 1)), "1 targets: all"; got != want {
				t.Errorf("the next plan is\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// A plan is reused until its generation changes, or until something was learned that changes it.
func TestPlanIsReused(t *testing.T) {
	l := newLearner(nil)
	targets := targetsNamed("t", 2)
	learn(t, l, targets, medianAt3)
	isReused := func(plan, previous []bucketwindow.Batch) bool { return &plan[0] == &previous[0] }

	first := l.Plan(targets, 1)
	if !isReused(l.Plan(targets, 1), first) {
		t.Error("the plan is not reused for the same generation")
	}
	learn(t, l, targets, medianAt3)
	if !isReused(l.Plan(targets, 1), first) {
		t.Error("the plan is not reused, although the same was learned again")
	}
	learn(t, l, targets[:1], medianAt12)
	second := l.Plan(targets, 1)
	if isReused(second, first) {
		t.Error("the plan is reused, although a window has changed")
	}
	if isReused(l.Plan(targets, 2), second) {
		t.Error("the plan is reused for another generation")
	}
}

// What was learned from several replicas does not depend on their order.
func TestPlanIsReusedForReplicas(t *testing.T) {
	l := newLearner(nil)
	targets := targetsNamed("t", 1)
	r := reading(targets[0], medianAt3)
	r.Replicas["x"], r.Replicas["y"] = medianAt12.samples(), medianAt3.samples()

	var first []bucketwindow.Batch
	for range 20 { // The order of a map is random.
		if _, err := l.Read(r); err != nil {
			t.Fatal(err)
		}
		plan := l.Plan(targets, 1)
		if first == nil {
			first = plan
		}
		if &plan[0] != &first[0] {
			t.Fatal("the plan is not reused, although the same was learned again")
		}
	}
}

// The windows of targets that are gone are forgotten.
func TestPlanForgetsTargets(t *testing.T) {
	l := newLearner(nil)
	targets := targetsNamed("t", 2)
	learn(t, l, targets, medianAt3)

	l.Plan(targets[:1], 1)
	want := "1 targets: all\n1 targets: " + strings.Join(windowAt3, " ")
	if got := describe(l.Plan(targets, 2)); got != want {
		t.Errorf("after a target was gone, the plan is\n%s\nwant\n%s", got, want)
	}
}

// Targets are cut into batches of about the same size.
func TestBatchSizes(t *testing.T) {
	for _, tc := range []struct {
		name    string
		options func(*bucketwindow.Options)
		targets int
		want    []int
	}{
		{name: "no targets", targets: 0},
		{name: "one batch", targets: 250, want: []int{250}},
		{name: "two even batches", targets: 251, want: []int{126, 125}},
		{
			name:    "configured size",
			options: func(o *bucketwindow.Options) { o.BatchSize = 7 },
			targets: 20,
			want:    []int{7, 7, 6},
		},
		{
			name:    "configured size above the maximum",
			options: func(o *bucketwindow.Options) { o.BatchSize = 1000 },
			targets: 500,
			want:    []int{250, 250},
		},
		{
			name: "parts that fit into a query",
			options: func(o *bucketwindow.Options) {
				o.Split = func(targets []storematch.Identity) [][]storematch.Identity {
					return slices.Collect(slices.Chunk(targets, 100))
				}
			},
			targets: 250,
			want:    []int{100, 100, 50},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			targets := targetsNamed("t", tc.targets)
			l := newLearner(tc.options)

			unknown := l.Plan(targets, 1)
			checkBatches(t, "of unknown targets", unknown, targets, tc.want)
			learn(t, l, targets, medianAt3)
			checkBatches(t, "with windows", l.Plan(targets, 1), targets, tc.want)
			if tc.options == nil { // Queries for narrow windows do not have the configured size.
				checkBatches(t, "for all bounds", l.AllBounds(targets), targets, tc.want)
			}
		})
	}
}

// checkBatches verifies the sizes of batches, and that they have all targets in their order.
func checkBatches(
	t *testing.T, name string, batches []bucketwindow.Batch, targets []storematch.Identity, want []int,
) {
	t.Helper()

	var (
		sizes []int
		named []storematch.Identity
	)
	for _, b := range batches {
		sizes = append(sizes, len(b.Targets))
		named = append(named, b.Targets...)
	}
	if !slices.Equal(sizes, want) {
		t.Errorf("the batches %s have the sizes %v, want %v", name, sizes, want)
	}
	if !slices.Equal(named, targets) {
		t.Errorf("the batches %s do not have every target once, in order", name)
	}
}

// The batch size is learned from how long queries take.
func TestLearnBatchSize(t *testing.T) {
	const (
		targets = 500
		slow    = time.Second
		medium  = 100 * time.Millisecond
		fast    = 10 * time.Millisecond
	)
	for _, tc := range []struct {
		name        string
		concurrency int // If zero, far more than there are batches.
		configured  int // The configured batch size.
		durations   []time.Duration
		want        int // Batches of the plan after queries that took durations, one per plan.
	}{
		{name: "initially, batches have 250 targets", want: 2},
		{name: "slow queries are halved", durations: []time.Duration{slow}, want: 4},
		{name: "and halved again, to 62 targets", durations: []time.Duration{slow, slow}, want: 9},
		{name: "but not below 50 targets", durations: []time.Duration{slow, slow, slow, slow}, want: 10},
		{name: "fast queries are doubled", durations: []time.Duration{slow, fast}, want: 2},
		{name: "but not above the maximum", durations: []time.Duration{slow, fast, fast, fast}, want: 2},
		{name: "other queries stay", durations: []time.Duration{slow, medium, medium}, want: 4},
		{
			name:        "batches that upstream cannot evaluate in parallel are not cut",
			concurrency: 2,
			durations:   []time.Duration{slow, slow, slow},
			want:        2,
		},
		{
			name:       "a configured size stays",
			configured: 125,
			durations:  []time.Duration{slow, slow, fast, fast},
			want:       4,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			all := targetsNamed("t", targets)
			l := newLearner(func(o *bucketwindow.Options) {
				o.Concurrency, o.BatchSize = cmp.Or(tc.concurrency, 100), tc.configured
			})
			for _, d := range tc.durations {
				l.ObserveDuration(l.Plan(all, 1)[0], d)
			}
			if got := len(l.Plan(all, 1)); got != tc.want {
				t.Errorf("the plan has %d batches, want %d", got, tc.want)
			}
		})
	}
}

// Targets with different windows get queries of their own if the buckets that this saves cost more
// than a query.
func TestGroupTargets(t *testing.T) {
	low, high := targetsNamed("a", 100), targetsNamed("b", 100)
	all := slices.Concat(low, high)
	union := []string{"+Inf", "16", "2", "32", "4", "8"}

	for _, tc := range []struct {
		name       string
		bucketCost time.Duration
		want       string
	}{
		{
			name: "buckets cost nothing",
			want: "200 targets: " + strings.Join(union, " "),
		},
		{
			name:       "buckets are cheap",
			bucketCost: time.Microsecond, // One query saves 400 buckets, 0.4 ms.
			want:       "200 targets: " + strings.Join(union, " "),
		},
		{
			name:       "buckets are expensive",
			bucketCost: 50 * time.Microsecond, // 20 ms.
			want: "100 targets: " + strings.Join(windowAt12, " ") + "\n" +
				"100 targets: " + strings.Join(windowAt3, " "),
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := newLearner(nil)
			learn(t, l, low, medianAt3)
			learn(t, l, high, medianAt12)
			learnBucketCost(l, tc.bucketCost)
			if got := describe(l.Plan(all, 1)); got != tc.want {
				t.Errorf("the plan is\n%s\nwant\n%s", got, tc.want)
			}
		})
	}
}

// learnBucketCost makes a learner learn what a bucket costs.
func learnBucketCost(l *bucketwindow.Learner, cost time.Duration) {
	const queryCost = 3 * time.Millisecond
	batch := bucketwindow.Batch{Targets: targetsNamed("x", 2), Bounds: []string{"1", "2"}}
	for range 100 { // It is a moving average.
		l.ObserveDuration(batch, queryCost+4*cost)
	}
}

// However many different windows there are and however expensive buckets are, there are at most
// four queries more than the targets need.
func TestGroupsAreBounded(t *testing.T) {
	const extraQueries = 4

	var les []string
	for i := range 40 {
		les = append(les, strconv.Itoa(1<<i))
	}

	l := newLearner(nil)
	targets := targetsNamed("t", 300) // At least two batches of 250.
	for i, target := range targets {
		median := 1 + i%30 // The position of the bucket with the median.
		c := counts{"+Inf": 100}
		for j, le := range les {
			c[le] = 0
			if j >= median {
				c[le] = 100
			}
		}
		learn(t, l, []storematch.Identity{target}, c)
	}
	learnBucketCost(l, time.Hour)

	plan := l.Plan(targets, 1)
	if n := len(plan); n <= 2 || n > 2+extraQueries {
		t.Errorf("the plan has %d queries, want more than 2, at most %d", n, 2+extraQueries)
	}

	selected, ungrouped := 0, 0
	for _, b := range plan {
		selected += len(b.Targets) * len(b.Bounds)
		ungrouped += len(b.Targets) * len(les)
	}
	if selected*3 > ungrouped {
		t.Errorf("the plan selects %d buckets of %d, want less than a third", selected, ungrouped)
	}
}

func TestStartTime(t *testing.T) {
	replica := func(starts ...float64) []promql.Sample {
		var samples []promql.Sample
		for _, s := range starts {
			samples = append(samples, promql.Sample{F: s})
		}

		return samples
	}
	for _, tc := range []struct {
		name     string
		replicas map[string][]promql.Sample
		want     float64
		ok       bool
	}{
		{name: "no replicas"},
		{name: "no samples", replicas: map[string][]promql.Sample{"": nil}},
		{name: "one replica", replicas: map[string][]promql.Sample{"": replica(5)}, want: 5, ok: true},
		{
			name:     "replicas agree",
			replicas: map[string][]promql.Sample{"x": replica(5), "y": replica(5), "z": nil},
			want:     5, ok: true,
		},
		{name: "replicas differ", replicas: map[string][]promql.Sample{"x": replica(5), "y": replica(6)}},
		{name: "samples differ", replicas: map[string][]promql.Sample{"": replica(5, 6)}},
		{name: "not a number", replicas: map[string][]promql.Sample{"": replica(nan)}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, ok := bucketwindow.StartTime(tc.replicas)
			if ok != tc.ok || ok && got != tc.want {
				t.Errorf("got %v, %v, want %v, %v", got, ok, tc.want, tc.ok)
			}
		})
	}
}
