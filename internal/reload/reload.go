// SPDX-License-Identifier: Apache-2.0

// Package reload swaps the exporter for one of a newer configuration.
package reload

import (
	"context"
	"sync"

	"github.com/go-kit/log"
	"github.com/go-kit/log/level"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/operator-store/operator_store_exporter/collector"
	"github.com/operator-store/operator_store_exporter/config"
)

// Build makes an exporter of the configuration as it is now. Previous is the one to be replaced, nil the
// first time.
type Build func(previous *collector.Exporter) (*collector.Exporter, error)

// Reloader holds the exporter of the last configuration that was good. It is safe for concurrent use.
type Reloader struct {
	build  Build
	logger log.Logger

	reloads sync.Mutex // One reload at a time.
	mu      sync.RWMutex
	current *inUse // Protected by mu.
	closing sync.WaitGroup

	successful prometheus.Gauge
	timestamp  prometheus.Gauge
}

// inUse is an exporter with the scrapes that are under way on it.
type inUse struct {
	*collector.Exporter
	scrapes sync.WaitGroup
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

// Scrape scrapes the named clusters, all of them if none is named, as collector.Exporter does. It finishes on the
// configuration that it began with.
func (r *Reloader) Scrape(ctx context.Context, clusters ...string) (*collector.Collector, error) {
	e := r.use()
	defer e.scrapes.Done()
	return e.Scrape(ctx, clusters...)
}

// Report is Scrape for people.
func (r *Reloader) Report(ctx context.Context, clusters ...string) ([]collector.Report, error) {
	e := r.use()
	defer e.scrapes.Done()
	return e.Report(ctx, clusters...)
}

// use returns the exporter for one scrape, which says when it is done.
func (r *Reloader) use() *inUse {
	r.mu.RLock()
	defer r.mu.RUnlock()
	r.current.scrapes.Add(1) // Under the lock: nobody waits for the scrapes of an exporter that is in use.
	return r.current
}

// Config is the configuration that is in use.
func (r *Reloader) Config() *config.Config {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.current.Config()
}

// Clusters returns the names of the clusters.
func (r *Reloader) Clusters() []string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.current.Clusters()
}

// Close ends everything once the scrapes under way are through. There must be no Reload any more.
func (r *Reloader) Close() {
	r.retire(r.current)
	r.closing.Wait()
}

// retire closes an exporter that is not to be used any more, once its scrapes are through.
func (r *Reloader) retire(e *inUse) {
	r.closing.Go(func() {
		e.scrapes.Wait()
		e.Close()
	})
}

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
	r.current = &inUse{Exporter: next}
	r.mu.Unlock()
	r.successful.Set(1)
	r.timestamp.SetToCurrentTime()
	if previous != nil {
		r.retire(previous)
	}
	return nil
}
