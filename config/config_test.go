// SPDX-License-Identifier: Apache-2.0

package config_test

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/operator-store/operator_store_exporter/config"
)

// loadFile loads a file of testdata that has no mistakes.
func loadFile(t *testing.T, name string) *config.Config {
	t.Helper()
	cfg, err := config.LoadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// field is a field of a loaded configuration with its expected value.
type field struct {
	name      string
	got, want any
}

func checkFields(t *testing.T, fields []field) {
	t.Helper()

	for _, f := range fields {
		if !reflect.DeepEqual(f.got, f.want) {
			t.Errorf("%s is %v, want %v", f.name, f.got, f.want)
		}
	}
}

func TestEveryField(t *testing.T) {
	c := loadFile(t, "every-field.yml").Clusters[0]
	u, pd := c.Upstream, c.PD

	checkFields(t, []field{
		{name: "name", got: c.Name, want: "prod"},
		{name: "number of URLs", got: len(u.URL), want: 2},
		{name: "first URL", got: u.URL[0].String(), want: "http://a:9090"},
		{name: "second URL", got: u.URL[1].String(), want: "https://b/prefix"},
		{name: "timeout", got: time.Duration(u.Timeout), want: 3 * time.Second},
		{name: "body_size_limit", got: u.BodySizeLimit, want: config.Size(16 << 20)},
		{name: "concurrency_limit", got: u.ConcurrencyLimit, want: config.Limit(4)},
		{name: "series_limit", got: u.SeriesLimit, want: config.Limit(5000)},
		{name: "params", got: u.Params, want: map[string][]string{"dedup": {"true"}}},
		{name: "partial_response", got: u.PartialResponse, want: true},
		{name: "password_file", got: u.HTTPClient.BasicAuth.PasswordFile, want: filepath.Join("testdata", "secret")},
		{name: "http_headers", got: u.HTTPClient.HTTPHeaders.Headers["X-Scope-OrgID"].Values, want: []string{"tenant"}},
		{name: "number of matchers", got: len(c.Selector), want: 2},
		{name: "first matcher", got: c.Selector[0].String(), want: `tidb_cluster="prod"`},
		{name: "second matcher", got: c.Selector[1].String(), want: `job!~"x.*"`},
		{name: "rate_window", got: time.Duration(c.RateWindow), want: 2 * time.Minute},
		{name: "query_offset", got: time.Duration(c.QueryOffset), want: 45 * time.Second},
		{name: "replica_labels", got: c.ReplicaLabels, want: []config.LabelName{"replica", "prometheus_replica"}},
		{name: "store_limit", got: c.StoreLimit, want: config.Limit(300)},
		{name: "stores_per_query", got: c.StoresPerQuery, want: config.Limit(50)},
		{name: "bucket_windows", got: c.BucketWindows, want: false},
		{name: "number of stores", got: len(c.Stores), want: 3},
		{name: "first id", got: c.Stores[0].ID, want: config.StoreID("1")},
		{name: "first address", got: c.Stores[0].Address, want: config.Address("tikv-0:20160")},
		{name: "second id", got: c.Stores[1].ID, want: config.StoreID("18446744073709551615")},
		{name: "second address", got: c.Stores[1].Address, want: config.Address("[2001:db8::1]:20160")},
		{name: "second instance", got: c.Stores[1].Instance, want: `a "b" {c}`},
		{name: "third id", got: c.Stores[2].ID, want: config.StoreID("")},
		{name: "third address", got: c.Stores[2].Address, want: config.Address("tikv_2")},
		{name: "number of URLs of pd", got: len(pd.URL), want: 2},
		{name: "first URL of pd", got: pd.URL[0].String(), want: "http://pd-0:2379"},
		{name: "second URL of pd", got: pd.URL[1].String(), want: "https://pd-1:2379"},
		{name: "timeout of pd", got: time.Duration(pd.Timeout), want: 2 * time.Second},
		{name: "ca_file of pd", got: pd.HTTPClient.TLSConfig.CAFile, want: filepath.Join("testdata", "ca.pem")},
		{name: "number of metrics", got: len(c.Metrics), want: 2},
		{name: "first metric", got: c.Metrics[0].Name, want: "operator_store_my_gauge"},
		{name: "first help", got: c.Metrics[0].Help, want: "Threads of TiKV."},
		{name: "first expr", got: c.Metrics[0].Expr.String(), want: "max_over_time(tikv_threads[5m])"},
		{name: "second metric", got: c.Metrics[1].Name, want: "operator_store_qps"},
		{name: "second help", got: c.Metrics[1].Help, want: ""},
	})
}

func TestDefaults(t *testing.T) {
	c := loadFile(t, "every-field.yml").Clusters[1]
	u, pd := c.Upstream, c.PD

	checkFields(t, []field{
		{name: "timeout", got: u.Timeout, want: config.DefaultTimeout},
		{name: "body_size_limit", got: u.BodySizeLimit, want: config.DefaultBodySizeLimit},
		{name: "concurrency_limit", got: u.ConcurrencyLimit, want: config.DefaultConcurrencyLimit},
		{name: "series_limit", got: u.SeriesLimit, want: config.DefaultSeriesLimit},
		{name: "partial_response", got: u.PartialResponse, want: false},
		{name: "follow_redirects", got: u.HTTPClient.FollowRedirects, want: false},
		{name: "enable_http2", got: u.HTTPClient.EnableHTTP2, want: true},
		{name: "selector", got: len(c.Selector), want: 0},
		{name: "rate_window", got: c.RateWindow, want: config.RateWindowAuto},
		{name: "query_offset", got: c.QueryOffset, want: config.Offset(0)},
		{name: "store_limit", got: c.StoreLimit, want: config.DefaultStoreLimit},
		{name: "stores_per_query", got: c.StoresPerQuery, want: config.Limit(0)},
		{name: "bucket_windows", got: c.BucketWindows, want: true},
		{name: "stores", got: c.Stores, want: []config.Store(nil)},
		{name: "timeout of pd", got: pd.Timeout, want: config.DefaultPDTimeout},
		{name: "body_size_limit of pd", got: pd.BodySizeLimit, want: config.DefaultBodySizeLimit},
		{name: "concurrency_limit of pd", got: pd.ConcurrencyLimit, want: config.DefaultConcurrencyLimit},
		{name: "follow_redirects of pd", got: pd.HTTPClient.FollowRedirects, want: false},
	})
}

func TestClustersMayShareStoresAndMetrics(t *testing.T) {
	clusters := loadFile(t, "several-clusters.yml").Clusters
	if len(clusters) != 2 {
		t.Fatalf("got %d clusters, want 2", len(clusters))
	}

	for _, c := range clusters {
		checkFields(t, []field{
			{name: "id in " + c.Name, got: c.Stores[0].ID, want: config.StoreID("1")},
			{name: "metric in " + c.Name, got: c.Metrics[0].Name, want: "operator_store_my_gauge"},
		})
	}
}

func TestRateWindow(t *testing.T) {
	for _, tc := range []struct {
		name   string
		fields string // Of the cluster.
		want   config.RateWindow
		text   string
	}{
		{name: "default", want: config.RateWindowAuto, text: "auto"},
		{name: "auto", fields: ", rate_window: auto", want: config.RateWindowAuto, text: "auto"},
		{name: "quoted", fields: ", rate_window: 'auto'", want: config.RateWindowAuto, text: "auto"},
		{name: "explicit", fields: ", rate_window: 5m", want: config.RateWindow(5 * time.Minute), text: "5m"},
		{
			name: "several units", fields: ", rate_window: 1m30s",
			want: config.RateWindow(90 * time.Second), text: "1m30s",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cfg, err := config.Load([]byte("clusters: [{name: c, upstream: {url: http://a}" + tc.fields + "}]"))
			if err != nil {
				t.Fatal(err)
			}

			got := cfg.Clusters[0].RateWindow
			if got != tc.want || got.String() != tc.text {
				t.Errorf("got %d, written %s, want %d, written %s", got, got, tc.want, tc.text)
			}
			if want := "rate_window: " + tc.text + "\n"; !strings.Contains(cfg.String(), want) {
				t.Errorf("the text of the configuration lacks %q:\n%s", want, cfg)
			}
		})
	}
}

