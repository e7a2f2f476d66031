// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/operator-store/operator_store_exporter/e2e/stack"
)

// startPrometheus starts a Prometheus with the data under dir, and with a rule file unless its name
// is "".
func (b *bench) startPrometheus(ctx context.Context, dir, rules string) (*stack.Process, error) {
	config := "global: {evaluation_interval: 5s}\n"
	if rules != "" {
		config += fmt.Sprintf("rule_files: [%q]\n", rules)
	}
	file := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}

	p, err := stack.Start(ctx, "upstream", exec.CommandContext(ctx, b.prometheusPath,
		"--config.file="+file, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address=127.0.0.1:0"))
	if err != nil {
		return nil, err
	}

	return p, stack.Until(ctx, "upstream to respond", func(ctx context.Context) (bool, error) {
		response, err := queryInstant(ctx, p.URL, `count(up)`, time.Now(), false)
		return response.series == 1, err
	})
}

// startExporter starts an exporter of one cluster. extra is YAML that is added to the cluster's
// configuration.
func (b *bench) startExporter(ctx context.Context, dir, upstream, extra string) (*stack.Process, error) {
	file := filepath.Join(dir, "exporter.yml")
	config := fmt.Sprintf("clusters:\n- name: bench\n  upstream: {url: %q, timeout: 5m}\n%s", upstream, extra)
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}

	return stack.Start(ctx, "exporter", exec.CommandContext(ctx, b.exporterPath,
		"--web.listen-address=127.0.0.1:0", "--config.file="+file, "--discovery.interval=10m"))
}

// startDelay starts a proxy that delays the responses of the server at base.
func startDelay(base string, delay time.Duration) (*toxiproxy.Proxy, error) {
	metrics := toxiproxy.NewMetricsContainer(prometheus.NewRegistry())
	server := toxiproxy.NewServer(metrics, zerolog.Nop())
	p := toxiproxy.NewProxy(server, "delay", "127.0.0.1:0", stack.Host(base))
	if err := p.Start(); err != nil {
		return nil, err
	}

	toxic := fmt.Sprintf(`{"type":"latency","attributes":{"latency":%d}}`, delay.Milliseconds())
	_, err := p.Toxics.AddToxicJson(strings.NewReader(toxic))

	return p, err
}

// queryRecorder is a proxy that records the queries and the size of the responses.
type queryRecorder struct {
	server *http.Server
	url    string

	mu      sync.Mutex
	queries []string
	size    int64
}

// newQueryRecorder starts a proxy for the server at base.
func newQueryRecorder(ctx context.Context, base string) (*queryRecorder, error) {
	target, err := url.Parse(base)
	if err != nil {
		return nil, err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}

	r := &queryRecorder{url: "http://" + listener.Addr().String()}
	proxy := httputil.NewSingleHostReverseProxy(target)

	proxy.ModifyResponse = r.recordResponse
	r.server = &http.Server{ReadHeaderTimeout: time.Minute, Handler: r.recordRequests(proxy)}
	go func() { _ = r.server.Serve(listener) }() // Ends with close.

	return r, nil
}

func (r *queryRecorder) close() { _ = r.server.Close() }

// recordRequests returns a handler that records the queries and passes the requests to next.
func (r *queryRecorder) recordRequests(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		form, _ := url.ParseQuery(string(body))
		r.mu.Lock()
		r.queries = append(r.queries, form["query"]...)
		r.mu.Unlock()

		req.Body = io.NopCloser(bytes.NewReader(body))
		next.ServeHTTP(w, req)
	})
}

// recordResponse adds the size of a response.
func (r *queryRecorder) recordResponse(resp *http.Response) error {
	body, err := io.ReadAll(resp.Body)
	resp.Body = io.NopCloser(bytes.NewReader(body))

	r.mu.Lock()
	defer r.mu.Unlock()
	r.size += int64(len(body))

	return err
}

// reset forgets what was recorded.
func (r *queryRecorder) reset() {
	r.mu.Lock()
	defer r.mu.Unlock()

	r.queries, r.size = nil, 0
}

// recorded returns the queries and the size of all responses in bytes.
func (r *queryRecorder) recorded() ([]string, int64) {
	r.mu.Lock()
	defer r.mu.Unlock()

	return slices.Clone(r.queries), r.size
}

// cpuSeconds returns the CPU time that a process has used, with a resolution of 10 ms.
func cpuSeconds(pid int) float64 {
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

var peakMemoryLine = regexp.MustCompile(`VmHWM:\s+([0-9]+) kB`)

// peakMemory returns the peak resident memory of a process in MiB.
func peakMemory(pid int) float64 {
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}

	m := peakMemoryLine.FindSubmatch(content)
	if m == nil {
		return 0
	}
	kb, _ := strconv.ParseFloat(string(m[1]), 64)

	return kb / 1024
}
