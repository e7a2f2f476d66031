// SPDX-License-Identifier: Apache-2.0

package collector_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-kit/log"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"go.uber.org/goleak"

	"github.com/operator-store/operator_store_exporter/collector"
	"github.com/operator-store/operator_store_exporter/config"
	"github.com/operator-store/operator_store_exporter/internal/gauge"
	"github.com/operator-store/operator_store_exporter/internal/httpclient"
	"github.com/operator-store/operator_store_exporter/internal/storematch"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fake is an upstream that answers what a test tells it to, for what a real one will not do. Its
// clock is an hour behind ours.
type fake struct {
	targets []labels.Labels
	// answer gives the answer to a query whose expression contains the key; no key, no series.
	answers map[string][]string
	// block holds up the queries whose expression contains a key until the channel is closed, or ctx ends.
	block map[string]chan struct{}
	fails map[string]error

	pd fakePD

	mu      sync.Mutex
	asked   []string
	instant map[string]time.Time // By expression.
	known   bool
}

const behind = -time.Hour

// fakePD is a PD that tells what a test wants.
type fakePD struct {
	stores []storematch.Store
	err    error
}

func (f *fakePD) Stores(context.Context) ([]storematch.Store, error) { return f.stores, f.err }
func (f *fakePD) Close()                                             {}

func (f *fake) Now() (time.Time, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.known {
		return time.Now(), false
	}
	return time.Now().Add(behind), true
}

func (f *fake) Servers() (string, []string) { return "http://a", []string{"http://a", "http://b"} }
func (f *fake) Queued() uint64              { return 3 }
func (f *fake) ExternalURL(ctx context.Context) (string, error) {
	if err := f.do(ctx, "flags", time.Time{}); err != nil {
		return "", err
	}
	return "http://people", nil
}

func (f *fake) Close() {}

func (f *fake) Series(ctx context.Context, matchers []string, _, _ time.Time) ([]labels.Labels, error) {
	return f.targets, f.do(ctx, strings.Join(matchers, " "), time.Time{})
}

func (f *fake) Query(ctx context.Context, expression string, at time.Time) (promql.Vector, time.Time, error) {
	if err := f.do(ctx, expression, at); err != nil {
		return nil, time.Time{}, err
	}
	if at.IsZero() {
		at = time.Now().Add(behind)
		f.mu.Lock()
		f.known = true
		f.mu.Unlock()
	}
	var vector promql.Vector
	for word, series := range f.answers {
		if !strings.Contains(expression, word) || word == "up{" && strings.HasPrefix(expression, "timestamp") {
			continue
		}
		for _, s := range series {
			vector = append(vector, parse(s, at))
		}
	}
	return vector, at, nil
}

func (f *fake) do(ctx context.Context, expression string, at time.Time) error {
	f.mu.Lock()
	f.asked = append(f.asked, expression)
	if f.instant == nil {
		f.instant = map[string]time.Time{}
	}
	f.instant[expression] = at
	f.mu.Unlock()
	for word, gate := range f.block {
		if strings.Contains(expression, word) {
			select {
			case <-gate:
			case <-ctx.Done():
				return &httpclient.Error{Reason: httpclient.ReasonTimeout, Request: "POST /", Err: ctx.Err()}
			}
		}
	}
	for word, err := range f.fails {
		if strings.Contains(expression, word) {
			return err
		}
	}
	return nil
}

func (f *fake) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.asked)
}

// parse reads a series written `label=value,… number`.
func parse(s string, at time.Time) promql.Sample {
	pairs, number, _ := strings.Cut(s, " ")
	metric := map[string]string{}
	for _, pair := range strings.Split(pairs, ",") {
		name, value, _ := strings.Cut(pair, "=")
		metric[name] = value
	}
	var v float64
	switch number {
	case "NaN":
		v = math.NaN()
	case "+Inf":
		v = math.Inf(1)
	case "-Inf":
		v = math.Inf(-1)
	default:
		if _, err := fmt.Sscan(number, &v); err != nil {
			panic(err)
		}
	}
	return promql.Sample{Metric: labels.FromMap(metric), F: v, T: at.UnixMilli()}
}

var oneTarget = []labels.Labels{target("tikv", "a:20180")}

// interval is how often the stores are found out anew in these tests.
const interval = time.Hour

