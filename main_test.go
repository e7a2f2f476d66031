// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"go.uber.org/goleak"
	"golang.org/x/net/dns/dnsmessage"

	"github.com/operator-store/operator_store_exporter/internal/doctest"
	"github.com/operator-store/operator_store_exporter/internal/gauge"
)

// If this environment variable is set, the test binary runs main. Tests start it as a process to
// send it signals and to see its exit status.
const runMain = "OPERATOR_STORE_EXPORTER_TEST_MAIN"

const oneCluster = "clusters:\n- name: a\n  upstream: {url: 'http://127.0.0.1:1'}\n"

func TestMain(m *testing.M) {
	if os.Getenv(runMain) != "" {
		main()
		return
	}

	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: names.dial}
	goleak.VerifyTestMain(m)
}

func TestInvalidConfiguration(t *testing.T) {
	for _, tc := range []struct {
		name    string
		content string
		want    string // Part of the error message.
	}{
		{
			name:    "unknown field",
			content: oneCluster + "  selectr: x\n",
			want:    `c.yml:4: unknown field "selectr"`,
		},
		{
			name:    "duplicate cluster",
			content: oneCluster + "- name: a\n  upstream: {url: 'http://b'}\n",
			want:    `c.yml:4: duplicate cluster "a"`,
		},
		{
			name:    "duplicate store",
			content: oneCluster + "  stores:\n  - address: x\n  - address: x\n",
			want:    `c.yml:6: duplicate store: address "x"`,
		},
		{
			name:    "invalid URL",
			content: "clusters:\n- name: a\n  upstream: {url: 'localhost:9090'}\n",
			want:    `c.yml:3: invalid URL "localhost:9090"`,
		},
		{
			name:    "invalid selector",
			content: oneCluster + "  selector: '{'\n",
			want:    `c.yml:4: invalid selector {: `,
		},
		{
			name:    "invalid duration",
			content: oneCluster + "  rate_window: 1\n",
			want:    `c.yml:4: invalid duration "1"`,
		},
		{
			name:    "address with quotes",
			content: oneCluster + "  stores:\n  - address: 'a\"b'\n",
			want:    `c.yml:5: invalid address "a\"b"`,
		},
		{
			name:    "address with braces",
			content: oneCluster + "  stores:\n  - address: 'a{b}'\n",
			want:    `c.yml:5: invalid address "a{b}"`,
		},
		{
			name:    "missing certificate file",
			content: "clusters:\n- name: a\n  upstream: {url: 'http://b', tls_config: {ca_file: nowhere.pem}}\n",
			want:    `nowhere.pem`,
		},
	} {
		file := writeFile(t, "c.yml", tc.content)
		for command, args := range map[string][]string{
			"check-config": {"check-config", file},
			"serve":        {"--config.file=" + file, "--web.listen-address=127.0.0.1:0"},
		} {
			t.Run(tc.name+" "+command, func(t *testing.T) {
				cmd := mainCommand(t.Context(), args...)
				out, err := cmd.CombinedOutput()
				if cmd.ProcessState.ExitCode() != 1 {
					t.Errorf("the exporter ended with %v, want exit status 1", err)
				}
				if !strings.Contains(string(out), tc.want) {
					t.Errorf("the output lacks %q:\n%s", tc.want, out)
				}
				if strings.Contains(string(out), "Listening") {
					t.Errorf("the exporter listened:\n%s", out)
				}
			})
		}
	}
}

func TestCheckConfig(t *testing.T) {
	file := writeFile(t, "c.yml", oneCluster)

	var out bytes.Buffer
	if err := run(t.Context(), []string{"check-config", file}, &out, io.Discard); err != nil {
		t.Fatal(err)
	}

	if want := file + " is valid: 1 cluster(s) [\"a\"]\n"; out.String() != want {
		t.Errorf("check-config prints %q, want %q", out.String(), want)
	}
}

