// SPDX-License-Identifier: Apache-2.0

package statuspage_test

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"net/url"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/operator-store/operator_store_exporter/internal/gauge"
	"github.com/operator-store/operator_store_exporter/internal/httpclient"
	"github.com/operator-store/operator_store_exporter/internal/report"
	"github.com/operator-store/operator_store_exporter/internal/report/reporttest"
	"github.com/operator-store/operator_store_exporter/internal/statuspage"
	"github.com/operator-store/operator_store_exporter/internal/storematch"
)

var update = flag.Bool("update", false, "write the golden file instead of comparing it")

// text is a configuration.
type text string

func (t text) String() string { return string(t) }

// render returns the page. The exporter's clock is an hour ahead of upstream's.
func render(t *testing.T, p statuspage.Page) string {
	t.Helper()
	if p.Config == nil {
		p.Config = text("clusters: []\n")
	}
	if p.TelemetryPath == "" {
		p.TelemetryPath = "/metrics"
	}
	p.Now = reporttest.EvaluatedAt.Add(time.Hour)

	var out strings.Builder
	if err := statuspage.WritePage(&out, p); err != nil {
		t.Fatal(err)
	}

	return out.String()
}

// withoutStyle returns a page without the content of its style element.
func withoutStyle(page string) string {
	return regexp.MustCompile(`(?s)<style>.*</style>`).ReplaceAllString(page, "<style></style>")
}

// healthyStore returns a store that has all values.
func healthyStore() report.Store { return reporttest.Store("1", "tikv-0:20160", reporttest.Values()) }

// downStore returns a store that is monitored and down, without other values.
func downStore(id, address string) report.Store {
	return reporttest.Store(id, address, map[string]float64{gauge.Up: 0, gauge.Monitored: 1})
}

// unmonitoredStore returns a store that is not monitored, although upstream has had a target for
// it.
func unmonitoredStore(id, address string) report.Store {
	return reporttest.Store(id, address, map[string]float64{gauge.Monitored: 0})
}

// queryError returns the error of a request that failed.
func queryError(reason httpclient.Reason, text string) error {
	return &httpclient.Error{Reason: reason, Request: "POST http://prometheus:9090", Err: errors.New(text)}
}

// withErrors returns a report of a scrape in which the only query failed.
func withErrors(r report.Report, errs ...error) report.Report {
	r.UpstreamUp = false
	r.Queries[0].Errs = errs
	r.Problems = report.NewQueryProblems(r.Cluster, r.Queries)

	return r
}

// A pageTest is a page and what it must and must not contain.
type pageTest struct {
	name    string
	page    statuspage.Page
	want    []string
	without []string // Not looked for in the style.
}

func runPageTests(t *testing.T, tests []pageTest) {
	t.Helper()

	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			page := strings.ReplaceAll(withoutStyle(render(t, tc.page)), "&#43;", "+")
			for _, want := range tc.want {
				if !strings.Contains(page, want) {
					t.Errorf("the page lacks %q", want)
				}
			}

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

// pageOf returns the page of the given reports.
func pageOf(reports ...report.Report) statuspage.Page { return statuspage.Page{Reports: reports} }

// excerpt returns the part of a long line around its first difference from another line.
func excerpt(line, other string) string {
	same := 0
	for same < min(len(line), len(other)) && line[same] == other[same] {
		same++
	}

	const before, after = 40, 80
	from, to := max(0, same-before), min(len(line), same+after)
	text := line[from:to]
	if from > 0 {
		text = "…" + text
	}
	if to < len(line) {
		text += "…"
	}

	return strings.ToValidUTF8(text, "")
}

// The golden file shows a page with all built-in gauges: adding a gauge changes it.
func TestGoldenPage(t *testing.T) {
	down := downStore("2", "tikv-1:20160")
	for i := range down.Cells {
		if !down.Cells[i].OK {
			down.Cells[i].Absence = report.AbsenceReason{Kind: report.StoreDown}
		}
	}

	lost := unmonitoredStore("3", "tikv-2:20160")
	lost.Match = storematch.Match{}
	for i := range lost.Cells {
		if !lost.Cells[i].OK {
			lost.Cells[i].Absence = report.AbsenceReason{Kind: report.NoTarget}
		}
	}
	got := withoutStyle(render(t, statuspage.Page{
		Reports: []report.Report{
			reporttest.Report("prod", healthyStore(), down, lost),
			withErrors(reporttest.Report("test"), queryError(httpclient.ReasonTimeout, "no response in time")),
		},
		Config:  text("clusters:\n- name: prod\n- name: test\n"),
		Version: "1.2.3",
	}))

	const golden = "testdata/page.html"
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}

	gotLines, wantLines := strings.Split(got, "\n"), strings.Split(string(want), "\n")
	for i := range max(len(gotLines), len(wantLines)) {
		if g, w := lineAt(gotLines, i), lineAt(wantLines, i); g != w {
			t.Fatalf("internal/statuspage/%s:%d: the line of the page is\n%s\nwant\n%s\n"+
				"If the new page is right, run: go test ./internal/statuspage -update",
				golden, i+1, excerpt(g, w), excerpt(w, g))
		}
	}
}

