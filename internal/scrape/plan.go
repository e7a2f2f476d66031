// SPDX-License-Identifier: Apache-2.0

package scrape

import (
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/operator-store/operator_store_exporter/internal/gauge"
	"github.com/operator-store/operator_store_exporter/internal/promqlexpr"
	"github.com/operator-store/operator_store_exporter/internal/storematch"
)

// Bounds of one label matcher. Prometheus compiles a matcher with at most 255 alternatives into a
// lookup in a set, which is much faster than a regular expression. Some upstreams limit the length
// of a query; VictoriaMetrics limits it to 16 KiB.
const (
	MaxMatcherValues = 250
	maxMatcherBytes  = 12_000
)

// A Planner writes the queries for a set of targets. It is immutable.
type Planner struct {
	expressions   map[*gauge.Query]promqlexpr.Expr // With the rate window, without matchers.
	selector      []*labels.Matcher
	replicaLabels []string
	maxBytes      int // Of one matcher.
}

// NewPlanner returns a planner of queries with the given rate window. The selector is added to
// every vector selector, the replica labels to every grouping.
func NewPlanner(
	queries []*gauge.Query, rateWindow time.Duration, selector []*labels.Matcher, replicaLabels []string,
) *Planner {
	p := &Planner{
		expressions:   make(map[*gauge.Query]promqlexpr.Expr, len(queries)),
		selector:      selector,
		replicaLabels: replicaLabels,
		maxBytes:      maxMatcherBytes,
	}
	for _, q := range queries {
		e := q.Expr
		if q.Shape != gauge.Custom {
			e = e.WithRange(rateWindow)
		}
		p.expressions[q] = e
		// Each vector selector of an expression has the matchers.
		p.maxBytes = min(p.maxBytes, maxMatcherBytes/max(1, e.CountSelectors()))
	}

	return p
}

// A Plan is the queries for one set of targets, without those for buckets, which change from scrape
// to scrape. It is immutable.
type Plan struct {
	Targets []storematch.Identity // In their order.
	batches []batch
}

// batch is as many targets as one query may name, with the expressions that name them.
type batch struct {
	targets     []storematch.Identity
	expressions map[*gauge.Query]string
}

// Plan returns the queries for targets, which must be sorted. There is at least one batch: without
// targets, upstream is only queried for the time.
func (p *Planner) Plan(targets []storematch.Identity) *Plan {
	plan := &Plan{Targets: targets}
	if len(targets) == 0 {
		plan.batches = []batch{{expressions: map[*gauge.Query]string{gauge.QueryUp: "vector(0)"}}}

		return plan
	}

	for _, part := range p.Split(targets) {
		b := batch{targets: part, expressions: make(map[*gauge.Query]string, len(p.expressions))}
		matchers := p.matchers(part)
		for q, e := range p.expressions {
			needless := q == gauge.QueryReplicaTime && len(p.replicaLabels) == 0
			if needless || q.Shape == gauge.Buckets {
				continue
			}
			b.expressions[q] = p.expression(e, matchers)
		}
		plan.batches = append(plan.batches, b)
	}

	return plan
}

// bucketExpression returns the expression of a Buckets query for targets and the values of le in
// bounds; nil selects all buckets.
func (p *Planner) bucketExpression(q *gauge.Query, targets []storematch.Identity, bounds []string) string {
	matchers := p.matchers(targets)
	if bounds != nil {
		matchers = append(matchers, promqlexpr.OneOf(model.BucketLabel, bounds))
	}

	return p.expression(p.expressions[q], matchers)
}

func (p *Planner) expression(e promqlexpr.Expr, matchers []*labels.Matcher) string {
	return e.WithMatchers(matchers).WithGrouping(p.replicaLabels).String()
}

func (p *Planner) matchers(targets []storematch.Identity) []*labels.Matcher {
	jobs, instances := make([]string, len(targets)), make([]string, len(targets))
	for i, t := range targets {
		jobs[i], instances[i] = t.Job, t.Instance
	}

	return append(slices.Clone(p.selector),
		promqlexpr.OneOf(model.JobLabel, jobs), promqlexpr.OneOf(model.InstanceLabel, instances))
}

// Split cuts targets into consecutive parts so that the matchers of each part, one for jobs and one
// for instances, stay within the bounds. A value that several targets share counts once.
func (p *Planner) Split(targets []storematch.Identity) [][]storematch.Identity {
	var parts [][]storematch.Identity
	start := 0
	jobs, instances := newMatcherSize(), newMatcherSize()
	for i, t := range targets {
		if i > start && (!jobs.fits(t.Job, p.maxBytes) || !instances.fits(t.Instance, p.maxBytes)) {
			parts = append(parts, targets[start:i])
			start = i
			jobs, instances = newMatcherSize(), newMatcherSize()
		}
		jobs.add(t.Job)
		instances.add(t.Instance)
	}

	return append(parts, targets[start:])
}

// matcherSize is the size of a matcher for the values added to it.
type matcherSize struct {
	values map[string]bool
	bytes  int
}

func newMatcherSize() *matcherSize { return &matcherSize{values: map[string]bool{}} }

// fits reports whether the matcher stays within the bounds with one more value.
func (m *matcherSize) fits(v string, maxBytes int) bool {
	return m.values[v] || len(m.values) < MaxMatcherValues && m.bytes+literalBytes(v) <= maxBytes
}

func (m *matcherSize) add(v string) {
	if !m.values[v] {
		m.values[v] = true
		m.bytes += literalBytes(v)
	}
}

// literalBytes returns how many bytes v adds to a matcher. A matcher is written as a regular
// expression in a quoted string: a.b is written as a\\.b|, which is two backslashes and a separator
// more.
func literalBytes(v string) int {
	literal := regexp.QuoteMeta(v)

	return len(literal) + strings.Count(literal, `\`) + len("|")
}
