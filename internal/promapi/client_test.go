// SPDX-License-Identifier: Apache-2.0

package promapi_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.yaml.in/yaml/v4"

	"github.com/operator-store/operator_store_exporter/config"
	"github.com/operator-store/operator_store_exporter/internal/httpclient"
	"github.com/operator-store/operator_store_exporter/internal/promapi"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const empty = `{"status":"success","data":{"resultType":"vector","result":[]}}`

// newClient returns a client of the servers at urls, with the given extra configuration.
func newClient(t *testing.T, extra string, urls ...string) *promapi.Client {
	t.Helper()
	var cfg config.Upstream
	if err := yaml.Unmarshal([]byte(fmt.Sprintf("url: [%s]\n%s", strings.Join(urls, ", "), extra)), &cfg); err != nil {
		t.Fatal(err)
	}
	c, err := promapi.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func serve(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

func answer(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, body) }
}

func status(code int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(code)
		fmt.Fprint(w, body)
	}
}

func TestWhatIsSent(t *testing.T) {
	var got *http.Request
	base := serve(t, func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm() // Its failure shows in the form.
		got = r
		fmt.Fprint(w, empty)
	})
	c := newClient(t, `
params: {dedup: ["true"], nocache: ["0"]}
basic_auth: {username: u, password: p}
http_headers: {X-Scope-OrgID: {values: [tenant]}}`, base+"/prefix/")
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
	defer cancel()
	if _, at, err := c.Query(ctx, `up{a="é"}`, time.UnixMilli(1700000000123)); err != nil || at.UnixMilli() != 1700000000123 {
		t.Fatalf("at %s, error %v", at, err)
	}
	user, password, _ := got.BasicAuth()
	for _, tc := range []struct{ what, got, want string }{
		{"method", got.Method, "POST"},
		{"path", got.URL.Path, "/prefix/api/v1/query"},
		{"query", got.PostForm.Get("query"), `up{a="é"}`},
		{"time", got.PostForm.Get("time"), "1700000000.123"},
		{"Thanos' parameter", got.Form.Get("partial_response"), "false"},
		{"VictoriaMetrics' parameter", got.Form.Get("deny_partial_response"), "1"},
		{"a parameter of the user's own", got.Form.Get("dedup"), "true"},
		{"a parameter that the user sets otherwise", got.Form.Get("nocache"), "0"},
		{"credentials", user + ":" + password, "u:p"},
		{"tenant", got.Header.Get("X-Scope-OrgID"), "tenant"},
		{"user agent", got.UserAgent()[:24], "operator_store_exporter/"},
	} {
		if tc.got != tc.want {
			t.Errorf("%s is %q, want %q", tc.what, tc.got, tc.want)
		}
	}
	timeout, err := strconv.ParseFloat(got.Form.Get("timeout"), 64)
	if err != nil || timeout <= 3 || timeout >= 4 {
		t.Errorf("timeout is %q, want a little under 4", got.Form.Get("timeout"))
	}

	if _, _, err := newClient(t, "", base).Query(ctx, "up", time.Unix(1, 0)); err != nil || got.Form.Get("nocache") != "1" {
		t.Errorf("nocache is %q where nobody sets it otherwise, want 1; error %v", got.Form.Get("nocache"), err)
	}
	if _, err := c.Series(ctx, []string{"a", "b"}, time.Unix(1, 0), time.Unix(2, 0)); err == nil {
		t.Error("a vector is taken for a list of series")
	}
	if m := got.PostForm["match[]"]; !slices.Equal(m, []string{"a", "b"}) || got.PostForm.Get("start") != "1" || got.PostForm.Get("end") != "2" {
		t.Errorf("the series were asked with %v", got.PostForm)
	}
}

