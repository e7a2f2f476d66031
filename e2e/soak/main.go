// SPDX-License-Identifier: Apache-2.0

// Command soak scrapes the exporter with many scrapers while its upstream fails at random and its
// configuration is reloaded, and checks every gauge. It exits with status 1 if one is wrong.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/rs/zerolog"

	"github.com/operator-store/operator_store_exporter/e2e/oracle"
	"github.com/operator-store/operator_store_exporter/e2e/stack"
)

func main() {
	var s soak
	flag.DurationVar(&s.duration, "duration", 5*time.Minute, "Duration of the soak.")
	flag.IntVar(&s.scrapers, "scrapers", 50, "Number of concurrent scrapers.")
	flag.IntVar(&s.stores, "stores", 300, "Number of stores.")
	flag.StringVar(&s.exporter, "exporter", "./operator_store_exporter", "Path of the exporter.")
	flag.Uint64Var(&s.seed, "seed", 1, "Seed of the random faults.")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := s.run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

type soak struct {
	duration         time.Duration
	scrapers, stores int
	exporter         string
	seed             uint64

	url    string // Of the exporter.
	oracle oracle.Oracle
	proxy  *toxiproxy.Proxy // Between the exporter and the oracle.
	broken atomic.Value     // How the oracle responds: one of the faults, or "" if it is healthy.

	// Between these times, stores vanish and return.
	disturbedFrom, disturbedUntil atomic.Int64 // Unix times in ms.

	mu       sync.Mutex
	scrapes  int
	complete int // Pages with every gauge.
	present  int // Gauges that were there and right.
	absent   int // Gauges that were absent because a query failed.
	down     int // Stores that were down, as upstream reported.
	vanished int // Stores that upstream did not know.
	failed   []string
	wrong    []string
	slowest  time.Duration
	faults   map[string]int
	reloads  map[string]int
}

// The configurations between which reloads switch. The last one is invalid.
var configs = []string{
	"clusters:\n- name: a\n  upstream: {url: %[1]q}\n",
	"clusters:\n- name: a\n  upstream: {url: %[1]q, timeout: 5s}\n  rate_window: 5m\n",
	"clusters:\n- name: b\n  upstream: {url: %[1]q}\n- name: c\n  upstream: {url: %[1]q}\n  rate_window: 2m\n",
	"clusters:\n- name: [%[1]q\n",
}

// The clusters of each valid configuration.
var clusterSets = [][]string{{"a"}, {"b", "c"}}

// The faults of the oracle.
const (
	faultStatus500   = "status 500"
	faultNotJSON     = "not JSON"
	faultHalfRefused = "half refused"
	faultNoServer    = "no server"
)

// The faults that come and go, by name: toxics of toxiproxy, or "" for a fault of the oracle.
var faults = map[string]string{
	"slow":           `{"name":"x","type":"latency","attributes":{"latency":300,"jitter":300}}`,
	"very slow":      `{"name":"x","type":"latency","attributes":{"latency":4000}}`,
	"black hole":     `{"name":"x","type":"timeout","attributes":{"timeout":0}}`,
	"cut off":        `{"name":"x","type":"limit_data","attributes":{"bytes":20000}}`,
	"low bandwidth":  `{"name":"x","type":"bandwidth","attributes":{"rate":400}}`,
	"small pieces":   `{"name":"x","type":"slicer","attributes":{"average_size":500,"size_variation":100,"delay":100}}`,
	faultStatus500:   "",
	faultNotJSON:     "",
	faultHalfRefused: "",
	faultNoServer:    "",
}

func (s *soak) run(ctx context.Context) error {
	zerolog.SetGlobalLevel(zerolog.Disabled) // Some toxics of toxiproxy have their own logger.
	s.faults, s.reloads = map[string]int{}, map[string]int{}
	upstream, err := s.startUpstream(ctx)
	if err != nil {
		return err
	}
	defer upstream.Close()

	dir, err := os.MkdirTemp("", "soak")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	file := filepath.Join(dir, "config.yml")
	if err := s.configure(file, 0); err != nil {
		return err
	}
	exporter, err := stack.Start(ctx, "exporter", exec.CommandContext(ctx, s.exporter,
		"--web.listen-address=127.0.0.1:0", "--config.file="+file, "--discovery.interval=5s", "--web.max-requests=100"))
	if err != nil {
		return err
	}
	defer func() { _ = exporter.Kill() }()
	s.url = exporter.URL
	if err := s.waitForCompletePage(ctx); err != nil {
		return err
	}

	start := s.ownMetrics(ctx)
	fmt.Printf("%d scrapers, %d stores, %s, seed %d\n", s.scrapers, s.stores, s.duration, s.seed)
	s.disturb(ctx, exporter, file)
	if err := ctx.Err(); err != nil {
		return err
	}
	s.heal(ctx)
	if err := errors.Join(
		s.configure(file, 0), exporter.Signal(syscall.SIGHUP), s.waitForCompletePage(ctx),
	); err != nil {
		return err
	}

	return s.report(start, s.ownMetrics(ctx))
}

// disturb scrapes for the duration of the soak while faults come and go and the configuration is
// reloaded.
func (s *soak) disturb(ctx context.Context, exporter *stack.Process, file string) {
	ctx, cancel := context.WithTimeout(ctx, s.duration)
	defer cancel()
	// In the future, because upstream has responded for the present.
	s.disturbedFrom.Store(time.Now().Add(time.Second).UnixMilli())
	s.disturbedUntil.Store(math.MaxInt64)
	defer func() { s.disturbedUntil.Store(time.Now().UnixMilli()) }()

	var all sync.WaitGroup
	for i := range s.scrapers {
		all.Go(func() { s.scrape(ctx, rand.New(rand.NewPCG(s.seed, uint64(i)))) })
	}
	all.Go(func() { s.injectFaults(ctx, rand.New(rand.NewPCG(s.seed, 1000))) })
	all.Go(func() { s.reload(ctx, exporter, file, rand.New(rand.NewPCG(s.seed, 2000))) })
	all.Wait()
}

// startUpstream starts the oracle with toxiproxy in front of it.
func (s *soak) startUpstream(ctx context.Context) (io.Closer, error) {
	s.broken.Store("")
	s.oracle = oracle.Oracle{Stores: s.stores, Condition: s.condition}
	respond := func(w http.ResponseWriter, r *http.Request) {
		fault := s.broken.Load()
		switch {
		case fault == faultStatus500, fault == faultHalfRefused && len(r.FormValue("query"))%2 == 0:
			http.Error(w, "out of order", http.StatusInternalServerError)
		case fault == faultNotJSON:
			fmt.Fprint(w, "<html>log in</html>")
		default:
			s.oracle.ServeHTTP(w, r)
		}
	}

	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}

	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(respond)}
	go func() { _ = server.Serve(listener) }() // It ends with Close.

	proxies := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(prometheus.NewRegistry()), zerolog.Nop())
	s.proxy = toxiproxy.NewProxy(proxies, "upstream", "127.0.0.1:0", listener.Addr().String())

	return server, s.proxy.Start()
}

