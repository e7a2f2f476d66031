// SPDX-License-Identifier: Apache-2.0

package reload_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-kit/log"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"go.uber.org/goleak"

	"github.com/operator-store/operator_store_exporter/collector"
	"github.com/operator-store/operator_store_exporter/config"
	"github.com/operator-store/operator_store_exporter/internal/reload"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	successful = "operator_store_exporter_config_last_reload_successful"
	timestamp  = "operator_store_exporter_config_last_reload_success_timestamp_seconds"
)

// upstream is a Prometheus that scrapes one store. If gate is not nil, queries of the value of up
// wait until it is closed.
type upstream struct {
	*httptest.Server
	gate    chan struct{}
	waiting chan struct{} // Gets a value when a query starts to wait.

	connections atomic.Int64 // Open connections.
}

func newUpstream(t *testing.T, gate chan struct{}) *upstream {
	t.Helper()
	u := &upstream{gate: gate, waiting: make(chan struct{}, 100)}
	u.Server = httptest.NewUnstartedServer(http.HandlerFunc(u.serve))
	u.Config.ConnState = u.countConnections
	u.Start()
	t.Cleanup(u.Close)
	return u
}

func (u *upstream) countConnections(_ net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		u.connections.Add(1)
	case http.StateClosed:
		u.connections.Add(-1)
	}
}

// checkNoConnections fails if a closed exporter leaves connections open.
func (u *upstream) checkNoConnections(t *testing.T) {
	t.Helper()

	const timeout = 5 * time.Second // The server learns of closed connections with a delay.
	for start := time.Now(); u.connections.Load() > 0; time.Sleep(time.Millisecond) {
		if time.Since(start) > timeout {
			t.Fatalf("%d connections are still open after %s, want 0", u.connections.Load(), timeout)
		}
	}
}

func (u *upstream) serve(w http.ResponseWriter, req *http.Request) {
	const target = `{"job": "tikv", "instance": "tikv-0:20180"}`
	query := req.FormValue("query")
	isRange := strings.HasSuffix(query, "]")
	if u.gate != nil && strings.HasPrefix(query, "up{") && !isRange {
		u.waiting <- struct{}{}
		<-u.gate
	}

	w.Header().Set("Content-Type", "application/json")

	now := float64(time.Now().UnixMilli()) / 1000
	switch {
	case strings.HasSuffix(req.URL.Path, "/series"):
		fmt.Fprintf(w, `{"status": "success", "data": [%s]}`, target)
	case isRange: // To learn the scrape interval.
		fmt.Fprintf(w, `{"status": "success", "data": {"resultType": "matrix", "result": [
			{"metric": %s, "values": [[%.3f, "1"], [%.3f, "1"]]}]}}`, target, now-15, now)
	case strings.Contains(query, "pd_"): // This upstream does not scrape PD.
		fmt.Fprint(w, `{"status": "success", "data": {"resultType": "vector", "result": []}}`)
	default:
		fmt.Fprintf(w, `{"status": "success", "data": {"resultType": "vector", "result": [
			{"metric": %s, "value": [%.3f, "1"]}]}}`, target, now)
	}
}

// builder builds an exporter of one cluster, or fails.
type builder struct {
	upstream string
	cluster  string
	err      error

	previous []*collector.Exporter // The argument of each call.
	built    []*collector.Exporter // The result of each successful call.
}

func (b *builder) build(previous *collector.Exporter) (*collector.Exporter, error) {
	b.previous = append(b.previous, previous)
	if b.err != nil {
		return nil, b.err
	}

	cfg, err := config.SingleCluster(b.cluster, b.upstream)
	if err != nil {
		return nil, err
	}
	exporter, err := collector.New(cfg, collector.Options{
		Lookback: time.Hour,
		Interval: time.Hour,
		Logger:   log.NewNopLogger(),
		Previous: previous,
	})
	if err == nil {
		b.built = append(b.built, exporter)
	}
	return exporter, err
}

// harness is a Reloader with everything that it uses.
type harness struct {
	*reload.Reloader
	builder  *builder
	registry *prometheus.Registry
	log      *bytes.Buffer
}

// newHarness returns a Reloader of the cluster "one". The test closes it.
func newHarness(t *testing.T, u *upstream) *harness {
	t.Helper()
	h := &harness{
		builder:  &builder{upstream: u.URL, cluster: "one"},
		registry: prometheus.NewRegistry(),
		log:      &bytes.Buffer{},
	}

	r, err := reload.New(h.builder.build, h.registry, log.NewLogfmtLogger(log.NewSyncWriter(h.log)))
	if err != nil {
		t.Fatal(err)
	}
	h.Reloader = r
	return h
}

// gather returns the gauges of a registry by name.
func gather(t *testing.T, registry *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}

	gauges := map[string]float64{}
	for _, f := range families {
		gauges[f.GetName()] = f.GetMetric()[0].GetGauge().GetValue()
	}
	return gauges
}