// newExporter returns an exporter of one cluster "c" with the given extra configuration.
func newExporter(t *testing.T, f *fake, extra string, logger log.Logger) *collector.Exporter {
	t.Helper()
	cfg, err := config.Load([]byte("clusters:\n- name: c\n  upstream: {url: http://upstream}\n" + extra))
	if err != nil {
		t.Fatal(err)
	}
	return newConfigured(t, f, cfg, logger)
}

func newConfigured(t *testing.T, f *fake, cfg *config.Config, logger log.Logger) *collector.Exporter {
	t.Helper()
	e, err := collector.New(cfg, collector.Options{
		Lookback: 2 * interval, Interval: interval, Logger: logger,
	}.WithClients(f, &f.pd))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	return e
}

func scrape(ctx context.Context, t *testing.T, e *collector.Exporter) *collector.Scrape {
	t.Helper()
	c, err := e.Scrape(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// page returns the store gauges of c, a line each.
func page(t *testing.T, c *collector.Scrape) string {
	t.Helper()
	names := make([]string, len(gauge.Builtin()))
	for i, g := range gauge.Builtin() {
		names[i] = g.Name
	}
	return strings.Join(lines(t, c, names...), "\n")
}

// lines returns the series of c with the given names, a line each.
func lines(t *testing.T, c *collector.Scrape, names ...string) []string {
	t.Helper()
	text, err := testutil.CollectAndFormat(c, expfmt.TypeTextPlain, names...)
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(strings.Split(strings.TrimSpace(string(text)), "\n"), func(l string) bool { return strings.HasPrefix(l, "#") || l == "" })
}

// Each case is what upstream answers, by what the query's expression contains, and the gauges that must come of it.
func TestGauges(t *testing.T) {
	const a = "job=tikv,instance=a:20180"
	for _, tc := range []struct {
		name    string
		extra   string
		targets []labels.Labels
		answers map[string][]string
		fails   map[string]error
		want    []string
	}{
		{
			name:    "numbers are upstream's, and a zero is a zero",
			answers: map[string][]string{"up{": {a + " 1"}, "command_total": {a + " 0"}, "process_cpu": {a + " 0.25"}, "quota": {a + " 8"}, "timestamp(tikv": {a + " 1700000000.5"}},
			want: []string{
				`operator_store_cpu_cores{address="a:20180",cluster="c",store_id=""} 8`,
				`operator_store_cpu_percent{address="a:20180",cluster="c",store_id=""} 25`,
				`operator_store_last_scrape_timestamp_seconds{address="a:20180",cluster="c",store_id=""} 1.7000000005e+09`,
				`operator_store_qps{address="a:20180",cluster="c",store_id=""} 0`,
				`operator_store_up{address="a:20180",cluster="c",store_id=""} 1`,
			},
		},
		{
			name:    "NaN and infinities are absent",
			answers: map[string][]string{"up{": {a + " 1"}, "command_total": {a + " NaN"}, "process_cpu": {a + " +Inf"}, "quota": {a + " -Inf"}},
			want:    []string{`operator_store_up{address="a:20180",cluster="c",store_id=""} 1`},
		},
		{
			name:    "a histogram without observations has a rate and no quantile",
			answers: map[string][]string{"msg_duration": {a + ",le=0.1 0", a + ",le=+Inf 0"}},
			want: []string{
				`operator_store_grpc_qps{address="a:20180",cluster="c",store_id=""} 0`,
				`operator_store_up{address="a:20180",cluster="c",store_id=""} 0`,
			},
		},
		{
			name: "a quantile is interpolated in its bucket",
			// 95 % of 100 is reached at 5/10 of the bucket from 1 to 2, 99 % at 9/10 of it.
			answers: map[string][]string{"up{": {a + " 1"}, "msg_duration": {a + ",le=+Inf 100", a + ",le=2 100", a + ",le=1 90"}},
			want: []string{
				`operator_store_grpc_qps{address="a:20180",cluster="c",store_id=""} 100`,
				`operator_store_latency_p95_seconds{address="a:20180",cluster="c",store_id=""} 1.5`,
				`operator_store_latency_p99_seconds{address="a:20180",cluster="c",store_id=""} 1.9`,
				`operator_store_up{address="a:20180",cluster="c",store_id=""} 1`,
			},
		},
		{
			name:    "a histogram without its last bucket is none",
			answers: map[string][]string{"up{": {a + " 1"}, "msg_duration": {a + ",le=2 100", a + ",le=1 90"}, "log_lag": {a + ",le=2 100", a + ",le=1 90"}},
			want:    []string{`operator_store_up{address="a:20180",cluster="c",store_id=""} 1`},
		},
		{
			name:    "a bound that is no number leaves no histogram",
			answers: map[string][]string{"up{": {a + " 1"}, "msg_duration": {a + ",le=+Inf 100", a + ",le=x 90", a + ",le=1 90"}},
			want:    []string{`operator_store_up{address="a:20180",cluster="c",store_id=""} 1`},
		},
		{
			name:    "ratios",
			answers: map[string][]string{"up{": {a + " 1"}, "by (job, instance, type)": {a + ",type=used 1", a + ",type=available 2", a + ",type=capacity 8"}},
			want: []string{
				`operator_store_disk_available_bytes{address="a:20180",cluster="c",store_id=""} 2`,
				`operator_store_disk_fill_ratio{address="a:20180",cluster="c",store_id=""} 0.75`,
				`operator_store_disk_total_bytes{address="a:20180",cluster="c",store_id=""} 8`,
				`operator_store_disk_used_bytes{address="a:20180",cluster="c",store_id=""} 1`,
				`operator_store_disk_utilization_ratio{address="a:20180",cluster="c",store_id=""} 0.125`,
				`operator_store_up{address="a:20180",cluster="c",store_id=""} 1`,
			},
		},
		{
			name:    "a capacity of zero has no ratios",
			answers: map[string][]string{"up{": {a + " 1"}, "by (job, instance, type)": {a + ",type=used 1", a + ",type=available 0", a + ",type=capacity 0"}},
			want: []string{
				`operator_store_disk_available_bytes{address="a:20180",cluster="c",store_id=""} 0`,
				`operator_store_disk_total_bytes{address="a:20180",cluster="c",store_id=""} 0`,
				`operator_store_disk_used_bytes{address="a:20180",cluster="c",store_id=""} 1`,
				`operator_store_up{address="a:20180",cluster="c",store_id=""} 1`,
			},
		},
		{
			name:    "a series twice is dropped for that store and that query",
			answers: map[string][]string{"up{": {a + " 1"}, "command_total": {a + " 5", a + " 6"}, "quota": {a + " 8"}},
			want: []string{
				`operator_store_cpu_cores{address="a:20180",cluster="c",store_id=""} 8`,
				`operator_store_up{address="a:20180",cluster="c",store_id=""} 1`,
			},
		},
		{
			name:    "another target's series are nobody's",
			answers: map[string][]string{"up{": {a + " 1"}, "command_total": {"job=tikv,instance=b:20180 5"}, "quota": {"job=other,instance=a:20180 8"}},
			want:    []string{`operator_store_up{address="a:20180",cluster="c",store_id=""} 1`},
		},
		{
			name:    "a target that is gone is down",
			answers: map[string][]string{},
			want:    []string{`operator_store_up{address="a:20180",cluster="c",store_id=""} 0`},
		},
		{
			name:    "series without up were pushed, and nobody knows whether the store is up",
			answers: map[string][]string{"timestamp(tikv": {a + " 1700000000"}},
			want:    []string{`operator_store_last_scrape_timestamp_seconds{address="a:20180",cluster="c",store_id=""} 1.7e+09`},
		},
		{
			name:    "two targets of one identity have no gauges",
			answers: map[string][]string{"up{": {a + ",cluster=x 1", a + ",cluster=y 1"}, "command_total": {a + " 5"}},
		},
		{
			name:    "two live series of one identity have no gauges, where nothing has an up",
			answers: map[string][]string{"timestamp(tikv": {a + ",prometheus=x 1700000000", a + ",prometheus=y 1700000000"}, "command_total": {a + " 5"}},
		},
		{
			name:  "of two replicas the freshest is heard, in every gauge",
			extra: "  replica_labels: [replica]\n",
			answers: map[string][]string{
				"up{": {a + ",replica=x 0", a + ",replica=y 1"}, "timestamp(tikv": {a + ",replica=x 1600000000", a + ",replica=y 1700000000"},
				"timestamp(up":  {a + ",replica=x 1600000000", a + ",replica=y 1700000000"},
				"command_total": {a + ",replica=x 5", a + ",replica=y 6"}, "quota": {a + ",replica=x 8"},
			},
			want: []string{
				`operator_store_last_scrape_timestamp_seconds{address="a:20180",cluster="c",store_id=""} 1.7e+09`,
				`operator_store_qps{address="a:20180",cluster="c",store_id=""} 6`,
				`operator_store_up{address="a:20180",cluster="c",store_id=""} 1`,
			},
		},
		{
			name:  "a store is down, and the replica that is gone left its last word",
			extra: "  replica_labels: [replica]\n",
			answers: map[string][]string{
				"up{": {a + ",replica=gone 1", a + ",replica=live 0"}, "timestamp(tikv": {a + ",replica=gone 1600000000"},
				"timestamp(up":  {a + ",replica=gone 1600000000", a + ",replica=live 1700000000"},
				"command_total": {a + ",replica=gone 5"},
			},
			want: []string{`operator_store_up{address="a:20180",cluster="c",store_id=""} 0`},
		},
		{
			name:    "of two replicas of unknown age none is heard",
			extra:   "  replica_labels: [replica]\n",
			answers: map[string][]string{"up{": {a + ",replica=x 1", a + ",replica=y 1"}, "command_total": {a + ",replica=x 5", a + ",replica=y 6"}},
			fails:   map[string]error{"timestamp": &httpclient.Error{Reason: httpclient.ReasonHTTP, Err: errors.New("500")}},
		},
		{
			name:    "configured stores have their ids, and one that upstream does not know is down",
			extra:   "  stores: [{id: 7, address: 'A:20160'}, {id: 8, address: 'b:20160'}]\n",
			answers: map[string][]string{"up{": {a + " 1"}},
			want: []string{
				`operator_store_up{address="A:20160",cluster="c",store_id="7"} 1`,
				`operator_store_up{address="b:20160",cluster="c",store_id="8"} 0`,
			},
		},
		{
			name:    "where upstream can't be asked for up, no store is down",
			extra:   "  stores: [{id: 7, address: 'a:20160'}, {id: 8, address: 'b:20160'}]\n",
			answers: map[string][]string{"command_total": {a + " 5"}},
			fails:   map[string]error{"up{": &httpclient.Error{Reason: httpclient.ReasonHTTP, Err: errors.New("500")}},
			want:    []string{`operator_store_qps{address="a:20160",cluster="c",store_id="7"} 5`},
		},
		{
			name:    "an upstream that knows no TiKV has no stores",
			targets: []labels.Labels{},
			answers: map[string][]string{},
		},
		{
			name:  "before the targets are known nothing is told",
			extra: "  stores: [{id: 7, address: 'a:20160'}]\n",
			fails: map[string]error{"server_info": &httpclient.Error{Reason: httpclient.ReasonHTTP, Err: errors.New("500")}},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := &fake{targets: oneTarget, answers: tc.answers, fails: tc.fails}
			if tc.targets != nil {
				f.targets = tc.targets
			}
			got := page(t, scrape(t.Context(), t, newExporter(t, f, tc.extra, log.NewNopLogger())))
			if want := strings.Join(tc.want, "\n"); got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

func TestScrapesAtTheSameTimeShareARound(t *testing.T) {
	const perRound = 9
	for _, tc := range []struct {
		name   string
		second time.Duration // The second scrape's timeout; the first one has 10 s.
		wait   time.Duration // Between the two.
		cancel bool          // The first one's scraper goes away.
		rounds int
	}{
		{"at once", 10 * time.Second, 0, false, 1},
		{"one second apart", 10 * time.Second, time.Second, false, 1},
		{"the first goes away", 10 * time.Second, time.Second, true, 1},
		{"the second has less time", 5 * time.Second, time.Second, false, 2},
		{"the second has far more time", time.Minute, 0, false, 2},
		{"the first has little time left", 10 * time.Second, 8 * time.Second, false, 2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				gate := make(chan struct{})
				f := &fake{targets: oneTarget, answers: map[string][]string{"up{": {"job=tikv,instance=a:20180 1"}}}
				e := newExporter(t, f, "", log.NewNopLogger())
				scrape(t.Context(), t, e)
				before := f.count()
				f.block = map[string]chan struct{}{"command_total": gate}

				pages := make([]string, 2)
				var both sync.WaitGroup
				first, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				both.Go(func() { pages[0] = page(t, scrape(first, t, e)) })
				time.Sleep(tc.wait) // In the bubble's own time.
				synctest.Wait()
				second, cancelSecond := context.WithTimeout(t.Context(), tc.second)
				defer cancelSecond()
				both.Go(func() { pages[1] = page(t, scrape(second, t, e)) })
				synctest.Wait()
				if tc.cancel {
					cancel()
					synctest.Wait()
				}
				close(gate)
				both.Wait()
				if got := f.count() - before; got != tc.rounds*perRound {
					t.Errorf("upstream saw %d requests, want %d", got, tc.rounds*perRound)
				}
				want := `operator_store_up{address="a:20180",cluster="c",store_id=""} 1`
				if pages[1] != want {
					t.Errorf("the second scrape got %q, want %q", pages[1], want)
				}
				if !tc.cancel && pages[0] != want {
					t.Errorf("the first scrape got %q, want %q", pages[0], want)
				}
			})
		})
	}
}

func TestARoundThatNobodyWaitsForEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{targets: oneTarget, block: map[string]chan struct{}{"command_total": nil}}
		e := newExporter(t, f, "", log.NewNopLogger())
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		done := make(chan struct{})
		go func() {
			defer close(done)
			scrape(ctx, t, e)
		}()
		synctest.Wait()
		began := time.Now()
		cancel()
		<-done
		if waited := time.Since(began); waited != 0 {
			t.Errorf("the scrape went on for %s", waited)
		}
	})
}

