// SPDX-License-Identifier: Apache-2.0

package collector

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/promql"

	"github.com/operator-store/operator_store_exporter/internal/httpclient"
	"github.com/operator-store/operator_store_exporter/internal/storematch"
)

// result is what came of one query, over all its chunks: the answers by target and replica. Its
// methods may be called concurrently.
type result struct {
	query    *Query
	replicas []string
	count    func(httpclient.Reason) // Called once a failure.

	expressions []string  // As they were sent.
	instant     time.Time // At which it was asked, if that is known.
	mu          sync.Mutex
	asked       bool
	answers     map[storematch.Identity]map[string]answer
	unanswered  map[storematch.Identity]bool   // The targets of the chunks that failed.
	refused     map[storematch.Identity]string // Why the answer about a target is none.
	duration    time.Duration                  // Of the slowest chunk.
	errs        []error                        // One a chunk that failed.
}

func newResult(q *Query, replicas []string, count func(httpclient.Reason)) *result {
	return &result{
		query: q, replicas: replicas, count: count,
		answers:    map[storematch.Identity]map[string]answer{},
		unanswered: map[storematch.Identity]bool{},
		refused:    map[storematch.Identity]string{},
	}
}

// sends notes an expression that is sent.
func (r *result) sends(expression string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.expressions = append(r.expressions, expression)
	return expression
}

// run asks about targets and keeps what comes of it.
func (r *result) run(targets []storematch.Identity, ask func() (promql.Vector, error)) {
	start := time.Now()
	vector, err := ask()
	duration := time.Since(start)

	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked = true
	r.duration = max(r.duration, duration)
	if err != nil {
		r.errs = append(r.errs, err)
		r.count(httpclient.ReasonOf(err))
		for _, t := range targets {
			r.unanswered[t] = true
		}
		return
	}
	// The matchers of a chunk are those of jobs and those of instances: they fit targets of other chunks too.
	asked := make(map[storematch.Identity]bool, len(targets))
	for _, t := range targets {
		asked[t] = true
	}
	for _, s := range vector {
		if t := identity(s); asked[t] {
			r.add(t, s)
		}
	}
}

func identity(s promql.Sample) storematch.Identity {
	return storematch.Identity{Job: s.Metric.Get(model.JobLabel), Instance: s.Metric.Get(model.InstanceLabel)}
}

// add gives a sample to the target and the replica it is from.
func (r *result) add(target storematch.Identity, s promql.Sample) {
	if _, refused := r.refused[target]; refused {
		return
	}
	replicas := r.answers[target]
	if replicas == nil {
		replicas = map[string]answer{}
		r.answers[target] = replicas
	}
	replica := r.replica(s)
	if r.query.own && len(replicas[replica].series) > 0 {
		r.refuse(target, "the answer has several series, which sum by (job, instance) (...) would make one,")
		return
	}
	// Those of buckets are looked through when they are made a histogram.
	if r.query.grouped && !r.query.buckets() && slices.ContainsFunc(replicas[replica].series, func(o promql.Sample) bool {
		return o.Metric.Get("type") == s.Metric.Get("type")
	}) {
		r.refuse(target, "the answer has a series twice")
		return
	}
	series := replicas[replica].series
	if series == nil && r.query.buckets() {
		series = make([]promql.Sample, 0, fewBuckets)
	}
	replicas[replica] = answer{series: append(series, s)}
}

// fewBuckets are about as many as a window has.
const fewBuckets = 8

// refuse drops what was answered about one target.
func (r *result) refuse(target storematch.Identity, why string) {
	r.refused[target] = why
	r.count(httpclient.ReasonResponse)
	delete(r.answers, target)
}

// replica names the replica that s is from, "" where there are no replicas.
func (r *result) replica(s promql.Sample) string {
	if len(r.replicas) == 0 {
		return ""
	}
	values := make([]string, len(r.replicas))
	for i, l := range r.replicas {
		values[i] = s.Metric.Get(l)
	}
	return strings.Join(values, "\xff")
}

// forget drops what was answered about targets, which are asked again.
func (r *result) forget(targets []storematch.Identity) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, t := range targets {
		delete(r.answers, t)
	}
}

// answered tells whether upstream said anything about target, if only that there is nothing.
func (r *result) answered(t storematch.Identity) bool {
	_, refused := r.refused[t]
	return !r.unanswered[t] && !refused
}

// results are those of a scrape's queries at its instant.
type results map[*Query]*result

// of is what upstream said of one target. It is nil where that can't be told.
func (r results) of(t storematch.Identity) said {
	replica, ok := r.freshest(t)
	if !ok {
		return nil
	}
	s := make(said, len(r))
	for q, result := range r {
		if result.asked && result.answered(t) {
			s[q] = result.answers[t][replica]
		}
	}
	return s
}

// freshest is the replica that scraped the target last. It is false where there are several and it is
// not known which: one that is gone would otherwise be heard for five minutes more.
func (r results) freshest(t storematch.Identity) (string, bool) {
	scraped := map[string]float64{}
	for _, result := range r {
		for replica := range result.answers[t] {
			scraped[replica] = 0
		}
	}
	if len(scraped) < 2 {
		for replica := range scraped {
			return replica, true
		}
		return "", true
	}
	if !r[queryReplicaTime].answered(t) || !r[queryLastScrape].answered(t) {
		return "", false
	}
	for _, q := range []*Query{queryLastScrape, queryReplicaTime} {
		for replica, a := range r[q].answers[t] {
			scraped[replica] = max(scraped[replica], a.series[0].F)
		}
	}
	return slices.MinFunc(slices.Collect(maps.Keys(scraped)), func(a, b string) int {
		return cmp.Or(cmp.Compare(scraped[b], scraped[a]), strings.Compare(a, b))
	}), true
}
