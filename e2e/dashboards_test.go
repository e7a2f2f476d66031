// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/promql/parser"
	"go.yaml.in/yaml/v4"

	"github.com/operator-store/operator_store_exporter/e2e/simulator"
	"github.com/operator-store/operator_store_exporter/internal/doctest"
)

// dashboard has the queries of a Grafana dashboard.
type dashboard struct {
	Templating struct {
		List []struct{ Name, Type, Definition string }
	}
	Panels []struct {
		Title   string
		Targets []struct{ RefID, Expr string }
	}
}

// dashboards returns the dashboards by file name.
func dashboards(t *testing.T) map[string]dashboard {
	t.Helper()

	files, err := filepath.Glob(root + "/mixin/dashboards/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("there are no dashboards, error %v", err)
	}

	all := map[string]dashboard{}
	for _, file := range files {
		name := filepath.Base(file)
		var d dashboard
		if err := json.Unmarshal([]byte(doctest.Read(t, "mixin/dashboards/"+name)), &d); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		all[name] = d
	}
	return all
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

// substitute replaces the variables of an expression as Grafana does if All is selected.
func substitute(expression string) string {
	return strings.NewReplacer(
		"$__rate_interval", "4s", "$cluster", ".+", "$store", ".+", "$instance", ".+",
	).Replace(expression)
}

var labelValues = regexp.MustCompile(`^label_values\((.+), \w+\)$`)

// Every variable and panel of the dashboards has data in a federation Prometheus, and the alerts
// query metrics that the exporter has.
func TestDashboards(t *testing.T) {
	t.Parallel()
	upstream := startVersions(t, map[string]simulator.Version{"tikv-0": simulator.V7, "tikv-1": simulator.V8})
	exporter := startConfigured(t, fmt.Sprintf(
		"clusters:\n- {name: prod, upstream: {url: %q}, rate_window: 10s}\n", upstream.URL))
	federation := startFederation(t, exporter, time.Second)
	until(t, "the federation to have two scrapes with every gauge", func(ctx context.Context) (bool, error) {
		const expression = `count(rate(operator_store_exporter_queries_queued_total[4s])` +
			` and on () count(operator_store_raft_lag) == 2)`
		s, err := query(ctx, federation.URL, expression, "")
		return len(s) == 1, err
	})

	known := map[string]bool{"up": true, "scrape_duration_seconds": true} // Prometheus adds these.
	for series := range exporter.scrape(t) {
		name, _, _ := strings.Cut(series, "{")
		known[name] = true
	}

	requireData := func(t *testing.T, expression string) {
		t.Helper()
		expression = substitute(expression)
		requireKnownMetrics(t, known, expression)
		until(t, "data of "+expression, func(ctx context.Context) (bool, error) {
			s, err := query(ctx, federation.URL, expression, "")
			return len(s) > 0, err
		})
	}
	for file, d := range dashboards(t) {
		for _, v := range d.Templating.List {
			if m := labelValues.FindStringSubmatch(v.Definition); m != nil {
				t.Run(file+" variable "+v.Name, func(t *testing.T) { requireData(t, m[1]) })
			} else if v.Type == "query" {
				t.Errorf("%s: no test checks the variable %s", file, v.Definition)
			}
		}

		for _, p := range d.Panels {
			for _, target := range p.Targets {
				name := fmt.Sprintf("%s %s %s", file, p.Title, target.RefID)
				t.Run(name, func(t *testing.T) { requireData(t, target.Expr) })
			}
		}
	}

	for _, r := range alertRules(t) {
		t.Run("alert "+r.Alert, func(t *testing.T) {
			requireKnownMetrics(t, known, r.Expr)
			if _, err := query(t.Context(), federation.URL, r.Expr, ""); err != nil {
				t.Error(err)
			}
		})
	}
}

// requireKnownMetrics fails the test unless an expression queries only known metrics.
func requireKnownMetrics(t *testing.T, known map[string]bool, expression string) {
	t.Helper()

	root, err := parser.NewParser(parser.Options{}).ParseExpr(expression)
	if err != nil {
		t.Errorf("%s: %v", expression, err)
		return
	}

	for _, m := range slices.Concat(parser.ExtractSelectors(root)...) {
		if m.Name == "__name__" && !known[m.Value] {
			t.Errorf("%s queries %s, which the exporter does not have", expression, m.Value)
		}
	}
}
