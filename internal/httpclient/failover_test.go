// SPDX-License-Identifier: Apache-2.0

package httpclient_test

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/operator-store/operator_store_exporter/internal/httpclient"
)

func newTestError(reason httpclient.Reason) *httpclient.Error {
	return &httpclient.Error{Reason: reason, Request: "GET test", Err: errors.New("failed")}
}

func TestFailoverByReason(t *testing.T) {
	for _, tc := range []struct {
		reason httpclient.Reason
		want   []string // The servers that are tried.
	}{
		{reason: httpclient.ReasonConnection, want: []string{firstURL, secondURL}},
		{reason: httpclient.ReasonTimeout, want: []string{firstURL, secondURL}},
		{reason: httpclient.ReasonHTTP, want: []string{firstURL}}, // Unless the status permits it: see below.
		{reason: httpclient.ReasonQuery, want: []string{firstURL}},
		{reason: httpclient.ReasonResponse, want: []string{firstURL}},
		{reason: httpclient.ReasonLimit, want: []string{firstURL}},
		// The other server may have the data that the first one lacks.
		{reason: httpclient.ReasonPartial, want: []string{firstURL, secondURL}},
	} {
		t.Run(string(tc.reason), func(t *testing.T) {
			var tried []string
			err := newServers(t, "", firstURL, secondURL).Failover(t.Context(),
				func(_ context.Context, base *url.URL) error {
					tried = append(tried, base.String())
					return newTestError(tc.reason)
				})

			if httpclient.ReasonOf(err) != tc.reason {
				t.Errorf("error is %v, want one with reason %q", err, tc.reason)
			}
			if !slices.Equal(tried, tc.want) {
				t.Errorf("tried %q, want %q", tried, tc.want)
			}
		})
	}
}

func TestFailoverByStatus(t *testing.T) {
	for _, tc := range []struct {
		name     string
		handler  http.HandlerFunc
		failover bool
	}{
		{name: "500", handler: respond(500, ""), failover: true},
		{name: "502", handler: respond(502, ""), failover: true},
		{name: "503", handler: respond(503, ""), failover: true},
		{name: "redirect", handler: redirectTo("http://elsewhere.invalid"), failover: true},
		{name: "400", handler: respond(400, "")},
		{name: "401", handler: respond(401, "")},
		{name: "403", handler: respond(403, "")},
		{name: "404", handler: respond(404, "")},
		{name: "429", handler: respond(429, "")},
		{
			name:    "wrong expression",
			handler: respond(400, `{"errorType":"bad_data","error":"parse error"}`),
		},
		{
			name:     "timeout of the server",
			handler:  respond(400, `{"errorType":"timeout","error":"expired"}`),
			failover: true,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			first := startServer(t, tc.handler)
			second := startServer(t, respond(200, "ok"))
			servers := newServers(t, "", first, second)

			err := servers.Failover(t.Context(), func(ctx context.Context, base *url.URL) error {
				_, err := get(ctx, t, servers, base.String())
				return err
			})

			if tc.failover && err != nil {
				t.Errorf("error is %v, want the response of the second server", err)
			}
			if !tc.failover && (err == nil || strings.Contains(err.Error(), second)) {
				t.Errorf("error is %v, want one of the first server only", err)
			}
		})
	}
}

