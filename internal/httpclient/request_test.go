// SPDX-License-Identifier: Apache-2.0

package httpclient_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/operator-store/operator_store_exporter/internal/httpclient"
)

func TestNew(t *testing.T) {
	for _, tc := range []struct {
		name   string
		config string
		want   []string // Parts of the error.
	}{
		{
			name:   "missing CA",
			config: "tls_config: {ca_file: /nowhere/ca.pem}",
			want:   []string{"set up the HTTP client of upstream http://first: ", "/nowhere/ca.pem"},
		},
		{
			name:   "missing client certificate",
			config: "tls_config: {cert_file: /nowhere/cert.pem, key_file: /nowhere/key.pem}",
			want:   []string{"set up the HTTP client of upstream http://first: ", "/nowhere/cert.pem"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := httpclient.New("upstream", parseConfig(t, tc.config, firstURL, secondURL))

			for _, want := range tc.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("error is %v, want it to contain %q", err, want)
				}
			}
		})
	}
}

func TestRequest(t *testing.T) {
	base := startServer(t, echoHeaders)
	servers := newServers(t, "http_headers: {X-Scope-OrgID: {values: [tenant]}}", base)

	_, err := get(t.Context(), t, servers, base)

	text := requireError(t, err).Error()
	for _, want := range []string{"User-Agent: operator_store_exporter/", "X-Scope-Orgid: tenant"} {
		if !strings.Contains(text, want) {
			t.Errorf("the server got %q, want %q in it", text, want)
		}
	}
}

func TestBodyLimit(t *testing.T) {
	const limit = 1024
	for _, tc := range []struct {
		name    string
		handler http.HandlerFunc
		cause   string // "" if the response is accepted.
	}{
		{name: "at the limit", handler: respond(200, strings.Repeat("x", limit))},
		{
			name:    "above the limit with a known length",
			handler: respond(200, strings.Repeat("x", limit+1)),
			cause:   "the response body is too large: 1025 bytes, over body_size_limit of 1KiB",
		},
		{
			name: "above the limit with an unknown length",
			handler: func(w http.ResponseWriter, _ *http.Request) {
				_ = http.NewResponseController(w).Flush()
				fmt.Fprint(w, strings.Repeat("x", limit+1))
			},
			cause: "the response body is too large: over body_size_limit of 1KiB",
		},
		{
			name: "a length that would not fit into memory",
			handler: func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Length", "2000000000000000")
			},
			cause: "the response body is too large: 2000000000000000 bytes, over body_size_limit of 1KiB",
		},
		{
			name:    "an error page above the limit",
			handler: respond(503, strings.Repeat("x", limit+1)),
			cause:   "the response body is too large: 1025 bytes, over body_size_limit of 1KiB",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			base := startServer(t, tc.handler)

			body, err := get(t.Context(), t, newServers(t, "body_size_limit: 1KB", base), base)

			if tc.cause == "" {
				if err != nil || len(body) != limit {
					t.Errorf("got %d bytes with error %v", len(body), err)
				}
				return
			}
			e := requireError(t, err)
			if e.Reason != httpclient.ReasonLimit || e.Err.Error() != tc.cause ||
				e.Hint != "narrow the queries with selector, or raise body_size_limit" {
				t.Errorf("error is %v with reason %q, want cause %q", e, e.Reason, tc.cause)
			}
		})
	}
}

// The client does not request compressed responses. A server that compresses them anyway could get
// around the limit of their size.
func TestUnrequestedCompression(t *testing.T) {
	var compressed bytes.Buffer
	w := gzip.NewWriter(&compressed)
	fmt.Fprint(w, "ok")
	_ = w.Close()

	base := startServer(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = w.Write(compressed.Bytes())
	})

	_, err := get(t.Context(), t, newServers(t, "", base), base)

	e := requireError(t, err)
	if e.Reason != httpclient.ReasonResponse || e.Hint != httpclient.HintURL ||
		e.Err.Error() != "the response is compressed with gzip, which was not requested" {
		t.Errorf("error is %v with reason %q", e, e.Reason)
	}
}

// blockingServer is a server whose requests wait until they are released.
type blockingServer struct {
	url     string
	entered chan struct{}
	release func()
	most    atomic.Int32 // The most requests that were in progress at a time.
}

func startBlockingServer(t *testing.T, handler http.HandlerFunc) *blockingServer {
	t.Helper()

	released := make(chan struct{})
	s := &blockingServer{
		entered: make(chan struct{}, 100),
		release: sync.OnceFunc(func() { close(released) }),
	}
	var current atomic.Int32
	s.url = startServer(t, func(w http.ResponseWriter, r *http.Request) {
		if n := current.Add(1); n > s.most.Load() {
			s.most.Store(n)
		}
		defer current.Add(-1)
		s.entered <- struct{}{}
		<-released
		handler(w, r)
	})
	t.Cleanup(s.release) // Before the server is closed, which waits for its requests.

	return s
}

