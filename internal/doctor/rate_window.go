// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"time"

	"github.com/operator-store/operator_store_exporter/config"
	"github.com/operator-store/operator_store_exporter/internal/promqlexpr"
)

// scrapeIntervals returns the average scrape interval of each target in seconds, for the last 15
// minutes: the time between the first and the last sample divided by the number of times that the
// timestamp of the newest sample changed. A target that was scraped only once has no result.
var scrapeIntervals = promqlexpr.MustParse(`
	(
		max_over_time(timestamp(tikv_store_size_bytes{type="available"})[15m:1s])
		- min_over_time(timestamp(tikv_store_size_bytes{type="available"})[15m:1s])
	) / (
		changes(timestamp(tikv_store_size_bytes{type="available"})[15m:1s]) > 0
	)`)

// A rate needs two samples. With four, one scrape may fail, and scrapes may be late.
const (
	minSamples         = 2
	recommendedSamples = 4
)

// checkRateWindow compares the rate window, and the ranges of custom expressions, with how often
// upstream scrapes TiKV.
func (c *checker) checkRateWindow(ctx context.Context) {
	interval, err := c.scrapeInterval(ctx)
	switch {
	case err != nil:
		c.add(Fail, nameRateWindow, "%s", err)

		return
	case interval <= 0:
		c.add(Warn, nameRateWindow,
			"the scrape interval of TiKV is unknown, because upstream has only one sample of each target: "+
				"try again after a few scrapes")

		return
	}

	c.compareRateWindow(interval)
	c.compareRanges(interval)
}

// scrapeInterval returns the longest scrape interval of all targets; zero if it is unknown.
func (c *checker) scrapeInterval(ctx context.Context) (time.Duration, error) {
	vector, err := c.query(ctx, scrapeIntervals.WithMatchers(c.cluster.Selector).String())
	if err != nil {
		return 0, err
	}

	longest := 0.0
	for _, s := range vector {
		longest = max(longest, s.F)
	}

	return time.Duration(longest * float64(time.Second)).Round(time.Second), nil
}

func (c *checker) compareRateWindow(interval time.Duration) {
	every, recommended := config.Duration(interval), config.Duration(recommendedSamples*interval)
	switch window := time.Duration(c.cluster.RateWindow); {
	case window < minSamples*interval:
		c.add(Fail, nameRateWindow, "TiKV is scraped every %s, so a rate_window of %s %s: set it to %s",
			every, c.cluster.RateWindow, samplesIn(window, interval), recommended)
	case window < recommendedSamples*interval:
		c.add(Warn, nameRateWindow,
			"TiKV is scraped every %s, so with a rate_window of %s a failed scrape makes gauges absent: set it to %s",
			every, c.cluster.RateWindow, recommended)
	default:
		c.add(OK, nameRateWindow, "TiKV is scraped every %s, rate_window is %s", every, c.cluster.RateWindow)
	}
}

func (c *checker) compareRanges(interval time.Duration) {
	for _, m := range c.cluster.Metrics {
		shortest := m.Expr.ShortestRange()
		if shortest == 0 || shortest >= minSamples*interval {
			continue
		}
		c.add(Fail, nameRateWindow,
			"TiKV is scraped every %s, so a range of %s in the expr of %s %s: set it to %s",
			config.Duration(interval), config.Duration(shortest), m.Name, samplesIn(shortest, interval),
			config.Duration(recommendedSamples*interval))
	}
}

// samplesIn says how many samples a window of less than two scrape intervals contains.
func samplesIn(window, interval time.Duration) string {
	if window < interval {
		return "usually contains no sample"
	}

	return "contains one sample"
}
