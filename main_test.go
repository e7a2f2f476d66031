// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/operator-store/operator_store_exporter/testdata/stack"
)

func TestBadInputIsToldWithItsPlaceAndNothingIsServed(t *testing.T) {
	const head = "clusters:\n- name: a\n  upstream: {url: 'http://127.0.0.1:1'}\n"
	for _, tc := range []struct{ name, content, want string }{
		{"unknown field", head + "  selectr: x\n", `c.yml:4: unknown field "selectr"`},
		{"duplicate cluster", head + "- name: a\n  upstream: {url: 'http://b'}\n", `c.yml:4: duplicate cluster "a"`},
		{"duplicate store", head + "  stores:\n  - address: x\n  - address: x\n", `c.yml:6: duplicate store: address "x"`},
		{"bad url", "clusters:\n- name: a\n  upstream: {url: 'localhost:9090'}\n", `c.yml:3: bad url "localhost:9090"`},
		{"bad selector", head + "  selector: '{'\n", `c.yml:4: bad selector {`},
		{"bad duration", head + "  rate_window: 1\n", `c.yml:4: bad duration "1"`},
		{"address with quotes", head + "  stores:\n  - address: 'a\"b'\n", `c.yml:5: bad address "a\"b"`},
		{"address with braces", head + "  stores:\n  - address: 'a{b}'\n", `c.yml:5: bad address "a{b}"`},
		{"certificate that is not there", "clusters:\n- name: a\n  upstream: {url: 'http://b', tls_config: {ca_file: nowhere.pem}}\n", `nowhere.pem`},
	} {
		file := writeFile(t, "c.yml", tc.content)
		for _, args := range [][]string{{"check-config", file}, {"--config.file=" + file, "--web.listen-address=127.0.0.1:0"}} {
			t.Run(tc.name+" "+args[0][:5], func(t *testing.T) {
				cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
				cmd.Env = append(os.Environ(), asExporter+"=1")
				out, err := cmd.CombinedOutput()
				if cmd.ProcessState.ExitCode() != 1 {
					t.Errorf("it ended with %v, want exit status 1", err)
				}
				if !strings.Contains(string(out), tc.want) {
					t.Errorf("it says\n%s\nwhich lacks %q", out, tc.want)
				}
				if strings.Contains(string(out), "Listening") {
					t.Errorf("it listened:\n%s", out)
				}
			})
		}
	}
}

func TestCheckConfig(t *testing.T) {
	file := writeFile(t, "c.yml", "clusters:\n- name: a\n  upstream: {url: 'http://127.0.0.1:1'}\n")
	var out bytes.Buffer
	if err := run(t.Context(), []string{"check-config", file}, &out, io.Discard); err != nil {
		t.Fatal(err)
	}
	if want := file + " is good: 1 cluster(s) [\"a\"]\n"; out.String() != want {
		t.Errorf("it says %q, want %q", out.String(), want)
	}
}

func TestFlagsThatDoNotGo(t *testing.T) {
	file := writeFile(t, "c.yml", "clusters:\n- name: a\n  upstream: {url: 'http://127.0.0.1:1'}\n")
	for _, tc := range []struct {
		name string
		args []string
		want string
	}{
		{"an unknown flag", []string{"--nope"}, "unknown long flag '--nope', try --help"},
		{"a file that is not there", []string{"--config.file=/nowhere/c.yml"}, "/nowhere/c.yml"},
		{"a file and an upstream", []string{"--config.file=" + file, "--upstream.url=http://a"}, "move them into the file"},
		{"a file and a cluster", []string{"--config.file=" + file, "--cluster=a"}, "move them into the file"},
		{"a bad upstream", []string{"--upstream.url=localhost:9090"}, `--upstream.url: bad url "localhost:9090"`},
		{"no name for the cluster", []string{"--cluster="}, "needs a name"},
		{"a bad path", []string{"--web.telemetry-path=x"}, "--web.telemetry-path=x"},
		{"a lookback of nothing", []string{"--discovery.lookback=0s"}, "--discovery.lookback=0s: write a positive duration"},
		{"a negative interval", []string{"--discovery.interval=-5s"}, "--discovery.interval=-5s"},
		{"a bad level", []string{"--log.level=loud"}, "loud"},
		{"an address that cannot be listened at", []string{"--web.listen-address=256.0.0.1:1"}, "256.0.0.1"},
		{"a web config that is not there", []string{"--web.config.file=/nowhere/web.yml"}, "/nowhere/web.yml"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := run(t.Context(), append([]string{"--web.listen-address=127.0.0.1:0"}, tc.args...), io.Discard, io.Discard)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("the error is %v, want one with %q", err, tc.want)
			}
		})
	}
}

// startProcess starts the exporter as a process of its own.
func startProcess(t *testing.T, args ...string) *stack.Process {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], append([]string{"--web.listen-address=127.0.0.1:0"}, args...)...)
	cmd.Env = append(os.Environ(), asExporter+"=1")
	p, err := stack.Start(t.Context(), "the exporter", cmd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Kill() })
	return p
}

