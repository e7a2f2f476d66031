// SPDX-License-Identifier: Apache-2.0

package promapi_test

import (
	"math"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/promql"

	"github.com/operator-store/operator_store_exporter/internal/httpclient"
	"github.com/operator-store/operator_store_exporter/internal/promqlexpr"
)

func TestSamplesRequest(t *testing.T) {
	base, last := startRecorder(t)
	selector := promqlexpr.MustParse(`up{a="é"}`)

	_, err := newClient(t, "", base).Samples(t.Context(), selector, 90*time.Second, time.UnixMilli(1700000000123))
	requireError(t, err, httpclient.ReasonResponse, `the response is a "vector", want a matrix`)

	form := (*last).PostForm
	if got, want := form.Get("query"), `up{a="é"}[1m30s]`; got != want {
		t.Errorf("the query is %q, want %q", got, want)
	}
	if got, want := form.Get("time"), "1700000000.123"; got != want {
		t.Errorf("the time is %q, want %q", got, want)
	}
	if got, want := (*last).URL.Path, "/api/v1/query"; got != want || (*last).Method != http.MethodPost {
		t.Errorf("the request is %s %s, want POST %s", (*last).Method, got, want)
	}
}

func TestSamples(t *testing.T) {
	const body = `{"status":"success","data":{"resultType":"matrix","result":[
		{"metric":{"job":"j","instance":"a"},"values":[[1700000000.123,"1"],[1700000015.124,"0"],[1700000030,"NaN"]]},
		{"values":[[1.5,"+Inf"]],"metric":{}}]}}`

	got, err := newClient(t, "", startServer(t, respond(200, body))).
		Samples(t.Context(), promqlexpr.MustParse("up"), time.Minute, time.Unix(1, 0))
	if err != nil || len(got) != 2 {
		t.Fatalf("got %v with error %v, want two series", got, err)
	}

	if text := got[0].Metric.String(); text != `{instance="a", job="j"}` || !got[1].Metric.IsEmpty() {
		t.Errorf("the labels are %s and %s", got[0].Metric, got[1].Metric)
	}
	first := got[0].Floats
	want := []promql.FPoint{{T: 1700000000123, F: 1}, {T: 1700000015124, F: 0}}
	if len(first) != 3 || !slices.Equal(first[:2], want) || first[2].T != 1700000030000 || !math.IsNaN(first[2].F) {
		t.Errorf("the samples are %v, want %v and NaN at 1700000030000", first, want)
	}
	if want := []promql.FPoint{{T: 1500, F: math.Inf(1)}}; !slices.Equal(got[1].Floats, want) {
		t.Errorf("the samples are %v, want %v", got[1].Floats, want)
	}
}

func TestNoSamples(t *testing.T) {
	const body = `{"status":"success","data":{"result":[],"resultType":"matrix"}}`

	got, err := newClient(t, "", startServer(t, respond(200, body))).
		Samples(t.Context(), promqlexpr.MustParse("up"), time.Minute, time.Unix(1, 0))
	if err != nil || len(got) != 0 {
		t.Errorf("got %v with error %v, want no series", got, err)
	}
}

