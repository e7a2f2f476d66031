// SPDX-License-Identifier: Apache-2.0

package statuspage

import (
	"cmp"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"

	"github.com/operator-store/operator_store_exporter/internal/display"
	"github.com/operator-store/operator_store_exporter/internal/gauge"
	"github.com/operator-store/operator_store_exporter/internal/report"
)

func newClusterView(r *report.Report, now time.Time) clusterView {
	if !r.EvaluatedAt.IsZero() {
		now = r.EvaluatedAt // Ages are relative to upstream's clock, because upstream's timestamps are.
	}

	c := clusterView{
		Name:        r.Cluster,
		Link:        "./" + clusterParameters([]string{r.Cluster}),
		Servers:     newServerViews(r),
		EvaluatedAt: r.EvaluatedAt.UTC(),
		Queries:     summarizeQueries(r),
		Absences:    newAbsenceViews(r),
		QueryList:   newQueryViews(r),
	}
	if r.RateWindow > 0 {
		c.RateWindow = model.Duration(r.RateWindow).String()
	}

	for _, g := range r.Gauges {
		c.Columns = append(c.Columns, display.Title(g.Name))
	}

	for _, s := range r.Stores {
		c.Rows = append(c.Rows, newRowView(r, s, now))
	}
	if len(r.Stores) > 0 {
		c.Stores = summarizeStores(r)
	} else {
		c.NoStores = whyNoStores(r)
	}
	c.Problems = problems(r, c.NoStores)
	c.Verdict = verdict(len(c.Problems))

	return c
}

func whyNoStores(r *report.Report) string {
	if len(r.FailedQueries()) > 0 {
		return "No stores are known, because upstream could not be queried for them."
	}

	return "Upstream has no TiKV targets: does it scrape TiKV, and does selector match?"
}

// problems returns the problems of the scrape, and the stores that are down or not monitored. There
// is always a problem if there are no stores or if a query failed.
func problems(r *report.Report, noStores string) []string {
	var list []string
	for _, p := range r.Problems {
		list = append(list, p.String())
	}
	list = append(list, storeProblems(r)...)

	switch {
	case len(list) > 0:
	case noStores != "":
		list = []string{noStores}
	case !r.UpstreamUp:
		list = []string{"Not every query of the scrape succeeded."}
	}

	return list
}

// storeProblems describes the stores that are down, and those that are not monitored, separately
// for those that upstream has a target for and the others.
func storeProblems(r *report.Report) []string {
	var down, withoutSample, withoutTarget []string
	for _, s := range r.Stores {
		_, hasTarget := s.Match.Target()
		switch state := stateOf(r, s); {
		case state == storeDown:
			down = append(down, s.Address)
		case state == storeNotMonitored && hasTarget:
			withoutSample = append(withoutSample, s.Address)
		case state == storeNotMonitored:
			withoutTarget = append(withoutTarget, s.Address)
		}
	}

	var list []string
	if n := len(down); n > 0 {
		verb := "are"
		if n == 1 {
			verb = "is"
		}
		list = append(list, fmt.Sprintf("%s %s down, or cannot be scraped by upstream: %s",
			display.Plural(n, "store"), verb, display.Names(down)))
	}
	if n := len(withoutSample); n > 0 {
		list = append(list, fmt.Sprintf("upstream has no up sample for %s: %s: does it still scrape TiKV there?",
			display.Plural(n, "store"), display.Names(withoutSample)))
	}
	if n := len(withoutTarget); n > 0 {
		list = append(list, fmt.Sprintf(
			"upstream has no target for %s: %s: does it scrape TiKV there? If so, set instance",
			display.Plural(n, "store"), display.Names(withoutTarget)))
	}

	return list
}

// storeState is what is known about a store as a whole.
type storeState int

const (
	storeUnknown storeState = iota // It has no up, but may be monitored.
	storeUp
	storeDown
	storeNotMonitored // Upstream has no sample of up. The store may be up or down.
)

func stateOf(r *report.Report, s report.Store) storeState {
	up, monitored := r.Value(s, gauge.Up), r.Value(s, gauge.Monitored)
	switch {
	case up.OK && up.V == 1:
		return storeUp
	case up.OK:
		return storeDown
	case monitored.OK && monitored.V != 1:
		return storeNotMonitored
	default:
		return storeUnknown
	}
}

