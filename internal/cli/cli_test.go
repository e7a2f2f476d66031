// SPDX-License-Identifier: Apache-2.0

package cli_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"go.uber.org/goleak"
	"go.yaml.in/yaml/v4"

	"github.com/operator-store/operator_store_exporter/internal/cli"
	"github.com/operator-store/operator_store_exporter/internal/gauge"
	"github.com/operator-store/operator_store_exporter/internal/promtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// closedPort is a URL at which nobody listens.
const closedPort = "http://127.0.0.1:1"

// run runs the command that args name.
func run(ctx context.Context, stdout io.Writer, args ...string) error {
	app := kingpin.New("test", "")
	flags := cli.AddConfigFlags(app)
	checkConfig := cli.AddCheckConfig(app)
	stores := cli.AddStores(app, flags)
	doctor := cli.AddDoctor(app, flags)
	rules := cli.AddRules(app, flags)

	command, err := app.Parse(args)
	if err != nil {
		return err
	}

	switch command {
	case "check-config":
		return checkConfig.Run(stdout)
	case "stores":
		return stores.Run(ctx, stdout)
	case "doctor":
		return doctor.Run(ctx, stdout)
	default:
		return rules.Run(ctx, stdout)
	}
}

// startUpstream starts a Prometheus that scrapes TiKV every 15s, and returns its URL.
func startUpstream(t *testing.T, instances ...string) string {
	t.Helper()

	p := promtest.Prometheus{ScrapeInterval: 15 * time.Second}
	for _, instance := range instances {
		p.Targets = append(p.Targets, promtest.TiKV(instance))
	}

	return p.Start(t)
}

// writeFile writes a file in a folder of the test, and returns its path.
func writeFile(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.yml")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}

	return path
}

// requireError fails the test unless err has exactly the wanted text.
func requireError(t *testing.T, err error, want string) {
	t.Helper()
	if err == nil || err.Error() != want {
		t.Errorf("the error is\n%v\nwant\n%s", err, want)
	}
}

// requireMatches fails the test unless every pattern matches out.
func requireMatches(t *testing.T, out string, patterns ...string) {
	t.Helper()

	for _, pattern := range patterns {
		if !regexp.MustCompile(pattern).MatchString(out) {
			t.Errorf("nothing matches %s in\n%s", pattern, out)
		}
	}
}

func TestInvalidConfigFlags(t *testing.T) {
	file := writeFile(t, "clusters:\n- {name: a, upstream: {url: 'http://127.0.0.1:1'}}\n")
	const conflict = "--cluster and --upstream.url can't be combined with --config.file: move them into the file"

	for _, tc := range []struct {
		name string
		args []string
		want string
	}{
		{
			name: "file and upstream",
			args: []string{"--config.file=" + file, "--upstream.url=http://a"},
			want: conflict,
		},
		{
			name: "file and cluster",
			args: []string{"--config.file=" + file, "--cluster=a"},
			want: conflict,
		},
		{
			name: "file and cluster with its default name",
			args: []string{"--config.file=" + file, "--cluster=default"},
			want: conflict,
		},
		{
			name: "durations that are not positive, reported in a fixed order",
			args: []string{"--discovery.interval=-5s", "--discovery.lookback=0s"},
			want: "--discovery.lookback=0s: must be a positive duration\n" +
				"--discovery.interval=-5s: must be a positive duration",
		},
		{
			name: "file that does not exist",
			args: []string{"--config.file=/nowhere/c.yml"},
			want: "read config file: open /nowhere/c.yml: no such file or directory",
		},
	} {
		for _, command := range []string{"stores", "doctor", "rules"} {
			t.Run(tc.name+" "+command, func(t *testing.T) {
				err := run(t.Context(), io.Discard, append([]string{command}, tc.args...)...)

				requireError(t, err, tc.want)
			})
		}
	}
}

func TestInvalidSingleCluster(t *testing.T) {
	for _, args := range [][]string{
		{"rules", "--cluster="},
		{"rules", "--upstream.url=localhost:9090"},
	} {
		err := run(t.Context(), io.Discard, args...)

		if err == nil || !strings.Contains(err.Error(), "with --upstream.url: ") {
			t.Errorf("%q: the error is %v, want one about the flags", args, err)
		}
	}
}