// Each answer, the reason that it must be given, and what the error must say.
func TestFailures(t *testing.T) {
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	hang := func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // Only then does the server notice that we are gone.
		<-r.Context().Done()
	}
	for _, tc := range []struct {
		name   string
		answer http.HandlerFunc // nil: nobody is there.
		reason httpclient.Reason
		says   []string
	}{
		{"nobody is there", nil, httpclient.ReasonConnection, []string{"connection refused", "is it running"}},
		{"the connection breaks", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, httpclient.ReasonConnection, []string{"EOF"}},
		{"no answer", hang, httpclient.ReasonTimeout, []string{"no answer in time", "raise the scrape timeout"}},
		{"upstream's own timeout", status(503, `{"status":"error","errorType":"timeout","error":"query timed out in expression evaluation"}`), httpclient.ReasonTimeout, []string{"503", "timed out in expression"}},
		{"expired while waiting", status(400, `{"status":"error","errorType":"bad_data","error":"invalid parameter \"query\": context deadline exceeded"}`), httpclient.ReasonTimeout, []string{"400"}},
		{"cancelled", status(499, `{"status":"error","errorType":"canceled","error":"query was canceled"}`), httpclient.ReasonTimeout, nil},
		{"bad expression", status(400, `{"status":"error","errorType":"bad_data","error":"1:3: parse error"}`), httpclient.ReasonQuery, []string{"400 Bad Request", "parse error"}},
		{"too many samples", status(422, `{"status":"error","errorType":"execution","error":"too many samples"}`), httpclient.ReasonQuery, []string{"422", "too many samples"}},
		{"no password", status(401, "no"), httpclient.ReasonHTTP, []string{"401 Unauthorized", "check basic_auth"}},
		{"wrong password", status(403, "no"), httpclient.ReasonHTTP, []string{"403 Forbidden", "check basic_auth"}},
		{"wrong path", status(404, "404 page not found"), httpclient.ReasonHTTP, []string{"404 Not Found", "path prefix"}},
		{"too many requests", status(429, ""), httpclient.ReasonHTTP, []string{"429 Too Many Requests", "scrape less often"}},
		{"broken", status(500, "<html>\n<h1>oops</h1>\x00"), httpclient.ReasonHTTP, []string{"500 Internal Server Error: <html> <h1>oops</h1>"}},
		{"a bad request without the API's words", status(400, "<html>"), httpclient.ReasonHTTP, []string{"400 Bad Request"}},
		{"redirect", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://u:hunter2@elsewhere/x?token=hunter2", http.StatusFound)
		}, httpclient.ReasonHTTP, []string{"302 Found to http://elsewhere/x", "redirects are not followed"}},
		{"HTML", answer("<html>log in</html>"), httpclient.ReasonResponse, []string{"check its host, port and path prefix"}},
		{"truncated", answer(empty[:40]), httpclient.ReasonResponse, nil},
		{"an error that calls itself 200", answer(`{"status":"error","errorType":"execution","error":"boom"}`), httpclient.ReasonQuery, []string{"boom"}},
		{"a scalar", answer(`{"status":"success","data":{"resultType":"scalar","result":[1700000000,"1"]}}`), httpclient.ReasonResponse, []string{`a "scalar" where a vector is wanted`}},
		{"a matrix", answer(`{"status":"success","data":{"resultType":"matrix","result":[]}}`), httpclient.ReasonResponse, []string{`a "matrix" where`}},
		{"null for a series", answer(`{"status":"success","data":{"resultType":"vector","result":[null]}}`), httpclient.ReasonResponse, []string{"a series that is null"}},
		{"no data", answer(`{"status":"success"}`), httpclient.ReasonResponse, nil},
		{"empty", answer(""), httpclient.ReasonResponse, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			target := gone.URL
			if tc.answer != nil {
				target = serve(t, tc.answer)
			}
			c := newClient(t, "timeout: 1s\nhttp_headers: {X-Key: {secrets: [hunter2]}}", target)
			_, _, err := c.Query(t.Context(), "up", time.Unix(1, 0))
			if err == nil {
				t.Fatal("no error")
			}
			if got := httpclient.ReasonOf(err); got != tc.reason {
				t.Errorf("the reason is %q, want %q: %v", got, tc.reason, err)
			}
			for _, want := range append(tc.says, target) {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("the error is %q, which lacks %q", err, want)
				}
			}
			if strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "\n") {
				t.Errorf("the error tells a secret, or is no line: %q", err)
			}
			var e *httpclient.Error
			if !errors.As(err, &e) {
				t.Errorf("the error is a %T", err)
			}
		})
	}
}

