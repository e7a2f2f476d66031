// SPDX-License-Identifier: Apache-2.0

package collector_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/operator-store/operator_store_exporter/collector"
	"github.com/operator-store/operator_store_exporter/config"
)

// twoClusters is a configuration of the clusters "a" and "b". Only one of them has a custom gauge.
const twoClusters = `
clusters:
- name: a
  upstream: {url: http://upstream}
- name: b
  upstream: {url: http://upstream}
  metrics: [{name: operator_store_threads, help: Threads of TiKV., expr: tikv_threads}]
`

func newTwoClusters(t *testing.T, up *fakeUpstream) *collector.Exporter {
	t.Helper()
	cfg, err := config.Load([]byte(twoClusters))
	if err != nil {
		t.Fatal(err)
	}

	return newExporterWith(t, cfg, up, collector.Options{})
}

// busyUpstream returns an upstream whose target has most gauges.
func busyUpstream() *fakeUpstream {
	return &fakeUpstream{targets: oneTarget, responses: map[string][]string{
		"up":               {tikvA + " 1"},
		"last_scrape":      {tikvA + " 1700000000"},
		"storage_commands": {tikvA + " 5"},
		"grpc_duration":    {tikvA + ",le=1 90", tikvA + ",le=2 100", tikvA + ",le=+Inf 100"},
		"store_size":       {tikvA + ",type=used 1", tikvA + ",type=available 2", tikvA + ",type=capacity 8"},
		"cpu_seconds":      {tikvA + " 0.25"},
		"cpu_quota":        {tikvA + " 8"},
		"raft_log_lag":     {tikvA + ",le=1 90", tikvA + ",le=2 100", tikvA + ",le=+Inf 100"},
		"tikv_threads":     {tikvA + " 7"},
	}}
}

// A program may register an exporter: collecting it scrapes all clusters. A pedantic registry
// verifies that what is collected was described.
func TestExporterIsCollector(t *testing.T) {
	up := busyUpstream()
	e := newTwoClusters(t, up)
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(e)

	for range 2 {
		before := len(up.received())
		if problems, err := testutil.GatherAndLint(registry); err != nil || len(problems) > 0 {
			t.Errorf("got the problems %v, %v, want none", problems, err)
		}
		if len(up.received()) == before {
			t.Error("collecting the exporter did not query upstream")
		}
	}

	want := []string{
		`operator_store_threads{address="a:20180",cluster="b",store_id=""} 7`,
		`operator_store_up{address="a:20180",cluster="a",store_id=""} 1`,
		`operator_store_up{address="a:20180",cluster="b",store_id=""} 1`,
	}
	if got := series(t, e, "operator_store_up", "operator_store_threads"); !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// Another exporter of the same metrics cannot be registered next to the first one.
func TestExporterDescribesItself(t *testing.T) {
	registry := prometheus.NewRegistry()
	registry.MustRegister(newTwoClusters(t, busyUpstream()))

	var registered prometheus.AlreadyRegisteredError
	if err := registry.Register(newTwoClusters(t, busyUpstream())); !errors.As(err, &registered) {
		t.Errorf("got the error %v, want AlreadyRegisteredError", err)
	}
}

func TestBind(t *testing.T) {
	for _, tc := range []struct {
		name     string
		clusters []string
		want     []string
	}{
		{
			name: "all clusters",
			want: []string{
				`operator_store_exporter_stores{cluster="a"} 1`,
				`operator_store_exporter_stores{cluster="b"} 1`,
			},
		},
		{
			name:     "one cluster",
			clusters: []string{"b"},
			want:     []string{`operator_store_exporter_stores{cluster="b"} 1`},
		},
		{
			name:     "a cluster named twice",
			clusters: []string{"b", "b"},
			want:     []string{`operator_store_exporter_stores{cluster="b"} 1`},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, err := newTwoClusters(t, busyUpstream()).Bind(t.Context(), tc.clusters...)
			if err != nil {
				t.Fatal(err)
			}
			if problems, err := testutil.CollectAndLint(c); err != nil || len(problems) > 0 {
				t.Errorf("got the problems %v, %v, want none", problems, err)
			}
			if got := series(t, c, "operator_store_exporter_stores"); !slices.Equal(got, tc.want) {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func TestBindUnknownCluster(t *testing.T) {
	_, err := newTwoClusters(t, &fakeUpstream{}).Bind(t.Context(), "a", "d")
	if want := `unknown cluster "d": the clusters are ["a" "b"]`; err == nil || err.Error() != want {
		t.Errorf("got the error %v, want %s", err, want)
	}
}

// A bound collector scrapes until its context's deadline, an exporter for 9.5 s.
func TestCollectDeadline(t *testing.T) {
	for _, tc := range []struct {
		name string
		bind time.Duration // Timeout of the context; zero to collect the exporter itself.
		want time.Duration
	}{
		{name: "bound to a context", bind: 3 * time.Second, want: 3 * time.Second},
		{name: "not bound", want: 9500 * time.Millisecond},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				up := &fakeUpstream{targets: oneTarget}
				e := newExporter(t, up, "")
				scrape(t.Context(), t, e)
				up.blocked = map[string]chan struct{}{"storage_commands": nil}

				var c prometheus.Collector = e
				start := time.Now()
				if tc.bind > 0 {
					ctx, cancel := context.WithTimeout(t.Context(), tc.bind)
					defer cancel()
					var err error
					if c, err = e.Bind(ctx); err != nil {
						t.Fatal(err)
					}
				}
				testutil.CollectAndCount(c)
				if took := time.Since(start); took != tc.want {
					t.Errorf("collecting took %s, want %s", took, tc.want)
				}
			})
		})
	}
}

// A cluster whose scrape is canceled has no series and no report.
func TestCollectCanceled(t *testing.T) {
	e := newTwoClusters(t, busyUpstream())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()

	s := scrape(ctx, t, e)
	if n := testutil.CollectAndCount(s); n != 0 {
		t.Errorf("a canceled scrape has %d series, want none", n)
	}
	if reports := s.Reports(); len(reports) != 0 {
		t.Errorf("a canceled scrape has the reports %v, want none", reports)
	}
}

func TestScrapeUnknownCluster(t *testing.T) {
	_, err := newExporter(t, &fakeUpstream{}, "").Scrape(t.Context(), "d")
	if want := `unknown cluster "d": the clusters are ["c"]`; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got the error %v, want one that contains %s", err, want)
	}
}
