// SPDX-License-Identifier: Apache-2.0

package gauge

import (
	"strconv"

	"github.com/prometheus/common/model"

	"github.com/operator-store/operator_store_exporter/internal/promqlexpr"
)

// An upstream can convert classic histograms to native ones. Such a target has no series for
// buckets, only one series per combination of labels, and upstream computes the quantiles itself.
//
// A Buckets query covers both forms. Discovery determines for each target which one upstream has,
// and a scrape sends either Expr, whose samples are the buckets, or NativeExpr, whose samples are
// the finished values. The label quantile distinguishes them: for a catalog with p95 and p99 there
// is one sample with quantile="count", one with "0.95" and one with "0.99". The sources quantile
// and observations read whichever form the response has.
const (
	nativeLabel     = model.QuantileLabel
	countLabelValue = "count" // Of the sample with the rate of all observations.
)

func quantileLabelValue(phi float64) string { return strconv.FormatFloat(phi, 'g', -1, 64) }

// NativeExpr returns what the gauges need of a Buckets query from the native histograms of the
// same name: the given quantiles and the rate of observations.
func (q *Query) NativeExpr(quantiles []float64) promqlexpr.Expr {
	histograms := q.Expr.Native()
	parts := []promqlexpr.Expr{withLabel(promqlexpr.HistogramCount(histograms), countLabelValue)}
	for _, phi := range quantiles {
		parts = append(parts, withLabel(promqlexpr.HistogramQuantile(phi, histograms), quantileLabelValue(phi)))
	}

	return promqlexpr.Or(parts...)
}

func withLabel(e promqlexpr.Expr, value string) promqlexpr.Expr {
	return promqlexpr.LabelReplace(e, nativeLabel, value, "", "")
}

// native returns the sample of a response to NativeExpr that has a value of the label quantile. It
// is absent in a response to Expr.
func (r Response) native(labelValue string) Value {
	for _, s := range r.Samples {
		if s.Metric.Get(nativeLabel) == labelValue {
			return Of(s.F)
		}
	}

	return Value{}
}
