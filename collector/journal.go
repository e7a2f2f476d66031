// SPDX-License-Identifier: Apache-2.0

package collector

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-kit/log"
	"github.com/go-kit/log/level"
)

// A problem that lasts, or comes and goes, is logged this often at most.
const repeatAfter = 10 * time.Minute

// journal logs the problems of rounds: each when it is new and when it is over, not once a scrape.
// The zero value works.
type journal struct {
	mu      sync.Mutex
	entries map[string]*entry
}

type entry struct {
	text   string
	logged time.Time // When it was last told.
	open   bool      // It was told and has not been told to be over.
}

// write logs what is new in problems, which are all there are now, and what is over.
func (j *journal) write(logger log.Logger, problems []problem, now time.Time) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.entries == nil {
		j.entries = map[string]*entry{}
	}
	current := map[string]bool{}
	problems = slices.SortedFunc(slices.Values(problems), func(a, b problem) int { return strings.Compare(a.text, b.text) })
	for _, p := range problems {
		fresh := false
		for _, key := range p.keys {
			current[key] = true
			e := j.entries[key]
			fresh = fresh || e == nil || now.Sub(e.logged) >= repeatAfter
		}
		if !fresh {
			continue
		}
		level.Warn(logger).Log("msg", p.text)
		for _, key := range p.keys {
			j.entries[key] = &entry{text: p.text, logged: now, open: true}
		}
	}
	over, lasting := map[string]bool{}, map[string]bool{}
	for key, e := range j.entries {
		switch {
		case current[key]:
			lasting[e.text] = true
			continue
		case e.open:
			e.open = false
			over[e.text] = true
		}
		if now.Sub(e.logged) >= repeatAfter {
			delete(j.entries, key)
		}
	}
	for _, text := range slices.Sorted(maps.Keys(over)) {
		if !lasting[text] {
			level.Info(logger).Log("msg", "over: "+text)
		}
	}
}
