// SPDX-License-Identifier: Apache-2.0

package scrape_test

import (
	"slices"
	"testing"

	"github.com/prometheus/prometheus/promql"

	"github.com/operator-store/operator_store_exporter/internal/gauge"
	"github.com/operator-store/operator_store_exporter/internal/scrape"
)

// All responses about a target are those of the replica that scraped it last.
func TestFreshestReplica(t *testing.T) {
	const (
		lastScrape  = "timestamp(tikv"
		replicaTime = "timestamp(up"
		quota       = "quota"
	)
	for _, tc := range []struct {
		name      string
		responses map[string][]string
		failing   map[string]error
		want      float64 // The sample of cpu_quota; zero if there is none.
		unknown   bool    // Whether no replica can be believed.
	}{
		{
			name:      "a single replica needs no scrape times",
			responses: map[string][]string{quota: {"instance=a:1,replica=x 5"}},
			failing:   map[string]error{lastScrape: errHTTP, replicaTime: errHTTP},
			want:      5,
		},
		{
			name: "by the time of its last scrape",
			responses: map[string][]string{
				quota:       {"instance=a:1,replica=x 5", "instance=a:1,replica=y 6"},
				replicaTime: {"instance=a:1,replica=x 100", "instance=a:1,replica=y 200"},
			},
			want: 6,
		},
		{
			name: "by the time of its last sample",
			responses: map[string][]string{
				quota:      {"instance=a:1,replica=x 5", "instance=a:1,replica=y 6"},
				lastScrape: {"instance=a:1,replica=x 200", "instance=a:1,replica=y 100"},
			},
			want: 5,
		},
		{
			name: "by the later of both times",
			responses: map[string][]string{
				quota:       {"instance=a:1,replica=x 5", "instance=a:1,replica=y 6"},
				lastScrape:  {"instance=a:1,replica=x 300", "instance=a:1,replica=y 100"},
				replicaTime: {"instance=a:1,replica=x 100", "instance=a:1,replica=y 200"},
			},
			want: 5,
		},
		{
			name: "the first one if they scraped at the same time",
			responses: map[string][]string{
				quota:       {"instance=a:1,replica=y 6", "instance=a:1,replica=x 5"},
				replicaTime: {"instance=a:1,replica=y 100", "instance=a:1,replica=x 100"},
			},
			want: 5,
		},
		{
			name: "the freshest replica has no sample",
			responses: map[string][]string{
				quota:       {"instance=a:1,replica=x 5"},
				replicaTime: {"instance=a:1,replica=x 100", "instance=a:1,replica=y 200"},
			},
		},
		{
			name:      "the query for scrape times failed",
			responses: map[string][]string{quota: {"instance=a:1,replica=x 5", "instance=a:1,replica=y 6"}},
			failing:   map[string]error{replicaTime: errHTTP},
			unknown:   true,
		},
		{
			name:      "the query for last samples failed",
			responses: map[string][]string{quota: {"instance=a:1,replica=x 5", "instance=a:1,replica=y 6"}},
			failing:   map[string]error{lastScrape: errHTTP},
			unknown:   true,
		},
		{
			name: "replicas of a rejected response do not matter",
			responses: map[string][]string{
				quota: {"instance=a:1,replica=x 5"},
				"tikv_storage_command_total": {
					"instance=a:1,replica=y 6", "instance=a:1,replica=y 7", "instance=a:1,replica=y 8",
				},
			},
			failing: map[string]error{replicaTime: errHTTP},
			want:    5,
		},
		{
			name:      "replicas of another target do not matter",
			responses: map[string][]string{quota: {"instance=a:1,replica=x 5", "instance=b:1,replica=y 6"}},
			failing:   map[string]error{replicaTime: errHTTP},
			want:      5,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			upstream := &fakeUpstream{responses: tc.responses, failing: tc.failing}
			results := newFixture(t, upstream, "replica").run(t.Context(), identity("a:1"), identity("b:1"))

			responses := results.Responses(identity("a:1"))
			if (responses == nil) != tc.unknown {
				t.Fatalf("got the responses %v, want none: %v", responses, tc.unknown)
			}

			var got float64
			for _, s := range responses[query(t, "cpu_quota")].Samples {
				got += s.F
			}
			if got != tc.want {
				t.Errorf("got the sample %v, want %v", got, tc.want)
			}
		})
	}
}

