// SPDX-License-Identifier: Apache-2.0

// Package transport carries requests to one of several servers of the same data.
package httpclient

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync/atomic"
	"time"
	"unicode"

	commonconfig "github.com/prometheus/common/config"
	"github.com/prometheus/common/version"

	"github.com/operator-store/operator_store_exporter/config"
)

// Servers are one or more servers of the same data. They are safe for concurrent use.
type Servers struct {
	client  *http.Client
	timeout time.Duration
	urls    []*url.URL
	serving atomic.Int32 // The server that last worked is asked first.

	maxBody int64
	slots   chan struct{} // Full while as many requests are under way as may be.
	queued  atomic.Uint64

	fetchesTokens bool
	secrets       *strings.Replacer
}

// New returns the servers of cfg, called name in errors. The error says which credential or certificate
// can't be used.
func New(name string, cfg config.Server) (*Servers, error) {
	options := []commonconfig.HTTPClientOption{commonconfig.WithUserAgent("operator_store_exporter/" + version.Version)}
	fetchesTokens := cfg.HTTPClient.OAuth2 != nil
	if fetchesTokens {
		options = append(options, commonconfig.WithDialContextFunc(dialBounded(2*time.Duration(cfg.Timeout))))
	}
	client, err := commonconfig.NewClientFromConfig(cfg.HTTPClient, name, options...)
	if err != nil {
		return nil, fmt.Errorf("set up the HTTP client of %s %s: %w", name, cfg.URL[0], err)
	}
	if cfg.HTTPClient.FollowRedirects {
		client.CheckRedirect = sameHost(hasCredentials(cfg.HTTPClient))
	}
	return &Servers{
		client: client, timeout: time.Duration(cfg.Timeout), urls: cfg.URL,
		maxBody: int64(cfg.BodySizeLimit), slots: make(chan struct{}, cfg.ConcurrencyLimit), fetchesTokens: fetchesTokens,
		secrets: replacer(cfg.HTTPClient),
	}, nil
}

const maxRedirects = 10

// sameHost follows redirects, but lets no credentials go to another host than the one they are for.
func sameHost(credentials bool) func(*http.Request, []*http.Request) error {
	return func(req *http.Request, via []*http.Request) error {
		if len(via) >= maxRedirects || credentials && (req.URL.Host != via[0].URL.Host || req.URL.Scheme != via[0].URL.Scheme) {
			return http.ErrUseLastResponse
		}
		return nil
	}
}

// hasCredentials tells whether a request has anything on it that is not for everybody. Headers may be that too.
func hasCredentials(c commonconfig.HTTPClientConfig) bool {
	return c.BasicAuth != nil || c.Authorization != nil || c.OAuth2 != nil || len(headers(c)) > 0 ||
		c.BearerToken != "" || c.BearerTokenFile != "" || c.TLSConfig.Cert+c.TLSConfig.CertFile != ""
}

// URLs returns the servers' base URLs.
func (s *Servers) URLs() []*url.URL { return s.urls }

// Serving returns the base URL of the server that last answered, the first one before any has.
func (s *Servers) Serving() *url.URL { return s.urls[s.serving.Load()] }

// Queued returns how many requests have waited for others, because as many were under way as may be.
func (s *Servers) Queued() uint64 { return s.queued.Load() }

// Close closes the connections that are not in use.
func (s *Servers) Close() { s.client.CloseIdleConnections() }

// Try calls request with one server after the other, by its index in URLs, until one answers, within ctx and the
// configured timeout, of which each server gets its share. The errors of request are of type *Error; those of
// Try hold one for each server that was tried.
func (s *Servers) Try(ctx context.Context, request func(ctx context.Context, server int) error) error {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	deadline, _ := ctx.Deadline()
	first := int(s.serving.Load())
	var failed failures
	for i := range s.urls {
		n := (first + i) % len(s.urls)
		share := time.Until(deadline) / time.Duration(len(s.urls)-i)
		err := func() error {
			ctx, cancel := context.WithTimeout(ctx, share)
			defer cancel()
			return request(ctx, n)
		}()
		if err == nil {
			s.serving.Store(int32(n)) //nolint:gosec // Nobody lists two billion servers.
			return nil
		}
		failed = append(failed, err)
		var e *Error
		if ctx.Err() != nil || errors.As(err, &e) && !e.failover() {
			break
		}
	}
	return failed
}

// Do sends req and returns the answer with its body. Any answer but a 2xx becomes an *Error, which
// calls the request by its method and URL without parameters.
func (s *Servers) Do(ctx context.Context, req *http.Request) (*http.Response, []byte, error) {
	plain := *req.URL
	plain.RawQuery = ""
	request := req.Method + " " + plain.String()
	if err := s.enter(ctx, request); err != nil {
		return nil, nil, err
	}
	resp, body, err := s.exchange(req.WithContext(ctx))
	switch {
	case err != nil:
		return resp, nil, transportError(request, err)
	case resp.StatusCode/100 == 2 && resp.Header.Get("Content-Encoding") != "":
		return resp, nil, &Error{
			Reason: ReasonResponse, Request: request,
			Err: fmt.Errorf("the answer is compressed with %s, which was not asked for", oneLine(resp.Header.Get("Content-Encoding"))), Hint: HintURL,
		}
	case resp.StatusCode/100 != 2:
		errorType, message := refusal(body)
		return resp, nil, statusError(request, resp, errorType, s.redact(message))
	}
	return resp, body, nil
}