// Each file in testdata/mistakes has one mistake, except for several-mistakes.yml.
func TestMistakes(t *testing.T) {
	const (
		urlFix     = "use a URL such as http://localhost:9090 or https://host/prefix"
		addressFix = "use the store's host:port in PD, such as tikv-0:20160 or [2001:db8::1]:20160"
	)
	cases := []struct {
		file    string
		line    int
		message []string // Parts of the message.
	}{
		// The file as a whole.
		{file: "empty.yml", line: 1, message: []string{"the file is empty: define at least one cluster"}},
		{file: "only-comment.yml", line: 1, message: []string{"the file is empty: define at least one cluster"}},
		{file: "no-clusters.yml", line: 1, message: []string{"clusters is empty: define at least one cluster"}},
		{file: "no-yaml.yml", line: 2, message: []string{"invalid YAML: "}},
		{file: "second-document.yml", line: 1, message: []string{"the file has several YAML documents: keep one"}},
		{file: "unknown-anchor.yml", line: 4, message: []string{"unknown anchor: quote a value that starts with *"}},
		{
			file: "unquoted-exclamation-mark.yml", line: 4,
			message: []string{"unexpected type: quote a value that starts with !, or remove its YAML tag"},
		},
		{
			// The decoder reports the line of the cluster, not the line of the tag.
			file: "mismatched-tag.yml", line: 2,
			message: []string{"unexpected type: quote a value that starts with !"},
		},
		{file: "duplicate-key.yml", line: 3, message: []string{`mapping key "name" already defined at line 2`}},
		{
			file: "list-instead-of-mapping.yml", line: 5,
			message: []string{"unexpected list: see docs/configuration.md"},
		},
		{
			file: "string-instead-of-mapping.yml", line: 3,
			message: []string{"unexpected string: see docs/configuration.md"},
		},

		// Unknown fields.
		{
			file: "unknown-field.yml", line: 1,
			message: []string{`unknown field "cluster": see docs/configuration.md for the available fields`},
		},
		{file: "unknown-field-cluster.yml", line: 4, message: []string{`unknown field "selectr"`}},
		{file: "unknown-field-upstream.yml", line: 5, message: []string{`unknown field "uri"`}},
		{file: "unknown-field-http-client.yml", line: 5, message: []string{`unknown field "ca_fle"`}},
		{file: "unknown-field-store.yml", line: 5, message: []string{`unknown field "addr"`}},
		{file: "unknown-field-pd.yml", line: 4, message: []string{`unknown field "params"`}},
		{file: "unknown-field-metric.yml", line: 5, message: []string{`unknown field "query"`}},

		// Clusters.
		{file: "missing-cluster-name.yml", line: 2, message: []string{"a cluster needs a name"}},
		{
			file: "duplicate-cluster.yml", line: 4,
			message: []string{`duplicate cluster "prod", first defined on line 2: give each cluster a unique name`},
		},
		{
			file: "invalid-selector.yml", line: 4,
			message: []string{`invalid selector {a="b}: `, "unterminated", `; example: {tidb_cluster="prod"}`},
		},
		{
			file: "selector-with-metric-name.yml", line: 4,
			message: []string{`invalid selector up{a="b"}`, "metric name"},
		},
		{
			file: "unquoted-selector.yml", line: 4,
			message: []string{`invalid selector: quote it, as in selector: '{tidb_cluster="prod"}'`},
		},
		{
			file: "invalid-rate-window.yml", line: 4,
			message: []string{`invalid duration "1 minute": use auto, or a positive duration such as 30s, 1m or 1h30m`},
		},
		{file: "zero-rate-window.yml", line: 4, message: []string{`invalid duration "0s": use auto, or a positive`}},
		{
			file: "negative-rate-window.yml", line: 4,
			message: []string{`invalid duration "-1m": use auto, or a positive`},
		},
		{file: "misspelled-rate-window.yml", line: 4, message: []string{`invalid duration "Auto": use auto`}},
		{
			file: "invalid-query-offset.yml", line: 4,
			message: []string{`invalid duration "30": use 0s, or a duration such as 30s or 1m`},
		},
		{file: "negative-query-offset.yml", line: 4, message: []string{`invalid duration "-30s": use 0s`}},
		{file: "automatic-query-offset.yml", line: 4, message: []string{`invalid duration "auto": use 0s`}},
		{
			file: "invalid-limit.yml", line: 4,
			message: []string{`invalid limit "-1": use an integer from 1 to 2147483647`},
		},
		{file: "limit-out-of-range.yml", line: 4, message: []string{`invalid limit "2147483648"`}},
		{
			file: "invalid-replica-label.yml", line: 4,
			message: []string{`invalid label name "prometheus-replica": use a name such as replica`},
		},
		{
			file: "reserved-replica-label.yml", line: 4,
			message: []string{
				`label "instance" identifies targets or series, not replicas`,
				"list only labels by which replicas differ",
			},
		},

		// Upstreams.
		{
			file: "missing-upstream.yml", line: 2,
			message: []string{`cluster "prod" needs an upstream with a url, such as http://localhost:9090`},
		},
		{file: "missing-url.yml", line: 3, message: []string{"upstream needs a url, such as http://localhost:9090"}},
		{file: "url-without-scheme.yml", line: 3, message: []string{`invalid URL "localhost:9090": ` + urlFix}},
		{file: "url-without-host.yml", line: 3, message: []string{`invalid URL "http://": ` + urlFix}},
		{file: "unparsable-url.yml", line: 3, message: []string{"invalid URL: it cannot be parsed: " + urlFix}},
		{file: "invalid-url-in-list.yml", line: 5, message: []string{`invalid URL "ftp://prometheus:9090": ` + urlFix}},
		{file: "empty-url-list.yml", line: 3, message: []string{"url is an empty list: add at least one URL"}},
		{
			file: "duplicate-url.yml", line: 3,
			message: []string{`duplicate URL "http://prometheus:9090": list each server once`},
		},
		{
			file: "url-with-query.yml", line: 3,
			message: []string{"invalid URL: it contains a query or a fragment: move the parameters to params"},
		},
		{file: "url-with-fragment.yml", line: 3, message: []string{"invalid URL: it contains a query or a fragment"}},
		{file: "reserved-param.yml", line: 3, message: []string{`params: "time" is set by the exporter: remove it`}},
		{file: "several-credentials.yml", line: 3, message: []string{"at most one of basic_auth"}},
		{
			file: "invalid-timeout.yml", line: 5,
			message: []string{`invalid duration "-1s": use a positive duration such as 30s, 1m or 1h30m`},
		},
		{file: "zero-timeout.yml", line: 5, message: []string{`invalid duration "0s": use a positive duration`}},
		{
			file: "invalid-size.yml", line: 3,
			message: []string{`invalid size "large": use a positive size such as 64MB`},
		},
		{file: "zero-size.yml", line: 3, message: []string{`invalid size "0MB"`}},

		// PD.
		{file: "missing-pd-url.yml", line: 4, message: []string{"pd needs a url, such as http://pd:2379"}},
		{file: "invalid-pd-url.yml", line: 4, message: []string{`invalid URL "pd:2379": ` + urlFix}},

		// Stores.
		{file: "missing-address.yml", line: 5, message: []string{"a store needs an address, such as tikv-0:20160"}},
		{file: "address-with-quote.yml", line: 5, message: []string{`invalid address "tikv\"0:20160": ` + addressFix}},
		{file: "address-with-braces.yml", line: 5, message: []string{`invalid address "tikv{}:20160"`}},
		{file: "address-with-scheme.yml", line: 5, message: []string{`invalid address "http://tikv-0:20160"`}},
		{file: "address-port-out-of-range.yml", line: 5, message: []string{`invalid address "tikv-0:65536"`}},
		{file: "address-port-zero.yml", line: 5, message: []string{`invalid address "tikv-0:0"`}},
		{file: "address-ipv6-without-brackets.yml", line: 5, message: []string{`invalid address "::1:20160"`}},
		{
			file: "invalid-store-id.yml", line: 5,
			message: []string{`invalid store ID "-1": use the ID that PD assigned to the store, a positive integer`},
		},
		{file: "zero-store-id.yml", line: 5, message: []string{`invalid store ID "0"`}},
		{
			file: "duplicate-store-address.yml", line: 7,
			message: []string{`duplicate store: address "tikv-0:20160" is already used on line 5`, "unique address"},
		},
		{
			file: "duplicate-store-id.yml", line: 6,
			message: []string{`duplicate store: id "1" is already used on line 5`, "unique id"},
		},
		{
			file: "duplicate-store-instance.yml", line: 6,
			message: []string{`duplicate store: instance "tikv" is already used on line 5`, "unique instance"},
		},

		// Metrics.
		{
			file: "missing-metric-name.yml", line: 4,
			message: []string{"a metric needs a name, such as operator_store_my_gauge"},
		},
		{
			file: "metric-without-prefix.yml", line: 5,
			message: []string{
				`invalid metric name "tikv_a": use a name that starts with operator_store_`,
				"such as operator_store_my_gauge",
			},
		},
		{file: "invalid-metric-name.yml", line: 5, message: []string{`invalid metric name "operator_store_my-gauge"`}},
		{
			file: "reserved-metric.yml", line: 5,
			message: []string{`metric "operator_store_up" is reserved for the exporter: choose another name`},
		},
		{
			file: "reserved-metric-monitored.yml", line: 5,
			message: []string{`metric "operator_store_monitored" is reserved for the exporter`},
		},
		{
			file: "reserved-metric-prefix.yml", line: 5,
			message: []string{`metric "operator_store_exporter_stores" is reserved for the exporter`},
		},
		{file: "missing-metric-expr.yml", line: 5, message: []string{`metric "operator_store_my_gauge" needs an expr`}},
		{file: "unquoted-expr.yml", line: 5, message: []string{"invalid expr: quote the expression"}},
		{
			file: "unparsable-expr.yml", line: 6,
			message: []string{"invalid expression sum(tikv_threads: ", "unclosed left parenthesis"},
		},
		{file: "expr-mixes-targets.yml", line: 6, message: []string{"invalid expression", "keep job and instance"}},
		{
			file: "duplicate-metric.yml", line: 6,
			message: []string{`duplicate metric "operator_store_my_gauge", first defined on line 5`, "unique name"},
		},
		{
			file: "different-help.yml", line: 9,
			message: []string{`metric "operator_store_my_gauge" has a different help on line 5: use the same help`},
		},
	}

	tested := []string{"several-mistakes.yml"}
	for _, tc := range cases {
		tested = append(tested, tc.file)
		t.Run(strings.TrimSuffix(tc.file, ".yml"), func(t *testing.T) {
			lines := mistakes(t, tc.file)
			if len(lines) != 1 {
				t.Fatalf("got %d mistakes, want 1:\n%s", len(lines), strings.Join(lines, "\n"))
			}
			checkMistake(t, lines[0], tc.file, tc.line, tc.message...)
		})
	}
	checkEveryFileIsTested(t, "mistakes", tested)
}

