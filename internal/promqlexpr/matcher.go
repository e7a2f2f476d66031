// SPDX-License-Identifier: Apache-2.0

package promqlexpr

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
)

// ParseSelector parses a selector without a metric name, such as {tidb_cluster="prod"}. A metric
// name is an error, also as a matcher of __name__.
func ParseSelector(text string) ([]*labels.Matcher, error) {
	matchers, err := promql.ParseMetricSelector(text)
	if err != nil {
		return nil, fmt.Errorf("selector %s: %w", text, err)
	}

	for _, m := range matchers {
		if m.Name == model.MetricNameLabel {
			return nil, fmt.Errorf("selector %s: it applies to all metrics: leave out the metric name", text)
		}
	}

	return matchers, nil
}

// Selector returns the text of a selector without a metric name, such as
// {job="tikv",instance="a:20180"}.
func Selector(matchers []*labels.Matcher) string {
	texts := make([]string, len(matchers))
	for i, m := range matchers {
		texts[i] = m.String()
	}

	return "{" + strings.Join(texts, ",") + "}"
}

// OneOf returns a matcher for the series whose label has one of values.
//
// One value becomes an equality matcher, label="v". Several values become an alternation of
// escaped literals, label=~"v1|v2". Prometheus recognizes such a pattern and looks the values up
// in its index as a set, as long as there are at most 255 of them. Any other pattern is run
// against every value that the label has. Escaping also makes sure that a dot in an address
// matches a dot and nothing else.
//
// The values are sorted and deduplicated, so the same set of values always gives the same
// matcher. Bytes that are not UTF-8 are replaced by U+FFFD: no series has such a label value, and
// none matches.
func OneOf(label string, values []string) *labels.Matcher {
	valid := make([]string, len(values))
	for i, v := range values {
		valid[i] = strings.ToValidUTF8(v, "\uFFFD")
	}
	slices.Sort(valid)
	valid = slices.Compact(valid)

	if len(valid) == 1 {
		return labels.MustNewMatcher(labels.MatchEqual, label, valid[0])
	}

	literals := make([]string, len(valid))
	for i, v := range valid {
		literals[i] = regexp.QuoteMeta(v)
	}
	return labels.MustNewMatcher(labels.MatchRegexp, label, strings.Join(literals, "|"))
}
