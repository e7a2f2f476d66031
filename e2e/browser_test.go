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
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/operator-store/operator_store_exporter/collector"
	"github.com/operator-store/operator_store_exporter/e2e/simulator"
	"github.com/operator-store/operator_store_exporter/e2e/stack"
	"github.com/operator-store/operator_store_exporter/internal/doctest"
)

// visit is what a browser is to do, as browser/page.mjs reads it.
type visit struct {
	Name        string `json:"name"`
	URL         string `json:"url"`
	ColorScheme string `json:"colorScheme,omitempty"`
	Width       int    `json:"width,omitempty"`
	Height      int    `json:"height,omitempty"`
	JavaScript  *bool  `json:"javaScript,omitempty"`
	Axe         bool   `json:"axe,omitempty"`    // Check what assistive technology needs.
	Tabs        int    `json:"tabs,omitempty"`   // Press Tab as often.
	Open        bool   `json:"open,omitempty"`   // Open everything that can be.
	Scroll      bool   `json:"scroll,omitempty"` // Scroll the first table with the keyboard.
	Picture     string `json:"picture,omitempty"`
}

// sight is what it saw.
type sight struct {
	Headers           map[string]string
	Bytes             int
	Title, Heading    string
	Headings          []string
	Problems          []string
	Tables, Rows      int
	Stores, Columns   []string
	Body, Opened      string
	Links             []string
	Overflow          int
	Background        string
	Elements          int // That load or run anything.
	Tabs              []string
	Scrolled          bool
	Console, Failed   []string
	Asked, Violations []string
	Checked           int
}

// browse makes the visits in a real browser. Pictures go into a folder, if there are any.
func browse(t *testing.T, pictures string, visits ...visit) map[string]sight {
	t.Helper()
	for _, tool := range []string{"chromium", "node_modules/playwright-core", "node_modules/axe-core"} {
		if _, err := os.Stat(browserTools + "/" + tool); err != nil {
			t.Fatalf("there is no %s/%s: make tools installs it, with Node.js and npm on the machine", browserTools, tool)
		}
	}
	input, err := json.Marshal(visits)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	node := exec.CommandContext(ctx, "node", "browser/page.mjs", browserTools, pictures)
	node.Stdin = bytes.NewReader(input)
	var said strings.Builder
	node.Stderr = &said
	output, err := node.Output()
	if err != nil {
		t.Fatalf("node browser/page.mjs, which needs Node.js 20 or later: %v\n%s", err, &said)
	}
	seen := map[string]sight{}
	if err := json.Unmarshal(output, &seen); err != nil {
		t.Fatal(err)
	}
	return seen
}

// threeStores starts the Prometheus of three simulated stores, and returns the configuration of its cluster once it has their rates.
func threeStores(t *testing.T, pages string, cluster *simulator.Cluster, extra ...stack.Target) string {
	t.Helper()
	targets := extra
	for i := range 3 {
		name := fmt.Sprintf("tikv-%d", i)
		cluster.AddStore(name, name+":20160", simulator.V7)
		targets = append(targets, stack.Target{Job: "tikv", Instance: name + ":20180", Address: pages, Path: "/tikv/" + name})
	}
	upstream := startPrometheus(t, "upstream", time.Second, targets...)
	knows(t, upstream.URL, len(targets))
	// The status page links to an upstream only if it has a name. The proxy knows the name.
	proxy := serve(t, &httputil.ReverseProxy{
		Transport: client.Transport,
		Rewrite:   func(r *httputil.ProxyRequest) { r.Out.URL.Host = stack.Host(upstream.URL) },
	})
	return "- name: prod\n  upstream: {url: " + strings.Replace(upstream.URL, "127.0.0.1", "prometheus.example", 1) + ", proxy_url: " + proxy + "}\n  rate_window: 10s\n" +
		`  stores: [{id: 1, address: "tikv-0:20160"}, {id: 4, address: "tikv-1:20160"}, {id: 5, address: "tikv-2:20160"}]` + "\n"
}

