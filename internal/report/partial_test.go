// SPDX-License-Identifier: Apache-2.0

package report_test

import (
	"errors"
	"reflect"
	"slices"
	"testing"

	"github.com/operator-store/operator_store_exporter/internal/httpclient"
	"github.com/operator-store/operator_store_exporter/internal/report"
)

// All queries whose accepted responses may lack series are one problem, after the failures.
func TestPartialResponseProblem(t *testing.T) {
	failure := &httpclient.Error{Reason: httpclient.ReasonTimeout, Request: "POST http://a", Err: errors.New("timeout")}
	problems := report.NewQueryProblems("prod", []report.Query{
		{Name: "up", Partial: true},
		{Name: "cpu_quota"},
		{Name: "store_size", Partial: true, Errs: []error{failure}},
	})

	if len(problems) != 2 || problems[0].Kind != report.ProblemQueryFailed {
		t.Fatalf("the problems are %v, want a failure and a partial response", problems)
	}
	p := problems[1]
	const want = `query "up", "store_size" of cluster "prod": upstream reports that its response may lack series, ` +
		"which partial_response accepts: check upstream's storage nodes"
	if p.Kind != report.ProblemPartialResponse || p.String() != want {
		t.Errorf("got the problem %s, want %s", p, want)
	}
	if want := []string{"up partial", "store_size partial"}; !slices.Equal(p.Keys(), want) {
		t.Errorf("the keys are %q, want %q", p.Keys(), want)
	}
	if p.Message() != "partial response" || p.AboutStore() {
		t.Errorf("the message is %q, about a store: %v", p.Message(), p.AboutStore())
	}

	fields := []any{
		"cluster", "prod", "query", "up,store_size", "reason", "partial",
		"err", "upstream reports that its response may lack series, which partial_response accepts",
		"hint", "check upstream's storage nodes",
	}
	if got := p.LogFields(); !reflect.DeepEqual(got, fields) {
		t.Errorf("the fields of the log line are\n%q\nwant\n%q", got, fields)
	}
}
