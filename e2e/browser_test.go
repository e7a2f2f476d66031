// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"maps"
	"net/http"
	"net/http/httputil"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/operator-store/operator_store_exporter/e2e/simulator"
	"github.com/operator-store/operator_store_exporter/e2e/stack"
	"github.com/operator-store/operator_store_exporter/e2e/truth"
	"github.com/operator-store/operator_store_exporter/internal/doctest"
)

// visit is what the browser does with a page, as browser/page.mjs reads it.
type visit struct {
	Name         string `json:"name"`
	URL          string `json:"url"`
	ColorScheme  string `json:"colorScheme,omitempty"`
	Width        int    `json:"width,omitempty"`
	Height       int    `json:"height,omitempty"`
	NoJavaScript bool   `json:"noJavaScript,omitempty"`
	Axe          bool   `json:"axe,omitempty"`        // Check the accessibility.
	Tabs         int    `json:"tabs,omitempty"`       // How often to press Tab.
	Open         bool   `json:"open,omitempty"`       // Open all details.
	Scroll       bool   `json:"scroll,omitempty"`     // Scroll the first table with the keyboard.
	Screenshot   string `json:"screenshot,omitempty"` // The name of the file.
}

// observation is what the browser found on a page, as browser/page.mjs writes it.
type observation struct {
	Headers           map[string]string
	Bytes             int
	Title, Heading    string
	Headings          []string
	Problems          []string
	Tables, Rows      int
	Stores, Columns   []string
	Text, OpenedText  string
	Links             []string
	Overflow          int // By how many pixels the page is wider than the window.
	Background        string
	ActiveElements    int // Elements that load or run something.
	Tabs              []string
	Scrolled          bool
	Console           []string
	Requests          []string
	FailedRequests    []string
	PassedChecks      int
	AccessibilityBugs []string
}

// browse makes the visits in a real browser. Screenshots are written to a directory.
func browse(t *testing.T, screenshots string, visits ...visit) map[string]observation {
	t.Helper()

	for _, tool := range []string{"chromium", "node_modules/playwright-core", "node_modules/axe-core"} {
		if _, err := os.Stat(filepath.Join(browserTools, tool)); err != nil {
			t.Fatalf("%s/%s is missing: install Node.js with npm, and run `make tools` in the root of the repository",
				browserTools, tool)
		}
	}
	input, err := json.Marshal(visits)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	node := exec.CommandContext(ctx, "node", "browser/page.mjs", browserTools, screenshots)
	node.Stdin = bytes.NewReader(input)
	var stderr strings.Builder
	node.Stderr = &stderr

	output, err := node.Output()
	if err != nil {
		t.Fatalf("node browser/page.mjs, which needs Node.js 20 or later: %v\n%s", err, &stderr)
	}
	observations := map[string]observation{}
	if err := json.Unmarshal(output, &observations); err != nil {
		t.Fatal(err)
	}

	return observations
}

// launchThreeStores starts a Prometheus that scrapes three stores, and returns it with the
// configuration of its cluster.
func launchThreeStores(t *testing.T, seed uint64) (*fleet, string) {
	t.Helper()

	f := newFleetWithSeed(t, seed)
	for i := range 3 {
		f.add(fmt.Sprintf("tikv-%d", i), simulator.V7)
	}
	f.launch(t, time.Second)

	// The status page only has links to an upstream with a name. A proxy resolves the name.
	resolver := serve(t, &httputil.ReverseProxy{
		Transport: client.Transport,
		Rewrite:   func(r *httputil.ProxyRequest) { r.Out.URL.Host = stack.Host(f.URL) },
	})
	url := strings.Replace(f.URL, "127.0.0.1", upstreamName, 1)

	return f, fmt.Sprintf(`- name: prod
  upstream: {url: %s, proxy_url: %s}
  rate_window: 10s
  stores:
  - {id: 1, address: "tikv-0:20160"}
  - {id: 4, address: "tikv-1:20160"}
  - {id: 5, address: "tikv-2:20160"}
`, url, resolver)
}