// knows waits until an upstream has rates of as many targets.
func knows(t *testing.T, upstream string, targets int) {
	t.Helper()
	until(t, fmt.Sprintf("upstream to have rates of %d stores", targets), func(ctx context.Context) (bool, error) {
		s, err := query(ctx, upstream, `count(rate(process_cpu_seconds_total[10s]) > 0)`, "")
		return len(s) == 1 && s[0].Value == float64(targets), err
	})
}

// What somebody who owns a TiKV could call it.
var hostile = []string{`<script>alert(1)</script>`, `"><img src=x onerror=alert(1)>`, `javascript:alert(1)//{{.}}`}

// page is that of a small TiKV, for a Prometheus that scrapes many.
func smallTiKV(w http.ResponseWriter, _ *http.Request) {
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

// A real browser, the real exporter and the real upstream.
func TestStatusPage(t *testing.T) {
	cluster := simulator.NewCluster(2)
	pages := stack.Host(serve(t, cluster))
	prod := threeStores(t, pages, cluster)

	many := stack.Host(serve(t, http.HandlerFunc(smallTiKV)))
	var targets []stack.Target
	for i := range 300 {
		targets = append(targets, stack.Target{Job: "tikv", Instance: fmt.Sprintf("tikv-%d:20180", i), Address: many, Path: "/"})
	}
	fleet := startPrometheus(t, "fleet", 2*time.Second, targets...)
	targets = nil
	for _, name := range hostile {
		targets = append(targets, stack.Target{Job: "tikv", Instance: name, Address: many, Path: "/"})
	}
	attacked := startPrometheus(t, "attacked", time.Second, targets...)
	empty := startPrometheus(t, "empty", time.Second)
	knows(t, attacked.URL, len(hostile))
	knows(t, fleet.URL, 300)

	gone, err := stack.FreeAddress(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	one := func(name, url string) string {
		return fmt.Sprintf("- name: %s\n  upstream: {url: %s}\n  rate_window: 10s\n", name, url)
	}
	start := func(clusters ...string) string {
		base, _ := startExporter(t, "--config.file="+writeFile(t, "config.yml", "clusters:\n"+strings.Join(clusters, "")))
		return base + "/"
	}
	well := start(prod + `  metrics: [{name: operator_store_leaders, help: "Region leaders.", expr: 'sum by (instance) (tikv_raftstore_region_count{type="leader"})'}]` + "\n")
	mixed := start(prod, strings.Replace(one("down", "http://"+gone), "url:", "basic_auth: {username: u, password: hunter2hunter2}, url:", 1))
	large := start(one("fleet", fleet.URL))
	odd := start(one("attacked", attacked.URL))
	none := start(one("empty", empty.URL))

	off := false
	seen := browse(t, "",
		visit{Name: "well", URL: well, Open: true},
		visit{Name: "keyboard", URL: well, Tabs: 8, Scroll: true, Width: 900},
		visit{Name: "mixed", URL: mixed, Open: true},
		visit{Name: "large", URL: large},
		visit{Name: "odd", URL: odd, Open: true},
		visit{Name: "none", URL: none},
		visit{Name: "part", URL: mixed + "?cluster=prod"},
		visit{Name: "without JavaScript", URL: mixed, JavaScript: &off},
		visit{Name: "dark", URL: mixed, ColorScheme: "dark"},
		visit{Name: "phone", URL: mixed, Width: 360, Height: 740, Open: true},
		visit{Name: "large phone", URL: large, Width: 360, Height: 740},
		visit{Name: "odd phone", URL: odd, Width: 360, Height: 740, Open: true},
		visit{Name: "axe well", URL: well, Axe: true, Open: true},
		visit{Name: "axe mixed", URL: mixed, Axe: true, Open: true},
		visit{Name: "axe dark", URL: mixed, Axe: true, Open: true, ColorScheme: "dark"},
		visit{Name: "axe phone", URL: odd, Axe: true, Open: true, Width: 360, Height: 740},
		visit{Name: "axe none", URL: none, Axe: true, Open: true},
		visit{Name: "axe large", URL: large, Axe: true},
	)
	for name, s := range seen {
		t.Run(name, func(t *testing.T) {
			if len(s.Console)+len(s.Failed) > 0 {
				t.Errorf("the console says %q, and of requests failed %q", s.Console, s.Failed)
			}
			if len(s.Asked) != 1 {
				t.Errorf("the browser asked for %q, want the page alone", s.Asked)
			}
			if s.Overflow > 0 {
				t.Errorf("the page is %d pixels wider than the window", s.Overflow)
			}
			if s.Elements > 0 {
				t.Errorf("%d elements load or run something", s.Elements)
			}
			if len(s.Violations) > 0 || strings.HasPrefix(name, "axe") && s.Checked < 20 {
				t.Errorf("%d checks passed, not so\n%s", s.Checked, strings.Join(s.Violations, "\n"))
			}
			if strings.Contains(s.Body+s.Opened, "hunter2hunter2") {
				t.Error("the page tells a secret")
			}
			for header, want := range map[string]string{
				"x-content-type-options": "nosniff", "referrer-policy": "no-referrer", "cache-control": "no-store",
			} {
				if s.Headers[header] != want {
					t.Errorf("%s is %q, want %q", header, s.Headers[header], want)
				}
			}
		})
	}
	t.Run("all is well with three stores", func(t *testing.T) {
		s := seen["well"]
		if s.Heading != "All well: 3 stores of 1 cluster" || !strings.HasPrefix(s.Title, s.Heading) || len(s.Problems) > 0 {
			t.Errorf("the heading is %q, the title %q, the problems %q", s.Heading, s.Title, s.Problems)
		}
		if want := len(collector.Gauges) + 2; len(s.Columns) != want || s.Columns[len(s.Columns)-1] != "leaders" {
			t.Errorf("the columns are %q, want %d with the configuration's own gauge last", s.Columns, want)
		}
		if want := []string{"tikv-0:20160", "tikv-1:20160", "tikv-2:20160"}; !slices.Equal(s.Stores, want) {
			t.Errorf("the stores are %q, want %q", s.Stores, want)
		}
		if !slices.ContainsFunc(s.Links, func(l string) bool {
			return strings.HasPrefix(l, "http://prometheus.example:") && strings.Contains(l, "/graph?g0.expr=sum+by") && strings.HasSuffix(l, "&g0.tab=1")
		}) {
			t.Errorf("the links to upstream are %q", s.Links)
		}
		for _, text := range []string{"rate_window: 10s", "operator_store_leaders", "Region leaders.", "answered in"} {
			if !strings.Contains(s.Opened, text) {
				t.Errorf("the opened page lacks %q:\n%s", text, s.Opened)
			}
		}
	})
	t.Run("the keyboard gets everywhere, and its focus is seen", func(t *testing.T) {
		s := seen["keyboard"]
		tabs := strings.Join(s.Tabs, "\n")
		for _, want := range []string{"a ask again", "a prod", "div Stores of prod", "summary Queries"} {
			if !slices.Contains(s.Tabs, want) {
				t.Errorf("Tab does not reach %q:\n%s", want, tabs)
			}
		}
		if strings.Contains(tabs, "not visible") || !s.Scrolled {
			t.Errorf("the table scrolled: %v, and Tab went to\n%s", s.Scrolled, tabs)
		}
	})
	t.Run("a cluster that is down takes nothing from the other", func(t *testing.T) {
		for _, name := range []string{"mixed", "without JavaScript", "dark", "phone"} {
			s := seen[name]
			if s.Heading != "1 problem" || s.Rows != 3 || len(s.Problems) != 1 || !strings.Contains(s.Problems[0], "is it running, and is url right?") {
				t.Errorf("%s: the heading is %q, with %d rows and the problems %q", name, s.Heading, s.Rows, s.Problems)
			}
			if !strings.Contains(s.Body, "No store is known, for upstream could not be asked") || !strings.Contains(s.Body, "does not answer") {
				t.Errorf("%s: the page does not say that upstream could not be asked:\n%s", name, s.Body)
			}
		}
		if s := seen["mixed"]; !slices.Equal(s.Headings, []string{"1 problem", "prod All well", "down 1 problem", "About this page"}) || !strings.Contains(s.Opened, "<secret>") {
			t.Errorf("the headings are %q, and opened:\n%s", s.Headings, s.Opened)
		}
		if s := seen["part"]; s.Heading != "All well: 3 stores of 1 cluster" || !strings.Contains(s.Body, "all clusters") {
			t.Errorf("of the one cluster alone: %s", s.Body)
		}
	})
	t.Run("three hundred stores", func(t *testing.T) {
		s := seen["large"]
		if s.Rows != 300 || s.Heading != "All well: 300 stores of 1 cluster" || s.Bytes > 600<<10 {
			t.Errorf("%d rows under %q in %d bytes", s.Rows, s.Heading, s.Bytes)
		}
		t.Logf("the page has %d bytes", s.Bytes)
	})
	t.Run("hostile names are text", func(t *testing.T) {
		want := slices.Clone(hostile)
		got := slices.Clone(seen["odd"].Stores)
		slices.Sort(want)
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("the stores are %q, want %q", got, want)
		}
	})
	t.Run("no TiKV", func(t *testing.T) {
		if s := seen["none"]; s.Heading != "1 problem" || s.Tables > 0 || !strings.Contains(s.Body, "Upstream has seen no TiKV: does it scrape TiKV, and does selector match?") {
			t.Errorf("the page is\n%s", s.Body)
		}
	})
	t.Run("dark is dark", func(t *testing.T) {
		if light, dark := seen["mixed"].Background, seen["dark"].Background; light != "rgb(255, 255, 255)" || dark == light {
			t.Errorf("the background is %s, in the dark %s", light, dark)
		}
	})
}

// shrink keeps the 256 most frequent colours of a picture, of which a page has few: it takes half the bytes.
func shrink(t *testing.T, file string) {
	t.Helper()

	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	picture, err := png.Decode(bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	times := map[color.Color]int{}
	bounds := picture.Bounds()
	for y := range bounds.Dy() {
		for x := range bounds.Dx() {
			times[picture.At(x, y)]++
		}
	}
	colours := slices.SortedFunc(maps.Keys(times), func(a, b color.Color) int { return cmp.Compare(times[b], times[a]) })
	paletted := image.NewPaletted(bounds, colours[:min(len(colours), 256)])
	draw.Draw(paletted, bounds, picture, image.Point{}, draw.Src)
	var out bytes.Buffer
	if err := (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&out, paletted); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, out.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

// The pictures of docs/images: with SCREENSHOTS they are taken anew, which make screenshots does. They are small, as the README shows them.
func TestScreenshots(t *testing.T) {
	dir, take := os.LookupEnv("SCREENSHOTS")
	if take {
		cluster := simulator.NewCluster(7)
		pages := stack.Host(serve(t, cluster))
		config := threeStores(t, pages, cluster)
		base, _ := startExporter(t, "--config.file="+writeFile(t, "config.yml", "clusters:\n"+config))
		browse(t, dir, visit{Name: "light", URL: base + "/", Width: 1200, Height: 600, Picture: "status.png"})
		cluster.Store("tikv-1").Stop()
		until(t, "upstream to see that a store is down", func(ctx context.Context) (bool, error) {
			p, err := tryScrape(ctx, base+"/metrics", 10*time.Second)
			return p[`operator_store_up{address="tikv-1:20160", cluster="prod", store_id="4"}`] == 0 && len(p) > 0, err
		})
		browse(t, dir, visit{Name: "dark", URL: base + "/", Width: 390, Height: 700, ColorScheme: "dark", Picture: "status-phone.png"})
	}
	for _, name := range []string{"status.png", "status-phone.png"} {
		if take {
			shrink(t, dir+"/"+name)
		}
		picture, err := os.ReadFile(root + "/docs/images/" + name)
		if err != nil {
			t.Fatalf("%v: make screenshots takes it", err)
		}
		if !bytes.HasPrefix(picture, []byte("\x89PNG")) || len(picture) > 80_000 {
			t.Errorf("%s has %d bytes, want a PNG of 80 kB at most", name, len(picture))
		}
		if !strings.Contains(doctest.Read(t, "README.md"), "](docs/images/"+name+")") {
			t.Errorf("the README does not show %s", name)
		}
	}
}