// enter waits for its turn.
func (s *Servers) enter(ctx context.Context, request string) error {
	select {
	case s.slots <- struct{}{}:
		return nil
	default:
	}
	s.queued.Add(1)
	select {
	case s.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return &Error{
			Reason: ReasonTimeout, Request: request, Err: fmt.Errorf("%d requests before it took all the time there was", cap(s.slots)),
			Hint: HintTimeout,
		}
	}
}

// exchange sends req, reads the answer and leaves. It returns when req's context ends. An OAuth2 token is fetched
// without regard to that context, so the exchange may go on for a while after nobody waits for it; its slot is
// taken as long, so that there are never more than slots.
func (s *Servers) exchange(req *http.Request) (*http.Response, []byte, error) {
	type answer struct {
		resp *http.Response
		body []byte
		err  error
	}
	exchange := func() (a answer) {
		defer func() { <-s.slots }()
		a.resp, a.err = s.client.Do(req) //nolint:bodyclose // It is closed by read.
		if a.err == nil {
			a.body, a.err = s.read(a.resp)
		}
		return a
	}
	if !s.fetchesTokens {
		a := exchange()
		return a.resp, a.body, a.err
	}
	answers := make(chan answer, 1)
	go func() { answers <- exchange() }()
	select {
	case a := <-answers:
		return a.resp, a.body, a.err
	case <-req.Context().Done():
		return nil, nil, req.Context().Err()
	}
}

// read reads and closes the body.
func (s *Servers) read(resp *http.Response) ([]byte, error) {
	defer resp.Body.Close()
	if resp.ContentLength > s.maxBody {
		return nil, fmt.Errorf("%w: %d bytes, over body_size_limit", errTooBig, resp.ContentLength)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, s.maxBody+1))
	if int64(len(body)) > s.maxBody {
		return nil, fmt.Errorf("%w: over body_size_limit of %s", errTooBig, config.Size(s.maxBody))
	}
	return body, err
}

// dialBounded dials connections that wait no longer than timeout for an answer to what was written.
func dialBounded(timeout time.Duration) commonconfig.DialContextFunc {
	dialer := net.Dialer{Timeout: timeout}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dialer.DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return bounded{conn, timeout}, nil
	}
}

// bounded is a connection that ends when nothing was written to it for a while.
type bounded struct {
	net.Conn
	timeout time.Duration
}

// Write implements net.Conn.
func (b bounded) Write(p []byte) (int, error) {
	if err := b.SetDeadline(time.Now().Add(b.timeout)); err != nil {
		return 0, err
	}
	return b.Conn.Write(p)
}

// What a request is authorised by, as an error page may repeat it.
var authorization = regexp.MustCompile(`(?i)\b(basic|bearer|digest|token)\s+[A-Za-z0-9._~+/=-]{4,}`)

const secret = "<secret>"

// redact hides what a server repeats of our credentials.
func (s *Servers) redact(message string) string {
	return s.secrets.Replace(authorization.ReplaceAllString(message, "$1 "+secret))
}

// replacer hides the secrets that the configuration itself holds.
func replacer(c commonconfig.HTTPClientConfig) *strings.Replacer {
	var pairs []string
	hide := func(values ...commonconfig.Secret) {
		for _, v := range values {
			if v != "" {
				pairs = append(pairs, string(v), secret)
			}
		}
	}
	hide(c.BearerToken)
	if c.BasicAuth != nil {
		hide(c.BasicAuth.Password)
	}
	if c.Authorization != nil {
		hide(c.Authorization.Credentials)
	}
	if c.OAuth2 != nil {
		hide(c.OAuth2.ClientSecret)
	}
	for _, h := range headers(c) {
		hide(h.Secrets...)
	}
	for _, values := range c.ProxyConnectHeader {
		hide(values...)
	}
	return strings.NewReplacer(pairs...)
}

func headers(c commonconfig.HTTPClientConfig) map[string]commonconfig.Header {
	if c.HTTPHeaders == nil {
		return nil
	}
	return c.HTTPHeaders.Headers
}

// refusal is what the body of an answer that is not 2xx says: the API's error, or its first words.
func refusal(body []byte) (errorType, message string) {
	var answer struct {
		ErrorType string `json:"errorType"`
		Error     string `json:"error"`
	}
	if json.Unmarshal(body, &answer) == nil && answer.Error != "" {
		return answer.ErrorType, oneLine(answer.Error)
	}
	return "", oneLine(string(body))
}

// oneLine is the first 200 printable characters of s.
func oneLine(s string) string {
	words := strings.FieldsFunc(strings.ToValidUTF8(s, ""), func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) })
	runes := []rune(strings.Join(words, " "))
	return string(runes[:min(len(runes), 200)])
}
