// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/operator-store/operator_store_exporter/e2e/oracle"
)

// During a thousand reloads, each page is complete and of one configuration only.
func TestReloadUnderLoad(t *testing.T) {
	const stores = 3
	upstream := serve(t, oracle.Oracle{Stores: stores})
	cluster := func(name, fields string) string {
		return fmt.Sprintf("- name: %s\n  upstream: {url: %s}\n%s", name, upstream, fields)
	}
	configs := []string{
		"clusters:\n" + cluster("a", ""),
		"clusters:\n" + cluster("b", "  rate_window: 5m\n"),
		"clusters:\n" + cluster("a", "") + cluster("c", ""),
		// The targets of an upstream with another timeout are not known yet.
		"clusters:\n" + fmt.Sprintf("- name: b\n  upstream: {timeout: 9s, url: %s}\n", upstream),
	}
	clusterSets := [][]string{{"a"}, {"b"}, {"a", "c"}}
	const invalid, place = "clusters:\n- name: [\n", "config.yml:3"

	file := writeFile(t, "config.yml", configs[0])
	exporter := startExporter(t, "--config.file="+file, "--web.enable-lifecycle", "--discovery.interval=50ms")

	var done atomic.Bool
	var scrapes atomic.Int64
	var scrapers sync.WaitGroup
	for range 4 {
		scrapers.Go(func() {
			for !done.Load() {
				if !checkPageUnderLoad(t, exporter, stores, clusterSets) {
					return
				}
				scrapes.Add(1)
			}
		})
	}

	for i := range 1000 {
		content, want := configs[i%len(configs)], http.StatusOK
		if i%5 == 4 {
			content, want = invalid, http.StatusInternalServerError
		}
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		body, err := get(t.Context(), http.MethodPost, exporter.URL+"/-/reload", want)
		if err != nil || content == invalid && !strings.Contains(string(body), place) {
			t.Fatalf("reload %d: %v: %s", i, err, body)
		}
	}
	done.Store(true)
	scrapers.Wait()

	if scrapes.Load() < 10 {
		t.Errorf("there were %d scrapes during a thousand reloads, want at least 10", scrapes.Load())
	}
	if warnings := exporter.log.warnings(t); len(warnings) > 0 {
		t.Errorf("the log has warnings, want none:\n%s", joinLines(warnings))
	}
}

// checkPageUnderLoad scrapes a page and reports whether it is complete and has the clusters of one
// configuration.
func checkPageUnderLoad(t *testing.T, e *exporter, stores int, clusterSets [][]string) bool {
	t.Helper()

	body, err := get(t.Context(), http.MethodGet, e.URL+"/metrics", http.StatusOK)
	if err != nil {
		t.Error(err)
		return false
	}
	verdict, err := oracle.Check(bytes.NewReader(body), map[string]int{"a": stores, "b": stores, "c": stores})
	if err != nil || len(verdict.Wrong) > 0 || verdict.Absent > 0 {
		t.Errorf("error %v, wrong gauges %q, %d gauges absent", err, verdict.Wrong, verdict.Absent)
		return false
	}
	isCurrent := func(clusters []string) bool { return slices.Equal(clusters, verdict.Clusters) }
	if !slices.ContainsFunc(clusterSets, isCurrent) {
		t.Errorf("a page has the clusters %q, want those of one configuration", verdict.Clusters)
		return false
	}
	return true
}

// After a thousand scrapes, most of them with a fault, neither the heap nor the number of
// goroutines has grown.
func TestNoLeaks(t *testing.T) {
	t.Parallel()
	const stores = 3
	responses := []http.Handler{
		oracle.Oracle{Stores: stores},
		respondWith(http.StatusInternalServerError, "<html>oops</html>"),
		respondWith(http.StatusOK, "<html>log in</html>"),
		http.HandlerFunc(closeConnection),
		respondWith(http.StatusOK, strings.Repeat("\x00", 200<<10)), // More than body_size_limit.
		redirect("http://127.0.0.1:1/"),
		respondWith(http.StatusUnprocessableEntity, `{"status":"error","errorType":"execution","error":"no"}`),
		respondWith(http.StatusOK, `{"status":"success","data":{"resultType":"matrix","result":[]}}`),
	}
	var scrapes atomic.Int64
	upstream := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		responses[scrapes.Load()%int64(len(responses))].ServeHTTP(w, r)
	}))
	config := "clusters:\n- name: a\n  upstream: {url: " + upstream + ", body_size_limit: 100KB}\n"
	// With this value of GOGC, the heap at which the next garbage collection starts is little more
	// than the live heap.
	exporter := startExporterWith(t, []string{"GOGC=10"},
		"--config.file="+writeFile(t, "config.yml", config), "--discovery.interval=1ms")

	const heap, goroutines = "go_memstats_next_gc_bytes", "go_goroutines"
	early, late := page{}, page{}
	for i := range 1000 {
		scrapes.Store(int64(i))
		body, err := get(t.Context(), http.MethodGet, exporter.URL+"/metrics", http.StatusOK)
		if err != nil {
			t.Fatal(err)
		}
		verdict, err := oracle.Check(bytes.NewReader(body), map[string]int{"a": stores})
		if err != nil || len(verdict.Wrong) > 0 {
			t.Fatalf("scrape %d: error %v, wrong gauges %q", i, err, verdict.Wrong)
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

	t.Logf("heap: %g to %g bytes, goroutines: %g to %g", early[heap], late[heap], early[goroutines], late[goroutines])
	if early[heap] == 0 || late[heap]-early[heap] > 2<<20 {
		t.Errorf("the heap grew from %g to %g bytes", early[heap], late[heap])
	}
	if early[goroutines] == 0 || late[goroutines]-early[goroutines] > 10 {
		t.Errorf("the goroutines grew from %g to %g", early[goroutines], late[goroutines])
	}
}

// keepLowest sets each named series to its value on another page if that is lower, or the first
// value.
func (p page) keepLowest(other page, names ...string) {
	for _, name := range names {
		if v, ok := p[name]; !ok || other[name] < v {
			p[name] = other[name]
		}
	}
}

// On SIGTERM a scrape that is under way finishes with every gauge, and the exporter exits with
// status 0.
func TestSIGTERM(t *testing.T) {
	t.Parallel()
	upstream := startFleet(t, 1)
	queried, gate := make(chan struct{}), make(chan struct{})
	var once sync.Once
	p := startProxy(t, upstream.URL, func(form url.Values) http.HandlerFunc {
		if strings.HasPrefix(form.Get("query"), "up{") {
			once.Do(func() { close(queried) })
			<-gate
		}
		return nil
	})
	exporter := startExporter(t, "--upstream.url="+p.url)

	var got page
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		got, err = tryScrape(t.Context(), exporter.URL+"/metrics", time.Minute)
	}()
	<-queried
	if err := exporter.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	exporter.log.waitFor(t, shutdownMessage)
	close(gate)

	<-done
	if err != nil {
		t.Fatal(err)
	}
	got.requireComplete(t, 1)
	<-exporter.Exited()
	if err := exporter.Stop(); err != nil {
		t.Errorf("the exporter ended with %v, want exit status 0:\n%s", err, exporter.Log())
	}
}
