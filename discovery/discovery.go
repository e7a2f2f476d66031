// SPDX-License-Identifier: Apache-2.0

// Package discovery keeps the list of the TiKV targets that upstream has seen lately.
package discovery

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/operator-store/operator_store_exporter/expr"
	"github.com/operator-store/operator_store_exporter/stores"
)

// What makes a target a TiKV: it exports one of these, one series each.
var signs = []string{
	`tikv_store_size_bytes{type="available"}`,
	`tikv_server_info`,
}

// Source is the part of upstream that discovery asks.
type Source interface {
	Series(ctx context.Context, matchers []string, start, end time.Time) ([]model.LabelSet, error)
}

// Targets is the list of targets. It is safe for concurrent use.
type Targets struct {
	source   Source
	matchers []string
	lookback time.Duration

	mu    sync.Mutex
	list  []stores.Target
	known bool
}

// New returns a list, empty before its first refresh, of the targets whose series match selector and
// were seen within lookback.
func New(source Source, selector []*labels.Matcher, lookback time.Duration) *Targets {
	t := &Targets{source: source, lookback: lookback}
	for _, sign := range signs {
		t.matchers = append(t.matchers, expr.MustParse(sign).With(selector, nil))
	}
	return t
}

// List returns the targets of the last refresh that succeeded, and false if there was none yet.
func (t *Targets) List() (targets []stores.Target, known bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.list, t.known
}

// Refresh asks upstream for the targets, now being upstream's time. An error leaves the list as it was.
func (t *Targets) Refresh(ctx context.Context, now time.Time) error {
	series, err := t.source.Series(ctx, t.matchers, now.Add(-t.lookback), now)
	if err != nil {
		return err
	}
	seen := make(map[stores.Target]bool)
	var list []stores.Target
	for _, s := range series {
		target := stores.Target{Job: string(s[model.JobLabel]), Instance: string(s[model.InstanceLabel])}
		if !seen[target] {
			seen[target] = true
			list = append(list, target)
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.list, t.known = list, true
	return nil
}
