// SPDX-License-Identifier: Apache-2.0

package promapi_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/operator-store/operator_store_exporter/internal/httpclient"
	"github.com/operator-store/operator_store_exporter/internal/promapi"
)

// startRecorder starts a server that responds with an empty vector, and returns its URL and the
// last request to it.
func startRecorder(t *testing.T) (url string, last **http.Request) {
	t.Helper()

	last = new(*http.Request)
	url = startServer(t, func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm() // If it fails, the form is wrong.
		*last = r
		fmt.Fprint(w, emptyVector)
	})

	return url, last
}

func TestQueryRequest(t *testing.T) {
	base, last := startRecorder(t)
	client := newClient(t, `
params: {dedup: ["true"], nocache: ["0"]}
basic_auth: {username: u, password: p}
http_headers: {X-Scope-OrgID: {values: [tenant]}}`, base+"/prefix/")
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
	defer cancel()

	result, err := client.Query(ctx, `up{a="é"}`, time.UnixMilli(1700000000123))
	if err != nil || result.EvaluatedAt.UnixMilli() != 1700000000123 {
		t.Fatalf("evaluated at %s with error %v", result.EvaluatedAt, err)
	}

	got := *last
	user, password, _ := got.BasicAuth()
	for _, tc := range []struct{ name, got, want string }{
		{name: "method", got: got.Method, want: "POST"},
		{name: "path", got: got.URL.Path, want: "/prefix/api/v1/query"},
		{name: "query", got: got.PostForm.Get("query"), want: `up{a="é"}`},
		{name: "time", got: got.PostForm.Get("time"), want: "1700000000.123"},
		{name: "parameter of Thanos", got: got.Form.Get("partial_response"), want: "false"},
		{name: "parameter of VictoriaMetrics", got: got.Form.Get("deny_partial_response"), want: "1"},
		{name: "custom parameter", got: got.Form.Get("dedup"), want: "true"},
		{name: "overridden parameter", got: got.Form.Get("nocache"), want: "0"},
		{name: "credentials", got: user + ":" + password, want: "u:p"},
		{name: "tenant", got: got.Header.Get("X-Scope-OrgID"), want: "tenant"},
		{name: "user agent", got: got.UserAgent()[:24], want: "operator_store_exporter/"},
		{name: "idempotency key", got: got.Header.Get("Idempotency-Key"), want: ""},
	} {
		if tc.got != tc.want {
			t.Errorf("%s is %q, want %q", tc.name, tc.got, tc.want)
		}
	}

	timeout, err := strconv.ParseFloat(got.Form.Get("timeout"), 64)
	if err != nil || timeout <= 3 || timeout >= 4 {
		t.Errorf("timeout is %q, want slightly less than 4", got.Form.Get("timeout"))
	}
}

func TestParamsOfOtherBackends(t *testing.T) {
	for _, tc := range []struct {
		name   string
		config string
		want   map[string]string
	}{
		{
			name: "complete responses",
			want: map[string]string{"partial_response": "false", "deny_partial_response": "1", "nocache": "1"},
		},
		{
			name:   "partial responses",
			config: "partial_response: true",
			want:   map[string]string{"partial_response": "true", "deny_partial_response": "0", "nocache": "1"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			base, last := startRecorder(t)

			if _, err := newClient(t, tc.config, base).Query(t.Context(), "up", time.Unix(1, 0)); err != nil {
				t.Fatal(err)
			}

			for param, want := range tc.want {
				if got := (*last).Form.Get(param); got != want {
					t.Errorf("%s is %q, want %q", param, got, want)
				}
			}
		})
	}
}

func TestSeriesRequest(t *testing.T) {
	base, last := startRecorder(t)

	_, err := newClient(t, "", base).Series(t.Context(), []string{"a", "b"}, time.Unix(1, 0), time.Unix(2, 0))
	if err == nil {
		t.Error("a vector is accepted as a list of series")
	}

	form := (*last).PostForm
	if !slices.Equal(form["match[]"], []string{"a", "b"}) || form.Get("start") != "1" || form.Get("end") != "2" {
		t.Errorf("form is %v", form)
	}
}

