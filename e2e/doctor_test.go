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

// Each fault is made on purpose on real servers; the doctor names it, and what it advises makes the patient well.
func TestDoctor(t *testing.T) {
	upstream := startWatched(t, map[string]simulator.Version{"tikv-1": simulator.V7, "tikv-3.tikv-peer": simulator.V7, "new": simulator.V8},
		stack.Target{Job: "node", Instance: "tikv-1:9100", Address: "127.0.0.1:1", Path: "/metrics"},
		stack.Target{Job: "tikv", Instance: "dead:20180", Address: "127.0.0.1:1", Path: "/metrics"})
	old := startWatched(t, map[string]simulator.Version{"old": simulator.V4})
	bare := startPrometheus(t, "bare", time.Second, stack.Target{Job: "node", Instance: "n:9100", Address: stack.Host(upstream.URL), Path: "/metrics"})
	until(t, "the bare one to have a target", func(ctx context.Context) (bool, error) {
		s, err := query(ctx, bare.URL, `up{job="node"} == 1`, "")
		return len(s) == 1, err
	})
	locked := startLocked(t)
	twins := startWatched(t, map[string]simulator.Version{"twin:20180": simulator.V7, "twin:20181": simulator.V7})

	cluster := func(url, more string) string {
		return fmt.Sprintf("clusters:\n- name: prod\n  upstream: {url: %q}\n%s", url, more)
	}
	ahead := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[%d,"1"]}]}}`, time.Now().Add(time.Minute).Unix())
	}))
	seen := map[string]bool{}
	for _, tc := range []struct {
		name   string
		config string
		want   string // What the doctor says, as a pattern.
		warned bool   // It is no failure.
		cured  string // The configuration with the advice followed; "" where the cure is elsewhere.
	}{
		{
			name: "nobody listens", config: cluster("http://127.0.0.1:1", ""),
			want: `FAIL  upstream .*http://127\.0\.0\.1:1/.*connection refused: is it running, and is url right\?`, cured: cluster(upstream.URL, ""),
		},
		{
			name: "another server listens", config: cluster(serve(t, http.NotFoundHandler()), ""),
			want: `FAIL  upstream .* 404 .*does url point at the right API\?`, cured: cluster(upstream.URL, ""),
		},
		{
			name: "a password is wanted", config: cluster(locked, ""),
			want:  `FAIL  upstream .* 401 .*basic_auth`,
			cured: strings.Replace(cluster(locked, ""), "{url", "{basic_auth: {username: u, password: fakepassword}, url", 1),
		},
		{
			name: "a wrong password", config: strings.Replace(cluster(locked, ""), "{url", "{basic_auth: {username: u, password: wrong}, url", 1),
			want: `FAIL  upstream .* 401 .*basic_auth`,
		},
		{
			name: "no TiKV is scraped", config: cluster(bare.URL, ""),
			want: `FAIL  targets .*no series of TiKV within the last 1h; it scrapes the jobs "node": add each TiKV's status address, mostly port 20180, to its scrape_configs`,
		},
		{
			name: "the selector matches nothing", config: cluster(upstream.URL, "  selector: '{job=\"tidb\"}'\n"),
			want: `FAIL  targets .*selector \{job="tidb"\} matches no TiKV; without it upstream has 3 TiKV targets, with job "tikv": correct selector`, cured: cluster(upstream.URL, "  selector: '{job=\"tikv\"}'\n"),
		},
		{
			name: "the selector wants a label that there is not", config: cluster(upstream.URL, "  selector: '{tidb_cluster=\"x\"}'\n"),
			want: `FAIL  targets .*without it upstream has 3 TiKV targets, without the label tidb_cluster: correct selector`, cured: cluster(upstream.URL, ""),
		},
		{
			name: "an address that matches nothing", config: cluster(upstream.URL, "  stores: [{id: 1, address: \"tikv-1:20160\"}, {id: 3, address: \"tikv-3:20160\"}]\n"),
			want:  `FAIL  stores .*no target matches tikv-3:20160; upstream has tikv-3\.tikv-peer:20180: set instance`,
			cured: cluster(upstream.URL, "  stores: [{id: 1, address: \"tikv-1:20160\"}, {id: 3, address: \"tikv-3:20160\", instance: \"tikv-3.tikv-peer:20180\"}, {address: \"new:20160\"}]\n"),
		},
		{
			name: "an address that is like no target", config: cluster(upstream.URL, "  stores: [{id: 1, address: \"10.1.1.1:20160\"}]\n"),
			want: `FAIL  stores .*no target matches 10\.1\.1\.1:20160; upstream has, for no other store, new:20180, tikv-1:20180, tikv-3\.tikv-peer:20180: set instance`,
		},
		{
			name: "an address that matches too much", config: cluster(twins.URL, "  stores: [{id: 1, address: \"twin:20160\"}]\n"),
			want:  `FAIL  stores .*store "twin:20160" of cluster "prod" has no gauges: .*instance="twin:20180".* and .*instance="twin:20181".*set its instance`,
			cured: cluster(twins.URL, "  stores: [{id: 1, address: \"twin:20160\", instance: \"twin:20181\"}, {id: 2, address: \"twin:20161\", instance: \"twin:20180\"}]\n"),
		},
		{
			name: "a TiKV that nobody configured", config: cluster(upstream.URL, "  stores: [{id: 1, address: \"tikv-1:20160\"}]\n"), warned: true,
			want: `warn  stores .*not among stores: new:20180, tikv-3\.tikv-peer:20180: add them`, cured: cluster(upstream.URL, ""),
		},
		{
			name: "a rate window of one scrape", config: cluster(upstream.URL, "  rate_window: 1s\n"),
			want: `FAIL  rate_window .*TiKV is scraped every 1s, rate_window 1s sees one sample: set 4s`, cured: cluster(upstream.URL, "  rate_window: 4s\n"),
		},
		{
			name: "a rate window of two scrapes", config: cluster(upstream.URL, "  rate_window: 3s\n"), warned: true,
			want: `warn  rate_window .*TiKV is scraped every 1s, .* rate_window of 3s .*: set 4s`, cured: cluster(upstream.URL, "  rate_window: 4s\n"),
		},
		{
			name:   "a range of one scrape in a gauge of one's own",
			config: cluster(upstream.URL, "  metrics: [{name: operator_store_x, help: X., expr: 'rate(process_cpu_seconds_total[1s])'}]\n"),
			want:   `FAIL  rate_window .*TiKV is scraped every 1s, the 1s in the expr of operator_store_x sees one sample: write 4s`,
			cured:  cluster(upstream.URL, "  metrics: [{name: operator_store_x, help: X., expr: 'rate(process_cpu_seconds_total[4s])'}]\n"),
		},
		{
			name: "a TiKV that does not export a metric", config: cluster(old.URL, "  rate_window: 10s\n"), warned: true,
			want:  `warn  gauges .*operator_store_cpu_cores is absent: no tikv_server_cpu_cores_quota from old:20180: no series \(TiKV before 5\.0\); metrics may name another expression for it`,
			cured: "",
		},
		{
			name: "a server of several is gone", warned: true,
			config: fmt.Sprintf("clusters:\n- {name: prod, upstream: {url: [\"http://127.0.0.1:1\", %q]}}\n", upstream.URL),
			want:   `warn  upstream .*http://127\.0\.0\.1:1/.*connection refused`, cured: cluster(upstream.URL, ""),
		},
		{
			name: "a clock that is wrong", config: cluster(ahead, ""),
			want: `warn  clock .*is off by (59s|1m0s) from the clock here: let both follow the same NTP servers`,
		},
		{
			name: "PD is gone", config: cluster(upstream.URL, "  pd: {url: \"http://127.0.0.1:1\"}\n"),
			want: `FAIL  pd .*connection refused`, cured: cluster(upstream.URL, ""),
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			out, err := examine(t, tc.config)
			if (err == nil) != tc.warned {
				t.Errorf("it ended with %v", err)
			}
			for _, check := range regexp.MustCompile(`(?m)^  (?:ok  |warn|FAIL)  (\S+)`).FindAllStringSubmatch(out, -1) {
				seen[check[1]] = true
			}
			if !regexp.MustCompile(tc.want).MatchString(out) {
				t.Errorf("nothing matches %s in\n%s", tc.want, out)
			}
			if tc.cured == "" {
				return
			}
			until(t, "what was advised to help: "+tc.cured, func(context.Context) (bool, error) {
				out, err := examine(t, tc.cured) //nolint:contextcheck // It has the test's.
				return err == nil && !strings.Contains(out, "warn"), fmt.Errorf("the doctor says %s", out)
			})
		})
	}
	doctest.RequireSameSet(t, "docs/commands.md", doctest.FirstCells(doctest.Read(t, "docs/commands.md")), slices.Collect(maps.Keys(seen)))
}

// examine runs the doctor on a configuration.
func examine(t *testing.T, config string) (string, error) {
	t.Helper()
	return command(t, "doctor", "--config.file="+writeFile(t, "config.yml", config))
}

// startLocked starts a Prometheus that scrapes a TiKV and wants the password "fakepassword" of the user u.
func startLocked(t *testing.T) string {
	t.Helper()
	const hash = "$2y$10$QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi"
	store := simulator.NewCluster(1)
	store.AddStore("a", "a:20160", simulator.V7)
	dir := t.TempDir()
	if err := stack.Retarget(dir, time.Second, []stack.Target{{Job: "tikv", Instance: "a:20180", Address: stack.Host(serve(t, store)), Path: "/tikv/a"}}); err != nil {
		t.Fatal(err)
	}
	web := writeFile(t, "web.yml", fmt.Sprintf("basic_auth_users: {u: %q}\n", hash))
	p, err := stack.Start(t.Context(), "locked", exec.CommandContext(t.Context(), prometheusBinary, "--config.file="+filepath.Join(dir, "prometheus.yml"),
		"--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address=127.0.0.1:0", "--web.config.file="+web))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Kill() })
	return p.URL
}
