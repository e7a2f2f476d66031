// SPDX-License-Identifier: Apache-2.0

package scrape_test

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/operator-store/operator_store_exporter/internal/gauge"
	"github.com/operator-store/operator_store_exporter/internal/httpclient"
	"github.com/operator-store/operator_store_exporter/internal/promapi"
	"github.com/operator-store/operator_store_exporter/internal/promqlexpr"
	"github.com/operator-store/operator_store_exporter/internal/scrape"
	"github.com/operator-store/operator_store_exporter/internal/storematch"
)

// respond returns a request that upstream responds to.
func respond(samples ...string) func() (promapi.Result, error) {
	return func() (promapi.Result, error) { return promapi.Result{Vector: parseVector(samples...)}, nil }
}

// fail returns a request that fails.
func fail(err error) func() (promapi.Result, error) {
	return func() (promapi.Result, error) { return promapi.Result{}, err }
}

func TestReportOfQuery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		counted := map[httpclient.Reason]int{}
		run := scrape.NewQueryRun(query(t, "cpu_quota"), nil, func(q *gauge.Query, reason httpclient.Reason) {
			if q.Name != "cpu_quota" {
				t.Errorf("a failure of %s is counted, want cpu_quota", q.Name)
			}
			counted[reason]++
		})
		if _, ok := run.Report(); ok {
			t.Error("there is a report before the first request")
		}

		slow := func() (promapi.Result, error) {
			time.Sleep(3 * time.Second)

			return promapi.Result{}, errHTTP
		}
		plain := errors.New("not of type httpclient.Error")
		run.Do([]storematch.Identity{identity("a:1")}, "first", respond("instance=a:1 5"))
		run.Do([]storematch.Identity{identity("b:1")}, "second", slow)
		run.Do([]storematch.Identity{identity("c:1")}, "", fail(plain))

		got, ok := run.Report()
		if !ok {
			t.Fatal("there is no report")
		}
		if got.Name != "cpu_quota" || !slices.Equal(got.Expressions, []string{"first", "second"}) {
			t.Errorf("the report is of %s with the expressions %q", got.Name, got.Expressions)
		}
		if got.Duration != 3*time.Second {
			t.Errorf("the duration is %s, want 3s, that of the slowest request", got.Duration)
		}
		if !slices.Equal(got.Errs, []error{errHTTP, plain}) || len(got.Rejections) > 0 {
			t.Errorf("got the errors %v and rejections %v, want one error per failed request", got.Errs, got.Rejections)
		}
		want := map[httpclient.Reason]int{httpclient.ReasonHTTP: 1, httpclient.ReasonResponse: 1}
		if !reflect.DeepEqual(counted, want) {
			t.Errorf("counted %v, want %v", counted, want)
		}
	})
}

