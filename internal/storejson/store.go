// SPDX-License-Identifier: Apache-2.0

package storejson

import (
	"slices"
	"strings"

	"github.com/operator-store/operator_store_exporter/internal/gauge"
	"github.com/operator-store/operator_store_exporter/internal/report"
)

// leadingGauges are the gauges whose fields come first, in this order. All other gauges follow in
// the order of the catalog: do not add a new gauge here.
var leadingGauges = []string{
	gauge.Up,
	"operator_store_qps",
	gauge.LatencyP95,
	gauge.LatencyP99,
	gauge.DiskUsed,
	gauge.DiskAvailable,
	gauge.DiskTotal,
	gauge.DiskUtilization,
	gauge.CPUPercent,
	"operator_store_raft_lag",
}

// renamed are the fields that are not called like their gauge without its prefix, because they have
// another unit.
var renamed = map[string]struct {
	field  string
	factor float64
}{
	gauge.LatencyP95: {field: "latency_p95_ms", factor: 1000},
	gauge.LatencyP99: {field: "latency_p99_ms", factor: 1000},
}

// Names of the fields of a store that are not gauges.
const (
	fieldCluster = "cluster"
	fieldStoreID = "store_id"
	fieldAddress = "address"
	fieldMetrics = "metrics"
)

// layout describes how the gauges of a report become the fields of its stores.
type layout struct {
	fields []gaugeField
	custom []customGauge
}

// customGauge is a gauge that the configuration adds.
type customGauge struct {
	name     string
	position int // In the report's gauges.
}

// gaugeField is the field of one gauge.
type gaugeField struct {
	name     string
	position int // In the report's gauges; -1 if the report does not have the gauge.
	factor   float64
}

func newLayout(gauges []gauge.Gauge) layout {
	builtin := map[string]bool{}
	for _, g := range gauge.Builtin() {
		builtin[g.Name] = true
	}

	var l layout
	names := slices.Clone(leadingGauges)
	positions := map[string]int{}
	for i, g := range gauges {
		positions[g.Name] = i
		if !slices.Contains(leadingGauges, g.Name) {
			names = append(names, g.Name)
		}
		if !builtin[g.Name] {
			l.custom = append(l.custom, customGauge{name: g.Name, position: i})
		}
	}
	l.fields = newGaugeFields(names, positions)

	return l
}

// newGaugeFields returns the fields of gauges. A custom gauge has no field if another field has its
// name; it is among the metrics nevertheless.
func newGaugeFields(gauges []string, positions map[string]int) []gaugeField {
	var fields []gaugeField
	used := map[string]bool{fieldCluster: true, fieldStoreID: true, fieldAddress: true, fieldMetrics: true}
	for _, name := range gauges {
		f := gaugeField{name: strings.TrimPrefix(name, "operator_store_"), position: -1, factor: 1}
		if r, ok := renamed[name]; ok {
			f.name, f.factor = r.field, r.factor
		}
		if i, ok := positions[name]; ok {
			f.position = i
		}
		if !used[f.name] {
			used[f.name] = true
			fields = append(fields, f)
		}
	}

	return fields
}

// newStore returns the fields of a store.
func (l layout) newStore(cluster string, s report.Store) object {
	store := object{{fieldCluster, cluster}, {fieldStoreID, s.ID}, {fieldAddress, s.Address}}
	for _, f := range l.fields {
		store = append(store, member{f.name, f.value(s)})
	}
	if metrics := l.metrics(s); len(metrics) > 0 {
		store = append(store, member{fieldMetrics, metrics})
	}

	return store
}

// value returns the field's value; nil, which is null in JSON, if it is absent.
func (f gaugeField) value(s report.Store) any {
	if f.position < 0 || !s.Cells[f.position].OK {
		return nil
	}
	v := gauge.Of(f.factor * s.Cells[f.position].V) // Absent if the product is too large for a float64.
	if !v.OK {
		return nil
	}

	return v.V
}

// metrics returns the values of the custom gauges by their full names. Absent gauges are left out.
func (l layout) metrics(s report.Store) map[string]float64 {
	metrics := map[string]float64{}
	for _, g := range l.custom {
		if c := s.Cells[g.position]; c.OK {
			metrics[g.name] = c.V
		}
	}

	return metrics
}
