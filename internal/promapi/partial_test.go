// SPDX-License-Identifier: Apache-2.0

package promapi_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/operator-store/operator_store_exporter/internal/httpclient"
	"github.com/operator-store/operator_store_exporter/internal/promapi"
	"github.com/operator-store/operator_store_exporter/internal/promqlexpr"
)

// The parts of a response that come after its data.
const (
	thanosWarning = "fetch series for {prometheus=\"b\"}: rpc error: code = Unavailable desc = connection error: " +
		"desc = \"dial tcp 10.0.0.1:10901: connect: connection refused\""
	remoteReadWarning = "remote_read: remote server http://b/api/v1/read returned http status 500 Internal Server Error"
	truncatedWarning  = "results truncated due to limit"
	thanosLimit       = "receive series from Addr: b: rpc error: code = ResourceExhausted desc = exceeded series limit"
)

// partialCases are the fields of a response that say whether it may lack series.
var partialCases = []struct {
	name     string
	fields   string // JSON.
	cause    string // Why it may lack series; "" if it is complete.
	tooLarge bool   // Whether a smaller query may succeed.
}{
	{name: "no warnings", fields: ""},
	{name: "null for warnings", fields: `"warnings":null`},
	{name: "empty list of warnings", fields: `"warnings":[]`},
	{
		name:   "annotation about the expression",
		fields: `"warnings":["PromQL warning: bucket label \"le\" is missing or has a malformed value of \"x\" (1:1)"]`,
	},
	{name: "informative annotation", fields: `"warnings":["PromQL info: metric might not be a counter (1:6)"]`},
	{name: "infos", fields: `"infos":["PromQL info: metric might not be a counter (1:6)"]`},
	{name: "infos without a prefix", fields: `"infos":["` + truncatedWarning + `"]`},
	{name: "marked complete", fields: `"isPartial":false`},
	{name: "Thanos", fields: fmt.Sprintf(`"warnings":[%q]`, thanosWarning), cause: thanosWarning},
	{name: "remote read", fields: fmt.Sprintf(`"warnings":[%q]`, remoteReadWarning), cause: remoteReadWarning},
	{name: "truncation", fields: fmt.Sprintf(`"warnings":[%q]`, truncatedWarning), cause: truncatedWarning},
	{name: "empty warning", fields: `"warnings":[""]`, cause: "the response may lack series"},
	{
		name:   "warning that mentions PromQL",
		fields: `"warnings":["no PromQL info"]`,
		cause:  "the response may lack series: no PromQL info",
	},
	{
		name:   "first of several warnings, after an annotation",
		fields: fmt.Sprintf(`"warnings":["PromQL info: x",%q,%q]`, truncatedWarning, remoteReadWarning),
		cause:  "the response may lack series: " + truncatedWarning,
	},
	{
		name:   "VictoriaMetrics",
		fields: `"isPartial":true`,
		cause:  "the response is marked isPartial: it lacks data",
	},
	{
		name:   "annotation of a response that is marked partial",
		fields: `"warnings":["PromQL info: x"],"isPartial":true`,
		cause:  "the response is marked isPartial: it lacks data",
	},
	{
		name:     "Thanos, limit of a store",
		fields:   fmt.Sprintf(`"warnings":[%q]`, thanosLimit),
		cause:    thanosLimit,
		tooLarge: true,
	},
}

// requests are the requests of a client, with responses that have one series.
var requests = []struct {
	name string
	data string // Of the response.
	send func(t *testing.T, c *promapi.Client) (series int, partial bool, err error)
}{
	{
		name: "query",
		data: `{"resultType":"vector","result":[{"metric":{"a":"b"},"value":[1.5,"2"]}]}`,
		send: func(t *testing.T, c *promapi.Client) (int, bool, error) {
			t.Helper()
			result, err := c.Query(t.Context(), "up", time.Unix(1, 0))

			return len(result.Vector), result.Partial, err
		},
	},
	{
		name: "samples",
		data: `{"resultType":"matrix","result":[{"metric":{"a":"b"},"values":[[1.5,"2"]]}]}`,
		send: func(t *testing.T, c *promapi.Client) (int, bool, error) {
			t.Helper()
			matrix, err := c.Samples(t.Context(), promqlexpr.MustParse("up"), time.Minute, time.Unix(1, 0))

			return len(matrix), false, err
		},
	},
	{
		name: "series",
		data: `[{"a":"b"}]`,
		send: func(t *testing.T, c *promapi.Client) (int, bool, error) {
			t.Helper()
			series, err := c.Series(t.Context(), []string{"up"}, time.Unix(1, 0), time.Unix(2, 0))

			return len(series), false, err
		},
	},
}

// successBody returns a response with the given data and fields, which may come in any order.
func successBody(data, fields string, fieldsFirst bool) string {
	parts := []string{`"status":"success"`, `"data":` + data}
	if fields != "" && fieldsFirst {
		parts = slices.Insert(parts, 0, fields)
	} else if fields != "" {
		parts = append(parts, fields)
	}

	return "{" + strings.Join(parts, ",") + "}"
}

