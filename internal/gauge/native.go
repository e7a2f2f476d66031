// SPDX-License-Identifier: Apache-2.0

package gauge

import (
	"strconv"

	"github.com/prometheus/common/model"

	"github.com/operator-store/operator_store_exporter/internal/promqlexpr"
)

// An upstream can convert classic histograms to native ones. Such a target has no series for
// buckets, only one series per histogram, whose quantiles upstream computes itself. NativeExpr
// returns them all in one response; the label quantile distinguishes them.
const (
	nativeLabel     = model.QuantileLabel
	countLabelValue = "count" // The rate of all observations.
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

// native returns the value of NativeExpr with the given label; absent if the response is not one
// to NativeExpr.
func (r Response) native(labelValue string) Value {
	for _, s := range r.Samples {
		if s.Metric.Get(nativeLabel) == labelValue {
			return Of(s.F)
		}
	}

	return Value{}
}
