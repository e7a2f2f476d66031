// SPDX-License-Identifier: Apache-2.0

package promtest

import (
	"slices"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

var promql = parser.NewParser(parser.Options{})

type sample struct {
	labels labels.Labels
	value  float64
}

// isRange reports whether an expression is a range selector.
func isRange(expression string) bool { return rangeOf(expression) > 0 }

// rangeOf returns the range of a range selector; 0 for any other expression.
func rangeOf(expression string) time.Duration {
	root, err := promql.ParseExpr(expression)
	if err != nil {
		return 0
	}
	if m, ok := root.(*parser.MatrixSelector); ok {
		return m.Range
	}

	return 0
}

// selection is a selector of an expression, with a label that label_replace adds to its series.
type selection struct {
	*parser.VectorSelector
	added labels.Label
}

// addedLabel returns the label that a label_replace around a node adds with a constant value.
func addedLabel(parents []parser.Node) labels.Label {
	for _, parent := range parents {
		if call, ok := parent.(*parser.Call); ok && call.Func.Name == "label_replace" {
			name, value := call.Args[1].(*parser.StringLiteral), call.Args[2].(*parser.StringLiteral)

			return labels.Label{Name: name.Val, Value: value.Val}
		}
	}

	return labels.Label{}
}

// evaluate returns the samples of all series that any selector of an expression selects, reduced to
// the labels that the expression groups by. Past series are those of targets that are down.
func (p Prometheus) evaluate(expression string, past bool) ([]sample, error) {
	root, err := promql.ParseExpr(expression)
	if err != nil {
		return nil, err
	}

	var selectors []selection
	var grouping []string
	parser.Inspect(root, func(node parser.Node, parents []parser.Node) error {
		switch n := node.(type) {
		case *parser.VectorSelector:
			selectors = append(selectors, selection{VectorSelector: n, added: addedLabel(parents)})
		case *parser.AggregateExpr:
			grouping = n.Grouping
		}

		return nil
	})

	var result []sample
	add := func(s sample) {
		duplicate := func(other sample) bool { return labels.Equal(other.labels, s.labels) }
		if !slices.ContainsFunc(result, duplicate) {
			result = append(result, s)
		}
	}
	if strings.Contains(expression, "vector(") {
		add(sample{labels: labels.EmptyLabels(), value: 0})
	}

	for _, selector := range selectors {
		for _, s := range p.selectSeries(selector.VectorSelector, past) {
			s.value = p.transform(expression, s.value)
			if grouping != nil {
				s.labels = s.labels.MatchLabels(true, grouping...)
			}
			if selector.added.Name != "" {
				b := labels.NewBuilder(s.labels)
				b.Set(selector.added.Name, selector.added.Value)
				s.labels = b.Labels()
			}
			add(s)
		}
	}

	return result, nil
}

// transform returns the value of an expression for a series with the given value.
func (p Prometheus) transform(expression string, v float64) float64 {
	if strings.Contains(expression, "timestamp(") {
		return unixSeconds(p.now().Add(-p.SampleAge))
	}

	return v
}

// selectSeries returns the series that a selector selects. They have no metric name.
func (p Prometheus) selectSeries(selector *parser.VectorSelector, past bool) []sample {
	var selected []sample
	for _, t := range p.Targets {
		for _, s := range t.series(selector, past) {
			matches := func(m *labels.Matcher) bool {
				return m.Name == model.MetricNameLabel || m.Matches(s.labels.Get(m.Name))
			}
			if !slices.ContainsFunc(selector.LabelMatchers, func(m *labels.Matcher) bool { return !matches(m) }) {
				selected = append(selected, s)
			}
		}
	}

	return selected
}

// series returns the target's series of the metric of a selector.
func (t Target) series(selector *parser.VectorSelector, past bool) []sample {
	metric := selector.Name
	switch {
	case slices.Contains(t.Without, metric), t.NotTiKV && strings.HasPrefix(metric, "tikv_"):
		return nil
	case strings.HasPrefix(metric, "pd_"): // The server does not scrape PD.
		return nil
	case metric == "up" && t.Down:
		return []sample{{labels: t.Labels, value: 0}}
	case t.Down && !past:
		return nil
	case metric == "tikv_store_size_bytes":
		return t.variants("type", map[string]float64{"used": 100, "available": 300, "capacity": 500})
	case strings.HasSuffix(metric, "_bucket"):
		return t.variants(model.BucketLabel, map[string]float64{"0.001": 1, "0.01": 9, "0.1": 10, "+Inf": 10})
	default:
		return []sample{{labels: t.withMetricLabels(selector), value: 1}}
	}
}

// withMetricLabels returns the target's labels with those labels of TiKV's metrics that a selector
// requires. The server therefore has the series of every built-in gauge, also of a new one.
func (t Target) withMetricLabels(selector *parser.VectorSelector) labels.Labels {
	b := labels.NewBuilder(t.Labels)
	for _, m := range selector.LabelMatchers {
		if m.Type == labels.MatchEqual && slices.Contains([]string{"type", "db", "cf", "name"}, m.Name) {
			b.Set(m.Name, m.Value)
		}
	}

	return b.Labels()
}

// variants returns series that differ by the value of one more label.
func (t Target) variants(label string, values map[string]float64) []sample {
	var series []sample
	for variant, v := range values {
		b := labels.NewBuilder(t.Labels)
		b.Set(label, variant)
		series = append(series, sample{labels: b.Labels(), value: v})
	}

	return series
}
