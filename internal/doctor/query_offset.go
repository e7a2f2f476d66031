// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/operator-store/operator_store_exporter/config"
	"github.com/operator-store/operator_store_exporter/internal/promqlexpr"
	"github.com/operator-store/operator_store_exporter/internal/storematch"
)

// sampleTimes returns when each target was last scraped. Targets whose series are pushed have no
// up. vector(0) makes sure that there is a sample to read upstream's time from.
var sampleTimes = promqlexpr.MustParse(
	`timestamp(up) or timestamp(tikv_store_size_bytes{type="available"}) or vector(0)`)

const (
	// maxIngestionDelay is how much older than a scrape interval the newest sample may be: a scrape
	// takes time, and its samples have the time of its start.
	maxIngestionDelay = 2 * time.Second
	// offsetStep is what suggested offsets are multiples of.
	offsetStep = 5 * time.Second
)

// checkQueryOffset measures how late samples become visible. If upstream ingests samples at once,
// the newest sample of all targets is at most one scrape interval old. If it ingests them late,
// rates lack the newest samples of their window, and stores look as if they were not scraped.
func (c *checker) checkQueryOffset(ctx context.Context, interval time.Duration) {
	if interval <= 0 {
		return // Checked by checkRateWindow.
	}

	age, found, err := c.newestSampleAge(ctx)
	switch {
	case err != nil:
		c.add(Fail, nameQueryOffset, "%s", err)

		return
	case !found:
		return // No target is live, as checkTargets says.
	}

	every, offset := config.Duration(interval), config.Duration(c.cluster.QueryOffset)
	delay := age - interval
	switch {
	case delay <= maxIngestionDelay:
		c.add(OK, nameQueryOffset, "the newest sample is %s old, TiKV is scraped every %s%s",
			config.Duration(age), every, describeOffset(c.cluster.QueryOffset))
	case delay <= time.Duration(offset):
		c.add(OK, nameQueryOffset, "samples arrive at least %s late%s",
			config.Duration(delay), describeOffset(c.cluster.QueryOffset))
	default:
		suggested := (age + offsetStep - 1).Truncate(offsetStep)
		c.add(Warn, nameQueryOffset, "the newest sample is %s old, although TiKV is scraped every %s%s: "+
			"set query_offset to %s, or find out why samples arrive late, such as a remote write that lags",
			config.Duration(age), every, describeOffset(c.cluster.QueryOffset), config.Duration(suggested))
	}
}

// describeOffset returns a phrase with the configured offset; "" if there is none.
func describeOffset(o config.Offset) string {
	if o == 0 {
		return ""
	}

	return ", query_offset is " + o.String()
}

// newestSampleAge returns how far the newest sample of any TiKV is behind upstream's clock. Found
// is false if no target has a current sample.
func (c *checker) newestSampleAge(ctx context.Context) (age time.Duration, found bool, err error) {
	tikv, jobs := map[storematch.Identity]bool{}, []string{}
	for _, t := range c.targets {
		tikv[t.Identity] = true
		jobs = append(jobs, t.Job)
	}
	matchers := append([]*labels.Matcher{promqlexpr.OneOf(model.JobLabel, jobs)}, c.cluster.Selector...)

	// Samples can arrive while the checks run: what counts is what upstream has now.
	result, err := c.upstream.Query(ctx, sampleTimes.WithMatchers(matchers).String(), time.Time{})
	if err != nil {
		return 0, false, err
	}

	for _, s := range result.Vector {
		if !tikv[identity(s.Metric)] {
			continue
		}
		a := result.EvaluatedAt.Sub(time.UnixMilli(int64(s.F * 1000)))
		if !found || a < age {
			age, found = a, true
		}
	}

	return max(0, age).Round(time.Second), found, nil
}

// identity returns the target that a series belongs to.
func identity(l labels.Labels) storematch.Identity {
	return storematch.Identity{Job: l.Get(model.JobLabel), Instance: l.Get(model.InstanceLabel)}
}
