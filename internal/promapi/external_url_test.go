// SPDX-License-Identifier: Apache-2.0

package promapi_test

import (
	"encoding/json"
	"net/http"
	"testing"

	"github.com/operator-store/operator_store_exporter/internal/httpclient"
)

func TestExternalURL(t *testing.T) {
	for _, tc := range []struct {
		name string
		flag string
		want string
	}{
		{name: "URL", flag: "https://prometheus.example/", want: "https://prometheus.example/"},
		{
			name: "URL with a prefix",
			flag: "http://prometheus.example:9090/a%20b", want: "http://prometheus.example:9090/a%20b",
		},
		{
			name: "URL with credentials, parameters and a fragment",
			flag: "https://u:hunter2@prometheus.example/?token=hunter2#x", want: "https://prometheus.example/",
		},
		{name: "not set", flag: ""},
		{name: "path", flag: "/prometheus"},
		{name: "script", flag: "javascript:alert(1)"},
		{name: "script with a host", flag: "javascript://a/%0Aalert(1)"},
		{name: "invalid URL", flag: "http://[::1"},
		{name: "URL without a host", flag: "http://:9090/"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			body, err := json.Marshal(map[string]any{
				"status": "success",
				"data":   map[string]string{"web.external-url": tc.flag},
			})
			if err != nil {
				t.Fatal(err)
			}

			requireExternalURL(t, respond(200, string(body)), tc.want, "")
		})
	}
}

func TestExternalURLWithoutFlag(t *testing.T) {
	for _, tc := range []struct {
		name    string
		handler http.HandlerFunc
		reason  httpclient.Reason // "" for no error.
	}{
		{name: "no such flag", handler: respond(200, `{"status":"success","data":{}}`)},
		{name: "no flags", handler: respond(404, "404 page not found"), reason: httpclient.ReasonHTTP},
		{name: "web page", handler: respond(200, "<html>"), reason: httpclient.ReasonResponse},
		{name: "data of another type", handler: respond(200, `{"data":[1]}`), reason: httpclient.ReasonResponse},
	} {
		t.Run(tc.name, func(t *testing.T) {
			requireExternalURL(t, tc.handler, "", tc.reason)
		})
	}
}

// requireExternalURL requires that an upstream whose responses are those of handler has the given
// external URL, or that it is unknown because of an error with the given reason.
func requireExternalURL(t *testing.T, handler http.HandlerFunc, want string, reason httpclient.Reason) {
	t.Helper()

	var request string
	base := startServer(t, func(w http.ResponseWriter, r *http.Request) {
		user, _, _ := r.BasicAuth()
		request = r.Method + " " + r.URL.String() + " " + user
		handler(w, r)
	})
	client := newClient(t, "basic_auth: {username: u, password: p}", base+"/prefix")

	got, err := client.ExternalURL(t.Context())

	if reason != "" {
		requireError(t, err, reason)
	} else if err != nil {
		t.Error(err)
	}
	if got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if want := "GET /prefix/api/v1/status/flags u"; request != want {
		t.Errorf("request is %q, want %q", request, want)
	}
}
