// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/operator-store/operator_store_exporter/e2e/simulator"
	"github.com/operator-store/operator_store_exporter/e2e/stack"
	"github.com/operator-store/operator_store_exporter/internal/doctest"
)

// doctorCase is a mistake and what the doctor command prints about it.
type doctorCase struct {
	name   string
	config string
	want   string // A pattern of the output.
	warns  bool   // The command only warns, and succeeds.
	fixed  string // The configuration after following the hint, unless the hint is about something else.
}

// checkLine is a line of the doctor command with the name of a check.
var checkLine = regexp.MustCompile(`(?m)^  (?:ok  |warn|FAIL)  (\S+)`)

// The doctor command names each mistake, and its hint fixes it.
func TestDoctor(t *testing.T) {
	t.Parallel()

	checks := map[string]bool{}
	for _, tc := range doctorCases(t) {
		t.Run(tc.name, func(t *testing.T) {
			out, err := runDoctor(t, tc.config)
			if (err == nil) != tc.warns {
				t.Errorf("the command ended with %v", err)
			}

			for _, check := range checkLine.FindAllStringSubmatch(out, -1) {
				checks[check[1]] = true
			}
			if !regexp.MustCompile(tc.want).MatchString(out) {
				t.Errorf("nothing matches %s in\n%s", tc.want, out)
			}
			if tc.fixed == "" {
				return
			}

			until(t, "the hint to help: "+tc.fixed, func(context.Context) (bool, error) {
				out, err := runDoctor(t, tc.fixed) //nolint:contextcheck // It uses the context of the test.
				return err == nil && !strings.Contains(out, "warn"), fmt.Errorf("the doctor prints %s", out)
			})
		})
	}
	doctest.RequireSameSet(t, "docs/commands.md", doctest.FirstCells(doctest.Read(t, "docs/commands.md")),
		slices.Collect(maps.Keys(checks)))
}