func TestSeveralMistakes(t *testing.T) {
	const file = "several-mistakes.yml"
	lines := mistakes(t, file)
	if len(lines) != 4 {
		t.Fatalf("got %d mistakes, want 4:\n%s", len(lines), strings.Join(lines, "\n"))
	}

	checkMistake(t, lines[0], file, 4, `invalid duration "x"`)
	checkMistake(t, lines[1], file, 5, `unknown field "selectr"`)
	checkMistake(t, lines[2], file, 8, `invalid address "{"`)
	checkMistake(t, lines[3], file, 9, `cluster "test" needs an upstream`)
}

// mistakes returns the lines of the error for a file in testdata/mistakes.
func mistakes(t *testing.T, file string) []string {
	t.Helper()
	cfg, err := config.LoadFile(filepath.Join("testdata", "mistakes", file))
	if err == nil || cfg != nil {
		t.Fatalf("got the configuration %v and the error %v, want only an error", cfg, err)
	}
	return strings.Split(err.Error(), "\n")
}

func checkMistake(t *testing.T, got, file string, line int, message ...string) {
	t.Helper()
	prefix := fmt.Sprintf("%s:%d: ", filepath.Join("testdata", "mistakes", file), line)
	if !strings.HasPrefix(got, prefix) {
		t.Errorf("got %q, want the prefix %q", got, prefix)
	}

	for _, want := range message {
		if !strings.Contains(got, want) {
			t.Errorf("got %q, want it to contain %q", got, want)
		}
	}
}

