// SPDX-License-Identifier: Apache-2.0

// Package doctor says what is wrong between the exporter and its upstreams.
//
// It asks what a scrape asks, and beside that what tells why a scrape has less than it could.
package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-kit/log"
	"github.com/prometheus/prometheus/promql"

	"github.com/operator-store/operator_store_exporter/collector"
	"github.com/operator-store/operator_store_exporter/config"
	"github.com/operator-store/operator_store_exporter/internal/discovery"
	"github.com/operator-store/operator_store_exporter/internal/pd"
	"github.com/operator-store/operator_store_exporter/internal/promapi"
	"github.com/operator-store/operator_store_exporter/internal/promqlexpr"
	"github.com/operator-store/operator_store_exporter/internal/storematch"
)

// Outcome is how a check ended.
type Outcome string

// The outcomes there are.
const (
	OK   Outcome = "ok"
	Warn Outcome = "warn" // Some gauges are absent, or will be: it may be meant so.
	Fail Outcome = "FAIL"
)

// Check is one thing that was looked at.
type Check struct {
	Outcome Outcome
	Name    string
	Text    string // What was seen, and what to change.
}

// Options are what a configuration does not say.
type Options struct {
	Lookback time.Duration // How long a store is known after upstream last saw it.
}

// Examine looks at one cluster. It ends by ctx's deadline.
func Examine(ctx context.Context, c config.Cluster, opts Options) []Check {
	e := &examination{cluster: c, lookback: opts.Lookback}
	if e.reach(ctx) && e.find(ctx) {
		e.scrapes(ctx)
		e.scrape(ctx)
	}
	return e.checks
}

// examination is that of one cluster.
type examination struct {
	cluster  config.Cluster
	lookback time.Duration
	checks   []Check

	upstream *promapi.Client
	now      time.Time // Upstream's.
	targets  []storematch.Target
}

func (e *examination) add(o Outcome, name, format string, args ...any) {
	e.checks = append(e.checks, Check{o, name, fmt.Sprintf(format, args...)})
}

// most is how many of a kind are told one by one.
const most = 5

// few names the first of many.
func few(names []string) string {
	more := len(names) - most
	if more <= 0 {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), more)
}

// reach asks each server of upstream, and PD.
func (e *examination) reach(ctx context.Context) (reached bool) {
	var failed []error
	for _, url := range e.cluster.Upstream.URL {
		one := e.cluster.Upstream
		one.URL = config.URLs{url}
		if err := e.reachServer(ctx, one); err != nil {
			failed = append(failed, err)
			continue
		}
		reached = true
	}
	for _, err := range failed {
		outcome := Fail
		if reached {
			outcome = Warn // Another one answers.
		}
		e.add(outcome, "upstream", "%s", err)
	}
	if e.cluster.PD != nil {
		e.reachPD(ctx)
	}
	if !reached {
		return false
	}
	client, err := promapi.New(e.cluster.Upstream)
	if err != nil {
		e.add(Fail, "upstream", "%s", err)
		return false
	}
	e.upstream = client
	return true
}

// Clocks that differ by more make ages in the federation wrong.
const maxSkew = 5 * time.Second

func (e *examination) reachServer(ctx context.Context, u config.Upstream) error {
	client, err := promapi.New(u)
	if err != nil {
		return err
	}
	defer client.Close()
	began := time.Now()
	_, now, err := client.Query(ctx, "vector(1)", time.Time{})
	if err != nil {
		return err
	}
	took := time.Since(began)
	e.now = now
	e.add(OK, "upstream", "%s answers in %s", u.URL[0].Redacted(), took.Round(time.Millisecond))
	if skew := now.Sub(began); skew > took+maxSkew || skew < -maxSkew {
		e.add(Warn, "clock", "%s is off by %s from the clock here: let both follow the same NTP servers", u.URL[0].Redacted(), skew.Round(time.Second))
	}
	return nil
}

func (e *examination) reachPD(ctx context.Context) {
	client, err := pd.New(*e.cluster.PD)
	if err != nil {
		e.add(Fail, "pd", "%s", err)
		return
	}
	defer client.Close()
	told, err := client.Stores(ctx)
	if err != nil {
		e.add(Fail, "pd", "%s", err)
		return
	}
	e.add(OK, "pd", "it knows %s", plural(len(told), "TiKV store"))
}