// The deadline is kept to the millisecond, in the bubble's own time, and what has arrived is served.
func TestWhatHasArrivedByTheDeadlineIsServed(t *testing.T) {
	for _, tc := range []struct {
		name  string
		block []string
		took  time.Duration
		want  []string
	}{
		{"one query hangs", []string{"command_total"}, 9 * time.Second, []string{"operator_store_cpu_cores", "operator_store_up"}},
		{"the first query hangs, and leaves time to the others", []string{"up{"}, 3 * time.Second, []string{"operator_store_cpu_cores", "operator_store_qps"}},
		{"all hang", []string{"{"}, 9 * time.Second, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const a = "job=tikv,instance=a:20180"
				f := &fake{targets: oneTarget, answers: map[string][]string{"up{": {a + " 1"}, "command_total": {a + " 5"}, "quota": {a + " 8"}}}
				e := newExporter(t, f, "", log.NewNopLogger())
				scrape(t.Context(), t, e)
				f.block = map[string]chan struct{}{}
				for _, word := range tc.block {
					f.block[word] = nil
				}
				ctx, cancel := context.WithTimeout(t.Context(), 9*time.Second)
				defer cancel()
				began := time.Now()
				c := scrape(ctx, t, e)
				if took := time.Since(began); took != tc.took {
					t.Errorf("the scrape took %s, want %s", took, tc.took)
				}
				var got []string
				for _, line := range strings.Split(page(t, c), "\n") {
					if name, _, ok := strings.Cut(line, "{"); ok {
						got = append(got, name)
					}
				}
				if !slices.Equal(got, tc.want) {
					t.Errorf("got %q, want %q", got, tc.want)
				}
			})
		})
	}
}

