// SPDX-License-Identifier: Apache-2.0

// Package doctor checks the setup between the exporter and its upstreams.
//
// It sends the queries of a scrape, and more queries that explain why a scrape returns less than it
// could.
package doctor

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/prometheus/promql"

	"github.com/operator-store/operator_store_exporter/config"
	"github.com/operator-store/operator_store_exporter/internal/promapi"
	"github.com/operator-store/operator_store_exporter/internal/storematch"
)

// Outcome is the outcome of a check.
type Outcome string

// The outcomes.
const (
	OK   Outcome = "ok"
	Warn Outcome = "warn" // Gauges are missing or may go missing; this can be intentional.
	Fail Outcome = "FAIL"
)

// The names of the checks.
const (
	nameUpstream    = "upstream"
	nameClock       = "clock"
	namePD          = "pd"
	nameTargets     = "targets"
	nameRateWindow  = "rate_window"
	nameQueryOffset = "query_offset"
	nameStores      = "stores"
	nameQueries     = "queries"
	nameGauges      = "gauges"
)

// Names returns the names of all checks, in the order in which they run.
func Names() []string {
	return []string{
		nameUpstream, nameClock, namePD, nameTargets, nameRateWindow, nameQueryOffset, nameStores,
		nameQueries, nameGauges,
	}
}

// Check is the result of one check.
type Check struct {
	Outcome Outcome
	Name    string
	Text    string // What was found, and what to change.
}

// Options are the settings that are not part of the configuration file.
type Options struct {
	Lookback time.Duration // How long a store stays known after upstream last had samples of it.
}

// CheckCluster checks one cluster, by ctx's deadline at the latest. If a check fails, those that
// depend on it are left out.
func CheckCluster(ctx context.Context, cluster config.Cluster, opts Options) []Check {
	c := &checker{cluster: cluster, lookback: opts.Lookback}
	c.run(ctx)

	return c.checks
}

// checker runs the checks of one cluster.
type checker struct {
	cluster  config.Cluster
	lookback time.Duration
	checks   []Check

	upstream *promapi.Client
	now      time.Time // By upstream's clock.
	targets  []storematch.Target
}

func (c *checker) run(ctx context.Context) {
	responds := c.checkServers(ctx)
	c.checkPD(ctx)
	if !responds || !c.connect() {
		return
	}
	defer c.upstream.Close()

	if c.checkTargets(ctx) {
		c.checkQueryOffset(ctx, c.checkRateWindow(ctx))
		c.checkScrape(ctx)
	}
}

func (c *checker) add(outcome Outcome, name, format string, args ...any) {
	c.checks = append(c.checks, Check{Outcome: outcome, Name: name, Text: fmt.Sprintf(format, args...)})
}

// connect creates the client for all further queries.
func (c *checker) connect() bool {
	client, err := promapi.New(c.cluster.Upstream)
	if err != nil {
		c.add(Fail, nameUpstream, "%s", err)

		return false
	}
	c.upstream = client

	return true
}

// query evaluates an expression at the time of the checks.
func (c *checker) query(ctx context.Context, expression string) (promql.Vector, error) {
	result, err := c.upstream.Query(ctx, expression, c.now)

	return result.Vector, err
}

// targetsPage returns the URL of the page on which Prometheus shows why scrapes fail.
func (c *checker) targetsPage() string {
	active, _ := c.upstream.Servers()

	return active + "/targets"
}
