// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/operator-store/operator_store_exporter/e2e/oracle"
)

// upstreamUp returns upstream_up of the cluster c after a new scrape.
func (e *exporter) upstreamUp(t *testing.T) float64 {
	t.Helper()
	return e.scrape(t)[`operator_store_exporter_upstream_up{cluster="c"}`]
}

// clusterConfig returns the configuration of the cluster c with fields of its upstream.
func clusterConfig(url string, fields ...string) string {
	return "clusters:\n- name: c\n  upstream:\n    url: " + url + "\n    " + strings.Join(fields, "\n    ") + "\n"
}

// If a secret and the file that has it change, the next scrape succeeds without a reload.
func TestSecretRotation(t *testing.T) {
	t.Parallel()

	for _, tc := range []struct {
		name   string
		config string
		secret func(*http.Request) string
	}{
		{
			name:   "basic auth",
			config: "basic_auth: {username: u, password_file: %q}",
			secret: func(r *http.Request) string {
				_, password, _ := r.BasicAuth()
				return password
			},
		},
		{
			name:   "bearer token",
			config: "authorization: {credentials_file: %q}",
			secret: func(r *http.Request) string {
				return strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
			},
		},
		{
			name:   "header",
			config: "http_headers: {X-Key: {files: [%q]}}",
			secret: func(r *http.Request) string { return r.Header.Get("X-Key") },
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			var want atomic.Value
			want.Store("one")
			upstream := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if tc.secret(r) != want.Load() {
					w.WriteHeader(http.StatusUnauthorized)
					return
				}
				oracle.Oracle{Stores: 1}.ServeHTTP(w, r)
			}))
			file := writeFile(t, "secret", "one")
			exporter := startConfigured(t, clusterConfig(upstream, fmt.Sprintf(tc.config, file)))
			if exporter.upstreamUp(t) != 1 {
				t.Error("upstream rejects the secret")
			}

			want.Store("two")
			if exporter.upstreamUp(t) != 0 {
				t.Error("upstream accepts an old secret")
			}
			if err := os.WriteFile(file, []byte("two"), 0o600); err != nil {
				t.Fatal(err)
			}
			if exporter.upstreamUp(t) != 1 {
				t.Error("upstream rejects the new secret")
			}
		})
	}
}

// rotatingUpstream is an upstream that requires a client certificate.
type rotatingUpstream struct {
	*httptest.Server
	current                   atomic.Pointer[tls.Config]
	caFile, certFile, keyFile string // The files that the exporter reads.
}

func newRotatingUpstream(t *testing.T) *rotatingUpstream {
	t.Helper()

	dir := t.TempDir()
	u := &rotatingUpstream{
		caFile:   filepath.Join(dir, "ca.pem"),
		certFile: filepath.Join(dir, "cert.pem"),
		keyFile:  filepath.Join(dir, "key.pem"),
	}
	u.Server = httptest.NewUnstartedServer(oracle.Oracle{Stores: 1})
	u.Config.ErrorLog = log.New(io.Discard, "", 0) // It would have the failed handshakes.
	u.TLS = &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		return u.current.Load(), nil
	}}
	u.rotate(t, true)
	u.StartTLS()
	t.Cleanup(u.Close)
	return u
}

