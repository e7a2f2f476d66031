// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/promql/parser"
	"go.yaml.in/yaml/v4"

	"github.com/operator-store/operator_store_exporter/e2e/truth"
	"github.com/operator-store/operator_store_exporter/internal/doctest"
)

// promtool runs promtool and fails the test if it reports a mistake.
func promtool(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), promtoolBinary, args...).CombinedOutput(); err != nil {
		t.Errorf("promtool %v: %v\n%s", args, err, out)
	}
}

// promtool accepts the alerts, and their tests pass.
func TestAlerts(t *testing.T) {
	t.Parallel()
	promtool(t, "check", "rules", root+"/mixin/alerts.yml")
	promtool(t, "test", "rules", root+"/mixin/alerts_test.yml")
}

// promtool accepts the configuration of the federation Prometheus together with the alerts.
func TestFederationConfiguration(t *testing.T) {
	t.Parallel()
	checkPrometheusConfiguration(t, doctest.Read(t, "mixin/federation.yml"))
}

// checkPrometheusConfiguration gives a configuration of Prometheus to promtool. The alerts are in
// the same folder.
func checkPrometheusConfiguration(t *testing.T, content string) {
	t.Helper()

	dir := t.TempDir()
	files := map[string]string{"prometheus.yml": content, "alerts.yml": doctest.Read(t, "mixin/alerts.yml")}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	promtool(t, "check", "config", filepath.Join(dir, "prometheus.yml"))
}

// promtool accepts the configurations and rules of Prometheus in the documentation.
func TestDocumentedPrometheusFiles(t *testing.T) {
	t.Parallel()

	for _, file := range []string{"README.md", "docs/configuration.md", "docs/upstreams.md", "docs/migrating.md"} {
		for i, block := range doctest.CodeBlocks(doctest.Read(t, file), "yaml") {
			t.Run(fmt.Sprintf("%s %d", file, i), func(t *testing.T) {
				switch {
				case strings.HasPrefix(block, "clusters:") && file != "docs/migrating.md":
					// A configuration of the exporter: the test of the command line checks it.
				case strings.HasPrefix(block, "scrape_configs:"), strings.HasPrefix(block, "rule_files:"):
					checkPrometheusConfiguration(t, block)
				case strings.HasPrefix(block, "groups:"):
					promtool(t, "check", "rules", writeFile(t, "rules.yml", block))
					requireDocumentedMetrics(t, block)
				default:
					t.Errorf("no test checks\n%s", block)
				}
			})
		}
	}
}

// requireDocumentedMetrics fails the test unless docs/metrics.md has each metric that a file of
// rules queries.
func requireDocumentedMetrics(t *testing.T, content string) {
	t.Helper()

	var rules struct {
		Groups []struct {
			Rules []struct{ Expr string }
		}
	}
	if err := yaml.Load([]byte(content), &rules); err != nil {
		t.Fatal(err)
	}

	document := doctest.Read(t, "docs/metrics.md")
	for _, g := range rules.Groups {
		for _, r := range g.Rules {
			root, err := parser.NewParser(parser.Options{}).ParseExpr(r.Expr)
			if err != nil {
				t.Fatal(err)
			}

			for _, m := range slices.Concat(parser.ExtractSelectors(root)...) {
				if m.Name == "__name__" && m.Value != "up" && !strings.Contains(document, "`"+m.Value+"`") {
					t.Errorf("%s queries %s, which docs/metrics.md lacks", r.Expr, m.Value)
				}
			}
		}
	}
}

// promtool accepts the names and help texts on the metrics page, which has each gauge.
func TestMetricsPage(t *testing.T) {
	t.Parallel()

	upstream := startFleet(t, 2)
	exporter := startExporter(t, "--upstream.url="+upstream.URL)
	for _, path := range []string{"/metrics", "/metrics?cluster=default"} {
		scrape(t, exporter.URL+path, 10*time.Second) // promhttp counts a scrape only after it.
		body, err := get(t.Context(), http.MethodGet, exporter.URL+path, http.StatusOK)
		if err != nil {
			t.Fatal(err)
		}

		check := exec.CommandContext(t.Context(), promtoolBinary, "check", "metrics")
		check.Stdin = bytes.NewReader(body)
		if out, err := check.CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("promtool check metrics on %s: %v\n%s", path, err, out)
		}

		for _, name := range truth.Names() {
			if !bytes.Contains(body, []byte("# TYPE "+name+" gauge\n")) {
				t.Errorf("%s lacks %s", path, name)
			}
		}
		if has := bytes.Contains(body, []byte("go_goroutines")); has != (path == "/metrics") {
			t.Errorf("%s has the metrics of the process: %v", path, has)
		}
	}
}

// docs/metrics.md lists exactly the metrics that the exporter has about itself.
func TestMetricsDocument(t *testing.T) {
	t.Parallel()

	exporter := startExporter(t, "--upstream.url=http://127.0.0.1:1")
	own := map[string]bool{ // These appear after responses of upstream and PD.
		"operator_store_exporter_evaluation_timestamp_seconds": true,
		"operator_store_exporter_stores_timestamp_seconds":     true,
		"operator_store_exporter_stores":                       true,
		"operator_store_exporter_rate_window_seconds":          true,
	}
	for series := range exporter.scrape(t).with("operator_store_exporter_") {
		name, _, _ := strings.Cut(series, "{")
		own[name] = true
	}

	var actual []string
	for name := range own {
		actual = append(actual, name)
	}

	isOther := func(name string) bool { return !strings.HasPrefix(name, "operator_store_exporter_") }
	documented := slices.DeleteFunc(doctest.FirstCells(doctest.Read(t, "docs/metrics.md")), isOther)
	doctest.RequireSameSet(t, "docs/metrics.md", documented, actual)
}
