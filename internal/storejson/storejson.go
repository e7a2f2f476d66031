// SPDX-License-Identifier: Apache-2.0

// Package storejson encodes stores as JSON for scripts.
package storejson

import (
	"bytes"
	"encoding/json"
	"io"
	"time"

	"github.com/operator-store/operator_store_exporter/internal/report"
)

// document is the body of GET /api/v1/stores, and the output of `stores -o json`.
type document struct {
	Clusters []cluster `json:"clusters"`
	Stores   []object  `json:"stores"`
}

// cluster describes how the scrape of one cluster went.
type cluster struct {
	Cluster     string     `json:"cluster"`
	UpstreamUp  bool       `json:"upstream_up"`         // Whether every query succeeded and was complete.
	Upstream    string     `json:"upstream"`            // URL of the server in use.
	EvaluatedAt *time.Time `json:"evaluated_at"`        // By upstream's clock; null if nothing was evaluated.
	RateWindow  *float64   `json:"rate_window_seconds"` // Of all rates; null if nothing was evaluated.
	Problems    []string   `json:"problems"`
}

// Write writes a document with the clusters and stores of reports.
func Write(w io.Writer, reports []report.Report) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")

	return e.Encode(newDocument(reports))
}

func newDocument(reports []report.Report) document {
	d := document{Clusters: []cluster{}, Stores: []object{}} // Empty lists, not null.
	for _, r := range reports {
		d.Clusters = append(d.Clusters, newCluster(r))

		l := newLayout(r.Gauges)
		for _, s := range r.Stores {
			d.Stores = append(d.Stores, l.newStore(r.Cluster, s))
		}
	}

	return d
}

func newCluster(r report.Report) cluster {
	c := cluster{Cluster: r.Cluster, UpstreamUp: r.UpstreamUp, Upstream: r.ActiveServer, Problems: []string{}}
	if !r.EvaluatedAt.IsZero() {
		evaluatedAt := r.EvaluatedAt.UTC()
		c.EvaluatedAt = &evaluatedAt
	}
	if r.RateWindow > 0 {
		seconds := r.RateWindow.Seconds()
		c.RateWindow = &seconds
	}

	for _, p := range r.Problems {
		c.Problems = append(c.Problems, p.String())
	}

	return c
}

// An object is a JSON object whose members have an order.
type object []member

type member struct {
	name  string
	value any
}

// MarshalJSON implements json.Marshaler.
func (o object) MarshalJSON() ([]byte, error) {
	var out bytes.Buffer
	out.WriteByte('{')

	for i, m := range o {
		if i > 0 {
			out.WriteByte(',')
		}
		name, err := json.Marshal(m.name)
		if err != nil {
			return nil, err
		}
		value, err := json.Marshal(m.value)
		if err != nil {
			return nil, err
		}
		out.Write(name)
		out.WriteByte(':')
		out.Write(value)
	}
	out.WriteByte('}')

	return out.Bytes(), nil
}