// lineAt returns a line, or a note that there are fewer lines.
func lineAt(lines []string, i int) string {
	if i >= len(lines) {
		return "(no such line)"
	}

	return lines[i]
}

func TestPageWithoutProblems(t *testing.T) {
	bar := func(class, width string) string {
		return `<svg class="bar" aria-hidden="true" viewBox="0 0 100 1" preserveAspectRatio="none">` +
			`<rect` + class + ` width="` + width + `" height="1"/></svg>`
	}
	unknownTotals := reporttest.Values()
	delete(unknownTotals, gauge.CPUCores)
	delete(unknownTotals, gauge.DiskTotal)
	noCores := reporttest.Values()
	noCores[gauge.CPUCores] = 0
	overcommitted := reporttest.Values()
	overcommitted[gauge.CPUPercent] = 1000

	runPageTests(t, []pageTest{
		{
			name: "one healthy store",
			page: statuspage.Page{
				Reports: []report.Report{reporttest.Report("prod", healthyStore())},
				Version: "1.2.3",
			},
			want: []string{
				"<h1>No problems: 1 store of 1 cluster</h1>",
				"<title>No problems: 1 store of 1 cluster – operator_store_exporter</title>",
				`<header class="ok">`,
				`<span class="ok">No problems</span>`,
				"<dd>1, all up</dd>",
				"<dt>Rate window</dt><dd>1m</dd>",
				"<dd>1, all succeeded; slowest: up (5ms)</dd>",
				"succeeded in 5ms</span></p>",
				`<a href="http://prometheus:9090">http://prometheus:9090</a> in use</dd>`,
				"2023-11-14 22:13:20 UTC</time> by upstream’s clock",
				"<td>12.5ms</td>",
				"<td>5s ago</td>",
				"<td>60.0%" + bar("", "60") + "</td>",
				"<td>81.2%" + bar(` class="high"`, "81") + "</td>",
				"<td>150.0%" + bar("", "19") + "</td>",
				`href="http://prometheus:9090/graph?g0.expr=up%7Bjob%3D%22tikv%22%7D+or+vector%280%29&amp;g0.tab=1"`,
				`href="./metrics"`, `href="./api/v1/stores"`, "operator_store_exporter 1.2.3", "clusters: []",
			},
			without: []string{`class="problems"`, "Absent values", "all clusters", "<nav"},
		},
		{
			name: "two clusters",
			page: pageOf(reporttest.Report("a", healthyStore()), reporttest.Report("b", healthyStore())),
			want: []string{
				"<h1>No problems: 2 stores of 2 clusters</h1>",
				`<a href="#cluster-2"><bdi>b</bdi></a>`,
				`<h2 id="cluster-2"><a href="./?cluster=b">`,
			},
		},
		{
			name: "one cluster selected",
			page: statuspage.Page{
				Reports:       []report.Report{reporttest.Report("a b", healthyStore())},
				Clusters:      []string{"a b"},
				TelemetryPath: "/m",
			},
			want: []string{
				`<a href="./">all clusters</a>`, `href="./m?cluster=a+b"`, `href="./api/v1/stores?cluster=a+b"`,
			},
		},
		{
			name: "disk total and CPU cores unknown",
			page: pageOf(reporttest.Report("prod", reporttest.Store("1", "a", unknownTotals))),
			want: []string{
				"<h1>No problems", "<td>150.0%</td>", "<b>disk total</b> of <bdi>a</bdi>: no series",
			},
		},
		{
			name: "no CPU cores",
			page: pageOf(reporttest.Report("prod", reporttest.Store("1", "a", noCores))),
			want: []string{"<td>150.0%</td>"},
		},
		{
			name: "more CPU than cores",
			page: pageOf(reporttest.Report("prod", reporttest.Store("1", "a", overcommitted))),
			want: []string{"<td>1000.0%" + bar(` class="high"`, "100") + "</td>"},
		},
	})
}

