// SPDX-License-Identifier: Apache-2.0

package httpclient_test

import (
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/operator-store/operator_store_exporter/internal/httpclient"
)

func redirectTo(url string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, url, http.StatusTemporaryRedirect) }
}

func TestRedirects(t *testing.T) {
	other := startServer(t, respond(200, "other"))
	cert, key := writeCertificate(t)
	token := startServer(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"access_token":"token","token_type":"bearer","expires_in":3600}`))
	})
	password := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(password, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}

	for _, tc := range []struct {
		name   string
		config string
		to     string // Where "/" redirects to.
		want   string // The body; "" for an error.
	}{
		{name: "not followed by default", to: "/same"},
		{name: "followed to the same server", config: "follow_redirects: true", to: "/same", want: "same"},
		{name: "followed to another server", config: "follow_redirects: true", to: other, want: "other"},
		{name: "endless", config: "follow_redirects: true", to: "/"},
		{
			name:   "followed with credentials to the same server",
			config: "follow_redirects: true\nbasic_auth: {username: u, password: p}",
			to:     "/same", want: "same",
		},
		{
			name: "not followed with basic_auth to another server", to: other,
			config: "follow_redirects: true\nbasic_auth: {username: u, password: p}",
		},
		{
			name: "not followed with a password from a file to another server", to: other,
			config: "follow_redirects: true\nbasic_auth: {username: u, password_file: " + password + "}",
		},
		{
			name: "not followed with authorization to another server", to: other,
			config: "follow_redirects: true\nauthorization: {credentials: x}",
		},
		{
			name: "not followed with bearer_token to another server", to: other,
			config: "follow_redirects: true\nbearer_token: x",
		},
		{
			name: "not followed with bearer_token_file to another server", to: other,
			config: "follow_redirects: true\nbearer_token_file: " + password,
		},
		{
			name: "not followed with oauth2 to another server", to: other,
			config: "follow_redirects: true\noauth2: {client_id: i, client_secret: s, token_url: " + token + "}",
		},
		{
			name: "not followed with custom headers to another server", to: other,
			config: "follow_redirects: true\nhttp_headers: {X-Scope-OrgID: {values: [tenant]}}",
		},
		{
			name: "not followed with a client certificate to another server", to: other,
			config: "follow_redirects: true\ntls_config: {cert_file: " + cert + ", key_file: " + key + "}",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			base := startServer(t, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/same" {
					_, _ = w.Write([]byte("same"))
					return
				}
				redirectTo(tc.to)(w, r)
			})

			got, err := get(t.Context(), t, newServers(t, tc.config, base), base)

			if tc.want != "" {
				if err != nil || got != tc.want {
					t.Errorf("response is %q with error %v, want %q", got, err, tc.want)
				}
				return
			}
			e := requireError(t, err)
			target := strings.TrimPrefix(tc.to, "/")
			if e.Reason != httpclient.ReasonHTTP || e.StatusCode != http.StatusTemporaryRedirect ||
				!strings.Contains(e.Err.Error(), "307 Temporary Redirect: redirect to http://") ||
				!strings.Contains(e.Err.Error(), target) || !strings.Contains(e.Hint, "redirects are not followed") {
				t.Errorf("error is %v, want that the redirect to %s is not followed", err, tc.to)
			}
		})
	}
}

// The same host and port with another scheme is another server: credentials would be sent
// unencrypted.
func TestRedirectToOtherScheme(t *testing.T) {
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		redirectTo("http://"+r.Host)(w, r)
	}))
	t.Cleanup(server.Close)
	servers := newServers(t, `
follow_redirects: true
bearer_token: x
tls_config: {insecure_skip_verify: true}`, server.URL)

	_, err := get(t.Context(), t, servers, server.URL)

	if e := requireError(t, err); e.StatusCode != http.StatusTemporaryRedirect {
		t.Errorf("error is %v, want that the redirect is not followed", err)
	}
}

func TestRedirectWithoutSecretsInError(t *testing.T) {
	for _, tc := range []struct {
		name     string
		location string
		want     string
	}{
		{
			name: "credentials and parameters", location: "http://u:hunter2@elsewhere/path?token=hunter2",
			want: "302 Found: redirect to http://elsewhere/path",
		},
		{name: "no location", want: "302 Found: redirect to nowhere"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			base := startServer(t, func(w http.ResponseWriter, _ *http.Request) {
				if tc.location != "" {
					w.Header().Set("Location", tc.location)
				}
				w.WriteHeader(http.StatusFound)
			})

			_, err := get(t.Context(), t, newServers(t, "", base), base)

			if e := requireError(t, err); e.Err.Error() != tc.want {
				t.Errorf("error is %q, want %q", e.Err, tc.want)
			}
		})
	}
}

// writeCertificate writes the certificate of httptest and its key, and returns the names of the
// files.
func writeCertificate(t *testing.T) (cert, key string) {
	t.Helper()

	server := httptest.NewTLSServer(http.NotFoundHandler())
	defer server.Close()
	pair := server.TLS.Certificates[0]
	der, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}

	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for file, block := range map[string]*pem.Block{
		cert: {Type: "CERTIFICATE", Bytes: pair.Certificate[0]},
		key:  {Type: "PRIVATE KEY", Bytes: der},
	} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}

	return cert, key
}

func TestRedirectLimit(t *testing.T) {
	var requests atomic.Int32
	base := startServer(t, func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		redirectTo("/")(w, r)
	})

	_, err := get(t.Context(), t, newServers(t, "follow_redirects: true", base), base)

	if e := requireError(t, err); !strings.Contains(e.Hint, "only ten times") {
		t.Errorf("hint is %q", e.Hint)
	}
	if got := requests.Load(); got != 10 {
		t.Errorf("the server got %d requests, want 10", got)
	}
}
