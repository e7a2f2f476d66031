// SPDX-License-Identifier: Apache-2.0

// Package upstream asks a Prometheus-compatible query API.
package promapi

import (
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
)

// exact holds the parameters that make other backends answer whole and as of now. Prometheus
// ignores them.
var exact = url.Values{
	"partial_response":      {"false"}, // Thanos; its API's default is true.
	"deny_partial_response": {"1"},     // VictoriaMetrics cluster.
	"nocache":               {"1"},     // VictoriaMetrics: no answer as of 30 seconds ago.
}

// partial holds those that let them leave out what they can't reach.
var partial = url.Values{"partial_response": {"true"}, "deny_partial_response": {"0"}, "nocache": {"1"}}

// Client asks one upstream, which may be several servers of the same data. It is safe for
// concurrent use.
type Client struct {
	servers     *httpclient.Servers
	params      url.Values
	partial     bool
	seriesLimit int
	clock       clock
}

// New returns a client for cfg. The error says which credential or certificate can't be used.
func New(cfg config.Upstream) (*Client, error) {
	servers, err := httpclient.New("upstream", cfg.Server)
	if err != nil {
		return nil, err
	}
	params := maps.Clone(exact)
	if cfg.PartialResponse {
		params = maps.Clone(partial)
	}
	maps.Copy(params, cfg.Params)
	return &Client{servers: servers, params: params, partial: cfg.PartialResponse, seriesLimit: int(cfg.SeriesLimit)}, nil
}

// Serving returns the base URL of the server that answers, and all there are.
func (c *Client) Servers() (active string, all []string) {
	for _, u := range c.servers.URLs() {
		all = append(all, u.String())
	}
	return c.servers.Serving().String(), all
}

// Queued returns how many requests have waited because as many were under way as may be.
func (c *Client) Queued() uint64 { return c.servers.Queued() }

// Close closes the connections that are not in use.
func (c *Client) Close() { c.servers.Close() }

// Query evaluates expression at the given time, or at upstream's own now where that is zero. It
// returns the series and the time at which upstream evaluated them; where upstream chose that time,
// expression must yield at least one series. Errors are of type *httpclient.Error.
func (c *Client) Query(ctx context.Context, expression string, at time.Time) (promql.Vector, time.Time, error) {
	form := url.Values{"query": {expression}}
	if !at.IsZero() {
		form.Set("time", seconds(at))
	}
	var (
		sent   time.Time
		vector promql.Vector
	)
	err := c.ask(ctx, "/api/v1/query", form, func(body []byte, began time.Time) (err error) {
		sent = began
		vector, err = newDecoder(c.seriesLimit, c.partial).vector(body)
		if err == nil && at.IsZero() && len(vector) == 0 {
			return errors.New("it is empty, so it does not tell upstream's time")
		}
		return err
	})
	if err != nil {
		return nil, time.Time{}, err
	}
	if at.IsZero() {
		at = time.UnixMilli(vector[0].T)
		c.clock.observe(at.Sub(sent))
	}
	return vector, at, nil
}

// Series returns the label sets of the series that match any of matchers and had samples between
// start and end. Errors are of type *httpclient.Error.
func (c *Client) Series(ctx context.Context, matchers []string, start, end time.Time) ([]labels.Labels, error) {
	form := url.Values{"match[]": matchers, "start": {seconds(start)}, "end": {seconds(end)}}
	var series []labels.Labels
	err := c.ask(ctx, "/api/v1/series", form, func(body []byte, _ time.Time) (err error) {
		series, err = newDecoder(c.seriesLimit, c.partial).series(body)
		return err
	})
	return series, err
}

// Now is upstream's time as far as it is known: ours, corrected by the difference seen last. Known
// is false before upstream has told its time.
func (c *Client) Now() (now time.Time, known bool) {
	difference, known := c.clock.last()
	return time.Now().Add(difference), known
}

// seconds is a time as the API takes it, to the millisecond, which is as exact as it is.
func seconds(t time.Time) string {
	return strconv.FormatFloat(float64(t.UnixMilli())/1000, 'f', -1, 64)
}

// ask asks the servers, one after the other, until one answers with what read takes.
func (c *Client) ask(ctx context.Context, path string, form url.Values, read func(body []byte, sent time.Time) error) error {
	encoded := form.Encode()
	return c.servers.Try(ctx, func(ctx context.Context, server int) error {
		base := c.servers.URLs()[server]
		sent := time.Now()
		body, err := c.post(ctx, base.JoinPath(path), encoded)
		if err != nil {
			return err
		}
		if err := read(body, sent); err != nil {
			return c.answerError("answer of "+base.String(), err)
		}
		return nil
	})
}

// post sends a form by POST, as proxies refuse long URLs, and by GET to who does not take that.
func (c *Client) post(ctx context.Context, u *url.URL, form string) ([]byte, error) {
	params := maps.Clone(c.params)
	if deadline, ok := ctx.Deadline(); ok {
		// Upstream gives up a little before we do, so that its own words reach us.
		left := time.Until(deadline)
		params.Set("timeout", strconv.FormatFloat((left-left/20).Seconds(), 'f', 3, 64))
	}
	u.RawQuery = params.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), strings.NewReader(form))
	if err != nil {
		return nil, &httpclient.Error{Reason: httpclient.ReasonConnection, Request: "POST " + u.Host, Err: err}
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header["Idempotency-Key"] = nil       // So that it is sent again where a connection that was kept turns out to be dead.
	resp, body, err := c.servers.Do(ctx, req) //nolint:bodyclose // It is closed.
	if resp == nil || err == nil {
		return body, err
	}
	switch resp.StatusCode {
	case http.StatusForbidden, http.StatusMethodNotAllowed, http.StatusNotImplemented:
	default:
		return nil, err
	}
	u.RawQuery += "&" + form
	if req, err = http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil); err != nil {
		return nil, &httpclient.Error{Reason: httpclient.ReasonConnection, Request: "GET " + u.Host, Err: err}
	}
	_, body, err = c.servers.Do(ctx, req) //nolint:bodyclose // As above.
	return body, err
}

// answerError classifies a 2xx answer that is not what was asked for.
func (c *Client) answerError(request string, err error) *httpclient.Error {
	e := &httpclient.Error{Reason: httpclient.ReasonResponse, Request: request, Err: err, Hint: httpclient.HintURL}
	var said refused
	switch {
	case errors.As(err, &said):
		e.Reason, e.Hint = httpclient.ReasonQuery, ""
		if said.kind == "timeout" || said.kind == "canceled" {
			e.Reason, e.Hint = httpclient.ReasonTimeout, httpclient.HintTimeout
		}
	case errors.Is(err, errPartial):
		e.Hint = "see to the storage nodes behind it, or take such answers with partial_response: true"
	case errors.Is(err, errLimit):
		e.Reason, e.Err = httpclient.ReasonLimit, fmt.Errorf("it holds more series than series_limit, %d", c.seriesLimit)
		e.Hint = httpclient.HintLimit + "series_limit"
	}
	return e
}

// clock keeps the difference between upstream's clock and ours.
type clock struct{ difference atomic.Pointer[time.Duration] }

func (c *clock) observe(d time.Duration) { c.difference.Store(&d) }

func (c *clock) last() (time.Duration, bool) {
	if d := c.difference.Load(); d != nil {
		return *d, true
	}
	return 0, false
}