// rotate replaces the certificates of server and client, with or without the files of the exporter.
func (u *rotatingUpstream) rotate(t *testing.T, withFiles bool) {
	t.Helper()

	server, client := newCertificate(t), newCertificate(t)
	pool := x509.NewCertPool()
	pool.AddCert(client.Leaf)
	u.current.Store(&tls.Config{
		Certificates: []tls.Certificate{server.Certificate},
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ClientCAs:    pool,
	})
	if !withFiles {
		return
	}

	for file, from := range map[string]string{
		u.caFile: server.certFile, u.certFile: client.certFile, u.keyFile: client.keyFile,
	} {
		content, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// If the certificates of upstream and exporter change, and the files that have them, the next
// scrape succeeds.
func TestUpstreamCertificateRotation(t *testing.T) {
	t.Parallel()
	upstream := newRotatingUpstream(t)
	exporter := startConfigured(t, clusterConfig(upstream.URL,
		fmt.Sprintf("tls_config: {ca_file: %q, cert_file: %q, key_file: %q}",
			upstream.caFile, upstream.certFile, upstream.keyFile)))
	if exporter.upstreamUp(t) != 1 {
		t.Fatal("the certificates are rejected")
	}

	upstream.rotate(t, true)
	upstream.CloseClientConnections()
	if exporter.upstreamUp(t) != 1 {
		t.Error("the new certificates are rejected")
	}

	upstream.rotate(t, false)
	upstream.CloseClientConnections()
	if exporter.upstreamUp(t) != 0 {
		t.Error("the exporter trusts a certificate that is not in its file")
	}
	exporter.log.requireWarning(t, warning{msg: queryFailed, reason: "connection", hint: "tls_config"})
}

// The exporter's own certificate and passwords take effect without a reload.
func TestWebConfigRotation(t *testing.T) {
	t.Parallel()
	upstream := serve(t, oracle.Oracle{Stores: 1})
	first, second := newCertificate(t), newCertificate(t)
	web := writeFile(t, "web.yml", fmt.Sprintf(
		"tls_server_config: {cert_file: %q, key_file: %q}\n", first.certFile, first.keyFile))
	exporter := startExporter(t, "--upstream.url="+upstream, "--web.config.file="+web)
	address := strings.TrimPrefix(exporter.URL, "http://")
	serial := func() string {
		conn, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		return conn.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}

	before := serial()
	content := fmt.Sprintf("tls_server_config: {cert_file: %q, key_file: %q}\nbasic_auth_users: {u: %q}\n",
		second.certFile, second.keyFile, fakePasswordHash)
	if err := os.WriteFile(web, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if serial() == before {
		t.Error("the exporter still presents the old certificate")
	}

	secure := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
	}}
	for password, want := range map[string]int{
		"": http.StatusUnauthorized, "wrong": http.StatusUnauthorized, "fakepassword": http.StatusOK,
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+address+"/metrics", nil)
		if err != nil {
			t.Fatal(err)
		}
		if password != "" {
			req.SetBasicAuth("u", password)
		}
		resp, err := secure.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("the status with the password %q is %s, want %d", password, resp.Status, want)
		}
	}
}

// secret is the secret in all configurations of TestSecretsStayPrivate.
const secret = "hunter2hunter2"

// A secret is only sent to the host that it is for, and is in nothing that people read.
func TestSecretsStayPrivate(t *testing.T) {
	t.Parallel()
	var requests sync.Map // Requests to a host to which no secret and no request may go, by headers.
	other := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Store(fmt.Sprint(r.Header), true)
		oracle.Oracle{Stores: 1}.ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		requests.Range(func(header, _ any) bool {
			t.Errorf("another host was queried, with the headers %s", header)
			return true
		})
	})

	testSecretsOfConfigs(t, other)
	testSecretsOfWrongType(t)
	testSecretsOfFailures(t, other)
}

