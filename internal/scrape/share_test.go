// SPDX-License-Identifier: Apache-2.0

package scrape_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/operator-store/operator_store_exporter/internal/scrape"
)

// withTimeout returns a context with a timeout, or without one if it is zero.
func withTimeout(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	if timeout == 0 {
		return context.WithCancel(ctx)
	}

	return context.WithTimeout(ctx, timeout)
}

// Two scrapes share a call if it ends by the deadline of the second one, and has at least half of
// its time.
func TestSharer(t *testing.T) {
	for _, tc := range []struct {
		name        string
		first       time.Duration // The timeout of each scrape; zero for none.
		second      time.Duration
		wait        time.Duration // Between the two scrapes.
		cancelFirst bool
		calls       int32
	}{
		{
			name:  "at once",
			first: 10 * time.Second, second: 10 * time.Second,
			calls: 1,
		},
		{
			name:  "a second apart",
			first: 10 * time.Second, second: 10 * time.Second, wait: time.Second,
			calls: 1,
		},
		{
			name:  "the first one is canceled",
			first: 10 * time.Second, second: 10 * time.Second, wait: time.Second, cancelFirst: true,
			calls: 1,
		},
		{
			name:  "the second one has less time",
			first: 10 * time.Second, second: 5 * time.Second, wait: time.Second,
			calls: 2,
		},
		{
			name:  "the second one has far more time",
			first: 10 * time.Second, second: time.Minute,
			calls: 2,
		},
		{
			name:  "the second one has slightly more than twice the time",
			first: 10 * time.Second, second: 21 * time.Second,
			calls: 2,
		},
		{
			name:  "the second one has twice the time",
			first: 10 * time.Second, second: 20 * time.Second,
			calls: 1,
		},
		{
			name:  "the first one has little time left",
			first: 10 * time.Second, second: 10 * time.Second, wait: 8 * time.Second,
			calls: 2,
		},
		{
			name:  "the first one has half of its time left",
			first: 10 * time.Second, second: 10 * time.Second, wait: 5 * time.Second,
			calls: 1,
		},
		{
			name:  "the second one has no deadline",
			first: 10 * time.Second,
			calls: 1,
		},
		{
			name:   "the first one has no deadline",
			second: 10 * time.Second,
			calls:  2,
		},
		{
			name:  "neither has a deadline",
			calls: 1,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var (
					sharer scrape.Sharer[int32]
					calls  atomic.Int32
					both   sync.WaitGroup
				)
				gate := make(chan struct{})
				numberOfCall := func(ctx context.Context) int32 {
					n := calls.Add(1)
					select {
					case <-gate:
						return n
					case <-ctx.Done():
						return -1
					}
				}

				first, cancelFirst := withTimeout(t.Context(), tc.first)
				defer cancelFirst()
				var results [2]int32
				both.Go(func() { results[0] = sharer.Do(first, numberOfCall) })
				time.Sleep(tc.wait)
				synctest.Wait()
				second, cancelSecond := withTimeout(t.Context(), tc.second)
				defer cancelSecond()
				both.Go(func() { results[1] = sharer.Do(second, numberOfCall) })
				synctest.Wait()
				if tc.cancelFirst {
					cancelFirst()
					synctest.Wait()
				}
				close(gate)
				both.Wait()

				if n := calls.Load(); n != tc.calls {
					t.Errorf("%d calls, want %d", n, tc.calls)
				}
				want := [2]int32{1, tc.calls}
				if tc.cancelFirst {
					want[0] = 0
				}
				if results != want {
					t.Errorf("the scrapes got the results of the calls %v, want %v", results, want)
				}
			})
		})
	}
}

// At its deadline, a scrape gets what the call has by then. The call's deadline is the scrape's.
func TestSharerDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sharer scrape.Sharer[string]
		ctx, cancel := context.WithTimeout(t.Context(), 9*time.Second)
		defer cancel()

		start := time.Now()
		got := sharer.Do(ctx, func(ctx context.Context) string {
			<-ctx.Done()

			return "partial"
		})
		if took := time.Since(start); got != "partial" || took != 9*time.Second {
			t.Errorf("got %q after %s, want the partial result after 9s", got, took)
		}
	})
}

// A call that the last scrape leaves is canceled and waited for. Further scrapes do not join it.
func TestSharerCancelsAbandonedCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var (
			sharer  scrape.Sharer[string]
			waiting sync.WaitGroup
			calls   atomic.Int32
		)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		slowToEnd := func(ctx context.Context) string {
			calls.Add(1)
			<-ctx.Done()
			time.Sleep(time.Second)

			return "late"
		}

		start := time.Now()

		for range 2 {
			waiting.Go(func() {
				if got := sharer.Do(ctx, slowToEnd); got != "" {
					t.Errorf("a canceled scrape got %q, want the zero value", got)
				}
			})
		}
		synctest.Wait()
		cancel()
		synctest.Wait()
		if got := sharer.Do(t.Context(), func(context.Context) string { return "new" }); got != "new" {
			t.Errorf("a scrape got %q of the abandoned call, want a new call", got)
		}
		waiting.Wait()

		if took := time.Since(start); took != time.Second {
			t.Errorf("the canceled scrapes returned after %s, want 1s, when the call has ended", took)
		}
		if n := calls.Load(); n != 1 {
			t.Errorf("%d calls, want 1", n)
		}
	})
}

// A finished call is never joined: results are not cached.
func TestSharerDoesNotCache(t *testing.T) {
	var sharer scrape.Sharer[int]
	calls := 0
	for want := 1; want <= 3; want++ {
		if got := sharer.Do(t.Context(), func(context.Context) int { calls++; return calls }); got != want {
			t.Errorf("got the result of call %d, want %d", got, want)
		}
	}
}

// Many scrapes at once, some of which are canceled. The race detector watches.
func TestSharerConcurrency(t *testing.T) {
	var (
		sharer  scrape.Sharer[int32]
		calls   atomic.Int32
		waiting sync.WaitGroup
	)
	for i := range 200 {
		waiting.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			canceled := i%3 == 0
			if canceled {
				go cancel()
			}

			got := sharer.Do(ctx, func(context.Context) int32 {
				time.Sleep(time.Millisecond)

				return calls.Add(1)
			})
			if got == 0 && !canceled {
				t.Error("a scrape got no result")
			}
		})
	}
	waiting.Wait()
}