// Our clock is an hour ahead of upstream's; no query may be asked by it.
func TestUpstreamsClockCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{targets: oneTarget, answers: map[string][]string{"up{": {"job=tikv,instance=a:20180 1"}}}
		e := newExporter(t, f, "", log.NewNopLogger())
		scrape(t.Context(), t, e)
		f.fails = map[string]error{"up{": &httpclient.Error{Reason: httpclient.ReasonHTTP, Err: errors.New("500")}}
		f.instant = nil
		time.Sleep(time.Minute)
		c := scrape(t.Context(), t, e)
		want := time.Now().Add(behind)
		for expression, at := range f.instant {
			if !strings.Contains(expression, "up{") && !strings.Contains(expression, "server_info") && !at.Equal(want) {
				t.Errorf("%s was asked at %s, want %s", expression, at, want)
			}
		}
		if err := testutil.CollectAndCompare(c, strings.NewReader(fmt.Sprintf(`
# HELP operator_store_exporter_evaluation_timestamp_seconds The instant at which all queries of this scrape were evaluated, on upstream's clock, as a Unix time.
# TYPE operator_store_exporter_evaluation_timestamp_seconds gauge
operator_store_exporter_evaluation_timestamp_seconds{cluster="c"} %d
`, want.Unix())), "operator_store_exporter_evaluation_timestamp_seconds"); err != nil {
			t.Error(err)
		}
	})
}

