// SPDX-License-Identifier: Apache-2.0

package collector

import (
	"context"
	"sync"
	"time"
)

// background keeps what was found, and lets it be found out anew in the background of scrapes, never
// twice at a time.
type background struct {
	interval time.Duration // How old it may grow before it is found out anew.
	timeout  time.Duration // Of one time.
	cancel   context.CancelFunc
	ctx      context.Context //nolint:containedctx // The life of what goes on in the background, which no scrape bounds.

	mu      sync.Mutex
	current *found
	at      time.Time     // When the last time began.
	running chan struct{} // Closed when the one under way ends; nil if there is none.
}

func newBackground(interval, timeout time.Duration) background {
	ctx, cancel := context.WithCancel(context.Background())
	return background{interval: interval, timeout: timeout, ctx: ctx, cancel: cancel}
}

// get returns what was found last. Only while nothing is known it waits, until ctx ends; then it is nil.
func (b *background) get(ctx context.Context, find func(context.Context, *found) *found) *found {
	b.mu.Lock()
	current := b.current
	known := current.usable()
	if b.running == nil && b.ctx.Err() == nil && (!known || time.Since(b.at) >= b.interval) {
		b.start(find) //nolint:contextcheck // It outlives the scrape.
	}
	running := b.running
	b.mu.Unlock()
	if known || running == nil {
		return current
	}
	select {
	case <-running:
		return b.last()
	case <-ctx.Done():
		return nil
	}
}

// last is what was found last, nil if nothing was.
func (b *background) last() *found {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.current
}

// start starts finding out in the background. The caller holds the lock.
func (b *background) start(find func(context.Context, *found) *found) {
	done := make(chan struct{})
	b.running, b.at = done, time.Now()
	previous := b.current
	go func() {
		ctx, cancel := context.WithTimeout(b.ctx, b.timeout)
		defer cancel()
		next := find(ctx, previous)
		b.mu.Lock()
		defer b.mu.Unlock()
		b.current, b.running = next, nil
		close(done)
	}()
}

// close ends what is under way, and waits for its end.
func (b *background) close() {
	b.cancel()
	b.mu.Lock()
	running := b.running
	b.mu.Unlock()
	if running != nil {
		<-running
	}
}
