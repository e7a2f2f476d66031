// SPDX-License-Identifier: Apache-2.0

package doctor_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"go.uber.org/goleak"

	"github.com/operator-store/operator_store_exporter/config"
	"github.com/operator-store/operator_store_exporter/internal/doctor"
	"github.com/operator-store/operator_store_exporter/internal/gauge"
	"github.com/operator-store/operator_store_exporter/internal/promtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// closedPort is a URL at which nobody listens.
const closedPort = "http://127.0.0.1:1"

// healthy returns a Prometheus that scrapes TiKV often enough for the default rate window.
func healthy(targets ...promtest.Target) promtest.Prometheus {
	return promtest.Prometheus{Targets: targets, ScrapeInterval: 15 * time.Second}
}

// checkCluster runs the doctor on cluster "prod". Fields are further lines of its configuration.
func checkCluster(t *testing.T, fields string, urls ...string) []doctor.Check {
	t.Helper()

	return checkUpstream(t, fmt.Sprintf("url: [%s]", strings.Join(urls, ", ")), fields)
}

// checkUpstream is like checkCluster for an upstream with further fields.
func checkUpstream(t *testing.T, upstream, fields string) []doctor.Check {
	t.Helper()
	cfg, err := config.Load(fmt.Appendf(nil, "clusters:\n- name: prod\n  upstream: {%s}\n%s", upstream, fields))
	if err != nil {
		t.Fatal(err)
	}

	return doctor.CheckCluster(t.Context(), cfg.Clusters[0], doctor.Options{Lookback: time.Hour})
}

// findings returns the checks that are not OK.
func findings(checks []doctor.Check) []doctor.Check {
	return slices.DeleteFunc(slices.Clone(checks), func(c doctor.Check) bool { return c.Outcome == doctor.OK })
}

// requireChecks fails the test unless got are the wanted checks. Their texts only need to contain
// the wanted ones.
func requireChecks(t *testing.T, got, want []doctor.Check) {
	t.Helper()
	matches := func(got, want doctor.Check) bool {
		return got.Outcome == want.Outcome && got.Name == want.Name && strings.Contains(got.Text, want.Text)
	}
	if !slices.EqualFunc(got, want, matches) {
		t.Errorf("the checks are\n%s\nwant\n%s", format(got), format(want))
	}
}

func format(checks []doctor.Check) string {
	var b strings.Builder
	for _, c := range checks {
		fmt.Fprintf(&b, "  %s %s: %s\n", c.Outcome, c.Name, c.Text)
	}

	return b.String()
}

func TestHealthyCluster(t *testing.T) {
	url := healthy(promtest.TiKV("a:20180"), promtest.TiKV("b:20180")).Start(t)

	checks := checkCluster(t, "", url)

	requireChecks(t, checks, []doctor.Check{
		{Outcome: doctor.OK, Name: "upstream", Text: url + " responds in "},
		{Outcome: doctor.OK, Name: "targets", Text: "upstream scrapes 2 TiKV targets"},
		{Outcome: doctor.OK, Name: "rate_window", Text: "TiKV is scraped every 15s, rate_window is 1m (auto)"},
		{Outcome: doctor.OK, Name: "query_offset", Text: "the newest sample is 0s old, TiKV is scraped every 15s"},
		{Outcome: doctor.OK, Name: "stores", Text: "2 of 2 stores matched to a target"},
		{Outcome: doctor.OK, Name: "queries", Text: " queries succeeded"},
		{
			Outcome: doctor.OK,
			Name:    "gauges",
			Text: fmt.Sprintf("%d gauges, none of them absent for a store that upstream scrapes",
				len(gauge.Builtin())),
		},
	})
}

func TestNames(t *testing.T) {
	pd := httptest.NewServer(http.NotFoundHandler())
	defer pd.Close()
	prometheus := healthy(promtest.TiKV("a:20180"))
	prometheus.ClockOffset = time.Hour

	var names []string
	for _, c := range checkCluster(t, "  pd: {url: "+pd.URL+"}\n", prometheus.Start(t)) {
		names = append(names, c.Name)
	}

	if want := doctor.Names(); !slices.Equal(names, want) {
		t.Errorf("the checks are %q, want %q", names, want)
	}
}