// checkEveryFileIsTested fails if a directory in testdata has a file that no test case reads.
func checkEveryFileIsTested(t *testing.T, dir string, tested []string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join("testdata", dir))
	if err != nil {
		t.Fatal(err)
	}

	for _, e := range entries {
		if !slices.Contains(tested, e.Name()) {
			t.Errorf("no test case reads config/testdata/%s/%s: add one to config/config_test.go", dir, e.Name())
		}
	}
}

func TestErrorsHideSecrets(t *testing.T) {
	const secret = "hunter2"
	cases := []struct{ name, file string }{
		{name: "URL", file: "in-url.yml"},
		{name: "URL that cannot be parsed", file: "in-unparsable-url.yml"},
		{name: "URL without a scheme", file: "in-url-without-scheme.yml"},
		{name: "URL with one slash", file: "in-url-with-one-slash.yml"},
		{name: "proxy URL that cannot be parsed", file: "in-proxy-url.yml"},
		{name: "wrong place", file: "in-wrong-place.yml"},
		{name: "wrong type", file: "in-wrong-type.yml"},
		{name: "next to an unknown field", file: "next-to-unknown-field.yml"},
		{name: "next to other credentials", file: "next-to-other-credentials.yml"},
	}

	var tested []string
	for _, tc := range cases {
		tested = append(tested, tc.file)
		t.Run(tc.name, func(t *testing.T) {
			path := filepath.Join("testdata", "secrets", tc.file)
			content, err := os.ReadFile(path)
			if err != nil || !strings.Contains(string(content), secret) {
				t.Fatalf("the file does not contain the secret, error %v", err)
			}

			_, fileErr := config.LoadFile(path)
			_, contentErr := config.Load(content)
			for _, err := range []error{fileErr, contentErr} {
				if err == nil || strings.Contains(err.Error(), secret) {
					t.Errorf("got the error %v, want an error without the secret", err)
				}
			}
		})
	}
	checkEveryFileIsTested(t, "secrets", tested)
}

