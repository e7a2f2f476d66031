// SPDX-License-Identifier: Apache-2.0

package gauge

import (
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/operator-store/operator_store_exporter/internal/promqlexpr"
)

// A source defines how a gauge is computed, from the responses to queries or from other gauges, in
// two ways that must agree: value computes it for one store, and rule writes it in PromQL.
type source interface {
	// queries returns the queries whose responses the source reads.
	queries() []*Query
	// inputs returns the names of the gauges that the value is derived from.
	inputs() []string
	// value computes the value for one store.
	value(in input) Value
	// rule returns PromQL for the same value, for all targets at once. It calls of for the PromQL
	// of an input.
	rule(of func(gauge string) promqlexpr.Expr) promqlexpr.Expr
}

// input is what the gauges of one store are computed from.
type input struct {
	responses Responses
	gauge     func(name string) Value // The value of another gauge of the same store.
}

// fromQuery is the part of a source that reads one query and no other gauge.
type fromQuery struct{ query *Query }

func (s fromQuery) queries() []*Query { return []*Query{s.query} }
func (s fromQuery) inputs() []string  { return nil }

// A wrapper is a source that transforms the value of another one, such as scaled.
type wrapper interface{ wrapped() source }

// innermost returns the source below all wrappers.
func innermost(s source) source {
	for {
		w, ok := s.(wrapper)
		if !ok {
			return s
		}
		s = w.wrapped()
	}
}

// monitored is 1 if upstream has a sample of up for the store's target, and 0 if it has none. It is
// absent if the query failed, or if there is no sample in a response that may lack series.
type monitored struct{ fromQuery }

func (s monitored) value(in input) Value {
	response, ok := in.responses[s.query]
	if len(response.Samples) > 0 {
		return Value{V: 1, OK: true}
	}

	return Value{V: 0, OK: ok && !response.Partial}
}

func (s monitored) rule(func(string) promqlexpr.Expr) promqlexpr.Expr {
	return promqlexpr.GroupBy(promqlexpr.MustParse("up"), model.JobLabel, model.InstanceLabel)
}

// sample is the only sample of a query with one series per target.
type sample struct{ fromQuery }

func (s sample) value(in input) Value { return in.responses[s.query].one() }

func (s sample) rule(func(string) promqlexpr.Expr) promqlexpr.Expr { return s.query.Expr }

// up is upstream's own sample of up. QueryUp is "up or vector(0)"; a rule needs only the up.
type up struct{ sample }

func (up) rule(func(string) promqlexpr.Expr) promqlexpr.Expr { return promqlexpr.MustParse("up") }

// typed is the sample of a query whose label type has the given value.
type typed struct {
	fromQuery
	typ string
}

func (s typed) value(in input) Value {
	for _, sample := range in.responses[s.query].Samples {
		if sample.Metric.Get("type") == s.typ {
			return Of(sample.F)
		}
	}

	return Value{}
}

func (s typed) rule(func(string) promqlexpr.Expr) promqlexpr.Expr {
	return s.query.Expr.Only(labels.MustNewMatcher(labels.MatchEqual, "type", s.typ))
}

// quantile is the quantile phi of a Buckets query, equal to PromQL's histogram_quantile.
type quantile struct {
	fromQuery
	phi float64
}

func (s quantile) value(in input) Value {
	response := in.responses[s.query]
	histogram := response.Histogram
	if histogram.Layout() == nil { // The target has a native histogram, or the response is empty.
		return response.native(quantileLabelValue(s.phi))
	}
	v, _, ok := histogram.Quantile(s.phi)
	if !ok {
		return Value{}
	}

	return Of(v)
}

func (s quantile) rule(func(string) promqlexpr.Expr) promqlexpr.Expr {
	// Without observations the quantile is NaN, which the comparison removes.
	return promqlexpr.Or(
		promqlexpr.AtLeast(promqlexpr.HistogramQuantile(s.phi, s.query.Expr), 0),
		promqlexpr.AtLeast(promqlexpr.HistogramQuantile(s.phi, s.query.Expr.Native()), 0),
	)
}

// observations is the rate of all observations of a Buckets query: that of the bucket +Inf, or of
// the native histogram.
type observations struct{ fromQuery }

func (s observations) value(in input) Value {
	response := in.responses[s.query]
	if response.Histogram.Layout() == nil {
		return response.native(countLabelValue)
	}

	return Of(response.Histogram.Count())
}

func (s observations) rule(func(string) promqlexpr.Expr) promqlexpr.Expr {
	return promqlexpr.Or(
		s.query.Expr.Only(labels.MustNewMatcher(labels.MatchEqual, model.BucketLabel, "+Inf")),
		promqlexpr.HistogramCount(s.query.Expr.Native()),
	)
}

// ratio is one gauge divided by another. It is absent if the divisor is not above 0.
type ratio struct{ numerator, denominator string }

func (s ratio) queries() []*Query { return nil }
func (s ratio) inputs() []string  { return []string{s.numerator, s.denominator} }

func (s ratio) value(in input) Value {
	n, d := in.gauge(s.numerator), in.gauge(s.denominator)
	if !n.OK || !d.OK || d.V <= 0 {
		return Value{}
	}

	return Of(n.V / d.V)
}

func (s ratio) rule(of func(string) promqlexpr.Expr) promqlexpr.Expr {
	return promqlexpr.Divide(of(s.numerator), of(s.denominator))
}

// complement is 1 minus another source.
type complement struct{ source }

func (s complement) wrapped() source { return s.source }

func (s complement) value(in input) Value {
	v := s.source.value(in)

	return Value{V: 1 - v.V, OK: v.OK}
}

func (s complement) rule(of func(string) promqlexpr.Expr) promqlexpr.Expr {
	return promqlexpr.Complement(s.source.rule(of))
}

// scaled is another source multiplied by a constant.
type scaled struct {
	source
	factor float64
}

func (s scaled) wrapped() source { return s.source }

func (s scaled) value(in input) Value {
	v := s.source.value(in)
	if !v.OK {
		return Value{}
	}

	return Of(s.factor * v.V)
}

func (s scaled) rule(of func(string) promqlexpr.Expr) promqlexpr.Expr {
	return promqlexpr.Scale(s.factor, s.source.rule(of))
}
