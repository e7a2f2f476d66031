// SPDX-License-Identifier: Apache-2.0

package gauge_test

import (
	"cmp"
	"errors"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/operator-store/operator_store_exporter/config"
	"github.com/operator-store/operator_store_exporter/internal/gauge"
)

func loadConfig(t *testing.T) *config.Config {
	t.Helper()
	cfg, err := config.LoadFile("testdata/config.yml")
	if err != nil {
		t.Fatal(err)
	}

	return cfg
}

// rateWindow returns the configured rate window, or 1m if it is auto.
func rateWindow(cluster config.Cluster) (time.Duration, error) {
	return cmp.Or(time.Duration(cluster.RateWindow), time.Minute), nil
}

// writeRules returns the rule file of testdata/config.yml.
func writeRules(t *testing.T) string {
	t.Helper()
	var content strings.Builder
	if err := gauge.WriteRules(&content, loadConfig(t), time.Hour, rateWindow); err != nil {
		t.Fatal(err)
	}

	return content.String()
}

// The golden file has rules of every kind of source. Rules of built-in gauges that it does not have
// are left out of the comparison, so that adding a gauge does not change it.
func TestWriteRules(t *testing.T) {
	const goldenFile = "testdata/rules.yml"
	golden, err := os.ReadFile(goldenFile)
	if err != nil {
		t.Fatal(err)
	}

	var got []string
	skip := false
	for _, line := range strings.Split(writeRules(t), "\n") {
		if record, ok := strings.CutPrefix(line, "  - record: "); ok {
			skip = !strings.Contains(string(golden), "- record: "+record+"\n")
		} else if !strings.HasPrefix(line, " ") {
			skip = false // A group, or the end of the file.
		}
		if !skip {
			got = append(got, line)
		}
	}

	want := strings.Split(string(golden), "\n")
	for i := range max(len(got), len(want)) {
		if i >= len(got) || i >= len(want) || got[i] != want[i] {
			t.Fatalf("%s:%d: the rules differ from this line on, got\n%s",
				goldenFile, i+1, strings.Join(got[min(i, len(got)):], "\n"))
		}
	}
}

// Prometheus accepts the rule file. Each group records all gauges of its cluster, in their order.
func TestRulesAreComplete(t *testing.T) {
	groups, errs := rulefmt.Parse([]byte(writeRules(t)), false, model.UTF8Validation,
		parser.NewParser(parser.Options{}), slog.New(slog.DiscardHandler))
	if len(errs) > 0 {
		t.Fatal(errors.Join(errs...))
	}

	clusters := loadConfig(t).Clusters
	if len(groups.Groups) != len(clusters) {
		t.Fatalf("there are %d groups, want one per cluster, %d", len(groups.Groups), len(clusters))
	}

	for i, cluster := range clusters {
		group := groups.Groups[i]
		if want := "operator_store_" + cluster.Name; group.Name != want {
			t.Errorf("the name of the group is %s, want %s", group.Name, want)
		}
		catalog, err := gauge.NewCatalog(cluster.Metrics)
		if err != nil {
			t.Fatal(err)
		}

		var got, want []string
		for _, r := range group.Rules {
			got = append(got, r.Record)
		}

		for _, g := range catalog.Gauges() {
			want = append(want, g.Name)
		}
		if !slices.Equal(got, want) {
			t.Errorf("group %s records\n%s\nwant\n%s", group.Name, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}

// errWriter fails.
type errWriter struct{}

var errFull = errors.New("disk full")

func (errWriter) Write([]byte) (int, error) { return 0, errFull }

func TestWriteRulesErrors(t *testing.T) {
	if err := gauge.WriteRules(errWriter{}, loadConfig(t), time.Hour, rateWindow); !errors.Is(err, errFull) {
		t.Errorf("got the error %v, want that of the writer", err)
	}

	cfg, err := config.Load([]byte(`
clusters:
- name: c
  upstream: {url: http://a}
  metrics:
  - {name: operator_store_qps, help: Mine., expr: tikv_qps}
`))
	if err != nil {
		t.Fatal(err)
	}
	var content strings.Builder
	err = gauge.WriteRules(&content, cfg, time.Hour, rateWindow)
	want := `cluster "c": line 6: operator_store_qps is built in and keeps its help text: remove help`
	if err == nil || err.Error() != want || content.Len() > 0 {
		t.Errorf("got the error %v and %d bytes, want only the error %s", err, content.Len(), want)
	}
}

func TestWriteRulesUnknownRateWindow(t *testing.T) {
	errUnknown := errors.New("unknown rate window")
	unknown := func(c config.Cluster) (time.Duration, error) {
		if c.Name == "test" {
			return 0, errUnknown
		}

		return time.Minute, nil
	}
	var content strings.Builder

	err := gauge.WriteRules(&content, loadConfig(t), time.Hour, unknown)

	if !errors.Is(err, errUnknown) || !strings.Contains(err.Error(), `cluster "test"`) || content.Len() > 0 {
		t.Errorf("got the error %v and %d bytes, want only the error about cluster test", err, content.Len())
	}
}