func TestLoadReportsLines(t *testing.T) {
	_, err := config.Load([]byte("clusters:\n  - name: prod\n    rate_window: 0s\n    selectr: x\n"))
	if err == nil {
		t.Fatal("got no error")
	}

	lines := strings.Split(err.Error(), "\n")
	want := []string{"line 3: invalid duration", "line 4: unknown field"}
	if !slices.EqualFunc(lines, want, strings.HasPrefix) {
		t.Errorf("got the lines %q, want the prefixes %q", lines, want)
	}
}

func TestLoadFileThatDoesNotExist(t *testing.T) {
	path := filepath.Join(t.TempDir(), "missing.yml")

	_, err := config.LoadFile(path)
	if err == nil || !strings.HasPrefix(err.Error(), "read config file: ") || !strings.Contains(err.Error(), path) {
		t.Errorf("got the error %v, want one with the path", err)
	}
}

func TestMetricErrorf(t *testing.T) {
	metric := loadFile(t, "every-field.yml").Clusters[0].Metrics[1]

	err := metric.Errorf("%s is %w", metric.Name, os.ErrInvalid)
	if want := "line 30: operator_store_qps is invalid argument"; err.Error() != want {
		t.Errorf("got %q, want %q", err, want)
	}
}

func TestSingleCluster(t *testing.T) {
	cfg, err := config.SingleCluster("prod", "http://localhost:9090/p")
	if err != nil {
		t.Fatal(err)
	}
	if len(cfg.Clusters) != 1 {
		t.Fatalf("got %d clusters, want 1", len(cfg.Clusters))
	}

	c := cfg.Clusters[0]
	checkFields(t, []field{
		{name: "name", got: c.Name, want: "prod"},
		{name: "URL", got: c.Upstream.URL[0].String(), want: "http://localhost:9090/p"},
		{name: "timeout", got: c.Upstream.Timeout, want: config.DefaultTimeout},
	})
}

