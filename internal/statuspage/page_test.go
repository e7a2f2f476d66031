// SPDX-License-Identifier: Apache-2.0

package statuspage_test

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/operator-store/operator_store_exporter/collector"
	"github.com/operator-store/operator_store_exporter/internal/httpclient"
	"github.com/operator-store/operator_store_exporter/internal/statuspage"
	"github.com/operator-store/operator_store_exporter/internal/storematch"
)

type text string

func (t text) String() string { return string(t) }

func write(t *testing.T, p statuspage.Page) string {
	t.Helper()
	if p.Config == nil {
		p.Config = text("clusters: []\n")
	}
	if p.TelemetryPath == "" {
		p.TelemetryPath = "/metrics"
	}
	p.Now = instant.Add(time.Hour) // Upstream's clock is another.
	var out strings.Builder
	if err := statuspage.WritePage(&out, p); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// but is a whole store with some gauges changed, those with a negative value absent.
func but(changes map[string]float64) map[string]float64 {
	values := maps.Clone(whole)
	for name, v := range changes {
		if values[name] = v; v < 0 {
			delete(values, name)
		}
	}
	return values
}

func TestPage(t *testing.T) {
	ok := store("1", "tikv-0:20160", collector.Gauges, whole)
	down := store("2", "tikv-1:20160", collector.Gauges, map[string]float64{"up": 0})
	ghost := store("3", "ghost:20160", collector.Gauges, map[string]float64{"up": 0})
	ghost.Match = storematch.Match{}
	many := report("prod")
	for i := range 300 {
		many.Stores = append(many.Stores, store("", fmt.Sprintf("tikv-%d", i), collector.Gauges, map[string]float64{"up": 0}))
	}
	failing := report("prod", ok)
	failing.Up, failing.Problems = false, []string{`query "up" of cluster "prod": no answer in time`}
	failing.Queries[0].Failures = []httpclient.Reason{httpclient.ReasonTimeout, httpclient.ReasonTimeout}
	unreachable := collector.Report{
		Cluster: "prod", Serving: "http://gone", Servers: []string{"http://gone", "http://other"}, Problems: []string{"connection refused"},
		Queries: []collector.QueryReport{{Name: "targets", Failures: []httpclient.Reason{httpclient.ReasonConnection}}},
	}
	none := report("prod")
	elsewhere := report("prod", ok)
	elsewhere.External = "https://people.example/prometheus/"
	unsafe := report("prod", ok)
	unsafe.External, unsafe.Serving, unsafe.Servers = "javascript:alert(1)", "javascript:alert(1)", []string{"javascript:alert(1)"}
	chunks := report("prod", ok)
	chunks.Queries[0].Expressions = []string{"a", "b"}

	for _, tc := range []struct {
		name    string
		page    statuspage.Page
		want    []string
		without []string
	}{
		{
			"all is well",
			statuspage.Page{Reports: []collector.Report{report("prod", ok)}, Version: "1.2.3"},
			[]string{
				"<h1>All well: 1 store of 1 cluster</h1>", "<title>All well: 1 store of 1 cluster", "<dd>1, all up</dd>", "1, all answered; the slowest, up, took 5ms",
				`<a href="http://prometheus:9090">http://prometheus:9090</a> answers`, "2023-11-14 22:13:20 UTC", "<td>12.5ms</td>", "<td>5s ago</td>",
				`<td>60.0%<svg class="bar" aria-hidden="true" viewBox="0 0 100 1" preserveAspectRatio="none"><rect width="60" height="1"/></svg></td>`,
				`<td>81.2%<svg class="bar" aria-hidden="true" viewBox="0 0 100 1" preserveAspectRatio="none"><rect class="high" width="81" height="1"/></svg></td>`,
				`<td>150.0%<svg class="bar" aria-hidden="true" viewBox="0 0 100 1" preserveAspectRatio="none"><rect width="19" height="1"/></svg></td>`,
				`href="http://prometheus:9090/graph?g0.expr=up%7Bjob%3D%22tikv%22%7D+or+vector%280%29&amp;g0.tab=1"`,
				`href="./metrics"`, `href="./api/v1/stores"`, "operator_store_exporter 1.2.3", "clusters: []",
			},
			[]string{"problems", "What is absent", "all clusters", "<nav"},
		},
		{
			"clusters",
			statuspage.Page{Reports: []collector.Report{report("a", ok), report("b", ok)}},
			[]string{"<h1>All well: 2 stores of 2 clusters</h1>", `<a href="#cluster-2"><bdi>b</bdi></a>`, `<h2 id="cluster-2"><a href="./?cluster=b">`},
			nil,
		},
		{
			"one of them alone",
			statuspage.Page{Reports: []collector.Report{report("a b", ok)}, Clusters: []string{"a b"}, TelemetryPath: "/m"},
			[]string{`<a href="./">all clusters</a>`, `href="./m?cluster=a+b"`, `href="./api/v1/stores?cluster=a+b"`},
			nil,
		},
		{
			"stores that are down, and that nobody knows",
			statuspage.Page{Reports: []collector.Report{report("prod", ok, down, ghost)}},
			[]string{
				"<h1>2 problems</h1>", "<dd>3, 1 up, 2 down</dd>", `<td class="ill">down</td>`,
				"<li>1 store is down, or upstream can’t scrape it: &#34;tikv-1:20160&#34;</li>", "<li>1 store is unknown to upstream, which has no target of that address: &#34;ghost:20160&#34;: does it scrape the store? If it does, set its instance</li>",
				"<li><b>latency p95, latency p99</b> of <bdi>tikv-1:20160, ghost:20160</bdi>: no request in the rate window</li>",
				`<td class="none"><span aria-hidden="true">–</span><span class="heard">absent: no series (TiKV before 5.0)</span></td>`,
			},
			nil,
		},
		{
			"many that are down are told once",
			statuspage.Page{Reports: []collector.Report{many}},
			[]string{"<h1>1 problem</h1>", "300 stores are down", "&#34;tikv-4&#34; and 295 more", "of <bdi>all 300 stores</bdi>: no request in the rate window"},
			nil,
		},
		{
			"a query that failed",
			statuspage.Page{Reports: []collector.Report{failing}},
			[]string{"<h1>1 problem</h1>", "no answer in time", "does not answer", "1, 1 failed", "failed: timeout</span> in 5ms"},
			nil,
		},
		{
			"nobody to ask",
			statuspage.Page{Reports: []collector.Report{unreachable}},
			[]string{
				"<h1>1 problem</h1>", "No store is known, for upstream could not be asked which there are.", "nothing, for there was nothing to ask about",
				"http://gone</a> does not answer", "http://other</a> stands by", "not by PromQL",
			},
			[]string{"<table"},
		},
		{
			"no TiKV",
			statuspage.Page{Reports: []collector.Report{none}},
			[]string{"<h1>1 problem</h1>", "Upstream has seen no TiKV: does it scrape TiKV, and does selector match?"},
			[]string{"<table"},
		},
		{
			"a disk of which only a part is known",
			statuspage.Page{Reports: []collector.Report{report("prod", store("1", "a", collector.Gauges, but(map[string]float64{"cpu_cores": -1, "disk_total_bytes": -1})))}},
			[]string{"<h1>All well", "<td>150.0%</td>", "<b>disk total</b> of <bdi>a</bdi>: no series"},
			nil,
		},
		{
			"upstream's own address for people",
			statuspage.Page{Reports: []collector.Report{elsewhere}},
			[]string{`<a href="https://people.example/prometheus/">http://prometheus:9090</a>`, `href="https://people.example/prometheus/graph?g0.expr=`},
			nil,
		},
		{
			"an address that is not to be linked",
			statuspage.Page{Reports: []collector.Report{unsafe}},
			[]string{"javascript:alert(1) answers"},
			[]string{`href="javascript`, "/graph?"},
		},
		{
			"a query in parts",
			statuspage.Page{Reports: []collector.Report{chunks}},
			[]string{">Open up, part 2 of 2 in upstream</a>"},
			nil,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			page := strings.ReplaceAll(write(t, tc.page), "&#43;", "+")
			for _, want := range tc.want {
				if !strings.Contains(page, want) {
					t.Errorf("the page lacks %q", want)
				}
			}
			_, page, _ = strings.Cut(page, "</style>")
			for _, unwanted := range tc.without {
				if strings.Contains(page, unwanted) {
					t.Errorf("the page has %q", unwanted)
				}
			}
			if t.Failed() {
				t.Log(page)
			}
		})
	}
}

