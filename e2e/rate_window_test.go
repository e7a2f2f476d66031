// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/operator-store/operator_store_exporter/e2e/simulator"
	"github.com/operator-store/operator_store_exporter/e2e/stack"
)

// intervalCase is a job with its own scrape interval. It is a cluster of the exporter.
type intervalCase struct {
	job      string
	interval time.Duration
	changed  time.Duration // The interval after the cluster was complete; 0 if it does not change.
	window   time.Duration // The expected rate window, after the change.
}

var intervalCases = []intervalCase{
	{job: "every-5s", interval: 5 * time.Second, window: time.Minute},
	{job: "every-15s", interval: 15 * time.Second, window: time.Minute},
	{job: "every-30s", interval: 30 * time.Second, window: 2 * time.Minute},
	{job: "every-60s", interval: 60 * time.Second, window: 4 * time.Minute},
	{job: "changing", interval: 5 * time.Second, changed: 30 * time.Second, window: 2 * time.Minute},
}

// Without a configured rate window, every gauge is there and equals what upstream returns for the
// window that the exporter exposes, no matter at which interval a real Prometheus scrapes.
func TestRateWindow(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	config := stack.Config{Jobs: map[string]stack.Job{}}

	for _, tc := range intervalCases {
		config.Jobs[tc.job] = stack.Job{Interval: tc.interval}
		f.addAs(stack.Target{Job: tc.job, Instance: tc.job + ":20180"}, tc.job, tc.job+":20160", simulator.Small)
	}
	f.startConfigured(t, config)

	var views []view
	for _, tc := range intervalCases {
		views = append(views, tc.view(f.URL))
	}
	exporter := startConfigured(t, configOf(views...), "--discovery.interval=5s")

	for i, tc := range intervalCases {
		t.Run(tc.job, func(t *testing.T) {
			t.Parallel()
			tc.test(t, f, config, exporter, views[i])
		})
	}
}

// view returns the cluster of the job.
func (tc intervalCase) view(upstream string) view {
	return view{cluster: tc.job, upstream: upstream, job: tc.job, instances: []string{tc.job + ":20180"}}
}

func (tc intervalCase) test(t *testing.T, f *fleet, config stack.Config, e *exporter, v view) {
	if tc.changed > 0 {
		waitForPage(t, e, "every gauge", v.missing)
		config.Interval, config.Targets = defaultScrapeInterval, f.targets
		config.Jobs[tc.job] = stack.Job{Interval: tc.changed}
		if err := stack.Reconfigure(f.dir, config); err != nil {
			t.Fatal(err)
		}
		if err := f.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}

	tc.waitForWindow(t, e, v)
	requireUpstreamValues(t, e, v)
}

// waitForWindow waits until a page has the rate window with every gauge. Until then, the window is
// the one that is used while the interval is unknown.
func (tc intervalCase) waitForWindow(t *testing.T, e *exporter, v view) {
	t.Helper()

	waitForPageWithin(t, e, 4*time.Minute, time.Second, "the rate window of "+tc.job, func(p page) error {
		window := v.rateWindow(p)
		switch {
		case window == tc.window:
			return v.missing(p)
		case window != time.Minute:
			t.Errorf("the rate window is %s, want 1m or %s", window, tc.window)
		}
		return fmt.Errorf("the rate window is %s", window)
	})
}