func TestCheckConfig(t *testing.T) {
	t.Run("valid file", func(t *testing.T) {
		file := writeFile(t, "clusters:\n"+
			"- {name: prod, upstream: {url: 'http://a'}}\n"+
			"- {name: staging, upstream: {url: 'http://b'}}\n")
		var out bytes.Buffer

		if err := run(t.Context(), &out, "check-config", file); err != nil {
			t.Fatal(err)
		}

		want := file + ` is valid: 2 cluster(s) ["prod" "staging"]` + "\n"
		if out.String() != want {
			t.Errorf("the output is %q, want %q", &out, want)
		}
	})
	t.Run("several mistakes", func(t *testing.T) {
		file := writeFile(t, "clusters:\n- name: a\n  upstream: {url: 'http://a'}\n  selectr: x\n  rate_window: 1\n")

		err := run(t.Context(), io.Discard, "check-config", file)

		if err == nil {
			t.Fatal("the file is accepted")
		}
		requireMatches(t, err.Error(), `(?m)^\S+config\.yml:4: .*selectr`, `(?m)^\S+config\.yml:5: .*"1"`)
	})
	t.Run("certificate that does not exist", func(t *testing.T) {
		file := writeFile(t,
			"clusters:\n- {name: a, upstream: {url: 'http://a', tls_config: {ca_file: nowhere.pem}}}\n")

		err := run(t.Context(), io.Discard, "check-config", file)

		if err == nil {
			t.Fatal("the file is accepted")
		}
		requireMatches(t, err.Error(), `config\.yml: cluster "a": .*nowhere\.pem`)
	})
	t.Run("help of a built-in gauge", func(t *testing.T) {
		file := writeFile(t, "clusters:\n- name: a\n  upstream: {url: 'http://a'}\n  metrics:\n"+
			"  - {name: operator_store_qps, help: X., expr: x}\n")

		err := run(t.Context(), io.Discard, "check-config", file)

		if err == nil {
			t.Fatal("the file is accepted")
		}
		requireMatches(t, err.Error(), `config\.yml: cluster "a": line 5: operator_store_qps is built in`)
	})
}

func TestStores(t *testing.T) {
	upstream := startUpstream(t, "a:20180", "b:20180")
	oneDown := writeFile(t, fmt.Sprintf("clusters:\n- {name: prod, upstream: {url: %q}}\n"+
		"- {name: down, upstream: {url: %q}}\n", upstream, closedPort))

	for _, tc := range []struct {
		name string
		args []string
		err  error
		want []string // Patterns.
	}{
		{
			name: "single cluster",
			args: []string{"--upstream.url=" + upstream},
			want: []string{
				`(?m)^CLUSTER +ID +ADDRESS +UP +MONITORED +QPS `,
				`(?m)^default +a:20180 +up +yes +1 `,
				`(?m)^default +b:20180 +up +yes +1 `,
				`(?m)^2 stores of 1 cluster, all queries succeeded$`,
			},
		},
		{
			name: "other upstream is down",
			args: []string{"--config.file=" + oneDown},
			err:  cli.ErrIncomplete,
			want: []string{
				`(?m)^prod +a:20180 +up `,
				`(?m)^! query "targets" of cluster "down" failed: .*connection refused`,
				`(?m)^2 stores of 2 clusters, 1 problem$`,
			},
		},
		{
			name: "every upstream is down",
			args: []string{"--upstream.url=" + closedPort},
			err:  cli.ErrIncomplete,
			want: []string{`^! query .*connection refused.*\n0 stores of 1 cluster, 1 problem\n$`},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var out bytes.Buffer

			err := run(t.Context(), &out, append([]string{"stores"}, tc.args...)...)

			if !errors.Is(err, tc.err) {
				t.Errorf("the error is %v, want %v", err, tc.err)
			}
			requireMatches(t, out.String(), tc.want...)
			if strings.Contains(out.String(), "\x1b") {
				t.Errorf("the output has colors, but is not a terminal:\n%s", &out)
			}
		})
	}
}

func TestStoresJSON(t *testing.T) {
	upstream := startUpstream(t, "a:20180")
	var out bytes.Buffer
	if err := run(t.Context(), &out, "stores", "-o", "json", "--upstream.url="+upstream); err != nil {
		t.Fatal(err)
	}

	var document struct{ Stores []map[string]any }
	if err := json.Unmarshal(out.Bytes(), &document); err != nil {
		t.Fatal(err)
	}
	if len(document.Stores) != 1 || document.Stores[0]["address"] != "a:20180" || document.Stores[0]["qps"] != 1.0 {
		t.Errorf("the stores are %v, want a:20180 with 1 command per second", document.Stores)
	}
}

