// SPDX-License-Identifier: Apache-2.0

// Package mixin_test checks the alerts and dashboards as far as that needs no server.
package mixin_test

import (
	"encoding/json"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/promql/parser"
	"go.yaml.in/yaml/v4"

	"github.com/operator-store/operator_store_exporter/internal/doctest"
)

// alertRules is the content of alerts.yml.
type alertRules struct {
	Groups []struct {
		Rules []struct {
			Alert, Expr         string
			Labels, Annotations map[string]string
		}
	}
}

// alertTests is the content of alerts_test.yml.
type alertTests struct {
	Tests []struct {
		Cases []struct {
			Alert    string           `yaml:"alertname"`
			Expected []map[string]any `yaml:"exp_alerts"`
		} `yaml:"alert_rule_test"`
	}
}

const runbooks = "https://github.com/operator-store/operator_store_exporter/blob/main/docs/runbooks.md#"

// Each alert has a test that it fires and one that it stays silent, annotations and a runbook.
// promtool runs the tests among the end-to-end tests.
func TestAlerts(t *testing.T) {
	var alerts alertRules
	if err := yaml.Load([]byte(doctest.Read(t, "mixin/alerts.yml")), &alerts); err != nil {
		t.Fatal(err)
	}
	var tests alertTests
	if err := yaml.Load([]byte(doctest.Read(t, "mixin/alerts_test.yml")), &tests); err != nil {
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
	for _, r := range alerts.Groups[0].Rules {
		names = append(names, r.Alert)
		t.Run(r.Alert, func(t *testing.T) {
			if !fires[r.Alert] || !silent[r.Alert] {
				t.Errorf("a test that it fires: %v, one that it stays silent: %v", fires[r.Alert], silent[r.Alert])
			}
			if got, want := r.Annotations["runbook_url"], runbooks+strings.ToLower(r.Alert); got != want {
				t.Errorf("the runbook is at %s, want %s", got, want)
			}
			if r.Annotations["summary"] == "" || r.Annotations["description"] == "" {
				t.Errorf("the summary or description is missing: %v", r.Annotations)
			}
			if severity := r.Labels["severity"]; severity != "warning" && severity != "critical" {
				t.Errorf("the severity is %q, want warning or critical", severity)
			}
			requireDocumentedMetrics(t, r.Expr)
		})
	}
	requireRunbooks(t, names)
}

// requireRunbooks fails the test unless docs/runbooks.md has a section for each alert, and links
// only to its sections.
func requireRunbooks(t *testing.T, alerts []string) {
	t.Helper()
	document := doctest.Read(t, "docs/runbooks.md")

	var sections, anchors []string
	for _, m := range regexp.MustCompile(`(?m)^## (\S+)$`).FindAllStringSubmatch(document, -1) {
		sections = append(sections, m[1])
		anchors = append(anchors, strings.ToLower(m[1]))
	}
	doctest.RequireSameSet(t, "docs/runbooks.md", sections, alerts)

	for _, m := range regexp.MustCompile(`\(#([a-z]+)\)`).FindAllStringSubmatch(document, -1) {
		if !slices.Contains(anchors, m[1]) {
			t.Errorf("docs/runbooks.md links to #%s, which does not exist", m[1])
		}
	}
}

// requireDocumentedMetrics fails the test unless docs/metrics.md has each metric of an expression.
func requireDocumentedMetrics(t *testing.T, expression string) {
	t.Helper()

	root, err := parser.NewParser(parser.Options{}).ParseExpr(expression)
	if err != nil {
		t.Fatal(err)
	}

	document := doctest.Read(t, "docs/metrics.md")
	for _, m := range slices.Concat(parser.ExtractSelectors(root)...) {
		if m.Name == "__name__" && m.Value != "up" && !strings.Contains(document, "`"+m.Value+"`") {
			t.Errorf("%s queries %s, which docs/metrics.md lacks", expression, m.Value)
		}
	}
}

// dashboard holds the fields of a dashboard in which Grafana does not report mistakes.
type dashboard struct {
	UID, Title, Description string
	Tags                    []string
	SchemaVersion           int
	Links                   []struct{ Tags []string }
	Templating              struct {
		List []struct {
			Name, Type string
			Datasource struct{ UID string }
		}
	}
	Panels []panel
}

type panel struct {
	ID                       int
	Type, Title, Description string
	Datasource               struct{ UID string }
	GridPos                  struct{ X, Y, W, H int }
	FieldConfig              struct {
		Defaults struct{ Unit string }
	}
	Targets []struct {
		RefID      string
		Datasource struct{ UID string }
	}
}

const (
	grafanaSchema = 42              // The schema version that Grafana 12 writes.
	dataSource    = "${datasource}" // The variable that selects the data source.
	gridWidth     = 24
)

func TestDashboards(t *testing.T) {
	files, err := filepath.Glob("dashboards/*.json")
	if err != nil || len(files) != 3 {
		t.Fatalf("the dashboards are %q, error %v, want 3", files, err)
	}

	uids := map[string]string{}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			content := doctest.Read(t, "mixin/"+filepath.ToSlash(file))
			var d dashboard
			if err := json.Unmarshal([]byte(content), &d); err != nil {
				t.Fatal(err)
			}

			if other := uids[d.UID]; other != "" || d.UID == "" {
				t.Errorf("the uid %q is empty, or also that of %q", d.UID, other)
			}
			uids[d.UID] = file
			d.checkHeader(t)
			d.checkVariables(t, content)
			d.checkLayout(t)

			for _, p := range d.Panels {
				p.check(t)
			}
		})
	}
}