// The responses about a target that are rejected, because they do not have the shape of the query.
func TestRejectedResponses(t *testing.T) {
	const (
		severalSeries   = "the response has several series; sum by (job, instance) (...) would make them one"
		duplicateSeries = "the response has a series twice"
	)
	custom := &gauge.Query{Name: "custom", Shape: gauge.Custom, Expr: promqlexpr.MustParse("a")}
	for _, tc := range []struct {
		name          string
		query         *gauge.Query
		replicaLabels []string
		samples       []string
		want          []string // The instances that are rejected, with the reason.
	}{
		{
			name:    "grouped: one series per target",
			query:   query(t, "cpu_quota"),
			samples: []string{"instance=a:1 5", "instance=b:1 6"},
		},
		{
			name:    "grouped: a series twice",
			query:   query(t, "cpu_quota"),
			samples: []string{"instance=b:1 5", "instance=b:1 6", "instance=b:1 7", "instance=b:1 8", "instance=a:1 5"},
			want:    []string{"b:1: " + duplicateSeries},
		},
		{
			name:    "grouped: rejections are ordered by target",
			query:   query(t, "cpu_quota"),
			samples: []string{"instance=b:1 5", "instance=b:1 6", "instance=a:1 5", "instance=a:1 6"},
			want:    []string{"a:1: " + duplicateSeries, "b:1: " + duplicateSeries},
		},
		{
			name:    "grouped by type: several types",
			query:   query(t, "store_size"),
			samples: []string{"instance=a:1,type=used 5", "instance=a:1,type=capacity 6"},
		},
		{
			name:    "grouped by type: a type twice",
			query:   query(t, "store_size"),
			samples: []string{"instance=a:1,type=used 5", "instance=a:1,type=used 6"},
			want:    []string{"a:1: " + duplicateSeries},
		},
		{
			name:    "custom: one series per target",
			query:   custom,
			samples: []string{"instance=a:1,x=1 5", "instance=b:1,x=2 6"},
		},
		{
			name:    "custom: several series",
			query:   custom,
			samples: []string{"instance=a:1,x=1 5", "instance=a:1,x=2 6"},
			want:    []string{"a:1: " + severalSeries},
		},
		{
			name:          "custom: one series per replica",
			query:         custom,
			replicaLabels: []string{"replica"},
			samples:       []string{"instance=a:1,replica=x 5", "instance=a:1,replica=y 6"},
		},
		{
			name:          "custom: several series of one replica",
			query:         custom,
			replicaLabels: []string{"replica"},
			samples:       []string{"instance=a:1,replica=x 5", "instance=a:1,replica=y 6", "instance=a:1,replica=y 7"},
			want:          []string{"a:1: " + severalSeries},
		},
		{
			name:    "raw: several series mean several targets",
			query:   gauge.QueryUp,
			samples: []string{"instance=a:1,x=1 1", "instance=a:1,x=2 1"},
		},
		{
			name:    "targets of other batches are ignored",
			query:   query(t, "cpu_quota"),
			samples: []string{"instance=z:1 5", "instance=z:1 6"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			counted := 0
			run := scrape.NewQueryRun(tc.query, tc.replicaLabels, func(_ *gauge.Query, reason httpclient.Reason) {
				if reason != httpclient.ReasonResponse {
					t.Errorf("the reason %s is counted, want %s", reason, httpclient.ReasonResponse)
				}
				counted++
			})
			run.Do([]storematch.Identity{identity("a:1"), identity("b:1")}, "expression", respond(tc.samples...))

			r, _ := run.Report()
			var got []string
			for _, rejection := range r.Rejections {
				got = append(got, fmt.Sprintf("%s: %v", rejection.Target.Instance, rejection.Err))
			}
			if !slices.Equal(got, tc.want) {
				t.Errorf("rejected\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(tc.want, "\n"))
			}
			if counted != len(tc.want) || r.Failed() != (len(tc.want) > 0) || len(r.Errs) > 0 {
				t.Errorf("%d counted, failed is %v, errors are %v", counted, r.Failed(), r.Errs)
			}
		})
	}
}

// The batches of a query are sent concurrently, while reports of it are requested. With -race, this
// test detects data races.
func TestQueryRunConcurrency(t *testing.T) {
	const batches = 100
	var (
		mu      sync.Mutex
		counted int
		group   sync.WaitGroup
	)
	run := scrape.NewQueryRun(query(t, "cpu_quota"), []string{"replica"}, func(*gauge.Query, httpclient.Reason) {
		mu.Lock()
		defer mu.Unlock()
		counted++
	})
	for i := range batches {
		ok, twice, failed := fmt.Sprintf("ok%d", i), fmt.Sprintf("twice%d", i), fmt.Sprintf("failed%d", i)
		group.Go(func() {
			run.Do([]storematch.Identity{identity(ok), identity(twice)}, "expression "+ok, respond(
				"replica=x,instance="+ok+" 1", "replica=y,instance="+ok+" 1",
				"replica=x,instance="+twice+" 1", "replica=x,instance="+twice+" 1"))
		})
		group.Go(func() {
			run.Do([]storematch.Identity{identity(failed)}, "expression "+failed, fail(errHTTP))
		})
		group.Go(func() { run.Report() })
	}
	group.Wait()

	r, ok := run.Report()
	if !ok || len(r.Expressions) != 2*batches || len(r.Errs) != batches || len(r.Rejections) != batches {
		t.Errorf("got %d expressions, %d errors and %d rejections, want %d, %d and %d",
			len(r.Expressions), len(r.Errs), len(r.Rejections), 2*batches, batches, batches)
	}
	if counted != 2*batches {
		t.Errorf("%d failures are counted, want %d", counted, 2*batches)
	}
}