// Servers and proxies that do not accept POST get the same request by GET.
func TestFallbackToGET(t *testing.T) {
	for _, tc := range []struct {
		status   int // Of the response to POST.
		fallback bool
	}{
		{status: http.StatusForbidden, fallback: true},
		{status: http.StatusMethodNotAllowed, fallback: true},
		{status: http.StatusNotImplemented, fallback: true},
		{status: http.StatusUnauthorized},
		{status: http.StatusNotFound},
		{status: http.StatusInternalServerError},
	} {
		t.Run(strconv.Itoa(tc.status), func(t *testing.T) {
			var query, timeout string
			base := startServer(t, func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodPost {
					respond(tc.status, "no POST")(w, r)
					return
				}
				query, timeout = r.URL.Query().Get("query"), r.URL.Query().Get("timeout")
				fmt.Fprint(w, emptyVector)
			})

			_, err := newClient(t, "", base).Query(t.Context(), `up{a="&é"}`, time.Unix(1, 0))

			if tc.fallback && (err != nil || query != `up{a="&é"}` || timeout == "") {
				t.Errorf("GET has query %q, timeout %q and error %v", query, timeout, err)
			}
			if !tc.fallback && (err == nil || query != "") {
				t.Errorf("error is %v after GET with query %q, want no GET", err, query)
			}
		})
	}
}

func TestErrors(t *testing.T) {
	hang := func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // The server notices a closed connection only after that.
		<-r.Context().Done()
	}
	redirect := func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://u:hunter2@elsewhere/x?token=hunter2", http.StatusFound)
	}

	for _, tc := range []struct {
		name    string
		handler http.HandlerFunc // nil: connections are refused.
		reason  httpclient.Reason
		want    []string // Parts of the error.
	}{
		{
			name:   "connection refused",
			reason: httpclient.ReasonConnection,
			want:   []string{"connection refused", "is it running"},
		},
		{
			name:    "connection closed",
			handler: func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
			reason:  httpclient.ReasonConnection,
			want:    []string{"EOF"},
		},
		{
			name:    "no response",
			handler: hang,
			reason:  httpclient.ReasonTimeout,
			want:    []string{"no response in time", "raise the scrape timeout"},
		},
		{
			name: "timeout of upstream",
			handler: respond(503,
				`{"status":"error","errorType":"timeout","error":"query timed out in expression evaluation"}`,
			),
			reason: httpclient.ReasonTimeout,
			want:   []string{"503", "timed out in expression"},
		},
		{
			name: "expired while waiting for its turn",
			handler: respond(400, `{"status":"error","errorType":"bad_data",`+
				`"error":"invalid parameter \"query\": context deadline exceeded"}`),
			reason: httpclient.ReasonTimeout,
			want:   []string{"400"},
		},
		{
			name:    "canceled",
			handler: respond(499, `{"status":"error","errorType":"canceled","error":"query was canceled"}`),
			reason:  httpclient.ReasonTimeout,
		},
		{
			name:    "invalid expression",
			handler: respond(400, `{"status":"error","errorType":"bad_data","error":"1:3: parse error"}`),
			reason:  httpclient.ReasonQuery,
			want:    []string{"400 Bad Request", "parse error"},
		},
		{
			name:    "too many samples",
			handler: respond(422, `{"status":"error","errorType":"execution","error":"too many samples"}`),
			reason:  httpclient.ReasonQuery,
			want:    []string{"422", "too many samples"},
		},
		{
			name:    "no credentials",
			handler: respond(401, "no"),
			reason:  httpclient.ReasonHTTP,
			want:    []string{"401 Unauthorized", "check basic_auth"},
		},
		{
			name:    "wrong credentials",
			handler: respond(403, "no"),
			reason:  httpclient.ReasonHTTP,
			want:    []string{"403 Forbidden", "check basic_auth"},
		},
		{
			name:    "wrong path",
			handler: respond(404, "404 page not found"),
			reason:  httpclient.ReasonHTTP,
			want:    []string{"404 Not Found", "path prefix"},
		},
		{
			name:    "too many requests",
			handler: respond(429, ""),
			reason:  httpclient.ReasonHTTP,
			want:    []string{"429 Too Many Requests", "scrape less often"},
		},
		{
			name:    "broken server",
			handler: respond(500, "<html>\n<h1>oops</h1>\x00"),
			reason:  httpclient.ReasonHTTP,
			want:    []string{"500 Internal Server Error: <html> <h1>oops</h1>"},
		},
		{
			name:    "400 of another program",
			handler: respond(400, "<html>"),
			reason:  httpclient.ReasonHTTP,
			want:    []string{"400 Bad Request"},
		},
		{
			name:    "redirect",
			handler: redirect,
			reason:  httpclient.ReasonHTTP,
			want:    []string{"302 Found: redirect to http://elsewhere/x", "redirects are not followed"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			base := closedServer(t)
			if tc.handler != nil {
				base = startServer(t, tc.handler)
			}

			requireQueryError(t, base, tc.reason, tc.want)
		})
	}
}

