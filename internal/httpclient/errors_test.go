// SPDX-License-Identifier: Apache-2.0

package httpclient_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"testing"

	"github.com/operator-store/operator_store_exporter/internal/httpclient"
)

const (
	firstURL  = "http://first"
	secondURL = "http://second"
	thirdURL  = "http://third"
)

// failoverError returns the error of Failover if the servers fail with errs, one each.
func failoverError(t *testing.T, errs ...error) error {
	t.Helper()

	urls := []string{firstURL, secondURL, thirdURL}[:len(errs)]
	err := newServers(t, "", urls...).Failover(t.Context(), func(_ context.Context, base *url.URL) error {
		return errs[slices.Index(urls, base.String())]
	})
	if err == nil {
		t.Fatal("no error")
	}

	return err
}

func TestErrorText(t *testing.T) {
	newError := func(request, cause, hint string) *httpclient.Error {
		return &httpclient.Error{
			Reason: httpclient.ReasonConnection, Request: request, Err: errors.New(cause), Hint: hint,
		}
	}
	refused := newError("GET a", "refused", "is it running?")
	reset := newError("GET b", "reset", "is it running?")
	untrusted := newError("GET b", "untrusted", "set ca_file")
	broken := newError("GET c", "EOF", "")

	for _, tc := range []struct {
		name  string
		err   error
		text  string
		cause string
		hint  string
	}{
		{
			name:  "one error with a hint",
			err:   refused,
			text:  "GET a: refused: is it running?",
			cause: "GET a: refused",
			hint:  "is it running?",
		},
		{
			name:  "one error without a hint",
			err:   broken,
			text:  "GET c: EOF",
			cause: "GET c: EOF",
		},
		{
			name:  "one server",
			err:   failoverError(t, refused),
			text:  "GET a: refused: is it running?",
			cause: "GET a: refused",
			hint:  "is it running?",
		},
		{
			name:  "two servers with different hints",
			err:   failoverError(t, refused, untrusted),
			text:  "GET a: refused: is it running?; then GET b: untrusted: set ca_file",
			cause: "GET a: refused; then GET b: untrusted",
			hint:  "set ca_file",
		},
		{
			name:  "two servers with the same hint",
			err:   failoverError(t, refused, reset),
			text:  "GET a: refused; then GET b: reset: is it running?",
			cause: "GET a: refused; then GET b: reset",
			hint:  "is it running?",
		},
		{
			name:  "the last server has no hint",
			err:   failoverError(t, refused, untrusted, broken),
			text:  "GET a: refused: is it running?; then GET b: untrusted: set ca_file; then GET c: EOF",
			cause: "GET a: refused; then GET b: untrusted; then GET c: EOF",
			hint:  "set ca_file",
		},
		{
			name:  "a wrapper with a suffix",
			err:   fmt.Errorf("%w: the stores from 5m ago stay in use", refused),
			text:  "GET a: refused: is it running?: the stores from 5m ago stay in use",
			cause: "GET a: refused: the stores from 5m ago stay in use",
			hint:  "is it running?",
		},
		{
			name:  "a wrapper with a prefix and a suffix around several servers",
			err:   fmt.Errorf("refresh: %w: kept", failoverError(t, refused, reset)),
			text:  "refresh: GET a: refused; then GET b: reset: is it running?: kept",
			cause: "refresh: GET a: refused; then GET b: reset: kept",
			hint:  "is it running?",
		},
		{
			name:  "two wrappers",
			err:   fmt.Errorf("outer: %w", fmt.Errorf("inner: %w", untrusted)),
			text:  "outer: inner: GET b: untrusted: set ca_file",
			cause: "outer: inner: GET b: untrusted",
			hint:  "set ca_file",
		},
		{
			name:  "joined errors",
			err:   errors.Join(refused, untrusted),
			text:  "GET a: refused: is it running?\nGET b: untrusted: set ca_file",
			cause: "GET a: refused\nGET b: untrusted",
			hint:  "set ca_file",
		},
		{
			name:  "an error of another type",
			err:   errors.New("no more stores"),
			text:  "no more stores",
			cause: "no more stores",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := tc.err.Error(); got != tc.text {
				t.Errorf("Error() = %q, want %q", got, tc.text)
			}
			if got := httpclient.Cause(tc.err); got != tc.cause {
				t.Errorf("Cause() = %q, want %q", got, tc.cause)
			}
			if got := httpclient.HintOf(tc.err); got != tc.hint {
				t.Errorf("HintOf() = %q, want %q", got, tc.hint)
			}
		})
	}
}

func TestNoError(t *testing.T) {
	if got := httpclient.Cause(nil); got != "" {
		t.Errorf("Cause(nil) = %q", got)
	}
	if got := httpclient.HintOf(nil); got != "" {
		t.Errorf("HintOf(nil) = %q", got)
	}
	if e, ok := httpclient.AsError(nil); ok {
		t.Errorf("AsError(nil) = %v", e)
	}
}

func TestAsErrorReturnsFirstServer(t *testing.T) {
	first := &httpclient.Error{Reason: httpclient.ReasonTimeout, Request: "GET a", Err: errors.New("slow")}
	second := &httpclient.Error{Reason: httpclient.ReasonQuery, Request: "GET b", Err: errors.New("parse error")}
	err := fmt.Errorf("refresh: %w", failoverError(t, first, second))

	if e := requireError(t, err); e != first {
		t.Errorf("AsError() = %v, want %v", e, first)
	}
	if got := httpclient.ReasonOf(err); got != httpclient.ReasonTimeout {
		t.Errorf("ReasonOf() = %q, want %q", got, httpclient.ReasonTimeout)
	}
	if !errors.Is(err, second.Err) {
		t.Errorf("%v does not wrap the cause of the second server", err)
	}
}

func TestReasons(t *testing.T) {
	want := []httpclient.Reason{"timeout", "connection", "http", "query", "response", "limit", "partial"}
	if got := httpclient.Reasons(); !slices.Equal(got, want) {
		t.Errorf("Reasons() = %q, want %q", got, want)
	}

	for _, reason := range want {
		permanent := reason == "query" || reason == "limit"
		if got := reason.Permanent(); got != permanent {
			t.Errorf("%q.Permanent() = %v, want %v", reason, got, permanent)
		}
	}

	if got := httpclient.ReasonOf(errors.New("other")); got != httpclient.ReasonResponse {
		t.Errorf("reason of another type of error is %q, want %q", got, httpclient.ReasonResponse)
	}
}
