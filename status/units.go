// SPDX-License-Identifier: Apache-2.0

package status

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
	{"store_up", func(v float64, _ time.Time) string { return upOrDown(v) }},
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
	if math.Abs(v) < 1000 {
		return significant(v)
	}
	scaled, prefix := humanize.ComputeSI(v)
	return significant(scaled) + prefix
}

func significant(v float64) string {
	if math.Abs(v) >= 100 {
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	return strconv.FormatFloat(v, 'g', 3, 64)
}

func bytes(v float64) string {
	if v < 0 || v >= math.MaxUint64 {
		return number(v) + "B"
	}
	return strings.ReplaceAll(humanize.IBytes(uint64(v)), " ", "")
}

// seconds goes from microseconds to days.
func seconds(v float64) string {
	switch {
	case v != 0 && v < 0.001:
		return significant(v*1e6) + "µs"
	case v != 0 && v < 1:
		return significant(v*1000) + "ms"
	case v < 120:
		return significant(v) + "s"
	case v < 7200:
		return fmt.Sprintf("%.0fm", v/60)
	case v < 2*86400:
		return fmt.Sprintf("%.0fh", v/3600)
	default:
		return fmt.Sprintf("%.0fd", v/86400)
	}
}
