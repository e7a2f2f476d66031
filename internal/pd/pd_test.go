// SPDX-License-Identifier: Apache-2.0

package pd_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"go.yaml.in/yaml/v4"

	"github.com/operator-store/operator_store_exporter/config"
	"github.com/operator-store/operator_store_exporter/internal/httpclient"
	"github.com/operator-store/operator_store_exporter/internal/pd"
	"github.com/operator-store/operator_store_exporter/internal/storematch"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newClient returns a client for urls. The configuration has the given additional lines.
func newClient(t *testing.T, extra string, urls ...string) *pd.Client {
	t.Helper()

	var cfg config.PD
	text := fmt.Sprintf("url: [%s]\n%s", strings.Join(urls, ", "), extra)
	if err := yaml.Unmarshal([]byte(text), &cfg); err != nil {
		t.Fatal(err)
	}
	c, err := pd.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)

	return c
}

// startServer starts a server and returns its URL.
func startServer(t *testing.T, handler http.HandlerFunc) string {
	t.Helper()

	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)

	return server.URL
}

// respond returns a handler that responds to a request for the stores.
func respond(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet || r.URL.Path != "/pd/api/v1/stores" {
			http.NotFound(w, r)
			return
		}
		w.WriteHeader(status)
		fmt.Fprint(w, body)
	}
}

// entry returns a store in the response of PD, which omits fields that are zero.
func entry(store string) string {
	const status = `{"capacity":"3.581TiB","available":"2.1TiB","used_size":"1.4TiB",` +
		`"leader_count":12,"region_count":34}`

	return `{"store":` + store + `,"status":` + status + `}`
}

func list(entries ...string) string {
	return fmt.Sprintf(`{"count":%d,"stores":[%s]}`, len(entries), strings.Join(entries, ","))
}

func TestStores(t *testing.T) {
	for _, tc := range []struct {
		name string
		body string
		want []storematch.Store
	}{
		{
			name: "one store that is up",
			body: list(entry(`{"id":1,"address":"tikv-0:20160","status_address":"tikv-0:20180","version":"8.5.1",` +
				`"state_name":"Up","last_heartbeat":1700000000000000000,"labels":[{"key":"zone","value":"a"}]}`)),
			want: []storematch.Store{{ID: "1", Address: "tikv-0:20160", StatusAddress: "tikv-0:20180"}},
		},
		{
			name: "stores that are not up are included",
			body: list(
				entry(`{"id":1,"address":"a:1","state_name":"Offline","state":1}`),
				entry(`{"id":4,"address":"b:1","state_name":"Down"}`),
				entry(`{"id":5,"address":"c:1","state_name":"Disconnected"}`),
			),
			want: []storematch.Store{{ID: "1", Address: "a:1"}, {ID: "4", Address: "b:1"}, {ID: "5", Address: "c:1"}},
		},
		{
			name: "tombstones and TiFlash are left out",
			body: list(
				entry(`{"id":1,"address":"a:1","state_name":"Tombstone","state":2}`),
				entry(`{"id":2,"address":"f:3930","state_name":"Up",`+
					`"labels":[{"key":"zone","value":"a"},{"key":"engine","value":"tiflash"}]}`),
				entry(`{"id":3,"address":"g:3930","state_name":"Up",`+
					`"labels":[{"key":"engine","value":"tiflash_compute"}]}`),
				entry(`{"id":18446744073709551615,"address":"b:1","state_name":"Up",`+
					`"labels":[{"key":"engine","value":"tikv"}]}`),
			),
			want: []storematch.Store{{ID: "18446744073709551615", Address: "b:1"}},
		},
		{
			name: "entries without an ID or address are left out",
			body: list(
				entry(`{"address":"a:1","state_name":"Up"}`),
				entry(`{"id":2,"state_name":"Up"}`),
				entry(`{"id":3,"address":"c:1","state_name":"Up"}`),
			),
			want: []storematch.Store{{ID: "3", Address: "c:1"}},
		},
		{
			name: "a store before its first heartbeat",
			body: list(`{"store":{"id":7,"address":"a:1","state_name":"Up"},"status":{}}`),
			want: []storematch.Store{{ID: "7", Address: "a:1"}},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			client := newClient(t, "", startServer(t, respond(200, tc.body)))

			got, err := client.Stores(t.Context())

			if err != nil || !slices.Equal(got, tc.want) {
				t.Errorf("got %v with error %v, want %v", got, err, tc.want)
			}
		})
	}
}