func TestConcurrencyLimit(t *testing.T) {
	const limit, requests = 2, 5
	server := startBlockingServer(t, respond(200, "ok"))
	servers := newServers(t, fmt.Sprintf("concurrency_limit: %d", limit), server.url)

	errs := make(chan error, requests)
	for range requests {
		go func() {
			_, err := get(t.Context(), t, servers, server.url)
			errs <- err
		}()
	}
	waitUntil(t, "the other requests wait", func() bool { return servers.Queued() == requests-limit })
	server.release()

	for range requests {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if got := server.most.Load(); got > limit {
		t.Errorf("%d requests were in progress at a time, want at most %d", got, limit)
	}
	if got := servers.Queued(); got != requests-limit {
		t.Errorf("%d requests had to wait, want %d", got, requests-limit)
	}
}

func TestNoFreeSlot(t *testing.T) {
	server := startBlockingServer(t, respond(200, "ok"))
	servers := newServers(t, "concurrency_limit: 1", server.url)
	first := make(chan error, 1)
	go func() {
		_, err := get(t.Context(), t, servers, server.url)
		first <- err
	}()
	<-server.entered

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := get(ctx, t, servers, server.url)
	e := requireError(t, err)
	if e.Reason != httpclient.ReasonTimeout || e.Err.Error() != "timed out waiting for one of 1 request slots" ||
		e.Hint != httpclient.HintTimeout || e.StatusCode != 0 {
		t.Errorf("error is %v with reason %q", e, e.Reason)
	}

	server.release()
	if err := <-first; err != nil {
		t.Errorf("first request: %v", err)
	}
	if _, err := get(t.Context(), t, servers, server.url); err != nil {
		t.Errorf("request after the first one has released its slot: %v", err)
	}
}

// A failed request releases its slot as well.
func TestSlotsAfterErrors(t *testing.T) {
	for _, tc := range []struct {
		name string
		url  string
	}{
		{name: "connection refused", url: closedServer(t)},
		{name: "status", url: startServer(t, respond(500, "oops"))},
		{name: "too large", url: startServer(t, respond(200, strings.Repeat("x", 2000)))},
	} {
		t.Run(tc.name, func(t *testing.T) {
			servers := newServers(t, "concurrency_limit: 1\nbody_size_limit: 1KB", tc.url)
			for range 3 {
				if _, err := get(t.Context(), t, servers, tc.url); err == nil {
					t.Error("no error")
				}
			}
			if got := servers.Queued(); got != 0 {
				t.Errorf("%d requests had to wait", got)
			}
		})
	}
}

// A token is fetched without regard to the request that needs it: the request ends with its
// context, but keeps its slot until the fetch ends.
func TestTokenFetchOutlivesRequest(t *testing.T) {
	tokens := startBlockingServer(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"access_token":"abc","token_type":"bearer","expires_in":3600}`)
	})
	var authorization atomic.Value
	base := startServer(t, func(w http.ResponseWriter, r *http.Request) {
		authorization.Store(r.Header.Get("Authorization"))
		fmt.Fprint(w, "ok")
	})
	servers := newServers(t, "concurrency_limit: 1\ntimeout: 30s\n"+
		"oauth2: {client_id: i, client_secret: s, token_url: "+tokens.url+"}", base)

	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan error, 1)
	go func() {
		_, err := get(ctx, t, servers, base)
		first <- err
	}()
	<-tokens.entered
	cancel()
	if e := requireError(t, <-first); e.Reason != httpclient.ReasonTimeout || e.Err.Error() != "no response in time" {
		t.Errorf("error of the canceled request is %v with reason %q", e, e.Reason)
	}

	_, err := get(ctx, t, servers, base)
	if e := requireError(t, err); e.Err.Error() != "timed out waiting for one of 1 request slots" {
		t.Errorf("error during the token fetch is %v, want that there is no slot", e)
	}

	tokens.release()
	if body, err := get(t.Context(), t, servers, base); err != nil || body != "ok" {
		t.Errorf("response after the token fetch is %q with error %v", body, err)
	}
	if got := authorization.Load(); got != "Bearer abc" {
		t.Errorf("authorization is %q, want the token", got)
	}
}

// A token server that never responds does not keep the slot forever: its connection ends.
func TestTokenServerHangs(t *testing.T) {
	tokens := startBlockingServer(t, respond(200, ""))
	base := startServer(t, respond(200, "ok"))
	servers := newServers(t, "concurrency_limit: 1\ntimeout: 50ms\n"+
		"oauth2: {client_id: i, client_secret: s, token_url: "+tokens.url+"}", base)

	for range 2 {
		_, err := get(t.Context(), t, servers, base)
		if e := requireError(t, err); e.Reason != httpclient.ReasonTimeout {
			t.Errorf("error is %v with reason %q, want %q", e, e.Reason, httpclient.ReasonTimeout)
		}
	}
}

// echoHeaders responds with an error message that contains the headers of the request.
func echoHeaders(w http.ResponseWriter, r *http.Request) {
	w.WriteHeader(http.StatusBadGateway)
	_ = r.Header.Write(w)
}
