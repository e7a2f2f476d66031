// SPDX-License-Identifier: Apache-2.0

package report_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/operator-store/operator_store_exporter/internal/gauge"
	"github.com/operator-store/operator_store_exporter/internal/httpclient"
	"github.com/operator-store/operator_store_exporter/internal/report"
)

func TestAbsenceReason(t *testing.T) {
	for _, tc := range []struct {
		reason report.AbsenceReason
		want   string
	}{
		{
			reason: report.AbsenceReason{},
			want:   "",
		},
		{
			reason: report.AbsenceReason{Kind: report.AmbiguousMatch},
			want:   "more than one target matches the store",
		},
		{
			reason: report.AbsenceReason{Kind: report.DuplicateTargets},
			want:   "upstream has more than one target with the store's job and instance",
		},
		{
			reason: report.AbsenceReason{Kind: report.NoTarget},
			want:   "upstream has no target for the store",
		},
		{
			reason: report.AbsenceReason{Kind: report.StoreDown},
			want:   "the store is down",
		},
		{
			reason: report.AbsenceReason{Kind: report.QueryFailed, Query: "cpu_quota"},
			want:   `query "cpu_quota" failed`,
		},
		{
			reason: report.AbsenceReason{Kind: report.NoData, AbsentWhen: "no series"},
			want:   "no series",
		},
		{
			reason: report.AbsenceReason{Kind: 99},
			want:   "unknown reason 99",
		},
	} {
		t.Run(tc.want, func(t *testing.T) {
			if got := tc.reason.String(); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func TestQueryReasons(t *testing.T) {
	failed := func(reason httpclient.Reason) error {
		return &httpclient.Error{Reason: reason, Err: errors.New("failed")}
	}
	rejections := []report.Rejection{{Target: identity("a"), Err: errors.New("two series")}}

	for _, tc := range []struct {
		name  string
		query report.Query
		want  []httpclient.Reason
	}{
		{
			name: "succeeded",
		},
		{
			name:  "one reason",
			query: report.Query{Errs: []error{failed(httpclient.ReasonHTTP)}},
			want:  []httpclient.Reason{httpclient.ReasonHTTP},
		},
		{
			name: "each reason once",
			query: report.Query{Errs: []error{
				failed(httpclient.ReasonHTTP), failed(httpclient.ReasonHTTP), failed(httpclient.ReasonHTTP),
			}},
			want: []httpclient.Reason{httpclient.ReasonHTTP},
		},
		{
			name: "in the order of the documentation",
			query: report.Query{
				Errs: []error{
					failed(httpclient.ReasonLimit), failed(httpclient.ReasonQuery), failed(httpclient.ReasonHTTP),
					failed(httpclient.ReasonConnection), failed(httpclient.ReasonTimeout),
				},
				Rejections: rejections,
			},
			want: []httpclient.Reason{"timeout", "connection", "http", "query", "response", "limit"},
		},
		{
			name:  "only rejected responses",
			query: report.Query{Rejections: rejections},
			want:  []httpclient.Reason{httpclient.ReasonResponse},
		},
		{
			name:  "error of another type",
			query: report.Query{Errs: []error{errors.New("unexpected")}},
			want:  []httpclient.Reason{httpclient.ReasonResponse},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := tc.query.Reasons(); !slices.Equal(got, tc.want) {
				t.Errorf("got the reasons %q, want %q", got, tc.want)
			}
			if got, want := tc.query.Failed(), len(tc.want) > 0; got != want {
				t.Errorf("failed is %v, want %v", got, want)
			}
		})
	}
}

func TestFailedQueries(t *testing.T) {
	r := &report.Report{Queries: []report.Query{
		{Name: "failed", Errs: []error{errors.New("x")}},
		{Name: "succeeded"},
		{Name: "rejected", Rejections: []report.Rejection{{Err: errors.New("x")}}},
	}}

	var got []string
	for _, q := range r.FailedQueries() {
		got = append(got, q.Name)
	}
	if want := []string{"failed", "rejected"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestValueByName(t *testing.T) {
	r := &report.Report{Gauges: []gauge.Gauge{{Name: "a"}, {Name: "b"}}}
	s := report.Store{Cells: []report.Cell{
		{Absence: report.AbsenceReason{Kind: report.StoreDown}}, {Value: gauge.Of(5)},
	}}
	for _, tc := range []struct {
		name string
		want gauge.Value
	}{
		{name: "a"},
		{name: "b", want: gauge.Value{V: 5, OK: true}},
		{name: "unknown"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := r.Value(s, tc.name); got != tc.want {
				t.Errorf("got %+v, want %+v", got, tc.want)
			}
		})
	}
}
