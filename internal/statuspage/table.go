// SPDX-License-Identifier: Apache-2.0

package statuspage

import (
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"

	"github.com/operator-store/operator_store_exporter/collector"
	"github.com/operator-store/operator_store_exporter/internal/doctor"
)

// A style is how a terminal shows text, as the parameter of its escape sequence.
type style string

const (
	plain  style = ""
	faint  style = "2"
	red    style = "31"
	green  style = "32"
	yellow style = "33"
)

// Absent stands for a value that is not there.
const Absent = "-"

// Writer writes for people, on a terminal in colour.
type Writer struct {
	io.Writer
	Colour bool
}

// paint returns s as the style shows it.
func (w Writer) paint(how style, s string) string {
	if !w.Colour || how == plain {
		return s
	}
	return "\x1b[" + string(how) + "m" + s + "\x1b[0m"
}

// Printable is s without what a terminal would take for a command.
func Printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, s)
}

// WriteTable writes the stores as a table, a store a line, and below it what is wrong. Gauges that a cluster does not have
// are absent there. Now is what ages are told from.
func WriteTable(to Writer, reports []collector.Report, now time.Time) error {
	gauges := allGauges(reports)
	t := table.NewWriter()
	t.SetStyle(table.Style{
		Box:     table.BoxStyle{PaddingRight: "  "},
		Format:  table.FormatOptions{Header: text.FormatUpper},
		Options: table.OptionsNoBordersAndSeparators,
	})
	header := table.Row{"cluster", "id", "address"}
	columns := []table.ColumnConfig{{Number: 2, Align: text.AlignRight, AlignHeader: text.AlignRight}}
	for _, g := range gauges {
		header = append(header, strings.ReplaceAll(Title(g), " ", "\n"))
		columns = append(columns, table.ColumnConfig{Number: len(header), Align: text.AlignRight, AlignHeader: text.AlignRight})
	}
	t.AppendHeader(header)
	t.SetColumnConfigs(columns)
	count := 0
	for _, r := range reports {
		for _, s := range r.Stores {
			row := table.Row{Printable(r.Cluster), Printable(s.ID), Printable(s.Address)}
			for _, g := range gauges {
				row = append(row, to.cell(r, s, g, now))
			}
			t.AppendRow(row)
			count++
		}
	}
	var page strings.Builder
	if count > 0 {
		for line := range strings.Lines(t.Render()) {
			page.WriteString(strings.TrimRight(line, " \n") + "\n")
		}
		page.WriteString("\n")
	}
	to.foot(&page, reports, count)
	_, err := io.WriteString(to, page.String())
	return err
}

// allGauges are the names of the gauges of any cluster.
func allGauges(reports []collector.Report) []string {
	var names []string
	seen := map[string]bool{}
	for _, r := range reports {
		for _, g := range r.Gauges {
			if !seen[g.Name] {
				names = append(names, g.Name)
			}
			seen[g.Name] = true
		}
	}
	return names
}

func (w Writer) cell(r collector.Report, s collector.StoreReport, gauge string, now time.Time) string {
	v, ok := r.Value(s, gauge)
	if !ok {
		return w.paint(faint, Absent)
	}
	return w.paint(alarm(gauge, v), Human(gauge, v, now))
}

// The shares of a disk from which on it wants to be looked at, as the alerts have them.
const (
	diskWarn     = 0.8
	diskCritical = 0.9
)

// alarm is how a value that nobody wants to see looks.
func alarm(gauge string, v float64) style {
	switch {
	case gauge == gaugeUp && v != 1:
		return red
	case gauge == gaugeFill && v > diskCritical:
		return red
	case gauge == gaugeFill && v > diskWarn:
		return yellow
	default:
		return plain
	}
}

// foot writes what is wrong, and what is absent and why.
func (w Writer) foot(page *strings.Builder, reports []collector.Report, count int) {
	problems := 0
	for _, r := range reports {
		for _, p := range r.Problems {
			fmt.Fprintln(page, w.paint(red, "! "+Printable(p)))
			problems++
		}
	}
	for _, r := range reports {
		for _, line := range absences(r) {
			fmt.Fprintln(page, w.paint(faint, line))
		}
	}
	summary := fmt.Sprintf("%s of %s", plural(count, "store"), plural(len(reports), "cluster"))
	if problems > 0 {
		fmt.Fprintln(page, summary+", "+w.paint(red, plural(problems, "problem")))
		return
	}
	fmt.Fprintln(page, summary+", "+w.paint(green, "every query answered"))
}

// absences are lines that say which gauges are absent, and why, in the order of the gauges.
func absences(r collector.Report) []string {
	var lines []string
	for i, g := range r.Gauges {
		count := map[string]int{}
		var reasons []string
		for _, s := range r.Stores {
			why := s.Absent[i]
			if why != "" && count[why] == 0 {
				reasons = append(reasons, why)
			}
			count[why]++
		}
		for _, why := range reasons {
			lines = append(lines, fmt.Sprintf("%s %s of cluster %q: %s is absent: %s", Absent, plural(count[why], "store"), r.Cluster, Title(g.Name), Printable(why)))
		}
	}
	return lines
}

// WriteCheck writes one of the doctor's checks, as a line.
func WriteCheck(to Writer, c doctor.Check) {
	how := map[doctor.Outcome]style{doctor.OK: green, doctor.Warn: yellow, doctor.Fail: red}[c.Outcome]
	fmt.Fprintf(to, "  %s  %-11s  %s\n", to.paint(how, fmt.Sprintf("%-4s", c.Outcome)), c.Name, Printable(c.Text))
}

func plural(n int, what string) string {
	if n == 1 {
		return fmt.Sprintf("%d %s", n, what)
	}
	return fmt.Sprintf("%d %ss", n, what)
}