func TestTimeOfUpstream(t *testing.T) {
	c := newClient(t, "", serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("query") == "nothing" {
			fmt.Fprint(w, empty)
			return
		}
		fmt.Fprint(w, `{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1700000000.123,"0"]}]}}`)
	}))
	if _, known := c.Now(); known {
		t.Error("upstream's time is known before it was asked")
	}
	if _, _, err := c.Query(t.Context(), "nothing", time.Time{}); err == nil || httpclient.ReasonOf(err) != httpclient.ReasonResponse {
		t.Errorf("an answer that does not tell the time gives %v", err)
	}
	_, at, err := c.Query(t.Context(), "vector(0)", time.Time{})
	if err != nil || at.UnixMilli() != 1700000000123 {
		t.Fatalf("at %s, error %v", at, err)
	}
	now, known := c.Now()
	if passed := now.Sub(at); !known || passed < 0 || passed > time.Minute {
		t.Errorf("upstream's time is %s after its answer, known = %v", passed, known)
	}
}

func TestSeveralServers(t *testing.T) {
	down := httptest.NewServer(http.NotFoundHandler())
	down.Close()
	broken := serve(t, status(500, "out of order"))
	locked := serve(t, status(401, "no"))
	asked := 0
	good := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		asked++
		fmt.Fprint(w, empty)
	})
	for _, tc := range []struct {
		name  string
		urls  []string
		works bool
	}{
		{"the first is down", []string{down.URL, good}, true},
		{"the first is broken", []string{broken, good}, true},
		{"two are out", []string{broken, down.URL, good}, true},
		{"the first refuses us", []string{locked, good}, false}, // Another would hide the mistake.
		{"all are out", []string{down.URL, broken}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := newClient(t, "", tc.urls...)
			_, _, err := c.Query(t.Context(), "up", time.Unix(1, 0))
			if (err == nil) != tc.works {
				t.Fatalf("the error is %v", err)
			}
			if err != nil {
				host, _ := url.Parse(tc.urls[0])
				if !strings.Contains(err.Error(), host.Host) || strings.Contains(err.Error(), "\n") {
					t.Errorf("the error is no line with the first server: %q", err)
				}
				return
			}
			before := asked
			if _, _, err := c.Query(t.Context(), "up", time.Unix(1, 0)); err != nil || asked != before+1 {
				t.Errorf("the server that worked was asked %d times, error %v", asked-before, err)
			}
		})
	}
}

func TestCredentialsThatCannotBeUsed(t *testing.T) {
	var cfg config.Upstream
	if err := yaml.Unmarshal([]byte("url: http://a\ntls_config: {ca_file: /nowhere}"), &cfg); err != nil {
		t.Fatal(err)
	}
	if _, err := promapi.New(cfg); err == nil || !strings.Contains(err.Error(), "/nowhere") || !strings.Contains(err.Error(), "http://a") {
		t.Errorf("the error is %v", err)
	}
}

// An answer is taken only if a plain decoder finds the same in it: no number out of nothing.
func FuzzAnswer(f *testing.F) {
	f.Add(`{"status":"success","data":{"resultType":"vector","result":[{"metric":{"a":"b\n\"é"},"value":[1700000000.123,"NaN"]}]}}`)
	f.Add(`{"data":{"result":[{"value":[1,"1e3"],"metric":{}}],"resultType":"vector"},"status":"success","warnings":["x"]}`)
	f.Add(`{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1,null]},null]}}`)
	f.Add(`{"status":"success","isPartial":true,"data":{"resultType":"vector","result":[]}}`)
	f.Add(`{"status":"success","data":{"resultType":"vector","result":[{"metric":{"a":"\ud800"},"histogram":[1,{}]}]}}`)
	var body atomic.Value
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, body.Load()) }))
	f.Cleanup(server.Close)
	f.Fuzz(func(t *testing.T, answer string) {
		body.Store(answer)
		c := newClient(t, "", server.URL)
		vector, _, err := c.Query(t.Context(), "x", time.Unix(1, 0))
		if err != nil {
			var e *httpclient.Error
			if !errors.As(err, &e) {
				t.Errorf("the error is a %T", err)
			}
			return
		}
		var plain struct {
			Status    string
			IsPartial bool
			Data      struct {
				ResultType string
				Result     []struct {
					Metric map[string]string
					Value  []any
				}
			}
		}
		if err := json.Unmarshal([]byte(answer), &plain); err != nil {
			t.Fatalf("taken, but no JSON: %v", err)
		}
		if plain.Status != "success" || plain.IsPartial || len(plain.Data.Result) != len(vector) {
			t.Fatalf("%d series taken of %+v", len(vector), plain)
		}
		for i, s := range plain.Data.Result {
			v, err := strconv.ParseFloat(s.Value[1].(string), 64)
			if err != nil || len(s.Value) != 2 || math.Float64bits(v) != math.Float64bits(vector[i].F) {
				t.Errorf("series %d: %v was taken for %v", i, s.Value, vector[i].F)
			}
			for name, value := range s.Metric {
				if got := vector[i].Metric.Get(name); got != value && strings.ToValidUTF8(got, "\ufffd") != value {
					t.Errorf("series %d: the label %s is %q, want %q", i, name, got, value)
				}
			}
		}
	})
}

