// SPDX-License-Identifier: Apache-2.0

package gauge

import (
	"fmt"
	"slices"

	"github.com/operator-store/operator_store_exporter/config"
)

// Catalog is the gauges of one cluster: the built-in ones, some with another expression, and those
// that the configuration adds. It is immutable.
type Catalog struct {
	gauges   []Gauge
	index    map[string]int // From a gauge's name to its position in gauges.
	order    []int          // Positions of gauges, each after those that it is derived from.
	needs    [][]*Query     // The queries that each gauge needs, directly or through its inputs.
	queries  []*Query
	reported []*Query
}

// NewCatalog returns the built-in gauges with metrics, which replace built-in gauges of the same
// name. The error says which metric is invalid and names its line.
func NewCatalog(metrics []config.Metric) (*Catalog, error) {
	gauges := Builtin()
	for _, m := range metrics {
		var err error
		if gauges, err = withMetric(gauges, m); err != nil {
			return nil, err
		}
	}

	return newCatalog(gauges)
}

const customAbsentWhen = "no sample of its expression"

// withMetric returns gauges with the one that the configuration adds or replaces.
func withMetric(gauges []Gauge, m config.Metric) ([]Gauge, error) {
	custom := sample{fromQuery{&Query{Name: m.Name, Shape: Custom, Expr: m.Expr.Expr}}}
	i := slices.IndexFunc(gauges, func(g Gauge) bool { return g.Name == m.Name })
	if i < 0 {
		help := m.Help
		if help == "" {
			help = m.Expr.String()
		}

		return append(gauges, Gauge{Name: m.Name, Help: help, AbsentWhen: customAbsentWhen, source: custom}), nil
	}
	if m.Help != "" {
		return nil, m.Errorf("%s is built in and keeps its help text: remove help", m.Name)
	}

	gauges[i].AbsentWhen, gauges[i].source = customAbsentWhen, custom

	return gauges, nil
}

// newCatalog validates gauges: a derived gauge must refer to existing gauges, and never to itself.
func newCatalog(gauges []Gauge) (*Catalog, error) {
	c := &Catalog{gauges: gauges, index: map[string]int{}, needs: make([][]*Query, len(gauges))}
	for i, g := range gauges {
		if _, ok := c.index[g.Name]; ok {
			return nil, fmt.Errorf("gauge %s is defined twice", g.Name)
		}
		c.index[g.Name] = i
	}

	visited := make([]visit, len(gauges))
	for i := range gauges {
		if err := c.visit(i, visited); err != nil {
			return nil, err
		}
	}

	c.collectQueries()

	return c, nil
}

// visit is the state of a gauge in the depth-first search that orders the gauges.
type visit int

const (
	unvisited visit = iota
	visiting
	visited
)

// visit appends gauge i to the evaluation order, after all gauges that it is derived from.
func (c *Catalog) visit(i int, state []visit) error {
	g := c.gauges[i]
	switch state[i] {
	case visited:
		return nil
	case visiting:
		return fmt.Errorf("gauge %s is derived from itself", g.Name)
	}

	state[i] = visiting
	c.needs[i] = slices.Clone(g.source.queries())
	for _, name := range g.source.inputs() {
		input, ok := c.index[name]
		if !ok {
			return fmt.Errorf("gauge %s is derived from %s, which does not exist", g.Name, name)
		}
		if err := c.visit(input, state); err != nil {
			return err
		}
		c.needs[i] = append(c.needs[i], c.needs[input]...)
	}

	state[i] = visited
	c.order = append(c.order, i)

	return nil
}

// collectQueries lists the queries that the gauges need: the built-in ones in the order of the
// documentation, then those of the configuration.
func (c *Catalog) collectQueries() {
	needed := map[*Query]bool{QueryUp: true, QueryReplicaTime: true}
	var custom []*Query
	for _, g := range c.gauges {
		for _, q := range g.source.queries() {
			needed[q] = true
			switch q.Shape {
			case Custom:
				custom = append(custom, q)
			case Buckets:
				needed[QueryStartTime] = true
			}
		}
	}

	for _, q := range instantQueries {
		if needed[q] {
			c.queries = append(c.queries, q)
		}
	}
	c.queries = append(c.queries, custom...)
	c.reported = slices.Concat(discoveryQueries, c.queries)
}

// Gauges returns the gauges in the order of the documentation, custom ones last. It must not be
// modified.
func (c *Catalog) Gauges() []Gauge { return c.gauges }

// Index returns the position of a gauge in Gauges.
func (c *Catalog) Index(name string) (int, bool) {
	i, ok := c.index[name]

	return i, ok
}

// Queries returns the instant queries of a scrape. The first one is QueryUp. It must not be
// modified.
func (c *Catalog) Queries() []*Query { return c.queries }

// Histograms returns the queries for buckets.
func (c *Catalog) Histograms() []*Query {
	return slices.DeleteFunc(slices.Clone(c.queries), func(q *Query) bool { return q.Shape != Buckets })
}

// ReportedQueries returns the discovery queries and the instant queries. It must not be modified.
func (c *Catalog) ReportedQueries() []*Query { return c.reported }

// Needs returns the queries that the gauge at a position of Gauges is computed from, directly or
// through other gauges. It must not be modified.
func (c *Catalog) Needs(gauge int) []*Query { return c.needs[gauge] }

// Quantiles returns the quantiles that the gauges take from the buckets of q.
func (c *Catalog) Quantiles(q *Query) []float64 {
	var phis []float64
	for _, g := range c.gauges {
		if s, ok := innermost(g.source).(quantile); ok && s.query == q {
			phis = append(phis, s.phi)
		}
	}

	return phis
}

// Evaluate computes the gauges of one store from what upstream returned for its target. The values
// are in the order of Gauges.
func (c *Catalog) Evaluate(responses Responses) []Value {
	values := make([]Value, len(c.gauges))
	in := input{responses: responses, gauge: func(name string) Value { return values[c.index[name]] }}
	for _, i := range c.order {
		values[i] = c.gauges[i].source.value(in)
	}

	return values
}