// condition returns the condition of a store at a time. Every tenth store vanishes, and is down for
// a while, once in 40 seconds.
func (s *soak) condition(store int, at time.Time) oracle.Condition {
	ms := at.UnixMilli()
	if store%10 != 3 || ms < s.disturbedFrom.Load() || ms > s.disturbedUntil.Load() {
		return oracle.Healthy
	}

	switch second := (at.Unix() + int64(store)) % 40; {
	case second < 10:
		return oracle.Vanished
	case second >= 20 && second < 25:
		return oracle.Down
	default:
		return oracle.Healthy
	}
}

// configure replaces the configuration by another one.
func (s *soak) configure(file string, n int) error {
	content := fmt.Sprintf(configs[n], "http://"+s.proxy.Listen)
	if err := os.WriteFile(file+".new", []byte(content), 0o600); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}

// waitForCompletePage waits until a page has every gauge of every store.
func (s *soak) waitForCompletePage(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()

	want := s.stores * len(oracle.Gauges(0, time.Now()))
	return stack.Until(ctx, "a complete page", func(ctx context.Context) (bool, error) {
		verdict, _, err := s.page(ctx, 10*time.Second)
		return err == nil && verdict.Absent == 0 && len(verdict.Wrong) == 0 && verdict.Present == want, err
	})
}

// page scrapes and checks a page. It returns how long that took.
func (s *soak) page(ctx context.Context, timeout time.Duration) (oracle.Verdict, time.Duration, error) {
	body, duration, err := s.get(ctx, timeout)
	if err != nil {
		return oracle.Verdict{}, duration, err
	}
	verdict, err := s.oracle.Check(bytes.NewReader(body), map[string]int{"a": s.stores, "b": s.stores, "c": s.stores})
	return verdict, duration, err
}

// get gets a page as a Prometheus does that closes the connection after timeout.
func (s *soak) get(ctx context.Context, timeout time.Duration) ([]byte, time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+"/metrics", nil)
	if err != nil {
		return nil, 0, err
	}
	req.Header.Set("X-Prometheus-Scrape-Timeout-Seconds", fmt.Sprint(timeout.Seconds()))
	req.Header.Set("Accept-Encoding", "identity") // All processes share few cores.

	start := time.Now()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, time.Since(start), err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New(resp.Status)
	}
	return body, time.Since(start), err
}

// scrape scrapes at random times until ctx ends.
func (s *soak) scrape(ctx context.Context, random *rand.Rand) {
	for pause(ctx, time.Duration(random.IntN(10_000))*time.Millisecond) {
		timeout := time.Duration(3+random.IntN(8)) * time.Second
		verdict, duration, err := s.page(ctx, timeout)
		if ctx.Err() != nil {
			return
		}
		s.record(verdict, duration, timeout, err)
	}
}

