// SPDX-License-Identifier: Apache-2.0

package discovery_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/operator-store/operator_store_exporter/internal/discovery"
)

const (
	interval = time.Minute
	timeout  = 30 * time.Second
)

// usable is a state that gauges can be exposed with.
func usable() *discovery.State { return &discovery.State{TargetsKnown: true, Identified: true} }

// refreshes counts the refreshes of a Refresher, and verifies that they do not run concurrently.
type refreshes struct {
	t        *testing.T
	duration time.Duration
	result   func(previous *discovery.State) *discovery.State // Nil for a new usable state.

	started atomic.Int32
	running atomic.Int32
	ctxErr  error // Of the last refresh that was interrupted.
}

func (r *refreshes) refresh(ctx context.Context, previous *discovery.State) *discovery.State {
	r.started.Add(1)
	if r.running.Add(1) > 1 {
		r.t.Error("two refreshes run at once")
	}
	defer r.running.Add(-1)

	select {
	case <-time.After(r.duration):
	case <-ctx.Done():
		r.ctxErr = ctx.Err()
	}
	if r.result != nil {
		return r.result(previous)
	}

	return usable()
}

// get returns a state, and how long that took.
func get(ctx context.Context, r *discovery.Refresher) (*discovery.State, time.Duration) {
	start := time.Now()
	s := r.Get(ctx)

	return s, time.Since(start)
}

// The first scrape waits for the first refresh. Later ones never wait.
func TestRefresherWaitsOnlyForFirstState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		counted := &refreshes{t: t, duration: 3 * time.Second}
		r := discovery.NewRefresher(counted.refresh, nil, interval, timeout)
		defer r.Close()
		if counted.started.Load() != 0 {
			t.Error("a refresh starts before the first scrape")
		}

		first, took := get(t.Context(), r)
		if !first.Usable() || took != 3*time.Second {
			t.Errorf("the first scrape got %v after %s, want a usable state after 3s", first, took)
		}

		for _, step := range []struct {
			name    string
			wait    time.Duration
			started int32 // Refreshes so far, including the one that the scrape starts.
			isFirst bool  // Whether the scrape gets the first state.
		}{
			{name: "at once", started: 1, isFirst: true},
			{name: "just before the interval has passed", wait: interval - 4*time.Second, started: 1, isFirst: true},
			{name: "after the interval", wait: time.Second, started: 2, isFirst: true},
			{name: "during the refresh", wait: time.Second, started: 2, isFirst: true},
			{name: "after the refresh", wait: 2 * time.Second, started: 2},
			{name: "after another interval", wait: interval, started: 3},
		} {
			time.Sleep(step.wait)
			synctest.Wait()
			state, took := get(t.Context(), r)
			synctest.Wait()
			if took != 0 {
				t.Errorf("%s: the scrape waits %s", step.name, took)
			}
			if (state == first) != step.isFirst {
				t.Errorf("%s: the scrape gets the first state: %v, want %v", step.name, state == first, step.isFirst)
			}
			if n := counted.started.Load(); n != step.started {
				t.Errorf("%s: %d refreshes have started, want %d", step.name, n, step.started)
			}
		}
	})
}

// However many scrapes come at once, refreshes do not run concurrently, and all scrapes get the
// result.
func TestRefresherNeverRefreshesTwiceAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		counted := &refreshes{t: t, duration: 3 * time.Second}
		r := discovery.NewRefresher(counted.refresh, nil, interval, timeout)
		defer r.Close()

		var scrapes sync.WaitGroup
		for i := range 100 {
			scrapes.Go(func() {
				time.Sleep(time.Duration(i) * 20 * time.Millisecond)
				if s := r.Get(t.Context()); !s.Usable() {
					t.Errorf("scrape %d got %v, want a usable state", i, s)
				}
			})
		}
		scrapes.Wait()
		if n := counted.started.Load(); n != 1 {
			t.Errorf("%d refreshes have started, want 1", n)
		}
	})
}

