// SPDX-License-Identifier: Apache-2.0

package collector_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-kit/log"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/operator-store/operator_store_exporter/collector"
	"github.com/operator-store/operator_store_exporter/config"
	"github.com/operator-store/operator_store_exporter/internal/httpclient"
	"github.com/operator-store/operator_store_exporter/internal/storematch"
)

// No matcher is larger than what every upstream looks up as a set, whatever the names; every target is asked about
// exactly once by every query.
func TestQueriesStayWithinBounds(t *testing.T) {
	for _, tc := range []struct {
		name    string
		targets int
		target  func(int) labels.Labels
		chunks  int
	}{
		{"a full one", 250, func(i int) labels.Labels { return target("tikv", fmt.Sprintf("t%d", i)) }, 1},
		{"one more", 251, func(i int) labels.Labels { return target("tikv", fmt.Sprintf("t%d", i)) }, 2},
		{"many jobs", 251, func(i int) labels.Labels { return target(fmt.Sprintf("j%d", i), fmt.Sprintf("t%d", i)) }, 2},
		{"long names", 100, func(i int) labels.Labels { return target("tikv", fmt.Sprintf("%0500d", i)) }, 5},
		{"names of dots, each of three bytes when it is escaped", 100, func(i int) labels.Labels { return target("tikv", fmt.Sprintf("%s%03d", strings.Repeat(".", 200), i)) }, 6},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := &fake{}
			for i := range tc.targets {
				f.targets = append(f.targets, tc.target(i))
			}
			scrape(t.Context(), t, newExporter(t, f, "", log.NewNopLogger()))
			asked := map[string]int{} // By metric and instance.
			queries := 0
			for _, e := range f.asked {
				if !strings.Contains(e, "instance") || !strings.Contains(e, "rate(tikv_storage_command_total") {
					continue
				}
				queries++
				for _, s := range selectors(t, e) {
					for _, m := range s.LabelMatchers {
						values := strings.Split(m.Value, "|")
						if len(values) > 250 || len(m.String()) > 12_100 {
							t.Errorf("%s has %d values in %d bytes", m.Name, len(values), len(m.String()))
						}
						for _, v := range values {
							if m.Name == "instance" {
								asked[v]++
							}
						}
					}
				}
			}
			if queries != tc.chunks {
				t.Errorf("%d queries, want %d", queries, tc.chunks)
			}
			for _, target := range f.targets {
				if n := asked[regexp.QuoteMeta(target.Get("instance"))]; n != 1 {
					t.Fatalf("%s was asked about %d times", target.Get("instance"), n)
				}
			}
		})
	}
}

// target are the labels of a target's series.
func target(job, instance string) labels.Labels {
	return labels.FromStrings("job", job, "instance", instance)
}

func selectors(t *testing.T, expression string) []*parser.VectorSelector {
	t.Helper()
	root, err := parser.NewParser(parser.Options{}).ParseExpr(expression)
	if err != nil {
		t.Fatal(err)
	}
	var all []*parser.VectorSelector
	parser.Inspect(root, func(n parser.Node, _ []parser.Node) error {
		if s, ok := n.(*parser.VectorSelector); ok {
			all = append(all, s)
		}
		return nil
	})
	return all
}

// The matchers of two chunks may fit each other's targets: an answer then holds series that the other one has too.
func TestChunksThatFitEachOthersTargets(t *testing.T) {
	f := &fake{answers: map[string][]string{}}
	for i := range 251 {
		for _, namespace := range []string{"a", "b"} {
			f.targets = append(f.targets, labels.FromStrings("job", namespace, "instance", fmt.Sprintf("t%03d", i), "namespace", namespace))
			f.pd.stores = append(f.pd.stores, storematch.Store{ID: strconv.Itoa(len(f.targets)), Address: fmt.Sprintf("t%03d.peer.%s.svc:20160", i, namespace)})
			f.answers["command_total"] = append(f.answers["command_total"], fmt.Sprintf("job=%s,instance=t%03d %d", namespace, i, len(f.targets)))
		}
	}
	c := scrape(t.Context(), t, newExporter(t, f, "  pd: {url: http://pd}\n", log.NewNopLogger()))
	got := page(t, c)
	for i, s := range f.pd.stores {
		if want := fmt.Sprintf(`operator_store_qps{address=%q,cluster="c",store_id="%d"} %d`, s.Address, i+1, i+1); !strings.Contains(got, want) {
			t.Errorf("the page lacks %s", want)
		}
	}
}

func TestQueriesAtOnceAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		f := &fake{}
		for i := range 1000 {
			f.targets = append(f.targets, target("tikv", fmt.Sprintf("t%d", i)))
		}
		e := newExporter(t, f, "", log.NewNopLogger())
		scrape(t.Context(), t, e)
		before := f.count()
		f.block = map[string]chan struct{}{"rate(": gate, "timestamp(": gate, "size_bytes": gate, "quota": gate}
		var done sync.WaitGroup
		done.Go(func() { scrape(t.Context(), t, e) })
		synctest.Wait()
		f.mu.Lock()
		waiting := 0
		for _, expression := range f.asked[before:] {
			if !strings.Contains(expression, "up{") {
				waiting++
			}
		}
		f.mu.Unlock()
		if waiting > 8 || waiting == 0 {
			t.Errorf("%d queries are under way at once, want at most 8", waiting)
		}
		close(gate)
		done.Wait()
		if n := f.count() - before; n != 4*9 {
			t.Errorf("%d queries in all, want 36", n)
		}
	})
}

