// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/operator-store/operator_store_exporter/e2e/simulator"
	"github.com/operator-store/operator_store_exporter/e2e/stack"
	"github.com/operator-store/operator_store_exporter/e2e/truth"
)

// ruleFile is a rule file of Prometheus.
type ruleFile struct {
	Groups []struct {
		Rules []rule
	}
}

type rule struct {
	Record, Expr string
	Labels       map[string]string
}

// The recording rules record in upstream what the exporter exposes at the same time.
func TestRules(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.add("a", simulator.V7)
	f.add("b", simulator.V4)
	f.add("c", simulator.V8)
	f.add("idle", simulator.V7)
	f.cluster.AddProcess("other") // It has up and CPU seconds, but is not a TiKV.
	f.addTarget(stack.Target{Job: "node", Instance: "a:9100", Path: "/process/other"})
	f.start(t, time.Second)
	f.cluster.Store("idle").Idle()
	config := writeFile(t, "config.yml", fmt.Sprintf(`
clusters:
- name: prod
  upstream: {url: %q}
  selector: '{job!="other"}'
  rate_window: 10s
  metrics:
  - name: operator_store_threads_cpu
    help: "By hand."
    expr: 'sum by (instance) (rate(process_cpu_seconds_total[20s]))'
  - {name: operator_store_cpu_cores, expr: '2 * tikv_server_cpu_cores_quota'}
`, f.URL))

	text, err := runCommand(t, "rules", "--config.file="+config)
	if err != nil {
		t.Fatal(err)
	}
	var rules ruleFile
	if err := yaml.Load([]byte(text), &rules); err != nil {
		t.Fatal(err)
	}
	f.loadRules(t, text)
	until(t, "upstream to have recorded the gauges of all stores", func(ctx context.Context) (bool, error) {
		const expression = `count(operator_store_cpu_percent) == %[1]d` +
			` and count(operator_store_raft_lag) == %[1]d - 1 and count(operator_store_threads_cpu) == %[1]d` +
			` and on () sum(rate(tikv_grpc_msg_duration_seconds_count{instance="idle:20180"}[10s])) == 0`
		s, err := query(ctx, f.URL, fmt.Sprintf(expression, f.stores), "")
		return len(s) == 1, err
	})

	exporter := startExporter(t, "--config.file="+config)
	// Upstream may store a sample only after the exporter's queries although it is stamped before
	// their evaluation time. Then the next scrape is compared.
	var differences []string
	for range 10 {
		page := exporter.scrape(t)
		values := 0
		differences = nil
		// On a busy machine, queries may time out.
		if page[`operator_store_exporter_upstream_up{cluster="prod"}`] != 1 {
			differences = []string{"a query failed: " + joinLines(exporter.log.warnings(t))}
			continue
		}

		for _, r := range rules.Groups[0].Rules {
			n, different := r.compare(t, page, f.URL)
			values += n
			differences = append(append(differences, different...), r.compareRecorded(t, f.URL)...)
		}
		if len(differences) == 0 {
			requireValueCount(t, values, f.stores)
			return
		}
	}
	t.Errorf("the rules do not record what the exporter exposes:\n%s", strings.Join(differences, "\n"))
}

// loadRules makes the Prometheus evaluate recording rules, which promtool must accept.
func (f *fleet) loadRules(t *testing.T, rules string) {
	t.Helper()

	file := writeFile(t, "rules.yml", rules)
	promtool(t, "check", "rules", file)
	config := filepath.Join(f.dir, "prometheus.yml")
	content, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	withRules := strings.Replace(string(content), "global: {",
		"rule_files: ["+strconv.Quote(file)+"]\nglobal: {evaluation_interval: 1s, ", 1)
	if err := os.WriteFile(config, []byte(withRules), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := f.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
}

// compare evaluates a rule at the evaluation time of a page. It returns how many values the rule
// has, and how they differ from the page.
func (r rule) compare(t *testing.T, p page, upstream string) (values int, differences []string) {
	t.Helper()

	at := strconv.FormatFloat(p[`operator_store_exporter_evaluation_timestamp_seconds{cluster="prod"}`], 'f', -1, 64)
	result, err := query(t.Context(), upstream, r.Expr, at)
	if err != nil {
		t.Fatalf("%s: %v", r.Record, err)
	}
	exposed := p.with(r.Record + "{")
	if len(result) != len(exposed) {
		differences = append(differences, fmt.Sprintf("%s: the rule has %v, the page %v", r.Record, result, exposed))
	}

	for _, s := range result {
		const format = `%s{address=%q, cluster=%q, store_id=""}`
		series := fmt.Sprintf(format, r.Record, s.Labels["address"], r.Labels["cluster"])
		if v, ok := exposed[series]; !ok || math.Abs(v-s.Value) > 1e-9*math.Abs(v) {
			differences = append(differences, fmt.Sprintf(
				"%s: the rule has %v, the page %v of %v", series, s.Value, v, exposed))
		}
	}

	return len(result), differences
}

// compareRecorded returns how the values that upstream recorded last differ from the rule at the
// same time.
func (r rule) compareRecorded(t *testing.T, upstream string) []string {
	t.Helper()

	instant := func(expression, at string) []stack.Series {
		result, err := query(t.Context(), upstream, expression, at)
		if err != nil {
			t.Fatal(err)
		}
		return result
	}
	var differences []string
	for _, s := range instant(fmt.Sprintf(`timestamp(%s{cluster="prod"})`, r.Record), "") {
		at, instance := strconv.FormatFloat(s.Value, 'f', -1, 64), s.Labels["instance"]
		recorded := instant(fmt.Sprintf(`%s{instance=%q}`, r.Record, instance), at)
		evaluated := instant(fmt.Sprintf(`(%s) and on (instance) up{instance=%q}`, r.Expr, instance), at)
		if len(recorded) != 1 || len(evaluated) != 1 || recorded[0].Value != evaluated[0].Value {
			differences = append(differences, fmt.Sprintf(
				"%s of %s at %s: recorded %v, evaluated %v", r.Record, instance, at, recorded, evaluated))
		}
	}
	return differences
}

// requireValueCount fails the test unless all gauges of all stores were compared, except for those
// that TiKV 4.0 and the idle store lack.
func requireValueCount(t *testing.T, got, stores int) {
	t.Helper()

	onV4 := truth.Select(func(g truth.Gauge) bool { return g.AbsentOnV4 })
	idle := truth.Select(func(g truth.Gauge) bool { return g.AbsentIdle })
	customGauges := 1
	want := stores*(len(truth.Gauges)+customGauges) - len(onV4) - len(idle)
	if got != want {
		t.Errorf("%d values were compared, want %d", got, want)
	}
}
