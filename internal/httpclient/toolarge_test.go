// SPDX-License-Identifier: Apache-2.0

package httpclient_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"testing"

	"github.com/operator-store/operator_store_exporter/internal/httpclient"
)

// apiError returns the body of a failed response of the query API.
func apiError(t *testing.T, kind, message string) string {
	t.Helper()
	body, err := json.Marshal(map[string]string{"status": "error", "errorType": kind, "error": message})
	if err != nil {
		t.Fatal(err)
	}

	return string(body)
}

// The wording of each engine that rejects a query for its size or cost, so that smaller queries may
// succeed.
func TestIsTooLarge(t *testing.T) {
	for _, tc := range []struct {
		name    string
		status  int
		message string
	}{
		{
			name:    "Prometheus, --query.max-samples",
			status:  422,
			message: "query processing would load too many samples into memory in query execution",
		},
		{
			name:   "Prometheus, --storage.remote.read-sample-limit of the remote server",
			status: 422,
			message: "expanding series: remote_read: remote server http://b/api/v1/read returned http " +
				"status 400 Bad Request: " +
				"exceeded sample limit (50000000)",
		},
		{
			name:   "Thanos, series of a sidecar",
			status: 422,
			message: "expanding series: proxy Series(): rpc error: code = Unknown desc = failed to send " +
				"series: limit 500 violated (got 501)",
		},
		{
			name:   "Thanos, samples of a sidecar",
			status: 422,
			message: "expanding series: rpc error: code = Unknown desc = failed to send samples: limit " +
				"12000 violated (got 12120)",
		},
		{
			name:   "Thanos, series of a store gateway",
			status: 422,
			message: "expanding series: rpc error: code = ResourceExhausted desc = fetch series for block 01H: " +
				"exceeded series limit: limit 10 violated (got 11)",
		},
		{
			name:    "Thanos, chunks of a store gateway",
			status:  422,
			message: "expanding series: rpc error: code = ResourceExhausted desc = exceeded chunks limit",
		},
		{
			name:    "Thanos, samples of a store gateway",
			status:  422,
			message: "expanding series: rpc error: code = ResourceExhausted desc = exceeded samples limit",
		},
		{
			name:   "Thanos, bytes of a store gateway",
			status: 422,
			message: "expanding series: rpc error: code = ResourceExhausted desc = expanded matching " +
				"posting: get postings: " +
				"bytes limit exceeded while fetching postings: limit 1 violated (got 2)",
		},
		{
			name:    "Cortex, max_fetched_series_per_query",
			status:  422,
			message: "expanding series: the query hit the max number of series limit (limit: 1200 series)",
		},
		{
			name:    "Cortex, max_fetched_chunks_per_query",
			status:  422,
			message: "expanding series: the query hit the max number of chunks limit (limit: 2000000 chunks)",
		},
		{
			name:    "Cortex, max_fetched_chunk_bytes_per_query",
			status:  422,
			message: "expanding series: the query hit the aggregated chunks size limit (limit: 1000 bytes)",
		},
		{
			name:    "Cortex, max_fetched_data_bytes_per_query",
			status:  422,
			message: "expanding series: the query hit the aggregated data size limit (limit: 1000 bytes)",
		},
		{
			name:    "Cortex, bytes of a store gateway",
			status:  422,
			message: "rpc error: code = Code(422) desc = exceeded bytes limit",
		},
		{
			name:   "Mimir, series",
			status: 422,
			message: "expanding series: the query exceeded the maximum number of series (limit: 3 series) " +
				"(err-mimir-max-series-per-query). To adjust the related per-tenant limit, configure " +
				"-querier.max-fetched-series-per-query, or contact your service administrator.",
		},
		{
			name:   "Mimir, chunks",
			status: 422,
			message: "the query exceeded the maximum number of chunks (limit: 3 chunks) " +
				"(err-mimir-max-chunks-per-query)",
		},
		{
			name:   "Mimir, bytes of chunks",
			status: 422,
			message: "the query exceeded the aggregated chunks size limit (limit: 3 bytes) " +
				"(err-mimir-max-chunks-bytes-per-query)",
		},
		{
			name:   "Mimir, estimated chunks",
			status: 422,
			message: "the query exceeded the maximum number of estimated chunks " +
				"(err-mimir-max-estimated-chunks-per-query)",
		},
		{
			name:   "Mimir, memory",
			status: 422,
			message: "the query exceeded the maximum allowed estimated amount of memory consumed by a single query " +
				"(limit: 11 bytes) (err-mimir-max-estimated-memory-consumption-per-query)",
		},
		{
			name:   "Mimir, length of the query",
			status: 400,
			message: "the raw query size in bytes exceeds the limit (query size: 10, limit: 20) " +
				"(err-mimir-max-query-expression-size-bytes)",
		},
		{
			name:   "VictoriaMetrics, -search.maxUniqueTimeseries",
			status: 422,
			message: `error when executing query="x": cannot find metric ids: the number of matching ` +
				`timeseries exceeds 300000; ` +
				"either narrow down the search or increase -search.max* command-line flag values at vmselect; " +
				"see https://docs.victoriametrics.com/#resource-usage-limits",
		},
		{
			name:   "VictoriaMetrics before v1.90, -search.maxUniqueTimeseries",
			status: 422,
			message: "the number of matching unique timeseries exceeds 300000; either narrow down the " +
				"search or increase " +
				"-search.maxUniqueTimeseries",
		},
		{
			name:   "VictoriaMetrics, -search.maxSamplesPerQuery",
			status: 422,
			message: "cannot select more than -search.maxSamplesPerQuery=1000000000 samples; possible " +
				"solutions: increase the " +
				"-search.maxSamplesPerQuery; reduce time range for the query; use more specific label filters",
		},
		{
			name:   "VictoriaMetrics, -search.maxMemoryPerQuery",
			status: 422,
			message: "not enough memory for processing x, which returns 6 data points across 3 time series " +
				"with 2 points in each " +
				"time series according to -search.maxMemoryPerQuery=1; requested memory: 96 bytes",
		},
		{
			name:   "VictoriaMetrics, memory of all queries",
			status: 422,
			message: "not enough memory for processing 6 data points across 3 time series with 2 points in " +
				"each time series; " +
				"total available memory for concurrent requests: 1 bytes; requested memory: 96 bytes",
		},
		{
			name:    "VictoriaMetrics, -search.maxQueryLen",
			status:  400,
			message: "too long query; got 20000 bytes; mustn't exceed `-search.maxQueryLen=16384` bytes",
		},
		{
			name:    "regular expression",
			status:  400,
			message: `invalid parameter "query": 1:4: parse error: error parsing regexp: expression too large: "a|b"`,
		},
		{
			name:    "request body",
			status:  400,
			message: "error parsing form values: http: request body too large",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			requireTooLarge(t, tc.status, apiError(t, "execution", tc.message), httpclient.ReasonQuery)
			requireTooLarge(t, tc.status, tc.message, httpclient.ReasonQuery) // In plain text.
		})
	}
}

