// SPDX-License-Identifier: Apache-2.0

package discovery_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"

	"github.com/operator-store/operator_store_exporter/internal/discovery"
	"github.com/operator-store/operator_store_exporter/internal/promqlexpr"
	"github.com/operator-store/operator_store_exporter/internal/storematch"
)

// recorder answers as told, and keeps what it was asked.
type recorder struct {
	seen       []labels.Labels
	alive      []labels.Labels
	err        error
	expression []string
	start, end time.Time
}

func (r *recorder) Series(_ context.Context, matchers []string, start, end time.Time) ([]labels.Labels, error) {
	r.expression, r.start, r.end = append(r.expression, matchers...), start, end
	return r.seen, r.err
}

func (r *recorder) Query(_ context.Context, expression string, at time.Time) (promql.Vector, time.Time, error) {
	r.expression = append(r.expression, expression)
	var v promql.Vector
	for _, m := range r.alive {
		v = append(v, promql.Sample{Metric: m})
	}
	return v, at, nil
}

func (r *recorder) Now() (time.Time, bool) { return time.Time{}, false }

func TestTargets(t *testing.T) {
	selector, err := promqlexpr.ParseSelector(`{tidb_cluster="a\"b"}`)
	if err != nil {
		t.Fatal(err)
	}
	r := &recorder{
		seen: []labels.Labels{
			labels.FromStrings("job", "j", "instance", "gone"),
			labels.FromStrings("job", "j", "instance", "x", "pod", "p", "namespace", "n", "cluster", "c"),
			labels.FromStrings("job", "j", "instance", "x", "pod", "p", "namespace", "n", "cluster", "c", "__name__", "tikv_server_info"),
		},
		alive: []labels.Labels{labels.FromStrings("job", "j", "instance", "x", "pod", "p", "kubernetes_namespace", "k", "namespace", "n", "tidb_cluster", "t", "cluster", "c")},
	}
	now := time.Unix(1_700_000_000, 0)
	got, err := discovery.NewFinder(r, selector, time.Hour).Targets(t.Context(), now)
	want := []storematch.Target{
		{Identity: storematch.Identity{Job: "j", Instance: "gone"}},
		{Identity: storematch.Identity{Job: "j", Instance: "x"}, Pod: "p", Namespace: "k", Cluster: "t", Live: true},
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	if !r.start.Equal(now.Add(-time.Hour)) || !r.end.Equal(now) {
		t.Errorf("the series between %s and %s were asked for", r.start, r.end)
	}
	for _, e := range r.expression {
		if strings.Count(e, `tidb_cluster="a\"b"`) != strings.Count(e, "tikv_") {
			t.Errorf("%s lacks the selector", e)
		}
	}
	if len(r.expression) != 3 {
		t.Errorf("asked %q", r.expression)
	}

	r.err = errors.New("no")
	if _, err := discovery.NewFinder(r, selector, time.Hour).Targets(t.Context(), now); !errors.Is(err, r.err) {
		t.Errorf("the error is %v", err)
	}
}

func TestStores(t *testing.T) {
	selector, err := promqlexpr.ParseSelector(`{tidb_cluster="a"}`)
	if err != nil {
		t.Fatal(err)
	}
	r := &recorder{alive: []labels.Labels{labels.FromStrings("store", "4", "address", "a:20160")}}
	got, err := discovery.NewFinder(r, selector, time.Hour).Stores(t.Context(), time.Unix(1_700_000_000, 0))
	if want := []storematch.Store{{ID: "4", Address: "a:20160"}}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	if len(r.expression) != 1 || !strings.Contains(r.expression[0], `tidb_cluster="a"`) {
		t.Errorf("asked %q", r.expression)
	}
}