// A response that may lack series fails, unless partial responses are accepted.
func TestPartialResponses(t *testing.T) {
	for _, r := range requests {
		for _, tc := range partialCases {
			t.Run(r.name+"/"+tc.name, func(t *testing.T) {
				for _, fieldsFirst := range []bool{false, true} {
					base := startServer(t, respond(200, successBody(r.data, tc.fields, fieldsFirst)))

					n, partial, err := r.send(t, newClient(t, "", base))
					if tc.cause == "" && (n != 1 || partial || err != nil) {
						t.Errorf("got %d series, partial: %v, error %v, want one series", n, partial, err)
					}
					if tc.cause != "" {
						requirePartial(t, err, tc.cause, tc.tooLarge)
					}

					n, partial, err = r.send(t, newClient(t, "partial_response: true", base))
					wantPartial := tc.cause != "" && r.name == "query"
					if n != 1 || partial != wantPartial || err != nil {
						t.Errorf("with partial_response: got %d series, partial: %v, error %v, want one, partial: %v",
							n, partial, err, wantPartial)
					}
				}
			})
		}
	}
}

func requirePartial(t *testing.T, err error, cause string, tooLarge bool) {
	t.Helper()

	hint := "or accept partial responses with partial_response: true"
	if tooLarge {
		hint = httpclient.HintTooLarge
	}
	requireError(t, err, httpclient.ReasonPartial, cause, hint)
	if got := httpclient.IsTooLarge(err); got != tooLarge {
		t.Errorf("the query is too large: %v, want %v: %v", got, tooLarge, err)
	}
}

// Fields about partial responses that are malformed are not taken for complete responses.
func TestMalformedWarnings(t *testing.T) {
	for _, tc := range []struct{ name, fields string }{
		{name: "warnings are a string", fields: `"warnings":"x"`},
		{name: "warnings are an object", fields: `"warnings":{"a":"x"}`},
		{name: "a warning is a number", fields: `"warnings":[1]`},
		{name: "a warning is null", fields: `"warnings":[null]`},
		{name: "a warning is a list", fields: `"warnings":["PromQL info: x",["y"]]`},
		{name: "isPartial is a string", fields: `"isPartial":"false"`},
		{name: "isPartial is null", fields: `"isPartial":null`},
	} {
		for _, config := range []string{"", "partial_response: true"} {
			t.Run(tc.name+" "+config, func(t *testing.T) {
				for _, r := range requests {
					base := startServer(t, respond(200, successBody(r.data, tc.fields, false)))
					_, _, err := r.send(t, newClient(t, config, base))
					requireError(t, err, httpclient.ReasonResponse, base)
				}
			})
		}
	}
}

// A warning may repeat what was sent, such as a header.
func TestWarningHidesSecrets(t *testing.T) {
	base := startServer(t, respond(200, successBody(requests[0].data, `"warnings":["key hunter2\n rejected"]`, false)))
	client := newClient(t, "http_headers: {X-Key: {secrets: [hunter2]}}", base)

	_, err := client.Query(t.Context(), "up", time.Unix(1, 0))

	requireError(t, err, httpclient.ReasonPartial, "key <secret> rejected")
}

// If one server returns a partial response, the next one may have all series.
func TestPartialResponseFailover(t *testing.T) {
	complete := requests[0].data
	partial := successBody(`{"resultType":"vector","result":[]}`, fmt.Sprintf(`"warnings":[%q]`, thanosWarning), false)
	first := startServer(t, respond(200, partial))
	second := startServer(t, respond(200, successBody(complete, "", false)))
	third := startServer(t, func(http.ResponseWriter, *http.Request) { t.Error("the third server got a request") })

	t.Run("the next server is complete", func(t *testing.T) {
		client := newClient(t, "", first, second, third)
		result, err := client.Query(t.Context(), "up", time.Unix(1, 0))
		if err != nil || len(result.Vector) != 1 || result.Partial {
			t.Errorf("got %+v with error %v, want the series of the second server", result, err)
		}
		if active, _ := client.Servers(); active != second {
			t.Errorf("the active server is %s, want the second one, %s", active, second)
		}
	})
	t.Run("all servers are partial", func(t *testing.T) {
		other := startServer(t, respond(200, partial))
		_, err := newClient(t, "", first, other).Query(t.Context(), "up", time.Unix(1, 0))
		requireError(t, err, httpclient.ReasonPartial, first, other)
	})
	t.Run("partial responses are accepted from the first server", func(t *testing.T) {
		client := newClient(t, "partial_response: true", first, third)
		result, err := client.Query(t.Context(), "up", time.Unix(1, 0))
		if err != nil || len(result.Vector) != 0 || !result.Partial {
			t.Errorf("got %+v with error %v, want a partial result without series", result, err)
		}
	})
}

// A result of an attempt that failed does not leak into that of the next server.
func TestPartialIsOfTheServerThatResponds(t *testing.T) {
	const twoSeries = `{"resultType":"vector","result":[{"metric":{"a":"b"},"value":[1.5,"2"]},null]}`
	broken := startServer(t, respond(500, successBody(twoSeries, `"isPartial":true`, true)))
	good := startServer(t, respond(200, successBody(requests[0].data, "", false)))

	result, err := newClient(t, "partial_response: true", broken, good).Query(t.Context(), "up", time.Unix(1, 0))
	if err != nil || len(result.Vector) != 1 || result.Partial {
		t.Errorf("got %+v with error %v, want the one series of the good server, complete", result, err)
	}
}
