// SPDX-License-Identifier: Apache-2.0

package scrape

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/operator-store/operator_store_exporter/internal/gauge"
	"github.com/operator-store/operator_store_exporter/internal/report"
	"github.com/operator-store/operator_store_exporter/internal/storematch"
)

// Results is what upstream returned to the queries of one scrape. It is immutable.
type Results struct {
	EvaluatedAt time.Time // By upstream's clock.
	runs        map[*gauge.Query]*QueryRun
}

// Reports describes how each query went.
func (r *Results) Reports() map[*gauge.Query]report.Query {
	reports := make(map[*gauge.Query]report.Query, len(r.runs))
	for q, run := range r.runs {
		if described, ok := run.Report(); ok {
			reports[q] = described
		}
	}

	return reports
}

// Succeeded reports whether every request of q succeeded.
func (r *Results) Succeeded(q *gauge.Query) bool { return len(r.runs[q].errs) == 0 }

// ResponsesWithoutTarget returns the responses for a store that has no target. If QueryUp
// succeeded, its response is empty: upstream has no up of such a store.
func (r *Results) ResponsesWithoutTarget() gauge.Responses {
	if !r.Succeeded(gauge.QueryUp) {
		return nil
	}

	return gauge.Responses{gauge.QueryUp: {Partial: r.runs[gauge.QueryUp].partial}}
}

// Answered reports whether upstream answered q for a target, possibly with nothing.
func (r *Results) Answered(q *gauge.Query, t storematch.Identity) bool { return r.runs[q].answered(t) }

// Responses returns what upstream returned about one target. It is nil if there are several
// replicas and it is not known which one scraped the target last.
func (r *Results) Responses(t storematch.Identity) gauge.Responses {
	replica, ok := r.freshestReplica(t)
	if !ok {
		return nil
	}

	responses := make(gauge.Responses, len(r.runs))
	for q, run := range r.runs {
		if run.answered(t) {
			responses[q] = run.response(t, replica)
		}
	}

	return responses
}

// freshestReplica returns the replica that scraped the target last, "" if no series has replica
// labels. It is not ok if there are several replicas and it is not known which one scraped last.
//
// For example, the replica x of a Prometheus HA pair was stopped three minutes ago. For five
// minutes, upstream still returns the last samples of x, next to those of y. A store that went down
// two minutes ago has up=1 in the series of x, and up=0 in those of y. Both replicas' last scrape
// times, which QueryReplicaTime and QueryLastScrape return, show that y is right.
func (r *Results) freshestReplica(t storematch.Identity) (replica string, ok bool) {
	scrapedAt := map[string]float64{}
	for _, run := range r.runs {
		for name := range run.samples[t] {
			scrapedAt[name] = 0
		}
	}
	if len(scrapedAt) < 2 {
		for name := range scrapedAt {
			return name, true
		}

		return "", true
	}

	if !r.Answered(gauge.QueryReplicaTime, t) || !r.Answered(gauge.QueryLastScrape, t) {
		return "", false
	}

	for _, q := range []*gauge.Query{gauge.QueryLastScrape, gauge.QueryReplicaTime} {
		for name, samples := range r.runs[q].samples[t] {
			scrapedAt[name] = max(scrapedAt[name], samples[0].F)
		}
	}

	return slices.MinFunc(slices.Collect(maps.Keys(scrapedAt)), func(a, b string) int {
		return cmp.Or(cmp.Compare(scrapedAt[b], scrapedAt[a]), strings.Compare(a, b))
	}), true
}

// DuplicateTargets returns the label sets of the targets that share one identity, which is when a
// query that is not aggregated has several series for it. It returns nil if the identity belongs to
// one target.
func DuplicateTargets(responses gauge.Responses) []string {
	var query *gauge.Query // The first one by name, because the text of a problem must not change at random.
	for q, response := range responses {
		if q.Shape == gauge.Raw && len(response.Samples) > 1 && (query == nil || q.Name < query.Name) {
			query = q
		}
	}
	if query == nil {
		return nil
	}

	var targets []string
	for _, sample := range responses[query].Samples {
		targets = append(targets, sample.Metric.String())
	}
	slices.Sort(targets)

	return targets
}