func TestUpstream(t *testing.T) {
	url := healthy(promtest.TiKV("a:20180")).Start(t)
	other := httptest.NewServer(http.NotFoundHandler())
	defer other.Close()
	locked := healthy()
	locked.Intercept = func(w http.ResponseWriter, _ *http.Request, _ string) bool {
		w.WriteHeader(http.StatusUnauthorized)

		return true
	}

	for _, tc := range []struct {
		name string
		urls []string
		want []doctor.Check
	}{
		{
			name: "nobody listens",
			urls: []string{closedPort},
			want: []doctor.Check{{Outcome: doctor.Fail, Name: "upstream", Text: "is it running, and is url right?"}},
		},
		{
			name: "not a Prometheus",
			urls: []string{other.URL},
			want: []doctor.Check{{Outcome: doctor.Fail, Name: "upstream", Text: "does url point at the right API?"}},
		},
		{
			name: "credentials are required",
			urls: []string{locked.Start(t)},
			want: []doctor.Check{{Outcome: doctor.Fail, Name: "upstream", Text: "basic_auth"}},
		},
		{
			name: "first of two servers is down",
			urls: []string{closedPort, url},
			want: []doctor.Check{{Outcome: doctor.Warn, Name: "upstream", Text: "connection refused"}},
		},
		{
			name: "all servers are down",
			urls: []string{closedPort, "http://127.0.0.1:2"},
			want: []doctor.Check{
				{Outcome: doctor.Fail, Name: "upstream", Text: "127.0.0.1:1"},
				{Outcome: doctor.Fail, Name: "upstream", Text: "127.0.0.1:2"},
			},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			requireChecks(t, findings(checkCluster(t, "", tc.urls...)), tc.want)
		})
	}
}

func TestMissingCertificate(t *testing.T) {
	const upstream = "url: https://127.0.0.1:1, tls_config: {ca_file: nowhere.pem}"

	requireChecks(t, findings(checkUpstream(t, upstream, "")), []doctor.Check{
		{Outcome: doctor.Fail, Name: "upstream", Text: "nowhere.pem"},
	})
}

func TestClock(t *testing.T) {
	for _, tc := range []struct {
		name   string
		offset time.Duration
		want   []doctor.Check
	}{
		{name: "in sync", offset: 0, want: nil},
		{name: "4s ahead", offset: 4 * time.Second, want: nil},
		{name: "4s behind", offset: -4 * time.Second, want: nil},
		{
			name:   "a minute ahead",
			offset: time.Minute,
			want: []doctor.Check{{
				Outcome: doctor.Warn,
				Name:    "clock",
				Text:    "differs from the local clock by 1m0s: synchronize both with the same NTP servers",
			}},
		},
		{
			name:   "a minute behind",
			offset: -time.Minute,
			want:   []doctor.Check{{Outcome: doctor.Warn, Name: "clock", Text: "by -1m0s: "}},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			prometheus := healthy(promtest.TiKV("a:20180"))
			prometheus.ClockOffset = tc.offset

			requireChecks(t, findings(checkCluster(t, "", prometheus.Start(t))), tc.want)
		})
	}
}