func TestActiveServer(t *testing.T) {
	down := map[string]bool{}
	var tried []string
	servers := newServers(t, "", firstURL, secondURL, thirdURL)
	request := func(_ context.Context, base *url.URL) error {
		tried = append(tried, base.String())
		if down[base.String()] {
			return newTestError(httpclient.ReasonConnection)
		}

		return nil
	}

	if got := servers.Active().String(); got != firstURL {
		t.Errorf("active server before the first request is %s, want %s", got, firstURL)
	}
	if got := servers.URLs(); len(got) != 3 || got[2].String() != thirdURL {
		t.Errorf("URLs() = %v", got)
	}

	for _, step := range []struct {
		name   string
		down   []string
		tried  []string
		active string
		fails  bool
	}{
		{name: "all work", tried: []string{firstURL}, active: firstURL},
		{name: "first fails", down: []string{firstURL}, tried: []string{firstURL, secondURL}, active: secondURL},
		{name: "first works again", tried: []string{secondURL}, active: secondURL},
		{
			name: "second and third fail", down: []string{secondURL, thirdURL},
			tried: []string{secondURL, thirdURL, firstURL}, active: firstURL,
		},
		{
			name: "first and second fail", down: []string{firstURL, secondURL},
			tried: []string{firstURL, secondURL, thirdURL}, active: thirdURL,
		},
		{
			name: "all fail", down: []string{firstURL, secondURL, thirdURL},
			tried: []string{thirdURL, firstURL, secondURL}, active: thirdURL, fails: true,
		},
		{name: "all work again", tried: []string{thirdURL}, active: thirdURL},
	} {
		clear(down)

		for _, u := range step.down {
			down[u] = true
		}
		tried = nil

		err := servers.Failover(t.Context(), request)

		if (err != nil) != step.fails {
			t.Errorf("%s: error is %v", step.name, err)
		}
		if !slices.Equal(tried, step.tried) {
			t.Errorf("%s: tried %q, want %q", step.name, tried, step.tried)
		}
		if got := servers.Active().String(); got != step.active {
			t.Errorf("%s: active server is %s, want %s", step.name, got, step.active)
		}
	}
}

// A server that hangs uses its share of the time only, and leaves what it does not use to the
// others. The clock is that of synctest, so that times are exact.
func TestShareOfDeadline(t *testing.T) {
	for _, tc := range []struct {
		name    string
		timeout string        // In the configuration.
		context time.Duration // 0: without a deadline.
		takes   []time.Duration
		want    []time.Duration // The time that each server gets.
	}{
		{
			name:    "every server hangs",
			timeout: "9s",
			takes:   []time.Duration{time.Hour, time.Hour, time.Hour},
			want:    []time.Duration{3 * time.Second, 3 * time.Second, 3 * time.Second},
		},
		{
			name:    "the first server fails early",
			timeout: "9s",
			takes:   []time.Duration{time.Second, time.Hour, time.Hour},
			want:    []time.Duration{3 * time.Second, 4 * time.Second, 4 * time.Second},
		},
		{
			name:    "the context ends before the timeout",
			timeout: "9s",
			context: 6 * time.Second,
			takes:   []time.Duration{0, time.Second, time.Hour},
			want:    []time.Duration{2 * time.Second, 3 * time.Second, 5 * time.Second},
		},
		{
			name:    "one server gets all of the time",
			timeout: "9s",
			takes:   []time.Duration{time.Hour},
			want:    []time.Duration{9 * time.Second},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			urls := []string{firstURL, secondURL, thirdURL}[:len(tc.takes)]
			servers := newServers(t, "timeout: "+tc.timeout, urls...)

			synctest.Test(t, func(t *testing.T) {
				ctx := t.Context()
				if tc.context > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, tc.context)
					defer cancel()
				}

				var got []time.Duration
				_ = servers.Failover(ctx, func(ctx context.Context, _ *url.URL) error {
					deadline, _ := ctx.Deadline()
					takes := tc.takes[len(got)]
					got = append(got, time.Until(deadline))

					select {
					case <-time.After(takes):
					case <-ctx.Done():
					}

					return newTestError(httpclient.ReasonTimeout)
				})

				if !slices.Equal(got, tc.want) {
					t.Errorf("the servers got %s, want %s", got, tc.want)
				}
			})
		})
	}
}

func TestNoFailoverAfterContextEnded(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	tried := 0
	err := newServers(t, "", firstURL, secondURL).Failover(ctx, func(context.Context, *url.URL) error {
		tried++
		cancel()

		return newTestError(httpclient.ReasonTimeout)
	})

	if err == nil || tried != 1 {
		t.Errorf("tried %d servers with error %v, want only the first", tried, err)
	}
}
