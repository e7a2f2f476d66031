// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/big"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/operator-store/operator_store_exporter/e2e/simulator"
	"github.com/operator-store/operator_store_exporter/e2e/stack"
)

// fleet is a simulated TiKV cluster with the targets by which a Prometheus scrapes it.
type fleet struct {
	*stack.Process // The Prometheus, once it is started.

	cluster *simulator.Cluster
	pages   string // The address of the simulator.
	dir     string // The directory of the Prometheus.
	targets []stack.Target
	stores  int
}

// newFleet returns a fleet without stores. It serves the pages of the simulator.
func newFleet(t *testing.T) *fleet {
	t.Helper()
	return newFleetWithSeed(t, 1)
}

// newFleetWithSeed is newFleet with other values for stores of the same names.
func newFleetWithSeed(t *testing.T, seed uint64) *fleet {
	t.Helper()

	cluster := simulator.NewCluster(seed)
	return &fleet{cluster: cluster, pages: stack.Host(serve(t, cluster)), dir: t.TempDir()}
}

// add adds a store with its target. The job of the target is tikv and its instance NAME:20180, or
// NAME if that has a port.
func (f *fleet) add(name string, version simulator.Version) {
	target := stack.Target{Job: "tikv", Instance: name, Path: "/tikv/" + name}
	if !strings.Contains(name, ":") {
		target.Instance += ":20180"
	}
	f.addAs(target, name, name+":20160", version)
}

// addAs adds a store with an address and a target.
func (f *fleet) addAs(target stack.Target, name, address string, version simulator.Version) *simulator.Store {
	target.Path = "/tikv/" + name
	f.addTarget(target)
	f.stores++
	return f.cluster.AddStore(name, address, version)
}

// addTarget adds a target that is not a store. Without an address, it is a page of the simulator.
func (f *fleet) addTarget(target stack.Target) {
	if target.Address == "" {
		target.Address = f.pages
	}
	f.targets = append(f.targets, target)
}

// launch starts a Prometheus that scrapes the targets. Prometheus takes some seconds until it does:
// a test with several fleets launches all of them before it waits for one.
func (f *fleet) launch(t *testing.T, interval time.Duration) {
	t.Helper()
	f.Process = startPrometheusIn(t, f.dir, "upstream", interval, f.targets...)
}

// wait waits until the Prometheus has rates of all stores.
func (f *fleet) wait(t *testing.T) {
	t.Helper()
	waitForRates(t, f.URL, f.stores)
}

// defaultScrapeInterval is the interval at which a Prometheus with a configuration scrapes.
const defaultScrapeInterval = 2 * time.Second

// startConfigured starts a Prometheus with a configuration that lacks the targets.
func (f *fleet) startConfigured(t *testing.T, config stack.Config, flags ...string) {
	t.Helper()

	config.Targets = f.targets
	if config.Interval == 0 {
		config.Interval = defaultScrapeInterval
	}
	var err error
	f.Process, err = stack.ConfiguredPrometheus(t.Context(), "upstream", prometheusBinary, f.dir, config, flags...)
	if err != nil {
		t.Fatal(err)
	}
	p := f.Process
	t.Cleanup(func() { _ = p.Kill() })
}

// start launches a Prometheus and waits until it has rates of all stores.
func (f *fleet) start(t *testing.T, interval time.Duration) {
	t.Helper()

	f.launch(t, interval)
	f.wait(t)
}

// waitForRates waits until an upstream has rates of everything that gauges need, for a number of
// stores.
func waitForRates(t *testing.T, upstream string, stores int) {
	t.Helper()

	const expression = `count(` +
		`rate(tikv_raftstore_log_lag_bucket{le="+Inf"}[1m]) > 0` +
		` and on (job, instance) ` +
		`sum by (job, instance) (rate(tikv_grpc_msg_duration_seconds_bucket{le="+Inf"}[1m])) > 0` +
		` and on (job, instance) ` +
		`rate(process_cpu_seconds_total[1m]))`
	until(t, fmt.Sprintf("upstream to have rates of %d stores", stores), func(ctx context.Context) (bool, error) {
		s, err := query(ctx, upstream, expression, "")
		if err == nil && len(s) == 1 {
			err = fmt.Errorf("upstream has rates of %g stores", s[0].Value)
		}
		return len(s) == 1 && s[0].Value == float64(stores), err
	})
}

