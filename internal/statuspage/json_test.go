// SPDX-License-Identifier: Apache-2.0

package statuspage_test

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/operator-store/operator_store_exporter/collector"
	"github.com/operator-store/operator_store_exporter/internal/statuspage"
	"github.com/operator-store/operator_store_exporter/internal/storematch"
)

// A store of a report: its gauges by their names without the prefix, the others absent.
func store(id, address string, gauges []collector.Gauge, values map[string]float64) collector.StoreReport {
	s := collector.StoreReport{
		ID: id, Address: address,
		Match:  storematch.Match{Candidates: []storematch.Target{{Identity: storematch.Identity{Job: "tikv", Instance: address}}}},
		Values: make([]float64, len(gauges)), Absent: make([]string, len(gauges)),
	}
	for i, g := range gauges {
		v, there := values[strings.TrimPrefix(g.Name, "operator_store_")]
		if s.Values[i] = v; !there {
			s.Values[i], s.Absent[i] = math.NaN(), g.AbsentWhen
		}
	}
	return s
}

var whole = map[string]float64{
	"up": 1, "qps": 811, "grpc_qps": 1580, "latency_p95_seconds": 0.00625, "latency_p99_seconds": 0.0125,
	"disk_used_bytes": 3 << 30, "disk_available_bytes": 1 << 30, "disk_total_bytes": 5 << 30, "disk_utilization_ratio": 0.6, "disk_fill_ratio": 0.8125,
	"cpu_percent": 150, "cpu_cores": 8, "raft_lag": 1.98, "last_scrape_timestamp_seconds": 1_699_999_995,
}

var instant = time.Unix(1_700_000_000, 0)

func report(cluster string, all ...collector.StoreReport) collector.Report {
	return collector.Report{
		Cluster: cluster, Up: true, Instant: instant, Serving: "http://prometheus:9090", Servers: []string{"http://prometheus:9090"},
		Gauges: collector.Gauges, Stores: all,
		Queries: []collector.QueryReport{{Name: "up", Expressions: []string{`up{job="tikv"} or vector(0)`}, Duration: 5 * time.Millisecond}},
	}
}

// The fields are those that scripts know, and no others; what is absent is null.
func TestDocument(t *testing.T) {
	r := report("prod", store("1", "tikv-0:20160", collector.Gauges, whole), store("", "tikv-1:20160", collector.Gauges, nil))
	r.Problems = []string{"query \"up\" failed"}
	var out strings.Builder
	if err := statuspage.WriteJSON(&out, statuspage.NewDocument([]collector.Report{r})); err != nil {
		t.Fatal(err)
	}
	const want = `{
  "clusters": [
    {
      "cluster": "prod",
      "upstream_up": true,
      "upstream": "http://prometheus:9090",
      "evaluated_at": "2023-11-14T22:13:20Z",
      "problems": [
        "query \"up\" failed"
      ]
    }
  ],
  "stores": [
    {
      "cluster": "prod",
      "store_id": "1",
      "address": "tikv-0:20160",
      "up": 1,
      "qps": 811,
      "latency_p95_ms": 6.25,
      "latency_p99_ms": 12.5,
      "disk_used_bytes": 3221225472,
      "disk_available_bytes": 1073741824,
      "disk_total_bytes": 5368709120,
      "disk_utilization_ratio": 0.6,
      "cpu_percent": 150,
      "raft_lag": 1.98
    },
    {
      "cluster": "prod",
      "store_id": "",
      "address": "tikv-1:20160",
      "up": null,
      "qps": null,
      "latency_p95_ms": null,
      "latency_p99_ms": null,
      "disk_used_bytes": null,
      "disk_available_bytes": null,
      "disk_total_bytes": null,
      "disk_utilization_ratio": null,
      "cpu_percent": null,
      "raft_lag": null
    }
  ]
}
`
	if out.String() != want {
		t.Errorf("the document is\n%s\nwant\n%s", &out, want)
	}
}

func TestDocumentOfLittle(t *testing.T) {
	own := append(append([]collector.Gauge{}, collector.Gauges...), collector.Gauge{Name: "operator_store_leaders"}, collector.Gauge{Name: "operator_store_stall"})
	with := report("prod", store("1", "a", own, map[string]float64{"leaders": 0}))
	with.Gauges = own
	large := report("prod", store("1", "a", collector.Gauges, map[string]float64{"latency_p99_seconds": math.MaxFloat64}))
	for _, tc := range []struct {
		name, want string
		reports    []collector.Report
	}{
		{"no cluster has answered", `{"clusters":[],"stores":[]}`, nil},
		{"nothing could be asked", `"evaluated_at":null,"problems":[]}],"stores":[]}`, []collector.Report{{Cluster: "prod"}}},
		{"a gauge of one's own, and an absent one", `"raft_lag":null,"metrics":{"operator_store_leaders":0}}`, []collector.Report{with}},
		{"milliseconds that no number holds", `"latency_p99_ms":null`, []collector.Report{large}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := json.Marshal(statuspage.NewDocument(tc.reports))
			if err != nil || !strings.Contains(string(got), tc.want) {
				t.Errorf("%v: the document is\n%s\nwant it with\n%s", err, got, tc.want)
			}
		})
	}
}