// summarizeStores counts the stores by their states.
func summarizeStores(r *report.Report) string {
	count := map[storeState]int{}
	for _, s := range r.Stores {
		count[stateOf(r, s)]++
	}

	total := len(r.Stores)
	if count[storeUp] == total {
		return fmt.Sprintf("%d, all up", total)
	}
	parts := []string{strconv.Itoa(total), fmt.Sprintf("%d up", count[storeUp])}

	for _, c := range []struct {
		state storeState
		name  string
	}{
		{state: storeDown, name: "down"},
		{state: storeNotMonitored, name: "not monitored"},
		{state: storeUnknown, name: "unknown"},
	} {
		if n := count[c.state]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, c.name))
		}
	}

	return strings.Join(parts, ", ")
}

// summarizeQueries counts the queries that failed, and names the slowest one.
func summarizeQueries(r *report.Report) string {
	if len(r.Queries) == 0 {
		return "none"
	}

	outcome := "all succeeded"
	if n := len(r.FailedQueries()); n > 0 {
		outcome = fmt.Sprintf("%d failed", n)
	}
	if n := countPartial(r.Queries); n > 0 {
		outcome += fmt.Sprintf(", %d with a partial response", n)
	}
	slowest := slices.MaxFunc(r.Queries, func(a, b report.Query) int { return cmp.Compare(a.Duration, b.Duration) })

	return fmt.Sprintf("%d, %s; slowest: %s (%s)",
		len(r.Queries), outcome, slowest.Name, display.Duration(slowest.Duration))
}

func countPartial(queries []report.Query) int {
	n := 0
	for _, q := range queries {
		if q.Partial {
			n++
		}
	}

	return n
}

// newServerViews says which server of the upstream is in use, and whether it responds.
func newServerViews(r *report.Report) []serverView {
	urls := r.Servers
	if len(urls) == 0 {
		urls = []string{r.ActiveServer}
	}

	active, standby := serverStates(r)
	var views []serverView
	for _, u := range urls {
		v := serverView{URL: u, Link: safeLink(u), State: standby}
		if u == r.ActiveServer {
			v.State, v.Link = active, safeLink(cmp.Or(r.ExternalURL, u))
		}
		views = append(views, v)
	}

	return views
}

// serverStates returns the state of the server in use, and that of the other servers.
func serverStates(r *report.Report) (active, standby string) {
	queries, failed := 0, 0
	for _, q := range r.Queries {
		if q.Name == gauge.QueryPD.Name { // PD is not upstream.
			continue
		}
		queries++
		if q.Failed() {
			failed++
		}
	}

	switch {
	case failed == 0:
		return "in use", "standby"
	case failed < queries:
		return "not responding to every query", "standby"
	default: // The other servers may have failed too, or have not been tried.
		return "not responding", "state unknown"
	}
}

// safeLink returns u if it is an HTTP URL, "" otherwise.
func safeLink(u string) string {
	parsed, err := url.Parse(u)
	if err != nil || parsed.Scheme != "http" && parsed.Scheme != "https" || parsed.Host == "" {
		return ""
	}

	return u
}

func newQueryViews(r *report.Report) []queryView {
	base := cmp.Or(r.ExternalURL, r.ActiveServer)
	var views []queryView
	for _, q := range r.Queries {
		views = append(views, newQueryView(q, base))
	}

	return views
}

func newQueryView(q report.Query, base string) queryView {
	v := queryView{
		Name: q.Name, Failed: q.Failed() || q.Partial, Outcome: "succeeded in " + display.Duration(q.Duration),
	}
	if q.Partial {
		v.Outcome += ", but the response may lack series"
	}
	if q.Failed() {
		var reasons []string
		for _, reason := range q.Reasons() {
			reasons = append(reasons, string(reason))
		}
		v.Outcome = fmt.Sprintf("failed after %s: %s", display.Duration(q.Duration), strings.Join(reasons, ", "))
	}

	for i, e := range q.Expressions {
		label := q.Name
		if n := len(q.Expressions); n > 1 {
			label = fmt.Sprintf("%s, part %d of %d", q.Name, i+1, n)
		}
		v.Expressions = append(v.Expressions, expressionView{Label: label, PromQL: e, Link: graphLink(base, e)})
	}

	return v
}

// graphLink returns the page of upstream that evaluates an expression.
func graphLink(base, promQL string) string {
	if safeLink(base) == "" {
		return ""
	}

	return strings.TrimSuffix(base, "/") + "/graph?" + url.Values{"g0.expr": {promQL}, "g0.tab": {"1"}}.Encode()
}
