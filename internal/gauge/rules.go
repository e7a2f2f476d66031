// SPDX-License-Identifier: Apache-2.0

package gauge

import (
	"fmt"
	"io"
	"time"

	"github.com/prometheus/common/model"
	"go.yaml.in/yaml/v4"

	"github.com/operator-store/operator_store_exporter/config"
	"github.com/operator-store/operator_store_exporter/internal/promqlexpr"
)

// Series returns the selectors of the series that the gauge itself is computed from; none for a
// derived gauge. A histogram has two: its classic buckets, and its native form.
func (g Gauge) Series() []promqlexpr.Expr {
	if len(g.source.inputs()) > 0 {
		return nil
	}

	return g.source.rule(nil).Series()
}

// ruleFile is a rule file of Prometheus.
type ruleFile struct {
	Groups []ruleGroup `yaml:"groups"`
}

type ruleGroup struct {
	Name  string          `yaml:"name"`
	Rules []recordingRule `yaml:"rules"`
}

type recordingRule struct {
	Record string            `yaml:"record"`
	Expr   string            `yaml:"expr"`
	Labels map[string]string `yaml:"labels"`
}

const ruleFileHeader = `# Records the gauges of operator_store_exporter, under the same names, in the Prometheus that
# scrapes TiKV. Each group belongs to one cluster: load it into the Prometheus that scrapes that
# cluster's TiKV. The label address is the target's instance, and store_id is unknown to rules.
#
# Limits: a rule records only targets that have an up sample, so operator_store_monitored is 1 or
# absent, never 0: alert on its absence. A rule cannot know whether its data is complete, as with a
# Thanos ruler that accepts partial responses. The rate window is the one that fitted when the file
# was generated: generate it again after a change of the scrape interval.
`

// WriteRules writes a rule file of Prometheus that records the gauges of all clusters. A target
// is included for lookback after Prometheus last had samples of it. RateWindow returns the rate
// window of a cluster, which can depend on its upstream. The error names the cluster whose metric
// is invalid or whose rate window is unknown, or is w's.
func WriteRules(
	w io.Writer, cfg *config.Config, lookback time.Duration, rateWindow func(config.Cluster) (time.Duration, error),
) error {
	var file ruleFile
	for _, cluster := range cfg.Clusters {
		group, err := newRuleGroup(cluster, lookback, rateWindow)
		if err != nil {
			return fmt.Errorf("cluster %q: %w", cluster.Name, err)
		}
		file.Groups = append(file.Groups, group)
	}

	content, err := yaml.Dump(file)
	if err != nil {
		return fmt.Errorf("encode the rule file: %w", err)
	}
	_, err = io.WriteString(w, ruleFileHeader+string(content))

	return err
}

// newRuleGroup returns the rules of one cluster, in the order of the gauges.
func newRuleGroup(
	cluster config.Cluster, lookback time.Duration, rateWindow func(config.Cluster) (time.Duration, error),
) (ruleGroup, error) {
	catalog, err := NewCatalog(cluster.Metrics)
	if err != nil {
		return ruleGroup{}, err
	}
	window, err := rateWindow(cluster)
	if err != nil {
		return ruleGroup{}, err
	}

	// Processes other than TiKV export some of the same series.
	tikv := promqlexpr.LastOverTime(promqlexpr.MustParse(`tikv_store_size_bytes{type="available"}`), lookback)
	group := ruleGroup{Name: "operator_store_" + cluster.Name}
	for _, g := range catalog.gauges {
		e := catalog.Rule(g, window)
		if !e.AllMetricsHavePrefix("tikv_") {
			e = promqlexpr.AndOn(e, tikv, model.JobLabel, model.InstanceLabel)
		}
		e = e.WithMatchers(cluster.Selector)
		group.Rules = append(group.Rules, recordingRule{
			Record: g.Name,
			Expr:   promqlexpr.LabelReplace(e, "address", "$1", model.InstanceLabel, "(.+)").String(),
			Labels: map[string]string{"cluster": cluster.Name},
		})
	}

	return group, nil
}

// Rule returns PromQL for the values of g for all targets. Only built-in expressions get the rate
// window: a custom expression has ranges of its own.
func (c *Catalog) Rule(g Gauge, rateWindow time.Duration) promqlexpr.Expr {
	e := g.source.rule(func(name string) promqlexpr.Expr { return c.Rule(c.gauges[c.index[name]], rateWindow) })
	for _, q := range g.source.queries() {
		if q.Shape != Custom {
			e = e.WithRange(rateWindow)
		}
	}

	return e
}