// testSecretsOfConfigs sends secrets of each kind to upstreams that respond in each way that could
// leak them.
func testSecretsOfConfigs(t *testing.T, other string) {
	token := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"access_token":%q,"token_type":"Bearer","expires_in":3600}`, secret)
	}))

	configs := map[string][]string{
		"basic auth":   {"basic_auth: {username: u, password: " + secret + "}"},
		"credentials":  {"authorization: {credentials: " + secret + "}"},
		"bearer token": {"bearer_token: " + secret},
		"header":       {"http_headers: {X-Key: {secrets: [" + secret + "]}}"},
		"OAuth2":       {"oauth2: {client_id: id, client_secret: " + secret + ", token_url: " + token + "}"},
		"proxy header": {
			"basic_auth: {username: u, password: x}",
			"proxy_url: http://127.0.0.1:1",
			"proxy_connect_header: {X-Key: [" + secret + "]}",
		},
	}
	responses := map[string]http.HandlerFunc{
		"redirected": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, other+r.URL.Path+"?token="+secret, http.StatusTemporaryRedirect)
		},
		"repeated": func(w http.ResponseWriter, r *http.Request) {
			user, password, _ := r.BasicAuth()
			w.WriteHeader(http.StatusInternalServerError)
			fmt.Fprint(w, r.Header, user, password)
		},
		"refused": respondWith(http.StatusUnauthorized, "no"),
		"broken":  respondWith(http.StatusInternalServerError, ""),
		"cut off": closeConnection,
	}
	for name, config := range configs {
		for how, respond := range responses {
			t.Run(name+" "+how, func(t *testing.T) {
				t.Parallel()
				fields := append([]string{"follow_redirects: true"}, config...)
				testSecretsOfConfig(t, clusterConfig(serve(t, respond), fields...))
			})
		}
	}
}

// testSecretsOfConfig looks for the secret in all pages, the log and the output of check-config.
func testSecretsOfConfig(t *testing.T, config string) {
	file := writeFile(t, "config.yml", config)
	exporter := startExporter(t, "--config.file="+file, "--log.level=debug")
	var texts []string
	for _, path := range []string{"/metrics", "/", "/api/v1/stores", "/-/ready"} {
		body, err := get(t.Context(), http.MethodGet, exporter.URL+path, http.StatusOK)
		if err != nil {
			t.Error(err)
		}
		texts = append(texts, string(body))
	}
	out, err := runCommand(t, "check-config", file)
	texts = append(append(texts, out, fmt.Sprint(err)), exporter.log.matching()...)

	for _, text := range texts {
		if strings.Contains(text, secret) {
			t.Errorf("the secret is in %s", text)
		}
	}
	if len(exporter.log.warnings(t)) == 0 {
		t.Error("the failure is not logged")
	}
}

// testSecretsOfWrongType has secrets that are not strings, of which error messages could have the
// value.
func testSecretsOfWrongType(t *testing.T) {
	for _, value := range []string{
		"*" + secret, "!" + secret, "!!int " + secret, "!!binary " + secret, "[" + secret + "]", "{a: " + secret + "}",
	} {
		t.Run("value that begins with "+value[:3], func(t *testing.T) {
			file := writeFile(t, "config.yml",
				clusterConfig("http://127.0.0.1:1", "basic_auth: {username: u, password: "+value+"}"))
			_, err := runCommand(t, "check-config", file)
			if err == nil || strings.Contains(err.Error(), secret) || !strings.Contains(err.Error(), "config.yml:") {
				t.Errorf("the error is %v, want one with the place of the mistake and without the secret", err)
			}
		})
	}
}

// testSecretsOfFailures fails before a request with a secret is sent.
func testSecretsOfFailures(t *testing.T, other string) {
	tokenURL := serve(t, respondWith(http.StatusUnauthorized, secret))
	for _, tc := range []struct {
		name   string
		config string
		err    string // A pattern of the cause in the log.
		hint   string // A pattern of the hint in the log.
	}{
		{
			name:   "missing password file",
			config: "basic_auth: {username: u, password_file: nowhere}",
			err:    "nowhere: no such file or directory$",
			hint:   "secret and certificate files",
		},
		{
			name:   "proxy that does not listen",
			config: "proxy_url: http://127.0.0.1:1",
			err:    `: proxy: dial 127\.0\.0\.1:1: `,
			hint:   "proxy_url",
		},
		{
			name:   "OAuth2 server that refuses",
			config: "oauth2: {client_id: id, client_secret: " + secret + ", token_url: " + tokenURL + "}",
			err:    ": the token_url of oauth2 returned 401 Unauthorized$",
			hint:   "client_secret",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			exporter := startConfigured(t, clusterConfig(other, tc.config))
			exporter.scrape(t)
			exporter.log.requireWarning(t, warning{
				msg: queryFailed, cluster: "c", reason: "connection", err: tc.err, hint: tc.hint,
			})
			if lines := exporter.log.matching(secret); len(lines) > 0 {
				t.Errorf("the log has the secret: %q", lines)
			}
		})
	}
}

// Requests that no scraper sends end their connection and do not disturb others.
func TestRequestLimits(t *testing.T) {
	t.Parallel()

	upstream := serve(t, oracle.Oracle{Stores: 1})
	exporter := startExporter(t, "--upstream.url="+upstream, "--web.max-requests=2")
	for _, tc := range []struct {
		name    string
		request string
		want    string // Part of the status line, or "" if the connection is closed.
	}{
		{
			name:    "header that is too large",
			request: "GET /metrics HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("x", 200<<10) + "\r\n\r\n",
			want:    "431",
		},
		{
			name:    "header that does not end",
			request: "GET /metrics HTTP/1.1\r\nHost: a\r\nX: ",
			want:    "",
		},
		{
			name: "body that is too large",
			request: "POST /-/reload HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\n" +
				strings.Repeat("x", 4096),
			want: "403",
		},
		{
			name:    "not HTTP",
			request: "hello\r\n\r\n",
			want:    "400",
		},
		{
			name:    "path outside of the root",
			request: "GET /../../etc/passwd HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
			want:    "307",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", strings.TrimPrefix(exporter.URL, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			_ = conn.SetDeadline(time.Now().Add(time.Minute)) // It only passes if the server waits forever.
			if _, err := io.WriteString(conn, tc.request); err != nil && tc.want == "" {
				t.Fatal(err)
			}

			line, err := bufio.NewReader(conn).ReadString('\n')
			if errors.Is(err, os.ErrDeadlineExceeded) || !strings.Contains(line, tc.want) {
				t.Errorf("the response is %q, error %v, want %q", line, err, tc.want)
			}
		})
	}
	t.Run("more scrapes than --web.max-requests", func(t *testing.T) {
		t.Parallel()
		testMaxRequests(t)
	})
}

func testMaxRequests(t *testing.T) {
	gate := make(chan struct{})
	arrived := make(chan struct{}, 10)
	slow := serve(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		arrived <- struct{}{}
		<-gate
		panic(http.ErrAbortHandler)
	}))
	exporter := startExporter(t, "--upstream.url="+slow, "--web.max-requests=1")
	var first sync.WaitGroup
	first.Go(func() { scrape(t, exporter.URL+"/metrics", time.Minute) })
	<-arrived

	body, err := get(t.Context(), http.MethodGet, exporter.URL+"/metrics", http.StatusServiceUnavailable)
	if err != nil || !strings.Contains(string(body), "--web.max-requests") {
		t.Errorf("error %v, response %s", err, body)
	}
	close(gate)
	first.Wait()
	page := scrape(t, exporter.URL+"/metrics", time.Minute)
	if n := page[`promhttp_metric_handler_requests_total{code="503"}`]; n != 1 {
		t.Errorf("%g refused scrapes were counted, want 1", n)
	}
}

// If there are more stores than store_limit, each page has the same ones, and the failure is
// counted and logged.
func TestStoreLimit(t *testing.T) {
	t.Parallel()
	upstream := serve(t, oracle.Oracle{Stores: 5})
	exporter := startConfigured(t, "clusters:\n- name: c\n  upstream: {url: "+upstream+"}\n  store_limit: 3\n")

	var before []string
	for i := range 2 {
		page := exporter.scrape(t)
		var got []string
		for series := range page.with("operator_store_up{") {
			got = append(got, series)
		}
		slices.Sort(got)
		if len(got) != 3 || before != nil && !slices.Equal(got, before) {
			t.Errorf("the stores are %q, before %q", got, before)
		}
		before = got
		const failures = `operator_store_exporter_query_failures_total{cluster="c", query="targets", reason="limit"}`
		if n := page[failures]; n != float64(i+1) {
			t.Errorf("the limit was counted %g times, want %d", n, i+1)
		}
	}
	exporter.log.requireWarning(t, warning{
		msg: storesLeftOut, cluster: "c", reason: "limit",
		err: "^there are 2 stores more than store_limit, 3$", hint: "raise store_limit$",
	})
}

// The active server changes only if it fails and another does not.
func TestFailover(t *testing.T) {
	t.Parallel()

	var down [2]atomic.Bool
	var urls []string
	for i := range down {
		urls = append(urls, serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if down[i].Load() {
				panic(http.ErrAbortHandler)
			}
			oracle.Oracle{Stores: 1}.ServeHTTP(w, r)
		})))
	}
	exporter := startConfigured(t, "clusters:\n- name: c\n  upstream: {url: ["+strings.Join(urls, ", ")+"]}\n")

	for _, step := range []struct {
		what   string
		down   [2]bool
		active int
		up     float64
	}{
		{what: "both servers are up", down: [2]bool{false, false}, active: 0, up: 1},
		{what: "the first server is down", down: [2]bool{true, false}, active: 1, up: 1},
		{what: "the first server is up again, the second stays active", down: [2]bool{false, false}, active: 1, up: 1},
		{what: "the second server is down", down: [2]bool{false, true}, active: 0, up: 1},
		{what: "both servers are down", down: [2]bool{true, true}, active: 0, up: 0},
		{what: "the second server is up again", down: [2]bool{true, false}, active: 1, up: 1},
	} {
		for i := range down {
			down[i].Store(step.down[i])
		}
		page := exporter.scrape(t)
		if up := page[`operator_store_exporter_upstream_up{cluster="c"}`]; up != step.up {
			t.Errorf("%s: upstream_up is %g, want %g", step.what, up, step.up)
		}

		for i, url := range urls {
			want := 0.0
			if i == step.active {
				want = 1
			}
			series := fmt.Sprintf(`operator_store_exporter_upstream_serving{cluster="c", url=%q}`, url)
			if got := page[series]; got != want {
				t.Errorf("%s: %s is %g, want %g", step.what, series, got, want)
			}
		}
	}
}
