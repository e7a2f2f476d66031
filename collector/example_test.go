// SPDX-License-Identifier: Apache-2.0

package collector_test

import (
	"net/http/httptest"
	"os"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"

	"github.com/operator-store/operator_store_exporter/collector"
	"github.com/operator-store/operator_store_exporter/config"
	"github.com/operator-store/operator_store_exporter/internal/promtest"
)

// Any program can expose the gauges next to its own metrics: an Exporter is a prometheus.Collector.
func Example() {
	// In your program, this is the Prometheus that scrapes TiKV.
	upstream := httptest.NewServer(promtest.Prometheus{
		Targets: []promtest.Target{promtest.TiKV("tikv-0:20180"), promtest.TiKV("tikv-1:20180")},
	})
	defer upstream.Close()

	cfg, err := config.SingleCluster("prod", upstream.URL) // Or config.LoadFile.
	if err != nil {
		panic(err)
	}
	exporter, err := collector.New(cfg, collector.Options{})
	if err != nil {
		panic(err)
	}
	defer exporter.Close()

	registry := prometheus.NewRegistry()
	registry.MustRegister(exporter)

	// Most programs serve the registry with promhttp.HandlerFor. This one prints a single gauge.
	families, err := registry.Gather()
	if err != nil {
		panic(err)
	}

	for _, family := range families {
		if family.GetName() != "operator_store_disk_used_bytes" {
			continue
		}
		if _, err := expfmt.MetricFamilyToText(os.Stdout, family); err != nil {
			panic(err)
		}
	}
	// Output:
	// # HELP operator_store_disk_used_bytes Disk space used by TiKV's storage engine.
	// # TYPE operator_store_disk_used_bytes gauge
	// operator_store_disk_used_bytes{address="tikv-0:20180",cluster="prod",store_id=""} 100
	// operator_store_disk_used_bytes{address="tikv-1:20180",cluster="prod",store_id=""} 100
}