// Responses with status 200 that are not what was requested.
func TestRejectedResponses(t *testing.T) {
	vector := func(series string) http.HandlerFunc {
		return respond(200, `{"status":"success","data":{"resultType":"vector","result":[`+series+`]}}`)
	}

	for _, tc := range []struct {
		name    string
		handler http.HandlerFunc
		reason  httpclient.Reason
		want    []string // Parts of the error.
	}{
		{
			name:    "web page",
			handler: respond(200, "<html>log in</html>"),
			reason:  httpclient.ReasonResponse,
			want:    []string{"check its host, port and path prefix"},
		},
		{
			name:    "truncated JSON",
			handler: respond(200, emptyVector[:40]),
			reason:  httpclient.ReasonResponse,
		},
		{
			name:    "error with status 200",
			handler: respond(200, `{"status":"error","errorType":"execution","error":"boom"}`),
			reason:  httpclient.ReasonQuery,
			want:    []string{"boom"},
		},
		{
			name:    "error with status 200 and an echoed secret",
			handler: respond(200, `{"status":"error","errorType":"execution","error":"key hunter2\n rejected"}`),
			reason:  httpclient.ReasonQuery,
			want:    []string{"key <secret> rejected"},
		},
		{
			name:    "error without a message",
			handler: respond(200, `{"status":"error"}`),
			reason:  httpclient.ReasonQuery,
			want:    []string{"the response is an error without a message"},
		},
		{
			name:    "timeout with status 200",
			handler: respond(200, `{"status":"error","errorType":"timeout","error":"too slow"}`),
			reason:  httpclient.ReasonTimeout,
			want:    []string{"too slow", "raise the scrape timeout"},
		},
		{
			name:    "canceled with status 200",
			handler: respond(200, `{"status":"error","errorType":"canceled","error":"query was canceled"}`),
			reason:  httpclient.ReasonTimeout,
			want:    []string{"query was canceled"},
		},
		{
			name:    "unknown status",
			handler: respond(200, `{"status":"ok","data":{"resultType":"vector","result":[]}}`),
			reason:  httpclient.ReasonResponse,
			want:    []string{`the status of the response is "ok", want "success"`},
		},
		{
			name:    "scalar",
			handler: respond(200, `{"status":"success","data":{"resultType":"scalar","result":[1700000000,"1"]}}`),
			reason:  httpclient.ReasonResponse,
			want:    []string{`the response is a "scalar", want a vector`},
		},
		{
			name:    "matrix",
			handler: respond(200, `{"status":"success","data":{"resultType":"matrix","result":[]}}`),
			reason:  httpclient.ReasonResponse,
			want:    []string{`the response is a "matrix", want a vector`},
		},
		{
			name:    "string",
			handler: respond(200, `{"status":"success","data":{"resultType":"string","result":[1700000000,"x"]}}`),
			reason:  httpclient.ReasonResponse,
			want:    []string{`the response is a "string", want a vector`},
		},
		{
			name:    "no data",
			handler: respond(200, `{"status":"success"}`),
			reason:  httpclient.ReasonResponse,
			want:    []string{"the response has no data"},
		},
		{
			name:    "data is null",
			handler: respond(200, `{"status":"success","data":null}`),
			reason:  httpclient.ReasonResponse,
			want:    []string{"the response has no data"},
		},
		{
			name:    "empty body",
			handler: respond(200, ""),
			reason:  httpclient.ReasonResponse,
		},
		{
			name: "partial response",
			handler: respond(200,
				`{"status":"success","isPartial":true,"data":{"resultType":"vector","result":[]}}`,
			),
			reason: httpclient.ReasonPartial,
			want:   []string{"the response is marked isPartial", "partial_response: true"},
		},
		{
			name:    "null for a series",
			handler: vector(`null`),
			reason:  httpclient.ReasonResponse,
			want:    []string{"the response contains a series that is null"},
		},
		{
			name:    "series without a value",
			handler: vector(`{"metric":{"a":"b"}}`),
			reason:  httpclient.ReasonResponse,
			want:    []string{`the response contains a series without a value: {a="b"}`},
		},
		{
			name:    "native histogram",
			handler: vector(`{"metric":{},"histogram":[1,{}]}`),
			reason:  httpclient.ReasonResponse,
			want:    []string{"the response contains a native histogram, want a number"},
		},
		{
			name:    "null for a number",
			handler: vector(`{"metric":{},"value":[1,null]}`),
			reason:  httpclient.ReasonResponse,
		},
		{
			name:    "number that is not in a string",
			handler: vector(`{"metric":{},"value":[1,2]}`),
			reason:  httpclient.ReasonResponse,
		},
		{
			name:    "invalid number",
			handler: vector(`{"metric":{},"value":[1,"abc"]}`),
			reason:  httpclient.ReasonResponse,
			want:    []string{"abc"},
		},
		{
			name:    "value without a number",
			handler: vector(`{"metric":{},"value":[1]}`),
			reason:  httpclient.ReasonResponse,
			want:    []string{"a value has fewer than two elements, want a time and a number"},
		},
		{
			name:    "value with a third element",
			handler: vector(`{"metric":{},"value":[1,"2",3]}`),
			reason:  httpclient.ReasonResponse,
			want:    []string{"a value has more than two elements, want a time and a number"},
		},
		{
			name:    "label that is not a string",
			handler: vector(`{"metric":{"a":1},"value":[1,"2"]}`),
			reason:  httpclient.ReasonResponse,
		},
		{
			name:    "more series than series_limit",
			handler: vector(strings.Repeat(`{"metric":{},"value":[1,"2"]},`, 3) + `{"metric":{},"value":[1,"2"]}`),
			reason:  httpclient.ReasonLimit,
			want:    []string{"the response has more series than series_limit, 3", "raise series_limit"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			requireQueryError(t, startServer(t, tc.handler), tc.reason, tc.want)
		})
	}
}

