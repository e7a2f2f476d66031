// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"maps"
	"slices"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/operator-store/operator_store_exporter/internal/display"
	"github.com/operator-store/operator_store_exporter/internal/gauge"
	"github.com/operator-store/operator_store_exporter/internal/promqlexpr"
	"github.com/operator-store/operator_store_exporter/internal/report"
	"github.com/operator-store/operator_store_exporter/internal/storematch"
)

// checkGauges explains gauges that are absent for stores that upstream scrapes. Derived gauges are
// explained by those that they are derived from, and failed queries by checkQueries.
func (c *checker) checkGauges(ctx context.Context, r *report.Report) {
	if err := c.describeHistograms(ctx); err != nil {
		c.add(Fail, nameGauges, "%s", err)

		return
	}

	present, explained := 0, 0
	for i, g := range r.Gauges {
		if len(storesWithout(r, i)) == 0 {
			present++
		}
		stores := storesWithout(r, i, report.NoData)
		series := g.Series()
		if len(stores) == 0 || len(series) == 0 {
			continue
		}
		exporting, err := c.targetsWith(ctx, series)
		if err != nil {
			c.add(Fail, nameGauges, "%s", err)

			return
		}
		c.explainAbsence(g, series, stores, exporting)
		explained++
	}

	if explained == 0 {
		c.add(OK, nameGauges, "%s, none of them absent for a store that upstream scrapes",
			display.Plural(present, "gauge"))
	}
}

// infBucket selects one bucket of each histogram.
var infBucket = labels.MustNewMatcher(labels.MatchEqual, model.BucketLabel, "+Inf")

// describeHistograms says which histograms upstream has converted to native ones, and for how many
// targets. Of a target with both forms, the classic buckets are used.
func (c *checker) describeHistograms(ctx context.Context) error {
	catalog, err := gauge.NewCatalog(c.cluster.Metrics)
	if err != nil {
		return err
	}

	for _, q := range catalog.Histograms() {
		native, err := c.targetsWith(ctx, q.Expr.Native().Series())
		if err != nil {
			return err
		}
		if len(native) == 0 {
			continue
		}
		classic, err := c.targetsWith(ctx, q.Expr.Only(infBucket).Series())
		if err != nil {
			return err
		}
		maps.DeleteFunc(native, func(t storematch.Identity, _ bool) bool { return classic[t] })

		if len(native) > 0 {
			c.add(OK, nameGauges, "%s is a native histogram for %s, and has classic buckets for %d",
				promqlexpr.Or(q.Expr.Native().Series()...), display.Plural(len(native), "target"), len(classic))
		}
	}

	return nil
}

// storesWithout returns the stores that upstream scrapes and that lack a gauge for one of reasons;
// if reasons is empty, for any reason.
func storesWithout(r *report.Report, position int, reasons ...report.AbsenceKind) []report.Store {
	var stores []report.Store
	for _, s := range r.Stores {
		up, cell := r.Value(s, gauge.Up), s.Cells[position]
		if !up.OK || up.V != 1 || cell.OK {
			continue
		}
		if len(reasons) == 0 || slices.Contains(reasons, cell.Absence.Kind) {
			stores = append(stores, s)
		}
	}

	return stores
}

// explainAbsence says for which stores a gauge is absent because upstream lacks its series, and for
// which it has them, such as a latency without a request.
func (c *checker) explainAbsence(
	g gauge.Gauge, series []promqlexpr.Expr, stores []report.Store, exporting map[storematch.Identity]bool,
) {
	var without, with []string
	for _, s := range stores {
		if t, _ := s.Match.Target(); exporting[t.Identity] {
			with = append(with, s.Address)
		} else {
			without = append(without, s.Address)
		}
	}

	if len(without) > 0 {
		c.add(Warn, nameGauges, "%s is absent for %s: %s: upstream has no %s: metrics can define another expression",
			g.Name, display.Names(without), g.AbsentWhen, promqlexpr.Or(series...))
	}
	if len(with) > 0 {
		c.add(OK, nameGauges, "%s is absent for %s: %s", g.Name, display.Names(with), g.AbsentWhen)
	}
}

// targetsWith returns the targets that have any of series.
func (c *checker) targetsWith(
	ctx context.Context, series []promqlexpr.Expr,
) (map[storematch.Identity]bool, error) {
	grouped := make([]promqlexpr.Expr, len(series))
	for i, s := range series {
		grouped[i] = promqlexpr.GroupBy(s, model.JobLabel, model.InstanceLabel)
	}
	vector, err := c.query(ctx, promqlexpr.Or(grouped...).WithMatchers(c.cluster.Selector).String())
	if err != nil {
		return nil, err
	}

	targets := map[storematch.Identity]bool{}
	for _, s := range vector {
		targets[identity(s.Metric)] = true
	}

	return targets, nil
}
