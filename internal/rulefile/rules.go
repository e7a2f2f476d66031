// SPDX-License-Identifier: Apache-2.0

// Package rules writes a rule file of Prometheus that records the gauges.
package rulefile

import (
	"fmt"
	"io"

	"github.com/prometheus/common/model"
	"go.yaml.in/yaml/v4"

	"github.com/operator-store/operator_store_exporter/collector"
	"github.com/operator-store/operator_store_exporter/config"
)

type file struct {
	Groups []group `yaml:"groups"`
}

type group struct {
	Name  string `yaml:"name"`
	Rules []rule `yaml:"rules"`
}

type rule struct {
	Record string            `yaml:"record"`
	Expr   string            `yaml:"expr"`
	Labels map[string]string `yaml:"labels"`
}

const head = `# Records the gauges of operator_store_exporter, under the same names, in the Prometheus that scrapes TiKV.
# A group is about one cluster: load it where that cluster's TiKV is scraped. The label address is the target's instance,
# store_id is not known to rules, and a store that Prometheus does not know has no operator_store_up of 0.
`

// Write writes the rules of all clusters. Lookback is how long a target is known after Prometheus last saw it. The error is of a
// metric of the configuration, or w's.
func Write(w io.Writer, cfg *config.Config, lookback config.Duration) error {
	var f file
	for _, c := range cfg.Clusters {
		g := group{Name: "operator_store_" + c.Name}
		recorded, err := collector.Rules(c, lookback)
		if err != nil {
			return fmt.Errorf("cluster %q: %w", c.Name, err)
		}
		for _, r := range recorded {
			g.Rules = append(g.Rules, rule{r.Record, address(r.Expr), map[string]string{"cluster": c.Name}})
		}
		f.Groups = append(f.Groups, g)
	}
	content, err := yaml.Dump(f)
	if err != nil {
		return fmt.Errorf("write the rules: %w", err)
	}
	_, err = io.WriteString(w, head+string(content))
	return err
}

// address gives the samples of an expression the label address.
func address(expression string) string {
	return fmt.Sprintf(`label_replace(%s, "address", "$1", %q, "(.+)")`, expression, model.InstanceLabel)
}
