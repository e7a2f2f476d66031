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

	"github.com/go-kit/log"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/operator-store/operator_store_exporter/collector"
	"github.com/operator-store/operator_store_exporter/config"
)

// moving is an upstream whose stores have histograms that change from step to step, in every way that real ones do.
type moving struct {
	stores []*movingStore
	mu     sync.Mutex
	asked  int           // Queries of buckets.
	series int           // Series of buckets in the answers.
	takes  time.Duration // A query of buckets.
}

type movingStore struct {
	instance string
	started  float64
	les      []string
	counts   []float64
	centre   float64
}

func newMoving(n int, random *rand.Rand) *moving {
	m := &moving{}
	for i := range n {
		s := &movingStore{instance: fmt.Sprintf("t%d", i), started: 1, centre: 6 + 3*random.Float64()}
		m.stores = append(m.stores, s)
		s.restart(random)
	}
	return m
}

// restart gives the store other buckets now and then, as another version has.
func (s *movingStore) restart(random *rand.Rand) {
	s.started++
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

// step moves the store's latencies a little, sometimes far.
func (s *movingStore) step(random *rand.Rand) {
	s.centre += 0.1*(8-s.centre) + 0.3*random.NormFloat64()
	switch random.IntN(100) {
	case 0:
		s.restart(random)
	case 1:
		s.centre = 4 + 8*random.Float64()
	case 2:
		if random.IntN(10) == 0 {
			s.centre = 30 // Beyond the last bound.
		}
	}
	s.centre = min(30, max(-1, s.centre))
	s.counts = make([]float64, len(s.les))
	if random.IntN(30) == 0 {
		return // Idle.
	}
	total := math.Floor(random.ExpFloat64() * 1000)
	for i := range s.les {
		s.counts[i] = math.Floor(total / (1 + math.Exp(2*(s.centre-float64(i)))))
	}
	s.counts[len(s.les)-1] = total
}

func (m *moving) Now() (time.Time, bool)      { return time.Now(), true }
func (m *moving) Servers() (string, []string) { return "http://a", []string{"http://a"} }
func (m *moving) Queued() uint64              { return 0 }
func (m *moving) ExternalURL(context.Context) (string, error) {
	return "", nil
}

func (m *moving) Close() {}
func (m *moving) target(s *movingStore, more ...string) labels.Labels {
	return labels.FromStrings(append([]string{"job", "tikv", "instance", s.instance}, more...)...)
}

func (m *moving) Series(context.Context, []string, time.Time, time.Time) ([]labels.Labels, error) {
	var all []labels.Labels
	for _, s := range m.stores {
		all = append(all, m.target(s))
	}
	return all, nil
}

func (m *moving) Query(_ context.Context, expression string, at time.Time) (promql.Vector, time.Time, error) {
	if at.IsZero() {
		at = time.Now()
	}
	root, err := parser.NewParser(parser.Options{}).ParseExpr(expression)
	if err != nil {
		panic(err)
	}
	var vector promql.Vector
	parser.Inspect(root, func(n parser.Node, _ []parser.Node) error {
		selector, ok := n.(*parser.VectorSelector)
		if !ok {
			return nil
		}
		add := func(l labels.Labels, v float64) {
			for _, matcher := range selector.LabelMatchers {
				if matcher.Name != "__name__" && matcher.Name != "type" && !matcher.Matches(l.Get(matcher.Name)) {
					return
				}
			}
			vector = append(vector, promql.Sample{Metric: l, F: v, T: at.UnixMilli()})
		}
		instance := slices.IndexFunc(selector.LabelMatchers, func(m *labels.Matcher) bool { return m.Name == "instance" })
		for _, s := range m.stores {
			switch {
			case instance >= 0 && !selector.LabelMatchers[instance].Matches(s.instance):
			case selector.Name == "up", selector.Name == "tikv_store_size_bytes" && strings.HasPrefix(expression, "timestamp"):
				add(m.target(s), 1)
			case selector.Name == "process_start_time_seconds":
				add(m.target(s), s.started)
			case strings.HasSuffix(selector.Name, "_bucket"):
				for i, le := range s.les {
					add(m.target(s, "le", le), s.counts[i])
				}
			}
		}
		return nil
	})
	if strings.Contains(expression, "_bucket") {
		m.mu.Lock()
		m.asked++
		m.series += len(vector)
		m.mu.Unlock()
		time.Sleep(m.takes)
	}
	return vector, at, nil
}

// differences are the lines that only one of two pages has.
func differences(a, b string) string {
	lines := map[string]int{}
	for _, l := range strings.Split(a, "\n") {
		lines[l]++
	}
	for _, l := range strings.Split(b, "\n") {
		lines[l] += 2
	}
	var only []string
	for l, n := range lines {
		if n != 3 {
			only = append(only, fmt.Sprintf("%d: %s", n, l))
		}
	}
	slices.Sort(only)
	return strings.Join(only, "\n")
}

// Step by step the stores move, restart, fall silent and move far; what windows tell is what all buckets tell, to the last bit.
func TestWindowsTellWhatAllBucketsDo(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 7))
	const n, steps = 60, 150
	up := newMoving(n, random)
	exporters := map[string]*collector.Exporter{}
	for name, extra := range map[string]string{"windows": "", "all": ", bucket_windows: false", "small": ", stores_per_query: 7"} {
		cfg, err := config.Load([]byte("clusters:\n- {name: c, upstream: {url: http://upstream}" + extra + "}\n"))
		if err != nil {
			t.Fatal(err)
		}
		e, err := collector.New(cfg, collector.Options{
			Lookback: time.Hour, Interval: time.Hour, Logger: log.NewNopLogger(),
		}.WithClients(up, nil))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(e.Close)
		exporters[name] = e
	}
	asked, series := map[string]int{}, map[string]int{}
	for step := range steps {
		for _, s := range up.stores {
			s.step(random)
		}
		pages := map[string]string{}
		for name, e := range exporters {
			up.asked, up.series = 0, 0
			pages[name] = page(t, scrape(t.Context(), t, e))
			asked[name] += up.asked
			series[name] += up.series
			// Two queries of buckets. Each has its chunks, at most four more for fewer buckets, one for targets that need all
			// buckets, and one for those that their window did not suffice for.
			if most := map[string]int{"windows": 2 * (1 + 4 + 1 + 1), "all": 2, "small": 2 * (n/7 + 1 + 4 + 1 + 1)}[name]; up.asked > most {
				t.Errorf("step %d: %s asked %d queries, want at most %d", step, name, up.asked, most)
			}
		}
		for name, got := range pages {
			if got != pages["all"] {
				t.Fatalf("step %d: %s and all buckets differ: %s", step, name, differences(got, pages["all"]))
			}
		}
		if step > 0 && strings.Count(pages["all"], "latency_p99") < n/2 {
			t.Fatalf("step %d: too few stores have a quantile", step)
		}
	}
	if series["small"]*2 > series["all"] {
		t.Errorf("small chunks got %d series, all buckets are %d", series["small"], series["all"])
	}
	t.Logf("queries of buckets: %v, series: %v", asked, series)
}

// However long its queries take, upstream gets no more of them than may be under way at once and a few for fewer buckets: what
// it can't do side by side is not cut smaller.
func TestASlowUpstreamGetsFewQueries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		random := rand.New(rand.NewPCG(3, 3))
		const n, concurrency, more = 1000, 8, 4
		up := newMoving(n, random)
		up.takes = time.Second
		for _, s := range up.stores {
			s.step(random)
			s.started = 1
		}
		cfg, err := config.Load([]byte("clusters:\n- {name: c, upstream: {url: http://upstream}}\n"))
		if err != nil {
			t.Fatal(err)
		}
		e, err := collector.New(cfg, collector.Options{
			Lookback: time.Hour, Interval: time.Hour, Logger: log.NewNopLogger(),
		}.WithClients(up, nil))
		if err != nil {
			t.Fatal(err)
		}
		defer e.Close()
		for range 6 {
			up.asked = 0
			scrape(t.Context(), t, e)
		}
		// Two queries of buckets; those stores that need all of theirs have chunks of their own.
		if most := 2 * (concurrency + more + 2); up.asked > most || up.asked < 2*concurrency {
			t.Errorf("%d queries of buckets, want %d to %d", up.asked, 2*concurrency, most)
		}
	})
}