const upstreamName = "prometheus.example"

// hostileNames are instances by which somebody could attack a reader of the status page.
var hostileNames = []string{
	`<script>alert(1)</script>`, `"><img src=x onerror=alert(1)>`, `javascript:alert(1)//{{.}}`,
}

// smallTiKVPage serves the page of a TiKV with few series, for a Prometheus that scrapes many.
func smallTiKVPage(w http.ResponseWriter, _ *http.Request) {
	t := float64(time.Now().UnixMilli()%1e8) / 1e3
	fmt.Fprintf(w, `process_cpu_seconds_total %g
process_start_time_seconds 1.7e9
tikv_server_cpu_cores_quota 8
tikv_storage_command_total{type="get"} %.0f
tikv_store_size_bytes{type="capacity"} 2e12
tikv_store_size_bytes{type="available"} 3e11
tikv_store_size_bytes{type="used"} 1.5e12
tikv_grpc_msg_duration_seconds_bucket{type="kv_get",le="0.001"} %.0f
tikv_grpc_msg_duration_seconds_bucket{type="kv_get",le="+Inf"} %.0f
tikv_raftstore_log_lag_bucket{le="2"} %.0f
tikv_raftstore_log_lag_bucket{le="+Inf"} %.0f
`, 3*t, 1000*t, 900*t, 1000*t, 10*t, 10*t)
}

// launchSmallTiKVs starts a Prometheus that scrapes small TiKVs with the given instances.
func launchSmallTiKVs(t *testing.T, interval time.Duration, instances ...string) *stack.Process {
	t.Helper()

	page := stack.Host(serve(t, http.HandlerFunc(smallTiKVPage)))
	var targets []stack.Target
	for _, instance := range instances {
		targets = append(targets, stack.Target{Job: "tikv", Instance: instance, Address: page, Path: "/"})
	}
	return startPrometheus(t, "upstream", interval, targets...)
}

// manyStores is the number of stores of the largest page.
const manyStores = 300

// statusPages starts the exporters of TestStatusPage, and returns the URLs of their status pages.
func statusPages(t *testing.T) (healthy, oneDown, many, hostile, empty string) {
	t.Helper()

	three, prod := launchThreeStores(t, 1)
	down, err := stack.FreeAddress(t.Context())
	if err != nil {
		t.Fatal(err)
	}

	var instances []string
	for i := range manyStores {
		instances = append(instances, fmt.Sprintf("tikv-%d:20180", i))
	}
	fleet := launchSmallTiKVs(t, 2*time.Second, instances...)
	attacked := launchSmallTiKVs(t, time.Second, hostileNames...)
	withoutTargets := startPrometheus(t, "upstream without targets", time.Second)
	three.wait(t)
	waitForRates(t, fleet.URL, manyStores)
	waitForRates(t, attacked.URL, len(hostileNames))

	start := func(clusters ...string) string {
		return startConfigured(t, "clusters:\n"+strings.Join(clusters, "")).URL + "/"
	}
	cluster := func(name, url string) string {
		return fmt.Sprintf("- name: %s\n  upstream: {url: %s}\n  rate_window: 10s\n", name, url)
	}
	const custom = `  metrics:
  - name: operator_store_test_leaders
    help: "Region leaders."
    expr: 'sum by (instance) (tikv_raftstore_region_count{type="leader"})'
`
	const withPassword = "- name: down\n" +
		"  upstream: {basic_auth: {username: u, password: " + secret + "}, url: http://%s}\n  rate_window: 10s\n"

	return start(prod + custom), start(prod, fmt.Sprintf(withPassword, down)), start(cluster("fleet", fleet.URL)),
		start(cluster("attacked", attacked.URL)), start(cluster("empty", withoutTargets.URL))
}