func TestAProblemIsLoggedOnceAndWhenItIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		f := &fake{targets: oneTarget, answers: map[string][]string{"up{": {"job=tikv,instance=a:20180 1"}}}
		e := newExporter(t, f, "", log.NewLogfmtLogger(&out))
		steps := []struct {
			what  string
			fails bool
			after time.Duration
			want  string
		}{
			{"all is well", false, 0, ""},
			{"it begins", true, 15 * time.Second, "level=warn"},
			{"it lasts", true, 15 * time.Second, ""},
			{"it lasts for long", true, 10 * time.Minute, "level=warn"},
			{"it is over", false, 15 * time.Second, "over: "},
			{"it comes back soon", true, 15 * time.Second, ""},
			{"it goes again", false, 15 * time.Second, ""},
			{"it comes back late", true, 10 * time.Minute, "level=warn"},
		}
		for _, s := range steps {
			time.Sleep(s.after)
			out.Reset()
			f.fails = nil
			if s.fails {
				f.fails = map[string]error{}
				for _, word := range []string{"command_total", "quota"} {
					f.fails[word] = &httpclient.Error{Reason: httpclient.ReasonHTTP, Request: "POST http://upstream", Err: errors.New("500 Internal Server Error"), Hint: "try again"}
				}
			}
			scrape(t.Context(), t, e)
			got := strings.TrimSpace(out.String())
			if s.want == "" && got != "" || !strings.Contains(got, s.want) || strings.Count(got, "\n") > 0 {
				t.Errorf("%s: the log says %q, want one line with %q", s.what, got, s.want)
			}
			if s.want != "" {
				for _, word := range []string{`\"storage_commands\", \"cpu_quota\"`, `cluster \"c\"`, "POST http://upstream", "500", "try again"} {
					if !strings.Contains(got, word) {
						t.Errorf("%s: the log says %q, which lacks %q", s.what, got, word)
					}
				}
			}
		}
	})
}

