// SPDX-License-Identifier: Apache-2.0

package truth

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/operator-store/operator_store_exporter/e2e/simulator"
)

// checkSimulator returns an error for each gauge whose series the simulator does not export.
func checkSimulator() []error {
	series, err := simulatedSeries()
	if err != nil {
		return []error{err}
	}

	var errs []error
	for _, g := range Gauges {
		root, err := promql.ParseExpr(strings.ReplaceAll(g.Expr, "$target", ""))
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: the expression of gauge %s: %w", endOfGauges, g.Name, err))
			continue
		}

		parser.Inspect(root, func(node parser.Node, _ []parser.Node) error {
			if selector, ok := node.(*parser.VectorSelector); ok && !anyMatches(series, selector.LabelMatchers) {
				errs = append(errs, fmt.Errorf("%s: no series of the simulated stores matches %s, which %s needs: "+
					"write the series here", endOfPage(), selector, g.Name))
			}
			return nil
		})
	}

	return errs
}

var promql = parser.NewParser(parser.Options{})

// simulatedSeries returns the series of a simulated store, and up, which upstreams add.
func simulatedSeries() ([]labels.Labels, error) {
	cluster := simulator.NewCluster(1)
	cluster.AddStore("a", "a:20160", simulator.V8)
	page := httptest.NewRecorder()
	cluster.ServeHTTP(page, httptest.NewRequest(http.MethodGet, "/tikv/a", nil))

	series := []labels.Labels{labels.FromStrings(model.MetricNameLabel, "up")}
	for line := range strings.Lines(page.Body.String()) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		l, err := promql.ParseMetric(line[:strings.LastIndex(line, " ")])
		if err != nil {
			return nil, fmt.Errorf("the page of a simulated store has the line %q: %w", line, err)
		}
		series = append(series, l)
	}
	return series, nil
}

func anyMatches(series []labels.Labels, selector labels.Selector) bool {
	for _, l := range series {
		if selector.Matches(l) {
			return true
		}
	}
	return false
}

// endOfPage returns the place in the simulator where series are added to the page of a store.
func endOfPage() string {
	const name = "e2e/simulator/simulator.go"
	_, file, _, _ := runtime.Caller(0)
	content, err := os.ReadFile(filepath.Join(filepath.Dir(file), "../simulator/simulator.go"))
	before, function, ok := strings.Cut(string(content), "\nfunc (s *Store) write(")
	if err != nil || !ok {
		return name
	}
	body, _, _ := strings.Cut(function, "\treturn true\n")
	return fmt.Sprintf("%s:%d", name, strings.Count(before+body, "\n")+2)
}
