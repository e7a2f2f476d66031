// SPDX-License-Identifier: Apache-2.0

// Package promapi queries the HTTP API of a Prometheus-compatible server.
package promapi

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"

	"github.com/operator-store/operator_store_exporter/config"
	"github.com/operator-store/operator_store_exporter/internal/httpclient"
	"github.com/operator-store/operator_store_exporter/internal/promqlexpr"
)

// completeParams are URL parameters that make other backends respond with complete and current
// data, or else with an error. Prometheus ignores them.
var completeParams = url.Values{
	"partial_response":      {"false"}, // Thanos, whose API defaults to true.
	"deny_partial_response": {"1"},     // VictoriaMetrics cluster.
	"nocache":               {"1"},     // VictoriaMetrics: no response as of 30 seconds ago.
}

// partialParams are URL parameters that let other backends leave out data they cannot reach.
var partialParams = url.Values{
	"partial_response":      {"true"},
	"deny_partial_response": {"0"},
	"nocache":               {"1"},
}

// Client queries one upstream, which may consist of several servers with the same data. It is safe
// for concurrent use.
type Client struct {
	servers      *httpclient.Servers
	params       url.Values
	allowPartial bool // Responses that may lack series are accepted.
	seriesLimit  int
	clock        clock
}

// New returns a client for cfg. The error says which credential or certificate cannot be used.
func New(cfg config.Upstream) (*Client, error) {
	servers, err := httpclient.New("upstream", cfg.Server)
	if err != nil {
		return nil, err
	}

	params := maps.Clone(completeParams)
	if cfg.PartialResponse {
		params = maps.Clone(partialParams)
	}
	maps.Copy(params, cfg.Params)

	return &Client{
		servers:      servers,
		params:       params,
		allowPartial: cfg.PartialResponse,
		seriesLimit:  int(cfg.SeriesLimit),
	}, nil
}

// Servers returns the base URL of the active server and those of all servers.
func (c *Client) Servers() (active string, all []string) {
	for _, u := range c.servers.URLs() {
		all = append(all, u.String())
	}

	return c.servers.Active().String(), all
}

// Queued returns how many requests had to wait because ConcurrencyLimit requests were in progress.
func (c *Client) Queued() uint64 { return c.servers.Queued() }

// Close closes idle connections.
func (c *Client) Close() { c.servers.Close() }

// Result is the response to an instant query.
type Result struct {
	Vector      promql.Vector
	EvaluatedAt time.Time // By upstream's clock.
	Partial     bool      // Whether series may be missing: only if the configuration accepts that.
}

// Query evaluates expression at the given time or, if that is zero, at upstream's current time. The
// API returns the time that it chose only as the timestamp of samples. An expression that is
// evaluated at the current time must therefore yield at least one series. Errors wrap an
// *httpclient.Error.
func (c *Client) Query(ctx context.Context, expression string, at time.Time) (Result, error) {
	form := url.Values{"query": {expression}}
	if !at.IsZero() {
		form.Set("time", formatTime(at))
	}

	var sent time.Time
	var result Result
	err := c.request(ctx, "/api/v1/query", form, func(body []byte, sentAt time.Time) (err error) {
		sent = sentAt
		d := newDecoder(c.seriesLimit, c.allowPartial)
		result.Vector, err = d.vector(body)
		result.Partial = d.partial
		if err == nil && at.IsZero() && len(result.Vector) == 0 {
			return errors.New("the response is empty, so that upstream's time is unknown")
		}

		return err
	})
	if err != nil {
		return Result{}, err
	}

	result.EvaluatedAt = at
	if at.IsZero() {
		result.EvaluatedAt = time.UnixMilli(result.Vector[0].T)
		c.clock.setOffset(result.EvaluatedAt.Sub(sent))
	}

	return result, nil
}

// Samples returns the samples of the series that a vector selector matches, within a range before
// the given time. Errors wrap an *httpclient.Error.
func (c *Client) Samples(
	ctx context.Context, selector promqlexpr.Expr, within time.Duration, at time.Time,
) (promql.Matrix, error) {
	form := url.Values{"query": {promqlexpr.Range(selector, within)}, "time": {formatTime(at)}}

	var matrix promql.Matrix
	err := c.request(ctx, "/api/v1/query", form, func(body []byte, _ time.Time) (err error) {
		matrix, err = newDecoder(c.seriesLimit, c.allowPartial).matrix(body)

		return err
	})

	return matrix, err
}

// Series returns the label sets of the series that match any of matchers and had samples between
// start and end. Errors wrap an *httpclient.Error.
func (c *Client) Series(ctx context.Context, matchers []string, start, end time.Time) ([]labels.Labels, error) {
	form := url.Values{"match[]": matchers, "start": {formatTime(start)}, "end": {formatTime(end)}}

	var series []labels.Labels
	err := c.request(ctx, "/api/v1/series", form, func(body []byte, _ time.Time) (err error) {
		series, err = newDecoder(c.seriesLimit, c.allowPartial).series(body)
		return err
	})

	return series, err
}

