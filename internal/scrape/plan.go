// SPDX-License-Identifier: Apache-2.0

package scrape

import (
	"slices"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/operator-store/operator_store_exporter/internal/gauge"
	"github.com/operator-store/operator_store_exporter/internal/promqlexpr"
	"github.com/operator-store/operator_store_exporter/internal/storematch"
)

// A Planner writes the queries for a set of targets. It is immutable.
type Planner struct {
	expressions   map[*gauge.Query]promqlexpr.Expr // With the rate window, without matchers.
	native        map[*gauge.Query]promqlexpr.Expr // Of the Buckets queries, for native histograms.
	selector      []*labels.Matcher
	replicaLabels []string
	maxBytes      int // Of one matcher.
	// Of one matcher of a query for native histograms. It is smaller, because such a query repeats
	// the matchers for the count and for each quantile.
	maxNativeBytes int
}

// NewPlanner returns a planner of queries with the given rate window. The selector is added to
// every vector selector, the replica labels to every grouping.
func NewPlanner(
	catalog *gauge.Catalog, rateWindow time.Duration, selector []*labels.Matcher, replicaLabels []string,
) *Planner {
	p := &Planner{
		expressions:    map[*gauge.Query]promqlexpr.Expr{},
		native:         map[*gauge.Query]promqlexpr.Expr{},
		selector:       selector,
		replicaLabels:  replicaLabels,
		maxBytes:       promqlexpr.MaxMatcherBytes,
		maxNativeBytes: promqlexpr.MaxMatcherBytes,
	}
	for _, q := range catalog.Queries() {
		e := q.Expr
		if q.Shape != gauge.Custom {
			e = e.WithRange(rateWindow)
		}
		p.expressions[q] = e
		p.maxBytes = min(p.maxBytes, bytesPerMatcher(e))
		if q.Shape == gauge.Buckets {
			p.native[q] = q.NativeExpr(catalog.Quantiles(q)).WithRange(rateWindow)
			p.maxNativeBytes = min(p.maxNativeBytes, bytesPerMatcher(p.native[q]))
		}
	}

	return p
}

// bytesPerMatcher returns the maximum size of one matcher in e, which each vector selector repeats.
func bytesPerMatcher(e promqlexpr.Expr) int {
	return promqlexpr.MaxMatcherBytes / max(1, e.CountSelectors())
}

// A Plan is the queries for one set of targets, without those for buckets, which change from scrape
// to scrape. It is immutable.
type Plan struct {
	Targets []storematch.Identity // In their order.
	batches []batch

	// The targets of each Buckets query: those that are queried for classic buckets, and those that
	// are queried for native histograms. Each target is in one of them.
	classic, native map[*gauge.Query][]storematch.Identity
}

// batch is as many targets as one query may name, with the expressions that name them.
type batch struct {
	targets     []storematch.Identity
	expressions map[*gauge.Query]string
}

// Plan returns the queries for targets, which must be sorted. Native says for which targets
// upstream has native histograms only, so that they are queried for these in place of a Buckets
// query. There is at least one batch: without targets, only upstream's time is queried.
func (p *Planner) Plan(targets []storematch.Identity, native map[*gauge.Query]map[storematch.Identity]bool) *Plan {
	plan := &Plan{
		Targets: targets,
		classic: map[*gauge.Query][]storematch.Identity{}, native: map[*gauge.Query][]storematch.Identity{},
	}
	for q := range p.native {
		for _, t := range targets {
			if native[q][t] {
				plan.native[q] = append(plan.native[q], t)
			} else {
				plan.classic[q] = append(plan.classic[q], t)
			}
		}
	}
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

// targetExpression returns the expression of a query that is not for buckets, for targets.
func (p *Planner) targetExpression(q *gauge.Query, targets []storematch.Identity) string {
	return p.expression(p.expressions[q], p.matchers(targets))
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

// nativeExpression returns the expression of a Buckets query for targets with native histograms.
func (p *Planner) nativeExpression(q *gauge.Query, targets []storematch.Identity) string {
	return p.expression(p.native[q], p.matchers(targets))
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
	return split(targets, p.maxBytes)
}

// splitNative is Split for queries for native histograms.
func (p *Planner) splitNative(targets []storematch.Identity) [][]storematch.Identity {
	return split(targets, p.maxNativeBytes)
}

func split(targets []storematch.Identity, maxBytes int) [][]storematch.Identity {
	return promqlexpr.SplitForMatchers(targets, maxBytes,
		func(t storematch.Identity) string { return t.Job },
		func(t storematch.Identity) string { return t.Instance })
}
