// SPDX-License-Identifier: Apache-2.0

package statuspage

import (
	"cmp"
	"crypto/sha256"
	_ "embed" // The page and its style.
	"encoding/base64"
	"fmt"
	"html/template"
	"io"
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/operator-store/operator_store_exporter/collector"
	"github.com/operator-store/operator_store_exporter/internal/httpclient"
)

// Page is the status page of one scrape.
type Page struct {
	Reports       []collector.Report
	Clusters      []string     // Those that were asked for, none where all were.
	Config        fmt.Stringer // Without secrets.
	TelemetryPath string
	Version       string
	Now           time.Time
}

// Documentation is where the documents are.
const Documentation = "https://github.com/operator-store/operator_store_exporter#readme"

var (
	//go:embed page.html
	pageText string
	//go:embed page.css
	pageStyle string

	pageTemplate = template.Must(template.New("page").Parse(pageText))
)

// PagePolicy is the Content-Security-Policy of the page: nothing is loaded, run or sent, and the one style is the page's own.
var PagePolicy = fmt.Sprintf("default-src 'none'; style-src 'sha256-%s'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'", hash(pageStyle))

func hash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// WritePage writes the page. Everything that upstream says is text in it, whatever it says.
func WritePage(w io.Writer, p Page) error { return pageTemplate.Execute(w, newView(p)) }

// view is what the template shows: words alone, so that it decides nothing.
type view struct {
	Style     template.CSS
	Headline  string
	Well      bool
	Read      time.Time
	Part      bool // Not every cluster.
	Clusters  []clusterView
	Config    string
	Metrics   string // Paths relative to the page's, for proxies with a prefix.
	JSON      string
	Docs      string
	Version   string
	Reference []collector.Gauge // What the columns are, of all clusters.
}

type clusterView struct {
	Anchor   string
	Name     string
	Link     string // To the page of this cluster alone.
	Verdict  string
	Problems []string
	Servers  []server
	Instant  time.Time
	Summary  string // Of the stores.
	Asked    string // Of the queries.
	Empty    string // Why there are no stores.
	Columns  []column
	Rows     []row
	Absent   []absence
	Queries  []query
}

// server is one of an upstream's, linked to its pages.
type server struct{ URL, Link, State string }

type column struct{ Name, Title string }

type row struct {
	Address, ID, Instance string
	Down                  bool
	Cells                 []cell
}

// cell is a value, or why there is none.
type cell struct {
	Text   string
	Down   bool
	Bar    *bar
	Absent string
}

// bar is how much of what there is a value takes. A high one asks for attention.
type bar struct {
	Percent int
	High    bool
}

// absence is gauges that several stores lack for one reason.
type absence struct{ Gauges, Reason, Stores string }

type query struct {
	Name, Outcome string
	Failed        bool
	Duration      string
	Expressions   []expression
}

type expression struct{ Label, PromQL, Link string }

func newView(p Page) view {
	v := view{
		Style: template.CSS(pageStyle), //nolint:gosec // It is our own.
		Read:  p.Now.UTC(), Part: len(p.Clusters) > 0, Config: p.Config.String(), Docs: Documentation, Version: p.Version,
		Metrics: "." + p.TelemetryPath + selection(p.Clusters), JSON: "./api/v1/stores" + selection(p.Clusters),
	}
	problems, stores := 0, 0
	for i, r := range p.Reports {
		c := newCluster(r, p.Now)
		c.Anchor = fmt.Sprintf("cluster-%d", i+1)
		problems += len(c.Problems)
		stores += len(r.Stores)
		v.Clusters = append(v.Clusters, c)
		for _, g := range r.Gauges {
			if !slices.ContainsFunc(v.Reference, func(o collector.Gauge) bool { return o.Name == g.Name }) {
				v.Reference = append(v.Reference, g)
			}
		}
	}
	v.Well, v.Headline = problems == 0, plural(problems, "problem")
	if v.Well {
		v.Headline = fmt.Sprintf("All well: %s of %s", plural(stores, "store"), plural(len(p.Reports), "cluster"))
	}
	return v
}

// selection is the query part of a URL that asks for those clusters alone.
func selection(clusters []string) string {
	if len(clusters) == 0 {
		return ""
	}
	return "?" + url.Values{"cluster": clusters}.Encode()
}

