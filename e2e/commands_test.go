// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/operator-store/operator_store_exporter/e2e/simulator"
	"github.com/operator-store/operator_store_exporter/e2e/stack"
)

// startWatched starts a real Prometheus that scrapes stores of the given names and versions every second, and waits until it has
// rates of all of them. Their instances are NAME:20180, or the name itself where it has a port.
func startWatched(t *testing.T, versions map[string]simulator.Version, more ...stack.Target) *stack.Process {
	t.Helper()
	cluster := simulator.NewCluster(1)
	pages := stack.Host(serve(t, cluster))
	var targets []stack.Target
	for _, name := range slices.Sorted(maps.Keys(versions)) {
		cluster.AddStore(name, name+":20160", versions[name])
		instance := name
		if !strings.Contains(name, ":") {
			instance += ":20180"
		}
		targets = append(targets, stack.Target{Job: "tikv", Instance: instance, Address: pages, Path: "/tikv/" + name})
	}
	upstream := startPrometheus(t, "upstream", time.Second, append(targets, more...)...)
	until(t, "upstream to have rates of all stores", func(ctx context.Context) (bool, error) {
		s, err := query(ctx, upstream.URL, `count(rate(process_cpu_seconds_total{job="tikv"}[10s]) and rate(tikv_raftstore_log_lag_count[10s]))`, "")
		return err == nil && len(s) == 1 && s[0].Value == float64(len(versions)), err
	})
	return upstream
}

// incompleteMessage is the error of the stores command if an upstream failed.
const incompleteMessage = "not every value could be asked for"

