// SPDX-License-Identifier: Apache-2.0

package httpclient_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/operator-store/operator_store_exporter/internal/httpclient"
)

func TestStatuses(t *testing.T) {
	for _, tc := range []struct {
		name       string
		status     int
		retryAfter string
		body       string
		reason     httpclient.Reason
		cause      string
		hint       string
	}{
		{
			name:   "invalid expression",
			status: 400,
			body:   `{"status":"error","errorType":"bad_data","error":"1:3: parse error"}`,
			reason: httpclient.ReasonQuery,
			cause:  "400 Bad Request: 1:3: parse error",
		},
		{
			name:   "failed evaluation",
			status: 422,
			body:   `{"status":"error","errorType":"execution","error":"too many samples"}`,
			reason: httpclient.ReasonQuery,
			cause:  "422 Unprocessable Entity: too many samples",
		},
		{
			name:   "400 of another program",
			status: 400,
			body:   "<html>",
			reason: httpclient.ReasonHTTP,
			cause:  "400 Bad Request: <html>",
		},
		{
			name:   "400 with an error without a type",
			status: 400,
			body:   `{"error":"no"}`,
			reason: httpclient.ReasonHTTP,
			cause:  "400 Bad Request: no",
		},
		{
			name:   "timeout of the evaluation",
			status: 503,
			body:   `{"status":"error","errorType":"timeout","error":"query timed out in expression evaluation"}`,
			reason: httpclient.ReasonTimeout,
			cause:  "503 Service Unavailable: query timed out in expression evaluation",
			hint:   httpclient.HintTimeout,
		},
		{
			name:   "timeout by its type alone",
			status: 503,
			body:   `{"status":"error","errorType":"timeout","error":"too slow"}`,
			reason: httpclient.ReasonTimeout,
			cause:  "503 Service Unavailable: too slow",
			hint:   httpclient.HintTimeout,
		},
		{
			name:   "expired while waiting for its turn",
			status: 400,
			body: `{"status":"error","errorType":"bad_data",` +
				`"error":"invalid parameter \"query\": context deadline exceeded"}`,
			reason: httpclient.ReasonTimeout,
			cause:  `400 Bad Request: invalid parameter "query": context deadline exceeded`,
			hint:   httpclient.HintTimeout,
		},
		{
			name:   "canceled",
			status: 499,
			body:   `{"status":"error","errorType":"canceled","error":"query was canceled"}`,
			reason: httpclient.ReasonTimeout,
			cause:  "499 : query was canceled",
			hint:   httpclient.HintTimeout,
		},
		{
			name:   "timeout at the end of a long message",
			status: 422,
			body: `{"status":"error","errorType":"execution","error":"` + strings.Repeat("x", 300) +
				`: context deadline exceeded"}`,
			reason: httpclient.ReasonTimeout,
			cause: "422 Unprocessable Entity: " + strings.Repeat("x", 100) + "..." + strings.Repeat("x", 70) +
				": context deadline exceeded", // The last 97 characters.
			hint: httpclient.HintTimeout,
		},
		{
			name:   "canceled, in plain text",
			status: 500,
			body:   "context canceled",
			reason: httpclient.ReasonTimeout,
			cause:  "500 Internal Server Error: context canceled",
			hint:   httpclient.HintTimeout,
		},
		{
			name:   "no credentials",
			status: 401,
			body:   "no",
			reason: httpclient.ReasonHTTP,
			cause:  "401 Unauthorized: no",
			hint:   "check basic_auth, authorization or oauth2",
		},
		{
			name:   "wrong credentials",
			status: 403,
			reason: httpclient.ReasonHTTP,
			cause:  "403 Forbidden",
			hint:   "check basic_auth, authorization or oauth2",
		},
		{
			name:   "wrong path",
			status: 404,
			body:   "404 page not found",
			reason: httpclient.ReasonHTTP,
			cause:  "404 Not Found: 404 page not found",
			hint:   httpclient.HintURL,
		},
		{
			name:   "wrong method",
			status: 405,
			reason: httpclient.ReasonHTTP,
			cause:  "405 Method Not Allowed",
			hint:   httpclient.HintURL,
		},
		{
			name:       "too many requests",
			status:     429,
			retryAfter: "7",
			reason:     httpclient.ReasonHTTP,
			cause:      "429 Too Many Requests (retry after 7)",
			hint:       "the server limits its clients: scrape less often, or raise its limit",
		},
		{
			name:       "overloaded",
			status:     503,
			retryAfter: "7",
			body:       "busy",
			reason:     httpclient.ReasonHTTP,
			cause:      "503 Service Unavailable: busy (retry after 7)",
		},
		{
			name:   "HTML with a control character",
			status: 500,
			body:   "<html>\n<h1>oops</h1>\x00",
			reason: httpclient.ReasonHTTP,
			cause:  "500 Internal Server Error: <html> <h1>oops</h1>",
		},
		{
			name:   "invalid UTF-8",
			status: 502,
			body:   "a\xffb",
			reason: httpclient.ReasonHTTP,
			cause:  "502 Bad Gateway: ab",
		},
		{
			name:   "long body",
			status: 500,
			body:   strings.Repeat("é", 1000),
			reason: httpclient.ReasonHTTP,
			cause:  "500 Internal Server Error: " + strings.Repeat("é", 100) + "..." + strings.Repeat("é", 97),
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			base := startServer(t, func(w http.ResponseWriter, r *http.Request) {
				if tc.retryAfter != "" {
					w.Header().Set("Retry-After", tc.retryAfter)
				}
				respond(tc.status, tc.body)(w, r)
			})

			_, err := get(t.Context(), t, newServers(t, "", base), base+"/path?token=hunter2")

			e := requireError(t, err)
			if want := "GET " + base + "/path"; e.Request != want {
				t.Errorf("request is %q, want %q", e.Request, want)
			}
			if e.Reason != tc.reason {
				t.Errorf("reason is %q, want %q", e.Reason, tc.reason)
			}
			if e.Err.Error() != tc.cause {
				t.Errorf("cause is %q, want %q", e.Err, tc.cause)
			}
			if e.Hint != tc.hint {
				t.Errorf("hint is %q, want %q", e.Hint, tc.hint)
			}
			if e.StatusCode != tc.status {
				t.Errorf("status is %d, want %d", e.StatusCode, tc.status)
			}
		})
	}
}

