// SPDX-License-Identifier: Apache-2.0

// Package gauge defines the catalog of store gauges with the queries that they need.
package gauge

// Gauge is one number that the exporter exposes per store.
type Gauge struct {
	Name string
	Help string
	// AbsentWhen says why the gauge can be absent for a store that upstream was successfully
	// queried for.
	AbsentWhen string

	source source
}
