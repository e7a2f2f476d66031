// SPDX-License-Identifier: Apache-2.0

// Package upstream asks a Prometheus-compatible query API.
package upstream

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/api"
	v1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"

	"github.com/operator-store/operator_store_exporter/config"
	"github.com/operator-store/operator_store_exporter/transport"
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
	servers     *transport.Servers
	apis        []v1.API // In the order of the servers' URLs.
	seriesLimit int
	clock       clock
}

// New returns a client for cfg. The error says which credential or certificate can't be used.
func New(cfg config.Upstream) (*Client, error) {
	servers, err := transport.New("upstream", cfg.Server)
	if err != nil {
		return nil, err
	}
	params := maps.Clone(exact)
	if cfg.PartialResponse {
		params = maps.Clone(partial)
	}
	maps.Copy(params, cfg.Params)
	c := &Client{servers: servers, seriesLimit: int(cfg.SeriesLimit)}
	for _, u := range servers.URLs() {
		c.apis = append(c.apis, v1.NewAPI(&requester{servers, u, params, cfg.PartialResponse}))
	}
	return c, nil
}

// Serving returns the base URL of the server that answers, and all there are.
func (c *Client) Serving() (serving string, all []string) {
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
// expression must yield at least one series. Errors are of type *transport.Error.
func (c *Client) Query(ctx context.Context, expression string, at time.Time) (model.Vector, time.Time, error) {
	var (
		sent   time.Time
		vector model.Vector
	)
	err := c.ask(ctx, func(ctx context.Context, server v1.API) error {
		sent = time.Now()
		value, _, _, err := server.Query(ctx, expression, at)
		if err != nil {
			return err
		}
		var ok bool
		if vector, ok = value.(model.Vector); !ok {
			return fmt.Errorf("the answer is a %s where a vector is wanted", typeOf(value))
		}
		if err := c.check(vector); err != nil {
			return err
		}
		if at.IsZero() && len(vector) == 0 {
			return errors.New("the answer is empty, so it does not tell upstream's time")
		}
		return nil
	})
	if err != nil {
		return nil, time.Time{}, err
	}
	if at.IsZero() {
		at = vector[0].Timestamp.Time()
		c.clock.observe(at.Sub(sent))
	}
	return vector, at, nil
}

// check refuses what is no float sample a series, as the zero that it decodes to would be taken for a number.
func (c *Client) check(vector model.Vector) error {
	if len(vector) > c.seriesLimit {
		return c.tooMany(len(vector))
	}
	for _, s := range vector {
		switch {
		case s == nil:
			return errors.New("the answer holds a series that is null")
		case s.Histogram != nil:
			return fmt.Errorf("the answer holds a native histogram where a number is wanted: %s", s.Metric)
		case s.Timestamp == 0:
			return fmt.Errorf("the answer holds a series without a sample: %s", s.Metric)
		}
	}
	return nil
}

func (c *Client) tooMany(series int) error {
	return &transport.Error{
		Reason: transport.ReasonLimit, Request: "answer of " + c.servers.Serving().String(),
		Err:    fmt.Errorf("it holds %d series, over series_limit of %d", series, c.seriesLimit),
		Remedy: transport.RemedyLimit + "series_limit",
	}
}

// Series returns the label sets of the series that match any of matchers and had samples between
// start and end. Errors are of type *transport.Error.
func (c *Client) Series(ctx context.Context, matchers []string, start, end time.Time) ([]model.LabelSet, error) {
	var series []model.LabelSet
	err := c.ask(ctx, func(ctx context.Context, server v1.API) (err error) {
		if series, _, _, err = server.Series(ctx, matchers, start, end); err == nil && len(series) > c.seriesLimit {
			return c.tooMany(len(series))
		}
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

func (c *Client) ask(ctx context.Context, request func(context.Context, v1.API) error) error {
	return c.servers.Try(ctx, func(ctx context.Context, server int) error {
		err := request(ctx, c.apis[server])
		var e *transport.Error
		if err == nil || errors.As(err, &e) {
			return err
		}
		return bodyError("answer of "+c.servers.URLs()[server].String(), err)
	})
}

// bodyError classifies a 2xx answer whose body is not what was asked for.
func bodyError(request string, err error) *transport.Error {
	var said *v1.Error
	if errors.As(err, &said) {
		switch said.Type {
		case v1.ErrTimeout, v1.ErrCanceled:
			return &transport.Error{Reason: transport.ReasonTimeout, Request: request, Err: err, Remedy: transport.RemedyTimeout}
		case v1.ErrBadData, v1.ErrExec:
			return &transport.Error{Reason: transport.ReasonQuery, Request: request, Err: err, Remedy: ""}
		}
	}
	return &transport.Error{Reason: transport.ReasonResponse, Request: request, Err: err, Remedy: transport.RemedyURL}
}

func typeOf(v model.Value) string {
	if v == nil {
		return "void"
	}
	return v.Type().String()
}

// requester carries the requests of the query API's client to one server, with our parameters.
type requester struct {
	servers *transport.Servers
	base    *url.URL
	params  url.Values

	partialResponse bool
}

var _ api.Client = (*requester)(nil)

// URL implements api.Client.
func (r *requester) URL(endpoint string, _ map[string]string) *url.URL {
	return r.base.JoinPath(endpoint)
}

// Do implements api.Client. Any answer but a 2xx becomes an error.
func (r *requester) Do(ctx context.Context, req *http.Request) (*http.Response, []byte, error) {
	query := req.URL.Query()
	maps.Copy(query, r.params)
	if deadline, ok := ctx.Deadline(); ok {
		// Upstream gives up a little before we do, so that its own words reach us.
		left := time.Until(deadline)
		query.Set("timeout", strconv.FormatFloat((left-left/20).Seconds(), 'f', 3, 64))
	}
	req.URL.RawQuery = query.Encode()
	resp, body, err := r.servers.Do(ctx, req)
	if err != nil {
		return resp, nil, err
	}
	if err := r.check(body); err != nil {
		return resp, nil, err
	}
	return resp, body, nil
}

// check refuses an answer that the query API's client would take for another one: one that says isPartial, as
// VictoriaMetrics does where it could not reach all of its storage, and one with a null for a number, which would
// be 0.
func (r *requester) check(body []byte) error {
	if !bytes.Contains(body, []byte("isPartial")) && !bytes.Contains(body, []byte("null")) {
		return nil // It need not be parsed twice.
	}
	var answer struct {
		IsPartial bool `json:"isPartial"`
		Data      struct {
			Result []struct {
				Value []*json.RawMessage `json:"value"`
			} `json:"result"`
		} `json:"data"`
	}
	if json.Unmarshal(body, &answer) != nil {
		return nil // It is no vector, which is found out elsewhere.
	}
	if answer.IsPartial && !r.partialResponse {
		return &transport.Error{
			Reason: transport.ReasonResponse, Request: "answer of " + r.base.String(), Err: errors.New("it says isPartial: data is missing from it"),
			Remedy: "see to the storage nodes behind it, or take such answers with partial_response: true",
		}
	}
	for _, s := range answer.Data.Result {
		if slices.Contains(s.Value, nil) {
			return &transport.Error{Reason: transport.ReasonResponse, Request: "answer of " + r.base.String(), Err: errors.New("a value in it is null"), Remedy: transport.RemedyURL}
		}
	}
	return nil
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
