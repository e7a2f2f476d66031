// SPDX-License-Identifier: Apache-2.0

// Package reporttest builds reports for tests.
package reporttest

import (
	"slices"
	"strings"
	"time"

	"github.com/operator-store/operator_store_exporter/internal/gauge"
	"github.com/operator-store/operator_store_exporter/internal/report"
	"github.com/operator-store/operator_store_exporter/internal/storematch"
)

// EvaluatedAt is the evaluation time of all reports.
var EvaluatedAt = time.Unix(1_700_000_000, 0)

// Report returns the report of a scrape that succeeded, with all built-in gauges.
func Report(cluster string, stores ...report.Store) report.Report {
	const server = "http://prometheus:9090"

	return report.Report{
		Cluster:      cluster,
		UpstreamUp:   true,
		EvaluatedAt:  EvaluatedAt,
		RateWindow:   time.Minute,
		ActiveServer: server,
		Servers:      []string{server},
		StoresKnown:  true,
		Gauges:       gauge.Builtin(),
		Stores:       stores,
		Queries: []report.Query{{
			Name:        gauge.QueryUp.Name,
			Expressions: []string{`up{job="tikv"} or vector(0)`},
			Duration:    5 * time.Millisecond,
		}},
	}
}

// Store returns a store that matches a target with the same address, and whose built-in gauges have
// values. Gauges without a value are absent because there is no data.
func Store(id, address string, values map[string]float64) report.Store {
	return StoreWith(gauge.Builtin(), id, address, values)
}

// StoreWith is like Store for a report with other gauges. It panics if values has a gauge that is
// not among them.
func StoreWith(gauges []gauge.Gauge, id, address string, values map[string]float64) report.Store {
	for name := range values {
		if !slices.ContainsFunc(gauges, func(g gauge.Gauge) bool { return g.Name == name }) {
			panic("reporttest: there is no gauge " + name)
		}
	}

	s := report.Store{ID: id, Address: address, Cells: make([]report.Cell, len(gauges))}
	s.Match.Candidates = []storematch.Target{{Identity: storematch.Identity{Job: "tikv", Instance: address}}}
	for i, g := range gauges {
		if v, ok := values[g.Name]; ok {
			s.Cells[i].Value = gauge.Of(v)
		} else {
			s.Cells[i].Absence = report.AbsenceReason{Kind: report.NoData, AbsentWhen: g.AbsentWhen}
		}
	}

	return s
}

// Gauges returns the built-in gauges with the given names, in that order. It panics if there is no
// such gauge.
func Gauges(names ...string) []gauge.Gauge {
	all := gauge.Builtin()
	gauges := make([]gauge.Gauge, len(names))
	for i, name := range names {
		position := slices.IndexFunc(all, func(g gauge.Gauge) bool { return g.Name == name })
		if position < 0 {
			panic("reporttest: there is no gauge " + name)
		}
		gauges[i] = all[position]
	}

	return gauges
}

// ValuesOf returns the values of Values for some gauges. A custom gauge has none.
func ValuesOf(gauges []gauge.Gauge) map[string]float64 {
	all, values := Values(), map[string]float64{}
	for _, g := range gauges {
		if v, ok := all[g.Name]; ok {
			values[g.Name] = v
		}
	}

	return values
}

// Values returns a value for every built-in gauge, as of a healthy store.
func Values() map[string]float64 {
	values := map[string]float64{
		gauge.Up:              1,
		gauge.Monitored:       1,
		gauge.LatencyP95:      0.00625,
		gauge.LatencyP99:      0.0125,
		gauge.DiskUsed:        3 << 30,
		gauge.DiskAvailable:   1 << 30,
		gauge.DiskTotal:       5 << 30,
		gauge.DiskUtilization: 0.6,
		gauge.DiskFill:        0.8125,
		gauge.CPUPercent:      150,
		gauge.CPUCores:        8,

		"operator_store_qps":      811,
		"operator_store_raft_lag": 1.98,
	}
	for i, g := range gauge.Builtin() {
		if _, ok := values[g.Name]; !ok {
			values[g.Name] = typicalValue(g.Name, i)
		}
	}

	return values
}

// typicalValue returns a value that fits the unit of a gauge, and differs from those of the gauges
// next to it.
func typicalValue(name string, position int) float64 {
	switch {
	case strings.HasSuffix(name, "_timestamp_seconds"):
		return float64(EvaluatedAt.Unix() - 5)
	case strings.HasSuffix(name, "_seconds"):
		return 0.001 * float64(position)
	case strings.HasSuffix(name, "_bytes"):
		return float64(int64(position) << 20)
	case strings.HasSuffix(name, "_ratio"):
		return 0.01 * float64(position)
	default:
		return float64(100 + position)
	}
}