// find looks for the targets that are TiKVs.
func (e *examination) find(ctx context.Context) bool {
	targets, err := discovery.New(e.upstream, e.cluster.Selector, e.lookback).Targets(ctx, e.now)
	if err != nil {
		e.add(Fail, "targets", "%s", err)
		return false
	}
	e.targets = targets
	live := 0
	for _, t := range targets {
		if t.Live {
			live++
		}
	}
	switch {
	case len(targets) == 0:
		e.findNone(ctx)
		return false
	case live == 0:
		e.add(Fail, "targets", "upstream has had no series of TiKV for a while, though %s within the last %s: see why its scrapes fail: %s/targets",
			plural(len(targets), "target"), config.Duration(e.lookback), e.cluster.Upstream.URL[0].Redacted())
		return true
	default:
		e.add(OK, "targets", "upstream scrapes %s that %s TiKV", plural(live, "target"), isOrAre(live))
		return true
	}
}

// findNone says why there is no TiKV.
func (e *examination) findNone(ctx context.Context) {
	if len(e.cluster.Selector) > 0 {
		if others, err := discovery.New(e.upstream, nil, e.lookback).Targets(ctx, e.now); err == nil && len(others) > 0 {
			var told []string
			for _, m := range e.cluster.Selector {
				told = append(told, e.valuesOf(ctx, m.Name))
			}
			e.add(Fail, "targets", "selector %s matches no TiKV; without it upstream has %s%s: correct selector",
				promqlexpr.Selector(e.cluster.Selector), plural(len(others), "TiKV target"), strings.Join(told, ""))
			return
		}
	}
	jobs := e.labelValues(ctx, `group by (job) (up)`, "job")
	scraped := "it scrapes nothing"
	if len(jobs) > 0 {
		scraped = "it scrapes the jobs " + few(jobs)
	}
	e.add(Fail, "targets", "upstream has had no series of TiKV within the last %s; %s: add each TiKV's status address, mostly port 20180, to its scrape_configs, or set the url of the Prometheus that scrapes TiKV",
		config.Duration(e.lookback), scraped)
}

// valuesOf says which values TiKV's series have for a label.
func (e *examination) valuesOf(ctx context.Context, label string) string {
	values := e.labelValues(ctx, fmt.Sprintf(`group by (%s) (tikv_store_size_bytes{type="available"})`, label), label)
	if len(values) == 0 {
		return ", without the label " + label
	}
	return fmt.Sprintf(", with %s %s", label, few(values))
}

func (e *examination) labelValues(ctx context.Context, expression, label string) []string {
	vector, err := e.ask(ctx, expression)
	if err != nil {
		return nil
	}
	var values []string
	for _, s := range vector {
		if v := s.Metric.Get(label); v != "" {
			values = append(values, fmt.Sprintf("%q", v))
		}
	}
	slices.Sort(values)
	return values
}

func (e *examination) ask(ctx context.Context, expression string) (promql.Vector, error) {
	vector, _, err := e.upstream.Query(ctx, expression, e.now)
	return vector, err
}

// scrape makes one scrape, and looks at what it has not got.
func (e *examination) scrape(ctx context.Context) {
	defer e.upstream.Close()
	exporter, err := collector.New(&config.Config{Clusters: []config.Cluster{e.cluster}},
		collector.Options{Lookback: e.lookback, Interval: time.Hour, Logger: log.NewNopLogger()})
	if err != nil {
		e.add(Fail, "scrape", "%s", err)
		return
	}
	defer exporter.Close()
	scrape, err := exporter.Scrape(ctx)
	if err != nil {
		e.add(Fail, "scrape", "%s", err)
		return
	}
	for _, report := range scrape.Reports() {
		e.matched(report)
		e.answered(report)
		e.present(ctx, report)
	}
}

// answered looks at the queries of a scrape.
func (e *examination) answered(r collector.Report) {
	if r.Up {
		e.add(OK, "queries", "%s answered", plural(len(r.Queries), "query"))
		return
	}
	for _, p := range r.Problems {
		if strings.HasPrefix(p, "query ") {
			e.add(Fail, "queries", "%s", p)
		}
	}
}

func plural(n int, what string) string {
	switch {
	case n == 1:
		return fmt.Sprintf("%d %s", n, what)
	case strings.HasSuffix(what, "y"):
		return fmt.Sprintf("%d %sies", n, strings.TrimSuffix(what, "y"))
	default:
		return fmt.Sprintf("%d %ss", n, what)
	}
}

func isOrAre(n int) string {
	if n == 1 {
		return "is a"
	}
	return "are"
}
