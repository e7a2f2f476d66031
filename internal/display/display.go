// SPDX-License-Identifier: Apache-2.0

// Package display formats gauges for people.
package display

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/dustin/go-humanize"

	"github.com/operator-store/operator_store_exporter/internal/gauge"
)

// A unit is how the values of some gauges are formatted. By the naming rules of Prometheus, a
// gauge's name ends with its unit.
type unit struct {
	suffix string
	format func(v float64, now time.Time) string
}

// The first suffix that fits is used, so longer ones come first. The last suffixes are whole names.
var units = []unit{
	{suffix: "_timestamp_seconds", format: formatAge},
	{suffix: "_seconds", format: func(v float64, _ time.Time) string { return formatSeconds(v) }},
	{suffix: "_bytes", format: func(v float64, _ time.Time) string { return formatBytes(v) }},
	{suffix: "_ratio", format: func(v float64, _ time.Time) string { return formatPercent(100 * v) }},
	{suffix: "_percent", format: func(v float64, _ time.Time) string { return formatPercent(v) }},
	{suffix: gauge.Up, format: func(v float64, _ time.Time) string { return either(v == 1, "up", "down") }},
	{suffix: gauge.Monitored, format: func(v float64, _ time.Time) string { return either(v == 1, "yes", "no") }},
}

// Shares of a disk above which its fill ratio is highlighted. The alerts have the same thresholds.
const (
	DiskFillWarning  = 0.8
	DiskFillCritical = 0.9
)

// Human returns a gauge's value in a unit that people read. A Unix time becomes its age at now.
func Human(name string, v float64, now time.Time) string {
	for _, u := range units {
		if strings.HasSuffix(name, u.suffix) {
			return u.format(v, now)
		}
	}

	return formatNumber(v)
}

// Title returns a short name for a gauge, such as "disk used": its name without prefix and unit.
func Title(name string) string {
	name = strings.TrimPrefix(name, "operator_store_")
	for _, u := range units {
		if rest, ok := strings.CutSuffix(name, u.suffix); ok {
			name = rest

			break
		}
	}

	return strings.ReplaceAll(name, "_", " ")
}

// Duration formats d like a gauge in seconds.
func Duration(d time.Duration) string { return formatSeconds(d.Seconds()) }

// Plural returns n with a noun, which is plural unless n is 1: "1 query", "2 queries".
func Plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	if stem, ok := strings.CutSuffix(noun, "y"); ok && !strings.ContainsAny(stem[max(0, len(stem)-1):], "aeiou") {
		return fmt.Sprintf("%d %sies", n, stem)
	}

	return fmt.Sprintf("%d %ss", n, noun)
}

// maxNames is how many names Names lists.
const maxNames = 5

// Names lists names in quotes, only the first ones if there are many: `"a", "b", "c", "d", "e" and
// 3 more`.
func Names(names []string) string {
	quoted := make([]string, min(len(names), maxNames))
	for i := range quoted {
		quoted[i] = strconv.Quote(names[i])
	}

	list := strings.Join(quoted, ", ")
	if more := len(names) - maxNames; more > 0 {
		list += fmt.Sprintf(" and %d more", more)
	}

	return list
}

// Printable returns s without the characters that a terminal may interpret as commands.
func Printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}

		return unicode.ReplacementChar
	}, s)
}

func either(condition bool, yes, no string) string {
	if condition {
		return yes
	}

	return no
}

// formatAge returns how long ago a Unix time was. The time can be slightly in the future, because
// the clocks of two servers differ; its age is 0 then.
func formatAge(v float64, now time.Time) string {
	return formatSeconds(math.Max(0, float64(now.UnixMilli())/1000-v)) + " ago"
}

func formatPercent(v float64) string { return strconv.FormatFloat(v, 'f', 1, 64) + "%" }

// formatNumber returns v with three significant digits, and with an SI prefix if it is large.
func formatNumber(v float64) string {
	v = round(v)
	if math.Abs(v) < 1000 || math.Abs(v) >= 1e15 {
		return significant(v)
	}

	scaled, prefix := humanize.ComputeSI(v)

	return significant(scaled) + prefix
}

// round returns v with three significant digits. Round before choosing a unit: 999,999 is 1M, not
// 1000k.
func round(v float64) float64 {
	rounded, err := strconv.ParseFloat(strconv.FormatFloat(v, 'g', 3, 64), 64)
	if err != nil {
		return v
	}

	return rounded
}

func significant(v float64) string { return strconv.FormatFloat(round(v), 'g', -1, 64) }

var bytePrefixes = []string{"", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"}

// formatBytes returns v in the unit in which it is below 1024. Values below 10 have one decimal,
// because an integer would be too coarse.
func formatBytes(v float64) string {
	unit := 0
	for ; math.Abs(v) >= 1023.5 && unit < len(bytePrefixes)-1; unit++ {
		v /= 1024
	}

	switch rounded := math.Round(v*10) / 10; {
	case unit == 0:
		return significant(v) + "B"
	case math.Abs(rounded) < 10:
		return strconv.FormatFloat(rounded, 'f', 1, 64) + bytePrefixes[unit] + "B"
	default:
		return strconv.FormatFloat(v, 'f', 0, 64) + bytePrefixes[unit] + "B"
	}
}

// formatSeconds returns v in a unit from microseconds to days. The bounds are where the rounded
// value would reach the next unit.
func formatSeconds(v float64) string {
	switch {
	case v < 0:
		return "-" + formatSeconds(-v)
	case v != 0 && v < 0.0009995:
		return significant(v*1e6) + "µs"
	case v != 0 && v < 0.9995:
		return significant(v*1000) + "ms"
	case v < 119.5:
		return significant(v) + "s"
	case v < 7170:
		return fmt.Sprintf("%.0fm", v/60)
	case v < 2*86400-1800:
		return fmt.Sprintf("%.0fh", v/3600)
	default:
		return fmt.Sprintf("%.0fd", v/86400)
	}
}
