// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	stdlog "log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/operator-store/operator_store_exporter/e2e/oracle"
)

// What upstream asks for changes, and so does the file that has it: the next scrape is whole, without a reload.
func TestSecretsRotate(t *testing.T) {
	for _, tc := range []struct{ name, config, header string }{
		{"basic auth", "basic_auth: {username: u, password_file: %q}", "Basic"},
		{"a token", "authorization: {credentials_file: %q}", "Bearer"},
		{"a header", "http_headers: {X-Key: {files: [%q]}}", "X-Key"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var wanted atomic.Value
			wanted.Store("one")
			upstream := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				got := r.Header.Get("X-Key")
				switch tc.header {
				case "Basic":
					_, got, _ = r.BasicAuth()
				case "Bearer":
					got = strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
				}
				if got != wanted.Load() {
					w.WriteHeader(http.StatusUnauthorized)
					return
				}
				oracle.Oracle{Stores: 1}.ServeHTTP(w, r)
			}))
			file := writeFile(t, "secret", "one")
			exporter, _ := startExporter(t, "--config.file="+writeFile(t, "config.yml", "clusters:\n- name: c\n  upstream:\n    url: "+upstream+"\n    "+fmt.Sprintf(tc.config, file)+"\n"))
			up := func() float64 {
				return scrape(t, exporter+"/metrics", 10*time.Second)[`operator_store_exporter_upstream_up{cluster="c"}`]
			}
			if up() != 1 {
				t.Error("the secret is not taken")
			}
			wanted.Store("two")
			if up() != 0 {
				t.Error("an old secret is taken")
			}
			if err := os.WriteFile(file, []byte("two"), 0o600); err != nil {
				t.Fatal(err)
			}
			if up() != 1 {
				t.Error("the new secret is not used")
			}
		})
	}
}

