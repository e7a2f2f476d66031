// SPDX-License-Identifier: Apache-2.0

package statuspage

import (
	"cmp"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/operator-store/operator_store_exporter/internal/display"
	"github.com/operator-store/operator_store_exporter/internal/gauge"
	"github.com/operator-store/operator_store_exporter/internal/report"
)

func newRowView(r *report.Report, s report.Store, now time.Time) rowView {
	row := rowView{Address: s.Address, ID: s.ID, Cells: make([]cellView, len(r.Gauges))}
	if t, ok := s.Match.Target(); ok && t.Instance != s.Address {
		row.Instance = t.Instance
	}

	state := stateOf(r, s)
	row.Error = state == storeDown || state == storeNotMonitored
	for i, g := range r.Gauges {
		switch v := s.Cells[i].Value; {
		case g.Name == gauge.Up && state == storeNotMonitored:
			row.Cells[i] = cellView{Text: "not monitored", Error: true}
		case v.OK:
			row.Cells[i] = cellView{
				Text:  display.Human(g.Name, v.V, now),
				Error: (g.Name == gauge.Up || g.Name == gauge.Monitored) && v.V != 1,
				Bar:   newBarView(shareOf(r, s, g.Name)),
			}
		default:
			row.Cells[i].Absent = cmp.Or(s.Cells[i].Absence.String(), "unknown reason")
		}
	}

	return row
}

// shareOf returns the value of a gauge as a share of a resource. It is absent if the gauge is no
// such share, or if the amount of the resource is unknown.
func shareOf(r *report.Report, s report.Store, name string) gauge.Value {
	v := r.Value(s, name)
	switch name {
	case gauge.DiskUtilization, gauge.DiskFill:
		return v
	case gauge.CPUPercent:
		cores := r.Value(s, gauge.CPUCores)
		if !cores.OK || cores.V <= 0 {
			return gauge.Value{}
		}

		return gauge.Of(v.V / (100 * cores.V))
	default:
		return gauge.Value{}
	}
}

// newBarView returns the bar for a share; nil if it is absent.
func newBarView(share gauge.Value) *barView {
	if !share.OK {
		return nil
	}

	return &barView{
		Percent: int(math.Round(100 * max(0, min(share.V, 1)))),
		High:    share.V > display.DiskFillWarning,
	}
}

// newAbsenceViews groups absent values: what many stores lack for the same reason is listed once.
func newAbsenceViews(r *report.Report) []absenceView {
	type group struct {
		gauges string
		reason report.AbsenceReason
	}
	var groups []group // In the order of the stores.
	stores := map[group][]string{}
	for _, s := range r.Stores {
		for _, reason := range absenceReasons(s) {
			g := group{gauges: titlesOfAbsent(r, s, reason), reason: reason}
			if stores[g] == nil {
				groups = append(groups, g)
			}
			stores[g] = append(stores[g], s.Address)
		}
	}

	var views []absenceView
	for _, g := range groups {
		addresses := strings.Join(stores[g], ", ")
		if n := len(r.Stores); len(stores[g]) == n && n > 1 {
			addresses = fmt.Sprintf("all %d stores", n)
		}
		views = append(views, absenceView{Gauges: g.gauges, Reason: g.reason.String(), Stores: addresses})
	}

	return views
}

// absenceReasons returns why gauges of a store are absent, each reason once, in the order of the
// gauges.
func absenceReasons(s report.Store) []report.AbsenceReason {
	var reasons []report.AbsenceReason
	seen := map[report.AbsenceReason]bool{}
	for _, c := range s.Cells {
		if !c.OK && !seen[c.Absence] {
			seen[c.Absence] = true
			reasons = append(reasons, c.Absence)
		}
	}

	return reasons
}

// titlesOfAbsent lists the gauges of a store that are absent for one reason.
func titlesOfAbsent(r *report.Report, s report.Store, reason report.AbsenceReason) string {
	var titles []string
	for i, g := range r.Gauges {
		if c := s.Cells[i]; !c.OK && c.Absence == reason {
			titles = append(titles, display.Title(g.Name))
		}
	}
	if len(titles) == len(r.Gauges) {
		return "all gauges"
	}

	return strings.Join(titles, ", ")
}