func TestPD(t *testing.T) {
	url := healthy(promtest.TiKV("a:20180")).Start(t)
	pd := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"count": 1, "stores": [{"store": {"id": 1, "address": "a:20160",
			"status_address": "a:20180", "state_name": "Up"}}]}`)
	}))
	defer pd.Close()

	t.Run("responds", func(t *testing.T) {
		checks := checkCluster(t, "  pd: {url: "+pd.URL+"}\n", url)

		requireChecks(t, findings(checks), nil)
		want := doctor.Check{Outcome: doctor.OK, Name: "pd", Text: "PD returned 1 TiKV store"}
		if !slices.Contains(checks, want) {
			t.Errorf("the checks are\n%s\nwant among them\n%s", format(checks), format([]doctor.Check{want}))
		}
	})
	t.Run("is down", func(t *testing.T) {
		checks := checkCluster(t, "  pd: {url: "+closedPort+"}\n", url)

		requireChecks(t, findings(checks), []doctor.Check{
			{Outcome: doctor.Fail, Name: "pd", Text: "connection refused"},
		})
	})
}

func TestTargets(t *testing.T) {
	node := promtest.Target{Labels: labels.FromStrings("job", "node", "instance", "a:9100"), NotTiKV: true}
	down := promtest.TiKV("a:20180")
	down.Down = true

	for _, tc := range []struct {
		name       string
		prometheus promtest.Prometheus
		fields     string
		want       []doctor.Check
	}{
		{
			name:       "upstream scrapes nothing",
			prometheus: healthy(),
			want: []doctor.Check{{
				Outcome: doctor.Fail,
				Name:    "targets",
				Text: "upstream has no series of TiKV from the last 1h; it scrapes nothing: " +
					"add the status address of each TiKV, usually port 20180, to its scrape_configs, " +
					"or set url to the Prometheus that scrapes TiKV",
			}},
		},
		{
			name:       "upstream scrapes other jobs",
			prometheus: healthy(node),
			want: []doctor.Check{
				{Outcome: doctor.Fail, Name: "targets", Text: `from the last 1h; it scrapes the jobs "node": add `},
			},
		},
		{
			name:       "selector matches no TiKV",
			prometheus: healthy(promtest.TiKV("a:20180"), promtest.TiKV("b:20180"), node),
			fields:     "  selector: '{job=\"tidb\"}'\n",
			want: []doctor.Check{{
				Outcome: doctor.Fail,
				Name:    "targets",
				Text: `selector {job="tidb"} matches no TiKV; without it, upstream has 2 TiKV targets, ` +
					`with job "tikv": correct selector`,
			}},
		},
		{
			name:       "selector has a label that TiKV lacks",
			prometheus: healthy(promtest.TiKV("a:20180")),
			fields:     "  selector: '{job=~\"tikv|pd\",job!=\"\",tidb_cluster=\"prod\"}'\n",
			want: []doctor.Check{{
				Outcome: doctor.Fail,
				Name:    "targets",
				Text: `without it, upstream has 1 TiKV target, with job "tikv", ` +
					`without the label tidb_cluster: correct selector`,
			}},
		},
		{
			name:       "selector, but upstream scrapes no TiKV",
			prometheus: healthy(node),
			fields:     "  selector: '{job=\"tikv\"}'\n",
			want: []doctor.Check{
				{Outcome: doctor.Fail, Name: "targets", Text: `upstream has no series of TiKV from the last 1h`},
			},
		},
		{
			name:       "every target is down",
			prometheus: healthy(down),
			want: []doctor.Check{
				{
					Outcome: doctor.Fail,
					Name:    "targets",
					Text: "upstream has no current series of TiKV, although it had series of 1 target " +
						"within the last 1h: see URL/targets for why its scrapes fail",
				},
				{Outcome: doctor.Warn, Name: "rate_window", Text: "unknown"},
				{Outcome: doctor.Warn, Name: "stores", Text: `upstream's scrapes of "a:20180" fail`},
			},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			url := tc.prometheus.Start(t)
			for i, c := range tc.want {
				tc.want[i].Text = strings.ReplaceAll(c.Text, "URL", url)
			}

			requireChecks(t, findings(checkCluster(t, tc.fields, url)), tc.want)
		})
	}
}

func TestTargetsCannotBeQueried(t *testing.T) {
	prometheus := healthy(promtest.TiKV("a:20180"))
	prometheus.Intercept = func(w http.ResponseWriter, r *http.Request, _ string) bool {
		if !strings.HasSuffix(r.URL.Path, "/series") {
			return false
		}
		promtest.Fail(w, http.StatusUnprocessableEntity, "execution", "too many series")

		return true
	}

	requireChecks(t, findings(checkCluster(t, "", prometheus.Start(t))), []doctor.Check{
		{Outcome: doctor.Fail, Name: "targets", Text: "too many series"},
	})
}