// The status page in a real browser.
func TestStatusPage(t *testing.T) {
	t.Parallel()
	healthy, oneDown, many, hostile, empty := statusPages(t)
	pages := browse(t, "",
		visit{Name: "healthy", URL: healthy, Open: true},
		visit{Name: "keyboard", URL: healthy, Tabs: 8, Scroll: true, Width: 900},
		visit{Name: "one down", URL: oneDown, Open: true},
		visit{Name: "many stores", URL: many},
		visit{Name: "hostile names", URL: hostile, Open: true},
		visit{Name: "empty", URL: empty},
		visit{Name: "one cluster", URL: oneDown + "?cluster=prod"},
		visit{Name: "without JavaScript", URL: oneDown, NoJavaScript: true},
		visit{Name: "dark", URL: oneDown, ColorScheme: "dark"},
		visit{Name: "phone", URL: oneDown, Width: 360, Height: 740, Open: true},
		visit{Name: "many stores, phone", URL: many, Width: 360, Height: 740},
		visit{Name: "hostile names, phone", URL: hostile, Width: 360, Height: 740, Open: true},
		visit{Name: "accessible healthy", URL: healthy, Axe: true, Open: true},
		visit{Name: "accessible one down", URL: oneDown, Axe: true, Open: true},
		visit{Name: "accessible dark", URL: oneDown, Axe: true, Open: true, ColorScheme: "dark"},
		visit{Name: "accessible phone", URL: hostile, Axe: true, Open: true, Width: 360, Height: 740},
		visit{Name: "accessible empty", URL: empty, Axe: true, Open: true},
		visit{Name: "accessible many stores", URL: many, Axe: true},
	)

	for name, o := range pages {
		t.Run(name, func(t *testing.T) { o.check(t, strings.HasPrefix(name, "accessible")) })
	}
	t.Run("healthy page", func(t *testing.T) { requireHealthyPage(t, pages["healthy"]) })
	t.Run("Tab reaches everything and shows the focus", func(t *testing.T) {
		o := pages["keyboard"]
		tabs := strings.Join(o.Tabs, "\n")
		for _, want := range focusable {
			if !slices.Contains(o.Tabs, want) {
				t.Errorf("Tab does not reach %q:\n%s", want, tabs)
			}
		}
		if strings.Contains(tabs, "not visible") || !o.Scrolled {
			t.Errorf("the table scrolled: %v, and Tab reached\n%s", o.Scrolled, tabs)
		}
	})
	t.Run("a cluster that is down does not change another", func(t *testing.T) { requireOneDown(t, pages) })
	t.Run("three hundred stores", func(t *testing.T) {
		o := pages["many stores"]
		want := fmt.Sprintf(healthyHeading, manyStores)
		if o.Rows != manyStores || o.Heading != want || o.Bytes > 600<<10 {
			t.Errorf("the page has %d rows, the heading %q and %d bytes, want %d rows, %q and at most 600 KiB",
				o.Rows, o.Heading, o.Bytes, manyStores, want)
		}
	})
	t.Run("hostile names are text", func(t *testing.T) {
		want := slices.Sorted(slices.Values(hostileNames))
		got := slices.Sorted(slices.Values(pages["hostile names"].Stores))
		if !slices.Equal(got, want) {
			t.Errorf("the stores are %q, want %q", got, want)
		}
	})
	t.Run("upstream without TiKV", func(t *testing.T) {
		if o := pages["empty"]; o.Heading != "1 problem" || o.Tables > 0 || !strings.Contains(o.Text, noTiKVText) {
			t.Errorf("the page has %d tables and the text\n%s", o.Tables, o.Text)
		}
	})
	t.Run("the dark color scheme is dark", func(t *testing.T) {
		light, dark := pages["one down"].Background, pages["dark"].Background
		if light != "rgb(255, 255, 255)" || dark == light {
			t.Errorf("the background is %s, and %s with the dark color scheme", light, dark)
		}
	})
}

