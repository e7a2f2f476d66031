// SPDX-License-Identifier: Apache-2.0

package collector_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// Which scrapes share the requests of another one is tested in internal/scrape. This test counts
// the requests.
func TestConcurrentScrapes(t *testing.T) {
	for _, tc := range []struct {
		name         string
		first        time.Duration // The timeout of each scrape.
		second       time.Duration
		wait         time.Duration // Between the two scrapes.
		cancelFirst  bool          // The client of the first scrape disconnects.
		sentRequests int           // As a multiple of those of one scrape.
	}{
		{
			name:  "a second apart",
			first: 10 * time.Second, second: 10 * time.Second, wait: time.Second,
			sentRequests: 1,
		},
		{
			name:  "the first one is canceled",
			first: 10 * time.Second, second: 10 * time.Second, wait: time.Second, cancelFirst: true,
			sentRequests: 1,
		},
		{
			name:  "the second one has a shorter timeout",
			first: 10 * time.Second, second: 5 * time.Second, wait: time.Second,
			sentRequests: 2,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const want = monitoredLineA + "\n" +
					`operator_store_qps{address="a:20180",cluster="c",store_id=""} 5` + "\n" + upLineA
				up := &fakeUpstream{targets: oneTarget, responses: map[string][]string{
					"up": {tikvA + " 1"}, "storage_commands": {tikvA + " 5"},
				}}
				e := newExporter(t, up, "")
				scrape(t.Context(), t, e)
				before := len(up.received())
				gate := make(chan struct{})
				up.blocked = map[string]chan struct{}{"storage_commands": gate}

				pages := make([]string, 2)
				var both sync.WaitGroup
				first, cancelFirst := context.WithTimeout(t.Context(), tc.first)
				defer cancelFirst()
				both.Go(func() { pages[0] = storeGauges(t, scrape(first, t, e)) })
				time.Sleep(tc.wait)
				synctest.Wait()
				second, cancelSecond := context.WithTimeout(t.Context(), tc.second)
				defer cancelSecond()
				both.Go(func() { pages[1] = storeGauges(t, scrape(second, t, e)) })
				synctest.Wait()
				if tc.cancelFirst {
					cancelFirst()
					synctest.Wait()
				}
				close(gate)
				both.Wait()

				if got, want := len(up.received())-before, tc.sentRequests*queriesPerBatch(t); got != want {
					t.Errorf("upstream received %d requests, want %d", got, want)
				}
				if !tc.cancelFirst && pages[0] != want {
					t.Errorf("the first scrape returned %q, want %q", pages[0], want)
				}
				if pages[1] != want {
					t.Errorf("the second scrape returned %q, want %q", pages[1], want)
				}
			})
		})
	}
}

// A scrape that nobody waits for any longer ends at once.
func TestCanceledScrapeEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up := &fakeUpstream{targets: oneTarget, blocked: map[string]chan struct{}{"storage_commands": nil}}

		e := newExporter(t, up, "")
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		done := make(chan struct{})
		go func() {
			defer close(done)
			scrape(ctx, t, e)
		}()
		synctest.Wait()

		start := time.Now()
		cancel()
		<-done
		if waited := time.Since(start); waited != 0 {
			t.Errorf("the scrape went on for %s", waited)
		}
	})
}