func TestStoresTimeout(t *testing.T) {
	upstream := promtest.Prometheus{
		Targets: []promtest.Target{promtest.TiKV("a:20180")},
		Intercept: func(_ http.ResponseWriter, r *http.Request, query string) bool {
			if !strings.Contains(query, "process_cpu_seconds_total") {
				return false
			}
			<-r.Context().Done()

			return true
		},
	}
	var out bytes.Buffer

	err := run(t.Context(), &out, "stores", "--timeout=300ms", "--upstream.url="+upstream.Start(t))

	if !errors.Is(err, cli.ErrIncomplete) {
		t.Errorf("the error is %v, want %v", err, cli.ErrIncomplete)
	}
	requireMatches(t, out.String(), `(?m)^default +a:20180 +up `, `(?m)^! query "cpu_seconds" .*in time`)
}

func TestStoresInvalidDurations(t *testing.T) {
	err := run(t.Context(), io.Discard, "stores", "--timeout=-1s", "--watch.interval=0s")

	requireError(t, err, "--watch.interval=0s: must be a positive duration\n"+
		"--timeout=-1s: must be a positive duration")
}

// output is a Writer that a running command and the test share.
type output struct {
	mu      sync.Mutex
	content bytes.Buffer
}

// Write implements io.Writer.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()

	return o.content.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()

	return o.content.String()
}

func TestStoresWatch(t *testing.T) {
	for name, upstream := range map[string]string{
		"upstream responds": startUpstream(t, "a:20180"),
		"upstream is down":  closedPort,
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()

			out := &output{}
			done := make(chan error, 1)
			go func() {
				done <- run(ctx, out, "stores", "--watch", "--watch.interval=10ms", "--upstream.url="+upstream)
			}()

			const timeout = 10 * time.Second
			start := time.Now()
			for strings.Count(out.String(), " of 1 cluster, ") < 3 {
				if time.Since(start) > timeout {
					t.Fatalf("less than 3 scrapes within %s:\n%s", timeout, out)
				}
				time.Sleep(time.Millisecond)
			}
			cancel()

			if err := <-done; err != nil {
				t.Errorf("the error is %v, want none", err)
			}
		})
	}
}

var errClosed = errors.New("closed")

type closedWriter struct{}

// Write implements io.Writer.
func (closedWriter) Write([]byte) (int, error) { return 0, errClosed }

func TestStoresCannotBePrinted(t *testing.T) {
	upstream := startUpstream(t, "a:20180")
	for _, args := range [][]string{{"stores"}, {"stores", "-o", "json"}, {"stores", "--watch"}} {
		err := run(t.Context(), closedWriter{}, append(args, "--upstream.url="+upstream)...)

		if !errors.Is(err, errClosed) {
			t.Errorf("%q: the error is %v, want %v", args, err, errClosed)
		}
	}
}

func TestDoctor(t *testing.T) {
	upstream := startUpstream(t, "a:20180")
	file := writeFile(t, fmt.Sprintf("clusters:\n- {name: prod, upstream: {url: %q}}\n"+
		"- {name: down, upstream: {url: %q}}\n- {name: too, upstream: {url: %q}}\n", upstream, closedPort, closedPort))

	t.Run("no failed check", func(t *testing.T) {
		var out bytes.Buffer
		if err := run(t.Context(), &out, "doctor", "--upstream.url="+upstream); err != nil {
			t.Errorf("the error is %v, want none", err)
		}
		requireMatches(t, out.String(),
			`^cluster "default"\n  ok    upstream      http://\S+ responds in `,
			`(?m)^  ok    rate_window   TiKV is scraped every 15s`,
		)
	})
	t.Run("one failed check", func(t *testing.T) {
		var out bytes.Buffer
		requireError(t, run(t.Context(), &out, "doctor", "--upstream.url="+closedPort), "1 check failed")
		requireMatches(t, out.String(), `^cluster "default"\n  FAIL  upstream      .*connection refused.*\n$`)
	})
	t.Run("several clusters", func(t *testing.T) {
		var out bytes.Buffer
		requireError(t, run(t.Context(), &out, "doctor", "--config.file="+file), "2 checks failed")
		requireMatches(t, out.String(),
			`(?m)^cluster "prod"\n  ok `,
			`(?m)^cluster "down"\n  FAIL  upstream `,
			`(?m)^cluster "too"\n  FAIL  upstream `,
		)
	})
	t.Run("interrupted", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := run(ctx, io.Discard, "doctor", "--upstream.url="+upstream); !errors.Is(err, context.Canceled) {
			t.Errorf("the error is %v, want %v", err, context.Canceled)
		}
	})
}