func TestStoresAreFoundOutInTheBackground(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const a, b = "job=tikv,instance=a:20180", "job=tikv,instance=b:20180"
		f := &fake{targets: oneTarget, answers: map[string][]string{"up{": {a + " 1", b + " 1"}}}
		e := newExporter(t, f, "", log.NewNopLogger())
		addresses := func() string {
			var found []string
			for _, line := range strings.Split(page(t, scrape(t.Context(), t, e)), "\n") {
				_, address, _ := strings.Cut(line, `address="`)
				address, _, _ = strings.Cut(address, `"`)
				found = append(found, address)
			}
			return strings.Join(found, " ")
		}
		began := time.Now()
		for _, step := range []struct {
			what string
			do   func()
			want string
		}{
			{"the first scrape waits", func() {}, "a:20180"},
			{"a new target is not looked for yet", func() { f.targets = []labels.Labels{oneTarget[0], target("tikv", "b:20180")} }, "a:20180"},
			{"it is looked for, and the scrape does not wait", func() {
				time.Sleep(interval)
				f.block = map[string]chan struct{}{"server_info": make(chan struct{})}
			}, "a:20180"},
			{"it is not looked for twice", func() { time.Sleep(time.Second) }, "a:20180"},
			{"it is found", func() {
				close(f.block["server_info"])
				synctest.Wait()
			}, "a:20180 b:20180"},
			{"one that can't be looked for stays", func() {
				f.targets = oneTarget
				f.fails = map[string]error{"server_info": &httpclient.Error{Reason: httpclient.ReasonHTTP, Err: errors.New("500")}}
				time.Sleep(interval)
				addresses()
				synctest.Wait()
			}, "a:20180 b:20180"},
			{"one that is gone goes", func() {
				f.fails = nil
				time.Sleep(interval)
				addresses()
				synctest.Wait()
			}, "a:20180"},
		} {
			before, count := time.Now(), f.lookups()
			step.do()
			waited := time.Since(before)
			before = time.Now()
			if got := addresses(); got != step.want {
				t.Errorf("%s: the stores are %s, want %s", step.what, got, step.want)
			}
			if took := time.Since(before); took != 0 {
				t.Errorf("%s: the scrape took %s", step.what, took)
			}
			if n := f.lookups() - count; n > 1 {
				t.Errorf("%s: %d lookups in %s", step.what, n, waited)
			}
		}
		if n := f.lookups(); n != 4 {
			t.Errorf("%d lookups in %s, want 4", n, time.Since(began))
		}
	})
}

// lookups is how often the targets were asked for.
func (f *fake) lookups() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, expression := range f.asked {
		if strings.HasSuffix(expression, " tikv_server_info") && !strings.Contains(expression, " or ") {
			n++
		}
	}
	return n
}