// Upstream wants a certificate of ours, and both sides' certificates change, ours in the files that the configuration names.
func TestCertificatesOfUpstreamRotate(t *testing.T) {
	var current atomic.Pointer[tls.Config]
	server := httptest.NewUnstartedServer(oracle.Oracle{Stores: 1})
	server.Config.ErrorLog = stdlog.New(io.Discard, "", 0) // It would tell of the handshakes that fail.
	server.TLS = &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return current.Load(), nil }}
	files := map[string]string{"ca": t.TempDir() + "/ca.pem", "cert": t.TempDir() + "/cert.pem", "key": t.TempDir() + "/key.pem"}
	rotate := func(withFiles bool) {
		serverCert, ca, _ := newCertificate(t)
		ours, cert, key := newCertificate(t)
		pool := x509.NewCertPool()
		pool.AddCert(ours.Leaf)
		current.Store(&tls.Config{Certificates: []tls.Certificate{serverCert}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool})
		if !withFiles {
			return
		}
		for name, from := range map[string]string{"ca": ca, "cert": cert, "key": key} {
			content, err := os.ReadFile(from)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(files[name], content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		server.CloseClientConnections()
	}
	rotate(true)
	server.StartTLS()
	t.Cleanup(server.Close)
	exporter, log := startExporter(t, "--config.file="+writeFile(t, "config.yml", fmt.Sprintf(
		"clusters:\n- name: c\n  upstream:\n    url: %s\n    tls_config: {ca_file: %q, cert_file: %q, key_file: %q}\n", server.URL, files["ca"], files["cert"], files["key"])))
	up := func() float64 {
		return scrape(t, exporter+"/metrics", 10*time.Second)[`operator_store_exporter_upstream_up{cluster="c"}`]
	}
	if up() != 1 {
		t.Fatal("the certificates are not taken")
	}
	rotate(true)
	if up() != 1 {
		t.Error("the new certificates are not used")
	}
	rotate(false)
	server.CloseClientConnections()
	if up() != 0 {
		t.Error("upstream's new certificate is trusted, though nobody said so")
	}
	if lines := log.matching("level=warn", "tls_config"); len(lines) == 0 {
		t.Error("the log does not say what to do")
	}
}

// Our own certificate and passwords are read again too.
func TestCertificatesOfOurOwnRotate(t *testing.T) {
	upstream := serve(t, oracle.Oracle{Stores: 1})
	_, certFile, keyFile := newCertificate(t)
	const hash = "$2y$10$QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi" // bcrypt of "fakepassword"
	web := writeFile(t, "web.yml", fmt.Sprintf("tls_server_config: {cert_file: %q, key_file: %q}\n", certFile, keyFile))
	exporter, _ := startExporter(t, "--upstream.url="+upstream, "--web.config.file="+web)
	address := strings.TrimPrefix(exporter, "http://")
	serial := func() string {
		conn, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		return conn.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	before := serial()
	_, newCert, newKey := newCertificate(t)
	content := fmt.Sprintf("tls_server_config: {cert_file: %q, key_file: %q}\nbasic_auth_users: {u: %q}\n", newCert, newKey, hash)
	if err := os.WriteFile(web, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if serial() == before {
		t.Error("the old certificate is shown")
	}
	secure := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	for password, want := range map[string]int{"": http.StatusUnauthorized, "wrong": http.StatusUnauthorized, "fakepassword": http.StatusOK} {
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
			t.Errorf("with the password %q: %s, want %d", password, resp.Status, want)
		}
	}
}

// A secret goes to the host it is for, and into nothing that anyone reads.
func TestSecretsStayWhereTheyBelong(t *testing.T) {
	const secret = "hunter2hunter2"
	var elsewhere sync.Map
	other := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		elsewhere.Store(fmt.Sprint(r.Header), true)
		oracle.Oracle{Stores: 1}.ServeHTTP(w, r)
	}))
	token := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"access_token":%q,"token_type":"Bearer","expires_in":3600}`, secret)
	}))
	for _, tc := range []struct{ name, config string }{
		{"basic auth", "basic_auth: {username: u, password: " + secret + "}"},
		{"a token", "authorization: {credentials: " + secret + "}"},
		{"a bearer token", "bearer_token: " + secret},
		{"a header", "http_headers: {X-Key: {secrets: [" + secret + "]}}"},
		{"OAuth2", "oauth2: {client_id: id, client_secret: " + secret + ", token_url: " + token + "}"},
		{"a proxy's header", "basic_auth: {username: u, password: x}\n    proxy_url: http://127.0.0.1:1\n    proxy_connect_header: {X-Key: [" + secret + "]}"},
	} {
		for what, answer := range map[string]http.HandlerFunc{
			"redirected": func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, other+r.URL.Path+"?token="+secret, http.StatusTemporaryRedirect)
			},
			"repeated": func(w http.ResponseWriter, r *http.Request) {
				user, password, _ := r.BasicAuth()
				w.WriteHeader(http.StatusInternalServerError)
				fmt.Fprint(w, r.Header, user, password)
			},
			"refused": answerWith(401, "no"), "broken": answerWith(500, ""), "cut off": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		} {
			t.Run(tc.name+" "+what, func(t *testing.T) {
				upstream := serve(t, answer)
				file := writeFile(t, "config.yml", "clusters:\n- name: c\n  upstream:\n    url: "+upstream+"\n    follow_redirects: true\n    "+tc.config+"\n")
				exporter, log := startExporter(t, "--config.file="+file, "--log.level=debug")
				var said []string
				for _, path := range []string{"/metrics", "/", "/api/v1/stores", "/-/ready"} {
					body, err := get(t.Context(), http.MethodGet, exporter+path, http.StatusOK)
					if err != nil {
						t.Error(err)
					}
					said = append(said, string(body))
				}
				out, err := command(t, "check-config", file)
				said = append(append(said, out, fmt.Sprint(err)), log.matching()...)
				for _, text := range said {
					if strings.Contains(text, secret) {
						t.Errorf("the secret is told: %s", text)
					}
				}
				if len(log.matching("level=warn")) == 0 {
					t.Error("the failure is not told")
				}
			})
		}
	}
	for _, value := range []string{"*" + secret, "!" + secret, "!!int " + secret, "!!binary " + secret, "[" + secret + "]", "{a: " + secret + "}"} {
		t.Run("a file with "+value[:3], func(t *testing.T) {
			file := writeFile(t, "config.yml", "clusters:\n- name: c\n  upstream:\n    url: http://127.0.0.1:1\n    basic_auth: {username: u, password: "+value+"}\n")
			if _, err := command(t, "check-config", file); err == nil || strings.Contains(err.Error(), secret) || !strings.Contains(err.Error(), "config.yml:") {
				t.Errorf("the error is %v", err)
			}
		})
	}
	for name, tc := range map[string]struct{ config, says string }{
		"a file that is not there":      {"basic_auth: {username: u, password_file: nowhere}", "nowhere"},
		"a proxy that is not there":     {"proxy_url: http://127.0.0.1:1", "127.0.0.1:1"},
		"an OAuth2 server that refuses": {"oauth2: {client_id: id, client_secret: " + secret + ", token_url: " + serve(t, answerWith(401, secret)) + "}", "token_url of oauth2 answers 401"},
	} {
		t.Run(name, func(t *testing.T) {
			exporter, log := startExporter(t, "--config.file="+writeFile(t, "config.yml", "clusters:\n- name: c\n  upstream:\n    url: "+other+"\n    "+tc.config+"\n"))
			scrape(t, exporter+"/metrics", 10*time.Second)
			if lines := log.matching("level=warn", tc.says); len(lines) != 1 || strings.Contains(lines[0], secret) {
				t.Errorf("the log says %q, want one line with %q", log.matching("level=warn"), tc.says)
			}
		})
	}
	elsewhere.Range(func(header, _ any) bool {
		t.Errorf("another host was asked, with the headers %s", header)
		return true
	})
}

// What a client sends that no scraper does ends its connection, and takes nothing from others.
func TestOwnServerIsBounded(t *testing.T) {
	upstream := serve(t, oracle.Oracle{Stores: 1})
	exporter, _ := startExporter(t, "--upstream.url="+upstream, "--web.max-requests=2")
	address := strings.TrimPrefix(exporter, "http://")
	for _, tc := range []struct {
		name, request, want string
	}{
		{"a header that is too large", "GET /metrics HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("x", 200<<10) + "\r\n\r\n", "431"},
		{"a header that does not end", "GET /metrics HTTP/1.1\r\nHost: a\r\nX: ", ""},
		{"a body that is too large", "POST /-/reload HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\n" + strings.Repeat("x", 4096), "403"},
		{"no HTTP", "hello\r\n\r\n", "400"},
		{"a path that goes up", "GET /../../etc/passwd HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "307"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			_ = conn.SetDeadline(time.Now().Add(time.Minute)) // It fails where the server waits for ever.
			if _, err := io.WriteString(conn, tc.request); err != nil && tc.want == "" {
				t.Fatal(err)
			}
			line, err := bufio.NewReader(conn).ReadString('\n')
			if errors.Is(err, os.ErrDeadlineExceeded) || !strings.Contains(line, tc.want) {
				t.Errorf("the answer is %q (%v), want %q", line, err, tc.want)
			}
		})
	}
	t.Run("more scrapes than may be", func(t *testing.T) {
		t.Parallel()
		gate := make(chan struct{})
		arrived := make(chan struct{}, 10)
		slow := serve(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			arrived <- struct{}{}
			<-gate
			panic(http.ErrAbortHandler)
		}))
		exporter, _ := startExporter(t, "--upstream.url="+slow, "--web.max-requests=1")
		var first sync.WaitGroup
		first.Go(func() { scrape(t, exporter+"/metrics", time.Minute) })
		<-arrived
		body, err := get(t.Context(), http.MethodGet, exporter+"/metrics", http.StatusServiceUnavailable)
		if err != nil || !strings.Contains(string(body), "--web.max-requests") {
			t.Errorf("%v: %s", err, body)
		}
		close(gate)
		first.Wait()
		page := scrape(t, exporter+"/metrics", time.Minute)
		if n := page[`promhttp_metric_handler_requests_total{code="503"}`]; n != 1 {
			t.Errorf("%g scrapes were counted as refused, want 1", n)
		}
	})
}

// The limit of stores keeps the same ones each time, and is told.
func TestMoreStoresThanMayBe(t *testing.T) {
	upstream := serve(t, oracle.Oracle{Stores: 5})
	exporter, log := startExporter(t, "--config.file="+writeFile(t, "config.yml", "clusters:\n- name: c\n  upstream: {url: "+upstream+"}\n  store_limit: 3\n"))
	var before []string
	for i := range 2 {
		page := scrape(t, exporter+"/metrics", 10*time.Second)
		var got []string
		for s := range page.with("operator_store_up{") {
			got = append(got, s)
		}
		slices.Sort(got)
		if len(got) != 3 || before != nil && !slices.Equal(got, before) {
			t.Errorf("the stores are %q, before %q", got, before)
		}
		before = got
		if n := page[`operator_store_exporter_query_failures_total{cluster="c", query="targets", reason="limit"}`]; n != float64(i+1) {
			t.Errorf("the limit was counted %g times", n)
		}
	}
	if lines := log.matching("2 stores more than store_limit of 3"); len(lines) != 1 {
		t.Errorf("the log says %q", log.matching("level=warn"))
	}
}

// Which server answers is told, and changes when one fails and the other does not.
func TestFailoverIsTold(t *testing.T) {
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
	exporter, _ := startExporter(t, "--config.file="+writeFile(t, "config.yml", "clusters:\n- name: c\n  upstream: {url: ["+strings.Join(urls, ", ")+"]}\n"))
	for _, step := range []struct {
		what    string
		down    [2]bool
		serving int
		up      float64
	}{
		{"both are there", [2]bool{false, false}, 0, 1},
		{"the first is gone", [2]bool{true, false}, 1, 1},
		{"the first is back: the one that last worked goes first", [2]bool{false, false}, 1, 1},
		{"the second is gone", [2]bool{false, true}, 0, 1},
		{"both are gone", [2]bool{true, true}, 0, 0},
		{"the second is back", [2]bool{true, false}, 1, 1},
	} {
		for i := range down {
			down[i].Store(step.down[i])
		}
		page := scrape(t, exporter+"/metrics", 10*time.Second)
		if up := page[`operator_store_exporter_upstream_up{cluster="c"}`]; up != step.up {
			t.Errorf("%s: upstream_up is %g", step.what, up)
		}
		for i, u := range urls {
			want := 0.0
			if i == step.serving {
				want = 1
			}
			if got := page[fmt.Sprintf(`operator_store_exporter_upstream_serving{cluster="c", url=%q}`, u)]; got != want {
				t.Errorf("%s: serving of server %d is %g, want %g", step.what, i, got, want)
			}
		}
	}
}
