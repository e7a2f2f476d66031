// SPDX-License-Identifier: Apache-2.0

package promapi_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"go.yaml.in/yaml/v4"

	"github.com/operator-store/operator_store_exporter/config"
	"github.com/operator-store/operator_store_exporter/internal/promapi"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const emptyVector = `{"status":"success","data":{"resultType":"vector","result":[]}}`

// newClient returns a client for urls. The configuration has the given additional lines.
func newClient(tb testing.TB, extra string, urls ...string) *promapi.Client {
	tb.Helper()

	c, err := promapi.New(parseConfig(tb, extra, urls...))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(c.Close)

	return c
}

func parseConfig(tb testing.TB, extra string, urls ...string) config.Upstream {
	tb.Helper()

	var cfg config.Upstream
	text := fmt.Sprintf("url: [%s]\n%s", strings.Join(urls, ", "), extra)
	if err := yaml.Unmarshal([]byte(text), &cfg); err != nil {
		tb.Fatal(err)
	}

	return cfg
}

// startServer starts a server and returns its URL.
func startServer(tb testing.TB, handler http.HandlerFunc) string {
	tb.Helper()

	server := httptest.NewServer(handler)
	tb.Cleanup(server.Close)

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
