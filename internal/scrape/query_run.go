// SPDX-License-Identifier: Apache-2.0

package scrape

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/promql"

	"github.com/operator-store/operator_store_exporter/internal/bucketwindow"
	"github.com/operator-store/operator_store_exporter/internal/gauge"
	"github.com/operator-store/operator_store_exporter/internal/httpclient"
	"github.com/operator-store/operator_store_exporter/internal/promapi"
	"github.com/operator-store/operator_store_exporter/internal/report"
	"github.com/operator-store/operator_store_exporter/internal/storematch"
)

// A QueryRun is the execution of one query, in one or more requests. Its methods are safe for
// concurrent use.
type QueryRun struct {
	query         *gauge.Query
	replicaLabels []string
	countFailure  func(*gauge.Query, httpclient.Reason) // Called once per failure.

	mu          sync.Mutex
	ran         bool
	expressions []string // As they were sent.
	duration    time.Duration
	partial     bool                                                      // Whether a response may lack series.
	errs        []error                                                   // One per failed request.
	samples     map[storematch.Identity]map[string][]promql.Sample        // By target and replica.
	histograms  map[storematch.Identity]map[string]bucketwindow.Histogram // From the samples of Buckets queries.
	unanswered  map[storematch.Identity]bool                              // Targets of the requests that failed.
	rejected    map[storematch.Identity]error                             // Why the samples of a target were dropped.
}

// NewQueryRun returns a run of q that has not sent anything. countFailure is called for each failed
// request and each rejected response; it must not call methods of the run.
func NewQueryRun(
	q *gauge.Query, replicaLabels []string, countFailure func(*gauge.Query, httpclient.Reason),
) *QueryRun {
	return &QueryRun{
		query:         q,
		replicaLabels: replicaLabels,
		countFailure:  countFailure,
		samples:       map[storematch.Identity]map[string][]promql.Sample{},
		histograms:    map[storematch.Identity]map[string]bucketwindow.Histogram{},
		unanswered:    map[storematch.Identity]bool{},
		rejected:      map[storematch.Identity]error{},
	}
}

// Do sends one request, for targets, and keeps its result. Expression is the PromQL of the request,
// or "" if the request has none. If upstream rejects a request about several targets as too large,
// Do returns true and keeps nothing: the caller must send smaller requests.
func (r *QueryRun) Do(
	targets []storematch.Identity, expression string, send func() (promapi.Result, error),
) (tooLarge bool) {
	if expression != "" {
		r.mu.Lock()
		r.expressions = append(r.expressions, expression)
		r.mu.Unlock()
	}

	start := time.Now()
	result, err := send()
	duration := time.Since(start)

	r.mu.Lock()
	defer r.mu.Unlock()
	r.ran = true
	r.duration = max(r.duration, duration)
	if err != nil {
		if len(targets) > 1 && httpclient.IsTooLarge(err) {
			return true
		}
		r.fail(targets, err)

		return false
	}

	r.partial = r.partial || result.Partial

	// The matchers of a batch select jobs and instances independently, so they may select targets
	// of other batches.
	wanted := make(map[storematch.Identity]bool, len(targets))
	for _, t := range targets {
		wanted[t] = true
	}

	for _, s := range result.Vector {
		if t := identity(s); wanted[t] {
			r.add(t, s)
		}
	}

	return false
}

// fail records a failed request. The caller holds the lock.
func (r *QueryRun) fail(targets []storematch.Identity, err error) {
	r.errs = append(r.errs, err)
	r.countFailure(r.query, httpclient.ReasonOf(err))

	for _, t := range targets {
		r.unanswered[t] = true
	}
}

func identity(s promql.Sample) storematch.Identity {
	return storematch.Identity{Job: s.Metric.Get(model.JobLabel), Instance: s.Metric.Get(model.InstanceLabel)}
}

var (
	errSeveralSeries = errors.New(
		"the response has several series; sum by (job, instance) (...) would make them one")
	errDuplicateSeries = errors.New("the response has a series twice")
)