// The policy is that of the style that is sent, and lets nothing else in.
func TestPagePolicy(t *testing.T) {
	style := regexp.MustCompile(`(?s)<style>(.*)</style>`).FindStringSubmatch(write(t, statuspage.Page{}))
	if style == nil {
		t.Fatal("the page has no style")
	}
	sum := sha256.Sum256([]byte(style[1]))
	want := "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
	if statuspage.PagePolicy != want {
		t.Errorf("the policy is %q, want %q", statuspage.PagePolicy, want)
	}
}

// Whatever upstream says is text: it adds no element, no attribute and no link.
func FuzzPage(f *testing.F) {
	for _, s := range []string{`<script>alert(1)</script>`, `"><img src=x onerror=alert(1)>`, `javascript:alert(1)`, "\x00\xff", `' onclick='`, `{{.}}`, `--></style>`} {
		f.Add(s)
	}
	shape := func(t *testing.T, s string) []string {
		r := report(s, store(s, s, collector.Gauges, nil))
		r.Problems, r.External = []string{s}, "http://a/"+url.PathEscape(s)
		r.Stores[0].Absent[1] = "a" + s
		r.Queries[0].Name, r.Queries[0].Expressions = s, []string{s}
		page := write(t, statuspage.Page{Reports: []collector.Report{r}, Config: text(s), Version: s})
		page = regexp.MustCompile(`(?:href|aria-label)="[^"]*"`).ReplaceAllStringFunc(page, func(a string) string {
			name, value, _ := strings.Cut(a, "=")
			if name == "href" && !regexp.MustCompile(`^"(|\./|#|https?://)`).MatchString(value) {
				t.Errorf("there is the link %s", value)
			}
			return name
		})
		return regexp.MustCompile(`<[^>]*>`).FindAllString(page, -1)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if s == "" || s == "x" {
			return
		}
		got, want := shape(t, s), shape(t, "x")
		if strings.Join(got, "") != strings.Join(want, "") {
			t.Errorf("the elements are\n%q\nwant\n%q", got, want)
		}
	})
}