func TestRateWindow(t *testing.T) {
	customGauge := func(expr string) string {
		return "  metrics: [{name: operator_store_x, help: X., expr: '" + expr + "'}]\n"
	}

	for _, tc := range []struct {
		name     string
		interval time.Duration
		fields   string
		want     []doctor.Check
	}{
		{name: "automatic, 15s", interval: 15 * time.Second},
		{name: "automatic, 16s", interval: 16 * time.Second},
		{name: "automatic, 2m", interval: 2 * time.Minute},
		{name: "four scrapes", interval: 15 * time.Second, fields: "  rate_window: 1m\n"},
		{
			name:     "less than four scrapes",
			interval: 16 * time.Second,
			fields:   "  rate_window: 1m\n",
			want: []doctor.Check{{
				Outcome: doctor.Warn,
				Name:    "rate_window",
				Text: "TiKV is scraped every 16s, so with a rate_window of 1m a failed scrape makes gauges absent: " +
					"remove rate_window, so that it is automatic (2m)",
			}},
		},
		{
			name:     "two scrapes",
			interval: 30 * time.Second,
			fields:   "  rate_window: 1m\n",
			want: []doctor.Check{
				{Outcome: doctor.Warn, Name: "rate_window", Text: "remove rate_window, so that it is automatic (2m)"},
			},
		},
		{
			name:     "less than two scrapes",
			interval: 31 * time.Second,
			fields:   "  rate_window: 1m\n",
			want: []doctor.Check{{
				Outcome: doctor.Fail,
				Name:    "rate_window",
				Text: "TiKV is scraped every 31s, so a rate_window of 1m contains one sample: " +
					"remove rate_window, so that it is automatic (2m)",
			}},
		},
		{
			name:     "less than one scrape",
			interval: 2 * time.Minute,
			fields:   "  rate_window: 1m\n",
			want: []doctor.Check{{
				Outcome: doctor.Fail,
				Name:    "rate_window",
				Text: "TiKV is scraped every 2m, so a rate_window of 1m usually contains no sample: " +
					"remove rate_window, so that it is automatic (8m)",
			}},
		},
		{
			name:     "configured rate window is long enough",
			interval: 2 * time.Minute,
			fields:   "  rate_window: 8m\n",
		},
		{
			name:     "only one sample of each target",
			interval: 0,
			want: []doctor.Check{{
				Outcome: doctor.Warn,
				Name:    "rate_window",
				Text: "the scrape interval of TiKV is unknown, because upstream has only one sample of each target: " +
					"try again after a few scrapes",
			}},
		},
		{
			name:     "range of a custom gauge is long enough",
			interval: 15 * time.Second,
			fields:   customGauge("rate(x_total[30s])"),
		},
		{
			name:     "range of a custom gauge is too short",
			interval: 15 * time.Second,
			fields:   customGauge("rate(x_total[29s])"),
			want: []doctor.Check{{
				Outcome: doctor.Fail,
				Name:    "rate_window",
				Text: "TiKV is scraped every 15s, so a range of 29s in the expr of operator_store_x " +
					"contains one sample: set it to 1m",
			}},
		},
		{
			name:     "shortest range of a custom gauge is too short",
			interval: 15 * time.Second,
			fields:   customGauge("rate(x_total[10s]) / rate(y_total[5m])"),
			want: []doctor.Check{
				{Outcome: doctor.Fail, Name: "rate_window", Text: "a range of 10s in the expr of operator_store_x"},
			},
		},
		{
			name:     "custom gauge without a range",
			interval: 15 * time.Second,
			fields:   customGauge("x"),
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			prometheus := healthy(promtest.TiKV("a:20180"))
			prometheus.ScrapeInterval = tc.interval

			requireChecks(t, findings(checkCluster(t, tc.fields, prometheus.Start(t))), tc.want)
		})
	}
}

// The exporter cannot learn the scrape interval either.
func TestScrapeIntervalCannotBeQueried(t *testing.T) {
	prometheus := failing("[5m]")

	requireChecks(t, findings(checkCluster(t, "", prometheus.Start(t))), []doctor.Check{
		{Outcome: doctor.Fail, Name: "rate_window", Text: "made to fail"},
		{Outcome: doctor.Fail, Name: "queries", Text: `query "targets" of cluster "prod" failed`},
	})
}

