// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"

	"github.com/operator-store/operator_store_exporter/collector"
	"github.com/operator-store/operator_store_exporter/config"
	"github.com/operator-store/operator_store_exporter/internal/display"
	"github.com/operator-store/operator_store_exporter/internal/report"
)

// checkScrape scrapes the cluster once, and checks the result.
func (c *checker) checkScrape(ctx context.Context) {
	exporter, err := collector.New(
		&config.Config{Clusters: []config.Cluster{c.cluster}}, collector.Options{Lookback: c.lookback})
	if err != nil {
		c.add(Fail, nameQueries, "%s", err)

		return
	}
	defer exporter.Close()
	scrape, err := exporter.Scrape(ctx)
	if err != nil {
		c.add(Fail, nameQueries, "%s", err)

		return
	}

	for _, r := range scrape.Reports() {
		c.checkStores(&r)
		c.checkQueries(&r)
		c.checkGauges(ctx, &r)
	}
}

// checkQueries checks that every query of a scrape succeeded.
func (c *checker) checkQueries(r *report.Report) {
	if r.UpstreamUp {
		c.add(OK, nameQueries, "%s succeeded", display.Plural(len(r.Queries), "query"))

		return
	}

	for _, p := range r.Problems {
		switch p.Kind {
		case report.ProblemQueryFailed, report.ProblemResponseRejected, report.ProblemPartialResponse:
			c.add(Fail, nameQueries, "%s", p)
		}
	}
}