func TestInvalidFlags(t *testing.T) {
	file := writeFile(t, "c.yml", oneCluster)
	for _, tc := range []struct {
		name string
		args []string
		want string // Part of the error message.
	}{
		{
			name: "unknown flag",
			args: []string{"--nope"},
			want: "unknown long flag '--nope', try --help",
		},
		{
			name: "missing configuration file",
			args: []string{"--config.file=/nowhere/c.yml"},
			want: "/nowhere/c.yml",
		},
		{
			name: "configuration file and upstream",
			args: []string{"--config.file=" + file, "--upstream.url=http://a"},
			want: "move them into the file",
		},
		{
			name: "configuration file and cluster",
			args: []string{"--config.file=" + file, "--cluster=a"},
			want: "move them into the file",
		},
		{
			name: "invalid upstream",
			args: []string{"--upstream.url=localhost:9090"},
			want: `--upstream.url: invalid URL "localhost:9090"`,
		},
		{
			name: "empty cluster name",
			args: []string{"--cluster="},
			want: "needs a name",
		},
		{
			name: "invalid path",
			args: []string{"--web.telemetry-path=x"},
			want: "--web.telemetry-path=x",
		},
		{
			name: "lookback of zero",
			args: []string{"--discovery.lookback=0s"},
			want: "--discovery.lookback=0s: must be a positive duration",
		},
		{
			name: "negative interval",
			args: []string{"--discovery.interval=-5s"},
			want: "--discovery.interval=-5s: must be a positive duration",
		},
		{
			name: "invalid log level",
			args: []string{"--log.level=loud"},
			want: "loud",
		},
		{
			name: "listen address of another machine",
			args: []string{"--web.listen-address=256.0.0.1:1"},
			want: "256.0.0.1",
		},
		{
			name: "missing web configuration file",
			args: []string{"--web.config.file=/nowhere/web.yml"},
			want: "/nowhere/web.yml",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			args := append([]string{"--web.listen-address=127.0.0.1:0"}, tc.args...)
			err := run(t.Context(), args, io.Discard, io.Discard)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("the error is %v, want one that contains %q", err, tc.want)
			}
		})
	}
}

func TestHelpFitsIn80Columns(t *testing.T) {
	t.Setenv("COLUMNS", "80")

	for _, args := range [][]string{
		{"--help"}, {"stores", "--help"}, {"doctor", "--help"}, {"rules", "--help"}, {"check-config", "--help"},
	} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			out, err := mainCommand(t.Context(), args...).Output()
			if err != nil || len(out) < 500 {
				t.Fatalf("%v: %s", err, out)
			}

			for line := range strings.Lines(string(out)) {
				if len(strings.TrimRight(line, " \n")) > 80 {
					t.Errorf("the line is longer than 80 columns: %s", line)
				}
			}
		})
	}
}

func TestShellCompletion(t *testing.T) {
	for _, shell := range []string{"bash", "zsh"} {
		t.Run(shell, func(t *testing.T) {
			out, err := mainCommand(t.Context(), "--completion-script-"+shell).Output()
			if err != nil || !strings.Contains(string(out), program) {
				t.Errorf("%v: %s", err, out)
			}
		})
	}

	out, err := mainCommand(t.Context(), "--completion-bash", "d").Output()
	if err != nil || !slices.Contains(strings.Fields(string(out)), "doctor") {
		t.Errorf("d is completed to %q, error %v", out, err)
	}
}

