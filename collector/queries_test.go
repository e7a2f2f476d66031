// SPDX-License-Identifier: Apache-2.0

package collector_test

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/operator-store/operator_store_exporter/internal/gauge"
	"github.com/operator-store/operator_store_exporter/internal/storematch"
)

// The matchers of two batches may match each other's targets, because jobs and instances are
// matched independently. A response then has series of the other batch's targets too.
func TestBatchesWithOverlappingMatchers(t *testing.T) {
	up := &fakeUpstream{responses: map[string][]string{}}
	for i := range 251 {
		for _, namespace := range []string{"a", "b"} {
			instance := fmt.Sprintf("t%03d", i)
			up.targets = append(up.targets,
				labels.FromStrings("job", namespace, "instance", instance, "namespace", namespace))
			id := len(up.targets)
			up.pd.stores = append(up.pd.stores, storematch.Store{
				ID: strconv.Itoa(id), Address: fmt.Sprintf("%s.peer.%s.svc:20160", instance, namespace),
			})
			up.responses["storage_commands"] = append(up.responses["storage_commands"],
				fmt.Sprintf("job=%s,instance=%s %d", namespace, instance, id))
		}
	}

	got := storeGauges(t, scrape(t.Context(), t, newExporter(t, up, "  pd: {url: http://pd}\n")))
	for i, s := range up.pd.stores {
		want := fmt.Sprintf(`operator_store_qps{address=%q,cluster="c",store_id="%d"} %d`, s.Address, i+1, i+1)
		if !strings.Contains(got, want) {
			t.Errorf("the scrape lacks %s", want)
		}
	}
}

func TestConcurrencyLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const (
			defaultLimit = 8
			batches      = 4 // Of at most 250 targets.
		)
		up := &fakeUpstream{targets: manyTargets(1000)}
		e := newExporter(t, up, "")
		scrape(t.Context(), t, e)
		before := len(up.received())

		gate := make(chan struct{})
		up.blocked = map[string]chan struct{}{}
		for _, q := range gauge.BuiltinQueries() {
			if q.Name != "up" { // All other queries wait for it.
				up.blocked[q.Name] = gate
			}
		}
		var done sync.WaitGroup
		done.Go(func() { scrape(t.Context(), t, e) })
		synctest.Wait()

		running := 0
		for _, r := range up.received()[before:] {
			if r.query != "up" {
				running++
			}
		}
		if running > defaultLimit || running == 0 {
			t.Errorf("%d requests run at once, want 1 to %d", running, defaultLimit)
		}

		close(gate)
		done.Wait()
		if got, want := len(up.received())-before, batches*queriesPerBatch(t); got != want {
			t.Errorf("a scrape sends %d requests, want %d", got, want)
		}
	})
}

// The scrape ends exactly at its deadline, with what has arrived by then.
func TestScrapeDeadline(t *testing.T) {
	for _, tc := range []struct {
		name    string
		blocked string
		took    time.Duration
		want    []string
	}{
		{
			name:    "one query hangs",
			blocked: "storage_commands",
			took:    9 * time.Second,
			want:    []string{"operator_store_cpu_cores", "operator_store_monitored", "operator_store_up"},
		},
		{
			name:    "the first query hangs and leaves time for the others",
			blocked: "up",
			took:    3 * time.Second,
			want:    []string{"operator_store_cpu_cores", "operator_store_qps"},
		},
		{
			name:    "all queries hang",
			blocked: anyQuery,
			took:    9 * time.Second,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				up := &fakeUpstream{targets: oneTarget, responses: map[string][]string{
					"up": {tikvA + " 1"}, "storage_commands": {tikvA + " 5"}, "cpu_quota": {tikvA + " 8"},
				}}
				e := newExporter(t, up, "")
				scrape(t.Context(), t, e)
				up.blocked = map[string]chan struct{}{tc.blocked: nil}

				ctx, cancel := context.WithTimeout(t.Context(), 9*time.Second)
				defer cancel()
				start := time.Now()
				s := scrape(ctx, t, e)
				if took := time.Since(start); took != tc.took {
					t.Errorf("the scrape took %s, want %s", took, tc.took)
				}
				if got := metricNames(storeGauges(t, s)); !slices.Equal(got, tc.want) {
					t.Errorf("got %q, want %q", got, tc.want)
				}
			})
		})
	}
}

// The local clock is an hour ahead of upstream's. No query may be evaluated by it, even if the
// query that determines the evaluation time fails.
func TestEvaluationTimeIsUpstreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up := &fakeUpstream{targets: oneTarget, responses: map[string][]string{"up": {tikvA + " 1"}}}
		e := newExporter(t, up, "")
		scrape(t.Context(), t, e)
		before := len(up.received())

		up.failing = map[string]error{"up": errHTTP}
		time.Sleep(time.Minute)
		s := scrape(t.Context(), t, e)

		want := time.Now().Add(clockOffset)
		requests := up.received()[before:]
		if len(requests) != queriesPerBatch(t) {
			t.Errorf("the scrape sends %d requests, want %d", len(requests), queriesPerBatch(t))
		}

		for _, r := range requests {
			if r.query != "up" && !r.at.Equal(want) {
				t.Errorf("query %q is evaluated at %s, want %s", r.query, r.at, want)
			}
		}
		const name = "operator_store_exporter_evaluation_timestamp_seconds"
		if err := testutil.CollectAndCompare(s, strings.NewReader(fmt.Sprintf(`
# HELP %[1]s Unix time at which upstream evaluated all queries of this scrape, by upstream's clock.
# TYPE %[1]s gauge
%[1]s{cluster="c"} %[2]d
`, name, want.Unix())), name); err != nil {
			t.Error(err)
		}
	})
}
