// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"go.uber.org/goleak"

	"github.com/operator-store/operator_store_exporter/testdata/stack"
)

const (
	prometheusBinary = ".bin/prometheus"
	promtoolBinary   = ".bin/promtool"

	oldPrometheusBinary   = ".bin/prometheus-old"
	victoriaMetricsBinary = ".bin/victoria-metrics"
)

// The tests start the test binary as the exporter where they need a process of its own.
const asExporter = "OPERATOR_STORE_EXPORTER_TEST_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(asExporter) != "" {
		main()
		return
	}
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: names.dial}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		client.CloseIdleConnections()
		os.Exit(code)
	}),
		// toxiproxy leaves the goroutines of a link that ends in the middle of a chunk.
		goleak.IgnoreAnyFunction("github.com/Shopify/toxiproxy/v2.(*ToxicLink).read"),
		goleak.IgnoreAnyFunction("github.com/Shopify/toxiproxy/v2.(*ToxicLink).write"),
		goleak.IgnoreAnyFunction("github.com/Shopify/toxiproxy/v2/toxics.(*ToxicStub).Run"))
}

// client is that of the tests themselves.
var client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

// startExporter runs the exporter inside the test, with its race detector, and returns its URL and its log.
func startExporter(t *testing.T, args ...string) (string, *logLines) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	lines := newLogLines()
	done := make(chan error, 1)
	go func() {
		defer func() { _ = lines.Close() }()
		done <- run(ctx, append([]string{"--web.listen-address=127.0.0.1:0"}, args...), io.Discard, lines)
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the exporter ended with %v", err)
		}
	})
	m := lines.wait(t, regexp.MustCompile(`msg="Listening on".* address=(\S+)`))
	return "http://" + m[1], lines
}

// logLines keeps the lines written to it.
type logLines struct {
	*io.PipeWriter
	mu    sync.Mutex
	all   []string
	added *sync.Cond
	ended bool
}

func newLogLines() *logLines {
	r, w := io.Pipe()
	l := &logLines{PipeWriter: w}
	l.added = sync.NewCond(&l.mu)
	go func() {
		lines := bufio.NewScanner(r)
		for lines.Scan() {
			l.mu.Lock()
			l.all = append(l.all, lines.Text())
			l.mu.Unlock()
			l.added.Broadcast()
		}
		l.mu.Lock()
		l.ended = true
		l.mu.Unlock()
		l.added.Broadcast()
	}()
	return l
}

// wait returns the first match of pattern in a line, once there is one.
func (l *logLines) wait(t *testing.T, pattern *regexp.Regexp) []string {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := 0; ; i++ {
		for ; i >= len(l.all); l.added.Wait() {
			if l.ended {
				t.Fatalf("no log line matches %s:\n%s", pattern, strings.Join(l.all, "\n"))
			}
		}
		if m := pattern.FindStringSubmatch(l.all[i]); m != nil {
			return m
		}
	}
}

// matching returns the lines that contain all of words.
func (l *logLines) matching(words ...string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var found []string
	for _, line := range l.all {
		all := true
		for _, w := range words {
			all = all && strings.Contains(line, w)
		}
		if all {
			found = append(found, line)
		}
	}
	return found
}

// startPrometheus starts a real Prometheus that scrapes targets every interval.
func startPrometheus(t *testing.T, name string, interval time.Duration, targets ...stack.Target) *stack.Process {
	t.Helper()
	return startPrometheusIn(t, t.TempDir(), name, interval, targets...)
}

// startPrometheusIn is startPrometheus with its data under dir.
func startPrometheusIn(t *testing.T, dir, name string, interval time.Duration, targets ...stack.Target) *stack.Process {
	t.Helper()
	p, err := stack.Prometheus(t.Context(), name, prometheusBinary, dir, interval, targets)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Kill() })
	return p
}

// until waits for something that other processes do.
func until(t *testing.T, what string, done func(context.Context) (bool, error)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := stack.Until(ctx, what, done); err != nil {
		t.Fatal(err)
	}
}

// query asks an upstream an instant query, without any code of the exporter. At is a Unix time, or "".
func query(ctx context.Context, upstream, expression, at string) ([]stack.Series, error) {
	return stack.Query(ctx, client, upstream, expression, at)
}

// page is a metrics page: the value of each series, named as on the page with its labels sorted.
type page map[string]float64

// scrape gets a metrics page as a Prometheus with the given scrape timeout does.
func scrape(t *testing.T, url string, timeout time.Duration) page {
	t.Helper()
	p, err := tryScrape(t.Context(), url, timeout)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func tryScrape(ctx context.Context, url string, timeout time.Duration) (page, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("X-Prometheus-Scrape-Timeout-Seconds", fmt.Sprint(timeout.Seconds()))
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(resp.Body)
		return nil, fmt.Errorf("%s: %s: %s", url, resp.Status, body)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(resp.Body)
	if err != nil {
		return nil, err
	}
	p := page{}
	for name, family := range families {
		for _, m := range family.Metric {
			metric := model.Metric{model.MetricNameLabel: model.LabelValue(name)}
			for _, l := range m.Label {
				metric[model.LabelName(l.GetName())] = model.LabelValue(l.GetValue())
			}
			p[metric.String()] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	return p, nil
}

// with returns the series whose names begin with prefix and contain all of words.
func (p page) with(prefix string, words ...string) page {
	found := page{}
	for s, v := range p {
		ok := strings.HasPrefix(s, prefix)
		for _, w := range words {
			ok = ok && strings.Contains(s, w)
		}
		if ok {
			found[s] = v
		}
	}
	return found
}

// serve serves handler on loopback until the test ends.
func serve(t *testing.T, handler http.Handler) string {
	t.Helper()
	s := httptest.NewServer(handler)
	t.Cleanup(s.Close)
	return s.URL
}

// writeFile writes a file into a directory of the test's own, and returns its path.
func writeFile(t *testing.T, name, content string) string {
	t.Helper()
	path := t.TempDir() + "/" + name
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
