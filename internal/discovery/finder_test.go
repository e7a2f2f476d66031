// SPDX-License-Identifier: Apache-2.0

package discovery_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/operator-store/operator_store_exporter/internal/discovery"
	"github.com/operator-store/operator_store_exporter/internal/promqlexpr"
	"github.com/operator-store/operator_store_exporter/internal/storematch"
)

func parseSelector(t *testing.T, text string) []*labels.Matcher {
	t.Helper()
	selector, err := promqlexpr.ParseSelector(text)
	if err != nil {
		t.Fatal(err)
	}

	return selector
}

func TestFindTargets(t *testing.T) {
	x := []string{"job", "j", "instance", "x", "pod", "p", "namespace", "n", "cluster", "c"}
	up := &fakeUpstream{
		recent: []labels.Labels{
			labels.FromStrings("job", "j", "instance", "gone"),
			labels.FromStrings(x...),
			labels.FromStrings(append(x, "__name__", "tikv_server_info")...),
		},
		live: []labels.Labels{
			labels.FromStrings(append(x, "kubernetes_namespace", "k", "tidb_cluster", "t")...),
		},
	}
	const lookback = time.Hour
	finder := discovery.NewFinder(up, parseSelector(t, `{tidb_cluster="a\"b"}`), lookback)

	got, err := finder.Targets(t.Context(), upstreamNow)
	want := []storematch.Target{
		{Identity: storematch.Identity{Job: "j", Instance: "gone"}},
		{
			Identity: storematch.Identity{Job: "j", Instance: "x"}, Pod: "p", Namespace: "k", Cluster: "t",
			Live: true,
		},
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got the targets %v, %v, want %v", got, err, want)
	}
	if !up.start.Equal(upstreamNow.Add(-lookback)) || !up.end.Equal(upstreamNow) {
		t.Errorf("the series are queried from %s to %s, want the lookback before %s", up.start, up.end, upstreamNow)
	}
	if len(up.expressions) != 3 {
		t.Errorf("sent %q, want a matcher for each of two metrics and one query", up.expressions)
	}

	for _, e := range up.expressions {
		if strings.Count(e, `tidb_cluster="a\"b"`) != strings.Count(e, "tikv_") {
			t.Errorf("%s lacks the selector", e)
		}
	}
}

func TestFindTargetsErrors(t *testing.T) {
	failed := errors.New("failed")
	for _, tc := range []struct {
		name string
		up   *fakeUpstream
	}{
		{name: "series", up: &fakeUpstream{seriesErr: failed}},
		{name: "query", up: &fakeUpstream{queryErr: failed}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := discovery.NewFinder(tc.up, nil, time.Hour).Targets(t.Context(), upstreamNow)
			if !errors.Is(err, failed) {
				t.Errorf("got the error %v, want that of upstream", err)
			}
		})
	}
}

func TestFindStores(t *testing.T) {
	up := &fakeUpstream{pdSeries: []labels.Labels{labels.FromStrings("store", "4", "address", "a:20160")}}
	finder := discovery.NewFinder(up, parseSelector(t, `{tidb_cluster="a"}`), time.Hour)

	got, err := finder.Stores(t.Context(), upstreamNow)
	want := []storematch.Store{{ID: "4", Address: "a:20160"}}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got the stores %v, %v, want %v", got, err, want)
	}
	if len(up.expressions) != 1 || !strings.Contains(up.expressions[0], `tidb_cluster="a"`) {
		t.Errorf("sent %q, want one query with the selector", up.expressions)
	}

	failed := errors.New("failed")
	finder = discovery.NewFinder(&fakeUpstream{queryErr: failed}, nil, time.Hour)
	if _, err := finder.Stores(t.Context(), upstreamNow); !errors.Is(err, failed) {
		t.Errorf("got the error %v, want that of upstream", err)
	}
}