func TestErrors(t *testing.T) {
	for _, tc := range []struct {
		name    string
		config  string
		handler http.HandlerFunc
		reason  httpclient.Reason
		want    string // A part of the error.
	}{
		{
			name: "not bootstrapped",
			handler: respond(500, `"[PD:cluster:ErrNotBootstrapped]`+
				`TiKV cluster not bootstrapped, please start TiKV first"`+"\n"),
			reason: httpclient.ReasonHTTP,
			want:   "please start TiKV first\": the cluster has no store yet: start TiKV",
		},
		{
			name:    "empty list",
			handler: respond(200, `{"count":0,"stores":[]}`),
			reason:  httpclient.ReasonResponse,
			want:    "the response contains no TiKV store",
		},
		{
			name:    "web page",
			handler: respond(200, `<html>`),
			reason:  httpclient.ReasonResponse,
			want:    "the response is not a list of stores",
		},
		{
			name:    "another program",
			handler: http.NotFound,
			reason:  httpclient.ReasonHTTP,
			want:    "404 Not Found: 404 page not found: does url point at the right API?",
		},
		{
			name:    "no response",
			config:  "timeout: 100ms",
			handler: func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
			reason:  httpclient.ReasonTimeout,
			want:    "no response in time",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			url := startServer(t, tc.handler)

			stores, err := newClient(t, tc.config, url).Stores(t.Context())

			requireError(t, stores, err, tc.reason, "GET "+url+"/pd/api/v1/stores", tc.want)
		})
	}
}

func TestEndpoints(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	server.Close()
	gone := server.URL
	leader := startServer(t, respond(200, list(entry(`{"id":1,"address":"a:1","state_name":"Up"}`))))
	follower := startServer(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, leader+r.URL.Path, http.StatusTemporaryRedirect)
	})

	for _, tc := range []struct {
		name   string
		config string
		urls   []string
		reason httpclient.Reason // "" for no error.
		want   string            // A part of the error.
	}{
		{name: "first endpoint is gone", urls: []string{gone, leader}},
		{name: "follower and leader", urls: []string{follower, leader}},
		{name: "follower with follow_redirects", config: "follow_redirects: true", urls: []string{follower}},
		{
			name:   "follower",
			urls:   []string{follower},
			reason: httpclient.ReasonHTTP,
			want:   "redirects are not followed",
		},
		{
			name:   "endpoint is gone",
			urls:   []string{gone},
			reason: httpclient.ReasonConnection,
			want:   "connection refused",
		},
		{
			name:   "all endpoints are gone",
			urls:   []string{gone, gone + "/other"},
			reason: httpclient.ReasonConnection,
			want:   "connection refused; then GET " + gone + "/other/pd/api/v1/stores: ",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			stores, err := newClient(t, tc.config, tc.urls...).Stores(t.Context())

			if tc.reason == "" {
				if err != nil || len(stores) != 1 {
					t.Errorf("got %v with error %v, want one store", stores, err)
				}
				return
			}
			requireError(t, stores, err, tc.reason, tc.urls[0], tc.want)
		})
	}
}

// requireError requires no stores, and an error that has the given reason and contains each of
// want.
func requireError(t *testing.T, stores []storematch.Store, err error, reason httpclient.Reason, want ...string) {
	t.Helper()

	if err == nil || len(stores) > 0 {
		t.Fatalf("got %v with error %v, want an error", stores, err)
	}
	if got := httpclient.ReasonOf(err); got != reason {
		t.Errorf("reason is %q, want %q: %v", got, reason, err)
	}

	for _, text := range want {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("error is %q, want %q in it", err, text)
		}
	}
}
