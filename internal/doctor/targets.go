// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/prometheus/common/model"

	"github.com/operator-store/operator_store_exporter/config"
	"github.com/operator-store/operator_store_exporter/internal/discovery"
	"github.com/operator-store/operator_store_exporter/internal/display"
	"github.com/operator-store/operator_store_exporter/internal/promqlexpr"
)

var (
	// Every version of TiKV exports this series.
	tikvSeries = promqlexpr.MustParse(`tikv_store_size_bytes{type="available"}`)

	jobs = promqlexpr.MustParse(`group by (job) (up)`)
)

// checkTargets looks for the targets that are TiKV. It reports whether there are any.
func (c *checker) checkTargets(ctx context.Context) bool {
	targets, err := discovery.NewFinder(c.upstream, c.cluster.Selector, c.lookback).Targets(ctx, c.now)
	if err != nil {
		c.add(Fail, nameTargets, "%s", err)

		return false
	}

	c.targets = targets
	live := 0
	for _, t := range targets {
		if t.Live {
			live++
		}
	}

	switch {
	case len(targets) == 0:
		c.explainNoTargets(ctx)
	case live == 0:
		c.add(Fail, nameTargets,
			"upstream has no current series of TiKV, although it had series of %s within the last %s: "+
				"see %s for why its scrapes fail",
			display.Plural(len(targets), "target"), config.Duration(c.lookback), c.targetsPage())
	default:
		c.add(OK, nameTargets, "upstream scrapes %s", display.Plural(live, "TiKV target"))
	}

	return len(targets) > 0
}

// explainNoTargets says why no target is TiKV: the selector excludes all of them, or upstream does
// not scrape any.
func (c *checker) explainNoTargets(ctx context.Context) {
	if c.selectorExcludesTargets(ctx) {
		return
	}

	scrapes := ""
	if names, err := c.labelValues(ctx, jobs, model.JobLabel); err == nil {
		scrapes = "; it scrapes nothing"
		if len(names) > 0 {
			scrapes = "; it scrapes the jobs " + display.Names(names)
		}
	}
	c.add(Fail, nameTargets,
		"upstream has no series of TiKV from the last %s%s: add the status address of each TiKV, usually port 20180, "+
			"to its scrape_configs, or set url to the Prometheus that scrapes TiKV",
		config.Duration(c.lookback), scrapes)
}

// selectorExcludesTargets looks for TiKV targets without the selector. If there are any, it
// describes how their labels differ from it.
func (c *checker) selectorExcludesTargets(ctx context.Context) bool {
	if len(c.cluster.Selector) == 0 {
		return false
	}
	excluded, err := discovery.NewFinder(c.upstream, nil, c.lookback).Targets(ctx, c.now)
	if err != nil || len(excluded) == 0 {
		return false
	}

	var labels []string
	for _, m := range c.cluster.Selector {
		if !slices.Contains(labels, m.Name) {
			labels = append(labels, m.Name)
		}
	}

	var described strings.Builder
	for _, label := range labels {
		described.WriteString(c.describeLabel(ctx, label))
	}
	c.add(Fail, nameTargets, "selector %s matches no TiKV; without it, upstream has %s%s: correct selector",
		promqlexpr.Selector(c.cluster.Selector), display.Plural(len(excluded), "TiKV target"), &described)

	return true
}

// describeLabel returns a phrase with the values that a label of TiKV's series has.
func (c *checker) describeLabel(ctx context.Context, label string) string {
	values, err := c.labelValues(ctx, promqlexpr.GroupBy(tikvSeries, label), label)
	switch {
	case err != nil:
		return ""
	case len(values) == 0:
		return ", without the label " + label
	default:
		return fmt.Sprintf(", with %s %s", label, display.Names(values))
	}
}

// labelValues returns the sorted values that a label has in an expression's result.
func (c *checker) labelValues(ctx context.Context, e promqlexpr.Expr, label string) ([]string, error) {
	vector, err := c.query(ctx, e.String())
	if err != nil {
		return nil, err
	}

	var values []string
	for _, s := range vector {
		if v := s.Metric.Get(label); v != "" {
			values = append(values, v)
		}
	}
	slices.Sort(values)

	return values, nil
}
