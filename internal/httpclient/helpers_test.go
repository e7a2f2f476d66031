// SPDX-License-Identifier: Apache-2.0

package httpclient_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.yaml.in/yaml/v4"

	"github.com/operator-store/operator_store_exporter/config"
	"github.com/operator-store/operator_store_exporter/internal/httpclient"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newServers returns a client for urls. The configuration has the given additional lines.
func newServers(t *testing.T, extra string, urls ...string) *httpclient.Servers {
	t.Helper()

	servers, err := httpclient.New("upstream", parseConfig(t, extra, urls...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(servers.Close)

	return servers
}

func parseConfig(t *testing.T, extra string, urls ...string) config.Server {
	t.Helper()

	var upstream config.Upstream
	text := fmt.Sprintf("url: [%s]\n%s", strings.Join(urls, ", "), extra)
	if err := yaml.Unmarshal([]byte(text), &upstream); err != nil {
		t.Fatal(err)
	}

	return upstream.Server
}

// startServer starts a server and returns its URL.
func startServer(t *testing.T, handler http.HandlerFunc) string {
	t.Helper()

	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)

	return server.URL
}

// closedServer returns a URL at which connections are refused.
func closedServer(t *testing.T) string {
	t.Helper()

	server := httptest.NewServer(http.NotFoundHandler())
	server.Close()

	return server.URL
}

// respond returns a handler that responds with the given status and body.
func respond(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		fmt.Fprint(w, body)
	}
}

// get requests url with its parameters, without failover.
func get(ctx context.Context, t *testing.T, servers *httpclient.Servers, url string) (string, error) {
	t.Helper()

	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	body, err := servers.Do(ctx, req)

	return string(body), err
}

// requireError returns err as an *Error.
func requireError(t *testing.T, err error) *httpclient.Error {
	t.Helper()

	e, ok := httpclient.AsError(err)
	if !ok {
		t.Fatalf("error is %v (%T), want an *Error", err, err)
	}

	return e
}

// waitUntil waits until a condition holds, which is not a matter of time unless the test is about
// to fail.
func waitUntil(t *testing.T, what string, holds func() bool) {
	t.Helper()

	for deadline := time.Now().Add(30 * time.Second); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("timed out waiting until %s", what)
		}
	}
}
