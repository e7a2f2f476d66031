// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"time"

	"github.com/operator-store/operator_store_exporter/config"
	"github.com/operator-store/operator_store_exporter/internal/display"
	"github.com/operator-store/operator_store_exporter/internal/pd"
	"github.com/operator-store/operator_store_exporter/internal/promapi"
)

// maxClockDifference is by how much two clocks may differ. A larger difference makes the ages that
// the federation computes wrong.
const maxClockDifference = 5 * time.Second

// checkServers queries each server of upstream. It reports whether one of them responds.
func (c *checker) checkServers(ctx context.Context) (responds bool) {
	var errs []error
	for _, url := range c.cluster.Upstream.URL {
		server := c.cluster.Upstream
		server.URL = config.URLs{url}
		if err := c.checkServer(ctx, server); err != nil {
			errs = append(errs, err)

			continue
		}
		responds = true
	}

	outcome := Fail
	if responds {
		outcome = Warn // Another server is used instead.
	}

	for _, err := range errs {
		c.add(outcome, nameUpstream, "%s", err)
	}

	return responds
}

// checkServer queries the only server of an upstream.
func (c *checker) checkServer(ctx context.Context, server config.Upstream) error {
	client, err := promapi.New(server)
	if err != nil {
		return err
	}
	defer client.Close()

	start := time.Now()
	result, err := client.Query(ctx, "vector(1)", time.Time{})
	if err != nil {
		return err
	}
	duration := time.Since(start)
	now := result.EvaluatedAt
	c.now = now

	url := server.URL[0].Redacted()
	c.add(OK, nameUpstream, "%s responds in %s", url, duration.Round(time.Millisecond))
	// The server read its clock at some time during the request.
	if difference := now.Sub(start); difference > duration+maxClockDifference || difference < -maxClockDifference {
		c.add(Warn, nameClock, "%s differs from the local clock by %s: synchronize both with the same NTP servers",
			url, difference.Round(time.Second))
	}

	return nil
}

// checkPD queries PD, if it is configured.
func (c *checker) checkPD(ctx context.Context) {
	if c.cluster.PD == nil {
		return
	}
	client, err := pd.New(*c.cluster.PD)
	if err != nil {
		c.add(Fail, namePD, "%s", err)

		return
	}
	defer client.Close()

	stores, err := client.Stores(ctx)
	if err != nil {
		c.add(Fail, namePD, "%s", err)

		return
	}
	c.add(OK, namePD, "PD returned %s", display.Plural(len(stores), "TiKV store"))
}