func TestTransportErrors(t *testing.T) {
	ok := startServer(t, respond(200, "ok"))
	gone := closedServer(t)
	untrusted := startTLSServer(t, &tls.Config{})
	// With TLS 1.3, a client learns only after the handshake that it was refused. By then it may
	// have learned that the connection was closed.
	wantsCertificate := startTLSServer(t, &tls.Config{
		ClientAuth: tls.RequireAnyClientCert, MaxVersion: tls.VersionTLS12,
	})
	unauthorized := startServer(t, respond(401, "hunter2"))

	for _, tc := range []struct {
		name   string
		config string
		url    string
		cause  string // A part of it.
		hint   string // Its beginning.
	}{
		{name: "connection refused", url: gone, cause: "connection refused", hint: "is it running, and is url right?"},
		{
			name:  "connection closed",
			url:   startServer(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }),
			cause: "EOF",
			hint:  "is it running, and is url right?",
		},
		{
			name: "connection closed within the body",
			url: startServer(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Length", "100")
				_, _ = w.Write([]byte("begins"))
			}),
			cause: "unexpected EOF",
			hint:  "is it running, and is url right?",
		},
		{
			name:  "certificate of an unknown CA",
			url:   untrusted,
			cause: "certificate signed by unknown authority",
			hint:  "the server's certificate is not trusted: in tls_config, set ca_file",
		},
		{
			name:  "HTTPS to an HTTP server",
			url:   strings.Replace(ok, "http://", "https://", 1),
			cause: "server gave HTTP response to HTTPS client",
			hint:  "the server does not speak TLS: use http:// in url",
		},
		{
			name:   "no client certificate",
			config: "tls_config: {insecure_skip_verify: true}",
			url:    wantsCertificate,
			cause:  "handshake failure",
			hint:   "the server refused the TLS handshake: check cert_file and key_file",
		},
		{
			name:   "proxy refuses connections",
			config: "proxy_url: " + gone,
			url:    ok,
			cause:  "proxy: dial ",
			hint:   "is the proxy running, and is proxy_url right?",
		},
		{
			name:   "missing secret file",
			config: "basic_auth: {username: u, password_file: /nowhere/password}",
			url:    ok,
			cause:  "open /nowhere/password: no such file or directory",
			hint:   "check that the secret and certificate files in the configuration can be read",
		},
		{
			name:   "rejected token request",
			config: "oauth2: {client_id: i, client_secret: hunter2, token_url: " + unauthorized + "}",
			url:    ok,
			cause:  "the token_url of oauth2 returned 401 Unauthorized",
			hint:   "check client_id, client_secret and token_url of oauth2",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := get(t.Context(), t, newServers(t, tc.config, tc.url), tc.url)

			e := requireError(t, err)
			if e.Reason != httpclient.ReasonConnection {
				t.Errorf("reason is %q, want %q", e.Reason, httpclient.ReasonConnection)
			}
			cause := e.Err.Error()
			if !strings.Contains(cause, tc.cause) {
				t.Errorf("cause is %q, want it to contain %q", cause, tc.cause)
			}
			if strings.Contains(cause, "hunter2") || strings.Contains(cause, "GET") {
				t.Errorf("cause is %q, which contains a secret or repeats the request", cause)
			}
			if !strings.HasPrefix(e.Hint, tc.hint) {
				t.Errorf("hint is %q, want it to begin with %q", e.Hint, tc.hint)
			}
		})
	}
}