// What a failed up or last_scrape leaves of the other.
func TestWhetherAStoreIsUp(t *testing.T) {
	const a = "job=tikv,instance=a:20180"
	failed := &httpclient.Error{Reason: httpclient.ReasonHTTP, Err: errors.New("500")}
	for _, tc := range []struct {
		name    string
		answers map[string][]string
		fails   map[string]error
		want    string
	}{
		{"neither fails", map[string][]string{"up{": {a + " 1"}}, nil, "operator_store_qps operator_store_up"},
		{"last_scrape fails and up is there", map[string][]string{"up{": {a + " 1"}}, map[string]error{"timestamp(": failed}, "operator_store_qps operator_store_up"},
		{"last_scrape fails and there is no up", nil, map[string]error{"timestamp(": failed}, "operator_store_qps"},
		{"up fails", nil, map[string]error{"up{": failed}, "operator_store_qps"},
		{"both fail: whether the target is the only one of its identity is not known", nil, map[string]error{"up{": failed, "timestamp(": failed}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := &fake{targets: oneTarget, answers: map[string][]string{"command_total": {a + " 5"}}, fails: tc.fails}
			for word, series := range tc.answers {
				f.answers[word] = series
			}
			var got []string
			for _, line := range strings.Split(page(t, scrape(t.Context(), t, newExporter(t, f, "", log.NewNopLogger()))), "\n") {
				name, _, _ := strings.Cut(line, "{")
				got = append(got, name)
			}
			if strings.Join(got, " ") != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

// A scraper that goes away is no failure of upstream's.
func TestACancelledScrapeCountsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &strings.Builder{}
		f := &fake{targets: oneTarget, answers: map[string][]string{"up{": {"job=tikv,instance=a:20180 1"}}}
		e := newExporter(t, f, "", log.NewLogfmtLogger(out))
		scrape(t.Context(), t, e)
		f.block = map[string]chan struct{}{"command_total": nil}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		var done sync.WaitGroup
		done.Go(func() { scrape(ctx, t, e) })
		synctest.Wait()
		cancel()
		done.Wait()
		f.block = nil
		for _, line := range lines(t, scrape(t.Context(), t, e), "operator_store_exporter_query_failures_total") {
			if !strings.HasSuffix(line, " 0") {
				t.Errorf("counted: %s", line)
			}
		}
		if out.Len() > 0 {
			t.Errorf("the log says %s", out)
		}
	})
}

// After a reload PD is not asked about what it has told: the first scrape has the ids, even if PD is gone by then.
func TestAReloadKeepsWhatPDTold(t *testing.T) {
	for _, tc := range []struct{ name, extra, want string }{
		{"the same PD", "  rate_window: 5m\n  pd: {url: http://pd}\n", `store_id="1"`},
		{"another PD", "  pd: {url: http://other}\n", `store_id=""`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := &fake{targets: oneTarget, answers: map[string][]string{"up{": {"job=tikv,instance=a:20180 1"}}, pd: fakePD{stores: []storematch.Store{{ID: "1", Address: "a:20160"}}}}
			before := newExporter(t, f, "  pd: {url: http://pd}\n", log.NewNopLogger())
			scrape(t.Context(), t, before)
			f.pd = fakePD{err: &httpclient.Error{Reason: httpclient.ReasonConnection, Err: errors.New("connection refused")}}
			cfg, err := config.Load([]byte("clusters:\n- name: c\n  upstream: {url: http://upstream}\n" + tc.extra))
			if err != nil {
				t.Fatal(err)
			}
			after, err := collector.New(cfg, collector.Options{
				Lookback: 2 * interval, Interval: interval, Logger: log.NewNopLogger(), Previous: before,
			}.WithClients(f, &f.pd))
			if err != nil {
				t.Fatal(err)
			}
			defer after.Close()
			if got := page(t, scrape(t.Context(), t, after)); !strings.Contains(got, tc.want) {
				t.Errorf("got %q, want %s in it", got, tc.want)
			}
		})
	}
}

// Whatever a target is called, its store is on the page, and the page can be read.
func TestNamesThatNobodyExpects(t *testing.T) {
	for _, name := range []string{"a\"b:1", "a\nb:1", `a\b:1`, "{}:1", "\xff:1", "é:1", "", "a,b=c:1", "\x00:1"} {
		t.Run(strconv.Quote(name), func(t *testing.T) {
			f := &fake{targets: []labels.Labels{target("tikv", name)}}
			c := scrape(t.Context(), t, newExporter(t, f, "", log.NewNopLogger()))
			text, err := testutil.CollectAndFormat(c, expfmt.TypeTextPlain, "operator_store_up")
			if err != nil {
				t.Fatal(err)
			}
			parser := expfmt.NewTextParser(model.UTF8Validation)
			families, err := parser.TextToMetricFamilies(bytes.NewReader(text))
			if err != nil {
				t.Fatalf("%v:\n%s", err, text)
			}
			metrics := families["operator_store_up"].GetMetric()
			if len(metrics) != 1 || metrics[0].Label[0].GetValue() != strings.ToValidUTF8(name, "\ufffd") {
				t.Errorf("the page has %v", metrics)
			}
		})
	}
}