func (d dashboard) checkHeader(t *testing.T) {
	t.Helper()

	if d.SchemaVersion != grafanaSchema {
		t.Errorf("the schema version is %d, want %d", d.SchemaVersion, grafanaSchema)
	}
	if d.Title == "" || d.Description == "" {
		t.Errorf("the title %q or the description is empty", d.Title)
	}
	if len(d.Tags) != 1 || len(d.Links) != 1 || d.Links[0].Tags[0] != d.Tags[0] {
		t.Errorf("the tags are %q and the links %v, want one tag and one link to it", d.Tags, d.Links)
	}
}

// checkVariables requires that the first variable selects the data source, and that all variables
// in use exist.
func (d dashboard) checkVariables(t *testing.T, content string) {
	t.Helper()

	known := map[string]bool{"__rate_interval": true, "__data": true, "__all": true}
	for i, v := range d.Templating.List {
		known[v.Name] = true
		if i == 0 && (v.Name != "datasource" || v.Type != "datasource") {
			t.Errorf("the first variable is %s of type %s, want datasource", v.Name, v.Type)
		}
		if i > 0 && v.Datasource.UID != dataSource {
			t.Errorf("variable %s has the data source %q, want %s", v.Name, v.Datasource.UID, dataSource)
		}
	}

	for _, m := range regexp.MustCompile(`\$\{?(\w+)`).FindAllStringSubmatch(content, -1) {
		if !known[m[1]] {
			t.Errorf("there is no variable $%s", m[1])
		}
	}
}

// checkLayout requires that panels do not overlap and have IDs of their own.
func (d dashboard) checkLayout(t *testing.T) {
	t.Helper()

	ids, cells := map[int]bool{}, map[[2]int]string{}
	for _, p := range d.Panels {
		if ids[p.ID] || p.Title == "" {
			t.Errorf("panel %q has no title, or the ID %d of another panel", p.Title, p.ID)
		}

		ids[p.ID] = true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other := cells[[2]int{x, y}]; other != "" || x >= gridWidth {
					t.Fatalf("panel %q overlaps %q, or is outside of the grid", p.Title, other)
				}
				cells[[2]int{x, y}] = p.Title
			}
		}
	}
}

// check requires that a panel, unless it is a row, is described and has data.
func (p panel) check(t *testing.T) {
	t.Helper()

	if p.Type == "row" {
		return
	}
	if p.Description == "" || p.FieldConfig.Defaults.Unit == "" {
		t.Errorf("panel %q lacks a description or a unit", p.Title)
	}
	if p.Datasource.UID != dataSource || len(p.Targets) == 0 {
		t.Errorf("panel %q has the data source %q and %d targets, want %s and at least one",
			p.Title, p.Datasource.UID, len(p.Targets), dataSource)
	}

	for _, target := range p.Targets {
		if target.Datasource.UID != dataSource || target.RefID == "" {
			t.Errorf("a target of panel %q has the data source %q, want %s", p.Title, target.Datasource.UID, dataSource)
		}
	}
}
