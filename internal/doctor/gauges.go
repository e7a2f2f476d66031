// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/prometheus/common/model"

	"github.com/operator-store/operator_store_exporter/collector"
	"github.com/operator-store/operator_store_exporter/config"
	"github.com/operator-store/operator_store_exporter/internal/promqlexpr"
	"github.com/operator-store/operator_store_exporter/internal/storematch"
)

// How often each target is scraped, in seconds, as the timestamps of the last while tell. It is what subqueries see of
// them, so a target that was scraped but once has none.
const lately = "15m"

var scrapeIntervals = func() promqlexpr.Expr {
	const times = `timestamp(tikv_store_size_bytes{type="available"})[` + lately + `:1s]`
	return promqlexpr.MustParse(`(max_over_time(` + times + `) - min_over_time(` + times + `)) / (changes(` + times + `) > 0)`)
}()

// A rate needs two samples. With four, one scrape may fail, and scrapes need not be on time.
const (
	fewestSamples = 2
	enoughSamples = 4
)

// scrapes looks at how often upstream scrapes TiKV.
func (e *examination) scrapes(ctx context.Context) {
	vector, err := e.ask(ctx, scrapeIntervals.With(e.cluster.Selector, nil))
	if err != nil {
		e.add(Fail, "rate_window", "%s", err)
		return
	}
	longest := 0.0
	for _, s := range vector {
		longest = math.Max(longest, s.F)
	}
	interval := time.Duration(longest * float64(time.Second)).Round(time.Second)
	window := time.Duration(e.cluster.RateWindow)
	advice := fmt.Sprintf("set %s", config.Duration(enoughSamples*interval))
	switch {
	case interval <= 0:
		e.add(Warn, "rate_window", "how often TiKV is scraped can't be told yet: upstream has one sample of each: try again after a few scrapes")
	case window < fewestSamples*interval:
		e.add(Fail, "rate_window", "TiKV is scraped every %s, rate_window %s sees %s: %s", config.Duration(interval), e.cluster.RateWindow, samples(window, interval), advice)
	case window < enoughSamples*interval:
		e.add(Warn, "rate_window", "TiKV is scraped every %s, so that with a rate_window of %s a scrape that fails makes gauges absent: %s",
			config.Duration(interval), e.cluster.RateWindow, advice)
	default:
		e.add(OK, "rate_window", "TiKV is scraped every %s, rate_window is %s", config.Duration(interval), e.cluster.RateWindow)
	}
	for _, m := range e.cluster.Metrics {
		if shortest := m.Expr.ShortestRange(); shortest > 0 && shortest < fewestSamples*interval {
			e.add(Fail, "rate_window", "TiKV is scraped every %s, the %s in the expr of %s sees %s: write %s",
				config.Duration(interval), config.Duration(shortest), m.Name, samples(shortest, interval), config.Duration(enoughSamples*interval))
		}
	}
}

func samples(window, interval time.Duration) string {
	if window < interval {
		return "mostly no sample"
	}
	return "one sample"
}

// present looks at the gauges that stores lack though upstream scrapes them.
func (e *examination) present(ctx context.Context, r collector.Report) {
	all, missing := 0, false
	for i, g := range r.Gauges {
		var lacking []collector.StoreReport
		for _, s := range r.Stores {
			if up, known := r.Value(s, "operator_store_up"); known && up == 1 && math.IsNaN(s.Values[i]) && s.Absent[i] == g.AbsentWhen {
				lacking = append(lacking, s)
			}
		}
		series := g.Series()
		if len(lacking) == 0 || len(series) == 0 { // What is derived is told with what it is derived from.
			if len(lacking) == 0 {
				all++
			}
			continue
		}
		exporting, err := e.exporting(ctx, series)
		if err != nil {
			e.add(Fail, "gauges", "%s", err)
			return
		}
		var without, silent []string
		for _, s := range lacking {
			if t, _ := s.Match.Target(); exporting[t.Identity] {
				silent = append(silent, s.Address)
			} else {
				without = append(without, s.Address)
			}
		}
		if len(without) > 0 {
			missing = true
			e.add(Warn, "gauges", "%s is absent: no %s from %s: %s; metrics may name another expression for it",
				g.Name, promqlexpr.Or(series...), few(without), g.AbsentWhen)
		}
		if len(silent) > 0 {
			missing = true
			e.add(OK, "gauges", "%s is absent of %s: %s", g.Name, few(silent), g.AbsentWhen)
		}
	}
	if !missing {
		e.add(OK, "gauges", "%s, none of them absent of a store that upstream scrapes", plural(all, "gauge"))
	}
}

// exporting are the targets that have any of series.
func (e *examination) exporting(ctx context.Context, series []promqlexpr.Expr) (map[storematch.Identity]bool, error) {
	terms := make([]promqlexpr.Expr, len(series))
	for i, s := range series {
		terms[i] = promqlexpr.GroupBy(s, model.JobLabel, model.InstanceLabel)
	}
	vector, err := e.ask(ctx, promqlexpr.Or(terms...).With(e.cluster.Selector, nil))
	if err != nil {
		return nil, err
	}
	found := map[storematch.Identity]bool{}
	for _, s := range vector {
		found[storematch.Identity{Job: s.Metric.Get(model.JobLabel), Instance: s.Metric.Get(model.InstanceLabel)}] = true
	}
	return found, nil
}
