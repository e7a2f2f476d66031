// SPDX-License-Identifier: Apache-2.0

package collector

import (
	"cmp"
	"context"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/operator-store/operator_store_exporter/internal/httpclient"
	"github.com/operator-store/operator_store_exporter/internal/storematch"
)

// Report is what one scrape found out about one cluster, for people.
type Report struct {
	Cluster  string
	Up       bool      // Every query succeeded, PD's left aside.
	Instant  time.Time // On upstream's clock; zero if there was nothing to ask about.
	Serving  string    // The URL of the server that answers.
	Servers  []string  // Those of all.
	External string    // Where people find upstream's own pages, "" where it did not tell.
	Queries  []QueryReport
	Gauges   []Gauge // Of the cluster, in the order of the documentation.
	Stores   []StoreReport
	Problems []string // What is wrong, in words.
}

// QueryReport is how one query went.
type QueryReport struct {
	Name        string
	Expressions []string // As they were sent, none where the query is no PromQL.
	Duration    time.Duration
	Failures    []httpclient.Reason // One a request that failed.
}

// StoreReport is what is known of one store.
type StoreReport struct {
	ID      string // "" where nobody knows it.
	Address string
	Match   storematch.Match
	Values  []float64 // In the order of the gauges. NaN is absent.
	Absent  []string  // Why a gauge is absent, "" where it is there.
}

// Value is a gauge by its name, and whether it is there.
func (r Report) Value(s StoreReport, gauge string) (float64, bool) {
	i := slices.IndexFunc(r.Gauges, func(g Gauge) bool { return g.Name == gauge })
	if i < 0 || math.IsNaN(s.Values[i]) {
		return 0, false
	}
	return s.Values[i], true
}

// Reports returns what the scrape found out, a report a cluster in the order of the configuration. Stores are in the order of
// their ids, then addresses.
func (c *Collector) Reports() []Report {
	var reports []Report
	for _, r := range c.rounds {
		if r != nil {
			reports = append(reports, r.report())
		}
	}
	return reports
}

// externalTimeout is how long an upstream has to tell where its pages are. Nobody waits longer for links.
const externalTimeout = 500 * time.Millisecond

// Report scrapes as Scrape does, for people: what was found out, and where they find upstream's own pages.
func (e *Exporter) Report(ctx context.Context, names ...string) ([]Report, error) {
	clusters, err := e.named(names)
	if err != nil {
		return nil, err
	}
	short, cancel := context.WithTimeout(ctx, externalTimeout)
	defer cancel()
	external := make([]string, len(clusters))
	var asked sync.WaitGroup
	for i, c := range clusters {
		asked.Go(func() { external[i], _ = c.upstream.ExternalURL(short) }) // Without it there are the servers' own URLs.
	}
	scrape, err := e.Scrape(ctx, names...)
	asked.Wait()
	if err != nil {
		return nil, err
	}
	reports := scrape.Reports()
	for i, r := range reports { // A cluster that nobody listens to any more has none.
		reports[i].External = external[slices.IndexFunc(clusters, func(c *cluster) bool { return c.name == r.Cluster })]
	}
	return reports, nil
}

func (r *round) report() Report {
	report := Report{
		Cluster: r.cluster, Up: r.up(), Instant: r.instant, Serving: r.serving, Servers: r.servers, Gauges: slices.Clone(r.table.gauges),
	}
	for _, q := range r.queries {
		report.Queries = append(report.Queries, QueryReport{q.name, q.expressions, q.duration, q.failures})
	}
	for _, s := range r.stores {
		report.Stores = append(report.Stores, StoreReport{s.Store.ID, s.Store.Address, s.Match, s.values, r.absent(s)})
	}
	slices.SortStableFunc(report.Stores, func(a, b StoreReport) int {
		// Numbers without leading zeros: the longer one is larger.
		return cmp.Or(cmp.Compare(len(a.ID), len(b.ID)), strings.Compare(a.ID, b.ID), strings.Compare(a.Address, b.Address))
	})
	for _, p := range r.problems {
		report.Problems = append(report.Problems, p.text)
	}
	slices.Sort(report.Problems)
	return report
}

// absent says why gauges are.
func (r *round) absent(s storeReport) []string {
	why := make([]string, len(s.values))
	_, found := s.Target()
	down := s.values[r.table.index["operator_store_up"]] == 0
	for i, g := range r.table.gauges {
		switch {
		case !math.IsNaN(s.values[i]):
		case s.Ambiguous:
			why[i] = "nothing decides which series are the store's"
		case s.twins:
			why[i] = "upstream has several targets of the store's job and instance"
		case !found:
			why[i] = "upstream has no target of the store"
		default:
			why[i] = g.AbsentWhen
			if down {
				why[i] = "the store is down"
			}
			if q := r.table.failed(g, s.unanswered); q != "" {
				why[i] = "query " + q + " failed"
			}
		}
	}
	return why
}

// failed names a query that did not answer and that the gauge needs, if there is one.
func (t *table) failed(g Gauge, unanswered []*Query) string {
	for _, q := range g.value.queries {
		if slices.Contains(unanswered, q) {
			return q.Name
		}
	}
	for _, name := range g.value.gauges {
		if q := t.failed(t.gauge(name), unanswered); q != "" {
			return q
		}
	}
	return ""
}
