// SPDX-License-Identifier: Apache-2.0

package collector

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/go-kit/log"
	"github.com/go-kit/log/level"

	"github.com/operator-store/operator_store_exporter/internal/report"
)

// logAgainAfter is how often a problem is logged at most, whether it lasts or comes and goes.
const logAgainAfter = 10 * time.Minute

// problemLog logs the problems of a cluster when they occur and when they are resolved, instead of
// on every scrape.
type problemLog struct {
	logger log.Logger

	mu      sync.Mutex
	entries map[string]*logEntry // By the problems' keys.
}

// logEntry is a problem that was logged.
type logEntry struct {
	problem  report.Problem
	text     string // Of the problem.
	loggedAt time.Time
	open     bool // It has not been logged as resolved.
}

// log logs which of problems, which are all that exist now, are new, in their order, and which are
// resolved.
func (l *problemLog) log(problems []report.Problem, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.entries == nil {
		l.entries = map[string]*logEntry{}
	}

	current := map[string]bool{}
	for _, p := range problems {
		isNew := false
		for _, key := range p.Keys() {
			current[key] = true
			e := l.entries[key]
			isNew = isNew || e == nil || now.Sub(e.loggedAt) >= logAgainAfter
		}
		if !isNew {
			continue
		}

		_ = level.Warn(l.logger).Log(append([]any{"msg", p.Message()}, p.LogFields()...)...)

		entry := logEntry{problem: p, text: p.String(), loggedAt: now, open: true}
		for _, key := range p.Keys() {
			l.entries[key] = new(entry)
		}
	}

	l.logResolved(current, now)
}

// logResolved logs the problems none of whose keys are current, and forgets those that were logged
// long ago.
func (l *problemLog) logResolved(current map[string]bool, now time.Time) {
	resolved, lasting := map[string]report.Problem{}, map[string]bool{}
	for key, e := range l.entries {
		if current[key] {
			lasting[e.text] = true

			continue
		}
		if e.open {
			e.open = false
			resolved[e.text] = e.problem
		}
		if now.Sub(e.loggedAt) >= logAgainAfter {
			delete(l.entries, key)
		}
	}

	for _, text := range slices.Sorted(maps.Keys(resolved)) {
		if !lasting[text] {
			p := resolved[text]
			_ = level.Info(l.logger).Log(append([]any{"msg", "resolved: " + p.Message()}, p.LogFields()...)...)
		}
	}
}
