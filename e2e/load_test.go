// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/operator-store/operator_store_exporter/e2e/oracle"
)

// A thousand reloads while others scrape: each page is whole, and of one configuration alone.
func TestReloadUnderLoad(t *testing.T) {
	const stores = 3
	upstream := serve(t, oracle.Oracle{Stores: stores})
	one := "clusters:\n- name: %s\n  upstream: {url: " + upstream + "}\n"
	good := []string{
		fmt.Sprintf(one, "a"),
		fmt.Sprintf(one, "b") + "  rate_window: 5m\n",
		fmt.Sprintf(one, "a") + fmt.Sprintf(one, "c")[len("clusters:\n"):],
		strings.Replace(fmt.Sprintf(one, "b"), "url:", "timeout: 9s, url:", 1), // Of which nothing is known yet.
	}
	sets := [][]string{{"a"}, {"b"}, {"a", "c"}}
	file := writeFile(t, "config.yml", good[0])
	exporter, log := startExporter(t, "--config.file="+file, "--web.enable-lifecycle", "--discovery.interval=50ms")

	var scrapes atomic.Int64
	done := make(chan struct{})
	var scrapers sync.WaitGroup
	for range 4 {
		scrapers.Go(func() {
			for !closed(done) {
				body, err := get(t.Context(), http.MethodGet, exporter+"/metrics", http.StatusOK)
				if err != nil {
					t.Error(err)
					return
				}
				verdict, err := oracle.Check(bytes.NewReader(body), map[string]int{"a": stores, "b": stores, "c": stores})
				if err != nil || len(verdict.Wrong) > 0 || verdict.Absent > 0 {
					t.Errorf("%v: %q, %d gauges absent", err, verdict.Wrong, verdict.Absent)
					return
				}
				if !slices.ContainsFunc(sets, func(s []string) bool { return slices.Equal(s, verdict.Clusters) }) {
					t.Errorf("a page has the clusters %q", verdict.Clusters)
					return
				}
				scrapes.Add(1)
			}
		})
	}
	for i := range 1000 {
		content, want := good[i%len(good)], http.StatusOK
		if i%5 == 4 {
			content, want = "clusters:\n- name: [\n", http.StatusInternalServerError
		}
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		body, err := get(t.Context(), http.MethodPost, exporter+"/-/reload", want)
		if err != nil || want != http.StatusOK && !strings.Contains(string(body), "config.yml:3") {
			t.Fatalf("reload %d: %v: %s", i, err, body)
		}
	}
	close(done)
	scrapers.Wait()
	if scrapes.Load() < 10 {
		t.Errorf("only %d scrapes in a thousand reloads", scrapes.Load())
	}
	if lines := log.matching("level=warn"); len(lines) > 0 {
		t.Errorf("the log says %q", lines)
	}
}

func closed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// A thousand scrapes, most of them with a fault: neither memory nor goroutines grow.
func TestNothingIsLeftBehind(t *testing.T) {
	// With 10, the heap at which the next garbage collection starts is the live heap and a tenth of it.
	t.Setenv("GOGC", "10")
	const stores = 3
	whole := oracle.Oracle{Stores: stores}
	answers := []http.Handler{
		whole,
		answerWith(500, "<html>oops</html>"),
		answerWith(200, "<html>log in</html>"),
		http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }),
		http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 200<<10)) }), // Over the limit.
		redirect("http://127.0.0.1:1/"),
		answerWith(422, `{"status":"error","errorType":"execution","error":"no"}`),
		answerWith(200, `{"status":"success","data":{"resultType":"matrix","result":[]}}`),
	}
	var round atomic.Int64
	upstream := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answers[round.Load()%int64(len(answers))].ServeHTTP(w, r)
	}))
	exporter, _ := startExporter(t, "--discovery.interval=1ms", "--config.file="+writeFile(t, "config.yml",
		"clusters:\n- name: a\n  upstream: {url: "+upstream+", body_size_limit: 100KB}\n"))
	const heap, goroutines = "go_memstats_next_gc_bytes", "go_goroutines"
	early, late := page{}, page{}
	for i := range 1000 {
		round.Store(int64(i))
		body, err := get(t.Context(), http.MethodGet, exporter+"/metrics", http.StatusOK)
		if err != nil {
			t.Fatal(err)
		}
		if verdict, err := oracle.Check(bytes.NewReader(body), map[string]int{"a": stores}); err != nil || len(verdict.Wrong) > 0 {
			t.Fatalf("scrape %d: %v: %q", i, err, verdict.Wrong)
		}
		p, err := parsePage(bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case i >= 150 && i < 250:
			early.keepLowest(p, heap, goroutines)
		case i >= 900:
			late.keepLowest(p, heap, goroutines)
		}
	}
	t.Logf("the heap grew from %g to %g bytes, the goroutines from %g to %g", early[heap], late[heap], early[goroutines], late[goroutines])
	if late[heap]-early[heap] > 2<<20 {
		t.Errorf("the heap grew from %g to %g bytes", early[heap], late[heap])
	}
	if late[goroutines]-early[goroutines] > 10 {
		t.Errorf("the goroutines grew from %g to %g", early[goroutines], late[goroutines])
	}
}

// keepLowest sets the named series to their values on another page if these are lower.
func (p page) keepLowest(other page, names ...string) {
	for _, name := range names {
		if v, ok := p[name]; !ok || other[name] < v {
			p[name] = other[name]
		}
	}
}
