// SPDX-License-Identifier: Apache-2.0

package discovery

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/operator-store/operator_store_exporter/internal/gauge"
	"github.com/operator-store/operator_store_exporter/internal/httpclient"
	"github.com/operator-store/operator_store_exporter/internal/report"
	"github.com/operator-store/operator_store_exporter/internal/storematch"
)

// PD returns the stores of a TiKV cluster. Its errors are of type *httpclient.Error.
type PD interface {
	// Stores returns the TiKV stores of the cluster, at least one.
	Stores(ctx context.Context) ([]storematch.Store, error)
	// Close closes idle connections.
	Close()
}

// Options configure a Discovery.
type Options struct {
	Upstream   Upstream
	Selector   []*labels.Matcher
	Lookback   time.Duration      // How long a target is known after upstream last had samples of it.
	PD         PD                 // May be nil.
	Configured []storematch.Store // If nil, all stores that PD or upstream knows.
	StoreLimit int                // Maximum number of stores.
	// Histograms are the queries for buckets, which some targets may have as native histograms
	// only.
	Histograms []*gauge.Query
	// LearnInterval reports whether to determine the interval at which upstream scrapes the
	// targets.
	LearnInterval bool
	CountFailure  func(*gauge.Query, httpclient.Reason) // Called for each failed query.
}

// A Discovery discovers the stores of one cluster, and which target belongs to which store. It is
// safe for concurrent use.
type Discovery struct {
	opts   Options
	finder *Finder
}

// New returns a discovery.
func New(opts Options) *Discovery {
	return &Discovery{opts: opts, finder: NewFinder(opts.Upstream, opts.Selector, opts.Lookback)}
}

// Close closes idle connections to PD.
func (d *Discovery) Close() {
	if d.opts.PD != nil {
		d.opts.PD.Close()
	}
}

// State is what is known about the stores of a cluster until the next refresh. It is immutable.
type State struct {
	TargetsKnown bool // Upstream has returned its targets at least once.
	// Identified reports whether the identities of the stores are final: they were returned by PD
	// or upstream, or are known to be unavailable. Otherwise labels would change once they arrive.
	Identified   bool
	Targets      []storematch.Target
	Stores       []storematch.Store // As PD returned them, directly or through its series in upstream.
	PDTime       time.Time          // When PD itself last returned Stores, by the local clock; zero if it never did.
	PDSeriesTime time.Time          // When upstream last returned Stores from PD's series, by the local clock.

	// lastLive is when each target was last live, by upstream's clock. Targets that have never been
	// live have the time at which they were discovered.
	lastLive       map[storematch.Identity]time.Time
	ScrapeInterval time.Duration // The longest one of all live targets; 0 if unknown.

	// Native holds, for each query for buckets, the targets that have native histograms only.
	Native map[*gauge.Query]map[storematch.Identity]bool

	Matches []storematch.Match
	Dropped int                   // Stores that are left out because of the limit.
	Queried []storematch.Identity // The targets of Matches, sorted.
	Queries map[*gauge.Query]report.Query
}

// Usable reports whether gauges can be exposed: not before the labels of the stores are final. A
// nil State is not.
func (s *State) Usable() bool { return s != nil && s.TargetsKnown && s.Identified }

// Refresh discovers the stores again. Data from a source that fails is kept from the previous
// state, which may be nil.
func (d *Discovery) Refresh(ctx context.Context, previous *State) *State {
	s := &State{}
	if previous != nil {
		*s = *previous
	}
	s.Queries = map[*gauge.Query]report.Query{}

	var targets, pd report.Query
	var now time.Time // By upstream's clock: the local one may differ by more than the lookback.
	var sources sync.WaitGroup
	sources.Go(func() {
		targets = d.query(ctx, gauge.QueryTargets, func() error { return d.refreshTargets(ctx, s, &now) })
	})
	if d.opts.PD != nil {
		sources.Go(func() { pd = d.query(ctx, gauge.QueryPD, func() error { return d.refreshFromPD(ctx, s) }) })
	}
	sources.Wait()

	s.Queries[gauge.QueryTargets] = targets
	if d.opts.PD != nil {
		s.Queries[gauge.QueryPD] = pd
	}
	if s.PDTime.IsZero() && !now.IsZero() {
		s.Queries[gauge.QueryStoreIDs] = d.query(ctx, gauge.QueryStoreIDs, func() error {
			return d.refreshFromPDSeries(ctx, s, now)
		})
	}

	d.match(s, previous)

	return s
}

// query runs one discovery query and describes how it went. Errors of a canceled refresh are not
// counted.
func (d *Discovery) query(ctx context.Context, q *gauge.Query, run func() error) report.Query {
	start := time.Now()
	err := run()
	described := report.Query{Name: q.Name, Duration: time.Since(start)}
	if err != nil {
		described.Errs = []error{err}
		if !errors.Is(ctx.Err(), context.Canceled) {
			d.opts.CountFailure(q, httpclient.ReasonOf(err))
		}
	}

	return described
}

// refreshTargets updates the targets in s, and sets now to upstream's current time.
func (d *Discovery) refreshTargets(ctx context.Context, s *State, now *time.Time) error {
	current, err := d.now(ctx)
	if err != nil {
		return err
	}
	*now = current

	targets, err := d.finder.Targets(ctx, current)
	if err != nil {
		return err
	}
	s.TargetsKnown = true
	s.rememberTargets(targets, current, d.opts.Lookback)

	return errors.Join(d.refreshNative(ctx, s, current), d.refreshInterval(ctx, s, current))
}

