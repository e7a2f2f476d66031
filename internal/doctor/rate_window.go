// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"time"

	"github.com/operator-store/operator_store_exporter/config"
	"github.com/operator-store/operator_store_exporter/internal/discovery"
)

// The numbers of scrape intervals that a window must and should cover. A rate needs two samples.
// With four, one scrape may fail, and scrapes may be late.
const (
	minIntervals         = 2
	recommendedIntervals = 4
)

// checkRateWindow compares the rate window, and the ranges of custom expressions, with how often
// upstream scrapes TiKV. It returns the scrape interval; 0 if it is unknown.
func (c *checker) checkRateWindow(ctx context.Context) time.Duration {
	finder := discovery.NewFinder(c.upstream, c.cluster.Selector, c.lookback)
	interval, err := finder.ScrapeInterval(ctx, c.targets, 0, c.now)
	switch {
	case err != nil:
		c.add(Fail, nameRateWindow, "%s", err)

		return 0
	case interval <= 0:
		c.add(Warn, nameRateWindow,
			"the scrape interval of TiKV is unknown, because upstream has only one sample of each target: "+
				"try again after a few scrapes")

		return 0
	}

	c.compareRateWindow(interval)
	c.compareRanges(interval)

	return interval
}

// compareRateWindow checks a configured rate window. An automatic one always fits.
func (c *checker) compareRateWindow(interval time.Duration) {
	every, automatic := config.Duration(interval), config.Duration(discovery.RateWindow(interval))
	switch window := time.Duration(c.cluster.RateWindow); {
	case c.cluster.RateWindow == config.RateWindowAuto:
		c.add(OK, nameRateWindow, "TiKV is scraped every %s, rate_window is %s (auto)", every, automatic)
	case window < minIntervals*interval:
		c.add(Fail, nameRateWindow, "TiKV is scraped every %s, so a rate_window of %s %s: "+
			"remove rate_window, so that it is automatic (%s)",
			every, c.cluster.RateWindow, samplesIn(window, interval), automatic)
	case window < recommendedIntervals*interval:
		c.add(Warn, nameRateWindow,
			"TiKV is scraped every %s, so with a rate_window of %s a failed scrape makes gauges absent: "+
				"remove rate_window, so that it is automatic (%s)", every, c.cluster.RateWindow, automatic)
	default:
		c.add(OK, nameRateWindow, "TiKV is scraped every %s, rate_window is %s", every, c.cluster.RateWindow)
	}
}

func (c *checker) compareRanges(interval time.Duration) {
	for _, m := range c.cluster.Metrics {
		shortest := m.Expr.ShortestRange()
		if shortest == 0 || shortest >= minIntervals*interval {
			continue
		}
		c.add(Fail, nameRateWindow,
			"TiKV is scraped every %s, so a range of %s in the expr of %s %s: set it to %s",
			config.Duration(interval), config.Duration(shortest), m.Name, samplesIn(shortest, interval),
			config.Duration(recommendedIntervals*interval))
	}
}

// samplesIn says how many samples a window of less than two scrape intervals contains.
func samplesIn(window, interval time.Duration) string {
	if window < interval {
		return "usually contains no sample"
	}

	return "contains one sample"
}
