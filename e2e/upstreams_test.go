// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/operator-store/operator_store_exporter/e2e/oracle"
	"github.com/operator-store/operator_store_exporter/internal/doctest"
)

// imitatedUpstream imitates an engine: it responds if the exporter is configured as in the engine's
// section of docs/upstreams.md, and otherwise refuses requests as the engine does. The tests of
// Thanos, Cortex and VictoriaMetrics themselves are elsewhere.
type imitatedUpstream struct {
	section string

	// What requests must have: a prefix of the path, a header and a parameter.
	prefix, header, param string

	// How the server refuses requests: always, or if this part of the example is missing.
	missing string
	refuse  http.HandlerFunc
	reason  string // The label reason of the failures.
	err     string // A pattern of the cause in the log.
	hint    string // A pattern of the hint in the log.
}

var imitatedUpstreams = []imitatedUpstream{
	{
		section: "Thanos",
		param:   "partial_response=false",
		refuse: respondWith(http.StatusInternalServerError, `{"status":"error","errorType":"internal","error":`+
			`"expanding series: proxy Series(): rpc error: code = Unavailable `+
			`desc = no such store: thanos-store:10901"}`),
		reason: "http",
		err:    "no such store: thanos-store:10901$",
	},
	{
		section: "Mimir",
		prefix:  "/prometheus",
		header:  "X-Scope-OrgID",
		missing: "http_headers: {X-Scope-OrgID: {values: [tikv]}}",
		refuse:  respondWith(http.StatusUnauthorized, "no org id\n"),
		reason:  "http",
		err:     "401 Unauthorized: no org id$",
	},
	{
		section: "Cortex",
		prefix:  "/prometheus",
		header:  "X-Scope-OrgID",
		missing: "/prometheus",
		refuse:  respondWith(http.StatusNotFound, "404 page not found\n"),
		reason:  "http",
		err:     "404 Not Found: 404 page not found$",
		hint:    urlHint,
	},
	{
		section: "VictoriaMetrics",
		param:   "nocache=1",
		refuse: respondWith(http.StatusUnprocessableEntity, `{"status":"error","errorType":"422","error":`+
			`"error when executing query=\"x\" for (time=1, step=300000): `+
			`cannot select more than -search.maxSamplesPerQuery=1000 samples"}`),
		reason: "query",
		err:    "maxSamplesPerQuery",
	},
}

// accepts reports whether a request is as the server requires it.
func (u imitatedUpstream) accepts(r *http.Request) bool {
	path, ok := strings.CutPrefix(r.URL.Path, u.prefix)
	return ok && strings.HasPrefix(path, "/api/v1/") && (u.header == "" || r.Header.Get(u.header) != "")
}

func (u imitatedUpstream) hasParam(r *http.Request) bool {
	name, value, _ := strings.Cut(u.param, "=")
	return r.FormValue(name) == value
}

// The examples of docs/upstreams.md fit the engines, and their errors are reported.
func TestImitatedUpstreams(t *testing.T) {
	t.Parallel()

	for _, u := range imitatedUpstreams {
		t.Run(u.section, func(t *testing.T) {
			t.Parallel()
			u.test(t)
		})
	}
}

func (u imitatedUpstream) test(t *testing.T) {
	const stores = 2
	var refuse atomic.Bool
	upstream := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case !u.accepts(r), refuse.Load() && u.missing == "":
			u.refuse(w, r)
		case !u.hasParam(r):
			w.WriteHeader(http.StatusBadRequest)
		default:
			oracle.Oracle{Stores: stores}.ServeHTTP(w, r)
		}
	}))
	example := u.example(t, upstream)
	exporter := startConfigured(t, example)
	exporter.scrape(t).requireGauges(t, stores*(len(oracle.Gauges(0, time.Now()))+1)) // And operator_store_info.

	refuse.Store(true)
	if u.missing != "" {
		exporter = startConfigured(t, strings.Replace(example, u.missing, "", 1))
	}
	page := exporter.scrape(t)
	if up := page[`operator_store_exporter_upstream_up{cluster="prod"}`]; up != 0 {
		t.Errorf("upstream_up is %g, though upstream refuses requests", up)
	}
	failures := page.with("operator_store_exporter_query_failures_total", fmt.Sprintf("reason=%q", u.reason))
	if len(failures) == 0 {
		t.Errorf("no failure has the reason %s", u.reason)
	}
	exporter.log.requireWarning(t, warning{
		msg: queryFailed, cluster: "prod", reason: u.reason, err: u.err, hint: u.hint,
	})
}

var addressInExample = regexp.MustCompile(`http://[a-z-]+:[0-9]+`)

// example returns the first configuration in the server's section of the documentation, with
// another URL and without a selector.
func (u imitatedUpstream) example(t *testing.T, upstream string) string {
	t.Helper()

	_, section, _ := strings.Cut(doctest.Read(t, "docs/upstreams.md"), "\n## "+u.section+"\n")
	example := addressInExample.ReplaceAllString(doctest.CodeBlocks(section, "yaml")[0], upstream)
	if u.section == "VictoriaMetrics" { // The second cluster has the path of a VictoriaMetrics cluster.
		example, _, _ = strings.Cut(example, "  - name: staging")
	}
	return strings.ReplaceAll(example, "  selector:", "  # selector:")
}