// doctorCases starts the servers of the mistakes.
func doctorCases(t *testing.T) []doctorCase {
	t.Helper()

	const nobody = "http://127.0.0.1:1"
	upstream := launchVersions(t,
		map[string]simulator.Version{"tikv-1": simulator.V7, "tikv-3.tikv-peer": simulator.V7, "new": simulator.V8},
		stack.Target{Job: "node", Instance: "tikv-1:9100", Address: stack.Host(nobody), Path: "/metrics"},
		stack.Target{Job: "tikv", Instance: "dead:20180", Address: stack.Host(nobody), Path: "/metrics"})
	old := launchVersions(t, map[string]simulator.Version{"old": simulator.V4})

	sharedHost := launchVersions(t, map[string]simulator.Version{
		"shared:20180": simulator.V7, "shared:20181": simulator.V7,
	})
	withoutTiKV := startWithoutTiKV(t)
	locked := startLocked(t)
	for _, f := range []*fleet{upstream, old, sharedHost} {
		f.wait(t)
	}

	ahead := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		const format = `{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[%d,"1"]}]}}`
		fmt.Fprintf(w, format, time.Now().Add(time.Minute).Unix())
	}))

	cluster := func(url, fields string) string {
		return fmt.Sprintf("clusters:\n- name: prod\n  upstream: {url: %q}\n%s", url, fields)
	}
	withPassword := func(url, password string) string {
		const format = "clusters:\n- name: prod\n  upstream: {basic_auth: {username: u, password: %s}, url: %q}\n"
		return fmt.Sprintf(format, password, url)
	}
	good := cluster(upstream.URL, "")

	return []doctorCase{
		{
			name:   "nobody listens",
			config: cluster(nobody, ""),
			want:   `FAIL  upstream .*http://127\.0\.0\.1:1/.*connection refused: is it running, and is url right\?`,
			fixed:  good,
		},
		{
			name:   "another server listens",
			config: cluster(serve(t, http.NotFoundHandler()), ""),
			want:   `FAIL  upstream .* 404 .*does url point at the right API\?`,
			fixed:  good,
		},
		{
			name:   "missing password",
			config: cluster(locked, ""),
			want:   `FAIL  upstream .* 401 .*basic_auth`,
			fixed:  withPassword(locked, "fakepassword"),
		},
		{
			name:   "wrong password",
			config: withPassword(locked, "wrong"),
			want:   `FAIL  upstream .* 401 .*basic_auth`,
		},
		{
			name:   "upstream does not scrape TiKV",
			config: cluster(withoutTiKV.URL, ""),
			want: `FAIL  targets .*no series of TiKV from the last 1h; it scrapes the jobs "node": ` +
				`add the status address of each TiKV, usually port 20180, to its scrape_configs`,
		},
		{
			name:   "selector matches nothing",
			config: cluster(upstream.URL, "  selector: '{job=\"tidb\"}'\n"),
			want: `FAIL  targets .*selector \{job="tidb"\} matches no TiKV; ` +
				`without it, upstream has 3 TiKV targets, with job "tikv": correct selector`,
			fixed: cluster(upstream.URL, "  selector: '{job=\"tikv\"}'\n"),
		},
		{
			name:   "selector requires a label that does not exist",
			config: cluster(upstream.URL, "  selector: '{tidb_cluster=\"x\"}'\n"),
			want: `FAIL  targets .*without it, upstream has 3 TiKV targets, ` +
				`without the label tidb_cluster: correct selector`,
			fixed: good,
		},
		{
			name: "address matches no target",
			config: cluster(upstream.URL,
				"  stores: [{id: 1, address: \"tikv-1:20160\"}, {id: 3, address: \"tikv-3:20160\"}]\n"),
			want: `FAIL  stores .*no target matches "tikv-3:20160"; ` +
				`upstream has "tikv-3\.tikv-peer:20180": set instance`,
			fixed: cluster(upstream.URL, "  stores:\n"+
				"  - {id: 1, address: \"tikv-1:20160\"}\n"+
				"  - {id: 3, address: \"tikv-3:20160\", instance: \"tikv-3.tikv-peer:20180\"}\n"+
				"  - {address: \"new:20160\"}\n"),
		},
		{
			name:   "address is similar to no target",
			config: cluster(upstream.URL, "  stores: [{id: 1, address: \"10.1.1.1:20160\"}]\n"),
			want: `FAIL  stores .*no target matches "10\.1\.1\.1:20160"; upstream has these targets without a store: ` +
				`"new:20180", "tikv-1:20180", "tikv-3\.tikv-peer:20180": set instance`,
		},
		{
			name:   "address matches two targets",
			config: cluster(sharedHost.URL, "  stores: [{id: 1, address: \"shared:20160\"}]\n"),
			want: `FAIL  stores .*store "shared:20160" of cluster "prod" has no gauges: ` +
				`.*instance="shared:20180".* and .*instance="shared:20181".*set its instance`,
			fixed: cluster(sharedHost.URL, "  stores:\n"+
				"  - {id: 1, address: \"shared:20160\", instance: \"shared:20181\"}\n"+
				"  - {id: 2, address: \"shared:20161\", instance: \"shared:20180\"}\n"),
		},
		{
			name:   "TiKV that is not configured",
			config: cluster(upstream.URL, "  stores: [{id: 1, address: \"tikv-1:20160\"}]\n"),
			warns:  true,
			want:   `warn  stores .*not in stores: "new:20180", "tikv-3\.tikv-peer:20180": add them`,
			fixed:  good,
		},
		{
			name:   "rate window of one scrape",
			config: cluster(upstream.URL, "  rate_window: 1s\n"),
			want: `FAIL  rate_window .*TiKV is scraped every 1s, ` +
				`so a rate_window of 1s contains one sample: remove rate_window, so that it is automatic \(1m\)`,
			fixed: good,
		},
		{
			name:   "rate window of two scrapes",
			config: cluster(upstream.URL, "  rate_window: 3s\n"),
			warns:  true,
			want:   `warn  rate_window .*TiKV is scraped every 1s, .* rate_window of 3s .*: remove rate_window`,
			fixed:  good,
		},
		{
			name:   "range of one scrape in a custom gauge",
			config: cluster(upstream.URL, customGauge("rate(process_cpu_seconds_total[1s])")),
			want: `FAIL  rate_window .*TiKV is scraped every 1s, ` +
				`so a range of 1s in the expr of operator_store_x contains one sample: set it to 4s`,
			fixed: cluster(upstream.URL, customGauge("rate(process_cpu_seconds_total[4s])")),
		},
		{
			name:   "TiKV that does not export a metric",
			config: cluster(old.URL, "  rate_window: 10s\n"),
			warns:  true,
			want: `warn  gauges .*operator_store_cpu_cores is absent for "old:20180": ` +
				`no series \(TiKV before 5\.0\): upstream has no tikv_server_cpu_cores_quota: ` +
				`metrics can define another expression`,
		},
		{
			name:   "one of two servers is down",
			config: fmt.Sprintf("clusters:\n- {name: prod, upstream: {url: [%q, %q]}}\n", nobody, upstream.URL),
			warns:  true,
			want:   `warn  upstream .*http://127\.0\.0\.1:1/.*connection refused`,
			fixed:  good,
		},
		{
			name:   "wrong clock",
			config: cluster(ahead, ""),
			want: `warn  clock .*differs from the local clock by (59s|1m0s): ` +
				`synchronize both with the same NTP servers`,
		},
		{
			name:   "PD is down",
			config: cluster(upstream.URL, "  pd: {url: \""+nobody+"\"}\n"),
			want:   `FAIL  pd .*connection refused`,
			fixed:  good,
		},
	}
}

