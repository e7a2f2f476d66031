// SPDX-License-Identifier: Apache-2.0

package oracle

import (
	"strings"
	"sync"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/operator-store/operator_store_exporter/e2e/truth"
)

// A derivedGauge is a gauge whose expression in the truth table is the sum of one metric or of its
// rate, such as sum(rate(x_total{$target}[10s])). The oracle has one series of the metric for it,
// so that such a gauge needs no code here.
type derivedGauge struct {
	name   string
	metric string
	labels []string // Names and values of the labels that the expression requires.
	kind   int
}

// firstDerivedKind is above all kinds of series that are written by hand.
const firstDerivedKind = 10

// derivedGauges returns the gauges of the truth table that are the sum of one metric. Values that
// seriesOf and Gauges have take precedence.
var derivedGauges = sync.OnceValue(func() []derivedGauge {
	var derived []derivedGauge
	for i, g := range truth.Gauges {
		root, err := parser.NewParser(parser.Options{}).ParseExpr(strings.ReplaceAll(g.Expr, "$target", ""))
		if err != nil {
			panic(g.Name + ": " + err.Error())
		}
		selector := summed(root)
		if selector == nil {
			continue
		}

		d := derivedGauge{name: g.Name, metric: selector.Name, kind: firstDerivedKind + i}
		for _, m := range selector.LabelMatchers {
			if m.Type == labels.MatchEqual && m.Name != model.MetricNameLabel {
				d.labels = append(d.labels, m.Name, m.Value)
			}
		}
		derived = append(derived, d)
	}
	return derived
})

// summed returns the selector whose series, or their rates, an expression sums up. It returns nil
// for any other expression.
func summed(e parser.Expr) *parser.VectorSelector {
	switch e := e.(type) {
	case *parser.VectorSelector:
		return e
	case *parser.MatrixSelector:
		return summed(e.VectorSelector)
	case *parser.ParenExpr:
		return summed(e.Expr)
	case *parser.AggregateExpr:
		if e.Op == parser.SUM {
			return summed(e.Expr)
		}
	case *parser.Call:
		if e.Func.Name == "rate" {
			return summed(e.Args[0])
		}
	}
	return nil
}
