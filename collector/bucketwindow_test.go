// SPDX-License-Identifier: Apache-2.0

package collector_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/operator-store/operator_store_exporter/collector"
	"github.com/operator-store/operator_store_exporter/config"
	"github.com/operator-store/operator_store_exporter/internal/promapi"
	"github.com/operator-store/operator_store_exporter/internal/promqlexpr"
)

// changingUpstream is an upstream whose stores have histograms that change from step to step, in
// every way in which real ones do.
type changingUpstream struct {
	stores   []*changingStore
	duration time.Duration // Of a bucket query.

	mu            sync.Mutex
	bucketQueries int
	bucketSeries  int // In all responses to bucket queries.
}

// changingStore is one store of a changingUpstream. The latencies of its requests are around one
// bound.
type changingStore struct {
	instance  string
	startTime float64
	les       []string  // The values of the label le.
	counts    []float64 // The cumulative count of each bucket.
	center    float64   // The position in les around which the latencies are.
}

func newChangingUpstream(stores int, random *rand.Rand) *changingUpstream {
	u := &changingUpstream{}
	for i := range stores {
		s := &changingStore{instance: fmt.Sprintf("t%d", i), startTime: 1, center: 6 + 3*random.Float64()}
		s.restart(random)
		u.stores = append(u.stores, s)
	}

	return u
}

// restart restarts the store, sometimes with other buckets, as another version of TiKV has.
func (s *changingStore) restart(random *rand.Rand) {
	s.startTime++
	first, n := 0.00005, 22
	if random.IntN(4) == 0 {
		first, n = 0.0005, 20
	}

	s.les = nil
	for i := range n {
		s.les = append(s.les, strconv.FormatFloat(first*math.Pow(2, float64(i)), 'g', -1, 64))
	}
	s.les = append(s.les, "+Inf")
}

// step moves the store's latencies a little, and sometimes far. Sometimes the store restarts or
// is idle.
func (s *changingStore) step(random *rand.Rand) {
	s.center += 0.1*(8-s.center) + 0.3*random.NormFloat64()
	switch random.IntN(100) {
	case 0:
		s.restart(random)
	case 1:
		s.center = 4 + 8*random.Float64()
	case 2:
		if random.IntN(10) == 0 {
			s.center = 30 // Above the highest finite bound.
		}
	}
	s.center = min(30, max(-1, s.center))

	s.counts = make([]float64, len(s.les))
	if random.IntN(30) == 0 {
		return // Idle.
	}

	total := math.Floor(random.ExpFloat64() * 1000)
	for i := range s.les {
		s.counts[i] = math.Floor(total / (1 + math.Exp(2*(s.center-float64(i)))))
	}
	s.counts[len(s.les)-1] = total
}

func (s *changingStore) labels(more ...string) labels.Labels {
	return labels.FromStrings(append([]string{"job", "tikv", "instance", s.instance}, more...)...)
}

func (u *changingUpstream) Now() (time.Time, bool)                      { return time.Now(), true }
func (u *changingUpstream) Servers() (string, []string)                 { return "http://a", []string{"http://a"} }
func (u *changingUpstream) Queued() uint64                              { return 0 }
func (u *changingUpstream) ExternalURL(context.Context) (string, error) { return "", nil }
func (u *changingUpstream) Close()                                      {}

func (u *changingUpstream) Series(context.Context, []string, time.Time, time.Time) ([]labels.Labels, error) {
	var targets []labels.Labels
	for _, s := range u.stores {
		targets = append(targets, s.labels())
	}

	return targets, nil
}

func (u *changingUpstream) Samples(
	context.Context, promqlexpr.Expr, time.Duration, time.Time,
) (promql.Matrix, error) {
	return nil, nil
}

func (u *changingUpstream) Query(
	_ context.Context, expression string, at time.Time,
) (promapi.Result, error) {
	if at.IsZero() {
		at = time.Now()
	}
	root, err := parser.NewParser(parser.Options{}).ParseExpr(expression)
	if err != nil {
		panic(err)
	}

	var vector promql.Vector
	parser.Inspect(root, func(n parser.Node, _ []parser.Node) error {
		if selector, ok := n.(*parser.VectorSelector); ok {
			timestamps := strings.HasPrefix(expression, "timestamp")
			vector = append(vector, u.selectSamples(selector, timestamps, at)...)
		}

		return nil
	})

	if strings.Contains(expression, "_bucket") {
		u.mu.Lock()
		u.bucketQueries++
		u.bucketSeries += len(vector)
		u.mu.Unlock()
		time.Sleep(u.duration)
	}

	return promapi.Result{Vector: vector, EvaluatedAt: at}, nil
}

// selectSamples returns the samples that match a vector selector.
func (u *changingUpstream) selectSamples(
	selector *parser.VectorSelector, timestamps bool, at time.Time,
) promql.Vector {
	matches := func(l labels.Labels, name string) bool {
		for _, m := range selector.LabelMatchers {
			if m.Name == name && !m.Matches(l.Get(name)) {
				return false
			}
		}

		return true
	}

	var vector promql.Vector

	add := func(l labels.Labels, v float64) {
		if matches(l, "job") && matches(l, "instance") && matches(l, "le") {
			vector = append(vector, promql.Sample{Metric: l, F: v, T: at.UnixMilli()})
		}
	}
	for _, s := range u.stores {
		switch {
		case !matches(s.labels(), "instance"): // Its buckets need not be looked at.
		case selector.Name == "up", selector.Name == "tikv_store_size_bytes" && timestamps:
			add(s.labels(), 1)
		case selector.Name == "process_start_time_seconds":
			add(s.labels(), s.startTime)
		case strings.HasSuffix(selector.Name, "_bucket"):
			for i, le := range s.les {
				add(s.labels("le", le), s.counts[i])
			}
		}
	}

	return vector
}

