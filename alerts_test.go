// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"
)

// alertFile is what a file of alerting rules has.
type alertFile struct {
	Groups []struct {
		Rules []struct {
			Alert, Expr, For    string
			Labels, Annotations map[string]string
		}
	}
}

// alertTests is what a file of their tests has.
type alertTests struct {
	Tests []struct {
		Cases []struct {
			Alert    string           `yaml:"alertname"`
			Expected []map[string]any `yaml:"exp_alerts"`
		} `yaml:"alert_rule_test"`
	}
}

func TestAlerts(t *testing.T) {
	promtool(t, "check", "rules", "mixin/alerts.yml")
	promtool(t, "test", "rules", "mixin/alerts_test.yml")
	rulesKnowTheirMetrics(t, read(t, "mixin/alerts.yml"))

	var file alertFile
	var tests alertTests
	for name, into := range map[string]any{"mixin/alerts.yml": &file, "mixin/alerts_test.yml": &tests} {
		if err := yaml.Load([]byte(read(t, name)), into); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	fires, silent := map[string]bool{}, map[string]bool{}
	for _, test := range tests.Tests {
		for _, c := range test.Cases {
			fires[c.Alert] = fires[c.Alert] || len(c.Expected) > 0
			silent[c.Alert] = silent[c.Alert] || len(c.Expected) == 0
		}
	}
	var names []string
	for _, r := range file.Groups[0].Rules {
		names = append(names, r.Alert)
		t.Run(r.Alert, func(t *testing.T) {
			if !fires[r.Alert] || !silent[r.Alert] {
				t.Errorf("a test that it fires: %v, one that it stays silent: %v", fires[r.Alert], silent[r.Alert])
			}
			if want := "https://github.com/operator-store/operator_store_exporter/blob/main/docs/runbooks.md#" + strings.ToLower(r.Alert); r.Annotations["runbook_url"] != want {
				t.Errorf("the runbook is at %s, want %s", r.Annotations["runbook_url"], want)
			}
			if r.Annotations["summary"] == "" || r.Annotations["description"] == "" || !slices.Contains([]string{"warning", "critical"}, r.Labels["severity"]) {
				t.Errorf("it lacks a summary, a description or a severity: %v, %v", r.Annotations, r.Labels)
			}
		})
	}
	var sections []string
	for _, m := range regexp.MustCompile(`(?m)^## (\S+)$`).FindAllStringSubmatch(read(t, "docs/runbooks.md"), -1) {
		sections = append(sections, m[1])
	}
	sameSet(t, "docs/runbooks.md", sections, names)
	for _, m := range regexp.MustCompile(`\(#([a-z]+)\)`).FindAllStringSubmatch(read(t, "docs/runbooks.md"), -1) {
		if !slices.ContainsFunc(sections, func(s string) bool { return strings.ToLower(s) == m[1] }) {
			t.Errorf("docs/runbooks.md links to #%s, which there is not", m[1])
		}
	}
}

// The federation's configuration is good, with the rules beside it.
func TestFederationConfiguration(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"federation.yml", "alerts.yml"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(read(t, filepath.Join("mixin", name))), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	promtool(t, "check", "config", filepath.Join(dir, "federation.yml"))
}
