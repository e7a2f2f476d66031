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

// alertRule is an alerting rule.
type alertRule struct {
	Alert, Expr         string
	Labels, Annotations map[string]string
}

// alertRules are those of the mixin.
func alertRules(t *testing.T) []alertRule {
	t.Helper()
	var file struct {
		Groups []struct{ Rules []alertRule }
	}
	if err := yaml.Load([]byte(read(t, "mixin/alerts.yml")), &file); err != nil {
		t.Fatal(err)
	}
	return file.Groups[0].Rules
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

	var tests alertTests
	if err := yaml.Load([]byte(read(t, "mixin/alerts_test.yml")), &tests); err != nil {
		t.Fatal(err)
	}
	fires, silent := map[string]bool{}, map[string]bool{}
	for _, test := range tests.Tests {
		for _, c := range test.Cases {
			fires[c.Alert] = fires[c.Alert] || len(c.Expected) > 0
			silent[c.Alert] = silent[c.Alert] || len(c.Expected) == 0
		}
	}
	var names []string
	for _, r := range alertRules(t) {
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
