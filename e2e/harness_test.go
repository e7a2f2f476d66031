// SPDX-License-Identifier: Apache-2.0

// Package e2e tests the exporter as users run it: as a process, between real servers.
package e2e

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"go.uber.org/goleak"

	"github.com/operator-store/operator_store_exporter/e2e/stack"
	"github.com/operator-store/operator_store_exporter/e2e/truth"
)

// root is the root of the repository, seen from the tests.
const root = ".."

// The servers and tools that `make tools` installs.
const (
	prometheusBinary      = root + "/.bin/prometheus"
	oldPrometheusBinary   = root + "/.bin/prometheus-old"
	victoriaMetricsBinary = root + "/.bin/victoria-metrics"
	thanosBinary          = root + "/.bin/thanos"
	cortexBinary          = root + "/.bin/cortex"
	promtoolBinary        = root + "/.bin/promtool"
	actionlintBinary      = root + "/.bin/actionlint"
	browserTools          = root + "/.bin/browser"
)

// exporterBinary is the exporter with the race detector. TestMain builds it.
var exporterBinary string

// client sends the requests of the tests themselves.
var client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

func TestMain(m *testing.M) {
	// All tests depend on the list of gauges: if it is wrong, say so once and run none of them.
	if err := truth.Check(); err != nil {
		exit(fmt.Errorf("the truth table differs from the exporter's catalog or the simulator:\n%w", err))
	}
	_ = os.Setenv("GORACE", "atexit_sleep_ms=0") // Otherwise the race detector sleeps for a second at every exit.
	dir, err := buildExporter()
	if err != nil {
		exit(err)
	}

	// Most tests wait for real servers most of the time.
	flag.Parse()
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		_ = f.Value.Set("6")
	}

	goleak.VerifyTestMain(m,
		goleak.Cleanup(func(code int) {
			client.CloseIdleConnections()
			_ = os.RemoveAll(dir)
			os.Exit(code)
		}),
		// toxiproxy leaves goroutines behind if a connection ends in the middle of a chunk.
		goleak.IgnoreAnyFunction("github.com/Shopify/toxiproxy/v2.(*ToxicLink).read"),
		goleak.IgnoreAnyFunction("github.com/Shopify/toxiproxy/v2.(*ToxicLink).write"),
		goleak.IgnoreAnyFunction("github.com/Shopify/toxiproxy/v2/toxics.(*ToxicStub).Run"))
}

func exit(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// buildExporter builds exporterBinary in a new directory, which it returns.
func buildExporter() (string, error) {
	dir, err := os.MkdirTemp("", "operator_store_e2e")
	if err != nil {
		return "", err
	}

	exporterBinary = filepath.Join(dir, "operator_store_exporter")
	build := exec.Command("go", "build", "-race", "-o", exporterBinary, ".")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		return "", errors.Join(fmt.Errorf("build the exporter: %w\n%s", err, out), os.RemoveAll(dir))
	}
	return dir, nil
}

// exporter is a running exporter.
type exporter struct {
	*stack.Process
	log *logLines
}

// startExporter starts the exporter on a free port. When the test ends, the exporter must exit with
// status 0 on SIGTERM, and the race detector must have found nothing.
func startExporter(t *testing.T, args ...string) *exporter {
	t.Helper()
	return startExporterWith(t, nil, args...)
}

// startExporterWith is startExporter with environment variables, "NAME=VALUE" each.
func startExporterWith(t *testing.T, environment []string, args ...string) *exporter {
	t.Helper()

	e := &exporter{log: &logLines{}}
	cmd := exporterCommand(context.Background(), append([]string{"--web.listen-address=127.0.0.1:0"}, args...)...)
	cmd.Env = append(os.Environ(), environment...)
	cmd.Stderr = e.log
	var err error
	if e.Process, err = stack.Start(t.Context(), "the exporter", cmd); err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() {
		if err := e.Stop(); err != nil {
			t.Errorf("the exporter ended with %v, want exit status 0:\n%s", err, e.Log())
		}
		requireNoRaces(t, strings.Join(e.log.matching(), "\n"))
	})
	return e
}

// startConfigured starts the exporter with a configuration file.
func startConfigured(t *testing.T, config string, args ...string) *exporter {
	t.Helper()
	return startExporter(t, append([]string{"--config.file=" + writeFile(t, "config.yml", config)}, args...)...)
}