// requireQueryError requires that a query of the server at base fails with one line that has the
// given reason and contains each of want, but not the secret of the configuration.
func requireQueryError(t *testing.T, base string, reason httpclient.Reason, want []string) {
	t.Helper()

	client := newClient(t, `
timeout: 1s
series_limit: 3
http_headers: {X-Key: {secrets: [hunter2]}}`, base)

	_, err := client.Query(t.Context(), "up", time.Unix(1, 0))

	requireError(t, err, reason, append(want, base)...)
	if strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "\n") {
		t.Errorf("error contains a secret or several lines: %q", err)
	}
}

// requireError requires an *httpclient.Error that has the given reason and contains each of want.
func requireError(t *testing.T, err error, reason httpclient.Reason, want ...string) {
	t.Helper()

	if err == nil {
		t.Fatal("no error")
	}
	if _, ok := httpclient.AsError(err); !ok {
		t.Errorf("error is a %T", err)
	}
	if got := httpclient.ReasonOf(err); got != reason {
		t.Errorf("reason is %q, want %q: %v", got, reason, err)
	}

	for _, text := range want {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("error is %q, want %q in it", err, text)
		}
	}
}

func TestAcceptedResponses(t *testing.T) {
	const vector = `"data":{"resultType":"vector","result":[{"metric":{"a":"b"},"value":[1.5,"2"]}]}}`
	for _, tc := range []struct {
		name   string
		config string
		body   string
	}{
		{name: "success", body: `{"status":"success",` + vector},
		{name: "warnings", body: `{"status":"success","warnings":["PromQL info: x"],` + vector},
		{name: "not partial", body: `{"status":"success","isPartial":false,` + vector},
		{name: "partial", config: "partial_response: true", body: `{"status":"success","isPartial":true,` + vector},
		{
			name: "result before its type",
			body: `{"data":{"result":[{"value":[1.5,"2"],"metric":{"a":"b"}}],"resultType":"vector"},` +
				`"status":"success"}`,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			client := newClient(t, tc.config, startServer(t, respond(200, tc.body)))

			result, err := client.Query(t.Context(), "up", time.Unix(1, 0))

			got := result.Vector
			if err != nil || len(got) != 1 || got[0].Metric.String() != `{a="b"}` || got[0].T != 1500 || got[0].F != 2 {
				t.Errorf("got %v with error %v", got, err)
			}
		})
	}
}

