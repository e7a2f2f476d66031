// SPDX-License-Identifier: Apache-2.0

package scrape

import (
	"context"
	"errors"
	"sync"
	"time"
)

// A Sharer lets concurrent scrapes share one call, so that two Prometheus servers that scrape the
// exporter cost upstream no more than one. The zero Sharer is ready to use.
//
// A scrape joins the call in progress if two conditions hold: the call ends by the scrape's own
// deadline, and it has at least half as much time left as the scrape has. For example, a call
// starts with a timeout of 10 s.
//
//   - A scrape with a timeout of 10 s that comes 1 s later joins it. The call has 9 s left, ends
//     before the scrape's deadline, and 9 s is more than half of 10 s.
//   - A scrape with a timeout of 5 s that comes 1 s later does not join, because the call may end
//     after the scrape's deadline.
//   - A scrape with a timeout of 10 s that comes 8 s later does not join, because the call has only
//     2 s left. A slow query would fail in the call, for which a new call would have the time.
//
// A call does not belong to the scrape that started it. It goes on as long as any scrape waits for
// it, and is canceled when the last one has been canceled.
type Sharer[T any] struct {
	mu      sync.Mutex
	current *call[T] // The call that further scrapes may join; nil if there is none.
}

// call is a call in progress.
type call[T any] struct {
	deadline time.Time
	cancel   context.CancelFunc
	waiters  int           // Protected by the Sharer's mutex.
	done     chan struct{} // Closed when result is set.
	result   T
}

// Do returns the result of the call in progress if ctx may join it, otherwise of a new call of run.
// The result is the zero T if ctx is canceled before its deadline.
func (s *Sharer[T]) Do(ctx context.Context, run func(context.Context) T) T {
	c := s.join(ctx, run)
	select {
	case <-c.done:
		return c.result
	case <-ctx.Done():
	}

	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		// The call's deadline is not later than ctx's: it is about to return.
		<-c.done

		return c.result
	}

	s.leave(c)
	var none T

	return none
}

// join returns the call to wait for. It starts one if ctx may not join the one in progress.
func (s *Sharer[T]) join(ctx context.Context, run func(context.Context) T) *call[T] {
	s.mu.Lock()
	defer s.mu.Unlock()
	deadline, bounded := ctx.Deadline()
	if c := s.current; c != nil && (!bounded || c.serves(deadline)) {
		c.waiters++

		return c
	}

	// The call may outlive the scrape that starts it.
	callCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	if bounded {
		cancel()
		callCtx, cancel = context.WithDeadline(context.WithoutCancel(ctx), deadline)
	}

	c := &call[T]{deadline: deadline, cancel: cancel, waiters: 1, done: make(chan struct{})}
	s.current = c
	go func() {
		defer cancel()
		c.result = run(callCtx)

		s.mu.Lock()
		if s.current == c {
			s.current = nil
		}
		s.mu.Unlock()
		close(c.done)
	}()

	return c
}

// serves reports whether a scrape with the given deadline may join the call.
func (c *call[T]) serves(deadline time.Time) bool {
	now := time.Now()

	return !c.deadline.After(deadline) && c.deadline.Sub(now) >= deadline.Sub(now)/2
}

// leave stops waiting. The last one to leave cancels the call and waits until it has ended.
func (s *Sharer[T]) leave(c *call[T]) {
	s.mu.Lock()
	c.waiters--
	last := c.waiters == 0
	if last && s.current == c {
		s.current = nil
	}
	s.mu.Unlock()

	if last {
		c.cancel()
		<-c.done
	}
}