// record adds the result of a scrape to the totals.
func (s *soak) record(verdict oracle.Verdict, duration, timeout time.Duration, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()

	s.scrapes++
	s.present += verdict.Present
	s.absent += verdict.Absent
	s.down += verdict.Down
	s.vanished += verdict.Vanished

	s.wrong = append(s.wrong, verdict.Wrong...)
	s.slowest = max(s.slowest, duration)
	isCurrent := func(clusters []string) bool { return slices.Equal(clusters, verdict.Clusters) }
	switch {
	case err != nil:
		s.failed = append(s.failed, fmt.Sprintf("after %s of %s: %s", duration.Round(time.Millisecond), timeout, err))
	case !slices.ContainsFunc(clusterSets, isCurrent):
		s.wrong = append(s.wrong, fmt.Sprintf("a page has clusters of two configurations: %q", verdict.Clusters))
	case verdict.Absent == 0:
		s.complete++
	}
}

// injectFaults lets one random fault after another come and go until ctx ends.
func (s *soak) injectFaults(ctx context.Context, random *rand.Rand) {
	names := slices.Sorted(maps.Keys(faults))
	for pause(ctx, time.Duration(500+random.IntN(2500))*time.Millisecond) {
		name := names[random.IntN(len(names))]
		s.mu.Lock()
		s.faults[name]++
		s.mu.Unlock()

		switch {
		case faults[name] != "":
			if _, err := s.proxy.Toxics.AddToxicJson(strings.NewReader(faults[name])); err != nil {
				panic(err) // The table has an invalid toxic.
			}
		case name == faultNoServer:
			s.proxy.Stop()
		default:
			s.broken.Store(name)
		}
		pause(ctx, time.Duration(500+random.IntN(4000))*time.Millisecond)
		s.heal(context.WithoutCancel(ctx))
	}
}

// heal ends all faults.
func (s *soak) heal(ctx context.Context) {
	s.broken.Store("")
	s.proxy.Toxics.ResetToxics(ctx)
	_ = s.proxy.Start() // It fails if the proxy runs already.
}

// reload reloads a random configuration at random times until ctx ends.
func (s *soak) reload(ctx context.Context, exporter *stack.Process, file string, random *rand.Rand) {
	for pause(ctx, time.Duration(500+random.IntN(3000))*time.Millisecond) {
		n := random.IntN(len(configs))
		if err := errors.Join(s.configure(file, n), exporter.Signal(syscall.SIGHUP)); err != nil {
			panic(err)
		}

		kind := "valid"
		if n == len(configs)-1 {
			kind = "invalid"
		}
		s.mu.Lock()
		s.reloads[kind]++
		s.mu.Unlock()
	}
}

// pause waits. It returns false if ctx has ended.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// ownMetrics returns the exporter's metrics about itself, or nil if the page cannot be read.
func (s *soak) ownMetrics(ctx context.Context) map[string]float64 {
	body, _, err := s.get(ctx, 10*time.Second)
	if err != nil {
		return nil
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(body))
	if err != nil {
		return nil
	}

	values := map[string]float64{}
	for name, f := range families {
		for _, m := range f.Metric {
			values[name] += m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	return values
}

// report prints the totals. The error has the first wrong gauges and failed scrapes.
func (s *soak) report(start, end map[string]float64) error {
	mib := func(name string) string {
		return fmt.Sprintf("%.1f MiB → %.1f MiB", start[name]/(1<<20), end[name]/(1<<20))
	}
	growth := func(name string) string { return fmt.Sprintf("%g → %g", start[name], end[name]) }
	cpu := end["process_cpu_seconds_total"] - start["process_cpu_seconds_total"]

	fmt.Println()

	for _, row := range []struct {
		title string
		value any
	}{
		{"scrapes", s.scrapes},
		{"… with every gauge of every store", s.complete},
		{"… that failed or timed out", len(s.failed)},
		{"gauges checked", s.present},
		{"gauges absent because a query failed", s.absent},
		{"stores down, as upstream reported", s.down},
		{"stores not monitored", s.vanished},
		{"wrong answers", len(s.wrong)},
		{"slowest scrape", s.slowest.Round(time.Millisecond)},
		{"faults", s.faults},
		{"reloads", s.reloads},
		{"heap in use", mib("go_memstats_heap_inuse_bytes")},
		{"resident memory", mib("process_resident_memory_bytes")},
		{"CPU time of the exporter", fmt.Sprintf("%.1f s", cpu)},
		{"goroutines", growth("go_goroutines")},
		{"open files", growth("process_open_fds")},
	} {
		fmt.Printf("%-36s %v\n", row.title, row.value)
	}

	var errs []error
	for _, list := range [][]string{s.wrong, s.failed} {
		for _, l := range list[:min(len(list), 10)] {
			errs = append(errs, errors.New(l))
		}
	}
	if s.down == 0 || s.vanished == 0 {
		errs = append(errs, errors.New("no store was down, or none vanished"))
	}

	return errors.Join(errs...)
}