func TestStoresCommand(t *testing.T) {
	upstream := startWatched(t, map[string]simulator.Version{"a": simulator.V7, "b": simulator.V4})
	down := fmt.Sprintf("clusters:\n- {name: prod, upstream: {url: %q}, rate_window: 10s}\n- {name: gone, upstream: {url: http://127.0.0.1:1}}\n", upstream.URL)
	for _, tc := range []struct {
		name     string
		args     []string
		complete bool
		want     []string // Patterns.
	}{
		{"a table", []string{"stores", "--upstream.url=" + upstream.URL}, true, []string{
			`(?m)^CLUSTER +ID +ADDRESS +UP +QPS `,
			`(?m)^default +a:20180 +up +[0-9.]+k? +[0-9.]+k? `,
			`(?m)^default +b:20180 +up .* - `,
			`(?m)^- 1 store of cluster "default": disk used is absent: no series \(TiKV before 5\.4\)$`,
			`(?m)^2 stores of 1 cluster, every query answered$`,
		}},
		{"the stores of one cluster while another's upstream is down", []string{"stores", "--config.file=" + writeFile(t, "c.yml", down)}, false, []string{
			`(?m)^prod +a:20180 +up `, `(?m)^! query "targets" of cluster "gone": .* connection refused`, `(?m)^2 stores of 2 clusters, 1 problem$`,
		}},
		{"nothing at all", []string{"stores", "--upstream.url=http://127.0.0.1:1"}, false, []string{`^! query .*connection refused.*\n0 stores of 1 cluster, 1 problem\n$`}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			out, err := command(t, tc.args...)
			if complete := err == nil; complete != tc.complete || !complete && !strings.Contains(err.Error(), incompleteMessage) {
				t.Errorf("it ended with %v", err)
			}
			for _, want := range tc.want {
				if !regexp.MustCompile(want).MatchString(out) {
					t.Errorf("nothing matches %s in\n%s", want, out)
				}
			}
			if strings.Contains(out, "\x1b") {
				t.Errorf("colours, though this is no terminal:\n%s", out)
			}
		})
	}
	t.Run("as JSON, with what upstream says", func(t *testing.T) {
		out, err := command(t, "stores", "-o", "json", "--upstream.url="+upstream.URL)
		if err != nil {
			t.Fatal(err)
		}
		var document struct{ Stores []map[string]any }
		if err := json.Unmarshal([]byte(out), &document); err != nil {
			t.Fatal(err)
		}
		fields := []string{
			"address", "cluster", "cpu_percent", "disk_available_bytes", "disk_total_bytes", "disk_used_bytes", "disk_utilization_ratio",
			"latency_p95_ms", "latency_p99_ms", "qps", "raft_lag", "store_id", "up",
		}
		for i, name := range []string{"a", "b"} {
			store := document.Stores[i]
			if got := slices.Sorted(maps.Keys(store)); !slices.Equal(got, fields) || store["address"] != name+":20180" {
				t.Errorf("store %d is %v with fields %q", i, store, got)
			}
			capacity, err := query(t.Context(), upstream.URL, fmt.Sprintf(`tikv_store_size_bytes{type="capacity",instance="%s:20180"}`, name), "")
			if err != nil || len(capacity) != 1 || store["disk_total_bytes"] != capacity[0].Value {
				t.Errorf("%s: total %v, upstream says %v, %v", name, store["disk_total_bytes"], capacity, err)
			}
		}
		if v, there := document.Stores[1]["disk_used_bytes"]; v != nil || !there {
			t.Errorf("disk_used_bytes of a TiKV that does not tell is %v, want null", v)
		}
	})
	t.Run("again and again until interrupted", func(t *testing.T) {
		lines := &logLines{}
		cmd := exec.CommandContext(t.Context(), exporterBinary, "stores", "--watch", "--watch.interval=10ms", "--upstream.url="+upstream.URL)
		cmd.Stdout = lines
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		until(t, "three tables", func(context.Context) (bool, error) {
			return len(lines.matching("2 stores of 1 cluster")) >= 3, nil
		})
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("it ended with %v", err)
		}
	})
	t.Run("in colour on a terminal", func(t *testing.T) {
		// script gives the command a terminal of its own.
		cmd := exec.CommandContext(t.Context(), "script", "-qec", exporterBinary+" stores --upstream.url=http://127.0.0.1:1", "/dev/null")
		cmd.Env = append(os.Environ(), "TERM=xterm")
		out, _ := cmd.CombinedOutput() // It exits with 1.
		if !strings.Contains(string(out), "\x1b[31m! query") {
			t.Errorf("the problem is not red: %q", out)
		}
		cmd = exec.CommandContext(t.Context(), "script", "-qec", exporterBinary+" stores --upstream.url=http://127.0.0.1:1", "/dev/null")
		cmd.Env = append(os.Environ(), "TERM=xterm", "NO_COLOR=1")
		if out, _ := cmd.CombinedOutput(); strings.Contains(string(out), "\x1b") || !strings.Contains(string(out), "! query") {
			t.Errorf("colours, though NO_COLOR is set: %q", out)
		}
	})
}

// ruleFile is what a rule file has.
type ruleFile struct {
	Groups []struct {
		Name  string
		Rules []struct {
			Record, Expr string
			Labels       map[string]string
		}
	}
}

