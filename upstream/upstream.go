// SPDX-License-Identifier: Apache-2.0

// Package upstream asks a Prometheus-compatible query API.
package upstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unicode"

	"github.com/prometheus/client_golang/api"
	v1 "github.com/prometheus/client_golang/api/prometheus/v1"
	commonconfig "github.com/prometheus/common/config"
	"github.com/prometheus/common/model"
	"github.com/prometheus/common/version"

	"github.com/operator-store/operator_store_exporter/config"
)

// maxBody bounds one response body, in bytes: 5,000 series of each of 300 stores fit many times.
const maxBody = 256 << 20

// exact holds the parameters that make other backends answer whole and as of now. Prometheus
// ignores them.
var exact = url.Values{
	"partial_response":      {"false"}, // Thanos; its API's default is true.
	"deny_partial_response": {"1"},     // VictoriaMetrics cluster.
	"nocache":               {"1"},     // VictoriaMetrics: no answer as of 30 seconds ago.
}

// Client asks one upstream, which may be several servers of the same data. It is safe for
// concurrent use.
type Client struct {
	http    *http.Client
	timeout time.Duration
	servers []server
	serving atomic.Int32 // The server that last worked is asked first.
	clock   clock
}

// New returns a client for cfg. The error says which credential or certificate can't be used.
func New(cfg config.Upstream) (*Client, error) {
	httpClient, err := commonconfig.NewClientFromConfig(cfg.HTTPClient, "upstream",
		commonconfig.WithUserAgent("operator_store_exporter/"+version.Version))
	if err != nil {
		return nil, fmt.Errorf("set up the HTTP client of upstream %s: %w", cfg.URL[0], err)
	}
	params := maps.Clone(exact)
	maps.Copy(params, cfg.Params)
	c := &Client{http: httpClient, timeout: time.Duration(cfg.Timeout)}
	for _, u := range cfg.URL {
		c.servers = append(c.servers, server{v1.NewAPI(&transport{http: httpClient, base: u, params: params}), u})
	}
	return c, nil
}

// Close closes the connections that are not in use.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Query evaluates expression at the given time, or at upstream's own now where that is zero. It
// returns the series and the time at which upstream evaluated them; where upstream chose that time,
// expression must yield at least one series. Errors are of type *Error.
func (c *Client) Query(ctx context.Context, expression string, at time.Time) (model.Vector, time.Time, error) {
	sent := time.Now()
	var vector model.Vector
	err := c.ask(ctx, func(ctx context.Context, server v1.API) error {
		value, _, _, err := server.Query(ctx, expression, at)
		if err != nil {
			return err
		}
		var ok bool
		if vector, ok = value.(model.Vector); !ok {
			return fmt.Errorf("the answer is a %s where a vector is wanted", typeOf(value))
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

// Series returns the label sets of the series that match any of matchers and had samples between
// start and end. Errors are of type *Error.
func (c *Client) Series(ctx context.Context, matchers []string, start, end time.Time) ([]model.LabelSet, error) {
	var series []model.LabelSet
	err := c.ask(ctx, func(ctx context.Context, server v1.API) (err error) {
		series, _, _, err = server.Series(ctx, matchers, start, end)
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

// ask runs request against one server after the other until one answers, within ctx and the
// configured timeout, of which each server gets its share.
func (c *Client) ask(ctx context.Context, request func(context.Context, v1.API) error) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	deadline, _ := ctx.Deadline()
	first := int(c.serving.Load())
	var failed failures
	for i := range c.servers {
		n := (first + i) % len(c.servers)
		share := time.Until(deadline) / time.Duration(len(c.servers)-i)
		err := func() error {
			ctx, cancel := context.WithTimeout(ctx, share)
			defer cancel()
			return request(ctx, c.servers[n].api)
		}()
		if err == nil {
			c.serving.Store(int32(n)) //nolint:gosec // Nobody lists two billion servers.
			return nil
		}
		var failure *Error
		if !errors.As(err, &failure) {
			failure = bodyError("answer of "+c.servers[n].base.String(), err)
		}
		failed = append(failed, failure)
		if !failure.failover() || ctx.Err() != nil {
			break
		}
	}
	return failed
}

func typeOf(v model.Value) string {
	if v == nil {
		return "void"
	}
	return v.Type().String()
}

// server is one of the servers of an upstream.
type server struct {
	api  v1.API
	base *url.URL
}

// transport carries the requests of the query API's client to one server. It adds the parameters
// and bounds the body.
type transport struct {
	http   *http.Client
	base   *url.URL
	params url.Values
}

var _ api.Client = (*transport)(nil)

// URL implements api.Client.
func (t *transport) URL(endpoint string, _ map[string]string) *url.URL {
	u := *t.base
	u.Path = strings.TrimRight(u.Path, "/") + endpoint
	return &u
}

// Do implements api.Client. Any answer but a 2xx becomes an *Error.
func (t *transport) Do(ctx context.Context, req *http.Request) (*http.Response, []byte, error) {
	query := req.URL.Query()
	req.URL.RawQuery = ""
	request := req.Method + " " + req.URL.String()
	maps.Copy(query, t.params)
	if deadline, ok := ctx.Deadline(); ok {
		// Upstream gives up a little before we do, so that its own words reach us.
		left := time.Until(deadline)
		query.Set("timeout", strconv.FormatFloat((left-left/20).Seconds(), 'f', 3, 64))
	}
	req.URL.RawQuery = query.Encode()

	resp, err := t.http.Do(req.WithContext(ctx))
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

// refusal is what the body of an answer that is not 2xx says: the API's error, or its first words.
func refusal(body []byte) (v1.ErrorType, string) {
	var answer struct {
		ErrorType v1.ErrorType `json:"errorType"`
		Error     string       `json:"error"`
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

// clock keeps the difference between upstream's clock and ours.
type clock struct{ difference atomic.Pointer[time.Duration] }

func (c *clock) observe(d time.Duration) { c.difference.Store(&d) }

func (c *clock) last() (time.Duration, bool) {
	if d := c.difference.Load(); d != nil {
		return *d, true
	}
	return 0, false
}
