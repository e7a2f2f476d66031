// SPDX-License-Identifier: Apache-2.0

package collector_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"go.yaml.in/yaml/v4"

	"github.com/operator-store/operator_store_exporter/collector"
	"github.com/operator-store/operator_store_exporter/config"
)

// queriesAboutAll are the queries of the discovery that do not name targets.
var queriesAboutAll = []string{queryTargets, queryLiveTargets, queryNativeTargets, queryClassicTargets, queryStoreIDs}

// Whatever the selector and the targets are, each vector selector that is sent has the matchers
// of the configured selector, and those of the target.
func FuzzQueries(f *testing.F) {
	f.Add(`{tidb_cluster="prod"}`, "tikv-0:20180", "tikv", "replica")
	f.Add(`{a=~".*\"}) or vector(1) #", b!=""}`, "\"} or up{a=\"", "\\", "le")
	f.Add(`{a="\n"}`, "10.0.0.1\n", "`", "x")
	f.Add(`{"ü"='`+"`"+`'}`, "\xff\ufffd", "a|b", "x")
	f.Fuzz(func(t *testing.T, selector, instance, job, replicaLabel string) {
		content, err := yaml.Dump(map[string]any{"clusters": []any{map[string]any{
			"name": "c", "upstream": map[string]any{"url": "http://upstream"}, "selector": selector,
			"replica_labels": []string{replicaLabel},
		}}})
		if err != nil {
			t.Skip() // YAML cannot represent it.
		}
		cfg, err := config.Load(content)
		if err != nil {
			return // The configuration is invalid.
		}

		up := &fakeUpstream{targets: []labels.Labels{target(job, instance)}}
		e := newExporterWith(t, cfg, up, collector.Options{})
		scrape(t.Context(), t, e)
		e.Close()

		target := []*labels.Matcher{
			labels.MustNewMatcher(labels.MatchEqual, "job", strings.ToValidUTF8(job, "\ufffd")),
			labels.MustNewMatcher(labels.MatchEqual, "instance", strings.ToValidUTF8(instance, "\ufffd")),
		}
		for _, r := range up.received() {
			aboutTarget := !slices.Contains(queriesAboutAll, r.query)
			for _, expression := range strings.Split(r.expression, "\n") {
				for _, s := range vectorSelectors(t, expression) {
					requireMatchers(t, s.LabelMatchers, cfg.Clusters[0].Selector)
					if aboutTarget {
						requireMatchers(t, s.LabelMatchers, target)
					}
				}
			}
		}
	})
}

// requireMatchers verifies that a vector selector has the wanted matchers.
func requireMatchers(t *testing.T, matchers, want []*labels.Matcher) {
	t.Helper()

	for _, w := range want {
		if !slices.ContainsFunc(matchers, func(m *labels.Matcher) bool { return m.String() == w.String() }) {
			t.Errorf("the selector %v lacks %s", matchers, w)
		}
	}
}
