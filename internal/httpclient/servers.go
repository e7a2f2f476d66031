// SPDX-License-Identifier: Apache-2.0

// Package httpclient sends HTTP requests to servers with the same data, with failover from one to
// the next.
package httpclient

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	commonconfig "github.com/prometheus/common/config"
	"github.com/prometheus/common/version"

	"github.com/operator-store/operator_store_exporter/config"
)

// Servers are one or more servers with the same data. They are safe for concurrent use.
type Servers struct {
	urls    []*url.URL
	active  atomic.Int64 // Index of the server that responded last. It is tried first.
	timeout time.Duration

	client       *http.Client
	fetchTokens  bool // The client fetches OAuth2 tokens.
	maxBodyBytes int64
	secrets      *strings.Replacer

	slots  chan struct{} // Holds an element for each request in progress.
	queued atomic.Uint64
}

// New returns the servers of cfg. Errors call them name, and say which credential or certificate
// cannot be used.
func New(name string, cfg config.Server) (*Servers, error) {
	client, err := newClient(name, cfg)
	if err != nil {
		return nil, fmt.Errorf("set up the HTTP client of %s %s: %w", name, cfg.URL[0], err)
	}

	return &Servers{
		urls:    cfg.URL,
		timeout: time.Duration(cfg.Timeout),

		client:       client,
		fetchTokens:  cfg.HTTPClient.OAuth2 != nil,
		maxBodyBytes: int64(cfg.BodySizeLimit),
		secrets:      newSecretReplacer(cfg.HTTPClient),

		slots: make(chan struct{}, cfg.ConcurrencyLimit),
	}, nil
}

func newClient(name string, cfg config.Server) (*http.Client, error) {
	options := []commonconfig.HTTPClientOption{
		commonconfig.WithUserAgent("operator_store_exporter/" + version.Version),
	}
	if cfg.HTTPClient.OAuth2 != nil {
		// Token fetches ignore the context of the request. Without a bound they could hang forever.
		options = append(options, commonconfig.WithDialContextFunc(dialWithDeadline(2*time.Duration(cfg.Timeout))))
	}

	client, err := commonconfig.NewClientFromConfig(cfg.HTTPClient, name, options...)
	if err != nil {
		return nil, err
	}
	if cfg.HTTPClient.FollowRedirects {
		client.CheckRedirect = redirectPolicy(sendsCredentials(cfg.HTTPClient))
	}

	return client, nil
}

// URLs returns the base URLs of the servers.
func (s *Servers) URLs() []*url.URL { return s.urls }

// Active returns the base URL of the active server: the one that responded last, or the first one
// as long as none has.
func (s *Servers) Active() *url.URL { return s.urls[s.active.Load()] }

// Queued returns how many requests had to wait because ConcurrencyLimit requests were in progress.
func (s *Servers) Queued() uint64 { return s.queued.Load() }

// Close closes idle connections.
func (s *Servers) Close() { s.client.CloseIdleConnections() }

// Failover calls request with the base URL of one server after another until a call succeeds. It
// starts with the active server, and the server that succeeds becomes the active one. It stops
// early if the error of a server shows that the others would fail as well, such as a wrong
// password.
//
// All calls together have to finish before ctx ends and within the configured timeout. So that one
// server that hangs does not use up the time of the others, each call gets an equal share of the
// time that is left: with 9 seconds and three servers, the first gets 3 seconds. If it fails after
// 1 second, the second gets 4 of the remaining 8.
//
// The errors of request are of type *Error. The error of Failover wraps one for each server that
// was tried.
func (s *Servers) Failover(ctx context.Context, request func(ctx context.Context, base *url.URL) error) error {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	deadline, _ := ctx.Deadline()
	first := int(s.active.Load())

	var failed serverErrors
	for i := range s.urls {
		server := (first + i) % len(s.urls)
		share := time.Until(deadline) / time.Duration(len(s.urls)-i)

		err := callWithTimeout(ctx, share, s.urls[server], request)
		if err == nil {
			s.active.Store(int64(server))
			return nil
		}

		failed = append(failed, err)
		if e, ok := AsError(err); ctx.Err() != nil || ok && !e.failover() {
			break
		}
	}

	return failed
}

func callWithTimeout(
	ctx context.Context, timeout time.Duration, base *url.URL, request func(context.Context, *url.URL) error,
) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()

	return request(ctx, base)
}