func TestPageStores(t *testing.T) {
	withoutTarget := unmonitoredStore("3", "ghost:20160")
	withoutTarget.Match = storematch.Match{}

	allDown := reporttest.Report("prod")
	for i := range 300 {
		allDown.Stores = append(allDown.Stores, downStore("", fmt.Sprintf("tikv-%d", i)))
	}
	empty := reporttest.Report("prod")
	noTargets := reporttest.Report("prod")
	noTargets.Problems = []report.Problem{{Kind: report.ProblemNoTargets, Cluster: "prod"}}
	otherInstance := healthyStore()
	otherInstance.Match.Candidates[0].Instance = "tikv-0:20180"

	ambiguous := reporttest.Store("1", "a", nil)
	for i := range ambiguous.Cells {
		ambiguous.Cells[i].Absence = report.AbsenceReason{Kind: report.AmbiguousMatch}
	}

	runPageTests(t, []pageTest{
		{
			name: "a store that is down, and one without a target",
			page: pageOf(reporttest.Report("prod", healthyStore(), downStore("2", "tikv-1:20160"), withoutTarget)),
			want: []string{
				"<h1>2 problems</h1>", `<header class="error">`,
				"<dd>3, 1 up, 1 down, 1 not monitored</dd>", `<td class="error">down</td><td>yes</td>`,
				`<td class="error">not monitored</td><td class="error">no</td>`,
				"<li>1 store is down, or cannot be scraped by upstream: &#34;tikv-1:20160&#34;</li>",
				"<li>upstream has no target for 1 store: &#34;ghost:20160&#34;: " +
					"does it scrape TiKV there? If so, set instance</li>",
				"<li><b>latency p95, latency p99</b> of <bdi>tikv-1:20160, ghost:20160</bdi>: " +
					"no request in the rate window</li>",
				`<td class="absent"><span aria-hidden="true">–</span>` +
					`<span class="visually-hidden">absent: no series (TiKV before 5.0)</span></td>`,
			},
		},
		{
			name: "a store whose target has no up sample",
			page: pageOf(reporttest.Report("prod", healthyStore(), unmonitoredStore("2", "tikv-1:20160"))),
			want: []string{
				"<h1>1 problem</h1>", "<dd>2, 1 up, 1 not monitored</dd>", `<tr class="error-row">`,
				"<li>upstream has no up sample for 1 store: &#34;tikv-1:20160&#34;: " +
					"does it still scrape TiKV there?</li>",
			},
			without: []string{"down"},
		},
		{
			name: "a store of each state",
			page: pageOf(reporttest.Report("prod",
				healthyStore(), downStore("2", "b"), unmonitoredStore("3", "c"), reporttest.Store("4", "d", nil))),
			want: []string{"<dd>4, 1 up, 1 down, 1 not monitored, 1 unknown</dd>"},
		},
		{
			name: "many stores that are down are one problem",
			page: pageOf(allDown),
			want: []string{
				"<h1>1 problem</h1>", "300 stores are down", "&#34;tikv-4&#34; and 295 more",
				"of <bdi>all 300 stores</bdi>: no request in the rate window",
			},
		},
		{
			name: "a store of which nothing is known",
			page: pageOf(reporttest.Report("prod", healthyStore(), ambiguous)),
			want: []string{
				"<dd>2, 1 up, 1 unknown</dd>",
				"<b>all gauges</b> of <bdi>a</bdi>: more than one target matches the store",
			},
			without: []string{"down", `"error-row"`, "not monitored"},
		},
		{
			name: "an instance that differs from the address",
			page: pageOf(reporttest.Report("prod", otherInstance)),
			want: []string{"<bdi>tikv-0:20160</bdi> <small>ID 1, <bdi>tikv-0:20180</bdi></small>"},
		},
		{
			name: "no TiKV",
			page: pageOf(empty),
			want: []string{
				"<h1>1 problem</h1>", "Upstream has no TiKV targets: does it scrape TiKV, and does selector match?",
			},
			without: []string{"<table"},
		},
		{
			name: "no TiKV, as the scrape reports it",
			page: pageOf(noTargets),
			want: []string{
				"<h1>1 problem</h1>",
				"<li>cluster &#34;prod&#34;: upstream has no target that exports TiKV&#39;s series",
				"Upstream has no TiKV targets: does it scrape TiKV, and does selector match?",
			},
			without: []string{"<table"},
		},
	})
}

