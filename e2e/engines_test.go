// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/operator-store/operator_store_exporter/e2e/stack"
	"github.com/operator-store/operator_store_exporter/e2e/truth"
)

// view is a cluster of an exporter, with the real upstream that the expected values are queried
// from. Its stores are the targets of one job.
type view struct {
	cluster   string
	upstream  string       // The URL to query.
	client    *http.Client // If it is nil, the one of the tests.
	job       string       // If it is empty, tikv.
	instances []string
	native    bool // Upstream has native histograms only.
}

// configOf returns a configuration with a cluster for each view, without any other settings.
func configOf(views ...view) string {
	var b strings.Builder
	b.WriteString("clusters:\n")

	for _, v := range views {
		fmt.Fprintf(&b, "- name: %s\n  upstream: {url: %q}\n", v.cluster, v.upstream)
		if v.job != "" {
			fmt.Fprintf(&b, "  selector: '{job=%q}'\n", v.job)
		}
	}

	return b.String()
}

// query sends an instant query to the upstream.
func (v view) query(ctx context.Context, expression, at string) ([]stack.Series, error) {
	c := v.client
	if c == nil {
		c = client
	}
	return stack.Query(ctx, c, v.upstream, expression, at)
}

// waitForSamples waits until upstream has two samples of a metric of every store.
func (v view) waitForSamples(t *testing.T, metric string) {
	t.Helper()
	until(t, "upstream to have samples of "+metric, func(ctx context.Context) (bool, error) {
		s, err := v.query(ctx, fmt.Sprintf("count by (instance) (rate(%s[1m]))", metric), "")
		if err == nil {
			err = fmt.Errorf("upstream has rates of %d stores", len(s))
		}
		return len(s) == len(v.instances), err
	})
}

// own returns the value of one of the exporter's own metrics about the cluster.
func (v view) own(p page, metric string) float64 {
	return p[fmt.Sprintf("operator_store_exporter_%s{cluster=%q}", metric, v.cluster)]
}

// failures returns the counters of failed queries that are not 0.
func (v view) failures(p page) page {
	counted := p.with("operator_store_exporter_query_failures_total", fmt.Sprintf("cluster=%q", v.cluster))
	maps.DeleteFunc(counted, func(_ string, n float64) bool { return n == 0 })
	return counted
}

// rateWindow returns the rate window that the exporter uses.
func (v view) rateWindow(p page) time.Duration {
	return time.Duration(v.own(p, "rate_window_seconds") * float64(time.Second))
}

// gauge returns a gauge of a store.
func (v view) gauge(p page, name, instance string) (float64, bool) {
	value, ok := p[fmt.Sprintf("%s{address=%q, cluster=%q, store_id=\"\"}", name, instance, v.cluster)]
	return value, ok
}

// present returns the names of the gauges that a store has.
func (v view) present(p page, instance string) []string {
	var names []string
	for _, name := range truth.Names() {
		if _, ok := v.gauge(p, name, instance); ok {
			names = append(names, name)
		}
	}
	return names
}

// missing returns an error that names the gauges that stores lack.
func (v view) missing(p page) error {
	var errs []error
	for _, instance := range v.instances {
		have := v.present(p, instance)
		lack := truth.Select(func(g truth.Gauge) bool { return !slices.Contains(have, g.Name) })
		if len(lack) > 0 {
			errs = append(errs, fmt.Errorf("%s of %s lacks %s", instance, v.cluster, strings.Join(lack, ", ")))
		}
	}
	return errors.Join(errs...)
}

// differences returns the differences between the gauges of a page and what upstream returns for
// the expressions of the truth table at the same time, with the same rate window.
func (v view) differences(ctx context.Context, p page) ([]string, error) {
	at := strconv.FormatFloat(v.own(p, "evaluation_timestamp_seconds"), 'f', -1, 64)
	window := v.rateWindow(p)
	var differences []string
	for _, instance := range v.instances {
		for _, g := range truth.Gauges {
			got, present := v.gauge(p, g.Name, instance)
			want, wantPresent, err := v.upstreamValue(ctx, g, instance, window, at)
			if err != nil {
				return nil, err
			}
			if present != wantPresent || math.Abs(got-want) > 1e-9*math.Abs(want) {
				differences = append(differences, fmt.Sprintf(
					"%s of %s in %s at %s is %v (present %v), upstream has %v (present %v)",
					g.Name, instance, v.cluster, at, got, present, want, wantPresent))
			}
		}
	}
	return differences, nil
}

// upstreamValue returns what upstream has for a gauge at a time.
func (v view) upstreamValue(
	ctx context.Context, g truth.Gauge, instance string, rateWindow time.Duration, at string,
) (value float64, present bool, err error) {
	job := v.job
	if job == "" {
		job = "tikv"
	}

	expression := g.For(fmt.Sprintf("job=%q,instance=%q", job, instance), rateWindow, v.native)
	result, err := v.query(ctx, expression, at)
	switch {
	case err != nil:
		return 0, false, err
	case len(result) > 1:
		return 0, false, fmt.Errorf("%d series for %s", len(result), expression)
	case len(result) == 0 || math.IsNaN(result[0].Value):
		return 0, false, nil
	}
	return result[0].Value, true, nil
}

// waitForPage scrapes until want returns nil, and returns that page. It fails the test if a page
// reports a store as down.
func waitForPage(t *testing.T, e *exporter, what string, want func(page) error) page {
	t.Helper()
	return waitForPageWithin(t, e, time.Minute, 50*time.Millisecond, what, want)
}

// waitForPageWithin is waitForPage with its own timeout and pause between two scrapes.
func waitForPageWithin(
	t *testing.T, e *exporter, timeout, pause time.Duration, what string, want func(page) error,
) page {
	t.Helper()

	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	var p page
	if err := stack.UntilEvery(ctx, pause, what, func(ctx context.Context) (bool, error) {
		var err error
		if p, err = tryScrape(ctx, e.URL+"/metrics", 10*time.Second); err != nil {
			return false, err
		}
		requireNoneDown(t, p)
		err = want(p)
		return err == nil, err
	}); err != nil {
		t.Fatal(err)
	}
	return p
}

// requireNoneDown fails the test if a store is down.
func requireNoneDown(t *testing.T, p page) {
	t.Helper()

	for series, up := range p.with("operator_store_up{") {
		if up != 1 {
			t.Fatalf("%s is %g, though upstream never returned that", series, up)
		}
	}
}

// requireUpstreamValues fails the test unless the gauges of clusters equal what upstream returns,
// and every gauge is there.
//
// Upstream may have stored samples after the scrape that are older than its evaluation time. The
// values then differ although those of the exporter were right. Up to ten scrapes are therefore
// compared until one is equal, as in requireTruth.
func requireUpstreamValues(t *testing.T, e *exporter, views ...view) page {
	t.Helper()

	var p page
	for _, v := range views {
		var differences []string
		for range 10 {
			p = waitForPage(t, e, "every gauge", v.missing)
			var err error
			if differences, err = v.differences(t.Context(), p); err != nil {
				t.Fatal(err)
			}
			if len(differences) == 0 {
				break
			}
		}
		if len(differences) > 0 {
			t.Errorf("the gauges differ from upstream:\n%s", strings.Join(differences, "\n"))
		}
	}
	return p
}
