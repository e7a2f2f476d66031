// SPDX-License-Identifier: Apache-2.0

package statuspage

import (
	"fmt"
	"html/template"
	"net/url"
	"time"

	"github.com/operator-store/operator_store_exporter/internal/display"
	"github.com/operator-store/operator_store_exporter/internal/gauge"
)

// pageView is what the template shows. All text is made here, so that the template makes no
// decisions.
type pageView struct {
	Style         template.CSS
	Headline      string
	OK            bool
	ScrapedAt     time.Time
	Partial       bool // Whether the request named clusters.
	Clusters      []clusterView
	Gauges        []gauge.Gauge // Of all clusters.
	Config        string
	MetricsLink   string // Links are relative to the page, for proxies that add a prefix.
	JSONLink      string
	Documentation string
	Version       string
}

type clusterView struct {
	Anchor      string
	Name        string
	Link        string // To the page of this cluster only.
	Verdict     string
	Problems    []string
	Servers     []serverView
	EvaluatedAt time.Time // Zero if nothing was evaluated.
	RateWindow  string    // "" if nothing was evaluated.
	Stores      string    // Summary.
	Queries     string    // Summary.
	NoStores    string    // Why there are no stores.
	Columns     []string
	Rows        []rowView
	Absences    []absenceView
	QueryList   []queryView
}

// serverView is a server of an upstream, linked to its own pages.
type serverView struct{ URL, Link, State string }

type rowView struct {
	Address, ID, Instance string
	Error                 bool // The store is down or not monitored.
	Cells                 []cellView
}

// cellView is a value, or the reason why it is absent.
type cellView struct {
	Text   string
	Error  bool
	Bar    *barView
	Absent string
}

// barView shows a share of a resource. A high share is highlighted.
type barView struct {
	Percent int
	High    bool
}

// absenceView lists the gauges that some stores lack for one reason.
type absenceView struct{ Gauges, Reason, Stores string }

type queryView struct {
	Name        string
	Outcome     string
	Failed      bool
	Expressions []expressionView
}

type expressionView struct{ Label, PromQL, Link string }

func newPageView(p Page) pageView {
	v := pageView{
		Style:         template.CSS(pageCSS), //nolint:gosec // It is our own.
		ScrapedAt:     p.Now.UTC(),
		Partial:       len(p.Clusters) > 0,
		Gauges:        allGauges(p),
		Config:        p.Config.String(),
		MetricsLink:   "." + p.TelemetryPath + clusterParameters(p.Clusters),
		JSONLink:      "./api/v1/stores" + clusterParameters(p.Clusters),
		Documentation: documentationURL,
		Version:       p.Version,
	}

	problems, stores := 0, 0
	for i := range p.Reports {
		c := newClusterView(&p.Reports[i], p.Now)
		c.Anchor = fmt.Sprintf("cluster-%d", i+1)
		v.Clusters = append(v.Clusters, c)
		problems += len(c.Problems)
		stores += len(p.Reports[i].Stores)
	}

	v.OK = problems == 0
	v.Headline = verdict(problems)
	if v.OK {
		v.Headline += fmt.Sprintf(": %s of %s",
			display.Plural(stores, "store"), display.Plural(len(p.Reports), "cluster"))
	}

	return v
}

// allGauges returns the gauges that any of the clusters has.
func allGauges(p Page) []gauge.Gauge {
	var gauges []gauge.Gauge
	seen := map[string]bool{}
	for _, r := range p.Reports {
		for _, g := range r.Gauges {
			if !seen[g.Name] {
				seen[g.Name] = true
				gauges = append(gauges, g)
			}
		}
	}

	return gauges
}

// clusterParameters returns the query string of a URL that selects clusters.
func clusterParameters(clusters []string) string {
	if len(clusters) == 0 {
		return ""
	}

	return "?" + url.Values{"cluster": clusters}.Encode()
}

func verdict(problems int) string {
	if problems == 0 {
		return "No problems"
	}

	return display.Plural(problems, "problem")
}
