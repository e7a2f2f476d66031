// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/alecthomas/kingpin/v2"

	"github.com/operator-store/operator_store_exporter/config"
	"github.com/operator-store/operator_store_exporter/internal/discovery"
	"github.com/operator-store/operator_store_exporter/internal/gauge"
	"github.com/operator-store/operator_store_exporter/internal/promapi"
)

// Rules is the command rules.
type Rules struct{ config *ConfigFlags }

// AddRules registers the command with app.
func AddRules(app *kingpin.Application, flags *ConfigFlags) *Rules {
	app.Command("rules", "Print a Prometheus rule file that records the same gauges.")

	return &Rules{config: flags}
}

// Run prints the rule file. It queries the upstreams of clusters whose rate window is auto; the
// error is about one that does not return TiKV's scrape interval.
func (r *Rules) Run(ctx context.Context, stdout io.Writer) error {
	cfg, err := r.config.Load()
	if err != nil {
		return err
	}
	lookback := *r.config.lookback

	return gauge.WriteRules(stdout, cfg, lookback, func(cluster config.Cluster) (time.Duration, error) {
		if cluster.RateWindow != config.RateWindowAuto {
			return time.Duration(cluster.RateWindow), nil
		}
		interval, err := scrapeInterval(ctx, cluster, lookback)
		if err != nil {
			return 0, fmt.Errorf("rate_window is auto, but TiKV's scrape interval is unknown: %w: "+
				"set rate_window in the configuration, or make upstream reachable", err)
		}

		return discovery.RateWindow(interval), nil
	})
}

// scrapeInterval returns the interval at which upstream scrapes a cluster's TiKV.
func scrapeInterval(ctx context.Context, cluster config.Cluster, lookback time.Duration) (time.Duration, error) {
	client, err := promapi.New(cluster.Upstream)
	if err != nil {
		return 0, err
	}
	defer client.Close()
	clock, err := client.Query(ctx, "vector(0)", time.Time{})
	if err != nil {
		return 0, err
	}

	finder := discovery.NewFinder(client, cluster.Selector, lookback)
	targets, err := finder.Targets(ctx, clock.EvaluatedAt)
	if err != nil {
		return 0, err
	}
	interval, err := finder.ScrapeInterval(ctx, targets, 0, clock.EvaluatedAt)
	if err == nil && interval == 0 {
		err = errors.New("upstream has no TiKV target with at least two samples")
	}

	return interval, err
}
