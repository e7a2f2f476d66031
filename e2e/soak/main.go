// SPDX-License-Identifier: Apache-2.0

// Command soak lets many scrapers loose on the exporter while its upstream fails at random and its configuration is
// reloaded, and checks every answer. It exits with 1 if one is wrong.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
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
	flag.DurationVar(&s.duration, "duration", 5*time.Minute, "How long it takes.")
	flag.IntVar(&s.scrapers, "scrapers", 50, "How many scrape at once.")
	flag.IntVar(&s.stores, "stores", 300, "How many stores there are.")
	flag.StringVar(&s.exporter, "exporter", "./operator_store_exporter", "The exporter's binary.")
	flag.Uint64Var(&s.seed, "seed", 1, "Of the random faults.")
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

	url    string
	toxics *toxiproxy.Proxy
	broken sync.Map // "" while upstream itself is well, else the answer's status.

	mu      sync.Mutex
	scrapes int
	whole   int
	answers int
	absent  int
	failed  []string // Pages that did not come.
	wrong   []string
	slowest time.Duration
	faults  map[string]int
	reloads map[string]int
}

// The configurations that take turns. The last one is no configuration.
var configs = []string{
	"clusters:\n- name: a\n  upstream: {url: %[1]q}\n",
	"clusters:\n- name: a\n  upstream: {url: %[1]q, timeout: 5s}\n  rate_window: 5m\n",
	"clusters:\n- name: b\n  upstream: {url: %[1]q}\n- name: c\n  upstream: {url: %[1]q}\n  rate_window: 2m\n",
	"clusters:\n- name: [%[1]q\n",
}

var clusterSets = [][]string{{"a"}, {"b", "c"}}

// The faults that are toggled, by name. They are toxiproxy's; "" is an answer of upstream's own.
var toxics = map[string]string{
	"slow":         `{"name":"x","type":"latency","attributes":{"latency":300,"jitter":300}}`,
	"very slow":    `{"name":"x","type":"latency","attributes":{"latency":4000}}`,
	"black hole":   `{"name":"x","type":"timeout","attributes":{"timeout":0}}`,
	"cut off":      `{"name":"x","type":"limit_data","attributes":{"bytes":20000}}`,
	"narrow":       `{"name":"x","type":"bandwidth","attributes":{"rate":400}}`,
	"in pieces":    `{"name":"x","type":"slicer","attributes":{"average_size":500,"size_variation":100,"delay":100}}`,
	"500":          "",
	"no JSON":      "",
	"no server":    "",
	"half refused": "",
}

func (s *soak) run(ctx context.Context) error {
	zerolog.SetGlobalLevel(zerolog.Disabled) // Some of toxiproxy's toxics log by themselves.
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
	if err := s.settle(ctx); err != nil {
		return err
	}
	start := s.own(ctx)

	running, cancel := context.WithTimeout(ctx, s.duration)
	defer cancel()
	fmt.Printf("%d scrapers, %d stores, %s, seed %d\n", s.scrapers, s.stores, s.duration, s.seed)
	var all sync.WaitGroup
	for i := range s.scrapers {
		all.Go(func() { s.scrape(running, rand.New(rand.NewPCG(s.seed, uint64(i)))) })
	}
	all.Go(func() { s.toggle(running, rand.New(rand.NewPCG(s.seed, 1000))) })
	all.Go(func() { s.reload(running, exporter, file, rand.New(rand.NewPCG(s.seed, 2000))) })
	all.Wait()
	if err := ctx.Err(); err != nil {
		return err
	}
	s.heal(ctx)
	if err := errors.Join(s.configure(file, 0), exporter.Signal(syscall.SIGHUP), s.settle(ctx)); err != nil {
		return err
	}
	return s.report(start, s.own(ctx))
}

// startUpstream starts the oracle with toxiproxy before it.
func (s *soak) startUpstream(ctx context.Context) (io.Closer, error) {
	whole := oracle.Oracle{Stores: s.stores}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fault, _ := s.broken.Load("fault")
		switch {
		case fault == "500", fault == "half refused" && len(r.FormValue("query"))%2 == 0:
			http.Error(w, "out of order", http.StatusInternalServerError)
		case fault == "no JSON":
			fmt.Fprint(w, "<html>log in</html>")
		default:
			whole.ServeHTTP(w, r)
		}
	})}
	go func() { _ = server.Serve(listener) }() // It ends with Close.
	s.toxics = toxiproxy.NewProxy(toxiproxy.NewServer(toxiproxy.NewMetricsContainer(prometheus.NewRegistry()), zerolog.Nop()),
		"upstream", "127.0.0.1:0", listener.Addr().String())
	return server, s.toxics.Start()
}

func (s *soak) configure(file string, n int) error {
	content := fmt.Sprintf(configs[n], "http://"+s.toxics.Listen)
	if err := os.WriteFile(file+".new", []byte(content), 0o600); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}

// settle waits until a page is whole.
func (s *soak) settle(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	return stack.Until(ctx, "a whole page", func(ctx context.Context) (bool, error) {
		verdict, _, err := s.page(ctx, 10*time.Second)
		return err == nil && verdict.Absent == 0 && len(verdict.Wrong) == 0 && verdict.Answers == s.stores*len(oracle.Gauges(0, time.Now())), err
	})
}