// customGauge returns the configuration of a custom gauge.
func customGauge(expression string) string {
	return fmt.Sprintf("  metrics: [{name: operator_store_x, help: X., expr: '%s'}]\n", expression)
}

// runDoctor runs the doctor command on a configuration.
func runDoctor(t *testing.T, config string) (string, error) {
	t.Helper()
	return runCommand(t, "doctor", "--config.file="+writeFile(t, "config.yml", config))
}

// startWithoutTiKV starts a Prometheus that scrapes only a node exporter.
func startWithoutTiKV(t *testing.T) *stack.Process {
	t.Helper()

	page := serve(t, respondWith(http.StatusOK, "node_load1 1\n"))
	target := stack.Target{Job: "node", Instance: "n:9100", Address: stack.Host(page), Path: "/metrics"}
	p := startPrometheus(t, "upstream without TiKV", time.Second, target)
	until(t, "the upstream to have scraped the node exporter", func(ctx context.Context) (bool, error) {
		s, err := query(ctx, p.URL, `up{job="node"} == 1`, "")
		return len(s) == 1, err
	})
	return p
}

// fakePasswordHash is the bcrypt hash of "fakepassword".
const fakePasswordHash = "$2y$10$QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi"

// startLocked starts a Prometheus that scrapes a TiKV and requires the password "fakepassword" of
// the user u. It returns the URL.
func startLocked(t *testing.T) string {
	t.Helper()

	f := newFleet(t)
	f.add("a", simulator.V7)
	if err := stack.Retarget(f.dir, time.Second, f.targets); err != nil {
		t.Fatal(err)
	}
	web := writeFile(t, "web.yml", fmt.Sprintf("basic_auth_users: {u: %q}\n", fakePasswordHash))
	p, err := stack.Start(t.Context(), "locked upstream", exec.CommandContext(t.Context(), prometheusBinary,
		"--config.file="+filepath.Join(f.dir, "prometheus.yml"), "--storage.tsdb.path="+filepath.Join(f.dir, "data"),
		"--web.listen-address=127.0.0.1:0", "--web.config.file="+web))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Kill() })
	return p.URL
}