func newCluster(r collector.Report, now time.Time) clusterView {
	c := clusterView{
		Name: r.Cluster, Link: "./" + selection([]string{r.Cluster}), Instant: r.Instant.UTC(),
		Problems: append(slices.Clone(r.Problems), down(r)...), Servers: servers(r), Asked: asked(r),
	}
	if !r.Instant.IsZero() {
		now = r.Instant // The ages of what upstream says are by its clock.
	}
	switch {
	case len(r.Stores) > 0:
		c.Summary = summary(r)
	case len(failed(r)) > 0:
		c.Empty = "No store is known, for upstream could not be asked which there are."
	default:
		c.Empty = "Upstream has seen no TiKV: does it scrape TiKV, and does selector match?"
	}
	if len(c.Problems) == 0 && (len(r.Stores) == 0 || !r.Up) {
		c.Problems = []string{cmp.Or(c.Empty, "Not every query of the scrape succeeded.")}
	}
	c.Verdict = "All well"
	if n := len(c.Problems); n > 0 {
		c.Verdict = plural(n, "problem")
	}
	for _, g := range r.Gauges {
		c.Columns = append(c.Columns, column{g.Name, Title(g.Name)})
	}
	for _, s := range r.Stores {
		c.Rows = append(c.Rows, newRow(r, s, now))
	}
	c.Absent = lacks(r)
	base := cmp.Or(r.External, r.Serving)
	for _, q := range r.Queries {
		c.Queries = append(c.Queries, newQuery(q, base))
	}
	return c
}

// down tells of the stores that are, in a sentence for each way to be so.
func down(r collector.Report) []string {
	var silent, unknown []string
	for _, s := range r.Stores {
		up, known := r.Value(s, gaugeUp)
		_, found := s.Match.Target()
		switch {
		case !known || up == 1:
		case found:
			silent = append(silent, s.Address)
		default:
			unknown = append(unknown, s.Address)
		}
	}
	var problems []string
	if n := len(silent); n > 0 {
		problems = append(problems, fmt.Sprintf("%s down, or upstream can’t scrape it: %s", are(n), some(silent)))
	}
	if n := len(unknown); n > 0 {
		problems = append(problems, fmt.Sprintf("%s unknown to upstream, which has no target of that address: %s: does it scrape the store? If it does, set its instance", are(n), some(unknown)))
	}
	return problems
}

func are(n int) string {
	if n == 1 {
		return "1 store is"
	}
	return fmt.Sprintf("%d stores are", n)
}

