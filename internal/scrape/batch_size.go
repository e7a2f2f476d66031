// SPDX-License-Identifier: Apache-2.0

package scrape

import (
	"sync"
	"time"

	"github.com/operator-store/operator_store_exporter/internal/gauge"
)

// probeInterval is how long a batch size that upstream rejected is not tried again.
const probeInterval = 10 * time.Minute

// batchSizes remembers how many targets upstream accepts in one query, if it rejects larger queries
// for their size or cost. It is learned by halving: a batch that is rejected is split in two and
// sent again within the same scrape, and the next scrapes start with half of the smallest size that
// was rejected. The limit may have been raised since, or the stores may have fewer series, so twice
// the size is used after each probeInterval, until it is rejected.
//
// For example, upstream accepts four targets, and a batch has 16. The first scrape learns the size
// 8 from the request about 16, and 4 from the requests about 8. A scrape ten minutes later doubles
// the size to 8. If upstream rejects that, the size is 4 again for ten minutes, otherwise it stays
// 8 until it is doubled again.
//
// It is safe for concurrent use. The zero value has not learned any limit.
type batchSizes struct {
	mu     sync.Mutex
	limits map[*gauge.Query]batchLimit
}

// batchLimit is the size of the largest batch that is sent.
type batchLimit struct {
	size    int
	retryAt time.Time // When the size is doubled.
}

// limit returns the size of the parts into which to cut a batch of n targets: n if no smaller limit
// is known.
// When it is time to probe for a larger size, limit doubles the size that it remembers.
func (s *batchSizes) limit(q *gauge.Query, n int, now time.Time) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, ok := s.limits[q]
	if !ok || n <= l.size {
		return n
	}
	if !now.Before(l.retryAt) {
		l = batchLimit{size: 2 * l.size, retryAt: now.Add(probeInterval)}
		s.limits[q] = l
	}

	return min(n, l.size)
}

// rejected remembers that upstream rejected a query about n targets, more than one.
func (s *batchSizes) rejected(q *gauge.Query, n int, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.limits == nil {
		s.limits = map[*gauge.Query]batchLimit{}
	}
	half := halfOf(n)
	if l, ok := s.limits[q]; !ok || half < l.size {
		s.limits[q] = batchLimit{size: half, retryAt: now.Add(probeInterval)}
	}
}

// halfOf returns the size of the larger half of n targets.
func halfOf(n int) int { return (n + 1) / 2 }