func TestSeries(t *testing.T) {
	for _, tc := range []struct {
		name   string
		body   string
		want   []string
		reason httpclient.Reason // "" for no error.
	}{
		{
			name: "two series",
			body: `{"status":"success","data":[{"b":"2","a":"1"},{"a":"1"}]}`,
			want: []string{`{a="1", b="2"}`, `{a="1"}`},
		},
		{name: "no series", body: `{"status":"success","data":[]}`},
		{name: "null for a series", body: `{"status":"success","data":[null]}`, reason: httpclient.ReasonResponse},
		{name: "no data", body: `{"status":"success"}`, reason: httpclient.ReasonResponse},
		{
			name:   "more series than series_limit",
			body:   `{"status":"success","data":[{"a":"1"},{"a":"2"},{"a":"3"}]}`,
			reason: httpclient.ReasonLimit,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			client := newClient(t, "series_limit: 2", startServer(t, respond(200, tc.body)))

			series, err := client.Series(t.Context(), []string{"up"}, time.Unix(1, 0), time.Unix(2, 0))

			if tc.reason != "" {
				requireError(t, err, tc.reason)
				return
			}

			var got []string
			for _, l := range series {
				got = append(got, l.String())
			}
			if err != nil || !slices.Equal(got, tc.want) {
				t.Errorf("got %q with error %v, want %q", got, err, tc.want)
			}
		})
	}
}

func TestTimeOfUpstream(t *testing.T) {
	client := newClient(t, "", startServer(t, func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("query") == "nothing" {
			fmt.Fprint(w, emptyVector)
			return
		}
		fmt.Fprint(w, `{"status":"success","data":{"resultType":"vector",`+
			`"result":[{"metric":{},"value":[1700000000.123,"0"]}]}}`)
	}))

	if _, known := client.Now(); known {
		t.Error("upstream's time is known before the first query")
	}

	_, err := client.Query(t.Context(), "nothing", time.Time{})
	requireError(t, err, httpclient.ReasonResponse, "the response is empty, so that upstream's time is unknown")

	result, err := client.Query(t.Context(), "vector(0)", time.Time{})
	at := result.EvaluatedAt
	if err != nil || at.UnixMilli() != 1700000000123 {
		t.Fatalf("evaluated at %s with error %v", at, err)
	}

	now, known := client.Now()
	if passed := now.Sub(at); !known || passed < 0 || passed > time.Minute {
		t.Errorf("upstream's time is %s after the evaluation, known = %v", passed, known)
	}
}

func TestFailover(t *testing.T) {
	down := closedServer(t)
	broken := startServer(t, respond(500, "out of order"))
	locked := startServer(t, respond(401, "no"))
	requests := 0
	good := startServer(t, func(w http.ResponseWriter, _ *http.Request) {
		requests++
		fmt.Fprint(w, emptyVector)
	})

	for _, tc := range []struct {
		name  string
		urls  []string
		works bool
	}{
		{name: "first server is down", urls: []string{down, good}, works: true},
		{name: "first server is broken", urls: []string{broken, good}, works: true},
		{name: "two servers fail", urls: []string{broken, down, good}, works: true},
		// Another server would hide the mistake.
		{name: "first server rejects the credentials", urls: []string{locked, good}},
		{name: "all servers fail", urls: []string{down, broken}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			client := newClient(t, "", tc.urls...)

			_, err := client.Query(t.Context(), "up", time.Unix(1, 0))

			if (err == nil) != tc.works {
				t.Fatalf("error is %v, want one: %v", err, !tc.works)
			}
			if err != nil {
				host, _ := url.Parse(tc.urls[0])
				if !strings.Contains(err.Error(), host.Host) || strings.Contains(err.Error(), "\n") {
					t.Errorf("error is %q, want one line with the first server", err)
				}
				return
			}

			if active, all := client.Servers(); active != good || !slices.Equal(all, tc.urls) {
				t.Errorf("active server is %s of %q, want %s of %q", active, all, good, tc.urls)
			}
			before := requests
			if _, err := client.Query(t.Context(), "up", time.Unix(1, 0)); err != nil || requests != before+1 {
				t.Errorf("the active server got %d requests with error %v, want 1", requests-before, err)
			}
		})
	}
}

func TestNewWithUnusableCredentials(t *testing.T) {
	_, err := promapi.New(parseConfig(t, "tls_config: {ca_file: /nowhere}", "http://a"))

	if err == nil || !strings.Contains(err.Error(), "/nowhere") || !strings.Contains(err.Error(), "http://a") {
		t.Errorf("error is %v, want one with the file and the URL", err)
	}
}
