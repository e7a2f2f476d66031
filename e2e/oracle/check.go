// SPDX-License-Identifier: Apache-2.0

package oracle

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// needs is the query that a gauge is made of.
var needs = map[string]string{
	"operator_store_up":                            "up",
	"operator_store_qps":                           "storage_commands",
	"operator_store_grpc_qps":                      "grpc_duration",
	"operator_store_latency_p95_seconds":           "grpc_duration",
	"operator_store_latency_p99_seconds":           "grpc_duration",
	"operator_store_disk_used_bytes":               "store_size",
	"operator_store_disk_available_bytes":          "store_size",
	"operator_store_disk_total_bytes":              "store_size",
	"operator_store_disk_utilization_ratio":        "store_size",
	"operator_store_disk_fill_ratio":               "store_size",
	"operator_store_cpu_percent":                   "cpu_seconds",
	"operator_store_cpu_cores":                     "cpu_quota",
	"operator_store_raft_lag":                      "raft_log_lag",
	"operator_store_last_scrape_timestamp_seconds": "last_scrape",
}

// Verdict is what is to be said of a page.
type Verdict struct {
	Clusters []string
	Answers  int      // The gauges that are there.
	Absent   int      // Those that are not, as they must where a query failed.
	Wrong    []string // Those that are not what Gauges says, or missing for no reason.
}

type cluster struct {
	instant time.Time
	success map[string]bool
	values  map[string]map[string]float64 // By address and name.
}

// Check holds a metrics page against the oracle, of which each cluster has the first stores, as many as expected says.
// The error is of a page that can't be read.
func Check(page io.Reader, expected map[string]int) (Verdict, error) {
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(page)
	if err != nil {
		return Verdict{}, err
	}
	clusters := map[string]*cluster{}
	for name, family := range families {
		for _, m := range family.Metric {
			l := labels(m)
			if l["cluster"] == "" {
				continue
			}
			c := clusters[l["cluster"]]
			if c == nil {
				c = &cluster{success: map[string]bool{}, values: map[string]map[string]float64{}}
				clusters[l["cluster"]] = c
			}
			v := m.GetGauge().GetValue()
			switch {
			case name == "operator_store_exporter_evaluation_timestamp_seconds":
				c.instant = time.UnixMilli(int64(math.Round(v * 1000)))
			case name == "operator_store_exporter_query_success":
				c.success[l["query"]] = v == 1
			case needs[name] != "":
				key := l["store_id"] + " " + l["address"]
				if c.values[key] == nil {
					c.values[key] = map[string]float64{}
				}
				c.values[key][name] = v
			}
		}
	}
	verdict := Verdict{}
	for name, c := range clusters {
		verdict.Clusters = append(verdict.Clusters, name)
		c.check(&verdict, name, expected[name])
	}
	slices.Sort(verdict.Clusters)
	return verdict, nil
}

func labels(m *dto.Metric) map[string]string {
	l := map[string]string{}
	for _, p := range m.Label {
		l[p.GetName()] = p.GetValue()
	}
	return l
}

func (c *cluster) check(v *Verdict, name string, stores int) {
	if len(c.values) > 0 && c.instant.IsZero() {
		v.Wrong = append(v.Wrong, name+" has gauges and no instant")
		return
	}
	for i := range stores {
		key := ID(i) + " " + Address(i)
		got := c.values[key]
		delete(c.values, key)
		for gauge, want := range Gauges(i, c.instant) {
			value, there := got[gauge]
			switch {
			case !there && c.explains(gauge):
				v.Absent++
			case !there:
				v.Wrong = append(v.Wrong, fmt.Sprintf("%s of %s in %s is missing, though its query succeeded", gauge, key, name))
			case math.Abs(value-want) > 1e-9*math.Abs(want):
				v.Wrong = append(v.Wrong, fmt.Sprintf("%s of %s in %s at %s is %v, want %v", gauge, key, name, c.instant, value, want))
			default:
				v.Answers++
			}
		}
	}
	for key := range c.values {
		v.Wrong = append(v.Wrong, fmt.Sprintf("%s has the store %q, which there is not", name, strings.TrimSpace(key)))
	}
}

// explains tells whether a query that failed is why a gauge is absent: its own, the one for targets, or the two that tell
// a target from its twins.
func (c *cluster) explains(gauge string) bool {
	return !c.success[needs[gauge]] || !c.success["targets"] && c.instant.IsZero() || !c.success["up"] && !c.success["last_scrape"]
}
