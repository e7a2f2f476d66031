// SPDX-License-Identifier: Apache-2.0

package collector

import (
	"context"
	"errors"
	"sync"
	"time"
)

// coalescer lets scrapes that come at the same time share one round, so that two Prometheus servers
// scraping us cost upstream what one costs. The zero value works.
type coalescer struct {
	mu     sync.Mutex
	flight *flight
}

// A flight is a round that is under way.
type flight struct {
	deadline  time.Time
	cancel    context.CancelFunc
	listeners int           // Protected by the coalescer's mutex.
	landed    chan struct{} // Closed when round is there.
	round     *round
}

// join returns the round that is under way, if it ends by ctx's deadline and has at least half of the
// time that a round of ctx's own would have; else that of a new call of run. A round is cancelled when
// nobody waits for it any more. The result is nil if ctx is cancelled before its deadline.
func (c *coalescer) join(ctx context.Context, run func(context.Context) *round) *round {
	f := c.board(ctx, run)
	select {
	case <-f.landed:
		return f.round
	case <-ctx.Done():
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		// The round's own deadline is no later. It is about to return what has arrived.
		<-f.landed
		return f.round
	}
	c.leave(f)
	return nil
}

func (c *coalescer) board(ctx context.Context, run func(context.Context) *round) *flight {
	c.mu.Lock()
	defer c.mu.Unlock()
	deadline, bounded := ctx.Deadline()
	if f := c.flight; f != nil {
		now := time.Now()
		if !bounded || !f.deadline.After(deadline) && f.deadline.Sub(now) >= deadline.Sub(now)/2 {
			f.listeners++
			return f
		}
	}
	// The round outlives the scrape that began it as long as another one listens.
	flightCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	if bounded {
		cancel()
		flightCtx, cancel = context.WithDeadline(context.WithoutCancel(ctx), deadline)
	}
	f := &flight{deadline: deadline, cancel: cancel, listeners: 1, landed: make(chan struct{})}
	c.flight = f
	go func() {
		defer cancel()
		f.round = run(flightCtx)
		c.mu.Lock()
		if c.flight == f {
			c.flight = nil
		}
		c.mu.Unlock()
		close(f.landed)
	}()
	return f
}

// leave stops listening. The last to leave ends the flight, and waits until it has ended.
func (c *coalescer) leave(f *flight) {
	c.mu.Lock()
	f.listeners--
	last := f.listeners == 0
	if last && c.flight == f {
		c.flight = nil
	}
	c.mu.Unlock()
	if last {
		f.cancel()
		<-f.landed
	}
}
