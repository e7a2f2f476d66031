// SPDX-License-Identifier: Apache-2.0

package report

import "fmt"

// AbsenceKind is the kind of reason why a gauge is absent.
type AbsenceKind int

// The kinds of reasons why a gauge is absent.
const (
	Present          AbsenceKind = iota // It is not absent.
	AmbiguousMatch                      // More than one target matches the store.
	DuplicateTargets                    // Upstream has more than one target with the store's job and instance.
	NoTarget                            // Upstream has no target for the store.
	StoreDown                           // Upstream's scrapes of the store fail.
	QueryFailed                         // A query that the gauge needs failed.
	NoData                              // Upstream answered, and has no data for the gauge.
)

// AbsenceReason is why a gauge is absent. The zero AbsenceReason is that of a gauge that is
// present.
type AbsenceReason struct {
	Kind       AbsenceKind
	Query      string // The query that failed, for QueryFailed.
	AbsentWhen string // When the gauge has no data, for NoData; see gauge.Gauge.
}

// String returns the reason as a clause.
func (r AbsenceReason) String() string {
	switch r.Kind {
	case Present:
		return ""
	case AmbiguousMatch:
		return "more than one target matches the store"
	case DuplicateTargets:
		return "upstream has more than one target with the store's job and instance"
	case NoTarget:
		return "upstream has no target for the store"
	case StoreDown:
		return "the store is down"
	case QueryFailed:
		return fmt.Sprintf("query %q failed", r.Query)
	case NoData:
		return r.AbsentWhen
	default:
		return fmt.Sprintf("unknown reason %d", r.Kind)
	}
}
