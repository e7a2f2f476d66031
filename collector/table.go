// SPDX-License-Identifier: Apache-2.0

package collector

import (
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/operator-store/operator_store_exporter/config"
	"github.com/operator-store/operator_store_exporter/internal/promqlexpr"
)

// table is the gauges of one cluster: the built-in ones, some of them with another expression, and the configuration's own.
// It does not change once it is made.
type table struct {
	gauges   []Gauge
	descs    []*prometheus.Desc // In the order of gauges.
	index    map[string]int     // The place of a gauge, by its name.
	queries  []*Query           // That are asked at the scrape's instant, queryUp the first of them.
	reported []*Query           // These and what is asked in the background.
}

// newTable returns the gauges with metrics, which replace those of the same name. The error is of one that can't be.
func newTable(metrics []config.Metric) (*table, error) {
	t := &table{gauges: slices.Clone(Gauges), index: map[string]int{}}
	for i, g := range t.gauges {
		t.index[g.Name] = i
	}
	for _, m := range metrics {
		q := own(m.Name, m.Expr.Text())
		i, replaces := t.index[m.Name]
		switch {
		case replaces && m.Help != "":
			return nil, m.Wrong("%s is built in, and keeps its help: remove help", m.Name)
		case replaces:
			t.gauges[i].AbsentWhen, t.gauges[i].value = "no sample of its expression", sample(q)
		default:
			t.index[m.Name] = len(t.gauges)
			help := m.Help
			if help == "" {
				help = m.Expr.Text()
			}
			t.gauges = append(t.gauges, Gauge{m.Name, help, "no sample of its expression", sample(q)})
		}
	}
	t.ask()
	for _, g := range t.gauges {
		t.descs = append(t.descs, prometheus.NewDesc(g.Name, g.Help, storeLabels, nil))
	}
	return t, nil
}

// ask finds out which queries the gauges need.
func (t *table) ask() {
	needed := map[*Query]bool{queryReplicaTime: true}
	var owned []*Query
	for _, g := range t.gauges {
		for _, q := range g.value.queries {
			needed[q] = true
			needed[queryStartTime] = needed[queryStartTime] || q.buckets()
			if q.own {
				owned = append(owned, q)
			}
		}
	}
	t.queries = append(slices.DeleteFunc(slices.Clone(instantQueries), func(q *Query) bool { return !needed[q] }), owned...)
	t.reported = append(slices.Clone(backgroundQueries), t.queries...)
}

// gauge is the one of a name that there is.
func (t *table) gauge(name string) Gauge { return t.gauges[t.index[name]] }

// Series are the selectors of upstream's series that the gauge itself is taken from, none of one that is derived from others.
func (g Gauge) Series() []promqlexpr.Expr {
	if len(g.value.gauges) > 0 {
		return nil
	}
	return promqlexpr.MustParse(strings.ReplaceAll(g.value.rule(nil), "[W]", "[1m]")).Series()
}

// Rule is what records a gauge in a Prometheus.
type Rule struct {
	Record string
	Expr   string // Its samples have the labels job and instance, and are those of TiKV's targets.
}

// Rules returns the rules that record the gauges of a cluster in its own Prometheus, in the order of the documentation.
// Lookback is how long a target is known after Prometheus last saw it. The error is of a metric that can't be.
func Rules(c config.Cluster, lookback config.Duration) ([]Rule, error) {
	t, err := newTable(c.Metrics)
	if err != nil {
		return nil, err
	}
	sign := promqlexpr.MustParse(`last_over_time(tikv_store_size_bytes{type="available"}[`+lookback.String()+`])`).With(c.Selector, nil)
	var rules []Rule
	for _, g := range t.gauges {
		e, err := promqlexpr.Parse(strings.ReplaceAll(g.value.rule(t), "[W]", "["+c.RateWindow.String()+"]"))
		if err != nil {
			return nil, err
		}
		text := e.With(c.Selector, nil)
		if !e.AllNamed("tikv_") { // Other processes have such series too.
			text = "(" + text + ") and on (job, instance) " + sign
		}
		rules = append(rules, Rule{g.Name, text})
	}
	return rules, nil
}
