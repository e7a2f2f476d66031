// SPDX-License-Identifier: Apache-2.0

package collector_test

import (
	"bytes"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
)

// gaugeCase is what upstream returns, and the store gauges that a scrape computes from it.
type gaugeCase struct {
	name      string
	config    string
	targets   []labels.Labels // If nil, the target tikvA.
	responses map[string][]string
	failing   map[string]error
	want      []string
}

func (tc gaugeCase) run(t *testing.T) {
	up := &fakeUpstream{targets: oneTarget, responses: tc.responses, failing: tc.failing}
	if tc.targets != nil {
		up.targets = tc.targets
	}

	got := storeGauges(t, scrape(t.Context(), t, newExporter(t, up, tc.config)))
	if want := strings.Join(tc.want, "\n"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestGauges(t *testing.T) {
	for _, tc := range gaugeCases {
		t.Run(tc.name, tc.run)
	}
}

var gaugeCases = []gaugeCase{
	{
		name: "values of upstream, including zero",
		responses: map[string][]string{
			"up":               {tikvA + " 1"},
			"storage_commands": {tikvA + " 0"},
			"cpu_seconds":      {tikvA + " 0.25"},
			"cpu_quota":        {tikvA + " 8"},
			"last_scrape":      {tikvA + " 1700000000.5"},
		},
		want: []string{
			`operator_store_cpu_cores{address="a:20180",cluster="c",store_id=""} 8`,
			`operator_store_cpu_percent{address="a:20180",cluster="c",store_id=""} 25`,
			`operator_store_last_scrape_timestamp_seconds{address="a:20180",cluster="c",store_id=""} 1.7000000005e+09`,
			monitoredLineA,
			`operator_store_qps{address="a:20180",cluster="c",store_id=""} 0`,
			upLineA,
		},
	},
	{
		name: "NaN and infinities are absent",
		responses: map[string][]string{
			"up":               {tikvA + " 1"},
			"storage_commands": {tikvA + " NaN"},
			"cpu_seconds":      {tikvA + " +Inf"},
			"cpu_quota":        {tikvA + " -Inf"},
		},
		want: []string{monitoredLineA, upLineA},
	},
	{
		name:      "histogram without observations has a rate but no quantile",
		responses: map[string][]string{"grpc_duration": {tikvA + ",le=0.1 0", tikvA + ",le=+Inf 0"}},
		want: []string{
			`operator_store_grpc_qps{address="a:20180",cluster="c",store_id=""} 0`,
			unmonitoredLineA,
		},
	},
	{
		name: "quantiles are interpolated within a bucket",
		// In the bucket from 1 to 2, 95 % of 100 is reached at 5/10, 99 % at 9/10.
		responses: map[string][]string{
			"up":            {tikvA + " 1"},
			"grpc_duration": {tikvA + ",le=+Inf 100", tikvA + ",le=2 100", tikvA + ",le=1 90"},
		},
		want: []string{
			`operator_store_grpc_qps{address="a:20180",cluster="c",store_id=""} 100`,
			`operator_store_latency_p95_seconds{address="a:20180",cluster="c",store_id=""} 1.5`,
			`operator_store_latency_p99_seconds{address="a:20180",cluster="c",store_id=""} 1.9`,
			monitoredLineA,
			upLineA,
		},
	},
	{
		name: "buckets without +Inf are not a histogram",
		responses: map[string][]string{
			"up":            {tikvA + " 1"},
			"grpc_duration": {tikvA + ",le=2 100", tikvA + ",le=1 90"},
			"raft_log_lag":  {tikvA + ",le=2 100", tikvA + ",le=1 90"},
		},
		want: []string{monitoredLineA, upLineA},
	},
	{
		name: "buckets with a bound that is not a number are not a histogram",
		responses: map[string][]string{
			"up":            {tikvA + " 1"},
			"grpc_duration": {tikvA + ",le=+Inf 100", tikvA + ",le=x 90", tikvA + ",le=1 90"},
		},
		want: []string{monitoredLineA, upLineA},
	},
	{
		name: "ratios",
		responses: map[string][]string{
			"up":         {tikvA + " 1"},
			"store_size": {tikvA + ",type=used 1", tikvA + ",type=available 2", tikvA + ",type=capacity 8"},
		},
		want: []string{
			`operator_store_disk_available_bytes{address="a:20180",cluster="c",store_id=""} 2`,
			`operator_store_disk_fill_ratio{address="a:20180",cluster="c",store_id=""} 0.75`,
			`operator_store_disk_total_bytes{address="a:20180",cluster="c",store_id=""} 8`,
			`operator_store_disk_used_bytes{address="a:20180",cluster="c",store_id=""} 1`,
			`operator_store_disk_utilization_ratio{address="a:20180",cluster="c",store_id=""} 0.125`,
			monitoredLineA,
			upLineA,
		},
	},
	{
		name: "ratios to a capacity of zero are absent",
		responses: map[string][]string{
			"up":         {tikvA + " 1"},
			"store_size": {tikvA + ",type=used 1", tikvA + ",type=available 0", tikvA + ",type=capacity 0"},
		},
		want: []string{
			`operator_store_disk_available_bytes{address="a:20180",cluster="c",store_id=""} 0`,
			`operator_store_disk_total_bytes{address="a:20180",cluster="c",store_id=""} 0`,
			`operator_store_disk_used_bytes{address="a:20180",cluster="c",store_id=""} 1`,
			monitoredLineA,
			upLineA,
		},
	},
	{
		name: "duplicate series are dropped for that store and query",
		responses: map[string][]string{
			"up":               {tikvA + " 1"},
			"storage_commands": {tikvA + " 5", tikvA + " 6"},
			"cpu_quota":        {tikvA + " 8"},
		},
		want: []string{
			`operator_store_cpu_cores{address="a:20180",cluster="c",store_id=""} 8`, monitoredLineA, upLineA,
		},
	},
	{
		name: "series of unknown targets are ignored",
		responses: map[string][]string{
			"up":               {tikvA + " 1"},
			"storage_commands": {tikvB + " 5"},
			"cpu_quota":        {"job=other,instance=a:20180 8"},
		},
		want: []string{monitoredLineA, upLineA},
	},
	{
		name:      "target without series is not monitored, which says nothing about up",
		responses: map[string][]string{},
		want:      []string{unmonitoredLineA},
	},
	{
		name:      "target whose scrapes fail is down, and monitored",
		responses: map[string][]string{"up": {tikvA + " 0"}},
		want:      []string{monitoredLineA, downLineA},
	},
	{
		name:      "up of a target with pushed series is unknown",
		responses: map[string][]string{"last_scrape": {tikvA + " 1700000000"}},
		want: []string{
			`operator_store_last_scrape_timestamp_seconds{address="a:20180",cluster="c",store_id=""} 1.7e+09`,
			unmonitoredLineA,
		},
	},
	{
		name: "two targets with one identity have no gauges",
		responses: map[string][]string{
			"up":               {tikvA + ",cluster=x 1", tikvA + ",cluster=y 1"},
			"storage_commands": {tikvA + " 5"},
		},
	},
	{
		name: "two live series with one identity and without up have no gauges",
		responses: map[string][]string{
			"last_scrape":      {tikvA + ",prometheus=x 1700000000", tikvA + ",prometheus=y 1700000000"},
			"storage_commands": {tikvA + " 5"},
		},
	},
	{
		name:   "all gauges are from the freshest replica",
		config: "  replica_labels: [replica]\n",
		responses: map[string][]string{
			"up":               {tikvA + ",replica=x 0", tikvA + ",replica=y 1"},
			"last_scrape":      {tikvA + ",replica=x 1600000000", tikvA + ",replica=y 1700000000"},
			"replica_time":     {tikvA + ",replica=x 1600000000", tikvA + ",replica=y 1700000000"},
			"storage_commands": {tikvA + ",replica=x 5", tikvA + ",replica=y 6"},
			"cpu_quota":        {tikvA + ",replica=x 8"},
		},
		want: []string{
			`operator_store_last_scrape_timestamp_seconds{address="a:20180",cluster="c",store_id=""} 1.7e+09`,
			monitoredLineA,
			`operator_store_qps{address="a:20180",cluster="c",store_id=""} 6`,
			upLineA,
		},
	},
	{
		name:   "store that is down is not reported up by a replica that is gone",
		config: "  replica_labels: [replica]\n",
		responses: map[string][]string{
			"up":               {tikvA + ",replica=gone 1", tikvA + ",replica=live 0"},
			"last_scrape":      {tikvA + ",replica=gone 1600000000"},
			"replica_time":     {tikvA + ",replica=gone 1600000000", tikvA + ",replica=live 1700000000"},
			"storage_commands": {tikvA + ",replica=gone 5"},
		},
		want: []string{monitoredLineA, downLineA},
	},
	{
		name:   "no replica is used if their ages are unknown",
		config: "  replica_labels: [replica]\n",
		responses: map[string][]string{
			"up":               {tikvA + ",replica=x 1", tikvA + ",replica=y 1"},
			"storage_commands": {tikvA + ",replica=x 5", tikvA + ",replica=y 6"},
		},
		failing: map[string]error{"last_scrape": errHTTP, "replica_time": errHTTP},
	},
	{
		name:      "configured stores have their IDs, and one that upstream does not know is not monitored",
		config:    "  stores: [{id: 7, address: 'A:20160'}, {id: 8, address: 'b:20160'}]\n",
		responses: map[string][]string{"up": {tikvA + " 1"}},
		want: []string{
			`operator_store_monitored{address="A:20160",cluster="c",store_id="7"} 1`,
			`operator_store_monitored{address="b:20160",cluster="c",store_id="8"} 0`,
			`operator_store_up{address="A:20160",cluster="c",store_id="7"} 1`,
		},
	},
	{
		name:      "whether a store is monitored is unknown if the query for up fails",
		config:    "  stores: [{id: 7, address: 'a:20160'}, {id: 8, address: 'b:20160'}]\n",
		responses: map[string][]string{"storage_commands": {tikvA + " 5"}},
		failing:   map[string]error{"up": errHTTP},
		want:      []string{`operator_store_qps{address="a:20160",cluster="c",store_id="7"} 5`},
	},
	{
		name:      "upstream without TiKV has no stores",
		targets:   []labels.Labels{},
		responses: map[string][]string{},
	},
	{
		name:    "no gauges before the targets are known",
		config:  "  stores: [{id: 7, address: 'a:20160'}]\n",
		failing: map[string]error{queryTargets: errHTTP},
	},
	{
		name: "custom gauge, and built-in gauge with another expression",
		config: "  metrics:\n" +
			"  - {name: operator_store_cpu_cores, expr: tikv_cores}\n" +
			"  - {name: operator_store_threads, expr: tikv_threads}\n",
		responses: map[string][]string{
			"up":         {tikvA + " 1"},
			"cpu_quota":  {tikvA + " 8"},
			"tikv_cores": {tikvA + " 4"},
		},
		want: []string{
			`operator_store_cpu_cores{address="a:20180",cluster="c",store_id=""} 4`, monitoredLineA, upLineA,
		},
	},
}

// The query up shows whether a store is up and monitored. Either of the queries up and last_scrape
// shows whether its identity belongs to one target.
func TestUpWithFailedQueries(t *testing.T) {
	const (
		qps       = `operator_store_qps`
		monitored = `operator_store_monitored`
		up        = `operator_store_up`
	)
	for _, tc := range []struct {
		name    string
		up      []string // The response to the query up.
		failing map[string]error
		want    []string
	}{
		{
			name: "no failures",
			up:   []string{tikvA + " 1"},
			want: []string{monitored, qps, up},
		},
		{
			name:    "last_scrape fails, up has a sample",
			up:      []string{tikvA + " 1"},
			failing: map[string]error{"last_scrape": errHTTP},
			want:    []string{monitored, qps, up},
		},
		{
			name:    "last_scrape fails, up has no sample",
			failing: map[string]error{"last_scrape": errHTTP},
			want:    []string{monitored, qps},
		},
		{
			name:    "up fails",
			failing: map[string]error{"up": errHTTP},
			want:    []string{qps},
		},
		{
			name:    "both fail, so several targets may share the identity",
			failing: map[string]error{"up": errHTTP, "last_scrape": errHTTP},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			responses := map[string][]string{"storage_commands": {tikvA + " 5"}, "up": tc.up}
			upstream := &fakeUpstream{targets: oneTarget, responses: responses, failing: tc.failing}

			got := metricNames(storeGauges(t, scrape(t.Context(), t, newExporter(t, upstream, ""))))
			if strings.Join(got, " ") != strings.Join(tc.want, " ") {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

// Whatever the name of a target, its store is exported, and the text format stays valid.
func TestUnusualTargetNames(t *testing.T) {
	for _, name := range []string{"a\"b:1", "a\nb:1", `a\b:1`, "{}:1", "\xff:1", "é:1", "", "a,b=c:1", "\x00:1"} {
		t.Run(strconv.Quote(name), func(t *testing.T) {
			up := &fakeUpstream{targets: []labels.Labels{target("tikv", name)}}
			s := scrape(t.Context(), t, newExporter(t, up, ""))
			text, err := testutil.CollectAndFormat(s, expfmt.TypeTextPlain, "operator_store_monitored")
			if err != nil {
				t.Fatal(err)
			}

			parser := expfmt.NewTextParser(model.UTF8Validation)
			families, err := parser.TextToMetricFamilies(bytes.NewReader(text))
			if err != nil {
				t.Fatalf("%v:\n%s", err, text)
			}
			metrics := families["operator_store_monitored"].GetMetric()
			if len(metrics) != 1 || metrics[0].Label[0].GetValue() != strings.ToValidUTF8(name, "\ufffd") {
				t.Errorf("got the metrics %v, want one with the address %q", metrics, name)
			}
		})
	}
}
