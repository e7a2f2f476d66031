// SPDX-License-Identifier: Apache-2.0

// Package storetable prints stores as a table for terminals.
package storetable

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"

	"github.com/operator-store/operator_store_exporter/internal/display"
	"github.com/operator-store/operator_store_exporter/internal/gauge"
	"github.com/operator-store/operator_store_exporter/internal/report"
)

// Absent is shown in place of an absent value.
const Absent = "-"

// WriteTable writes one line per store; below the table, the problems, and why values are absent. A
// gauge that a cluster does not have is shown as absent. Ages are relative to now.
func WriteTable(w Writer, reports []report.Report, now time.Time) error {
	var out strings.Builder
	if storeCount(reports) > 0 {
		for line := range strings.Lines(newTable(w, reports, now).Render()) {
			out.WriteString(strings.TrimRight(line, " \n") + "\n")
		}
		out.WriteString("\n")
	}
	w.addProblems(&out, reports)
	w.addAbsences(&out, reports)
	w.addSummary(&out, reports)

	_, err := io.WriteString(w, out.String())

	return err
}

func storeCount(reports []report.Report) int {
	n := 0
	for _, r := range reports {
		n += len(r.Stores)
	}

	return n
}

func problemCount(reports []report.Report) int {
	n := 0
	for _, r := range reports {
		n += len(r.Problems)
	}

	return n
}

func newTable(w Writer, reports []report.Report, now time.Time) table.Writer {
	names := gaugeNames(reports)
	header := table.Row{"cluster", "id", "address"}
	columns := []table.ColumnConfig{{Number: 2, Align: text.AlignRight, AlignHeader: text.AlignRight}}
	for _, name := range names {
		header = append(header, strings.ReplaceAll(display.Title(name), " ", "\n"))
		columns = append(columns, table.ColumnConfig{
			Number: len(header), Align: text.AlignRight, AlignHeader: text.AlignRight,
		})
	}

	t := table.NewWriter()
	t.SetStyle(table.Style{
		Box:     table.BoxStyle{PaddingRight: "  "},
		Format:  table.FormatOptions{Header: text.FormatUpper},
		Options: table.OptionsNoBordersAndSeparators,
	})
	t.AppendHeader(header)
	t.SetColumnConfigs(columns)

	for i := range reports {
		for _, s := range reports[i].Stores {
			t.AppendRow(newRow(w, &reports[i], s, names, now))
		}
	}

	return t
}

// gaugeNames returns the gauges that any of the clusters has.
func gaugeNames(reports []report.Report) []string {
	var names []string
	seen := map[string]bool{}
	for _, r := range reports {
		for _, g := range r.Gauges {
			if !seen[g.Name] {
				seen[g.Name] = true
				names = append(names, g.Name)
			}
		}
	}

	return names
}

func newRow(w Writer, r *report.Report, s report.Store, gauges []string, now time.Time) table.Row {
	row := table.Row{display.Printable(r.Cluster), display.Printable(s.ID), display.Printable(s.Address)}
	for _, name := range gauges {
		if v := r.Value(s, name); v.OK {
			row = append(row, w.paint(highlight(name, v.V), display.Human(name, v.V, now)))
		} else {
			row = append(row, w.paint(faint, Absent))
		}
	}

	return row
}

// highlight returns the style of a value that may need attention.
func highlight(name string, v float64) style {
	switch {
	case (name == gauge.Up || name == gauge.Monitored) && v != 1:
		return red
	case name == gauge.DiskFill && v > display.DiskFillCritical:
		return red
	case name == gauge.DiskFill && v > display.DiskFillWarning:
		return yellow
	default:
		return plain
	}
}

func (w Writer) addProblems(out *strings.Builder, reports []report.Report) {
	for _, r := range reports {
		for _, p := range r.Problems {
			fmt.Fprintln(out, w.paint(red, "! "+display.Printable(p.String())))
		}
	}
}

func (w Writer) addAbsences(out *strings.Builder, reports []report.Report) {
	for _, r := range reports {
		for i, g := range r.Gauges {
			for _, a := range absencesOf(r.Stores, i) {
				line := fmt.Sprintf("%s %s is absent for %s of cluster %q: %s", Absent, display.Title(g.Name),
					display.Plural(a.stores, "store"), r.Cluster, display.Printable(a.reason.String()))
				fmt.Fprintln(out, w.paint(faint, line))
			}
		}
	}
}

// absence counts the stores for which a gauge is absent for the same reason.
type absence struct {
	reason report.AbsenceReason
	stores int
}

// absencesOf returns why the gauge at a position is absent, in the order of the stores.
func absencesOf(stores []report.Store, position int) []absence {
	var absences []absence
	positions := map[report.AbsenceReason]int{}
	for _, s := range stores {
		c := s.Cells[position]
		if c.OK {
			continue
		}
		i, ok := positions[c.Absence]
		if !ok {
			i = len(absences)
			positions[c.Absence] = i
			absences = append(absences, absence{reason: c.Absence})
		}
		absences[i].stores++
	}

	return absences
}

func (w Writer) addSummary(out *strings.Builder, reports []report.Report) {
	outcome := w.Green("all queries succeeded")
	if n := problemCount(reports); n > 0 {
		outcome = w.Red(display.Plural(n, "problem"))
	}

	fmt.Fprintf(out, "%s of %s, %s\n",
		display.Plural(storeCount(reports), "store"), display.Plural(len(reports), "cluster"), outcome)
}
