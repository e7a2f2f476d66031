// SPDX-License-Identifier: Apache-2.0

// Package transport carries requests to one of several servers of the same data.
package transport

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"
	"unicode"

	commonconfig "github.com/prometheus/common/config"
	"github.com/prometheus/common/version"

	"github.com/operator-store/operator_store_exporter/config"
)

// maxBody bounds one response body, in bytes: 5,000 series of each of 300 stores fit many times.
const maxBody = 256 << 20

// Servers are one or more servers of the same data. They are safe for concurrent use.
type Servers struct {
	client  *http.Client
	timeout time.Duration
	urls    []*url.URL
	serving atomic.Int32 // The server that last worked is asked first.

	fetchesTokens bool
}

// New returns the servers of cfg, called name in errors. The error says which credential or certificate
// can't be used.
func New(name string, cfg config.Server) (*Servers, error) {
	client, err := commonconfig.NewClientFromConfig(cfg.HTTPClient, name,
		commonconfig.WithUserAgent("operator_store_exporter/"+version.Version))
	if err != nil {
		return nil, fmt.Errorf("set up the HTTP client of %s %s: %w", name, cfg.URL[0], err)
	}
	return &Servers{client: client, timeout: time.Duration(cfg.Timeout), urls: cfg.URL, fetchesTokens: cfg.HTTPClient.OAuth2 != nil}, nil
}

// URLs returns the servers' base URLs.
func (s *Servers) URLs() []*url.URL { return s.urls }

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
	resp, err := s.send(req.WithContext(ctx))
	if err != nil {
		return nil, nil, transportError(request, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	switch {
	case err != nil:
		return resp, nil, transportError(request, err)
	case len(body) > maxBody:
		return resp, nil, transportError(request, fmt.Errorf("%w: over %d bytes", errTooBig, maxBody))
	case resp.StatusCode/100 != 2:
		errorType, message := refusal(body)
		return resp, nil, statusError(request, resp, errorType, message)
	}
	return resp, body, nil
}

// send sends req until its context ends. An OAuth2 token is fetched without regard to the request's context,
// so that one may go on for a while after nobody waits for it.
func (s *Servers) send(req *http.Request) (*http.Response, error) {
	if !s.fetchesTokens {
		return s.client.Do(req)
	}
	type answer struct {
		resp *http.Response
		err  error
	}
	answers := make(chan answer, 1)
	go func() {
		resp, err := s.client.Do(req)
		if err == nil && req.Context().Err() != nil {
			resp.Body.Close()
			err = req.Context().Err()
		}
		answers <- answer{resp, err}
	}()
	select {
	case a := <-answers:
		return a.resp, a.err
	case <-req.Context().Done():
		return nil, req.Context().Err()
	}
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