// some names a few of many.
func some(names []string) string {
	const most = 5
	var quoted []string
	for _, n := range names[:min(len(names), most)] {
		quoted = append(quoted, strconv.Quote(n))
	}
	text := strings.Join(quoted, ", ")
	if more := len(names) - most; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// summary says how many stores are up.
func summary(r collector.Report) string {
	up, down := 0, 0
	for _, s := range r.Stores {
		switch v, known := r.Value(s, gaugeUp); {
		case known && v == 1:
			up++
		case known:
			down++
		}
	}
	text := fmt.Sprintf("%d, %d up", len(r.Stores), up)
	if up == len(r.Stores) {
		return fmt.Sprintf("%d, all up", up)
	}
	if down > 0 {
		text += fmt.Sprintf(", %d down", down)
	}
	if unknown := len(r.Stores) - up - down; unknown > 0 {
		text += fmt.Sprintf(", %d of which it is not known", unknown)
	}
	return text
}

func failed(r collector.Report) []collector.QueryReport {
	return slices.DeleteFunc(slices.Clone(r.Queries), func(q collector.QueryReport) bool { return len(q.Failures) == 0 })
}

// asked says how the queries went.
func asked(r collector.Report) string {
	if len(r.Queries) == 0 {
		return "none"
	}
	slowest := slices.MaxFunc(r.Queries, func(a, b collector.QueryReport) int { return cmp.Compare(a.Duration, b.Duration) })
	outcome := "all answered"
	if n := len(failed(r)); n > 0 {
		outcome = fmt.Sprintf("%d failed", n)
	}
	return fmt.Sprintf("%d, %s; the slowest, %s, took %s", len(r.Queries), outcome, slowest.Name, seconds(slowest.Duration.Seconds()))
}

// servers says which one answers.
func servers(r collector.Report) []server {
	all := r.Servers
	if len(all) == 0 {
		all = []string{r.Serving}
	}
	bad := len(failed(r))
	var list []server
	for _, u := range all {
		s := server{URL: u, Link: linkable(u), State: "stands by"}
		if u == r.Serving {
			s.State, s.Link = "answers", linkable(cmp.Or(r.External, u))
			switch {
			case bad > 0 && bad == len(r.Queries):
				s.State = "does not answer"
			case bad > 0:
				s.State = "does not answer every query"
			}
		}
		list = append(list, s)
	}
	return list
}

// linkable is u if it is one that a browser may go to.
func linkable(u string) string {
	parsed, err := url.Parse(u)
	if err != nil || parsed.Scheme != "http" && parsed.Scheme != "https" || parsed.Host == "" {
		return ""
	}
	return u
}

func newRow(r collector.Report, s collector.StoreReport, now time.Time) row {
	line := row{Address: s.Address, ID: s.ID, Cells: make([]cell, len(r.Gauges))}
	if t, ok := s.Match.Target(); ok && t.Instance != s.Address {
		line.Instance = t.Instance
	}
	for i, g := range r.Gauges {
		v, there := r.Value(s, g.Name)
		if !there {
			line.Cells[i].Absent = cmp.Or(s.Absent[i], "no number")
			continue
		}
		line.Cells[i] = cell{Text: Human(g.Name, v, now), Down: g.Name == gaugeUp && v != 1, Bar: newBar(r, s, g.Name, v)}
		line.Down = line.Down || line.Cells[i].Down
	}
	return line
}

// The gauges of which the page shows more than a number.
const (
	gaugeUp          = "operator_store_up"
	gaugeUtilization = "operator_store_disk_utilization_ratio"
	gaugeFill        = "operator_store_disk_fill_ratio"
	gaugeCPU         = "operator_store_cpu_percent"
	gaugeCores       = "operator_store_cpu_cores"
)

// newBar is the bar of a gauge that is a share of something known, nil for others.
func newBar(r collector.Report, s collector.StoreReport, gauge string, v float64) *bar {
	switch gauge {
	case gaugeUtilization, gaugeFill:
	case gaugeCPU:
		cores, known := r.Value(s, gaugeCores)
		if !known || cores <= 0 {
			return nil
		}
		v /= 100 * cores
	default:
		return nil
	}
	return &bar{int(math.Round(100 * math.Max(0, math.Min(v, 1)))), v > diskWarn}
}

// lacks gathers what is absent by reason, so that what all stores lack is said once.
func lacks(r collector.Report) []absence {
	type missing struct{ gauges, reason string }
	var order []missing
	lacking := map[missing][]string{}
	for _, s := range r.Stores {
		gauges := map[string][]string{}
		var reasons []string
		for i, g := range r.Gauges {
			if !math.IsNaN(s.Values[i]) {
				continue
			}
			why := s.Absent[i]
			if gauges[why] == nil {
				reasons = append(reasons, why)
			}
			gauges[why] = append(gauges[why], Title(g.Name))
		}
		for _, why := range reasons {
			m := missing{strings.Join(gauges[why], ", "), why}
			if len(gauges[why]) == len(r.Gauges) {
				m.gauges = "every gauge"
			}
			if lacking[m] == nil {
				order = append(order, m)
			}
			lacking[m] = append(lacking[m], s.Address)
		}
	}
	var list []absence
	for _, m := range order {
		of := strings.Join(lacking[m], ", ")
		if n := len(r.Stores); len(lacking[m]) == n && n > 1 {
			of = fmt.Sprintf("all %d stores", n)
		}
		list = append(list, absence{m.gauges, m.reason, of})
	}
	return list
}

func newQuery(q collector.QueryReport, base string) query {
	shown := query{Name: q.Name, Outcome: "answered", Failed: len(q.Failures) > 0, Duration: seconds(q.Duration.Seconds())}
	if shown.Failed {
		var reasons []string
		for _, reason := range httpclient.Reasons() {
			if slices.Contains(q.Failures, reason) {
				reasons = append(reasons, string(reason))
			}
		}
		shown.Outcome = "failed: " + strings.Join(reasons, ", ")
	}
	for i, e := range q.Expressions {
		label := q.Name
		if n := len(q.Expressions); n > 1 {
			label = fmt.Sprintf("%s, part %d of %d", q.Name, i+1, n)
		}
		shown.Expressions = append(shown.Expressions, expression{label, e, graph(base, e)})
	}
	return shown
}

// graph is the page of upstream's own that evaluates an expression.
func graph(base, promQL string) string {
	if linkable(base) == "" {
		return ""
	}
	return strings.TrimSuffix(base, "/") + "/graph?" + url.Values{"g0.expr": {promQL}, "g0.tab": {"1"}}.Encode()
}