// What the rules record in upstream is what the exporter tells, at the same instant.
func TestRulesRecordTheGauges(t *testing.T) {
	dir := t.TempDir()
	cluster := simulator.NewCluster(1)
	pages := stack.Host(serve(t, cluster))
	cluster.AddProcess("neighbour") // It has an up and uses CPU, and is no TiKV.
	targets := []stack.Target{{Job: "node", Instance: "a:9100", Address: pages, Path: "/process/neighbour"}}
	stores := map[string]simulator.Version{"a": simulator.V7, "b": simulator.V4, "c": simulator.V8, "idle": simulator.V7}
	for _, name := range slices.Sorted(maps.Keys(stores)) {
		cluster.AddStore(name, name+":20160", stores[name])
		targets = append(targets, stack.Target{Job: "tikv", Instance: name + ":20180", Address: pages, Path: "/tikv/" + name})
	}
	cluster.Store("idle").Idle()
	upstream := startPrometheusIn(t, dir, "upstream", time.Second, targets...)
	config := writeFile(t, "config.yml", fmt.Sprintf(`
clusters:
- name: prod
  upstream: {url: %q}
  selector: '{job!="other"}'
  rate_window: 10s
  metrics:
  - {name: operator_store_threads_cpu, help: "By hand.", expr: 'sum by (instance) (rate(process_cpu_seconds_total[20s]))'}
  - {name: operator_store_cpu_cores, expr: '2 * tikv_server_cpu_cores_quota'}
`, upstream.URL))
	text, err := command(t, "rules", "--config.file="+config)
	if err != nil {
		t.Fatal(err)
	}
	file := writeFile(t, "rules.yml", text)
	if out, err := exec.CommandContext(t.Context(), promtoolBinary, "check", "rules", file).CombinedOutput(); err != nil {
		t.Fatalf("promtool: %v\n%s", err, out)
	}
	// Upstream loads them.
	prometheusConfig := filepath.Join(dir, "prometheus.yml")
	content, err := os.ReadFile(prometheusConfig)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(prometheusConfig, []byte(strings.Replace(string(content), "global: {", "rule_files: ["+strconv.Quote(file)+"]\nglobal: {evaluation_interval: 1s, ", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := upstream.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	until(t, "upstream to have recorded the gauges of all stores", func(ctx context.Context) (bool, error) {
		s, err := query(ctx, upstream.URL, `count(operator_store_cpu_percent) == 4 and count(operator_store_raft_lag) == 3 and count(operator_store_threads_cpu) == 4 `+
			`and on () sum(rate(tikv_grpc_msg_duration_seconds_count{instance="idle:20180"}[10s])) == 0`, "")
		return len(s) == 1, err
	})
	var rules ruleFile
	if err := yaml.Load([]byte(text), &rules); err != nil {
		t.Fatal(err)
	}
	exporter, _ := startExporter(t, "--config.file="+config)
	// A sample that upstream stamped before an instant may reach its storage after it: then the next scrape tells.
	var differences []string
	for range 10 {
		page := scrape(t, exporter+"/metrics", 5*time.Second)
		at := strconv.FormatFloat(page[`operator_store_exporter_evaluation_timestamp_seconds{cluster="prod"}`], 'f', -1, 64)
		differences = nil
		count := 0
		for _, r := range rules.Groups[0].Rules {
			answer, err := query(t.Context(), upstream.URL, r.Expr, at)
			if err != nil {
				t.Fatalf("%s: %v", r.Record, err)
			}
			told := page.with(r.Record + "{")
			if len(answer) != len(told) {
				differences = append(differences, fmt.Sprintf("%s: recorded are %v, the exporter tells %v", r.Record, answer, told))
			}
			for _, s := range answer {
				count++
				series := fmt.Sprintf(`%s{address=%q, cluster=%q, store_id=""}`, r.Record, s.Labels["address"], r.Labels["cluster"])
				if v, there := told[series]; !there || math.Abs(v-s.Value) > 1e-9*math.Abs(v) {
					differences = append(differences, fmt.Sprintf("%s: recorded is %v, the exporter tells %v of %v", series, s.Value, v, told))
				}
			}
			// And that is what upstream has recorded by itself.
			then, err := query(t.Context(), upstream.URL, fmt.Sprintf(`timestamp(%s{cluster="prod"})`, r.Record), "")
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range then {
				moment := strconv.FormatFloat(s.Value, 'f', -1, 64)
				recorded, err := query(t.Context(), upstream.URL, fmt.Sprintf(`%s{instance=%q}`, r.Record, s.Labels["instance"]), moment)
				if err != nil {
					t.Fatal(err)
				}
				again, err := query(t.Context(), upstream.URL, fmt.Sprintf(`(%s) and on (instance) up{instance=%q}`, r.Expr, s.Labels["instance"]), moment)
				if err != nil {
					t.Fatal(err)
				}
				if len(recorded) != 1 || len(again) != 1 || recorded[0].Value != again[0].Value {
					differences = append(differences, fmt.Sprintf("%s of %s at %s: recorded %v, asked again %v", r.Record, s.Labels["instance"], moment, recorded, again))
				}
			}
		}
		if len(differences) == 0 {
			if count < 4*8 {
				t.Errorf("%d values were compared, that is too few", count)
			}
			return
		}
	}
	t.Errorf("the rules do not record what the exporter tells:\n%s", strings.Join(differences, "\n"))
}