// A response that was accepted although it may lack series is marked in the report and in the
// responses about every target of its query, and in those about none.
func TestPartialResults(t *testing.T) {
	for _, tc := range []struct {
		name     string
		partial  string // In the expressions.
		failing  string
		up       bool // Whether the query up is partial.
		quota    bool // Whether the query cpu_quota is partial.
		noTarget bool // Whether there is a response for stores without a target.
	}{
		{name: "complete", noTarget: true},
		{name: "up is partial", partial: "up{", up: true, noTarget: true},
		{name: "the first batch is partial", partial: "t0000", up: true, quota: true, noTarget: true},
		{name: "the last batch is partial", partial: "t0299", up: true, quota: true, noTarget: true},
		{name: "another query is partial", partial: "quota", quota: true, noTarget: true},
		{name: "up fails", failing: "up{"},
		{name: "one of several batches of up fails", failing: "t0299"},
		{
			name: "one batch of up fails, the other one is partial", failing: "t0299", partial: "t0000",
			up: true, quota: true,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			up := &fakeUpstream{partial: map[string]bool{}, failing: map[string]error{}}
			if tc.partial != "" {
				up.partial[tc.partial] = true
			}
			if tc.failing != "" {
				up.failing[tc.failing] = errHTTP
			}
			targets := manyTargets(300) // Two batches.
			results := newFixture(t, up).run(t.Context(), targets...)

			for q, want := range map[*gauge.Query]bool{gauge.QueryUp: tc.up, query(t, "cpu_quota"): tc.quota} {
				if got := results.Reports()[q].Partial; got != want {
					t.Errorf("the report of %s is partial: %v, want %v", q.Name, got, want)
				}
				if response, ok := results.Responses(targets[0])[q]; ok && response.Partial != want {
					t.Errorf("the response to %s is partial: %v, want %v", q.Name, response.Partial, want)
				}
			}

			response, ok := results.ResponsesWithoutTarget()[gauge.QueryUp]
			if ok != tc.noTarget || ok && response.Partial != tc.up {
				t.Errorf("without a target, there is a response: %v, partial: %v, want %v, %v",
					ok, response.Partial, tc.noTarget, tc.up)
			}
		})
	}
}

func TestDuplicateTargets(t *testing.T) {
	response := func(samples ...string) gauge.Response {
		return gauge.Response{Samples: []promql.Sample(parseVector(samples...))}
	}
	for _, tc := range []struct {
		name      string
		responses gauge.Responses
		want      []string
	}{
		{
			name: "no responses",
		},
		{
			name: "one series of each raw query",
			responses: gauge.Responses{
				gauge.QueryUp: response("instance=a:1 1"), gauge.QueryLastScrape: response("instance=a:1 100"),
			},
		},
		{
			name:      "several series of an aggregated query",
			responses: gauge.Responses{query(t, "store_size"): response("type=used 1", "type=capacity 2")},
		},
		{
			name: "several series of a raw query, sorted",
			responses: gauge.Responses{
				gauge.QueryUp: response("cluster=y,instance=a:1 1", "cluster=x,instance=a:1 1"),
			},
			want: []string{
				`{cluster="x", instance="a:1", job="tikv"}`,
				`{cluster="y", instance="a:1", job="tikv"}`,
			},
		},
		{
			name: "the same targets on every scrape if several raw queries have several series",
			responses: gauge.Responses{
				gauge.QueryReplicaTime: response("cluster=r,instance=a:1 1", "cluster=s,instance=a:1 1"),
				gauge.QueryUp:          response("cluster=u,instance=a:1 1", "cluster=v,instance=a:1 1"),
				gauge.QueryLastScrape:  response("cluster=p,instance=a:1 1", "cluster=q,instance=a:1 1"),
			},
			want: []string{
				`{cluster="p", instance="a:1", job="tikv"}`, // Those of last_scrape, the first query by name.
				`{cluster="q", instance="a:1", job="tikv"}`,
			},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for range 20 { // The order of a map is random.
				if got := scrape.DuplicateTargets(tc.responses); !slices.Equal(got, tc.want) {
					t.Fatalf("got %q, want %q", got, tc.want)
				}
			}
		})
	}
}
