// SPDX-License-Identifier: Apache-2.0

package collector

import (
	"regexp"
	"slices"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/operator-store/operator_store_exporter/internal/promqlexpr"
	"github.com/operator-store/operator_store_exporter/internal/storematch"
)

// Bounds of one label matcher. Prometheus looks up to 255 literals up as a set; query lengths are
// bounded by some upstreams, to 16 KiB by VictoriaMetrics.
const (
	maxMatcherValues = 250
	maxMatcherBytes  = 12_000
)

// A chunk is as many targets as one query may name, with the queries that name them.
type chunk struct {
	targets     []storematch.Identity
	expressions map[*Query]string
}

// planner writes the queries about a set of targets.
type planner struct {
	expressions map[*Query]promqlexpr.Expr
	selector    []*labels.Matcher
	groupBy     []string
	maxBytes    int // Of a matcher.
}

// newPlanner returns a planner for a rate window in PromQL's notation, with selector in every vector
// selector and replicas in every grouping.
func newPlanner(queries []*Query, window string, selector []*labels.Matcher, replicas []string) planner {
	p := planner{expressions: map[*Query]promqlexpr.Expr{}, selector: selector, groupBy: replicas, maxBytes: maxMatcherBytes}
	for _, q := range queries {
		e := promqlexpr.MustParse(strings.ReplaceAll(q.Expr, "[W]", "["+window+"]"))
		p.expressions[q] = e
		p.maxBytes = min(p.maxBytes, maxMatcherBytes/max(1, e.Selectors())) // Each of them has the matchers.
	}
	return p
}

// plan returns the chunks of targets, of which there is at least one: without targets it asks for
// nothing but the time.
func (p planner) plan(targets []storematch.Identity) []chunk {
	if len(targets) == 0 {
		return []chunk{{expressions: map[*Query]string{queryUp: "vector(0)"}}}
	}
	var chunks []chunk
	for _, part := range p.split(targets) {
		matchers := p.matchers(part)
		expressions := make(map[*Query]string, len(p.expressions))
		for q, e := range p.expressions {
			if q == queryReplicaTime && len(p.groupBy) == 0 {
				continue // There are no replicas.
			}
			if !q.buckets() { // Their chunks are others.
				expressions[q] = e.With(matchers, p.groupBy)
			}
		}
		chunks = append(chunks, chunk{part, expressions})
	}
	return chunks
}

func (p planner) matchers(targets []storematch.Identity) []*labels.Matcher {
	var jobs, instances []string
	for _, t := range targets {
		jobs = append(jobs, t.Job)
		instances = append(instances, t.Instance)
	}
	return append(slices.Clone(p.selector),
		promqlexpr.OneOf(model.JobLabel, jobs), promqlexpr.OneOf(model.InstanceLabel, instances))
}

// split cuts targets into parts whose matchers keep within bounds.
func (p planner) split(targets []storematch.Identity) [][]storematch.Identity {
	var (
		parts           [][]storematch.Identity
		start           int
		jobs, instances = newMatcherSize(), newMatcherSize()
	)
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

func (m *matcherSize) fits(v string, maxBytes int) bool {
	return m.values[v] || len(m.values) < maxMatcherValues && m.bytes+literalBytes(v) <= maxBytes
}

func (m *matcherSize) add(v string) {
	if !m.values[v] {
		m.values[v] = true
		m.bytes += literalBytes(v)
	}
}

// literalBytes is what v takes in an alternation inside a quoted string, each backslash being
// doubled there.
func literalBytes(v string) int {
	literal := regexp.QuoteMeta(v)
	return len(literal) + strings.Count(literal, `\`) + len("|")
}