func TestQueryOffset(t *testing.T) {
	for _, tc := range []struct {
		name   string
		age    time.Duration
		fields string
		want   doctor.Check // The check named query_offset.
	}{
		{
			name: "newest sample is recent",
			age:  10 * time.Second,
			want: doctor.Check{Outcome: doctor.OK, Text: "the newest sample is 10s old, TiKV is scraped every 15s"},
		},
		{
			name: "a scrape takes two seconds",
			age:  17 * time.Second,
			want: doctor.Check{Outcome: doctor.OK, Text: "the newest sample is 17s old"},
		},
		{
			name: "samples arrive late",
			age:  42 * time.Second,
			want: doctor.Check{
				Outcome: doctor.Warn,
				Text: "the newest sample is 42s old, although TiKV is scraped every 15s: set query_offset to 45s, " +
					"or find out why samples arrive late, such as a remote write that lags",
			},
		},
		{
			name:   "offset is long enough",
			age:    42 * time.Second,
			fields: "  query_offset: 27s\n",
			want:   doctor.Check{Outcome: doctor.OK, Text: "samples arrive at least 27s late, query_offset is 27s"},
		},
		{
			name:   "offset is too short",
			age:    42 * time.Second,
			fields: "  query_offset: 26s\n",
			want:   doctor.Check{Outcome: doctor.Warn, Text: "every 15s, query_offset is 26s: set query_offset to 45s"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			prometheus := healthy(promtest.TiKV("a:20180"))
			prometheus.SampleAge = tc.age

			checks := checkCluster(t, tc.fields, prometheus.Start(t))

			isOther := func(c doctor.Check) bool { return c.Name != "query_offset" }
			tc.want.Name = "query_offset"
			requireChecks(t, slices.DeleteFunc(checks, isOther), []doctor.Check{tc.want})
		})
	}
}

func TestQueryOffsetCannotBeQueried(t *testing.T) {
	prometheus := failing("timestamp(up{")

	requireChecks(t, findings(checkCluster(t, "", prometheus.Start(t))), []doctor.Check{
		{Outcome: doctor.Fail, Name: "query_offset", Text: "made to fail"},
	})
}

// failing returns a Prometheus that fails to evaluate queries that contain a text.
func failing(text string) promtest.Prometheus {
	p := healthy(promtest.TiKV("a:20180"))
	p.Intercept = func(w http.ResponseWriter, _ *http.Request, query string) bool {
		if !strings.Contains(query, text) {
			return false
		}
		promtest.Fail(w, http.StatusUnprocessableEntity, "execution", "made to fail")

		return true
	}

	return p
}

// warning returns a Prometheus that responds to queries that contain a text with no series and a
// warning, as Thanos does.
func warning(text string) promtest.Prometheus {
	p := healthy(promtest.TiKV("a:20180"))
	p.Intercept = func(w http.ResponseWriter, _ *http.Request, query string) bool {
		if !strings.Contains(query, text) {
			return false
		}
		fmt.Fprint(w, `{"status": "success", "warnings": ["a store is down"],
			"data": {"resultType": "vector", "result": []}}`)

		return true
	}

	return p
}