// The local port would make each failure of the same kind look like a new one.
func TestCauseWithoutLocalPort(t *testing.T) {
	base := startServer(t, func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_ = conn.(*net.TCPConn).SetLinger(0) // Close resets the connection.
		_ = conn.Close()
	})

	_, err := get(t.Context(), t, newServers(t, "", base), base)

	want := "read " + strings.TrimPrefix(base, "http://") + ": read: connection reset by peer"
	if e := requireError(t, err); e.Err.Error() != want {
		t.Errorf("cause is %q, want %q", e.Err, want)
	}
}

func TestUnknownHost(t *testing.T) {
	resolver := net.DefaultResolver
	t.Cleanup(func() { net.DefaultResolver = resolver })
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		return nil, errors.New("no name server")
	}}
	const base = "http://prometheus.test"

	_, err := get(t.Context(), t, newServers(t, "", base), base)

	e := requireError(t, err)
	if e.Reason != httpclient.ReasonConnection || !strings.Contains(e.Err.Error(), "lookup prometheus.test") ||
		e.Hint != "the host name cannot be resolved: is the host in url right?" {
		t.Errorf("error is %v with reason %q", e, e.Reason)
	}
}

func TestTimeouts(t *testing.T) {
	entered := make(chan struct{}, 1)
	for _, tc := range []struct {
		name    string
		handler http.HandlerFunc
	}{
		{
			name: "no response",
			handler: func(_ http.ResponseWriter, r *http.Request) {
				entered <- struct{}{}
				<-r.Context().Done()
			},
		},
		{
			name: "the body does not end",
			handler: func(w http.ResponseWriter, r *http.Request) {
				_, _ = w.Write([]byte("begins"))
				_ = http.NewResponseController(w).Flush()
				entered <- struct{}{}
				<-r.Context().Done()
			},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			base := startServer(t, tc.handler)

			ctx, cancel := context.WithCancel(t.Context())
			go func() {
				<-entered
				cancel()
			}()

			_, err := get(ctx, t, newServers(t, "", base), base)

			e := requireError(t, err)
			if e.Reason != httpclient.ReasonTimeout || e.Err.Error() != "no response in time" ||
				e.Hint != httpclient.HintTimeout {
				t.Errorf("error is %v with reason %q", e, e.Reason)
			}
		})
	}
}

// startTLSServer starts a server with a certificate that clients do not trust.
func startTLSServer(t *testing.T, config *tls.Config) string {
	t.Helper()

	server := httptest.NewUnstartedServer(respond(200, "ok"))
	server.TLS = config
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)

	return server.URL
}