// SIGTERM lets a scrape that is under way finish, and the exporter exits with status 0.
func TestSIGTERM(t *testing.T) {
	queried, gate := make(chan struct{}), make(chan struct{})
	var once sync.Once
	upstream := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if query := r.FormValue("query"); strings.HasPrefix(query, "up{") && !isRange(query) {
			once.Do(func() { close(queried) })
			<-gate
		}
		scriptedUpstream(w, r)
	}))
	exporter := startProcess(t, "--upstream.url="+upstream)

	type result struct {
		page page
		err  error
	}
	done := make(chan result, 1)
	go func() {
		page, err := tryScrape(t.Context(), exporter.url+"/metrics", time.Minute)
		done <- result{page, err}
	}()
	<-queried
	exporter.signal(t, syscall.SIGTERM)
	exporter.wait(t, `msg="Stopping, waiting for running scrapes to finish"`)
	close(gate)

	r := <-done
	if n := len(r.page.gauges()); r.err != nil || n != len(gauge.Builtin()) {
		t.Errorf("the scrape under way got %d gauges and the error %v, want %d gauges", n, r.err, len(gauge.Builtin()))
	}
	<-exporter.exited
	if exporter.err != nil {
		t.Errorf("the exporter ended with %v, want exit status 0:\n%s", exporter.err, exporter.log)
	}
}

// A reload applies a new configuration. An invalid one is logged with file and line, and the old
// one stays in use.
func TestReload(t *testing.T) {
	for _, tc := range []struct {
		name   string
		reload func(t *testing.T, exporter *process, wantStatus int)
	}{
		{
			name:   "SIGHUP",
			reload: func(t *testing.T, exporter *process, _ int) { exporter.signal(t, syscall.SIGHUP) },
		},
		{
			name: "POST request",
			reload: func(t *testing.T, exporter *process, wantStatus int) {
				resp, err := http.Post(exporter.url+"/-/reload", "", nil)
				if err != nil {
					t.Fatal(err)
				}
				resp.Body.Close()
				if resp.StatusCode != wantStatus {
					t.Errorf("the status of the response is %s, want %d", resp.Status, wantStatus)
				}
			},
		},
	} {
		t.Run(tc.name, func(t *testing.T) { testReload(t, tc.reload) })
	}
}

// The log messages of reloads.
const (
	reloadedMessage    = `msg="configuration reloaded"`
	notReloadedMessage = `msg="configuration not reloaded, the previous one stays in use"`
)