// A query of the scrape that fails is a failed check.
func TestDoctorFailedQuery(t *testing.T) {
	upstream := promtest.Prometheus{
		Targets:        []promtest.Target{promtest.TiKV("a:20180")},
		ScrapeInterval: 15 * time.Second,
		Intercept: func(w http.ResponseWriter, _ *http.Request, query string) bool {
			if !strings.Contains(query, "tikv_storage_command_total") {
				return false
			}
			promtest.Fail(w, http.StatusUnprocessableEntity, "execution", "made to fail")

			return true
		},
	}
	var out bytes.Buffer

	err := run(t.Context(), &out, "doctor", "--upstream.url="+upstream.Start(t))

	requireError(t, err, "1 check failed")
	requireMatches(t, out.String(), `(?m)^  FAIL  queries       query "storage_commands" .*made to fail`)
}

func TestDoctorHidesControlCharacters(t *testing.T) {
	upstream := promtest.Prometheus{Intercept: func(w http.ResponseWriter, _ *http.Request, _ string) bool {
		promtest.Fail(w, http.StatusUnprocessableEntity, "execution", "\x1b[2J")

		return true
	}}
	var out bytes.Buffer

	err := run(t.Context(), &out, "doctor", "--upstream.url="+upstream.Start(t))

	requireError(t, err, "1 check failed")
	if strings.Contains(out.String(), "\x1b") {
		t.Errorf("the output has the escape character of upstream: %q", &out)
	}
}

func TestRules(t *testing.T) {
	file := writeFile(t, "clusters:\n"+
		"- {name: prod, upstream: {url: 'http://a'}, rate_window: 5m}\n"+
		"- {name: staging, upstream: {url: 'http://b'}, rate_window: 5m, selector: '{job=\"tikv\"}'}\n")
	var out bytes.Buffer
	if err := run(t.Context(), &out, "rules", "--config.file="+file, "--discovery.lookback=2h"); err != nil {
		t.Fatal(err)
	}

	var rules struct {
		Groups []struct {
			Name  string
			Rules []struct{ Record, Expr string }
		}
	}
	if err := yaml.Load(out.Bytes(), &rules); err != nil {
		t.Fatal(err)
	}
	if len(rules.Groups) != 2 || len(rules.Groups[0].Rules) != len(gauge.Builtin()) {
		t.Fatalf("the rules are %v, want two groups with a rule per gauge", rules)
	}
	requireMatches(t, out.String(),
		`name: operator_store_prod`, `name: operator_store_staging`, `\[2h\]`, `job="tikv"`, `\[5m\]`)
}

// With the default rate window, the rules have one that fits upstream's scrape interval.
func TestRulesOfUnknownRateWindow(t *testing.T) {
	for _, tc := range []struct {
		name     string
		interval time.Duration
		want     string
	}{
		{name: "15s", interval: 15 * time.Second, want: `tikv_storage_command_total\[1m\]`},
		{name: "30s", interval: 30 * time.Second, want: `tikv_storage_command_total\[2m\]`},
		{name: "1m", interval: time.Minute, want: `tikv_storage_command_total\[4m\]`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			upstream := promtest.Prometheus{
				Targets: []promtest.Target{promtest.TiKV("a:20180")}, ScrapeInterval: tc.interval,
			}
			var out bytes.Buffer
			if err := run(t.Context(), &out, "rules", "--upstream.url="+upstream.Start(t)); err != nil {
				t.Fatal(err)
			}
			requireMatches(t, out.String(), tc.want)
		})
	}

	const hint = `: set rate_window in the configuration, or make upstream reachable$`
	for _, tc := range []struct {
		name string
		url  string
		want string
	}{
		{name: "nobody listens", url: closedPort, want: `connection refused.*` + hint},
		{name: "no targets", url: startUpstream(t), want: `no TiKV target with at least two samples` + hint},
		{
			name: "one sample",
			url:  promtest.Prometheus{Targets: []promtest.Target{promtest.TiKV("a:20180")}}.Start(t),
			want: `no TiKV target with at least two samples` + hint,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var out bytes.Buffer
			err := run(t.Context(), &out, "rules", "--upstream.url="+tc.url)
			if err == nil || out.Len() > 0 {
				t.Fatalf("got the error %v and the output %q, want only an error", err, &out)
			}
			requireMatches(t, err.Error(), `^cluster "default": rate_window is auto, `, tc.want)
		})
	}
}

func TestRulesOfInvalidGauge(t *testing.T) {
	file := writeFile(t, "clusters:\n- name: a\n  upstream: {url: 'http://a'}\n  metrics:\n"+
		"  - {name: operator_store_qps, help: X., expr: x}\n")

	err := run(t.Context(), io.Discard, "rules", "--config.file="+file)

	if err == nil {
		t.Fatal("the file is accepted")
	}
	requireMatches(t, err.Error(), `^cluster "a": line 5: operator_store_qps is built in`)
}
