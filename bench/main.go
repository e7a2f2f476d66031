// SPDX-License-Identifier: Apache-2.0

// Command bench compares a scrape of the exporter with the other ways to the same numbers, against a real Prometheus on
// data made for it, all on loopback. Each figure is a ratio of medians of one run.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/operator-store/operator_store_exporter/e2e/stack"
)

type bench struct {
	prometheus, exporter, vmalert string
	rounds                        int
	ahead                         time.Duration
	large                         bool

	rows   []string
	limits map[string]float64
	missed []string
}

func main() {
	b := &bench{limits: map[string]float64{}}
	sizes := flag.String("stores", "3,30,300,1000,3000", "How many stores, separated by commas.")
	flag.StringVar(&b.prometheus, "prometheus", "../.bin/prometheus", "Prometheus' binary.")
	flag.StringVar(&b.exporter, "exporter", "../operator_store_exporter", "The exporter's binary.")
	flag.StringVar(&b.vmalert, "vmalert", "../.bin/vmalert", "vmalert's binary.")
	flag.IntVar(&b.rounds, "rounds", 7, "How often each is measured, in turn.")
	flag.DurationVar(&b.ahead, "ahead", 30*time.Minute, "How far the data reaches into the future: one size must be measured by then.")
	flag.BoolVar(&b.large, "large", true, "Whether 300 stores of TiKV v8.5 are measured too.")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := b.run(ctx, strings.Split(*sizes, ","))
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func (b *bench) run(ctx context.Context, sizes []string) error {
	zerolog.SetGlobalLevel(zerolog.Disabled)
	if _, err := os.Stat(b.vmalert); err != nil {
		fmt.Println("vmalert is missing, and so are its rows:", err)
		b.vmalert = ""
	}
	var at300, at3000 time.Duration
	for _, size := range sizes {
		n, err := strconv.Atoi(size)
		if err != nil {
			return err
		}
		took, err := b.size(ctx, shape75, n, 0)
		if err != nil {
			return fmt.Errorf("%d stores: %w", n, err)
		}
		switch n {
		case 300:
			at300 = took
			if !b.large {
				continue
			}
			if _, err := b.size(ctx, shape85, n, 0); err != nil {
				return fmt.Errorf("%d stores of %s: %w", n, shape85.name, err)
			}
		case 1000:
			if _, err := b.size(ctx, shape75, n, 5*time.Millisecond); err != nil {
				return fmt.Errorf("%d stores with delay: %w", n, err)
			}
		case 3000:
			at3000 = took
		}
	}
	if at300 > 0 && at3000 > 0 {
		b.figure("scrape at 3,000 stores ÷ scrape at 300", at3000.Seconds()/at300.Seconds(), 10, "")
	}
	fmt.Printf("\n| figure | measured | at most | |\n|---|---|---|---|\n%s\n", strings.Join(b.rows, "\n"))
	if len(b.missed) > 0 {
		return fmt.Errorf("not reached: %s", strings.Join(b.missed, "; "))
	}
	return nil
}

// figure adds a row to the table. A limit of 0 is none.
func (b *bench) figure(name string, v, limit float64, note string) {
	most := ""
	if limit > 0 {
		most = fmt.Sprintf("%.3g", limit)
		if v > limit {
			most += " **not reached**"
			b.missed = append(b.missed, name)
		}
	}
	row := fmt.Sprintf("| %s | %.3g | %s | %s |", name, v, most, note)
	b.rows = append(b.rows, row)
	fmt.Println(row)
}

// size measures one number of stores, and returns how long a scrape takes.
func (b *bench) size(ctx context.Context, s shape, stores int, delay time.Duration) (time.Duration, error) {
	title := fmt.Sprintf("%d stores", stores)
	if s.name != shape75.name {
		title += " of " + s.name
	}
	if delay > 0 {
		title += fmt.Sprintf(", %s away", delay)
	}
	fmt.Printf("\n%s: making the data\n", title)
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return 0, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if err := write(ctx, filepath.Join(dir, "data"), s, stores, b.ahead); err != nil {
		return 0, err
	}
	upstream, err := b.startPrometheus(ctx, dir, "")
	if err != nil {
		return 0, err
	}
	defer func() { _ = upstream.Kill() }()
	base := upstream.URL
	if delay > 0 {
		slow, err := slowDown(base, delay)
		if err != nil {
			return 0, err
		}
		defer slow.Stop()
		base = "http://" + slow.Listen
	}
	exporter, err := b.startExporter(ctx, dir, base, "")
	if err != nil {
		return 0, err
	}
	defer func() { _ = exporter.Kill() }()
	for range 5 { // What it learns, and upstream's caches.
		if err := b.scrape(ctx, exporter, stores); err != nil {
			return 0, err
		}
	}
	plain := delay == 0 && s.name == shape75.name
	ways := []way{
		{"scrape", b.rounds, func() error { return b.scrape(ctx, exporter, stores) }},
		{"(a) by hand, one query a metric, all at once", b.rounds, func() error { return byHand(ctx, base, stores) }},
		{"(b) five queries a store, one after the other", b.rounds, func() error { return storeByStore(1)(ctx, base, stores) }},
		{"(c) the same, 16 at once", b.rounds, func() error { return storeByStore(16)(ctx, base, stores) }},
	}
	medians, err := inTurn(ways)
	if err != nil {
		return 0, err
	}
	for i, w := range ways {
		fmt.Printf("%s: %s\n", w.name, medians[i].Round(100*time.Microsecond))
	}
	limits := map[int]float64{}
	switch {
	case plain && stores == 300:
		limits = map[int]float64{1: 0.40, 2: 0.15}
	case delay > 0:
		limits = map[int]float64{2: 0.02}
	}
	for i := 1; i < len(ways); i++ {
		b.figure(fmt.Sprintf("%s: scrape ÷ %s", title, ways[i].name), medians[0].Seconds()/medians[i].Seconds(), limits[i],
			fmt.Sprintf("%s ÷ %s, %d rounds", medians[0].Round(time.Millisecond), medians[i].Round(time.Millisecond), ways[i].rounds))
	}
	if delay > 0 {
		return medians[0], nil
	}
	if err := b.cost(ctx, title, dir, upstream, exporter, stores, plain); err != nil {
		return 0, err
	}
	if plain {
		if stores == 30 {
			if err := b.start(ctx, dir, upstream, stores); err != nil {
				return 0, err
			}
		}
		if err := b.others(ctx, title, dir, upstream, medians[0]); err != nil {
			return 0, err
		}
	}
	return medians[0], nil
}

type way struct {
	name   string
	rounds int
	do     func() error
}

// inTurn measures the ways one after the other, round by round, and returns the medians.
func inTurn(ways []way) ([]time.Duration, error) {
	took := make([][]time.Duration, len(ways))
	for round := range ways[0].rounds {
		for i, w := range ways {
			if round >= w.rounds {
				continue
			}
			began := time.Now()
			if err := w.do(); err != nil {
				return nil, fmt.Errorf("%s: %w", w.name, err)
			}
			took[i] = append(took[i], time.Since(began))
		}
	}
	medians := make([]time.Duration, len(ways))
	for i := range ways {
		slices.Sort(took[i])
		medians[i] = took[i][len(took[i])/2]
	}
	return medians, nil
}

// scrape is one scrape, which must have every store's quantile.
func (b *bench) scrape(ctx context.Context, exporter *stack.Process, stores int) error {
	body, err := get(ctx, exporter.URL+"/metrics")
	if err != nil {
		return err
	}
	if n := bytes.Count(body, []byte("\noperator_store_latency_p99_seconds{")); n != stores {
		return fmt.Errorf("%d stores have a p99, want %d", n, stores)
	}
	return nil
}

// cost measures what a scrape costs beside time.
func (b *bench) cost(ctx context.Context, title, dir string, upstream, exporter *stack.Process, stores int, plain bool) error {
	const scrapes = 5
	ours, theirs := cpu(exporter.PID()), cpu(upstream.PID())
	for range scrapes {
		if err := b.scrape(ctx, exporter, stores); err != nil {
			return err
		}
	}
	ours, theirs = cpu(exporter.PID())-ours, cpu(upstream.PID())-theirs
	limit := 0.0
	if plain && stores == 300 {
		limit = 0.20
	}
	b.figure(title+": our CPU ÷ upstream's", ours/theirs, limit, fmt.Sprintf("%.0f ms ÷ %.0f ms a scrape", 1000*ours/scrapes, 1000*theirs/scrapes))
	limit = map[int]float64{300: 40, 3000: 120}[stores]
	if !plain {
		limit = 0
	}
	b.figure(title+": peak RSS, MiB", peak(exporter.PID()), limit, "")

	// Through a proxy that remembers, once what it has to learn is learned.
	spy, err := newSpy(upstream.URL)
	if err != nil {
		return err
	}
	defer spy.server.Close()
	seen, err := b.startExporter(ctx, dir, spy.url, "")
	if err != nil {
		return err
	}
	defer func() { _ = seen.Kill() }()
	for range 5 {
		if err := b.scrape(ctx, seen, stores); err != nil {
			return err
		}
	}
	spy.reset()
	if err := b.scrape(ctx, seen, stores); err != nil {
		return err
	}
	at := time.Now()
	sum := func(queries []string) (total float64, err error) {
		for _, q := range queries {
			_, samples, err := ask(ctx, upstream.URL, q, at, true)
			if err != nil {
				return 0, err
			}
			total += samples
		}
		return total, nil
	}
	queries, moved := spy.seen()
	some, err := sum(queries)
	if err != nil {
		return err
	}
	all, err := sum(batched)
	if err != nil {
		return err
	}
	limit = 0
	if stores == 300 {
		limit = 0.45
	}
	b.figure(title+": samples touched ÷ one full pass", some/all, limit, fmt.Sprintf("%.0f ÷ %.0f, %d queries", some, all, len(queries)))
	b.figure(title+": answers moved a scrape, kB", float64(moved)/1000, 0, "")
	return nil
}

// start measures the time from the start to the first whole scrape.
func (b *bench) start(ctx context.Context, dir string, upstream *stack.Process, stores int) error {
	warm, err := b.startExporter(ctx, dir, upstream.URL, "  bucket_windows: false\n")
	if err != nil {
		return err
	}
	defer func() { _ = warm.Kill() }()
	if err := b.scrape(ctx, warm, stores); err != nil {
		return err
	}
	medians, err := inTurn([]way{
		{"first", b.rounds, func() error {
			fresh, err := b.startExporter(ctx, dir, upstream.URL, "")
			if err != nil {
				return err
			}
			defer func() { _ = fresh.Kill() }()
			return b.scrape(ctx, fresh, stores)
		}},
		{"warm", b.rounds, func() error { return b.scrape(ctx, warm, stores) }},
	})
	if err != nil {
		return err
	}
	b.figure("start to first whole scrape ÷ a warm scrape of all buckets, 30 stores", medians[0].Seconds()/medians[1].Seconds(), 2,
		fmt.Sprintf("%s ÷ %s, the process' own start included", medians[0].Round(time.Millisecond), medians[1].Round(time.Millisecond)))
	return nil
}

// others measures what records instead of bridging.
func (b *bench) others(ctx context.Context, title, dir string, upstream *stack.Process, scrape time.Duration) error {
	file := filepath.Join(dir, "rules.yml")
	if err := os.WriteFile(file, []byte(rules()), 0o600); err != nil {
		return err
	}
	federate := upstream.URL + "/federate?" + url.Values{"match[]": {`{__name__=~"recorded_.+"}`}}.Encode()
	if _, err := get(ctx, federate); err != nil { // Upstream's caches.
		return err
	}
	began := time.Now()
	page, err := get(ctx, federate)
	if err != nil {
		return err
	}
	federated := time.Since(began)
	age := "unknown"
	if m := regexp.MustCompile(`(?m)^recorded_qps\{.* ([0-9]+)$`).FindSubmatch(page); m != nil {
		ms, _ := strconv.ParseInt(string(m[1]), 10, 64)
		age = time.Since(time.UnixMilli(ms)).Round(time.Second).String()
	}
	if b.vmalert != "" {
		took, err := b.evaluation(ctx, upstream, file)
		if err != nil {
			return err
		}
		b.figure(title+": scrape ÷ (e) vmalert evaluating rules", scrape.Seconds()/took, 0, fmt.Sprintf("%s ÷ %.0f ms", scrape.Round(time.Millisecond), 1000*took))
	}
	_ = upstream.Kill()
	recording, err := b.startPrometheus(ctx, dir, file)
	if err != nil {
		return err
	}
	defer func() { _ = recording.Kill() }()
	took, err := evaluated(ctx, recording.URL+"/metrics", regexp.MustCompile(`(?m)^prometheus_rule_group_last_duration_seconds\{.*\} (\S+)$`))
	if err != nil {
		return err
	}
	b.figure(title+": scrape ÷ (d) rules and /federate", scrape.Seconds()/(took+federated.Seconds()), 0,
		fmt.Sprintf("%s ÷ (%.0f ms + %s); the age of a recorded sample was %s, that of ours is the scrape's time", scrape.Round(time.Millisecond), 1000*took, federated.Round(time.Millisecond), age))
	return nil
}

// evaluation is how long vmalert takes for the rules, in seconds.
func (b *bench) evaluation(ctx context.Context, upstream *stack.Process, file string) (float64, error) {
	sink := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusNoContent)
	})}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	go func() { _ = sink.Serve(l) }() // It ends with Close.
	defer func() { _ = sink.Close() }()
	address, err := stack.FreeAddress(ctx)
	if err != nil {
		return 0, err
	}
	alert := exec.CommandContext(ctx, b.vmalert, "-rule="+file, "-datasource.url="+upstream.URL, "-remoteWrite.url=http://"+l.Addr().String(),
		"-httpListenAddr="+address, "-evaluationInterval=5s", "-group.maxStartDelay=1s", "-loggerLevel=ERROR")
	if err := alert.Start(); err != nil {
		return 0, err
	}
	defer func() {
		_ = alert.Process.Kill()
		_ = alert.Wait()
	}()
	return evaluated(ctx, "http://"+address+"/metrics", regexp.MustCompile(`(?m)^vmalert_iteration_duration_seconds\{.*quantile="0.5"\} (\S+)$`))
}

