// SPDX-License-Identifier: Apache-2.0

package httpclient_test

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSanitize(t *testing.T) {
	const secret = "hunter2-hunter2"
	basic := base64.StdEncoding.EncodeToString([]byte("u:" + secret))

	for _, tc := range []struct {
		name    string
		config  string
		message string
		want    string
	}{
		{
			name:    "basic_auth",
			config:  "basic_auth: {username: u, password: " + secret + "}",
			message: "no user u with " + secret,
			want:    "no user u with <secret>",
		},
		{
			name:    "authorization",
			config:  "authorization: {credentials: " + secret + "}",
			message: "invalid key " + secret + "!",
			want:    "invalid key <secret>!",
		},
		{
			name:    "bearer_token",
			config:  "bearer_token: " + secret,
			message: "invalid key '" + secret + "'",
			want:    "invalid key '<secret>'",
		},
		{
			name:    "oauth2",
			config:  "oauth2: {client_id: i, client_secret: " + secret + ", token_url: http://token}",
			message: "client_secret=" + secret,
			want:    "client_secret=<secret>",
		},
		{
			name:    "http_headers",
			config:  "http_headers: {X-Key: {secrets: [other, " + secret + "]}}",
			message: "X-Key: " + secret,
			want:    "X-Key: <secret>",
		},
		{
			name:    "proxy_connect_header",
			config:  "proxy_url: http://proxy\nproxy_connect_header: {X-Key: [" + secret + "]}",
			message: "X-Key: " + secret,
			want:    "X-Key: <secret>",
		},
		{
			name:    "a secret that begins with another one",
			config:  "http_headers: {X-Key: {secrets: [hunter2, " + secret + "]}}",
			message: "X-Key: " + secret,
			want:    "X-Key: <secret>",
		},
		{
			name:    "basic authorization header",
			message: "Authorization: Basic " + basic + " rejected",
			want:    "Authorization: Basic <secret> rejected",
		},
		{
			name:    "bearer authorization header",
			message: "authorization: bearer  abc.def-ghi",
			want:    "authorization: bearer <secret>",
		},
		{
			name:    "digest and token",
			message: "Digest abcd, Token efgh",
			want:    "Digest <secret>, Token <secret>",
		},
		{
			name:    "a secret at the end of the beginning that is shown",
			config:  "bearer_token: " + secret,
			message: strings.Repeat("x", 95) + secret + strings.Repeat("y", 200),
			want:    strings.Repeat("x", 95) + "<secr..." + strings.Repeat("y", 97),
		},
		{
			name:    "a secret at the beginning of the end that is shown",
			config:  "bearer_token: " + secret,
			message: strings.Repeat("x", 200) + secret + strings.Repeat("y", 95),
			want:    strings.Repeat("x", 100) + "...t>" + strings.Repeat("y", 95),
		},
		{
			name:    "200 characters are shown",
			message: strings.Repeat("x", 200),
			want:    strings.Repeat("x", 200),
		},
		{
			name:    "the middle of 201 characters is left out",
			message: strings.Repeat("x", 100) + "mmmm" + strings.Repeat("z", 97),
			want:    strings.Repeat("x", 100) + "..." + strings.Repeat("z", 97),
		},
		{
			name:    "nothing to hide",
			message: "parse error at  1:3\n\tunexpected <EOF>",
			want:    "parse error at 1:3 unexpected <EOF>",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := newServers(t, tc.config, firstURL).Sanitize(tc.message); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

// A server repeats the headers of the request in its error message.
func TestEchoedCredentials(t *testing.T) {
	const secret = "hunter2-hunter2"
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(secret), 0o600); err != nil {
		t.Fatal(err)
	}

	for name, config := range map[string]string{
		"basic_auth":               "basic_auth: {username: u, password: " + secret + "}",
		"basic_auth from a file":   "basic_auth: {username: u, password_file: " + file + "}",
		"bearer token":             "bearer_token: " + secret,
		"bearer token from a file": "bearer_token_file: " + file,
		"authorization":            "authorization: {type: Custom, credentials: " + secret + "}",
		"custom header":            "http_headers: {X-Key: {secrets: [" + secret + "]}}",
	} {
		t.Run(name, func(t *testing.T) {
			base := startServer(t, echoHeaders)

			_, err := get(t.Context(), t, newServers(t, config, base), base)

			basic := base64.StdEncoding.EncodeToString([]byte("u:" + secret))
			e := requireError(t, err)
			if text := e.Error(); !strings.Contains(text, "<secret>") || strings.Contains(text, secret) ||
				strings.Contains(text, basic) {
				t.Errorf("error is %q, want <secret> in place of credentials", text)
			}
		})
	}
}