// Now returns upstream's current time: the local time, corrected by the difference that was seen
// last. Known is false as long as no query has shown upstream's time.
func (c *Client) Now() (now time.Time, known bool) {
	offset, known := c.clock.offset()
	return time.Now().Add(offset), known
}

// formatTime formats a time for the API, whose resolution is a millisecond.
func formatTime(t time.Time) string {
	return strconv.FormatFloat(float64(t.UnixMilli())/1000, 'f', -1, 64)
}

// request posts form to one server after another until decode accepts a response. It passes decode
// the body and the time at which that request was sent.
func (c *Client) request(
	ctx context.Context, path string, form url.Values, decode func(body []byte, sentAt time.Time) error,
) error {
	encoded := form.Encode()

	return c.servers.Failover(ctx, func(ctx context.Context, base *url.URL) error {
		sentAt := time.Now()
		body, err := c.post(ctx, base.JoinPath(path), encoded)
		if err != nil {
			return err
		}

		if err := decode(body, sentAt); err != nil {
			return c.responseError("response from "+base.String(), err)
		}

		return nil
	})
}

// post sends a form by POST because servers and proxies refuse long URLs. Some proxies and
// read-only gateways allow GET only. They respond to POST with one of the statuses below, and
// receive the form as URL parameters instead.
func (c *Client) post(ctx context.Context, u *url.URL, form string) ([]byte, error) {
	u.RawQuery = c.paramsFor(ctx).Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), strings.NewReader(form))
	if err != nil {
		return nil, &httpclient.Error{Reason: httpclient.ReasonConnection, Request: "POST " + u.Host, Err: err}
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	// Queries change nothing. With this key, which is not sent, the HTTP client repeats a POST if
	// the idle connection that it was sent on turns out to be dead.
	req.Header["Idempotency-Key"] = nil

	body, err := c.servers.Do(ctx, req)
	if e, ok := httpclient.AsError(err); ok {
		switch e.StatusCode {
		case http.StatusForbidden, http.StatusMethodNotAllowed, http.StatusNotImplemented:
			u.RawQuery += "&" + form
			return c.get(ctx, u)
		}
	}

	return body, err
}

func (c *Client) get(ctx context.Context, u *url.URL) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, &httpclient.Error{Reason: httpclient.ReasonConnection, Request: "GET " + u.Host, Err: err}
	}

	return c.servers.Do(ctx, req)
}

// paramsFor returns the URL parameters of a request with the context ctx. The parameter timeout
// makes upstream give up a little before ctx ends. Its own error then arrives, which explains more
// than a missing response does.
func (c *Client) paramsFor(ctx context.Context) url.Values {
	params := maps.Clone(c.params)
	if deadline, ok := ctx.Deadline(); ok {
		left := time.Until(deadline)
		params.Set("timeout", strconv.FormatFloat((left-left/20).Seconds(), 'f', 3, 64))
	}

	return params
}

// responseError classifies a response with a status of 2xx that decoding rejected with err.
func (c *Client) responseError(request string, err error) *httpclient.Error {
	e := &httpclient.Error{
		Reason: httpclient.ReasonResponse, Request: request, Err: err, Hint: httpclient.HintURL,
		StatusCode: http.StatusOK,
	}

	var (
		failed  apiError
		partial partialError
	)
	switch {
	case errors.As(err, &failed):
		e.Reason, e.Hint = httpclient.ReasonQuery, ""
		e.Err = errors.New(cmp.Or(c.servers.Sanitize(failed.message), "the response is an error without a message"))
		if httpclient.MentionsSizeLimit(failed.message) {
			e.TooLarge, e.Hint = true, httpclient.HintTooLarge
		}
		if failed.timedOut() {
			e.Reason, e.Hint = httpclient.ReasonTimeout, httpclient.HintTimeout
		}
	case errors.As(err, &partial):
		e.Reason = httpclient.ReasonPartial
		e.Err = errors.New(c.servers.Sanitize(partial.cause))
		e.Hint = "check upstream's storage nodes, or accept partial responses with partial_response: true"
		if httpclient.MentionsSizeLimit(partial.cause) { // A store of Thanos that exceeded its limit.
			e.TooLarge, e.Hint = true, httpclient.HintTooLarge
		}
	case errors.Is(err, errSeriesLimit):
		e.Reason, e.Hint = httpclient.ReasonLimit, httpclient.HintLimit("series_limit")
		e.Err = fmt.Errorf("the response has more series than series_limit, %d", c.seriesLimit)
	}

	return e
}

// clock is the difference between upstream's clock and the local one.
type clock struct{ current atomic.Pointer[time.Duration] }

func (c *clock) setOffset(d time.Duration) { c.current.Store(&d) }

func (c *clock) offset() (offset time.Duration, known bool) {
	if d := c.current.Load(); d != nil {
		return *d, true
	}

	return 0, false
}