func TestStores(t *testing.T) {
	unmonitored := promtest.TiKV("lost:20180")
	unmonitored.Without = []string{"up"}
	down := promtest.TiKV("down:20180")
	down.Down = true

	for _, tc := range []struct {
		name    string
		targets []promtest.Target
		fields  string
		want    []doctor.Check
	}{
		{
			name:    "store without a target, similar target",
			targets: []promtest.Target{promtest.TiKV("tikv-1:20180"), promtest.TiKV("tikv-3.tikv-peer:20180")},
			fields:  `  stores: [{id: 1, address: "tikv-1:20160"}, {id: 3, address: "tikv-3:20160"}]`,
			want: []doctor.Check{{
				Outcome: doctor.Fail,
				Name:    "stores",
				Text:    `no target matches "tikv-3:20160"; upstream has "tikv-3.tikv-peer:20180": set instance`,
			}},
		},
		{
			name:    "store without a target, other targets",
			targets: []promtest.Target{promtest.TiKV("b:20180"), promtest.TiKV("a:20180")},
			fields:  `  stores: [{id: 1, address: "10.1.1.1:20160"}]`,
			want: []doctor.Check{{
				Outcome: doctor.Fail,
				Name:    "stores",
				Text: `no target matches "10.1.1.1:20160"; upstream has these targets without a store: ` +
					`"a:20180", "b:20180": set instance if one of them is the store, ` +
					`otherwise add the store to upstream's scrape_configs`,
			}},
		},
		{
			name:    "store without a target, no other target",
			targets: []promtest.Target{promtest.TiKV("a:20180")},
			fields:  `  stores: [{id: 1, address: "a:20160"}, {id: 2, address: "b:20160"}]`,
			want: []doctor.Check{{
				Outcome: doctor.Fail,
				Name:    "stores",
				Text: `no target matches "b:20160"; upstream has no TiKV target without a store: ` +
					`add the store to upstream's scrape_configs, or remove it from stores`,
			}},
		},
		{
			name:    "more than five stores without a target",
			targets: []promtest.Target{promtest.TiKV("a:20180")},
			fields: `  stores: [{address: "a:20160"}, {address: s1}, {address: s2}, {address: s3}, {address: s4}, ` +
				`{address: s5}, {address: s6}, {address: s7}]`,
			want: []doctor.Check{
				{Outcome: doctor.Fail, Name: "stores", Text: `no target matches "s1"; `},
				{Outcome: doctor.Fail, Name: "stores", Text: `no target matches "s2"; `},
				{Outcome: doctor.Fail, Name: "stores", Text: `no target matches "s3"; `},
				{Outcome: doctor.Fail, Name: "stores", Text: `no target matches "s4"; `},
				{Outcome: doctor.Fail, Name: "stores", Text: `no target matches "s5"; `},
				{Outcome: doctor.Fail, Name: "stores", Text: `no target matches 2 more stores`},
			},
		},
		{
			name:    "ambiguous store",
			targets: []promtest.Target{promtest.TiKV("shared:20180"), promtest.TiKV("shared:20181")},
			fields:  `  stores: [{id: 1, address: "shared:20160"}]`,
			want: []doctor.Check{{
				Outcome: doctor.Fail,
				Name:    "stores",
				Text:    `store "shared:20160" of cluster "prod" has no gauges`,
			}},
		},
		{
			name: "duplicate targets",
			targets: []promtest.Target{
				{Labels: labels.FromStrings("job", "tikv", "instance", "a:20180", "replica", "0")},
				{Labels: labels.FromStrings("job", "tikv", "instance", "a:20180", "replica", "1")},
			},
			want: []doctor.Check{{
				Outcome: doctor.Fail,
				Name:    "stores",
				Text:    `store "a:20180" of cluster "prod" has no gauges`,
			}},
		},
		{
			name:    "TiKV that is not in stores",
			targets: []promtest.Target{promtest.TiKV("a:20180"), promtest.TiKV("c:20180"), promtest.TiKV("b:20180")},
			fields:  `  stores: [{id: 1, address: "a:20160"}]`,
			want: []doctor.Check{{
				Outcome: doctor.Warn,
				Name:    "stores",
				Text: `upstream scrapes TiKV targets that are not in stores: "b:20180", "c:20180": ` +
					`add them, or remove stores to include all`,
			}},
		},
		{
			name:    "store is down",
			targets: []promtest.Target{promtest.TiKV("a:20180"), down},
			want: []doctor.Check{{
				Outcome: doctor.Warn,
				Name:    "stores",
				Text: `upstream's scrapes of "down:20180" fail: check whether TiKV is down ` +
					`or unreachable from upstream: see URL/targets`,
			}},
		},
		{
			name:    "store is not monitored",
			targets: []promtest.Target{promtest.TiKV("a:20180"), unmonitored},
			want: []doctor.Check{{
				Outcome: doctor.Warn,
				Name:    "stores",
				Text: `upstream has no up sample of "lost:20180": check whether it still scrapes them: ` +
					`see URL/targets`,
			}},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			url := healthy(tc.targets...).Start(t)
			for i, c := range tc.want {
				tc.want[i].Text = strings.ReplaceAll(c.Text, "URL", url)
			}

			requireChecks(t, findings(checkCluster(t, tc.fields, url)), tc.want)
		})
	}
}

func TestMoreThanFiveAmbiguousStores(t *testing.T) {
	var targets []promtest.Target
	var stores strings.Builder
	stores.WriteString("  stores:\n")

	for i := range 7 {
		host := fmt.Sprintf("host-%d", i)
		targets = append(targets, promtest.TiKV(host+":20180"), promtest.TiKV(host+":20181"))
		fmt.Fprintf(&stores, "  - address: %s:20160\n", host)
	}

	got := findings(checkCluster(t, stores.String(), healthy(targets...).Start(t)))

	var want []doctor.Check
	for i := range 5 {
		want = append(want, doctor.Check{
			Outcome: doctor.Fail,
			Name:    "stores",
			Text:    fmt.Sprintf(`store "host-%d:20160" of cluster "prod" has no gauges`, i),
		})
	}
	want = append(want, doctor.Check{Outcome: doctor.Fail, Name: "stores", Text: "2 more stores without gauges"})
	requireChecks(t, got, want)
}

