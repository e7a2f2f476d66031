// SPDX-License-Identifier: Apache-2.0

package discovery

import (
	"context"
	"sync"
	"time"
)

// A Refresher keeps the state of a discovery, and refreshes it in the background when a scrape
// finds it older than the interval. Refreshes never run concurrently.
type Refresher struct {
	refresh  func(context.Context, *State) *State
	interval time.Duration
	timeout  time.Duration // Of one refresh.
	cancel   context.CancelFunc
	ctx      context.Context //nolint:containedctx // The lifetime of refreshes, which outlive the scrapes.

	mu      sync.Mutex
	current *State
	started time.Time     // Start of the last refresh.
	running chan struct{} // Closed when the refresh in progress ends; nil if there is none.
}

// NewRefresher returns a refresher that starts with an initial state, which may be nil. Refresh is
// called with the previous state.
func NewRefresher(
	refresh func(context.Context, *State) *State, initial *State, interval, timeout time.Duration,
) *Refresher {
	ctx, cancel := context.WithCancel(context.Background())

	return &Refresher{
		refresh: refresh, current: initial, interval: interval, timeout: timeout, ctx: ctx, cancel: cancel,
	}
}

// Get returns the last state, and starts a refresh if it is due. Only while no state is usable, it
// waits for the refresh, until ctx ends; then it returns nil.
func (r *Refresher) Get(ctx context.Context) *State {
	r.mu.Lock()
	current := r.current
	usable := current.Usable()
	due := !usable || time.Since(r.started) >= r.interval
	if due && r.running == nil && r.ctx.Err() == nil {
		r.start() //nolint:contextcheck // The refresh outlives the scrape.
	}
	running := r.running
	r.mu.Unlock()

	if usable || running == nil {
		return current
	}

	select {
	case <-running:
		return r.Last()
	case <-ctx.Done():
		return nil
	}
}

// Last returns the last state; nil if there is none.
func (r *Refresher) Last() *State {
	r.mu.Lock()
	defer r.mu.Unlock()

	return r.current
}

// start starts a refresh. The caller holds the lock.
func (r *Refresher) start() {
	done := make(chan struct{})
	r.running, r.started = done, time.Now()
	previous := r.current
	go func() {
		ctx, cancel := context.WithTimeout(r.ctx, r.timeout)
		defer cancel()
		next := r.refresh(ctx, previous)

		r.mu.Lock()
		defer r.mu.Unlock()
		r.current, r.running = next, nil
		close(done)
	}()
}

// Close cancels the refresh in progress and waits for its end. No further one starts.
func (r *Refresher) Close() {
	r.cancel()
	r.mu.Lock()
	running := r.running
	r.mu.Unlock()

	if running != nil {
		<-running
	}
}
