// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/operator-store/operator_store_exporter/e2e/oracle"
	"github.com/operator-store/operator_store_exporter/internal/doctest"
)

// What is no Prometheus and can't be started here: each answers in its shape, whole if it is asked as its example in
// docs/upstreams.md has it, and refuses as it does otherwise.
func TestOtherUpstreams(t *testing.T) {
	document := doctest.Read(t, "docs/upstreams.md")
	address := regexp.MustCompile(`http://[a-z-]+:[0-9]+`)
	for _, tc := range []struct {
		section string
		prefix  string
		header  string // It must be there.
		param   string // As well.
		drop    string // What is left out of the example.
		refusal http.HandlerFunc
		reason  string
		says    string
	}{
		{
			section: "Thanos", param: "partial_response=false", drop: "",
			refusal: answerWith(500, `{"status":"error","errorType":"internal","error":"expanding series: proxy Series(): rpc error: code = Unavailable desc = no such store: thanos-store:10901"}`),
			reason:  "http", says: "no such store",
		},
		{
			section: "Mimir", prefix: "/prometheus", header: "X-Scope-OrgID", drop: "http_headers: {X-Scope-OrgID: {values: [tikv]}}",
			refusal: answerWith(401, "no org id\n"), reason: "http", says: "401 Unauthorized: no org id",
		},
		{
			section: "Cortex", prefix: "/prometheus", header: "X-Scope-OrgID", drop: "/prometheus",
			refusal: answerWith(404, "404 page not found\n"), reason: "http", says: "path prefix",
		},
		{
			section: "VictoriaMetrics", prefix: "", param: "nocache=1",
			refusal: answerWith(422, `{"status":"error","errorType":"422","error":"error when executing query=\"x\" for (time=1, step=300000): cannot select more than -search.maxSamplesPerQuery=1000 samples"}`),
			reason:  "query", says: "maxSamplesPerQuery",
		},
	} {
		t.Run(tc.section, func(t *testing.T) {
			_, section, _ := strings.Cut(document, "\n## "+tc.section+"\n")
			example := doctest.CodeBlocks(section, "yaml")[0]
			refuse := false
			handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				path, ok := strings.CutPrefix(r.URL.Path, tc.prefix)
				name, value, _ := strings.Cut(tc.param, "=")
				switch {
				case !ok || !strings.HasPrefix(path, "/api/v1/") || tc.header != "" && r.Header.Get(tc.header) == "":
					tc.refusal(w, r)
				case refuse && tc.drop == "":
					tc.refusal(w, r)
				case r.FormValue(name) != value:
					w.WriteHeader(http.StatusBadRequest)
				default:
					oracle.Oracle{Stores: 2}.ServeHTTP(w, r)
				}
			})
			upstream := serve(t, handler)
			example = strings.ReplaceAll(address.ReplaceAllString(example, upstream), "  selector:", "  # selector:")
			if tc.section == "VictoriaMetrics" { // The second cluster has the path of a cluster.
				example, _, _ = strings.Cut(example, "  - name: staging")
			}
			exporter, log := startExporter(t, "--config.file="+writeFile(t, "config.yml", example))
			page := scrape(t, exporter+"/metrics", 10*time.Second)
			if n := len(page.with("operator_store_", "address=")); n != 2*perStore {
				t.Errorf("%d gauges, want %d: %q", n, 2*perStore, log.matching("level=warn"))
			}

			refuse = true
			if tc.drop != "" {
				exporter, log = startExporter(t, "--config.file="+writeFile(t, "config.yml", strings.Replace(example, tc.drop, "", 1)))
			}
			page = scrape(t, exporter+"/metrics", 10*time.Second)
			if up := page[`operator_store_exporter_upstream_up{cluster="prod"}`]; up != 0 {
				t.Errorf("upstream_up is %g though it refuses", up)
			}
			if n := len(page.with("operator_store_exporter_query_failures_total", fmt.Sprintf("reason=%q", tc.reason))); n == 0 {
				t.Errorf("no failure has the reason %s", tc.reason)
			}
			if lines := log.matching("level=warn", tc.says); len(lines) != 1 {
				t.Errorf("the log says %q, want one line with %q", log.matching("level=warn"), tc.says)
			}
		})
	}
}