// newChangingExporter returns an exporter of a cluster "c" with additional fields in YAML's flow
// style.
func newChangingExporter(t *testing.T, up *changingUpstream, fields string) *collector.Exporter {
	t.Helper()
	cfg, err := config.Load([]byte("clusters:\n- {name: c, upstream: {url: http://upstream}" + fields + "}\n"))
	if err != nil {
		t.Fatal(err)
	}
	e, err := collector.New(cfg, collector.Options{Lookback: time.Hour, Interval: time.Hour}.WithClients(up, nil))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)

	return e
}

// Step by step the stores change, restart or are idle. The gauges from windows of buckets equal
// those from all buckets, to the last bit, and the number of queries stays bounded.
func TestWindowsEqualAllBuckets(t *testing.T) {
	const (
		stores    = 60
		steps     = 150
		batchSize = 7 // In the case "small batches".

		// Queries beyond one per batch: up to maxExtraQueries, four, for fewer buckets, one for
		// the targets that need all buckets, and one for those whose windows were too narrow.
		extraQueries = 4 + 1 + 1
	)
	type variant struct {
		name        string
		fields      string
		mostQueries int // Per histogram and scrape.

		exporter      *collector.Exporter
		bucketQueries int // In all steps.
		bucketSeries  int
	}
	all := &variant{name: "all buckets", fields: ", bucket_windows: false", mostQueries: 1}
	small := &variant{
		name:        "small batches",
		fields:      fmt.Sprintf(", stores_per_query: %d", batchSize),
		mostQueries: stores/batchSize + 1 + extraQueries,
	}
	windows := &variant{name: "windows", mostQueries: 1 + extraQueries}
	variants := []*variant{all, windows, small}

	random := rand.New(rand.NewPCG(7, 7))

	up := newChangingUpstream(stores, random)
	for _, v := range variants {
		v.exporter = newChangingExporter(t, up, v.fields)
	}

	for step := range steps {
		for _, s := range up.stores {
			s.step(random)
		}

		var want string // The gauges from all buckets.
		for _, v := range variants {
			up.bucketQueries, up.bucketSeries = 0, 0
			got := storeGauges(t, scrape(t.Context(), t, v.exporter))
			v.bucketQueries += up.bucketQueries
			v.bucketSeries += up.bucketSeries

			if most := bucketQueries() * v.mostQueries; up.bucketQueries > most {
				t.Errorf("step %d: %s sent %d bucket queries, want at most %d", step, v.name, up.bucketQueries, most)
			}
			if v == all {
				want = got
			}
			if got != want {
				t.Fatalf("step %d: %s and all buckets differ:\n%s", step, v.name, differences(got, want))
			}
		}
		if step > 0 && strings.Count(want, "latency_p99") < stores/2 {
			t.Fatalf("step %d: less than half of the stores have a quantile", step)
		}
	}

	if small.bucketSeries*2 > all.bucketSeries {
		t.Errorf("small batches selected %d series, want less than half of all, %d",
			small.bucketSeries, all.bucketSeries)
	}

	for _, v := range variants {
		t.Logf("%s: %d bucket queries, %d series", v.name, v.bucketQueries, v.bucketSeries)
	}
}

// differences returns the lines that only one of two texts has.
func differences(a, b string) string {
	linesA, linesB := strings.Split(a, "\n"), strings.Split(b, "\n")
	var lines []string
	for _, l := range linesA {
		if !slices.Contains(linesB, l) {
			lines = append(lines, "+ "+l)
		}
	}

	for _, l := range linesB {
		if !slices.Contains(linesA, l) {
			lines = append(lines, "- "+l)
		}
	}

	return strings.Join(lines, "\n")
}

// However slow upstream is, it gets no more queries than it may evaluate at once, and a few for
// fewer buckets. Smaller batches would not run in parallel.
func TestSlowUpstreamGetsFewQueries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const (
			stores       = 1000
			concurrency  = 8
			extraQueries = 4 + 2 // For fewer buckets, and for stores that need all buckets.
		)

		random := rand.New(rand.NewPCG(3, 3))
		up := newChangingUpstream(stores, random)
		up.duration = time.Second
		for _, s := range up.stores {
			s.step(random)
			s.startTime = 1
		}

		e := newChangingExporter(t, up, "")
		for range 6 { // To learn the batch size.
			up.bucketQueries = 0
			scrape(t.Context(), t, e)
		}
		least, most := bucketQueries()*concurrency, bucketQueries()*(concurrency+extraQueries)
		if up.bucketQueries < least || up.bucketQueries > most {
			t.Errorf("upstream got %d bucket queries, want %d to %d", up.bucketQueries, least, most)
		}
	})
}