// evaluated waits for a rule group's duration to appear, for the second time.
func evaluated(ctx context.Context, metrics string, pattern *regexp.Regexp) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	var took float64
	times := map[float64]bool{}
	err := stack.Until(ctx, "an evaluation", func(ctx context.Context) (bool, error) {
		body, err := get(ctx, metrics)
		if err != nil {
			return false, err
		}
		m := pattern.FindSubmatch(body)
		if m == nil {
			return false, errors.New("no duration yet")
		}
		if v, err := strconv.ParseFloat(string(m[1]), 64); err == nil && v > 0 {
			took = v
			times[v] = true
		}
		return len(times) > 1, nil
	})
	return took, err
}

func (b *bench) startPrometheus(ctx context.Context, dir, ruleFile string) (*stack.Process, error) {
	config := "global: {evaluation_interval: 5s}\n"
	if ruleFile != "" {
		config += fmt.Sprintf("rule_files: [%q]\n", ruleFile)
	}
	file := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	p, err := stack.Start(ctx, "upstream", exec.CommandContext(ctx, b.prometheus,
		"--config.file="+file, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address=127.0.0.1:0"))
	if err != nil {
		return nil, err
	}
	return p, stack.Until(ctx, "upstream to answer", func(ctx context.Context) (bool, error) {
		n, _, err := ask(ctx, p.URL, `count(up)`, time.Now(), false)
		return n == 1, err
	})
}

func (b *bench) startExporter(ctx context.Context, dir, upstream, more string) (*stack.Process, error) {
	file := filepath.Join(dir, "exporter.yml")
	config := fmt.Sprintf("clusters:\n- name: bench\n  upstream: {url: %q, timeout: 5m}\n%s", upstream, more)
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	return stack.Start(ctx, "exporter", exec.CommandContext(ctx, b.exporter, "--web.listen-address=127.0.0.1:0", "--config.file="+file, "--discovery.interval=10m"))
}

// slowDown puts a delay before the server at base.
func slowDown(base string, delay time.Duration) (*toxiproxy.Proxy, error) {
	p := toxiproxy.NewProxy(toxiproxy.NewServer(toxiproxy.NewMetricsContainer(prometheus.NewRegistry()), zerolog.Nop()), "slow", "127.0.0.1:0", stack.Host(base))
	if err := p.Start(); err != nil {
		return nil, err
	}
	_, err := p.Toxics.AddToxicJson(strings.NewReader(fmt.Sprintf(`{"type":"latency","attributes":{"latency":%d}}`, delay.Milliseconds())))
	return p, err
}

// spy is a proxy that remembers the queries, and how much was answered.
type spy struct {
	server *http.Server
	url    string

	mu      sync.Mutex
	queries []string
	moved   int64
}

func newSpy(base string) (*spy, error) {
	target, err := url.Parse(base)
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &spy{url: "http://" + l.Addr().String()}
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.ModifyResponse = func(r *http.Response) error {
		body, err := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		s.mu.Lock()
		s.moved += int64(len(body))
		s.mu.Unlock()
		return err
	}
	s.server = &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		form, _ := url.ParseQuery(string(body))
		s.mu.Lock()
		s.queries = append(s.queries, form["query"]...)
		s.mu.Unlock()
		r.Body = io.NopCloser(bytes.NewReader(body))
		proxy.ServeHTTP(w, r)
	})}
	go func() { _ = s.server.Serve(l) }() // It ends with Close.
	return s, nil
}

func (s *spy) reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queries, s.moved = nil, 0
}

func (s *spy) seen() ([]string, int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.queries), s.moved
}

// cpu is the time that a process has used, in seconds, to the tick of 10 ms.
func cpu(pid int) float64 {
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(content), ") ")
	fields := strings.Fields(rest)
	user, _ := strconv.ParseFloat(fields[11], 64)
	system, _ := strconv.ParseFloat(fields[12], 64)
	return (user + system) / 100
}

// peak is the most memory that a process has had, in MiB.
func peak(pid int) float64 {
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	m := regexp.MustCompile(`VmHWM:\s+([0-9]+) kB`).FindSubmatch(content)
	if m == nil {
		return 0
	}
	kb, _ := strconv.ParseFloat(string(m[1]), 64)
	return kb / 1024
}