// scrapedClusters scrapes r. It returns the clusters of which a store is up.
func scrapedClusters(t *testing.T, r *reload.Reloader) []string {
	t.Helper()
	exporter, release := r.Acquire()
	defer release()
	scraped, err := exporter.Scrape(context.Background())
	if err != nil {
		t.Error(err)
		return nil
	}

	registry := prometheus.NewRegistry()
	registry.MustRegister(scraped)
	families, err := registry.Gather()
	if err != nil {
		t.Error(err)
	}

	var clusters []string
	for _, f := range families {
		if f.GetName() != "operator_store_up" {
			continue
		}

		for _, m := range f.GetMetric() {
			if m.GetGauge().GetValue() == 1 {
				clusters = append(clusters, clusterLabel(m))
			}
		}
	}

	return clusters
}

func clusterLabel(m *dto.Metric) string {
	for _, l := range m.GetLabel() {
		if l.GetName() == "cluster" {
			return l.GetValue()
		}
	}
	return ""
}

// startScrape starts a scrape that waits for the gate of u. It returns the result of
// scrapedClusters.
func startScrape(t *testing.T, r *reload.Reloader, u *upstream) <-chan []string {
	t.Helper()
	clusters := make(chan []string, 1)
	go func() { clusters <- scrapedClusters(t, r) }()

	select {
	case <-u.waiting:
	case got := <-clusters:
		t.Fatalf("the scrape of the clusters %q did not query up", got)
	}
	return clusters
}

// checkClusters checks which clusters r reports and scrapes.
func checkClusters(t *testing.T, r *reload.Reloader, want ...string) {
	t.Helper()
	exporter, release := r.Acquire()
	if got := exporter.Clusters(); !slices.Equal(got, want) {
		t.Errorf("the exporter has the clusters %q, want %q", got, want)
	}
	if got := exporter.Config().Clusters; len(got) != 1 || got[0].Name != want[0] {
		t.Errorf("the configuration is\n%swant the cluster %q", exporter.Config(), want)
	}
	release()
	if got := scrapedClusters(t, r); !slices.Equal(got, want) {
		t.Errorf("a scrape returns stores of the clusters %q, want %q", got, want)
	}
}

func TestFirstConfiguration(t *testing.T) {
	h := newHarness(t, newUpstream(t, nil))
	defer h.Close()

	checkClusters(t, h.Reloader, "one")
	if !slices.Equal(h.builder.previous, []*collector.Exporter{nil}) {
		t.Errorf("the first exporter was built from %v, want nil", h.builder.previous)
	}
	gauges := gather(t, h.registry)
	if gauges[successful] != 1 {
		t.Errorf("%s is %g, want 1", successful, gauges[successful])
	}
	if age := time.Since(time.UnixMilli(int64(gauges[timestamp] * 1000))); age.Abs() > time.Minute {
		t.Errorf("%s is %s ago, want now", timestamp, age)
	}
}

func TestFirstConfigurationFails(t *testing.T) {
	b := &builder{err: errors.New("config.yml:3: invalid duration")}
	registry := prometheus.NewRegistry()

	if _, err := reload.New(b.build, registry, log.NewNopLogger()); !errors.Is(err, b.err) {
		t.Errorf("got the error %v, want %v", err, b.err)
	}
	if gauges := gather(t, registry); gauges[successful] != 0 || gauges[timestamp] != 0 {
		t.Errorf("got the gauges %v, want 0", gauges)
	}
}

func TestReload(t *testing.T) {
	h := newHarness(t, newUpstream(t, nil))
	defer h.Close()
	before := gather(t, h.registry)

	h.builder.cluster = "two"
	if err := h.Reload(); err != nil {
		t.Fatal(err)
	}

	checkClusters(t, h.Reloader, "two")
	if previous := h.builder.previous[1]; previous == nil || previous != h.builder.built[0] {
		t.Error("the second exporter was not built from the first one")
	}
	after := gather(t, h.registry)
	if after[successful] != 1 || after[timestamp] <= before[timestamp] {
		t.Errorf("got the gauges %v after %v, want a later success", after, before)
	}
	if logged := h.log.String(); !strings.Contains(logged, "level=info") {
		t.Errorf("the log is %q, want an info message", logged)
	}
}

func TestFailedReloadKeepsExporter(t *testing.T) {
	h := newHarness(t, newUpstream(t, nil))
	defer h.Close()
	before := gather(t, h.registry)

	h.builder.cluster, h.builder.err = "two", errors.New("config.yml:3: invalid duration")
	if err := h.Reload(); !errors.Is(err, h.builder.err) {
		t.Errorf("got the error %v, want %v", err, h.builder.err)
	}

	checkClusters(t, h.Reloader, "one")
	after := gather(t, h.registry)
	if after[successful] != 0 || after[timestamp] != before[timestamp] {
		t.Errorf("got the gauges %v after %v, want a failure and the old timestamp", after, before)
	}
	logged := h.log.String()
	if !strings.Contains(logged, "level=error") || !strings.Contains(logged, h.builder.err.Error()) {
		t.Errorf("the log is %q, want an error message with the reason", logged)
	}
}