// Texts of the status page.
const (
	healthyHeading  = "No problems: %d stores of 1 cluster"
	noTiKVText      = "Upstream has no TiKV targets: does it scrape TiKV, and does selector match?"
	unreachableHint = "is it running, and is url right?"
)

var (
	focusable        = []string{"a scrape again", "a prod", "div Stores of prod", "summary Queries"}
	unreachableTexts = []string{
		"No stores are known, because upstream could not be queried for them.", " not responding",
	}
	healthyDetails  = []string{"rate_window: 10s", "operator_store_test_leaders", "Region leaders.", "succeeded in"}
	oneDownHeadings = []string{"1 problem", "prod No problems", "down 1 problem", "About this page"}
)

// check holds what is true of every page.
func (o observation) check(t *testing.T, accessibility bool) {
	t.Helper()

	if len(o.Console)+len(o.FailedRequests) > 0 {
		t.Errorf("the console has %q, and the failed requests are %q", o.Console, o.FailedRequests)
	}
	if len(o.Requests) != 1 {
		t.Errorf("the browser requested %q, want only the page", o.Requests)
	}
	if o.Overflow > 0 {
		t.Errorf("the page is %d pixels wider than the window", o.Overflow)
	}
	if o.ActiveElements > 0 {
		t.Errorf("%d elements load or run something", o.ActiveElements)
	}
	if len(o.AccessibilityBugs) > 0 || accessibility && o.PassedChecks < 20 {
		t.Errorf("%d checks of accessibility passed, others failed:\n%s",
			o.PassedChecks, strings.Join(o.AccessibilityBugs, "\n"))
	}
	if strings.Contains(o.Text+o.OpenedText, secret) {
		t.Error("the page has a secret")
	}

	for header, want := range map[string]string{
		"x-content-type-options": "nosniff", "referrer-policy": "no-referrer", "cache-control": "no-store",
	} {
		if o.Headers[header] != want {
			t.Errorf("the header %s is %q, want %q", header, o.Headers[header], want)
		}
	}
}

func requireHealthyPage(t *testing.T, o observation) {
	t.Helper()

	want := fmt.Sprintf(healthyHeading, 3)
	if o.Heading != want || !strings.HasPrefix(o.Title, o.Heading) || len(o.Problems) > 0 {
		t.Errorf("the heading is %q, the title %q, the problems %q, want the heading %q and no problem",
			o.Heading, o.Title, o.Problems, want)
	}
	// The columns are the address, the built-in gauges and the custom gauge, next to the ID.
	if want := len(truth.Gauges) + 2; len(o.Columns) != want || o.Columns[len(o.Columns)-1] != "test leaders" {
		t.Errorf("the columns are %q, want %d with the custom gauge last", o.Columns, want)
	}
	if want := []string{"tikv-0:20160", "tikv-1:20160", "tikv-2:20160"}; !slices.Equal(o.Stores, want) {
		t.Errorf("the stores are %q, want %q", o.Stores, want)
	}
	isLink := func(l string) bool {
		return strings.HasPrefix(l, "http://"+upstreamName+":") && strings.Contains(l, "/graph?g0.expr=sum+by") &&
			strings.HasSuffix(l, "&g0.tab=1")
	}
	if !slices.ContainsFunc(o.Links, isLink) {
		t.Errorf("the links to upstream are %q", o.Links)
	}

	for _, text := range healthyDetails {
		if !strings.Contains(o.OpenedText, text) {
			t.Errorf("the opened page lacks %q:\n%s", text, o.OpenedText)
		}
	}
}