// startFleet starts a Prometheus that scrapes small stores, tikv-0 to tikv-(n-1).
func startFleet(t *testing.T, n int) *fleet {
	t.Helper()

	f := newFleetOf(t, n)
	f.start(t, 2*time.Second)
	return f
}

// newFleetOf returns a fleet of small stores, tikv-0 to tikv-(n-1), without a Prometheus.
func newFleetOf(t *testing.T, n int) *fleet {
	t.Helper()

	f := newFleet(t)
	for i := range n {
		f.add(fmt.Sprintf("tikv-%d", i), simulator.Small)
	}
	return f
}

// startVersions starts a Prometheus that scrapes a store of each of the given versions, and other
// targets.
func startVersions(t *testing.T, versions map[string]simulator.Version, others ...stack.Target) *fleet {
	t.Helper()

	f := launchVersions(t, versions, others...)
	f.wait(t)
	return f
}

// launchVersions is startVersions without waiting.
func launchVersions(t *testing.T, versions map[string]simulator.Version, others ...stack.Target) *fleet {
	t.Helper()

	f := newFleet(t)
	for _, name := range slices.Sorted(maps.Keys(versions)) {
		f.add(name, versions[name])
	}

	for _, target := range others {
		f.addTarget(target)
	}
	f.launch(t, time.Second)
	return f
}

// proxy stands between the exporter and an upstream. It records the requests, and replaces some
// responses.
type proxy struct {
	url      string
	upstream *httputil.ReverseProxy
	replace  func(form url.Values) http.HandlerFunc // Returns nil for requests that go to the upstream.

	mu       sync.Mutex
	requests []url.Values
}

// startProxy starts a proxy in front of an upstream. Replace may be nil.
func startProxy(t *testing.T, upstream string, replace func(url.Values) http.HandlerFunc) *proxy {
	t.Helper()

	u, err := url.Parse(upstream)
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{upstream: httputil.NewSingleHostReverseProxy(u), replace: replace}
	p.upstream.Transport = client.Transport
	p.upstream.ErrorHandler = func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) }
	p.url = serve(t, p)
	return p
}

// ServeHTTP implements http.Handler.
func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	p.mu.Lock()
	p.requests = append(p.requests, form)
	p.mu.Unlock()

	if p.replace != nil {
		if respond := p.replace(form); respond != nil {
			respond(w, r)
			return
		}
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	p.upstream.ServeHTTP(w, r)
}

// takeRequests returns the requests since the last call.
func (p *proxy) takeRequests() []url.Values {
	p.mu.Lock()
	defer p.mu.Unlock()

	requests := p.requests
	p.requests = nil
	return requests
}

// expressionOf returns the expression or selectors of a request to the query API.
func expressionOf(form url.Values) string {
	return form.Get("query") + strings.Join(form["match[]"], " ")
}

// respondWith responds with a status and a body.
func respondWith(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// closeConnection closes the connection without a response.
func closeConnection(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

func redirect(to string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, to, http.StatusFound) }
}

// certificate is a self-signed certificate for 127.0.0.1, for servers and clients.
type certificate struct {
	tls.Certificate
	certFile, keyFile string
}

func newCertificate(t *testing.T) certificate {
	t.Helper()

	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: "test"},
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(time.Hour),
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IsCA:                  true,
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}

	dir := t.TempDir()
	c := certificate{certFile: filepath.Join(dir, "cert.pem"), keyFile: filepath.Join(dir, "key.pem")}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
	if err := errors.Join(
		os.WriteFile(c.certFile, certPEM, 0o600),
		os.WriteFile(c.keyFile, keyPEM, 0o600),
	); err != nil {
		t.Fatal(err)
	}
	c.Certificate, err = tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		t.Fatal(err)
	}

	return c
}