// A scrape only waits until its own deadline. The refresh goes on.
func TestRefresherScrapeDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		counted := &refreshes{t: t, duration: 10 * time.Second}
		r := discovery.NewRefresher(counted.refresh, nil, interval, timeout)
		defer r.Close()

		ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
		defer cancel()
		if s, took := get(ctx, r); s != nil || took != 4*time.Second {
			t.Errorf("got %v after %s, want nil after 4s", s, took)
		}
		if s, took := get(t.Context(), r); !s.Usable() || took != 6*time.Second {
			t.Errorf("the next scrape got %v after %s, want a usable state after 6s more", s, took)
		}
		if n := counted.started.Load(); n != 1 {
			t.Errorf("%d refreshes have started, want 1", n)
		}
	})
}

// As long as no state is usable, every scrape refreshes and waits.
func TestRefresherUnusableState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		counted := &refreshes{t: t, duration: time.Second}
		counted.result = func(*discovery.State) *discovery.State {
			if counted.started.Load() < 3 {
				return &discovery.State{TargetsKnown: true}
			}

			return usable()
		}
		r := discovery.NewRefresher(counted.refresh, nil, interval, timeout)
		defer r.Close()

		for n := int32(1); n <= 3; n++ {
			s, took := get(t.Context(), r)
			if s.Usable() != (n == 3) || took != time.Second {
				t.Errorf("scrape %d got %+v after %s, want a state after 1s that is usable: %v", n, s, took, n == 3)
			}
			if got := counted.started.Load(); got != n {
				t.Errorf("%d refreshes have started, want %d", got, n)
			}
		}
	})
}

// A scrape does not wait if there is an initial state, such as after a reload. It is refreshed at
// once, and passed to the refresh.
func TestRefresherInitialState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		initial := usable()
		var previous *discovery.State
		counted := &refreshes{t: t, duration: time.Second}
		counted.result = func(p *discovery.State) *discovery.State {
			previous = p

			return usable()
		}
		r := discovery.NewRefresher(counted.refresh, initial, interval, timeout)
		defer r.Close()

		if got := r.Last(); got != initial {
			t.Errorf("the last state is %v, want the initial one", got)
		}
		if s, took := get(t.Context(), r); s != initial || took != 0 {
			t.Errorf("got %v after %s, want the initial state at once", s, took)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if n := counted.started.Load(); n != 1 || previous != initial {
			t.Errorf("%d refreshes have started, the last one from %v, want one from the initial state", n, previous)
		}
		if got := r.Last(); got == initial {
			t.Error("the last state is still the initial one")
		}
	})
}

// A refresh that does not end is canceled after its timeout.
func TestRefreshTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		counted := &refreshes{t: t, duration: time.Hour}
		r := discovery.NewRefresher(counted.refresh, nil, interval, timeout)
		defer r.Close()

		if _, took := get(t.Context(), r); took != timeout || !errors.Is(counted.ctxErr, context.DeadlineExceeded) {
			t.Errorf("the refresh ends after %s with %v, want %s with a deadline", took, counted.ctxErr, timeout)
		}
	})
}

// Close cancels the refresh in progress and waits for it. No further one starts.
func TestRefresherClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		counted := &refreshes{t: t, duration: time.Hour}
		r := discovery.NewRefresher(counted.refresh, usable(), interval, timeout)
		r.Get(t.Context())
		synctest.Wait()
		if counted.running.Load() != 1 {
			t.Fatal("no refresh is running")
		}

		r.Close()
		if counted.running.Load() != 0 || !errors.Is(counted.ctxErr, context.Canceled) {
			t.Errorf("after Close, %d refreshes run, the error is %v, want none, canceled",
				counted.running.Load(), counted.ctxErr)
		}
		time.Sleep(2 * interval)
		if s, took := get(t.Context(), r); !s.Usable() || took != 0 {
			t.Errorf("after Close, got %v after %s, want the last state at once", s, took)
		}
		synctest.Wait()
		if n := counted.started.Load(); n != 1 {
			t.Errorf("%d refreshes have started, want 1", n)
		}
		r.Close() // Closing it again does nothing.
	})
}