// What PD tells, itself or through upstream, and the stores that come of it.
func TestStoresOfPD(t *testing.T) {
	const a, b = "job=tikv,instance=a:20180", "job=tikv,instance=b:20180"
	refused := &httpclient.Error{Reason: httpclient.ReasonConnection, Request: "GET http://pd", Err: errors.New("connection refused")}
	for _, tc := range []struct {
		name    string
		extra   string
		told    []storematch.Store
		err     error
		answers []string // Of pd_scheduler_store_status.
		want    []string // id, address and the target's instance.
		success string   // Of the query pd, "" if it is not asked.
	}{
		{
			"PD is not asked and upstream does not know it", "", nil, nil, nil,
			[]string{" a:20180 a:20180", " b:20180 b:20180"},
			"",
		},
		{
			"upstream scrapes PD", "", nil, nil,
			[]string{"address=a:20160,store=1 1", "address=b:20160,store=4 1", "address=f:3930,store=9 1"},
			[]string{"1 a:20160 a:20180", "4 b:20160 b:20180"},
			"",
		},
		{
			"PD is asked", "  pd: {url: http://pd}\n",
			[]storematch.Store{{ID: "1", Address: "x:20160", StatusAddress: "a:20180"}, {ID: "2", Address: "y:20160"}},
			nil,
			[]string{"address=b:20160,store=4 1"},
			[]string{"1 x:20160 a:20180", "2 y:20160 "},
			"1",
		},
		{
			"an address that changed hands, and PD lists who had it too", "  pd: {url: http://pd}\n",
			[]storematch.Store{{ID: "1", Address: "a:20160", StatusAddress: "a:20180"}, {ID: "9", Address: "a:20160", StatusAddress: "a:20180"}},
			nil, nil,
			[]string{"9 a:20160 a:20180"},
			"1",
		},
		{
			"PD does not answer, upstream scrapes it", "  pd: {url: http://pd}\n", nil, refused,
			[]string{"address=a:20160,store=1 1"},
			[]string{" b:20180 b:20180", "1 a:20160 a:20180"},
			"0",
		},
		{
			"configured stores get their ids", "  stores: [{address: 'A:20160'}, {address: 'b:20160', id: 7}]\n", nil, nil,
			[]string{"address=a:20160,store=1 1", "address=b:20160,store=4 1"},
			[]string{"1 A:20160 a:20180", "7 b:20160 b:20180"},
			"",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := &fake{
				targets: []labels.Labels{oneTarget[0], target("tikv", "b:20180")},
				answers: map[string][]string{"up{": {a + " 1", b + " 1"}, "pd_scheduler_store_status": tc.answers},
				pd:      fakePD{stores: tc.told, err: tc.err},
			}
			c := scrape(t.Context(), t, newExporter(t, f, tc.extra, log.NewNopLogger()))
			ups := page(t, c)
			var want []string
			for _, w := range tc.want {
				parts := strings.Split(w, " ")
				if labels := fmt.Sprintf(`operator_store_up{address=%q,cluster="c",store_id=%q}`, parts[1], parts[0]); !strings.Contains(ups, labels) {
					t.Errorf("there is no %s in\n%s", labels, ups)
				}
				if parts[2] != "" {
					want = append(want, fmt.Sprintf(`operator_store_info{address=%q,cluster="c",store_id=%q,upstream_instance=%q,upstream_job="tikv"} 1`, parts[1], parts[0], parts[2]))
				}
			}
			if n := strings.Count(ups, "operator_store_up{"); n != len(tc.want) {
				t.Errorf("%d stores, want %d:\n%s", n, len(tc.want), ups)
			}
			got := lines(t, c, "operator_store_info")
			slices.Sort(got)
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Errorf("the targets are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
			success := strings.Join(slices.DeleteFunc(lines(t, c, "operator_store_exporter_query_success"), func(l string) bool { return !strings.Contains(l, `query="pd"`) }), "")
			if _, value, _ := strings.Cut(success, "} "); value != tc.success {
				t.Errorf("the query pd succeeded %q, want %q", value, tc.success)
			}
		})
	}
}

func TestStoresKeepTheirIDsWhilePDIsSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{targets: oneTarget, answers: map[string][]string{"up{": {"job=tikv,instance=a:20180 1"}, "pd_scheduler_store_status": {"address=a:20160,store=1 1"}}}
		e := newExporter(t, f, "", log.NewNopLogger())
		const named, nameless = `operator_store_up{address="a:20160",cluster="c",store_id="1"} 1`, `operator_store_up{address="a:20180",cluster="c",store_id=""} 1`
		for hour, want := range []string{named, named, named, nameless} {
			scrape(t.Context(), t, e)
			synctest.Wait()
			if got := page(t, scrape(t.Context(), t, e)); got != want {
				t.Errorf("%d h after PD's last word: got %s, want %s", hour, got, want)
			}
			f.answers["pd_scheduler_store_status"] = nil
			time.Sleep(interval)
		}
	})
}