func TestQueries(t *testing.T) {
	t.Run("failed query", func(t *testing.T) {
		prometheus := failing("tikv_storage_command_total")

		requireChecks(t, findings(checkCluster(t, "", prometheus.Start(t))), []doctor.Check{
			{
				Outcome: doctor.Fail,
				Name:    "queries",
				Text:    `query "storage_commands" of cluster "prod" failed`,
			},
		})
	})
	t.Run("several failed queries", func(t *testing.T) {
		prometheus := failing("process_cpu_seconds_total")
		inner := prometheus.Intercept
		prometheus.Intercept = func(w http.ResponseWriter, r *http.Request, query string) bool {
			if strings.Contains(query, "tikv_server_cpu_cores_quota") {
				promtest.Fail(w, http.StatusUnprocessableEntity, "execution", "another reason")

				return true
			}

			return inner(w, r, query)
		}

		requireChecks(t, findings(checkCluster(t, "", prometheus.Start(t))), []doctor.Check{
			{Outcome: doctor.Fail, Name: "queries", Text: `another reason`},
			{Outcome: doctor.Fail, Name: "queries", Text: `made to fail`},
		})
	})
	t.Run("rejected response", func(t *testing.T) {
		const expr = "sum by (job, instance, type) (tikv_store_size_bytes)"
		fields := "  metrics: [{name: operator_store_x, help: X., expr: '" + expr + "'}]\n"

		requireChecks(t, findings(checkCluster(t, fields, healthy(promtest.TiKV("a:20180")).Start(t))), []doctor.Check{
			{
				Outcome: doctor.Fail,
				Name:    "queries",
				Text: `query "operator_store_x" of cluster "prod": dropped the response for ` +
					`{job="tikv", instance="a:20180"}`,
			},
		})
	})
	t.Run("partial response", func(t *testing.T) {
		prometheus := warning("tikv_storage_command_total")

		requireChecks(t, findings(checkCluster(t, "", prometheus.Start(t))), []doctor.Check{{
			Outcome: doctor.Fail,
			Name:    "queries",
			Text:    "the response may lack series: a store is down: check upstream's storage nodes",
		}})
	})
	t.Run("partial response that is accepted", func(t *testing.T) {
		url := warning("tikv_storage_command_total").Start(t)

		requireChecks(t, findings(checkUpstream(t, "url: "+url+", partial_response: true", "")), []doctor.Check{
			{
				Outcome: doctor.Fail,
				Name:    "queries",
				Text: `query "storage_commands" of cluster "prod": upstream reports that its response may lack ` +
					"series, which partial_response accepts: check upstream's storage nodes",
			},
			{Outcome: doctor.Warn, Name: "gauges", Text: "operator_store_qps is absent"},
		})
	})
	t.Run("invalid gauge", func(t *testing.T) {
		fields := "  metrics: [{name: operator_store_qps, help: X., expr: 'x'}]\n"

		requireChecks(t, findings(checkCluster(t, fields, healthy(promtest.TiKV("a:20180")).Start(t))), []doctor.Check{
			{Outcome: doctor.Fail, Name: "queries", Text: "operator_store_qps is built in and keeps its help text"},
		})
	})
}