func testReload(t *testing.T, reload func(t *testing.T, exporter *process, wantStatus int)) {
	const (
		one = "clusters:\n- name: one\n  upstream: {url: 'http://127.0.0.1:1'}\n"
		two = one + "- name: two\n  upstream: {url: 'http://127.0.0.1:1'}\n"

		successful = "operator_store_exporter_config_last_reload_successful"
		timestamp  = "operator_store_exporter_config_last_reload_success_timestamp_seconds"
		failures   = `operator_store_exporter_query_failures_total` +
			`{cluster="one", query="targets", reason="connection"}`
	)
	clusters := func(p page) int { return len(p.with("operator_store_exporter_upstream_up{")) }
	file := writeFile(t, "c.yml", one)
	write := func(content string) {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	exporter := startProcess(t, "--config.file="+file, "--web.enable-lifecycle")

	before := scrape(t, exporter.url)
	if clusters(before) != 1 || before[successful] != 1 || before[timestamp] == 0 {
		t.Fatalf("before: %d clusters, successful %g", clusters(before), before[successful])
	}

	write("clusters:\n- name: [\n")
	reload(t, exporter, http.StatusInternalServerError)
	exporter.waitForReload(t, 1, notReloadedMessage)
	bad := scrape(t, exporter.url)
	if clusters(bad) != 1 || bad[successful] != 0 || bad[timestamp] != before[timestamp] {
		t.Errorf("after an invalid file: %d clusters, successful %g, at %g",
			clusters(bad), bad[successful], bad[timestamp])
	}
	if !regexp.MustCompile(`c\.yml:[0-9]+: `).MatchString(exporter.log.String()) {
		t.Errorf("the log does not name the file and line of the mistake:\n%s", exporter.log)
	}

	write(two)
	reload(t, exporter, http.StatusOK)
	exporter.waitForReload(t, 2, reloadedMessage)
	good := scrape(t, exporter.url)
	if clusters(good) != 2 || good[successful] != 1 || good[timestamp] <= before[timestamp] {
		t.Errorf("after a valid file: %d clusters, successful %g, at %g",
			clusters(good), good[successful], good[timestamp])
	}
	// Counters survive reloads.
	if good[failures] <= bad[failures] || bad[failures] <= before[failures] {
		t.Errorf("the failures counted are %g, %g and %g, want a growing count",
			before[failures], bad[failures], good[failures])
	}
}

// What the log line says if the name of the upstream's host cannot be resolved.
var lookupFailedFields = []string{
	`msg="query failed" cluster=c query=up,`,
	` reason=connection `,
	`: lookup upstream.test`,
	` hint="the host name cannot be resolved: is the host in url right?"`,
}

// If DNS fails, the page is there in time without gauges, the failure is counted and logged once,
// and the scrape after the fault has every gauge again.
func TestDNSFailure(t *testing.T) {
	const timeout = 2 * time.Second

	names.set(true)
	t.Cleanup(func() { names.set(false) })
	upstream := httptest.NewUnstartedServer(http.HandlerFunc(scriptedUpstream))
	upstream.Config.ConnState = func(conn net.Conn, state http.ConnState) {
		if state == http.StateNew && !names.isKnown() {
			_ = conn.Close() // The exporter resolved the name before the fault.
		}
	}
	upstream.Start()
	t.Cleanup(upstream.Close)
	url := strings.Replace(upstream.URL, "127.0.0.1", testHost, 1)
	config := fmt.Sprintf("clusters:\n- name: c\n  upstream: {url: %q}\n", url)
	exporter := startInProcess(t, "--discovery.interval=1h", "--config.file="+writeFile(t, "config.yml", config))
	requireEveryGauge := func() {
		t.Helper()
		if n := len(scrape(t, exporter.url).gauges()); n != len(gauge.Builtin()) {
			t.Fatalf("%d gauges without the fault, want %d", n, len(gauge.Builtin()))
		}
	}
	requireEveryGauge()

	names.set(false)
	upstream.CloseClientConnections()

	for range 2 {
		ctx, cancel := context.WithTimeout(t.Context(), timeout)
		p, err := tryScrape(ctx, exporter.url+"/metrics", timeout)
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		requireUnreachable(t, p)
	}
	warnings := exporter.log.matching("level=warn")
	if len(warnings) != 1 {
		t.Fatalf("the warnings are %q, want one", warnings)
	}

	for _, want := range lookupFailedFields {
		if !strings.Contains(warnings[0], want) {
			t.Errorf("the warning lacks %q:\n%s", want, warnings[0])
		}
	}

	names.set(true)
	requireEveryGauge()
}

// requireUnreachable fails the test unless a page shows that no query of cluster c had a response.
func requireUnreachable(t *testing.T, p page) {
	t.Helper()

	if gauges := p.gauges(); len(gauges) > 0 {
		t.Errorf("the page has the gauges %v, want none", gauges)
	}
	if up := p[`operator_store_exporter_upstream_up{cluster="c"}`]; up != 0 {
		t.Errorf("operator_store_exporter_upstream_up is %g, want 0", up)
	}

	reasons := map[string]bool{}
	for series, n := range p.with("operator_store_exporter_query_failures_total{") {
		if n > 0 {
			_, reason, _ := strings.Cut(series, "reason=")
			reasons[strings.Trim(reason, `"}`)] = true
		}
	}
	if len(reasons) != 1 || !reasons["connection"] {
		t.Errorf("failures are counted with the reasons %v, want connection alone", reasons)
	}
}

// docs/configuration.md has a row with the default of each flag.
func TestDocumentedFlags(t *testing.T) {
	document := doctest.Read(t, "docs/configuration.md")
	app, _ := commandLine(nil, io.Discard, io.Discard)

	var actual []string
	for _, flag := range app.Model().Flags {
		if flag.Hidden || flag.Name == "help" || flag.Name == "version" {
			continue
		}
		actual = append(actual, "--"+flag.Name)
		value := ""
		if d := strings.Join(flag.Default, ""); d != "" {
			value = " `" + d + "`"
		} else if flag.IsBoolFlag() {
			value = " `false`"
		}
		if row := fmt.Sprintf("| `--%s` |%s | ", flag.Name, value); !strings.Contains(document, row) {
			t.Errorf("docs/configuration.md lacks the row %s", row)
		}
	}

	isField := func(name string) bool { return !strings.HasPrefix(name, "--") }
	documented := slices.DeleteFunc(doctest.FirstCells(document), isField)
	doctest.RequireSameSet(t, "docs/configuration.md", documented, actual)
}

// The commands in the documentation are targets of the Makefile, or flags and commands of the
// exporter.
func TestDocumentedCommands(t *testing.T) {
	makefile := doctest.Read(t, "Makefile")
	for _, file := range []string{"README.md", "docs/commands.md"} {
		for _, block := range doctest.CodeBlocks(doctest.Read(t, file), "sh") {
			for _, line := range strings.Split(strings.TrimSpace(block), "\n") {
				line, _, _ := strings.Cut(line, " > ")
				words := strings.Fields(line)
				switch words[0] {
				case "make":
					if !strings.Contains(makefile, "\n"+words[1]+":") {
						t.Errorf("%s: the Makefile has no target for %q", file, line)
					}
				case "./" + program:
					app, _ := commandLine(nil, io.Discard, io.Discard)
					if _, err := app.Parse(words[1:]); err != nil {
						t.Errorf("%s: %q: %v", file, line, err)
					}
				case "curl", "source":
				default:
					t.Errorf("%s: no test checks %q", file, line)
				}
			}
		}
	}
}

// check-config accepts the configurations in the documentation.
func TestDocumentedConfigurations(t *testing.T) {
	checked := 0
	for _, file := range []string{"README.md", "docs/configuration.md", "docs/upstreams.md", "docs/stores.md"} {
		for i, block := range doctest.CodeBlocks(doctest.Read(t, file), "yaml") {
			if !strings.HasPrefix(block, "clusters:") {
				continue // The end-to-end tests check the configurations of Prometheus.
			}
			checked++
			t.Run(fmt.Sprintf("%s %d", file, i), func(t *testing.T) {
				file := writeFile(t, "config.yml", block)
				if err := run(t.Context(), []string{"check-config", file}, io.Discard, io.Discard); err != nil {
					t.Error(err)
				}
			})
		}
	}
	if checked < 7 {
		t.Errorf("%d configurations were checked, want at least 7", checked)
	}
}

// process is a running exporter.
type process struct {
	url    string
	log    *logLines
	cmd    *exec.Cmd
	exited chan struct{} // Closed when the process has ended.
	err    error         // How it ended, once it has.
}

// mainCommand returns a command that runs main with args.
func mainCommand(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	// The race detector sleeps for a second at every exit by default.
	cmd.Env = append(os.Environ(), runMain+"=1", "GORACE=atexit_sleep_ms=0")
	return cmd
}

// startProcess starts the exporter as a process, which is killed when the test ends.
func startProcess(t *testing.T, args ...string) *process {
	t.Helper()

	p := &process{log: &logLines{}, exited: make(chan struct{})}

	p.cmd = mainCommand(t.Context(), append([]string{"--web.listen-address=127.0.0.1:0"}, args...)...)
	p.cmd.Stderr = p.log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.exited)
		p.err = p.cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.exited
	})

	p.url = p.waitForURL(t)
	return p
}