func requireOneDown(t *testing.T, pages map[string]observation) {
	t.Helper()

	for _, name := range []string{"one down", "without JavaScript", "dark", "phone"} {
		o := pages[name]
		hasHint := len(o.Problems) == 1 && strings.Contains(o.Problems[0], unreachableHint)
		if o.Heading != "1 problem" || o.Rows != 3 || !hasHint {
			t.Errorf("%s: the heading is %q, with %d rows and the problems %q", name, o.Heading, o.Rows, o.Problems)
		}
		if !containsAll(o.Text, unreachableTexts) {
			t.Errorf("%s: the page lacks %q:\n%s", name, unreachableTexts, o.Text)
		}
	}
	o := pages["one down"]
	if !slices.Equal(o.Headings, oneDownHeadings) || !strings.Contains(o.OpenedText, "<secret>") {
		t.Errorf("the headings are %q, want %q, and the opened page has the text\n%s",
			o.Headings, oneDownHeadings, o.OpenedText)
	}
	o = pages["one cluster"]
	if o.Heading != fmt.Sprintf(healthyHeading, 3) || !strings.Contains(o.Text, "all clusters") {
		t.Errorf("the page of one cluster has the text\n%s", o.Text)
	}
}

// maxScreenshot is how large a screenshot in the README may be.
const maxScreenshot = 80_000

// The screenshots of the README are small PNG files. `make screenshots` sets SCREENSHOTS, which
// takes them again.
func TestScreenshots(t *testing.T) {
	t.Parallel()
	names := []string{"status.png", "status-phone.png"}
	if dir := os.Getenv("SCREENSHOTS"); dir != "" {
		takeScreenshots(t, dir, names[0], names[1])

		for _, name := range names {
			reduceColors(t, filepath.Join(dir, name))
		}
	}

	for _, name := range names {
		content, err := os.ReadFile(filepath.Join(root, "docs/images", name))
		if err != nil {
			t.Fatalf("%v: run `make screenshots`", err)
		}
		if !bytes.HasPrefix(content, []byte("\x89PNG")) || len(content) > maxScreenshot {
			t.Errorf("%s has %d bytes, want a PNG of at most %d bytes", name, len(content), maxScreenshot)
		}
		if !strings.Contains(doctest.Read(t, "README.md"), "](docs/images/"+name+")") {
			t.Errorf("the README does not show %s", name)
		}
	}
}

// takeScreenshots takes screenshots of a healthy cluster and, on a phone, of a cluster with a store
// that is down.
func takeScreenshots(t *testing.T, dir, healthy, storeDown string) {
	t.Helper()

	f, config := launchThreeStores(t, 7)
	f.wait(t)
	exporter := startConfigured(t, "clusters:\n"+config)
	browse(t, dir, visit{Name: "light", URL: exporter.URL + "/", Width: 1200, Height: 600, Screenshot: healthy})

	f.cluster.Store("tikv-1").Stop()
	until(t, "upstream to have a store that is down", func(ctx context.Context) (bool, error) {
		p, err := tryScrape(ctx, exporter.URL+"/metrics", 10*time.Second)
		up, ok := p[`operator_store_up{address="tikv-1:20160", cluster="prod", store_id="4"}`]
		return ok && up == 0, err
	})
	browse(t, dir, visit{
		Name: "dark", URL: exporter.URL + "/", Width: 390, Height: 700, ColorScheme: "dark", Screenshot: storeDown,
	})
}

// reduceColors keeps the 256 most frequent colors of a PNG file, which halves its size. The status
// page has few colors.
func reduceColors(t *testing.T, file string) {
	t.Helper()

	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	original, err := png.Decode(bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}

	count := map[color.Color]int{}
	bounds := original.Bounds()
	for y := range bounds.Dy() {
		for x := range bounds.Dx() {
			count[original.At(x, y)]++
		}
	}
	colors := slices.SortedFunc(maps.Keys(count), func(a, b color.Color) int { return cmp.Compare(count[b], count[a]) })

	reduced := image.NewPaletted(bounds, colors[:min(len(colors), 256)])
	draw.Draw(reduced, bounds, original, image.Point{}, draw.Src)
	var out bytes.Buffer
	if err := (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&out, reduced); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, out.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}