func TestReloadAfterFailedReload(t *testing.T) {
	h := newHarness(t, newUpstream(t, nil))
	defer h.Close()
	h.builder.err = errors.New("config.yml:3: invalid duration")
	if err := h.Reload(); err == nil {
		t.Fatal("got no error")
	}
	before := gather(t, h.registry)

	h.builder.cluster, h.builder.err = "two", nil
	if err := h.Reload(); err != nil {
		t.Fatal(err)
	}

	checkClusters(t, h.Reloader, "two")
	if previous := h.builder.previous[2]; previous == nil || previous != h.builder.built[0] {
		t.Error("the new exporter was not built from the one in use")
	}
	after := gather(t, h.registry)
	if after[successful] != 1 || after[timestamp] <= before[timestamp] {
		t.Errorf("got the gauges %v after %v, want a later success", after, before)
	}
}

func TestScrapeFinishesOnItsConfiguration(t *testing.T) {
	gate := make(chan struct{})
	u := newUpstream(t, gate)
	h := newHarness(t, u)
	defer h.Close()

	clusters := startScrape(t, h.Reloader, u)

	h.builder.cluster = "two"
	if err := h.Reload(); err != nil { // It does not wait for the scrape.
		t.Error(err)
	}
	exporter, release := h.Acquire()
	defer release()
	if got := exporter.Clusters(); !slices.Equal(got, []string{"two"}) {
		t.Errorf("the exporter has the clusters %q, want two", got)
	}

	close(gate)
	if got := <-clusters; !slices.Equal(got, []string{"one"}) {
		t.Errorf("the scrape returned stores of the clusters %q, want one", got)
	}
}

func TestCloseWaitsForScrapes(t *testing.T) {
	for _, tc := range []struct {
		name   string
		reload bool // After the scrape has started.
	}{
		{name: "of the exporter in use"},
		{name: "of a replaced exporter", reload: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			gate := make(chan struct{})
			u := newUpstream(t, gate)
			h := newHarness(t, u)

			clusters := startScrape(t, h.Reloader, u)
			if tc.reload {
				if err := h.Reload(); err != nil {
					t.Error(err)
				}
			}

			var opened atomic.Bool
			time.AfterFunc(50*time.Millisecond, func() {
				opened.Store(true)
				close(gate)
			})
			h.Close()

			if !opened.Load() {
				t.Error("Close returned before the scrape")
			}
			if got := <-clusters; !slices.Equal(got, []string{"one"}) {
				t.Errorf("the scrape returned stores of the clusters %q, want one", got)
			}
		})
	}
}

func TestReloadClosesReplacedExporter(t *testing.T) {
	first, second := newUpstream(t, nil), newUpstream(t, nil)
	h := newHarness(t, first)
	defer h.Close()
	checkClusters(t, h.Reloader, "one")

	h.builder.upstream = second.URL
	if err := h.Reload(); err != nil {
		t.Fatal(err)
	}

	first.checkNoConnections(t)
}

func TestCloseClosesExporter(t *testing.T) {
	u := newUpstream(t, nil)
	h := newHarness(t, u)
	checkClusters(t, h.Reloader, "one")

	h.Close()

	u.checkNoConnections(t)
}

func TestCloseAfterFailedScrape(t *testing.T) {
	h := newHarness(t, newUpstream(t, nil))

	exporter, release := h.Acquire()
	_, err := exporter.Scrape(t.Context(), "two")
	release()
	if err == nil || !strings.Contains(err.Error(), `"two"`) {
		t.Errorf("got the error %v, want one about the unknown cluster", err)
	}

	h.Close() // It does not wait for the failed scrape.
}

func TestConcurrentUse(t *testing.T) {
	const goroutines, count = 4, 10
	h := newHarness(t, newUpstream(t, nil))
	defer h.Close()

	var all sync.WaitGroup
	for range goroutines {
		all.Go(func() {
			for range count {
				if err := h.Reload(); err != nil { // The builder is not safe for concurrent use.
					t.Error(err)
				}
			}
		})
		all.Go(func() {
			for range count {
				if got := scrapedClusters(t, h.Reloader); !slices.Equal(got, []string{"one"}) {
					t.Errorf("a scrape returned stores of the clusters %q, want one", got)
				}
			}
		})
	}
	all.Wait()

	for i, previous := range h.builder.previous[1:] {
		if previous != h.builder.built[i] {
			t.Errorf("exporter %d was not built from exporter %d", i+1, i)
		}
	}
}
