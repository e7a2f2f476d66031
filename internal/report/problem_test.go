// SPDX-License-Identifier: Apache-2.0

package report_test

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/operator-store/operator_store_exporter/internal/httpclient"
	"github.com/operator-store/operator_store_exporter/internal/report"
	"github.com/operator-store/operator_store_exporter/internal/storematch"
)

// identity returns the identity of a target of the job tikv.
func identity(instance string) storematch.Identity {
	return storematch.Identity{Job: "tikv", Instance: instance}
}

// match returns an ambiguous match with some candidates.
func match(instances ...string) storematch.Match {
	m := storematch.Match{Rule: "exact instance", Ambiguous: true}
	for _, i := range instances {
		m.Candidates = append(m.Candidates, storematch.Target{Identity: identity(i)})
	}

	return m
}

// queryProblem returns the problem of queries that failed with one error.
func queryProblem(err error, names ...string) report.Problem {
	var queries []report.Query
	for _, name := range names {
		queries = append(queries, report.Query{Name: name, Errs: []error{err}})
	}

	return report.NewQueryProblems("c", queries)[0]
}

// Every kind of problem: its text, its keys and its fields in the log.
func TestProblem(t *testing.T) {
	const (
		a = `{job="tikv", instance="a:1"}`
		b = `{job="tikv", instance="b:1"}`
	)
	store := storematch.Store{ID: "7", Address: "a:20160"}

	for _, tc := range []struct {
		name    string
		problem report.Problem
		text    string
		keys    []string
		message string
		fields  []any
		about   bool // Whether it is about a store without gauges.
	}{
		{
			name: "failed query",
			problem: queryProblem(&httpclient.Error{
				Reason: httpclient.ReasonHTTP, Request: "POST http://a", Err: errors.New("500"),
			}, "up"),
			text:    `query "up" of cluster "c" failed: POST http://a: 500`,
			keys:    []string{"up http"},
			message: "query failed",
			fields:  []any{"cluster", "c", "query", "up", "reason", "http", "err", "POST http://a: 500"},
		},
		{
			name: "failed queries",
			problem: queryProblem(&httpclient.Error{
				Reason: httpclient.ReasonHTTP, Request: "POST http://a", Err: errors.New("500"),
			}, "up", "cpu_quota"),
			text:    `query "up", "cpu_quota" of cluster "c" failed: POST http://a: 500`,
			keys:    []string{"up http", "cpu_quota http"},
			message: "query failed",
			fields:  []any{"cluster", "c", "query", "up,cpu_quota", "reason", "http", "err", "POST http://a: 500"},
		},
		{
			name:    "failed query, error of another type",
			problem: queryProblem(errors.New("unexpected"), "up"),
			text:    `query "up" of cluster "c" failed: unexpected`,
			keys:    []string{"up response"},
			message: "query failed",
			fields:  []any{"cluster", "c", "query", "up", "reason", "response", "err", "unexpected"},
		},
		{
			name: "rejected response",
			problem: report.Problem{
				Kind: report.ProblemResponseRejected, Cluster: "c", Queries: []string{"up"},
				Reason: httpclient.ReasonResponse, Err: errors.New("two series"), Target: identity("a:1"),
			},
			text:    `query "up" of cluster "c": dropped the response for ` + a + `: two series`,
			keys:    []string{`up rejected ` + a},
			message: "response dropped",
			fields: []any{
				"cluster", "c", "query", "up", "reason", "response", "target", a, "err", "two series",
			},
		},
		{
			name: "too many stores",
			problem: report.Problem{
				Kind: report.ProblemStoreLimit, Cluster: "c", Reason: httpclient.ReasonLimit, Dropped: 3, Limit: 10,
			},
			text: `cluster "c": there are 3 stores more than store_limit, 10: ` +
				`narrow upstream with selector, or raise store_limit`,
			keys:    []string{"store limit"},
			message: "stores left out",
			fields: []any{
				"cluster", "c", "reason", "limit", "err", "there are 3 stores more than store_limit, 10",
				"hint", "narrow upstream with selector, or raise store_limit",
			},
		},
		{
			name:    "no targets",
			problem: report.Problem{Kind: report.ProblemNoTargets, Cluster: "c"},
			text: `cluster "c": upstream has no target that exports TiKV's series: ` +
				`does upstream scrape TiKV, and does selector match?`,
			keys:    []string{"no targets"},
			message: "no TiKV targets",
			fields: []any{
				"cluster", "c", "err", "upstream has no target that exports TiKV's series",
				"hint", "does upstream scrape TiKV, and does selector match?",
			},
		},
		{
			name: "ambiguous match",
			problem: report.Problem{
				Kind: report.ProblemAmbiguousMatch, Cluster: "c", Reason: report.ReasonAmbiguous, Store: store,
				Match: match("a:1", "b:1"),
			},
			text: `store "a:20160" of cluster "c" has no gauges: it matches ` + a + ` and ` + b +
				` by rule "exact instance": set its instance, or narrow upstream with selector`,
			keys:    []string{"ambiguous 7 a:20160"},
			message: "store has no gauges",
			fields: []any{
				"cluster", "c", "reason", "ambiguous", "store", "a:20160", "store_id", "7",
				"err", `it matches ` + a + ` and ` + b + ` by rule "exact instance"`,
				"hint", "set its instance, or narrow upstream with selector",
			},
			about: true,
		},
		{
			name: "duplicate targets",
			problem: report.Problem{
				Kind: report.ProblemDuplicateTargets, Cluster: "c", Reason: report.ReasonAmbiguous,
				Store: storematch.Store{Address: "a:20160"}, Targets: []string{`{x="1"}`, `{x="2"}`},
			},
			text: `store "a:20160" of cluster "c" has no gauges: ` +
				`upstream has several targets with its job and instance: {x="1"} and {x="2"}: ` +
				`keep one with selector, or add the label that distinguishes replicas to replica_labels`,
			keys:    []string{"ambiguous  a:20160"},
			message: "store has no gauges",
			fields: []any{
				"cluster", "c", "reason", "ambiguous", "store", "a:20160",
				"err", `upstream has several targets with its job and instance: {x="1"} and {x="2"}`,
				"hint", "keep one with selector, or add the label that distinguishes replicas to replica_labels",
			},
			about: true,
		},
		{
			name: "duplicate store",
			problem: report.Problem{
				Kind: report.ProblemDuplicateStore, Cluster: "c", Reason: report.ReasonAmbiguous, Store: store,
			},
			text:    `store "a:20160" of cluster "c" is left out: another store has the same ID and address`,
			keys:    []string{"ambiguous 7 a:20160"},
			message: "store has no gauges",
			fields: []any{
				"cluster", "c", "reason", "ambiguous", "store", "a:20160", "store_id", "7",
				"err", "another store has the same ID and address",
			},
			about: true,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := tc.problem.String(); got != tc.text {
				t.Errorf("the text is\n%s\nwant\n%s", got, tc.text)
			}
			if got := tc.problem.Keys(); !slices.Equal(got, tc.keys) {
				t.Errorf("the keys are %q, want %q", got, tc.keys)
			}
			if got := tc.problem.Message(); got != tc.message {
				t.Errorf("the message is %q, want %q", got, tc.message)
			}
			if got := tc.problem.LogFields(); !reflect.DeepEqual(got, tc.fields) {
				t.Errorf("the fields are\n%q\nwant\n%q", got, tc.fields)
			}
			if got := tc.problem.AboutStore(); got != tc.about {
				t.Errorf("it is about a store: %v, want %v", got, tc.about)
			}
		})
	}
}

