// SPDX-License-Identifier: Apache-2.0

// Package reload swaps the exporter for one of a newer configuration.
package reload

import (
	"sync"
	"sync/atomic"

	"github.com/go-kit/log"
	"github.com/go-kit/log/level"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/operator-store/operator_store_exporter/collector"
)

// Build makes an exporter of the configuration as it is now. Previous is the one to be replaced, nil the
// first time.
type Build func(previous *collector.Exporter) (*collector.Exporter, error)

// Reloader holds the exporter of the last configuration that was good. It is safe for concurrent use.
type Reloader struct {
	build   Build
	logger  log.Logger
	current atomic.Pointer[collector.Exporter]
	mu      sync.Mutex // One reload at a time.

	successful prometheus.Gauge
	timestamp  prometheus.Gauge
}

// New builds the first exporter and registers the metrics about reloads. The error is Build's.
func New(build Build, registry prometheus.Registerer, logger log.Logger) (*Reloader, error) {
	r := &Reloader{
		build:  build,
		logger: logger,
		successful: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "operator_store_exporter_config_last_reload_successful",
			Help: "Whether the last attempt to read the configuration succeeded.",
		}),
		timestamp: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "operator_store_exporter_config_last_reload_success_timestamp_seconds",
			Help: "When the configuration was last read with success, as a Unix time.",
		}),
	}
	registry.MustRegister(r.successful, r.timestamp)
	return r, r.swap()
}

// Exporter returns the exporter in use. A scrape that has begun finishes on the one it began with.
func (r *Reloader) Exporter() *collector.Exporter { return r.current.Load() }

// Reload builds a new exporter and puts it to use. An error leaves the old one in use. The log is told either way.
func (r *Reloader) Reload() error {
	err := r.swap()
	if err != nil {
		level.Error(r.logger).Log("msg", "The configuration was not reloaded, the old one stays in use", "err", err)
		return err
	}
	level.Info(r.logger).Log("msg", "The configuration was reloaded")
	return nil
}

func (r *Reloader) swap() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	previous := r.current.Load()
	next, err := r.build(previous)
	if err != nil {
		r.successful.Set(0)
		return err
	}
	r.current.Store(next)
	r.successful.Set(1)
	r.timestamp.SetToCurrentTime()
	if previous != nil {
		previous.Close()
	}
	return nil
}