// Responses with status 200 that are not a matrix of numbers.
func TestMalformedSamples(t *testing.T) {
	matrix := func(series ...string) string {
		return `{"status":"success","data":{"resultType":"matrix","result":[` + strings.Join(series, ",") + `]}}`
	}
	const good = `{"metric":{"a":"b"},"values":[[1,"2"]]}`

	for _, tc := range []struct {
		name   string
		body   string
		reason httpclient.Reason
		want   string // Part of the error.
	}{
		{
			name:   "vector",
			body:   `{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1,"2"]}]}}`,
			reason: httpclient.ReasonResponse,
			want:   `the response is a "vector", want a matrix`,
		},
		{
			name:   "result without a type",
			body:   `{"status":"success","data":{"result":[` + good + `]}}`,
			reason: httpclient.ReasonResponse,
			want:   `the response is a "", want a matrix`,
		},
		{
			name:   "error with status 200",
			body:   `{"status":"error","errorType":"execution","error":"boom"}`,
			reason: httpclient.ReasonQuery,
			want:   "boom",
		},
		{
			name:   "no result",
			body:   `{"status":"success","data":{"resultType":"matrix"}}`,
			reason: httpclient.ReasonResponse,
		},
		{
			name:   "null for the result",
			body:   `{"status":"success","data":{"resultType":"matrix","result":null}}`,
			reason: httpclient.ReasonResponse,
		},
		{
			name:   "null for a series",
			body:   matrix(good, `null`),
			reason: httpclient.ReasonResponse,
			want:   "the response contains a series that is null",
		},
		{
			name:   "series without values",
			body:   matrix(good, `{"metric":{"a":"c"}}`),
			reason: httpclient.ReasonResponse,
			want:   `the response contains a series without values: {a="c"}`,
		},
		{
			name:   "series with an empty list of values",
			body:   matrix(`{"metric":{"a":"c"},"values":[]}`),
			reason: httpclient.ReasonResponse,
			want:   "the response contains a series without values",
		},
		{
			name:   "series of an instant vector",
			body:   matrix(`{"metric":{"a":"c"},"value":[1,"2"]}`),
			reason: httpclient.ReasonResponse,
			want:   "the response contains a series without values",
		},
		{
			name:   "native histograms",
			body:   matrix(`{"metric":{},"values":[[1,"2"]],"histograms":[[3,{"count":"1"}]]}`),
			reason: httpclient.ReasonResponse,
			want:   "the response contains native histograms, want numbers",
		},
		{
			name:   "null for the values",
			body:   matrix(`{"metric":{},"values":null}`),
			reason: httpclient.ReasonResponse,
		},
		{
			name:   "null for a value",
			body:   matrix(`{"metric":{},"values":[[1,"2"],null]}`),
			reason: httpclient.ReasonResponse,
		},
		{
			name:   "number that is not in a string",
			body:   matrix(`{"metric":{},"values":[[1,2]]}`),
			reason: httpclient.ReasonResponse,
		},
		{
			name:   "invalid number",
			body:   matrix(`{"metric":{},"values":[[1,"abc"]]}`),
			reason: httpclient.ReasonResponse,
			want:   "abc",
		},
		{
			name:   "time in a string",
			body:   matrix(`{"metric":{},"values":[["1","2"]]}`),
			reason: httpclient.ReasonResponse,
		},
		{
			name:   "value without a number",
			body:   matrix(`{"metric":{},"values":[[1,"2"],[3]]}`),
			reason: httpclient.ReasonResponse,
			want:   "a value has fewer than two elements, want a time and a number",
		},
		{
			name:   "value with a third element",
			body:   matrix(`{"metric":{},"values":[[1,"2","3"]]}`),
			reason: httpclient.ReasonResponse,
			want:   "a value has more than two elements, want a time and a number",
		},
		{
			name:   "label that is not a string",
			body:   matrix(`{"metric":{"a":1},"values":[[1,"2"]]}`),
			reason: httpclient.ReasonResponse,
		},
		{
			name:   "more series than series_limit",
			body:   matrix(good, good, good),
			reason: httpclient.ReasonLimit,
			want:   "the response has more series than series_limit, 2",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			base := startServer(t, respond(200, tc.body))
			_, err := newClient(t, "series_limit: 2", base).
				Samples(t.Context(), promqlexpr.MustParse("up"), time.Minute, time.Unix(1, 0))
			requireError(t, err, tc.reason, tc.want, base)
		})
	}
}

// A rejection for the size of a query is recognized even if its status is 200.
func TestTooLargeWithStatus200(t *testing.T) {
	base := startServer(t, respond(200, `{"status":"error","errorType":"execution",`+
		`"error":"the query hit the max number of series limit (limit: 5 series)"}`))
	_, err := newClient(t, "", base).Query(t.Context(), "up", time.Unix(1, 0))
	requireError(t, err, httpclient.ReasonQuery, httpclient.HintTooLarge)
	if !httpclient.IsTooLarge(err) {
		t.Errorf("the query is not too large: %v", err)
	}
}
