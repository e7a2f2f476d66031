// SPDX-License-Identifier: Apache-2.0

// Package status shows people what a scrape found out.
package statuspage

import (
	"encoding/json"
	"io"
	"math"
	"strings"
	"time"

	"github.com/operator-store/operator_store_exporter/collector"
)

// Document is what GET /api/v1/stores and `stores -o json` tell.
type Document struct {
	Clusters []Cluster `json:"clusters"`
	Stores   []Store   `json:"stores"`
}

// Cluster is how asking about one cluster went.
type Cluster struct {
	Cluster    string     `json:"cluster"`
	UpstreamUp bool       `json:"upstream_up"`  // Every query succeeded.
	Upstream   string     `json:"upstream"`     // The URL of the server that answers.
	Evaluated  *time.Time `json:"evaluated_at"` // The instant of all queries, on upstream's clock; null if nothing could be asked.
	Problems   []string   `json:"problems"`
}

// Store is one store. What is absent is null.
type Store struct {
	Cluster              string   `json:"cluster"`
	StoreID              string   `json:"store_id"`
	Address              string   `json:"address"`
	Up                   *float64 `json:"up"`
	QPS                  *float64 `json:"qps"`
	LatencyP95MS         *float64 `json:"latency_p95_ms"`
	LatencyP99MS         *float64 `json:"latency_p99_ms"`
	DiskUsedBytes        *float64 `json:"disk_used_bytes"`
	DiskAvailableBytes   *float64 `json:"disk_available_bytes"`
	DiskTotalBytes       *float64 `json:"disk_total_bytes"`
	DiskUtilizationRatio *float64 `json:"disk_utilization_ratio"`
	CPUPercent           *float64 `json:"cpu_percent"`
	RaftLag              *float64 `json:"raft_lag"`

	// Metrics are the gauges of the configuration, those that are absent left out.
	Metrics map[string]float64 `json:"metrics,omitempty"`
}

// NewDocument makes a document of what a scrape found out.
func NewDocument(reports []collector.Report) Document {
	d := Document{Clusters: []Cluster{}, Stores: []Store{}} // Empty lists, not null.
	for _, r := range reports {
		c := Cluster{Cluster: r.Cluster, UpstreamUp: r.Up, Upstream: r.Serving, Problems: append([]string{}, r.Problems...)}
		if !r.Instant.IsZero() {
			instant := r.Instant.UTC()
			c.Evaluated = &instant
		}
		d.Clusters = append(d.Clusters, c)
		for _, s := range r.Stores {
			d.Stores = append(d.Stores, newStore(r, s))
		}
	}
	return d
}

func newStore(r collector.Report, s collector.StoreReport) Store {
	scaled := func(gauge string, factor float64) *float64 {
		v, ok := r.Value(s, "operator_store_"+gauge)
		if v *= factor; !ok || math.IsInf(v, 0) {
			return nil
		}
		return &v
	}
	plain := func(gauge string) *float64 { return scaled(gauge, 1) }
	const milli = 1000
	store := Store{
		Cluster: r.Cluster, StoreID: s.ID, Address: s.Address,
		Up: plain("up"), QPS: plain("qps"),
		LatencyP95MS: scaled("latency_p95_seconds", milli), LatencyP99MS: scaled("latency_p99_seconds", milli),
		DiskUsedBytes: plain("disk_used_bytes"), DiskAvailableBytes: plain("disk_available_bytes"), DiskTotalBytes: plain("disk_total_bytes"),
		DiskUtilizationRatio: plain("disk_utilization_ratio"), CPUPercent: plain("cpu_percent"), RaftLag: plain("raft_lag"),
	}
	for i, g := range r.Gauges {
		if i < len(collector.Gauges) || math.IsNaN(s.Values[i]) {
			continue
		}
		if store.Metrics == nil {
			store.Metrics = map[string]float64{}
		}
		store.Metrics[g.Name] = s.Values[i]
	}
	return store
}

// WriteJSON writes the document.
func WriteJSON(w io.Writer, d Document) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(d)
}

// Title is what a gauge is called where there is no room for its name: that without its unit.
func Title(gauge string) string {
	name := strings.TrimPrefix(gauge, "operator_store_")
	for _, unit := range units {
		if rest, ok := strings.CutSuffix(name, unit.suffix); ok {
			name = rest
			break
		}
	}
	return strings.ReplaceAll(name, "_", " ")
}