// Statuses of proxies that say the same, whatever their bodies are.
func TestIsTooLargeByStatus(t *testing.T) {
	for _, tc := range []struct {
		name   string
		status int
		body   string
		reason httpclient.Reason
	}{
		{name: "413", status: 413, body: "<html>", reason: httpclient.ReasonHTTP},
		{name: "413 without a body", status: 413, reason: httpclient.ReasonHTTP},
		{name: "414", status: 414, body: "<html>", reason: httpclient.ReasonHTTP},
		{
			name: "413 of the query API", status: 413, body: apiError(t, "bad_data", "no"),
			reason: httpclient.ReasonQuery,
		},
	} {
		t.Run(tc.name, func(t *testing.T) { requireTooLarge(t, tc.status, tc.body, tc.reason) })
	}
}

// requireTooLarge requires that a response is a rejection of the size, with a hint.
func requireTooLarge(t *testing.T, status int, body string, reason httpclient.Reason) {
	t.Helper()

	err := requestError(t, status, body)
	if !httpclient.IsTooLarge(err) {
		t.Errorf("the query is not too large: %v", err)
	}
	if got := httpclient.ReasonOf(err); got != reason {
		t.Errorf("the reason is %q, want %q: %v", got, reason, err)
	}
	if got := httpclient.HintOf(err); got != httpclient.HintTooLarge {
		t.Errorf("the hint is %q, want %q", got, httpclient.HintTooLarge)
	}
}

// requestError returns the error of a request that gets the given response.
func requestError(t *testing.T, status int, body string) error {
	t.Helper()

	base := startServer(t, respond(status, body))
	_, err := get(t.Context(), t, newServers(t, "", base), base)
	if err == nil {
		t.Fatal("no error")
	}

	return err
}