func TestSingleClusterMistakes(t *testing.T) {
	for _, tc := range []struct{ name, cluster, url, want string }{
		{name: "no name", cluster: "", url: "http://a", want: "needs a name"},
		{name: "URL without a scheme", cluster: "a", url: "a:9090", want: `invalid URL "a:9090"`},
		{name: "no URL", cluster: "a", url: "", want: `invalid URL ""`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := config.SingleCluster(tc.cluster, tc.url)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got the error %v, want one that contains %q", err, tc.want)
			}
			if err != nil && strings.Contains(err.Error(), "line ") {
				t.Errorf("got the error %v, want no line because there is no file", err)
			}
		})
	}
}

func TestStringHidesSecrets(t *testing.T) {
	text := loadFile(t, "redacted.yml").String()

	if strings.Contains(text, "hidden") {
		t.Errorf("the text contains a secret:\n%s", text)
	}

	for _, want := range []string{
		"http://u:9090/prefix",
		`{tidb_cluster="prod"}`,
		"tenant",
		"tikv-0:20160",
		"operator_store_my_gauge",
		"bucket_windows: false",
		"rate_window: 2m",
		"query_offset: 30s",
		"username: me",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the text does not contain %s:\n%s", want, text)
		}
	}
}

func TestStringIsValidConfiguration(t *testing.T) {
	text := loadFile(t, "redacted.yml").String()

	again, err := config.Load([]byte(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if again.String() != text {
		t.Errorf("got\n%s\nafter loading\n%s", again, text)
	}
}

// FuzzLoad checks that Load returns either an error or a complete configuration.
func FuzzLoad(f *testing.F) {
	const head = "clusters:\n  - name: prod\n    upstream: {url: 'http://a'}\n"
	f.Add([]byte(head))
	f.Add([]byte(head + "    selector: '{a=\"b\"}'\n    stores: [{id: 1, address: 'a:1'}]\n"))
	f.Add([]byte("a: &a [*a]\n"))
	f.Add([]byte("clusters: [{<<: {name: a}, upstream: {url: [http://a]}}]"))

	f.Fuzz(func(t *testing.T, content []byte) {
		cfg, err := config.Load(content)
		if (cfg == nil) == (err == nil) {
			t.Fatalf("got the configuration %v and the error %v, want exactly one of them", cfg, err)
		}
		if err != nil {
			return
		}

		for _, c := range cfg.Clusters {
			if c.Name == "" || len(c.Upstream.URL) == 0 || c.Upstream.Timeout <= 0 {
				t.Errorf("incomplete cluster %+v", c)
			}
			if c.RateWindow < 0 || c.QueryOffset < 0 {
				t.Errorf("rate_window is %s, query_offset is %s, want no negative ones", c.RateWindow, c.QueryOffset)
			}
		}
	})
}