func TestPageQueries(t *testing.T) {
	timeout := queryError(httpclient.ReasonTimeout, "no response in time")
	failed := withErrors(reporttest.Report("prod", healthyStore()), timeout, timeout)
	unreported := reporttest.Report("prod", healthyStore())
	unreported.UpstreamUp = false
	rejected := reporttest.Report("prod", healthyStore())
	rejected.UpstreamUp = false
	rejected.Queries[0].Rejections = []report.Rejection{{
		Target: storematch.Identity{Job: "tikv", Instance: "a"}, Err: errors.New("two series"),
	}}
	partial := reporttest.Report("prod", healthyStore())
	partial.UpstreamUp = false
	partial.Queries[0].Partial = true
	partial.Problems = report.NewQueryProblems("prod", partial.Queries)
	parts := reporttest.Report("prod", healthyStore())
	parts.Queries[0].Expressions = []string{"a", "b"}

	runPageTests(t, []pageTest{
		{
			name: "a query that failed",
			page: pageOf(failed),
			want: []string{
				"<h1>1 problem</h1>", "no response in time", "not responding</dd>",
				"<dd>1, 1 failed; slowest: up (5ms)</dd>",
				`<span class="error">failed after 5ms: timeout</span>`,
			},
		},
		{
			name: "a response that was rejected",
			page: pageOf(rejected),
			want: []string{"<h1>1 problem</h1>", "failed after 5ms: response</span>"},
		},
		{
			name: "a partial response that was accepted",
			page: pageOf(partial),
			want: []string{
				"<h1>1 problem</h1>",
				"<li>query &#34;up&#34; of cluster &#34;prod&#34;: upstream reports that its response may lack series",
				"<dd>1, all succeeded, 1 with a partial response; slowest: up (5ms)</dd>",
				`<span class="error">succeeded in 5ms, but the response may lack series</span>`,
			},
		},
		{
			name: "a failure without a problem",
			page: pageOf(unreported),
			want: []string{"<h1>1 problem</h1>", "<li>Not every query of the scrape succeeded.</li>"},
		},
		{
			name: "a query in two parts",
			page: pageOf(parts),
			want: []string{">Open query up, part 2 of 2 in upstream</a>", `aria-label="PromQL of up, part 1 of 2"`},
		},
	})
}

func TestPageServers(t *testing.T) {
	const first, second = "http://first", "http://second"
	newReport := func(queries ...report.Query) report.Report {
		r := reporttest.Report("prod", healthyStore())
		r.ActiveServer, r.Servers, r.Queries = first, []string{first, second}, queries

		return r
	}
	refused := []error{queryError(httpclient.ReasonConnection, "connection refused")}
	up, qps := report.Query{Name: "up", Expressions: []string{"up"}}, report.Query{Name: "qps"}
	upFailed, pdFailed := report.Query{Name: "up", Errs: refused}, report.Query{Name: "pd", Errs: refused}
	unreachable := report.Report{
		Cluster: "prod", ActiveServer: first, Servers: []string{first, second},
		Queries: []report.Query{{Name: "targets", Errs: refused}},
	}
	unreachable.Problems = report.NewQueryProblems("prod", unreachable.Queries)
	external := newReport(up)
	external.ExternalURL = "https://prometheus.example/prefix/"
	unsafe := newReport(up)
	unsafe.ExternalURL, unsafe.ActiveServer = "javascript:alert(1)", "javascript:alert(1)"
	unsafe.Servers = []string{unsafe.ActiveServer}
	unlisted := newReport(up)
	unlisted.Servers = nil

	runPageTests(t, []pageTest{
		{
			name: "all queries succeeded",
			page: pageOf(newReport(up, qps)),
			want: []string{"http://first</a> in use</dd>", "http://second</a> standby</dd>"},
		},
		{
			name: "no list of servers",
			page: pageOf(unlisted),
			want: []string{"http://first</a> in use</dd>"},
		},
		{
			name: "some queries failed",
			page: pageOf(newReport(upFailed, qps)),
			want: []string{"http://first</a> not responding to every query</dd>", "http://second</a> standby</dd>"},
		},
		{
			name: "all queries failed",
			page: pageOf(newReport(upFailed, upFailed)),
			want: []string{"http://first</a> not responding</dd>", "http://second</a> state unknown</dd>"},
		},
		{
			name: "only PD failed",
			page: pageOf(newReport(up, pdFailed)),
			want: []string{"http://first</a> in use</dd>", "http://second</a> standby</dd>"},
		},
		{
			name: "all queries failed, but not PD",
			page: pageOf(newReport(upFailed, report.Query{Name: "pd"})),
			want: []string{"http://first</a> not responding</dd>", "http://second</a> state unknown</dd>"},
		},
		{
			name: "no server has ever responded",
			page: pageOf(unreachable),
			want: []string{
				"<h1>1 problem</h1>", "No stores are known, because upstream could not be queried for them.",
				"none: no query was evaluated",
				"http://first</a> not responding</dd>", "http://second</a> state unknown</dd>", "(not PromQL)",
			},
			without: []string{"<table", "Rate window"},
		},
		{
			name: "external URL",
			page: pageOf(external),
			want: []string{
				`<a href="https://prometheus.example/prefix/">http://first</a>`,
				`href="https://prometheus.example/prefix/graph?g0.expr=`,
			},
		},
		{
			name:    "URL that must not be linked",
			page:    pageOf(unsafe),
			want:    []string{"javascript:alert(1) in use"},
			without: []string{`href="javascript`, "/graph?"},
		},
	})
}