// Errors that resemble those above. A smaller query would fail in the same way, and many of them
// would load an upstream that is overloaded already.
func TestIsNotTooLarge(t *testing.T) {
	for _, tc := range []struct {
		name    string
		status  int
		kind    string // If it is empty, the response is plain text.
		message string
		reason  httpclient.Reason
	}{
		{
			name: "timeout", status: 503, kind: "timeout",
			message: "query timed out in expression evaluation", reason: httpclient.ReasonTimeout,
		},
		{
			name: "deadline", status: 422, kind: "execution",
			message: "expanding series: context deadline exceeded", reason: httpclient.ReasonTimeout,
		},
		{
			name: "mistake in the expression", status: 400, kind: "bad_data",
			message: `invalid parameter "query": 1:5: parse error: unexpected end of ` +
				`input`, reason: httpclient.ReasonQuery,
		},
		{
			name: "mistake in a regular expression", status: 400, kind: "bad_data",
			message: "parse error: error parsing regexp: missing closing ): `(a`", reason: httpclient.ReasonQuery,
		},
		{
			name: "many-to-many matching", status: 422, kind: "execution",
			message: "found duplicate series for the match group {} on the right hand-side of the operation: " +
				"many-to-many matching not allowed: matching labels must be unique on one side",
			reason: httpclient.ReasonQuery,
		},
		{
			name: "limit of requests", status: 429, kind: "too_many_requests",
			message: "rate limit exceeded", reason: httpclient.ReasonHTTP,
		},
		{
			name: "Cortex, limit of requests", status: 429,
			message: "too many outstanding requests", reason: httpclient.ReasonHTTP,
		},
		{
			name: "Cortex, time range", status: 422, kind: "execution",
			message: "the query time range exceeds the limit (query length: 721h0m0s, limit: 720h0m0s)",
			reason:  httpclient.ReasonQuery,
		},
		{
			name: "Mimir, time range", status: 422, kind: "execution",
			message: "the total query time range exceeds the limit (query length: 1h0m0s, limit: 1m0s) " +
				"(err-mimir-max-total-query-length)",
			reason: httpclient.ReasonQuery,
		},
		{
			name: "Mimir, limit of requests", status: 429,
			message: "the request has been rejected because the tenant exceeded the request rate limit " +
				"(err-mimir-tenant-max-request-rate)",
			reason: httpclient.ReasonHTTP,
		},
		{
			name: "VictoriaMetrics, concurrent requests", status: 503, kind: "503",
			message: "couldn't start executing the request in 10.000 seconds, since " +
				"-search.maxConcurrentRequests=8 " +
				"concurrent requests are executed. Possible solutions: to reduce query load; to add more " +
				"compute resources " +
				"to the server; to increase -search.maxQueueDuration=10s; to increase " +
				"-search.maxQueryDuration=30s; " +
				"to increase -search.maxConcurrentRequests",
			reason: httpclient.ReasonHTTP,
		},
		{
			name: "VictoriaMetrics, duration", status: 503, kind: "503",
			message: "timeout exceeded during query execution: 30.000 seconds; the timeout can be adjusted with " +
				"`-search.maxQueryDuration` command-line flag",
			reason: httpclient.ReasonHTTP,
		},
		{
			name: "VictoriaMetrics, samples of one series", status: 422, kind: "422",
			message: "cannot process more than 30000000 samples per series; either increase " +
				"-search.maxSamplesPerSeries " +
				"or reduce time range for the query",
			reason: httpclient.ReasonQuery,
		},
		{
			name: "limit of a scrape", status: 422, kind: "execution",
			message: "sample limit exceeded", reason: httpclient.ReasonQuery,
		},
		{
			name: "broken server", status: 500, kind: "internal",
			message: "expanding series: open chunk: no space left on device", reason: httpclient.ReasonHTTP,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			body := tc.message
			if tc.kind != "" {
				body = apiError(t, tc.kind, tc.message)
			}

			err := requestError(t, tc.status, body)
			if httpclient.IsTooLarge(err) {
				t.Errorf("the query is too large: %v", err)
			}
			if got := httpclient.ReasonOf(err); got != tc.reason {
				t.Errorf("the reason is %q, want %q: %v", got, tc.reason, err)
			}
		})
	}
}

// IsTooLarge finds the rejection in errors that wrap it and in those of several servers.
func TestIsTooLargeInTree(t *testing.T) {
	tooLarge := &httpclient.Error{Reason: httpclient.ReasonQuery, Err: errors.New("too many series"), TooLarge: true}
	refused := &httpclient.Error{Reason: httpclient.ReasonConnection, Err: errors.New("refused")}

	for _, tc := range []struct {
		name string
		err  error
		want bool
	}{
		{name: "no error"},
		{name: "another type", err: errors.New("too large")},
		{name: "too large", err: tooLarge, want: true},
		{name: "another reason", err: refused},
		{name: "wrapped", err: fmt.Errorf("query: %w", tooLarge), want: true},
		{name: "after the failure of another server", err: failoverError(t, refused, tooLarge), want: true},
		{name: "joined", err: errors.Join(refused, tooLarge), want: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := httpclient.IsTooLarge(tc.err); got != tc.want {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
}

// A query that is too large is not sent to other servers, which have the same data, even if the
// status is that of a broken server.
func TestTooLargeDoesNotFailOver(t *testing.T) {
	large := startServer(t, respond(http.StatusInternalServerError, "exceeded series limit"))
	other := startServer(t, func(http.ResponseWriter, *http.Request) { t.Error("the other server got a request") })
	servers := newServers(t, "", large, other)

	err := servers.Failover(t.Context(), func(ctx context.Context, base *url.URL) error {
		_, err := get(ctx, t, servers, base.String())

		return err
	})
	if !httpclient.IsTooLarge(err) {
		t.Errorf("got the error %v, want that of the size", err)
	}
}
