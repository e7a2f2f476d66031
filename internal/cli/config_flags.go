// SPDX-License-Identifier: Apache-2.0

// Package cli implements the subcommands of the command line.
package cli

import (
	"errors"
	"fmt"
	"time"

	"github.com/alecthomas/kingpin/v2"

	"github.com/operator-store/operator_store_exporter/collector"
	"github.com/operator-store/operator_store_exporter/config"
)

// ConfigFlags are the flags from which all commands get the configuration: a file, or the upstream
// of a single cluster.
type ConfigFlags struct {
	file *string

	cluster     *string
	upstreamURL *string
	// Whether the flags of the single cluster were given. Their defaults do not conflict with a
	// file.
	clusterSet, upstreamURLSet bool

	lookback *time.Duration
	interval *time.Duration
}

// AddConfigFlags registers the flags with app, which sets them when it parses the command line.
func AddConfigFlags(app *kingpin.Application) *ConfigFlags {
	f := &ConfigFlags{}
	f.file = app.Flag("config.file", "Configuration file. Without it, the exporter serves a single cluster.").
		PlaceHolder("FILE").String()
	f.cluster = app.Flag("cluster", "Name of the single cluster. Only without --config.file.").
		IsSetByUser(&f.clusterSet).Default("default").String()
	f.upstreamURL = app.Flag("upstream.url", "URL of the Prometheus that scrapes TiKV. Only without --config.file.").
		IsSetByUser(&f.upstreamURLSet).Default("http://localhost:9090").String()
	f.lookback = app.Flag("discovery.lookback", "How long a store stays known after upstream last had samples of it.").
		Default("1h").Duration()
	f.interval = app.Flag("discovery.interval", "Store discovery interval.").
		Default("30s").Duration()

	return f
}

// Load returns the configuration as it is now. The error says which flag or which line of the file
// is invalid.
func (f *ConfigFlags) Load() (*config.Config, error) {
	if err := requirePositive(
		durationFlag{name: "--discovery.lookback", value: *f.lookback},
		durationFlag{name: "--discovery.interval", value: *f.interval},
	); err != nil {
		return nil, err
	}

	switch {
	case *f.file == "":
		cfg, err := config.SingleCluster(*f.cluster, *f.upstreamURL)
		if err != nil {
			return nil, fmt.Errorf("--cluster=%s with --upstream.url: %w", *f.cluster, err)
		}

		return cfg, nil
	case f.clusterSet || f.upstreamURLSet:
		return nil, errors.New(
			"--cluster and --upstream.url can't be combined with --config.file: move them into the file")
	default:
		return config.LoadFile(*f.file)
	}
}

// NewExporter returns an exporter for the configuration as it is now. The flags override opts.
func (f *ConfigFlags) NewExporter(opts collector.Options) (*collector.Exporter, error) {
	cfg, err := f.Load()
	if err != nil {
		return nil, err
	}
	opts.Lookback, opts.Interval = *f.lookback, *f.interval

	return collector.New(cfg, opts)
}

// durationFlag is a flag with its value.
type durationFlag struct {
	name  string
	value time.Duration
}

// requirePositive returns an error for each flag that is not positive, in the order of the flags.
func requirePositive(flags ...durationFlag) error {
	var errs []error
	for _, f := range flags {
		if f.value <= 0 {
			errs = append(errs, fmt.Errorf("%s=%s: must be a positive duration", f.name, f.value))
		}
	}

	return errors.Join(errs...)
}