// The hint of a failed query is part of its text, and a field of its own in the log.
func TestHintOfFailedQuery(t *testing.T) {
	p := queryProblem(&httpclient.Error{
		Reason: httpclient.ReasonTimeout, Request: "POST http://a", Err: errors.New("no response"), Hint: "wait",
	}, "up")

	if got, want := p.String(), `query "up" of cluster "c" failed: POST http://a: no response: wait`; got != want {
		t.Errorf("the text is\n%s\nwant\n%s", got, want)
	}
	if fields := p.LogFields(); !slices.Equal(fields[len(fields)-2:], []any{"hint", "wait"}) {
		t.Errorf("the fields are %q, want last the hint", fields)
	}
}

// A match with many candidates names the first ones only. A single candidate is ambiguous because
// another store matches it too.
func TestCauseOfAmbiguousMatch(t *testing.T) {
	cause := func(instances ...string) string {
		return report.Problem{Kind: report.ProblemAmbiguousMatch, Match: match(instances...)}.Cause()
	}

	want := `it matches {job="tikv", instance="a"} by rule "exact instance", which another store matches too`
	if got := cause("a"); got != want {
		t.Errorf("with one candidate, got\n%s\nwant\n%s", got, want)
	}
	want = `it matches {job="tikv", instance="a"} and {job="tikv", instance="b"} and {job="tikv", instance="c"} and ` +
		`{job="tikv", instance="d"} by rule "exact instance"`
	if got := cause("a", "b", "c", "d"); got != want {
		t.Errorf("with four candidates, got\n%s\nwant\n%s", got, want)
	}
	if got, want := cause("a", "b", "c", "d", "e", "f"), want+" and 2 more"; got != want {
		t.Errorf("with six candidates, got\n%s\nwant\n%s", got, want)
	}
}

