// SPDX-License-Identifier: Apache-2.0

package promqlexpr

import "github.com/prometheus/prometheus/model/labels"

// TODO: remove these names once their last callers are gone.

// Text is String.
func (e Expr) Text() string { return e.text }

// With is WithMatchers and WithGrouping.
func (e Expr) With(matchers []*labels.Matcher, groupBy []string) string {
	e = e.WithMatchers(matchers)
	if len(groupBy) > 0 {
		e = e.WithGrouping(groupBy)
	}
	return e.text
}

// Selectors is CountSelectors.
func (e Expr) Selectors() int { return e.CountSelectors() }

// AllNamed is AllMetricsHavePrefix.
func (e Expr) AllNamed(prefix string) bool { return e.AllMetricsHavePrefix(prefix) }
