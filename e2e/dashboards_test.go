// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/promql/parser"
	"go.yaml.in/yaml/v4"

	"github.com/operator-store/operator_store_exporter/e2e/simulator"
	"github.com/operator-store/operator_store_exporter/e2e/stack"
	"github.com/operator-store/operator_store_exporter/internal/doctest"
)

// dashboard is what a dashboard has, as far as it can be wrong without Grafana's noticing.
type dashboard struct {
	UID, Title, Description string
	Tags                    []string
	SchemaVersion           int
	Links                   []struct{ Tags []string }
	Templating              struct {
		List []struct {
			Name, Type, Definition string
			Datasource             struct{ UID string }
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
		Expr       string
		Datasource struct{ UID string }
	}
}

// alertRules returns the name and expression of each alert.
func alertRules(t *testing.T) []struct{ Alert, Expr string } {
	t.Helper()

	var file struct {
		Groups []struct {
			Rules []struct{ Alert, Expr string }
		}
	}
	if err := yaml.Load([]byte(doctest.Read(t, "mixin/alerts.yml")), &file); err != nil {
		t.Fatal(err)
	}
	return file.Groups[0].Rules
}

func dashboards(t *testing.T) map[string]dashboard {
	t.Helper()
	files, err := filepath.Glob(root + "/mixin/dashboards/*.json")
	if err != nil || len(files) != 3 {
		t.Fatalf("the dashboards are %q, %v", files, err)
	}
	all := map[string]dashboard{}
	for _, file := range files {
		var d dashboard
		if err := json.Unmarshal([]byte(doctest.Read(t, "mixin/dashboards/"+filepath.Base(file))), &d); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		all[filepath.Base(file)] = d
	}
	return all
}

// substitute puts into an expression what Grafana does when All is chosen.
func substitute(expression string) string {
	return strings.NewReplacer("$__rate_interval", "4s", "$cluster", ".+", "$store", ".+", "$instance", ".+").Replace(expression)
}

// The whole way to Grafana, and then what Grafana asks: no panel is empty.
func TestDashboardsHaveData(t *testing.T) {
	upstream := startWatched(t, map[string]simulator.Version{"tikv-0": simulator.V7, "tikv-1": simulator.V8})
	exporter, _ := startExporter(t, "--config.file="+writeFile(t, "c.yml", fmt.Sprintf("clusters:\n- {name: prod, upstream: {url: %q}, rate_window: 10s}\n", upstream.URL)))
	federation := startPrometheus(t, "federation", time.Second, stack.Target{Job: "operator_store", Instance: "exporter:9820", Address: stack.Host(exporter), Path: "/metrics"})
	until(t, "the federation to have two scrapes with every gauge", func(ctx context.Context) (bool, error) {
		s, err := query(ctx, federation.URL, `count(rate(operator_store_exporter_queries_queued_total[4s]) and on () count(operator_store_raft_lag) == 2)`, "")
		return len(s) == 1, err
	})
	page := scrape(t, exporter+"/metrics", 5*time.Second)
	known := map[string]bool{"up": true, "scrape_duration_seconds": true} // The federation's own.
	for series := range page {
		name, _, _ := strings.Cut(series, "{")
		known[name] = true
	}
	requireKnown := func(t *testing.T, expression string) {
		t.Helper()
		root, err := parser.NewParser(parser.Options{}).ParseExpr(expression)
		if err != nil {
			t.Errorf("%s: %v", expression, err)
			return
		}
		for _, selector := range parser.ExtractSelectors(root) {
			for _, m := range selector {
				if m.Name == "__name__" && !known[m.Value] {
					t.Errorf("%s: the exporter has no %s", expression, m.Value)
				}
			}
		}
	}
	requireData := func(t *testing.T, expression string) {
		t.Helper()
		expression = substitute(expression)
		requireKnown(t, expression)
		until(t, "data of "+expression, func(ctx context.Context) (bool, error) {
			s, err := query(ctx, federation.URL, expression, "")
			return len(s) > 0, err
		})
	}
	for file, d := range dashboards(t) {
		for _, v := range d.Templating.List {
			if m := regexp.MustCompile(`^label_values\((.+), \w+\)$`).FindStringSubmatch(v.Definition); m != nil {
				t.Run(file+" variable "+v.Name, func(t *testing.T) { requireData(t, m[1]) })
			} else if v.Type == "query" {
				t.Errorf("%s: nobody checks %s", file, v.Definition)
			}
		}
		for _, p := range d.Panels {
			for _, target := range p.Targets {
				t.Run(fmt.Sprintf("%s %s %s", file, p.Title, target.RefID), func(t *testing.T) { requireData(t, target.Expr) })
			}
		}
	}
	for _, r := range alertRules(t) {
		t.Run("alert "+r.Alert, func(t *testing.T) {
			requireKnown(t, r.Expr)
			if _, err := query(t.Context(), federation.URL, r.Expr, ""); err != nil {
				t.Error(err)
			}
		})
	}
}
