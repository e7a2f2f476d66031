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

func newClient(t *testing.T, extra string, urls ...string) *pd.Client {
	t.Helper()
	var cfg config.PD
	if err := yaml.Unmarshal([]byte(fmt.Sprintf("url: [%s]\n%s", strings.Join(urls, ", "), extra)), &cfg); err != nil {
		t.Fatal(err)
	}
	c, err := pd.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func serve(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

func answer(code int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet || r.URL.Path != "/pd/api/v1/stores" {
			http.NotFound(w, r)
			return
		}
		w.WriteHeader(code)
		fmt.Fprint(w, body)
	}
}

// A store as PD describes it; fields that are zero are left out.
func entry(store string) string {
	return `{"store":` + store + `,"status":{"capacity":"3.581TiB","available":"2.1TiB","used_size":"1.4TiB","leader_count":12,"region_count":34}}`
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
			"one that is up", list(entry(`{"id":1,"address":"tikv-0:20160","status_address":"tikv-0:20180","version":"8.5.1","state_name":"Up","last_heartbeat":1700000000000000000,"labels":[{"key":"zone","value":"a"}]}`)),
			[]storematch.Store{{ID: "1", Address: "tikv-0:20160", StatusAddress: "tikv-0:20180"}},
		},
		{
			"those that are not up stay", list(
				entry(`{"id":1,"address":"a:1","state_name":"Offline","state":1}`), entry(`{"id":4,"address":"b:1","state_name":"Down"}`), entry(`{"id":5,"address":"c:1","state_name":"Disconnected"}`)),
			[]storematch.Store{{ID: "1", Address: "a:1"}, {ID: "4", Address: "b:1"}, {ID: "5", Address: "c:1"}},
		},
		{
			"tombstones and TiFlash are left out", list(
				entry(`{"id":1,"address":"a:1","state_name":"Tombstone","state":2}`),
				entry(`{"id":2,"address":"f:3930","state_name":"Up","labels":[{"key":"zone","value":"a"},{"key":"engine","value":"tiflash"}]}`),
				entry(`{"id":3,"address":"g:3930","state_name":"Up","labels":[{"key":"engine","value":"tiflash_compute"}]}`),
				entry(`{"id":18446744073709551615,"address":"b:1","state_name":"Up","labels":[{"key":"engine","value":"tikv"}]}`)),
			[]storematch.Store{{ID: "18446744073709551615", Address: "b:1"}},
		},
		{"before its first heartbeat", list(`{"store":{"id":7,"address":"a:1","state_name":"Up"},"status":{}}`), []storematch.Store{{ID: "7", Address: "a:1"}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := newClient(t, "", serve(t, answer(200, tc.body))).Stores(t.Context())
			if err != nil || !slices.Equal(got, tc.want) {
				t.Errorf("got %v and the error %v, want %v", got, err, tc.want)
			}
		})
	}
}

func TestFaults(t *testing.T) {
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	good := serve(t, answer(200, list(entry(`{"id":1,"address":"a:1","state_name":"Up"}`))))
	redirects := serve(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, good+r.URL.Path, http.StatusTemporaryRedirect)
	})
	notBootstrapped := answer(500, "\"[PD:cluster:ErrNotBootstrapped]TiKV cluster not bootstrapped, please start TiKV first\"\n")
	for _, tc := range []struct {
		name   string
		extra  string
		urls   []string
		reason httpclient.Reason // "" if there is no error.
		says   string
	}{
		{"not bootstrapped", "", []string{serve(t, notBootstrapped)}, httpclient.ReasonHTTP, "the cluster has no store yet: start TiKV"},
		{"empty", "", []string{serve(t, answer(200, `{"count":0,"stores":[]}`))}, httpclient.ReasonResponse, "it lists no TiKV store"},
		{"no list", "", []string{serve(t, answer(200, `<html>`))}, httpclient.ReasonResponse, "it is no list of stores"},
		{"no PD", "", []string{serve(t, http.NotFound)}, httpclient.ReasonHTTP, "404"},
		{"gone", "", []string{gone.URL}, httpclient.ReasonConnection, "connection refused"},
		{"hangs", "timeout: 100ms", []string{serve(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })}, httpclient.ReasonTimeout, "no answer in time"},
		{"the only follower redirects", "", []string{redirects}, httpclient.ReasonHTTP, "redirects are not followed"},
		{"a follower redirects and may", "follow_redirects: true", []string{redirects}, "", ""},
		{"a follower redirects and the leader is listed", "", []string{redirects, good}, "", ""},
		{"the first endpoint is gone", "", []string{gone.URL, good}, "", ""},
		{"all are gone", "", []string{gone.URL, gone.URL + "/other"}, httpclient.ReasonConnection, "; then "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := newClient(t, tc.extra, tc.urls...).Stores(t.Context())
			if tc.reason == "" {
				if err != nil || len(got) != 1 {
					t.Errorf("got %v and the error %v", got, err)
				}
				return
			}
			if err == nil || httpclient.ReasonOf(err) != tc.reason || !strings.Contains(err.Error(), tc.says) || !strings.Contains(err.Error(), tc.urls[0]) {
				t.Errorf("the error is %v, reason %q, want reason %q with %q", err, httpclient.ReasonOf(err), tc.reason, tc.says)
			}
		})
	}
}
