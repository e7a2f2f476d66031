// SPDX-License-Identifier: Apache-2.0

package oracle

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/operator-store/operator_store_exporter/e2e/truth"
)

// Verdict is the result of checking a page.
type Verdict struct {
	Clusters []string
	Present  int      // Gauges that are there and right.
	Absent   int      // Gauges that are absent because a query failed.
	Down     int      // Stores that are down.
	Vanished int      // Stores that are not monitored.
	Wrong    []string // Gauges that differ from the oracle, or are absent for no reason.
}

// cluster is what a page has of a cluster.
type cluster struct {
	evaluated time.Time
	success   map[string]bool               // By query.
	stores    map[string]map[string]float64 // The gauges of each store, by ID and address.
}

// Check holds a metrics page against an oracle whose stores are always healthy.
func Check(page io.Reader, expected map[string]int) (Verdict, error) {
	return Oracle{}.Check(page, expected)
}

// Check holds a metrics page against the oracle. Expected is the number of stores of each cluster,
// which are the first ones of the oracle. The error is that of a malformed page.
func (o Oracle) Check(page io.Reader, expected map[string]int) (Verdict, error) {
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(page)
	if err != nil {
		return Verdict{}, err
	}

	clusters := map[string]*cluster{}
	for name, family := range families {
		for _, m := range family.Metric {
			l := labelsOf(m)
			if l["cluster"] == "" {
				continue
			}
			if clusters[l["cluster"]] == nil {
				clusters[l["cluster"]] = &cluster{success: map[string]bool{}, stores: map[string]map[string]float64{}}
			}
			clusters[l["cluster"]].add(name, l, m.GetGauge().GetValue())
		}
	}

	verdict := Verdict{}
	for name, c := range clusters {
		verdict.Clusters = append(verdict.Clusters, name)
		c.check(&verdict, o, name, expected[name])
	}
	slices.Sort(verdict.Clusters)

	return verdict, nil
}

func labelsOf(m *dto.Metric) map[string]string {
	l := map[string]string{}
	for _, p := range m.Label {
		l[p.GetName()] = p.GetValue()
	}
	return l
}

// add adds a series of the page.
func (c *cluster) add(name string, labels map[string]string, v float64) {
	switch {
	case name == "operator_store_exporter_evaluation_timestamp_seconds":
		c.evaluated = time.UnixMilli(int64(math.Round(v * 1000)))
	case name == "operator_store_exporter_query_success":
		c.success[labels["query"]] = v == 1
	case truth.QueryOf(name) != "":
		key := labels["store_id"] + " " + labels["address"]
		if c.stores[key] == nil {
			c.stores[key] = map[string]float64{}
		}
		c.stores[key][name] = v
	}
}

// check adds the gauges of a cluster to a verdict.
func (c *cluster) check(v *Verdict, o Oracle, name string, stores int) {
	if len(c.stores) > 0 && c.evaluated.IsZero() {
		v.Wrong = append(v.Wrong, name+" has gauges but no evaluation time")
		return
	}

	wrong := func(format string, args ...any) {
		v.Wrong = append(v.Wrong, fmt.Sprintf("%s at %s: ", name, c.evaluated)+fmt.Sprintf(format, args...))
	}
	for i := range stores {
		key := ID(i) + " " + Address(i)
		got := c.stores[key]
		delete(c.stores, key)
		want := o.gauges(i, c.evaluated)
		if o.mayBeUnknown(i, c.evaluated) && got == nil {
			v.Absent += len(want)
			continue
		}
		c.checkStore(v, wrong, key, got, want)
	}

	for key := range c.stores {
		wrong("the store %q does not exist", strings.TrimSpace(key))
	}
}

// checkStore adds the gauges of a store to a verdict.
func (c *cluster) checkStore(
	v *Verdict, wrong func(format string, args ...any), key string, got, wanted map[string]float64,
) {
	for gauge, want := range wanted {
		value, ok := got[gauge]
		switch {
		case !ok && c.explainsAbsence(gauge):
			v.Absent++
		case !ok:
			wrong("%s of %s is absent, though its query succeeded", gauge, key)
		case math.Abs(value-want) > 1e-9*math.Abs(want):
			wrong("%s of %s is %v, want %v", gauge, key, value, want)
		default:
			v.Present++
		}
	}

	for gauge, value := range got {
		if _, ok := wanted[gauge]; !ok {
			wrong("%s of %s is %v, want it absent", gauge, key, value)
		}
	}

	up, ok := got["operator_store_up"]
	if ok && up == 0 {
		v.Down++
	}
	if monitored, ok := got["operator_store_monitored"]; ok && monitored == 0 {
		v.Vanished++
	}
}

// unknownFor is how long a store can be unknown that was not there when the exporter discovered the
// stores of a new cluster. Until then, discovery fails time and again in the soak.
const unknownFor = time.Minute

// mayBeUnknown reports whether the exporter need not know a store at a time, because the store was
// not there shortly before.
func (o Oracle) mayBeUnknown(store int, at time.Time) bool {
	for t := at; t.After(at.Add(-unknownFor)); t = t.Add(-time.Second) {
		if o.condition(store, t.UnixMilli()) != Healthy {
			return true
		}
	}
	return false
}

// explainsAbsence reports whether the failure of a query is the reason why a gauge is absent: of
// its own query, of the query for targets, or of the two queries that select one of several targets
// with the same identity.
func (c *cluster) explainsAbsence(gauge string) bool {
	return !c.success[truth.QueryOf(gauge)] ||
		!c.success["targets"] && c.evaluated.IsZero() ||
		!c.success["up"] && !c.success["last_scrape"]
}