func TestThePDThatIsGoneIsBelievedAndItsAgeTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		f := &fake{targets: oneTarget, answers: map[string][]string{"up{": {"job=tikv,instance=a:20180 1"}}, pd: fakePD{stores: []storematch.Store{{ID: "1", Address: "a:20160"}}}}
		e := newExporter(t, f, "  pd: {url: http://pd}\n", log.NewLogfmtLogger(&out))
		told := time.Now()
		scrape(t.Context(), t, e)
		f.pd = fakePD{err: &httpclient.Error{Reason: httpclient.ReasonConnection, Request: "GET http://pd", Err: errors.New("connection refused")}}
		time.Sleep(interval)
		scrape(t.Context(), t, e)
		synctest.Wait()
		c := scrape(t.Context(), t, e)
		if got, want := page(t, c), `operator_store_up{address="a:20160",cluster="c",store_id="1"} 1`; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		if err := testutil.CollectAndCompare(c, strings.NewReader(fmt.Sprintf(`
# HELP operator_store_exporter_stores_timestamp_seconds When PD last told the stores that are in use, as a Unix time.
# TYPE operator_store_exporter_stores_timestamp_seconds gauge
operator_store_exporter_stores_timestamp_seconds{cluster="c"} %d
`, told.Unix())), "operator_store_exporter_stores_timestamp_seconds"); err != nil {
			t.Error(err)
		}
		if got := lines(t, c, "operator_store_exporter_upstream_up"); !slices.Equal(got, []string{`operator_store_exporter_upstream_up{cluster="c"} 1`}) {
			t.Errorf("got %q: PD is not upstream", got)
		}
		for _, word := range []string{"GET http://pd", "connection refused", "stores that PD told 1h0m0s ago stay in use"} {
			if !strings.Contains(out.String(), word) {
				t.Errorf("the log lacks %q:\n%s", word, out.String())
			}
		}
	})
}

// An upstream that does not tell where its pages are takes nothing from a report, and not its time.
func TestReportTellsWhereUpstreamsPagesAre(t *testing.T) {
	for _, tc := range []struct {
		name, want string
		change     func(*fake)
	}{
		{"it is told", "http://people", func(*fake) {}},
		{"it is refused", "", func(f *fake) { f.fails = map[string]error{"flags": errors.New("no")} }},
		{"it never comes", "", func(f *fake) { f.block = map[string]chan struct{}{"flags": nil} }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := &fake{known: true}
			tc.change(f)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			began := time.Now()
			reports, err := newExporter(t, f, "", log.NewNopLogger()).Report(ctx)
			if err != nil || len(reports) != 1 || reports[0].ExternalURL != tc.want || reports[0].ActiveServer != "http://a" {
				t.Errorf("%v: %+v, want that its pages are at %q", err, reports, tc.want)
			}
			if took := time.Since(began); took > 20*time.Second {
				t.Errorf("it took %s", took)
			}
		})
	}
	if _, err := newExporter(t, &fake{}, "", log.NewNopLogger()).Report(t.Context(), "d"); err == nil {
		t.Error("there is a report of a cluster that there is not")
	}
}

func TestScrapeOfAClusterThatThereIsNot(t *testing.T) {
	e := newExporter(t, &fake{}, "", log.NewNopLogger())
	if _, err := e.Scrape(t.Context(), "d"); err == nil || !strings.Contains(err.Error(), `no cluster "d": there are ["c"]`) {
		t.Errorf("the error is %v", err)
	}
}

// Every gauge of a store is in the table once, with all that the documentation needs.
func TestTheTableIsComplete(t *testing.T) {
	names := map[string]bool{}
	for _, g := range gauge.Builtin() {
		if names[g.Name] || g.Help == "" || g.AbsentWhen == "" || !strings.HasPrefix(g.Name, "operator_store_") {
			t.Errorf("bad row %+v", g)
		}
		names[g.Name] = true
	}
	if len(names) != 14 {
		t.Errorf("the gauges are %q", slices.Sorted(maps.Keys(names)))
	}
}