// scrape gets the metrics page of the exporter.
func (e *exporter) scrape(t *testing.T) page {
	t.Helper()
	return scrape(t, e.URL+"/metrics", 10*time.Second)
}

// exporterCommand returns a command that runs the exporter.
func exporterCommand(ctx context.Context, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, exporterBinary, args...)
}

// runCommand runs a command of the exporter to its end. It returns the standard output, and an
// error that contains the standard error if the exit status is not 0.
func runCommand(t *testing.T, args ...string) (string, error) {
	t.Helper()

	var stdout, stderr bytes.Buffer
	cmd := exporterCommand(t.Context(), args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	requireNoRaces(t, stderr.String())
	if err != nil {
		return stdout.String(), fmt.Errorf("%w: %s", err, &stderr)
	}
	return stdout.String(), nil
}

// requireNoRaces fails the test if the race detector reported something on the standard error.
func requireNoRaces(t *testing.T, stderr string) {
	t.Helper()
	if strings.Contains(stderr, "DATA RACE") {
		t.Errorf("the race detector found a data race:\n%s", stderr)
	}
}

func containsAll(s string, words []string) bool {
	for _, w := range words {
		if !strings.Contains(s, w) {
			return false
		}
	}
	return true
}

// startPrometheus starts a real Prometheus that scrapes targets every interval.
func startPrometheus(t *testing.T, name string, interval time.Duration, targets ...stack.Target) *stack.Process {
	t.Helper()
	return startPrometheusIn(t, t.TempDir(), name, interval, targets...)
}

// startPrometheusIn is startPrometheus with the data under dir.
func startPrometheusIn(t *testing.T, dir, name string, interval time.Duration, targets ...stack.Target) *stack.Process {
	t.Helper()

	p, err := stack.Prometheus(t.Context(), name, prometheusBinary, dir, interval, targets)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Kill() })
	return p
}

// until waits until done returns true. It fails the test after a minute.
func until(t *testing.T, what string, done func(context.Context) (bool, error)) {
	t.Helper()

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := stack.Until(ctx, what, done); err != nil {
		t.Fatal(err)
	}
}

// query sends an instant query to an upstream without using code of the exporter. At is a Unix
// time, or "" for now.
func query(ctx context.Context, upstream, expression, at string) ([]stack.Series, error) {
	return stack.Query(ctx, client, upstream, expression, at)
}

// page is a metrics page: the value of each series by its name, with sorted labels.
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
	return parsePage(resp.Body)
}

func parsePage(body io.Reader) (page, error) {
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(body)
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

// storeGauges returns the gauges of all stores, including operator_store_info.
func (p page) storeGauges() page { return p.with("operator_store_", "address=") }

// gaugesPerStore is the number of gauges of a healthy store, including operator_store_info.
var gaugesPerStore = len(truth.Gauges) + 1

// requireComplete fails the test unless a page has every gauge of a number of stores.
func (p page) requireComplete(t *testing.T, stores int) {
	t.Helper()
	p.requireGauges(t, stores*gaugesPerStore)
}

// requireGauges fails the test unless a page has a number of gauges of stores.
func (p page) requireGauges(t *testing.T, want int) {
	t.Helper()
	if got := len(p.storeGauges()); got != want {
		t.Fatalf("the page has %d gauges, want %d", got, want)
	}
}

// with returns the series whose name begins with prefix and contains all of words.
func (p page) with(prefix string, words ...string) page {
	selected := page{}
	for series, v := range p {
		if strings.HasPrefix(series, prefix) && containsAll(series, words) {
			selected[series] = v
		}
	}
	return selected
}

// get sends a request without a body and returns the body of the response, which must have the
// given status.
func get(ctx context.Context, method, url string, status int) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		return nil, err
	}

	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != status {
		err = fmt.Errorf("%s %s: %s: %s", method, url, resp.Status, body)
	}
	return body, err
}

// serve serves handler on loopback until the test ends.
func serve(t *testing.T, handler http.Handler) string {
	t.Helper()

	s := httptest.NewServer(handler)
	t.Cleanup(s.Close)
	return s.URL
}

// writeFile writes a file into a new directory and returns its path.
func writeFile(t *testing.T, name, content string) string {
	t.Helper()

	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
