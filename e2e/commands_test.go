// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/operator-store/operator_store_exporter/e2e/simulator"
	"github.com/operator-store/operator_store_exporter/e2e/truth"
)

func TestStoresCommand(t *testing.T) {
	t.Parallel()
	upstream := startVersions(t, map[string]simulator.Version{"a": simulator.V7, "b": simulator.V4})
	oneDown := writeFile(t, "c.yml", fmt.Sprintf(`
clusters:
- {name: prod, upstream: {url: %q}, rate_window: 10s}
- {name: down, upstream: {url: http://127.0.0.1:1}}
`, upstream.URL))

	for _, tc := range []struct {
		name       string
		args       []string
		incomplete bool     // The command fails because an upstream did.
		want       []string // Patterns of the output.
	}{
		{
			name: "table",
			args: []string{"--upstream.url=" + upstream.URL},
			want: []string{
				`(?m)^CLUSTER +ID +ADDRESS +UP +MONITORED +QPS `,
				`(?m)^default +a:20180 +up +yes +[0-9.]+k? +[0-9.]+k? `,
				`(?m)^default +b:20180 +up .* - `,
				`(?m)^- disk used is absent for 1 store of cluster "default": no series \(TiKV before 5\.4\)$`,
				`(?m)^2 stores of 1 cluster, all queries succeeded$`,
			},
		},
		{
			name:       "one of two upstreams is down",
			args:       []string{"--config.file=" + oneDown},
			incomplete: true,
			want: []string{
				`(?m)^prod +a:20180 +up `,
				`(?m)^! query "targets" of cluster "down" failed: .* connection refused: ` +
					`is it running, and is url right\?$`,
				`(?m)^2 stores of 2 clusters, 1 problem$`,
			},
		},
		{
			name:       "no stores",
			args:       []string{"--upstream.url=http://127.0.0.1:1"},
			incomplete: true,
			want:       []string{`^! query .*connection refused.*\n0 stores of 1 cluster, 1 problem\n$`},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			out, err := runCommand(t, append([]string{"stores"}, tc.args...)...)
			if tc.incomplete != (err != nil) || err != nil && !strings.Contains(err.Error(), incompleteMessage) {
				t.Errorf("the command ended with %v", err)
			}

			for _, want := range tc.want {
				if !regexp.MustCompile(want).MatchString(out) {
					t.Errorf("nothing matches %s in\n%s", want, out)
				}
			}
			if strings.Contains(out, "\x1b") {
				t.Errorf("the output has colors, though it is not a terminal:\n%s", out)
			}
		})
	}
	t.Run("JSON", func(t *testing.T) { testStoresJSON(t, upstream.URL) })
	t.Run("watch until interrupted", func(t *testing.T) { testStoresWatch(t, upstream.URL) })
	t.Run("colors on a terminal", testStoresColors)
}

// storeFields returns the fields of a store in the JSON document: its names, and a field per gauge.
func storeFields() []string {
	fields := []string{"address", "cluster", "store_id"}
	for _, name := range truth.Names() {
		field := strings.TrimPrefix(name, "operator_store_")
		if latency, ok := strings.CutSuffix(field, "_seconds"); ok && strings.HasPrefix(field, "latency_") {
			field = latency + "_ms"
		}
		fields = append(fields, field)
	}
	return slices.Sorted(slices.Values(fields))
}

func testStoresJSON(t *testing.T, upstream string) {
	out, err := runCommand(t, "stores", "-o", "json", "--upstream.url="+upstream)
	if err != nil {
		t.Fatal(err)
	}
	var document struct{ Stores []map[string]any }
	if err := json.Unmarshal([]byte(out), &document); err != nil {
		t.Fatal(err)
	}

	for i, name := range []string{"a", "b"} {
		store := document.Stores[i]
		fields := slices.Sorted(maps.Keys(store))
		if !slices.Equal(fields, storeFields()) || store["address"] != name+":20180" {
			t.Errorf("store %d is %v with the fields %q", i, store, fields)
		}
		expression := fmt.Sprintf(`tikv_store_size_bytes{type="capacity",instance="%s:20180"}`, name)
		capacity, err := query(t.Context(), upstream, expression, "")
		if err != nil || len(capacity) != 1 || store["disk_total_bytes"] != capacity[0].Value {
			t.Errorf("%s: total is %v, upstream has %v, error %v", name, store["disk_total_bytes"], capacity, err)
		}
	}
	if v, ok := document.Stores[1]["disk_used_bytes"]; v != nil || !ok {
		t.Errorf("disk_used_bytes of a TiKV without that metric is %v, want null", v)
	}
}

func testStoresWatch(t *testing.T, upstream string) {
	lines := &logLines{}
	cmd := exporterCommand(t.Context(), "stores", "--watch", "--watch.interval=10ms", "--upstream.url="+upstream)
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
		t.Errorf("the command ended with %v", err)
	}
}

// script gives the command a terminal.
func testStoresColors(t *testing.T) {
	run := func(environment ...string) string {
		line := exporterBinary + " stores --upstream.url=http://127.0.0.1:1"
		cmd := exec.CommandContext(t.Context(), "script", "-qec", line, "/dev/null")
		cmd.Env = append(append(os.Environ(), "TERM=xterm"), environment...)
		out, _ := cmd.CombinedOutput() // It exits with 1.
		return string(out)
	}

	if out := run(); !strings.Contains(out, "\x1b[31m! query") {
		t.Errorf("the problem is not red: %q", out)
	}
	if out := run("NO_COLOR=1"); strings.Contains(out, "\x1b") || !strings.Contains(out, "! query") {
		t.Errorf("the output has colors, though NO_COLOR is set: %q", out)
	}
}
