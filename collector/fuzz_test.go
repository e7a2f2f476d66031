// SPDX-License-Identifier: Apache-2.0

package collector_test

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/go-kit/log"
	"github.com/prometheus/prometheus/model/labels"
	"go.yaml.in/yaml/v4"

	"github.com/operator-store/operator_store_exporter/config"
)

// Whatever the configuration and the targets say, what is sent are the expressions that are meant: each selector has the
// matchers of the user's selector and of the targets, and nothing else has changed.
func FuzzQueries(f *testing.F) {
	f.Add(`{tidb_cluster="prod"}`, "tikv-0:20180", "tikv", "replica")
	f.Add(`{a=~".*\"}) or vector(1) #", b!=""}`, "\"} or up{a=\"", "\\", "le")
	f.Add(`{a="\n"}`, "10.0.0.1\n", "`", "x")
	f.Add(`{"ü"='`+"`"+`'}`, "\xff\ufffd", "a|b", "x")
	f.Fuzz(func(t *testing.T, selector, instance, job, replica string) {
		content, err := yaml.Dump(map[string]any{"clusters": []any{map[string]any{
			"name": "c", "upstream": map[string]any{"url": "http://upstream"}, "selector": selector, "replica_labels": []string{replica},
		}}})
		if err != nil {
			t.Skip() // It can't be written into a file.
		}
		cfg, err := config.Load(content)
		if err != nil {
			return // It is refused.
		}
		up := &fake{targets: []labels.Labels{target(job, instance)}}
		e := newConfigured(t, up, cfg, log.NewNopLogger())
		scrape(t.Context(), t, e)
		e.Close()
		matchers := map[string]string{"job": job, "instance": instance}
		for _, expression := range up.asked {
			if strings.HasPrefix(expression, "vector(0)") || len(up.targets) == 0 {
				continue
			}
			for _, e := range strings.Split(expression, " tikv_server_info") {
				if strings.TrimSpace(e) == "" || strings.HasPrefix(e, "{") {
					continue
				}
				for _, s := range selectors(t, strings.TrimSuffix(e, " or")) {
					for _, m := range cfg.Clusters[0].Selector {
						if !slices.ContainsFunc(s.LabelMatchers, func(o *labels.Matcher) bool { return o.String() == m.String() }) {
							t.Errorf("%s lacks %s", s, m)
						}
					}
					if !strings.Contains(expression, "instance=") {
						continue // It is one about all targets.
					}
					for name, value := range matchers {
						if !slices.ContainsFunc(s.LabelMatchers, func(m *labels.Matcher) bool {
							return m.Name == name && m.Type == labels.MatchEqual && m.Value == strings.ToValidUTF8(value, "\ufffd")
						}) {
							t.Errorf("%s does not have %s=%q", s, name, value)
						}
					}
				}
			}
		}
	})
}

// A quantile is what the definition of histogram_quantile in PromQL's documentation gives for the same buckets.
func FuzzQuantile(f *testing.F) {
	f.Add("0.1:5,0.2:9,+Inf:10")
	f.Add("1:90,2:100,+Inf:100")
	f.Add("2:10,4:5,8:98,+Inf:100")
	f.Add("+Inf:1,-1:0.5")
	f.Add("0:0,+Inf:0")
	f.Fuzz(func(t *testing.T, list string) {
		counts := map[float64]float64{}
		var series []string
		for _, item := range strings.Split(list, ",") {
			le, count, _ := strings.Cut(item, ":")
			bound, err := strconv.ParseFloat(le, 64)
			n, errCount := strconv.ParseFloat(count, 64)
			if err != nil || errCount != nil || math.IsNaN(bound) || math.IsInf(bound, -1) || !(n >= 0 && n < 1e15) || math.Abs(bound) > 1e15 && !math.IsInf(bound, 1) {
				return
			}
			if _, twice := counts[bound]; twice || strings.ContainsAny(le, "_pxPX") {
				return
			}
			counts[bound] = n
			series = append(series, fmt.Sprintf("job=tikv,instance=a:20180,le=%s %s", le, strconv.FormatFloat(n, 'g', -1, 64)))
		}
		up := &fake{targets: oneTarget, answers: map[string][]string{"up{": {"job=tikv,instance=a:20180 1"}, "log_lag": series}}
		e := newExporter(t, up, "", log.NewNopLogger())
		got := lines(t, scrape(t.Context(), t, e), "operator_store_raft_lag")
		e.Close()
		want, ok := textbook(0.99, counts)
		switch {
		case !ok && len(got) > 0:
			t.Fatalf("%s: got %q, want none", list, got)
		case !ok:
		case len(got) != 1:
			t.Fatalf("%s: got %q, want %v", list, got, want)
		default:
			_, text, _ := strings.Cut(got[0], "} ")
			v, err := strconv.ParseFloat(text, 64)
			if err != nil || math.Abs(v-want) > 1e-9*math.Max(math.Abs(want), 1e-9) {
				t.Errorf("%s: got %s, want %v", list, text, want)
			}
		}
	})
}

// textbook is histogram_quantile of PromQL's documentation: linear within the bucket in which the rank falls, whose lower
// bound is 0 for the first one if that is positive, the highest finite bound where it falls in the last, none without
// observations, with fewer than two buckets or without +Inf. Counts that fall are taken for the one before.
func textbook(phi float64, counts map[float64]float64) (float64, bool) {
	var bounds []float64
	for b := range counts {
		bounds = append(bounds, b)
	}
	slices.Sort(bounds)
	n := len(bounds)
	if n < 2 || !math.IsInf(bounds[n-1], 1) {
		return 0, false
	}
	cumulative := make([]float64, n)
	highest := 0.0
	for i, b := range bounds {
		highest = math.Max(highest, counts[b])
		cumulative[i] = highest
	}
	total := cumulative[n-1]
	if total == 0 {
		return 0, false
	}
	rank := phi * total
	i := 0
	for i < n-1 && cumulative[i] < rank {
		i++
	}
	switch {
	case i == n-1:
		return bounds[n-2], true
	case i == 0 && bounds[0] <= 0:
		return bounds[0], true
	}
	low, below := 0.0, 0.0
	if i > 0 {
		low, below = bounds[i-1], cumulative[i-1]
	}
	return low + (bounds[i]-low)*(rank-below)/(cumulative[i]-below), true
}