func TestSIGTERMLetsAScrapeFinishAndExitsWithZero(t *testing.T) {
	upstream := startFleet(t, 1)
	asked, gate := make(chan struct{}), make(chan struct{})
	var once sync.Once
	_, address := startProxy(t, upstream.URL, func(form url.Values) http.HandlerFunc {
		if strings.HasPrefix(form.Get("query"), "up{") {
			once.Do(func() { close(asked) })
			<-gate
		}
		return nil
	})
	exporter := startProcess(t, "--upstream.url="+address)
	type result struct {
		page page
		err  error
	}
	done := make(chan result, 1)
	go func() {
		page, err := tryScrape(t.Context(), exporter.URL+"/metrics", time.Minute)
		done <- result{page, err}
	}()
	<-asked
	if err := exporter.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	until(t, "the exporter to stop", func(context.Context) (bool, error) {
		return strings.Contains(exporter.Log(), "Stopping"), nil
	})
	close(gate)
	r := <-done
	if n := len(r.page.with("operator_store_", "address=")); r.err != nil || n != perStore {
		t.Errorf("the scrape under way got %d gauges and the error %v, want %d", n, r.err, perStore)
	}
	<-exporter.Exited()
	if err := exporter.Stop(); err != nil {
		t.Errorf("it ended with %v, want exit status 0:\n%s", err, exporter.Log())
	}
}

func TestReload(t *testing.T) {
	const one = "clusters:\n- name: one\n  upstream: {url: 'http://127.0.0.1:1'}\n"
	const two = one + "- name: two\n  upstream: {url: 'http://127.0.0.1:1'}\n"
	const (
		successful = "operator_store_exporter_config_last_reload_successful"
		timestamp  = "operator_store_exporter_config_last_reload_success_timestamp_seconds"
	)
	clusters := func(p page) int { return len(p.with("operator_store_exporter_upstream_up{")) }
	post := func(t *testing.T, exporter *stack.Process) (string, error) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, exporter.URL+"/-/reload", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			return "", err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		return fmt.Sprintf("%d %s", resp.StatusCode, body), err
	}
	for _, tc := range []struct {
		name   string
		reload func(*testing.T, *stack.Process, string) // Returns when the log has the line.
	}{
		{"by SIGHUP", func(t *testing.T, p *stack.Process, line string) {
			if err := p.Signal(syscall.SIGHUP); err != nil {
				t.Fatal(err)
			}
			until(t, line, func(context.Context) (bool, error) { return strings.Contains(p.Log(), line), nil })
		}},
		{"by POST", func(t *testing.T, p *stack.Process, line string) {
			body, err := post(t, p)
			if err != nil || !strings.HasPrefix(body, map[bool]string{true: "500", false: "200"}[strings.Contains(line, "not")]) {
				t.Errorf("the answer is %q, error %v", body, err)
			}
			until(t, line, func(context.Context) (bool, error) { return strings.Contains(p.Log(), line), nil })
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			file := writeFile(t, "c.yml", one)
			exporter := startProcess(t, "--config.file="+file, "--web.enable-lifecycle")
			before := scrape(t, exporter.URL+"/metrics", 5*time.Second)
			if clusters(before) != 1 || before[successful] != 1 || before[timestamp] == 0 {
				t.Fatalf("%d clusters, successful %g", clusters(before), before[successful])
			}
			write := func(content string) {
				if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			write("clusters:\n- name: [\n")
			tc.reload(t, exporter, "The configuration was not reloaded, the old one stays in use")
			bad := scrape(t, exporter.URL+"/metrics", 5*time.Second)
			if clusters(bad) != 1 || bad[successful] != 0 || bad[timestamp] != before[timestamp] {
				t.Errorf("after a bad file: %d clusters, successful %g, at %g", clusters(bad), bad[successful], bad[timestamp])
			}
			if !regexp.MustCompile(`c\.yml:[0-9]+: `).MatchString(exporter.Log()) {
				t.Errorf("the log lacks the place of the mistake:\n%s", exporter.Log())
			}
			write(two)
			tc.reload(t, exporter, `"The configuration was reloaded"`)
			good := scrape(t, exporter.URL+"/metrics", 5*time.Second)
			if clusters(good) != 2 || good[successful] != 1 || good[timestamp] <= before[timestamp] {
				t.Errorf("after a good file: %d clusters, successful %g, at %g", clusters(good), good[successful], good[timestamp])
			}
			// What was counted before is counted still.
			const failed = `operator_store_exporter_query_failures_total{cluster="one", query="targets", reason="connection"}`
			if good[failed] <= bad[failed] || bad[failed] <= before[failed] {
				t.Errorf("failures counted: %g, %g, %g", before[failed], bad[failed], good[failed])
			}
		})
	}
}