// refreshNative updates which targets have native histograms only.
func (d *Discovery) refreshNative(ctx context.Context, s *State, now time.Time) error {
	native := make(map[*gauge.Query]map[storematch.Identity]bool, len(d.opts.Histograms))
	for _, q := range d.opts.Histograms {
		for _, buckets := range q.Expr.Series() { // A query for buckets has one selector.
			targets, err := d.finder.nativeTargets(ctx, buckets, now)
			if err != nil {
				return err
			}
			native[q] = targets
		}
	}
	s.Native = native

	return nil
}

// refreshInterval updates the scrape interval.
func (d *Discovery) refreshInterval(ctx context.Context, s *State, now time.Time) error {
	if !d.opts.LearnInterval {
		return nil
	}

	interval, err := d.finder.ScrapeInterval(ctx, s.Targets, s.ScrapeInterval, now)
	if err != nil {
		return err
	}
	s.ScrapeInterval = interval

	return nil
}

// rememberTargets sets the targets to those that upstream returned. Known targets that it did not
// return are kept for the lookback after they were last live. Upstream can leave targets out
// without a warning, for example a Thanos that has dropped an endpoint. The stores of such targets
// stay known, and are not monitored.
func (s *State) rememberTargets(returned []storematch.Target, now time.Time, lookback time.Duration) {
	known, before := s.Targets, s.lastLive
	s.Targets, s.lastLive = nil, make(map[storematch.Identity]time.Time, len(returned))
	for _, t := range returned {
		lastLive, ok := before[t.Identity]
		if t.Live || !ok {
			lastLive = now
		}
		s.lastLive[t.Identity] = lastLive
		s.Targets = append(s.Targets, t)
	}

	for _, t := range known {
		_, isReturned := s.lastLive[t.Identity]
		if lastLive := before[t.Identity]; !isReturned && now.Sub(lastLive) <= lookback {
			s.lastLive[t.Identity] = lastLive
			t.Live = false
			s.Targets = append(s.Targets, t)
		}
	}
	s.Targets = storematch.UniqueTargets(s.Targets)
}

// now returns upstream's current time.
func (d *Discovery) now(ctx context.Context) (time.Time, error) {
	if now, known := d.opts.Upstream.Now(); known {
		return now, nil
	}
	result, err := d.opts.Upstream.Query(ctx, "vector(0)", time.Time{})

	return result.EvaluatedAt, err
}

// refreshFromPD updates the stores in s from PD itself.
func (d *Discovery) refreshFromPD(ctx context.Context, s *State) error {
	stores, err := d.opts.PD.Stores(ctx)
	if err != nil {
		if !s.PDTime.IsZero() {
			err = fmt.Errorf("%w: the stores that PD returned %s ago stay in use",
				err, time.Since(s.PDTime).Round(time.Second))
		}

		return err
	}
	s.Stores, s.PDTime, s.Identified = stores, time.Now(), true

	return nil
}

// refreshFromPDSeries updates the stores in s from PD's series in upstream.
func (d *Discovery) refreshFromPDSeries(ctx context.Context, s *State, now time.Time) error {
	stores, err := d.finder.Stores(ctx, now)
	if err != nil {
		// If the query will fail again, no identities will arrive that could change the labels.
		s.Identified = s.Identified || httpclient.ReasonOf(err).Permanent() || d.allConfigured()

		return err
	}

	s.Identified = true
	switch {
	case len(stores) > 0:
		s.Stores, s.PDSeriesTime = stores, time.Now()
	case time.Since(s.PDSeriesTime) > d.opts.Lookback:
		s.Stores = nil // PD's series end for a while when its leader changes: only now they are gone.
	}

	return nil
}

// allConfigured reports whether the configuration identifies every store by ID and address.
func (d *Discovery) allConfigured() bool {
	return d.opts.Configured != nil &&
		!slices.ContainsFunc(d.opts.Configured, func(s storematch.Store) bool { return s.ID == "" })
}

// match matches the stores in s to its targets.
func (d *Discovery) match(s, previous *State) {
	var before []storematch.Match
	if previous != nil {
		before = previous.Matches
	}

	var matches []storematch.Match
	switch {
	case d.opts.Configured != nil:
		stores := storematch.FillMissingFields(d.opts.Configured, s.Stores)
		matches = storematch.MatchStores(stores, s.Targets, before...)
	case !s.PDTime.IsZero():
		matches = storematch.MatchStores(storematch.LatestPerAddress(s.Stores), s.Targets, before...)
	default:
		matches = storematch.MatchTargets(s.Stores, s.Targets, before...)
	}

	kept := min(len(matches), d.opts.StoreLimit)

	s.Matches, s.Dropped = matches[:kept], len(matches)-kept
	s.Queried = nil
	for _, m := range s.Matches {
		if t, ok := m.Target(); ok {
			s.Queried = append(s.Queried, t.Identity)
		}
	}
	slices.SortFunc(s.Queried, storematch.Identity.Compare)
}

// Inherit returns the state that a discovery starts with after a reload of the configuration, so
// that no scrape has to wait for it: what previous knows, as far as it comes from the same upstream
// and the same PD. It is nil if that is nothing.
func (d *Discovery) Inherit(previous *State, sameUpstream, samePD bool) *State {
	switch {
	case previous == nil || !samePD:
		return nil
	case sameUpstream && previous.Usable():
		s := *previous
		d.match(&s, &State{Matches: previous.Matches})

		return &s
	case !previous.PDTime.IsZero():
		return &State{Identified: true, Stores: previous.Stores, PDTime: previous.PDTime, Matches: previous.Matches}
	default:
		return nil
	}
}