// page scrapes as a Prometheus does that hangs up after timeout.
func (s *soak) page(ctx context.Context, timeout time.Duration) (oracle.Verdict, time.Duration, error) {
	body, took, err := s.get(ctx, timeout)
	if err != nil {
		return oracle.Verdict{}, took, err
	}
	verdict, err := oracle.Check(bytes.NewReader(body), map[string]int{"a": s.stores, "b": s.stores, "c": s.stores})
	return verdict, took, err
}

func (s *soak) get(ctx context.Context, timeout time.Duration) ([]byte, time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+"/metrics", nil)
	if err != nil {
		return nil, 0, err
	}
	req.Header.Set("X-Prometheus-Scrape-Timeout-Seconds", fmt.Sprint(timeout.Seconds()))
	start := time.Now()
	req.Header.Set("Accept-Encoding", "identity") // All share two cores.
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

func (s *soak) scrape(ctx context.Context, random *rand.Rand) {
	for pause(ctx, time.Duration(random.IntN(10_000))*time.Millisecond) {
		timeout := time.Duration(3+random.IntN(8)) * time.Second
		verdict, took, err := s.page(ctx, timeout)
		if ctx.Err() != nil {
			return
		}
		s.mu.Lock()
		s.scrapes++
		s.answers += verdict.Answers
		s.absent += verdict.Absent
		s.wrong = append(s.wrong, verdict.Wrong...)
		s.slowest = max(s.slowest, took)
		switch {
		case err != nil:
			s.failed = append(s.failed, fmt.Sprintf("after %s of %s: %s", took.Round(time.Millisecond), timeout, err))
		case !slices.ContainsFunc(clusterSets, func(c []string) bool { return slices.Equal(c, verdict.Clusters) }):
			s.wrong = append(s.wrong, fmt.Sprintf("a page of two configurations: %q", verdict.Clusters))
		case verdict.Absent == 0:
			s.whole++
		}
		s.mu.Unlock()
	}
}

// toggle lets a fault come and go.
func (s *soak) toggle(ctx context.Context, random *rand.Rand) {
	var names []string
	for name := range toxics {
		names = append(names, name)
	}
	slices.Sort(names)
	for pause(ctx, time.Duration(500+random.IntN(2500))*time.Millisecond) {
		name := names[random.IntN(len(names))]
		s.mu.Lock()
		s.faults[name]++
		s.mu.Unlock()
		switch {
		case toxics[name] != "":
			if _, err := s.toxics.Toxics.AddToxicJson(strings.NewReader(toxics[name])); err != nil {
				panic(err) // The table is wrong.
			}
		case name == "no server":
			s.toxics.Stop()
		default:
			s.broken.Store("fault", name)
		}
		pause(ctx, time.Duration(500+random.IntN(4000))*time.Millisecond)
		s.heal(context.WithoutCancel(ctx))
	}
}

func (s *soak) heal(ctx context.Context) {
	s.broken.Delete("fault")
	s.toxics.Toxics.ResetToxics(ctx)
	_ = s.toxics.Start() // It may run.
}

func (s *soak) reload(ctx context.Context, exporter *stack.Process, file string, random *rand.Rand) {
	for pause(ctx, time.Duration(500+random.IntN(3000))*time.Millisecond) {
		n := random.IntN(len(configs))
		if err := errors.Join(s.configure(file, n), exporter.Signal(syscall.SIGHUP)); err != nil {
			panic(err)
		}
		s.mu.Lock()
		s.reloads[map[bool]string{true: "bad", false: "good"}[n == len(configs)-1]]++
		s.mu.Unlock()
	}
}

// pause is false when ctx has ended.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// own are the exporter's metrics about itself.
func (s *soak) own(ctx context.Context) map[string]float64 {
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

func (s *soak) report(start, end map[string]float64) error {
	mib := func(v float64) string { return fmt.Sprintf("%.1f MiB", v/(1<<20)) }
	fmt.Printf("\n%-34s %d\n", "scrapes", s.scrapes)
	fmt.Printf("%-34s %d\n", "… with every gauge of every store", s.whole)
	fmt.Printf("%-34s %d\n", "… that did not come in time", len(s.failed))
	fmt.Printf("%-34s %d\n", "gauges checked", s.answers)
	fmt.Printf("%-34s %d\n", "gauges absent, a query failed", s.absent)
	fmt.Printf("%-34s %d\n", "wrong answers", len(s.wrong))
	fmt.Printf("%-34s %s\n", "slowest scrape", s.slowest.Round(time.Millisecond))
	fmt.Printf("%-34s %v\n", "faults", s.faults)
	fmt.Printf("%-34s %v\n", "reloads", s.reloads)
	fmt.Printf("%-34s %s → %s\n", "heap in use", mib(start["go_memstats_heap_inuse_bytes"]), mib(end["go_memstats_heap_inuse_bytes"]))
	fmt.Printf("%-34s %s → %s\n", "resident memory", mib(start["process_resident_memory_bytes"]), mib(end["process_resident_memory_bytes"]))
	fmt.Printf("%-34s %.1f s\n", "CPU of the exporter", end["process_cpu_seconds_total"]-start["process_cpu_seconds_total"])
	fmt.Printf("%-34s %g → %g\n", "goroutines", start["go_goroutines"], end["go_goroutines"])
	fmt.Printf("%-34s %g → %g\n", "open files", start["process_open_fds"], end["process_open_fds"])
	var errs []error
	for _, list := range [][]string{s.wrong, s.failed} {
		for _, l := range list[:min(len(list), 10)] {
			errs = append(errs, errors.New(l))
		}
	}
	return errors.Join(errs...)
}