// The policy allows the style of the page, and nothing else.
func TestPagePolicy(t *testing.T) {
	style := regexp.MustCompile(`(?s)<style>(.*)</style>`).FindStringSubmatch(render(t, statuspage.Page{}))
	if style == nil {
		t.Fatal("the page has no style")
	}

	sum := sha256.Sum256([]byte(style[1]))
	want := "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) +
		"'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
	if statuspage.PagePolicy != want {
		t.Errorf("the policy is %q, want %q", statuspage.PagePolicy, want)
	}
}

// Whatever upstream returns is text: it adds no element, no attribute and no link.
func FuzzPage(f *testing.F) {
	for _, s := range []string{
		`<script>alert(1)</script>`, `"><img src=x onerror=alert(1)>`, `javascript:alert(1)`, "\x00\xff",
		`' onclick='`, `{{.}}`, `--></style>`,
	} {
		f.Add(s)
	}

	f.Fuzz(func(t *testing.T, s string) {
		if s == "" || s == "x" {
			return
		}
		got, want := elements(t, hostilePage(s)), elements(t, hostilePage("x"))
		if strings.Join(got, "") != strings.Join(want, "") {
			t.Errorf("the elements are\n%q\nwant\n%q", got, want)
		}
	})
}

// hostilePage returns a page with s in place of everything that comes from upstream or from the
// configuration.
func hostilePage(s string) statuspage.Page {
	const custom = "operator_store_threads"
	gauges := append(gauge.Builtin(), gauge.Gauge{Name: custom, Help: s, AbsentWhen: s})
	store := reporttest.StoreWith(gauges, s, s, nil)
	store.Match.Candidates[0].Instance = "i" + s
	store.Cells[1].Absence = report.AbsenceReason{Kind: report.NoData, AbsentWhen: "a" + s}
	store.Cells[2].Absence = report.AbsenceReason{Kind: report.QueryFailed, Query: s}

	r := reporttest.Report(s, store)
	r.Gauges = gauges
	r.ExternalURL = "http://a/" + url.PathEscape(s)
	r.Queries[0].Name, r.Queries[0].Expressions = s, []string{s}
	r.Problems = []report.Problem{{
		Kind: report.ProblemQueryFailed, Cluster: s, Queries: []string{s}, Err: errors.New(s),
	}}

	return statuspage.Page{Reports: []report.Report{r}, Config: text(s), Version: s}
}

var (
	linkOrLabel = regexp.MustCompile(`(?:href|aria-label)="[^"]*"`)
	safeTarget  = regexp.MustCompile(`^"(|\./|#|https?://)`)
	element     = regexp.MustCompile(`<[^>]*>`)
)

// elements returns the tags of a page without the values of links and labels.
func elements(t *testing.T, p statuspage.Page) []string {
	t.Helper()
	page := linkOrLabel.ReplaceAllStringFunc(render(t, p), func(attribute string) string {
		name, value, _ := strings.Cut(attribute, "=")
		if name == "href" && !safeTarget.MatchString(value) {
			t.Errorf("there is the link %s", value)
		}

		return name
	})

	return element.FindAllString(page, -1)
}