// BenchmarkQuery reads an answer of 250 stores with seven buckets each.
func BenchmarkQuery(b *testing.B) {
	body := &strings.Builder{}
	body.WriteString(`{"status":"success","data":{"resultType":"vector","result":[`)
	for i := range 250 * 7 {
		if i > 0 {
			body.WriteString(",")
		}
		fmt.Fprintf(body, `{"metric":{"instance":"tikv-%d:20180","job":"tikv","le":"0.0%d"},"value":[1700000000.123,"%d.5"]}`, i/7, i%7+1, i)
	}
	body.WriteString("]}}")
	server := httptest.NewServer(answer(body.String()))
	defer server.Close()
	var cfg config.Upstream
	if err := yaml.Unmarshal([]byte("url: "+server.URL), &cfg); err != nil {
		b.Fatal(err)
	}
	c, err := promapi.New(cfg)
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	b.SetBytes(int64(body.Len()))
	b.ReportAllocs()
	for b.Loop() {
		if v, _, err := c.Query(b.Context(), "x", time.Unix(1, 0)); err != nil || len(v) != 250*7 {
			b.Fatal(len(v), err)
		}
	}
}

// Where people find upstream is what it tells of itself, if that can be a link.
func TestExternalURL(t *testing.T) {
	flags := func(external string) http.HandlerFunc {
		content, _ := json.Marshal(map[string]any{"status": "success", "data": map[string]string{"web.external-url": external}})
		return answer(string(content))
	}
	for _, tc := range []struct {
		name   string
		answer http.HandlerFunc
		want   string
		err    httpclient.Reason
	}{
		{"a URL", flags("https://prometheus.example/"), "https://prometheus.example/", ""},
		{"with a prefix", flags("http://prometheus.example:9090/a%20b"), "http://prometheus.example:9090/a%20b", ""},
		{"with credentials and parameters", flags("https://u:hunter2@prometheus.example/?token=hunter2#x"), "https://prometheus.example/", ""},
		{"not set", flags(""), "", ""},
		{"a path alone", flags("/prometheus"), "", ""},
		{"a script", flags("javascript:alert(1)"), "", ""},
		{"a script with a host", flags("javascript://a/%0Aalert(1)"), "", ""},
		{"no URL", flags("http://[::1"), "", ""},
		{"a host that is none", flags("http://:9090/"), "", ""},
		{"no such flag", answer(`{"status":"success","data":{}}`), "", ""},
		{"another API", status(404, "404 page not found"), "", httpclient.ReasonHTTP},
		{"a web page", answer("<html>"), "", httpclient.ReasonResponse},
		{"another shape", answer(`{"data":[1]}`), "", httpclient.ReasonResponse},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var asked string
			c := newClient(t, "basic_auth: {username: u, password: p}", serve(t, func(w http.ResponseWriter, r *http.Request) {
				user, _, _ := r.BasicAuth()
				asked = r.Method + " " + r.URL.String() + " " + user
				tc.answer(w, r)
			})+"/prefix")
			got, err := c.ExternalURL(t.Context())
			if got != tc.want || (err == nil) != (tc.err == "") || err != nil && httpclient.ReasonOf(err) != tc.err {
				t.Errorf("%q and %v, want %q and an error of reason %q", got, err, tc.want, tc.err)
			}
			if want := "GET /prefix/api/v1/status/flags u"; asked != want {
				t.Errorf("upstream was asked %q, want %q", asked, want)
			}
		})
	}
}
