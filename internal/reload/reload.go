// SPDX-License-Identifier: Apache-2.0

// Package reload replaces the running exporter when the configuration changes.
package reload

import (
	"sync"

	"github.com/go-kit/log"
	"github.com/go-kit/log/level"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/operator-store/operator_store_exporter/collector"
)

// Build creates an exporter from the configuration as it is now. Previous is the exporter to
// replace; nil the first time.
type Build func(previous *collector.Exporter) (*collector.Exporter, error)

// A Reloader holds the exporter of the last valid configuration. It is safe for concurrent use.
type Reloader struct {
	build  Build
	logger log.Logger

	reloads sync.Mutex // One reload at a time.
	mu      sync.RWMutex
	current *generation // Protected by mu.
	closing sync.WaitGroup

	successful prometheus.Gauge
	timestamp  prometheus.Gauge
}

// generation is the exporter of one configuration, with those who use it.
type generation struct {
	*collector.Exporter
	users sync.WaitGroup
}

// New builds the first exporter and registers the metrics about reloads. The error is Build's.
func New(build Build, registry prometheus.Registerer, logger log.Logger) (*Reloader, error) {
	r := &Reloader{
		build:  build,
		logger: logger,
		successful: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "operator_store_exporter_config_last_reload_successful",
			Help: "Whether the last attempt to load the configuration succeeded.",
		}),
		timestamp: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "operator_store_exporter_config_last_reload_success_timestamp_seconds",
			Help: "Unix time of the last successful load of the configuration.",
		}),
	}
	registry.MustRegister(r.successful, r.timestamp)
	return r, r.swap()
}

// Acquire returns the exporter of the current configuration. It stays open until release is
// called, so that a scrape finishes with the configuration that it started with.
func (r *Reloader) Acquire() (e *collector.Exporter, release func()) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	current := r.current
	current.users.Add(1) // Under the lock, so that it is not retired yet: nothing waits for its users.

	return current.Exporter, current.users.Done
}

// Close closes the exporter once all of its users have released it. Reload must not be called
// afterwards.
func (r *Reloader) Close() {
	r.retire(r.current)
	r.closing.Wait()
}

// retire closes an exporter that can no longer be acquired, once all of its users have released it.
func (r *Reloader) retire(e *generation) {
	r.closing.Go(func() {
		e.users.Wait()
		e.Close()
	})
}

// Reload builds a new exporter and replaces the current one. On an error the current one stays in
// use. The outcome is logged.
func (r *Reloader) Reload() error {
	if err := r.swap(); err != nil {
		_ = level.Error(r.logger).Log("msg", "configuration not reloaded, the previous one stays in use", "err", err)

		return err
	}
	_ = level.Info(r.logger).Log("msg", "configuration reloaded")

	return nil
}

func (r *Reloader) swap() error {
	r.reloads.Lock()
	defer r.reloads.Unlock()
	previous := r.current
	var before *collector.Exporter
	if previous != nil {
		before = previous.Exporter
	}
	next, err := r.build(before)
	if err != nil {
		r.successful.Set(0)
		return err
	}
	r.mu.Lock()
	r.current = &generation{Exporter: next}
	r.mu.Unlock()
	r.successful.Set(1)
	r.timestamp.SetToCurrentTime()
	if previous != nil {
		r.retire(previous)
	}

	return nil
}