// typicalWindow is about how many buckets a window selects.
const typicalWindow = 8

// add assigns a sample to the target and the replica that it comes from. The caller holds the lock.
func (r *QueryRun) add(target storematch.Identity, s promql.Sample) {
	if _, rejected := r.rejected[target]; rejected {
		return
	}
	byReplica := r.samples[target]
	if byReplica == nil {
		byReplica = map[string][]promql.Sample{}
		r.samples[target] = byReplica
	}

	replica := r.replicaOf(s)
	samples := byReplica[replica]
	switch r.query.Shape {
	case gauge.Custom:
		if len(samples) > 0 {
			r.reject(target, errSeveralSeries)

			return
		}
	case gauge.Grouped:
		if slices.ContainsFunc(samples, func(o promql.Sample) bool {
			return o.Metric.Get("type") == s.Metric.Get("type")
		}) {
			r.reject(target, errDuplicateSeries)

			return
		}
	case gauge.Buckets: // Duplicates are detected when the samples are read as a histogram.
		if samples == nil {
			samples = make([]promql.Sample, 0, typicalWindow)
		}
	case gauge.Raw: // Several series mean that several targets share the identity; see Results.DuplicateTargets.
	}
	byReplica[replica] = append(samples, s)
}

// replicaOf identifies the replica that s comes from; it is "" if there are no replica labels.
func (r *QueryRun) replicaOf(s promql.Sample) string {
	if len(r.replicaLabels) == 0 {
		return ""
	}

	values := make([]string, len(r.replicaLabels))
	for i, l := range r.replicaLabels {
		values[i] = s.Metric.Get(l)
	}

	return strings.Join(values, "\xff")
}

// reject drops the response about one target. The caller holds the lock.
func (r *QueryRun) reject(target storematch.Identity, err error) {
	r.rejected[target] = err
	r.countFailure(r.query, httpclient.ReasonResponse)
	delete(r.samples, target)
}

// forget drops the responses about targets that are queried again.
func (r *QueryRun) forget(targets []storematch.Identity) {
	r.mu.Lock()
	defer r.mu.Unlock()

	for _, t := range targets {
		delete(r.samples, t)
	}
}

// samplesOf returns the samples of a target by replica, which must not be modified, and whether
// upstream answered the query for it.
func (r *QueryRun) samplesOf(t storematch.Identity) (byReplica map[string][]promql.Sample, answered bool) {
	r.mu.Lock()
	defer r.mu.Unlock()

	return r.samples[t], r.answered(t)
}

// setHistograms stores the histograms that the samples of a target make up, by replica. An error
// rejects them.
func (r *QueryRun) setHistograms(t storematch.Identity, histograms map[string]bucketwindow.Histogram, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		r.reject(t, err)

		return
	}
	r.histograms[t] = histograms
}

// response returns what the query returned for one replica of a target. The run has finished.
func (r *QueryRun) response(t storematch.Identity, replica string) gauge.Response {
	return gauge.Response{
		Samples:   r.samples[t][replica],
		Histogram: r.histograms[t][replica],
		Partial:   r.partial,
	}
}

// answered reports whether upstream answered the query for a target, possibly with nothing. The
// caller holds the lock, or the run has finished.
func (r *QueryRun) answered(t storematch.Identity) bool {
	return r.ran && !r.unanswered[t] && r.rejected[t] == nil
}

// Report describes how the query went. It is not ok if no request was sent.
func (r *QueryRun) Report() (q report.Query, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()

	q = report.Query{
		Name:        r.query.Name,
		Expressions: slices.Clone(r.expressions),
		Duration:    r.duration,
		Partial:     r.partial,
		Errs:        slices.Clone(r.errs),
	}
	for target, err := range r.rejected {
		q.Rejections = append(q.Rejections, report.Rejection{Target: target, Err: err})
	}
	slices.SortFunc(q.Rejections, func(a, b report.Rejection) int { return a.Target.Compare(b.Target) })

	return q, r.ran
}