// logTimeout is how long a log line may take.
const logTimeout = 10 * time.Second

// waitForLines waits until the log has n lines that contain a word, and returns them.
func (p *process) waitForLines(t *testing.T, n int, word string) []string {
	t.Helper()

	deadline := time.After(logTimeout)
	for {
		lines := p.log.matching(word)
		if len(lines) >= n {
			return lines
		}

		select {
		case <-p.exited:
			t.Fatalf("the exporter ended with %v, but %d lines contain %q, want %d:\n%s",
				p.err, len(lines), word, n, p.log)
		case <-deadline:
			t.Fatalf("%d lines contain %q within %s, want %d:\n%s", len(lines), word, logTimeout, n, p.log)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// wait waits for a log line that contains a word, and returns it.
func (p *process) wait(t *testing.T, word string) string {
	t.Helper()
	return p.waitForLines(t, 1, word)[0]
}

// waitForReload waits for the log line with the outcome of the nth reload, which must contain a
// message.
func (p *process) waitForReload(t *testing.T, n int, message string) {
	t.Helper()

	outcome := p.waitForLines(t, n, "reloaded")[n-1]
	if !strings.Contains(outcome, message) {
		t.Fatalf("the log has %q, want %s", outcome, message)
	}
}

// waitForURL waits until the exporter listens, and returns its URL.
func (p *process) waitForURL(t *testing.T) string {
	t.Helper()

	m := regexp.MustCompile(`address=(\S+)`).FindStringSubmatch(p.wait(t, `msg="Listening on"`))
	if m == nil {
		t.Fatalf("the exporter does not log its address:\n%s", p.log)
	}
	return "http://" + m[1]
}

func (p *process) signal(t *testing.T, signal os.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(signal); err != nil {
		t.Fatal(err)
	}
}

// startInProcess runs the exporter inside the test, where the test decides what DNS answers.
func startInProcess(t *testing.T, args ...string) *process {
	t.Helper()

	ctx, cancel := context.WithCancel(context.Background())
	p := &process{log: &logLines{}, exited: make(chan struct{})}
	go func() {
		defer close(p.exited)
		p.err = run(ctx, append([]string{"--web.listen-address=127.0.0.1:0"}, args...), io.Discard, p.log)
	}()
	t.Cleanup(func() {
		cancel()
		<-p.exited
		if p.err != nil {
			t.Errorf("the exporter ended with %v", p.err)
		}
	})

	p.url = p.waitForURL(t)
	return p
}

// logLines keeps what is written to it.
type logLines struct {
	mu   sync.Mutex
	text []byte
}

// Write implements io.Writer.
func (l *logLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = append(l.text, p...)
	return len(p), nil
}

// String implements fmt.Stringer.
func (l *logLines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.text)
}

// matching returns the complete lines that contain a word.
func (l *logLines) matching(word string) []string {
	var lines []string
	for line := range strings.Lines(l.String()) {
		if strings.Contains(line, word) && strings.HasSuffix(line, "\n") {
			lines = append(lines, line)
		}
	}
	return lines
}

// page is a metrics page: the value of each series by its name, with sorted labels.
type page map[string]float64

// client sends the requests of the tests themselves.
var client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

// scrape gets the metrics page of the exporter at url.
func scrape(t *testing.T, url string) page {
	t.Helper()

	p, err := tryScrape(t.Context(), url+"/metrics", 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// tryScrape gets a metrics page as a Prometheus with the given scrape timeout does.
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
		return nil, errors.New(resp.Status)
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

// with returns the series whose name begins with prefix.
func (p page) with(prefix string) page {
	selected := page{}
	for series, v := range p {
		if strings.HasPrefix(series, prefix) {
			selected[series] = v
		}
	}
	return selected
}

// gauges returns the gauges of stores, without operator_store_info.
func (p page) gauges() page {
	selected := page{}
	for series, v := range p.with("operator_store_") {
		if strings.Contains(series, "address=") && !strings.HasPrefix(series, "operator_store_info{") {
			selected[series] = v
		}
	}
	return selected
}

// scriptedUpstream answers every query about one store so that each of its gauges has a value.
func scriptedUpstream(w http.ResponseWriter, r *http.Request) {
	target := map[string]string{"job": "tikv", "instance": "tikv-0:20180"}
	if strings.HasSuffix(r.URL.Path, "/series") {
		_ = json.NewEncoder(w).Encode(map[string]any{"status": "success", "data": []any{target}})
		return
	}

	now := float64(time.Now().UnixMilli()) / 1000

	series := func(value, label, labelValue string) map[string]any {
		metric := map[string]string{"job": target["job"], "instance": target["instance"]}
		if label != "" {
			metric[label] = labelValue
		}
		return map[string]any{"metric": metric, "value": []any{now, value}}
	}
	query := r.FormValue("query")
	if isRange(query) {
		var values []any
		for age := 60; age >= 0; age -= 15 {
			values = append(values, []any{now - float64(age), "1"})
		}
		series := map[string]any{"metric": target, "values": values}
		data := map[string]any{"resultType": "matrix", "result": []any{series}}
		_ = json.NewEncoder(w).Encode(map[string]any{"status": "success", "data": data})
		return
	}

	var result []any
	switch {
	case strings.Contains(query, "pd_scheduler_store_status"):
		result = []any{} // PD is not scraped.
	case strings.Contains(query, "_bucket"):
		result = []any{series("90", "le", "1"), series("100", "le", "+Inf")}
	case strings.Contains(query, "by (job, instance, type)"):
		result = []any{series("1", "type", "used"), series("2", "type", "available"), series("4", "type", "capacity")}
	default:
		result = []any{series("1", "", "")}
	}
	data := map[string]any{"resultType": "vector", "result": result}
	_ = json.NewEncoder(w).Encode(map[string]any{"status": "success", "data": data})
}

// isRange reports whether a query is for raw samples within a range, as those of the discovery that
// learn the scrape interval.
func isRange(query string) bool { return strings.HasSuffix(query, "]") }

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

	path := t.TempDir() + "/" + name
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// names resolves the host name of the tests.
var names = &nameServer{}

// testHost is the only host name that the tests can resolve, to 127.0.0.1.
const testHost = "upstream.test"

// nameServer is a DNS server without a socket.
type nameServer struct {
	mu    sync.Mutex
	known bool // Whether testHost can be resolved.
}

// set makes testHost known or unknown.
func (s *nameServer) set(known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known = known
}

// isKnown reports whether testHost is known.
func (s *nameServer) isKnown() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.known
}

// dial connects a resolver to the server.
func (s *nameServer) dial(context.Context, string, string) (net.Conn, error) {
	server, resolver := net.Pipe()
	go func() {
		defer func() { _ = server.Close() }()

		for s.respond(server) == nil {
		}
	}()
	return resolver, nil
}

// respond reads one question, which the length precedes as over TCP, and responds to it.
func (s *nameServer) respond(conn net.Conn) error {
	buf := make([]byte, 2+512)
	n, err := conn.Read(buf)
	if err != nil || n < 2 {
		return errors.Join(err, errors.New("no question"))
	}
	var parser dnsmessage.Parser
	header, err := parser.Start(buf[2:n])
	if err != nil {
		return err
	}
	question, err := parser.Question()
	if err != nil {
		return err
	}

	known := s.isKnown() && question.Name.String() == testHost+"."
	header.Response = true
	if !known {
		header.RCode = dnsmessage.RCodeNameError
	}
	message := dnsmessage.Message{Header: header, Questions: []dnsmessage.Question{question}}
	if known && question.Type == dnsmessage.TypeA {
		message.Answers = []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: question.Name, Class: question.Class},
			Body:   &dnsmessage.AResource{A: [4]byte{127, 0, 0, 1}},
		}}
	}
	packed, err := message.Pack()
	if err != nil {
		return err
	}

	_, err = conn.Write(append([]byte{byte(len(packed) >> 8), byte(len(packed))}, packed...))

	return err
}