func TestNewQueryProblems(t *testing.T) {
	failed := func(reason httpclient.Reason, request, text string) error {
		return &httpclient.Error{Reason: reason, Request: request, Err: errors.New(text)}
	}
	refused := failed(httpclient.ReasonConnection, "POST http://a", "connection refused")
	reset := failed(httpclient.ReasonConnection, "POST http://a", "connection reset")
	refusedByPD := failed(httpclient.ReasonConnection, "GET http://pd", "connection refused")
	busy := failed(httpclient.ReasonHTTP, "POST http://a", "503")
	slow := failed(httpclient.ReasonTimeout, "POST http://a", "no response in time")

	for _, tc := range []struct {
		name    string
		queries []report.Query
		want    []string // Each problem with its reason and its keys.
	}{
		{
			name:    "no failures",
			queries: []report.Query{{Name: "a"}, {Name: "b"}},
		},
		{
			name: "queries that failed alike are one problem",
			queries: []report.Query{
				{Name: "a", Errs: []error{busy}}, {Name: "b"}, {Name: "c", Errs: []error{busy}},
			},
			want: []string{"a,c http: [a http] [c http]"},
		},
		{
			name: "queries that failed differently are several problems, in their order",
			queries: []report.Query{
				{Name: "a", Errs: []error{busy}}, {Name: "b", Errs: []error{slow}}, {Name: "c", Errs: []error{busy}},
			},
			want: []string{"a,c http: [a http] [c http]", "b timeout: [b timeout]"},
		},
		{
			name: "broken connections to the same server are alike",
			queries: []report.Query{
				{Name: "a", Errs: []error{refused}},
				{Name: "b", Errs: []error{reset}},
				{Name: "c", Errs: []error{refusedByPD}},
			},
			want: []string{
				"a,b connection: [a connection] [b connection]", "c connection: [c connection]",
			},
		},
		{
			name:    "requests of one query that failed alike",
			queries: []report.Query{{Name: "a", Errs: []error{busy, busy}}},
			want:    []string{"a http: [a http] [a http]"},
		},
		{
			// Both problems have the keys of both failures, so that neither is new on the next
			// scrape if only the other failure occurs.
			name:    "requests of one query that failed differently",
			queries: []report.Query{{Name: "a", Errs: []error{busy, slow}}},
			want:    []string{"a http: [a http] [a timeout]", "a timeout: [a http] [a timeout]"},
		},
		{
			name: "rejected responses are one problem per target",
			queries: []report.Query{
				{Name: "a", Errs: []error{busy}, Rejections: []report.Rejection{
					{Target: identity("x"), Err: errors.New("two series")},
					{Target: identity("y"), Err: errors.New("two series")},
				}},
			},
			want: []string{
				"a http: [a http]",
				`a response: [a rejected {job="tikv", instance="x"}]`,
				`a response: [a rejected {job="tikv", instance="y"}]`,
			},
		},
		{
			name: "a wrapped error",
			queries: []report.Query{
				{Name: "a", Errs: []error{fmt.Errorf("%w: and more", refused)}}, {Name: "b", Errs: []error{refused}},
			},
			want: []string{"a,b connection: [a connection] [b connection]"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var got []string
			for _, p := range report.NewQueryProblems("c", tc.queries) {
				if p.Cluster != "c" {
					t.Errorf("the cluster is %q, want c", p.Cluster)
				}
				got = append(got, fmt.Sprintf("%s %s: [%s]",
					strings.Join(p.Queries, ","), p.Reason, strings.Join(p.Keys(), "] [")))
			}
			if !slices.Equal(got, tc.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(tc.want, "\n"))
			}
		})
	}
}

// The keys of a problem stay the same while its error changes, such as by a port or a duration.
func TestKeysAreStable(t *testing.T) {
	before := queryProblem(&httpclient.Error{Reason: httpclient.ReasonHTTP, Err: errors.New("after 3 s")}, "a", "b")
	after := queryProblem(&httpclient.Error{Reason: httpclient.ReasonHTTP, Err: errors.New("after 4 s")}, "a", "b")
	if before.String() == after.String() || !slices.Equal(before.Keys(), after.Keys()) {
		t.Errorf("got the keys %q and %q, want the same ones", before.Keys(), after.Keys())
	}
}

// Every value of the label reason, which is documented and must not change.
func TestReasons(t *testing.T) {
	want := []httpclient.Reason{"timeout", "connection", "http", "query", "response", "limit", "partial", "ambiguous"}
	if got := report.Reasons(); !slices.Equal(got, want) {
		t.Errorf("got the reasons %q, want %q", got, want)
	}
}
