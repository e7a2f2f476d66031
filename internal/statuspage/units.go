// SPDX-License-Identifier: Apache-2.0

package statuspage

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
)

// A unit is how people read a number, which the suffix of its metric's name tells as Prometheus' naming wants it.
type unit struct {
	suffix string
	human  func(v float64, now time.Time) string
}

// The longer suffixes first.
var units = []unit{
	{"_timestamp_seconds", age},
	{"_seconds", func(v float64, _ time.Time) string { return seconds(v) }},
	{"_bytes", func(v float64, _ time.Time) string { return bytes(v) }},
	{"_ratio", func(v float64, _ time.Time) string { return percent(100 * v) }},
	{"_percent", func(v float64, _ time.Time) string { return percent(v) }},
	{gaugeUp, func(v float64, _ time.Time) string { return upOrDown(v) }},
}

// Human is a gauge's value as people read it. A Unix time becomes its age, as of now.
func Human(gauge string, v float64, now time.Time) string {
	for _, u := range units {
		if strings.HasSuffix(gauge, u.suffix) {
			return u.human(v, now)
		}
	}
	return number(v)
}

func upOrDown(v float64) string {
	if v == 1 {
		return "up"
	}
	return "down"
}

// age is how long ago a Unix time was. The clocks of two servers may differ, so it may be in the future a little.
func age(v float64, now time.Time) string {
	return seconds(math.Max(0, float64(now.UnixMilli())/1000-v)) + " ago"
}

func percent(v float64) string { return strconv.FormatFloat(v, 'f', 1, 64) + "%" }

// number has three significant digits, and a prefix where it is large.
func number(v float64) string {
	v = round(v)
	if math.Abs(v) < 1000 || math.Abs(v) >= 1e15 {
		return significant(v)
	}
	scaled, prefix := humanize.ComputeSI(v)
	return significant(scaled) + prefix
}

// round keeps three significant digits, so that what becomes the next larger unit is told in it.
func round(v float64) float64 {
	rounded, err := strconv.ParseFloat(strconv.FormatFloat(v, 'g', 3, 64), 64)
	if err != nil {
		return v
	}
	return rounded
}

func significant(v float64) string { return strconv.FormatFloat(round(v), 'g', -1, 64) }

// bytes has two digits where one would say little.
func bytes(v float64) string {
	prefixes := []string{"", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"}
	i := 0
	for ; math.Abs(v) >= 1023.5 && i < len(prefixes)-1; i++ {
		v /= 1024
	}
	switch rounded := math.Round(v*10) / 10; {
	case i == 0:
		return significant(v) + "B"
	case math.Abs(rounded) < 10:
		return strconv.FormatFloat(rounded, 'f', 1, 64) + prefixes[i] + "B"
	default:
		return strconv.FormatFloat(v, 'f', 0, 64) + prefixes[i] + "B"
	}
}

// seconds goes from microseconds to days.
func seconds(v float64) string {
	switch {
	case v < 0:
		return "-" + seconds(-v)
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