func TestGauges(t *testing.T) {
	without := func(metrics ...string) promtest.Target {
		target := promtest.TiKV("a:20180")
		target.Without = metrics

		return target
	}

	for _, tc := range []struct {
		name   string
		target promtest.Target
		fields string
		want   []doctor.Check // All checks named gauges.
	}{
		{
			name:   "TiKV does not export a metric",
			target: without("tikv_server_cpu_cores_quota"),
			want: []doctor.Check{{
				Outcome: doctor.Warn,
				Name:    "gauges",
				Text: `operator_store_cpu_cores is absent for "a:20180": no series (TiKV before 5.0): ` +
					`upstream has no tikv_server_cpu_cores_quota: metrics can define another expression`,
			}},
		},
		{
			name:   "derived gauges are explained by their inputs",
			target: without("tikv_store_size_bytes"),
			want: []doctor.Check{
				{Outcome: doctor.Warn, Name: "gauges", Text: "operator_store_disk_used_bytes is absent"},
				{Outcome: doctor.Warn, Name: "gauges", Text: "operator_store_disk_available_bytes is absent"},
				{Outcome: doctor.Warn, Name: "gauges", Text: "operator_store_disk_total_bytes is absent"},
				{Outcome: doctor.Warn, Name: "gauges", Text: "operator_store_last_scrape_timestamp_seconds is absent"},
			},
		},
		{
			name:   "upstream has the series, but no data",
			target: without("absent_metric"),
			fields: "  metrics: [{name: operator_store_x, help: X., expr: 'tikv_threads > 1 unless absent_metric'}]\n",
			want: []doctor.Check{{
				Outcome: doctor.OK,
				Name:    "gauges",
				Text:    `operator_store_x is absent for "a:20180": no sample of its expression`,
			}},
		},
		{
			name:   "native histograms",
			target: without("tikv_grpc_msg_duration_seconds_bucket", "tikv_raftstore_log_lag_bucket"),
			want: []doctor.Check{
				{
					Outcome: doctor.OK,
					Name:    "gauges",
					Text: "tikv_grpc_msg_duration_seconds is a native histogram for 1 target, " +
						"and has classic buckets for 0",
				},
				{Outcome: doctor.OK, Name: "gauges", Text: "tikv_raftstore_log_lag is a native histogram for 1 target"},
				{Outcome: doctor.OK, Name: "gauges", Text: "none of them absent for a store that upstream scrapes"},
			},
		},
		{
			name:   "neither form of a histogram",
			target: without("tikv_raftstore_log_lag", "tikv_raftstore_log_lag_bucket"),
			want: []doctor.Check{{
				Outcome: doctor.Warn,
				Name:    "gauges",
				Text: `operator_store_raft_lag is absent for "a:20180": no observation in the rate window: ` +
					`upstream has no tikv_raftstore_log_lag_bucket or tikv_raftstore_log_lag: ` +
					`metrics can define another expression`,
			}},
		},
		{
			name:   "gauge whose query failed",
			target: without(),
			fields: "  metrics: [{name: operator_store_x, help: X., expr: 'fails'}]\n",
			want: []doctor.Check{{
				Outcome: doctor.OK,
				Name:    "gauges",
				Text: fmt.Sprintf("%d gauges, none of them absent for a store that upstream scrapes",
					len(gauge.Builtin())),
			}},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			prometheus := healthy(tc.target)
			prometheus.Intercept = func(w http.ResponseWriter, _ *http.Request, query string) bool {
				switch {
				case strings.HasPrefix(query, "fails"):
					promtest.Fail(w, http.StatusUnprocessableEntity, "execution", "made to fail")
				case strings.HasPrefix(query, "tikv_threads"):
					fmt.Fprint(w, `{"status": "success", "data": {"resultType": "vector", "result": []}}`)
				default:
					return false
				}

				return true
			}

			checks := checkCluster(t, tc.fields, prometheus.Start(t))

			isOther := func(c doctor.Check) bool { return c.Name != "gauges" }
			requireChecks(t, slices.DeleteFunc(checks, isOther), tc.want)
		})
	}
}

func TestGaugesCannotBeQueried(t *testing.T) {
	prometheus := failing("group by (job, instance) (tikv_server_cpu_cores_quota")
	prometheus.Targets[0].Without = []string{"tikv_server_cpu_cores_quota"}

	requireChecks(t, findings(checkCluster(t, "", prometheus.Start(t))), []doctor.Check{
		{Outcome: doctor.Fail, Name: "gauges", Text: "made to fail"},
	})
}

// The exporter cannot discover which histograms are native either.
func TestHistogramsCannotBeQueried(t *testing.T) {
	for _, tc := range []struct {
		name  string
		query string
	}{
		{name: "native", query: "group by (job, instance) (tikv_raftstore_log_lag)"},
		{name: "classic", query: `group by (job, instance) (tikv_raftstore_log_lag_bucket{le="+Inf"})`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			prometheus := failing(tc.query)

			requireChecks(t, findings(checkCluster(t, "", prometheus.Start(t))), []doctor.Check{
				{Outcome: doctor.Fail, Name: "queries", Text: `query "targets" of cluster "prod" failed`},
				{Outcome: doctor.Fail, Name: "gauges", Text: "made to fail"},
			})
		})
	}
}
