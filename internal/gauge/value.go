// SPDX-License-Identifier: Apache-2.0

package gauge

import "math"

// Value is a number that may be absent. The zero Value is absent.
type Value struct {
	V  float64
	OK bool // Whether the value exists. V is meaningless otherwise.
}

// Of returns v as a Value. NaN and infinities are absent: neither is a measurement.
func Of(v float64) Value {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return Value{}
	}

	return Value{V: v, OK: true}
}
