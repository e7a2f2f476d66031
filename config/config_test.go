// SPDX-License-Identifier: Apache-2.0

package config_test

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/operator-store/operator_store_exporter/config"
)

func load(t *testing.T, content string) (*config.Config, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "c.yml")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.LoadFile(path)
	if err != nil && !strings.HasPrefix(err.Error(), path+":") {
		t.Errorf("the error does not begin with the file's name: %v", err)
	}
	return cfg, err
}

func TestEveryField(t *testing.T) {
	cfg, err := load(t, `
clusters:
  - name: prod
    upstream:
      url: [http://a:9090, https://b/prefix]
      timeout: 3s
      params: {dedup: ["true"]}
      basic_auth: {username: u, password_file: secret}
      http_headers: {X-Scope-OrgID: {values: [tenant]}}
    selector: '{tidb_cluster="prod", job!~"x.*"}'
    rate_window: 2m
    replica_labels: [replica, prometheus_replica]
    stores:
      - {id: 1, address: "tikv-0:20160"}
      - {id: "18446744073709551615", address: "[2001:db8::1]:20160", instance: "a \"b\" {c}"}
      - {address: tikv_2}
    pd:
      url: ["http://pd-0:2379", "https://pd-1:2379"]
      timeout: 2s
      tls_config: {ca_file: ca.pem}
  - name: defaults
    upstream: {url: "http://localhost:9090/"}
`)
	if err != nil {
		t.Fatal(err)
	}
	c := cfg.Clusters[0]
	got := []any{
		c.Name, c.Upstream.URL[0].String(), c.Upstream.URL[1].String(), time.Duration(c.Upstream.Timeout), c.Upstream.Params,
		c.Selector[0].String(), c.Selector[1].String(), time.Duration(c.RateWindow), c.ReplicaLabels, len(c.Stores),
		c.Stores[0].ID, c.Stores[1].ID, c.Stores[1].Instance, c.Stores[2].Address,
		c.PD.URL[1].String(), time.Duration(c.PD.Timeout), filepath.IsAbs(c.PD.HTTPClient.TLSConfig.CAFile), c.PD.HTTPClient.FollowRedirects,
		filepath.Base(c.Upstream.HTTPClient.BasicAuth.PasswordFile), filepath.IsAbs(c.Upstream.HTTPClient.BasicAuth.PasswordFile),
	}
	want := []any{
		"prod", "http://a:9090", "https://b/prefix", 3 * time.Second,
		map[string][]string{"dedup": {"true"}},
		`tidb_cluster="prod"`, `job!~"x.*"`, 2 * time.Minute,
		[]config.LabelName{"replica", "prometheus_replica"},
		3,
		config.StoreID("1"), config.StoreID("18446744073709551615"), `a "b" {c}`, config.Address("tikv_2"),
		"https://pd-1:2379", 2 * time.Second, true, false,
		"secret", true,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%v\nwant\n%v", got, want)
	}
	d := cfg.Clusters[1]
	if d.RateWindow != config.DefaultRateWindow || d.Upstream.Timeout != config.DefaultTimeout || d.Upstream.HTTPClient.FollowRedirects || d.Stores != nil {
		t.Errorf("the defaults are %+v", d)
	}
}

const head = "clusters:\n  - name: prod\n    upstream: {url: 'http://a'}\n" // Lines 1 to 3.

// Each mistake, and what the error must say, with the line.
func TestMistakes(t *testing.T) {
	for _, tc := range []struct {
		name, content string
		want          []string
	}{
		{"nothing", "", []string{":1: the file is empty"}},
		{"only a comment", "# nothing\n", []string{":1: the file is empty"}},
		{"no clusters", "clusters: []\n", []string{":1: clusters is empty"}},
		{"no YAML", "clusters: [\n", []string{":2: "}},
		{"a second document", head + "---\nclusters: []\n", []string{":1: expected single document"}},
		{"an unknown field", "cluster: []\n", []string{`:1: unknown field "cluster"`}},
		{"an unknown field of a cluster", head + "    sel: x\n", []string{`:4: unknown field "sel"`}},
		{"an unknown field of upstream", "clusters:\n- name: a\n  upstream:\n    url: http://a\n    uri: x\n", []string{`:5: unknown field "uri"`}},
		{"an unknown field of the HTTP client", "clusters:\n- name: a\n  upstream:\n    url: http://a\n    tls_config: {ca_fle: x}\n", []string{`:5: unknown field "ca_fle"`}},
		{"an unknown field of a store", head + "    stores:\n    - {adress: a}\n", []string{`:5: unknown field "adress"`}},
		{"no name", "clusters:\n- upstream: {url: 'http://a'}\n", []string{":2: a cluster needs a name"}},
		{"no upstream", "clusters:\n- name: a\n", []string{`:2: cluster "a" needs upstream`}},
		{"no url", "clusters:\n- name: a\n  upstream: {timeout: 1s}\n", []string{":3: upstream needs a url"}},
		{"a url without a scheme", "clusters:\n- name: a\n  upstream: {url: 'localhost:9090'}\n", []string{`:3: bad url "localhost:9090": write it like http://localhost:9090`}},
		{"a url without a host", "clusters:\n- name: a\n  upstream: {url: 'http://'}\n", []string{`:3: bad url "http://"`}},
		{"a url that does not parse", "clusters:\n- name: a\n  upstream: {url: 'http://[::x'}\n", []string{":3: bad url: it does not parse"}},
		{"a bad url in a list", "clusters:\n- name: a\n  upstream:\n    url:\n    - http://a\n    - ftp://a\n", []string{`: bad url "ftp://a"`}},
		{"a url with a query", "clusters:\n- name: a\n  upstream: {url: 'http://a?dedup=true'}\n", []string{":3: bad url: it holds a query or a fragment: move the parameters to params"}},
		{"a reserved parameter", "clusters:\n- name: a\n  upstream: {url: 'http://a', params: {time: ['1']}}\n", []string{`:3: params: "time" is set by the exporter itself`}},
		{"two ways to log in", "clusters:\n- name: a\n  upstream: {url: 'http://a', bearer_token: x, basic_auth: {username: a}}\n", []string{":3: at most one of basic_auth"}},
		{"pd without a url", head + "    pd: {timeout: 1s}\n", []string{":4: pd needs a url, such as http://pd:2379"}},
		{"an unknown field of pd", head + "    pd: {url: 'http://a', params: {}}\n", []string{`:4: unknown field "params"`}},
		{"a bad url of pd", head + "    pd: {url: 'pd:2379'}\n", []string{`:4: bad url "pd:2379"`}},
		{"a bad selector", head + "    selector: '{a=\"b}'\n", []string{`:4: bad selector {a="b}: `, "unterminated", `write it like {tidb_cluster="prod"}`}},
		{"a selector with a metric", head + "    selector: 'up{a=\"b\"}'\n", []string{":4: bad selector up", "leave out the metric name"}},
		{"a bad duration", head + "    rate_window: 1 minute\n", []string{`:4: bad duration "1 minute"`}},
		{"a duration of zero", head + "    rate_window: 0s\n", []string{`:4: bad duration "0s"`}},
		{"a bad timeout", "clusters:\n- name: a\n  upstream:\n    url: http://a\n    timeout: -1s\n", []string{`:5: bad duration "-1s"`}},
		{"a bad replica label", head + "    replica_labels: [a-b]\n", []string{`:4: bad label name "a-b"`}},
		{"a replica label that tells targets apart", head + "    replica_labels: [instance]\n", []string{`:4: label "instance" tells targets or series apart`}},
		{"an address with a quote", head + "    stores:\n    - {address: 'a\"b:1'}\n", []string{`:5: bad address "a\"b:1"`}},
		{"an address with braces", head + "    stores:\n    - address: 'tikv{}:1'\n", []string{`:5: bad address "tikv{}:1"`}},
		{"an address with a port out of range", head + "    stores:\n    - address: tikv:65536\n", []string{`:5: bad address "tikv:65536"`}},
		{"an address with a scheme", head + "    stores:\n    - address: http://tikv:1\n", []string{`:5: bad address "http://tikv:1"`}},
		{"an IPv6 address without brackets", head + "    stores:\n    - address: '::1:20160'\n", []string{`:5: bad address "::1:20160"`}},
		{"no address", head + "    stores:\n    - id: 1\n", []string{":5: a store needs an address"}},
		{"a bad id", head + "    stores:\n    - {id: -1, address: a}\n", []string{`:5: bad store id "-1"`}},
		{"a duplicate cluster", head + "  - name: prod\n    upstream: {url: 'http://a'}\n", []string{`:4: duplicate cluster "prod", first at line 2`}},
		{"a duplicate address", head + "    stores:\n    - address: a:1\n    - address: b:1\n    - address: a:1\n", []string{`:7: duplicate store: address "a:1" stands at line 5 too`}},
		{"a duplicate id", head + "    stores:\n    - {id: 1, address: a:1}\n    - {id: 1, address: b:1}\n", []string{`:6: duplicate store: id "1" stands at line 5 too`}},
		{"a duplicate instance", head + "    stores:\n    - {instance: x, address: a:1}\n    - {instance: x, address: b:1}\n", []string{`:6: duplicate store: instance "x" stands at line 5 too`}},
		{"a list where a mapping is wanted", head + "    stores:\n    - [a]\n", []string{":5: a value of another type is wanted here than seq"}},
		{"a metric without a name", head + "    metrics: [{expr: x}]\n", []string{":4: a metric needs a name, such as operator_store_leaders"}},
		{"a metric without an expression", head + "    metrics:\n    - {name: operator_store_a}\n", []string{`:5: metric "operator_store_a" needs an expr`}},
		{"a metric of another family", head + "    metrics:\n    - {name: tikv_a, expr: x}\n", []string{`:5: bad metric name "tikv_a": write one such as operator_store_leaders`}},
		{"a metric with a bad name", head + "    metrics:\n    - {name: operator_store_a-b, expr: x}\n", []string{`:5: bad metric name "operator_store_a-b"`}},
		{"another up", head + "    metrics:\n    - {name: operator_store_up, expr: x}\n", []string{`:5: metric "operator_store_up" is the exporter's own`}},
		{"a metric of the exporter", head + "    metrics:\n    - {name: operator_store_exporter_stores, expr: x}\n", []string{`:5: metric "operator_store_exporter_stores" is the exporter's own`}},
		{"an unknown field of a metric", head + "    metrics:\n    - {name: operator_store_a, query: x}\n", []string{`:5: unknown field "query"`}},
		{"an expression that does not parse", head + "    metrics:\n    - name: operator_store_a\n      expr: sum(x\n", []string{`:6: bad expression sum(x: `, "unclosed left parenthesis"}},
		{"an expression that mixes targets", head + "    metrics:\n    - name: operator_store_a\n      expr: sum without (instance) (x)\n", []string{`:6: bad expression`, "keep job and instance"}},
		{"a duplicate metric", head + "    metrics:\n    - {name: operator_store_a, expr: x}\n    - {name: operator_store_a, expr: y}\n", []string{`:6: duplicate metric "operator_store_a", first at line 5`}},
		{"two helps of one metric", head + "    metrics:\n    - {name: operator_store_a, help: A., expr: x}\n  - name: b\n    upstream: {url: 'http://a'}\n    metrics:\n    - {name: operator_store_a, help: B., expr: x}\n", []string{`:9: metric "operator_store_a" has another help at line 5`}},
		{
			"all of several mistakes", head + "    rate_window: x\n    sel: y\n    stores:\n    - {id: 1, address: a:1}\n    - {id: 1, address: '{'}\n  - name: b\n",
			[]string{`:4: bad duration "x"`, `:5: unknown field "sel"`, `:8: bad address "{"`, `:9: cluster "b" needs upstream`},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cfg, err := load(t, tc.content)
			if err == nil || cfg != nil {
				t.Fatalf("got %v and the error %v", cfg, err)
			}
			for _, want := range tc.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("the error is\n%v\nwhich lacks %q", err, want)
				}
			}
			if lines := strings.Count(err.Error(), "\n") + 1; len(tc.want) > 1 && strings.Contains(tc.name, "several") && lines != len(tc.want) {
				t.Errorf("%d mistakes are told of, want %d:\n%v", lines, len(tc.want), err)
			}
		})
	}
}

func TestSecretsAreNotRepeated(t *testing.T) {
	const secret = "hunter2"
	for name, content := range map[string]string{
		"in a url":                  "clusters:\n- name: a\n  upstream: {url: 'http://u:" + secret + "@a'}\n",
		"in a url that is bad":      "clusters:\n- name: a\n  upstream: {url: 'http://u:" + secret + "@[::x'}\n",
		"in a url without a scheme": "clusters:\n- name: a\n  upstream: {url: 'u:" + secret + "@a:9090'}\n",
		"in a url with one slash":   "clusters:\n- name: a\n  upstream: {url: 'http:/u:" + secret + "@a:9090'}\n",
		"in a proxy's url":          "clusters:\n- name: a\n  upstream: {url: 'http://a', proxy_url: 'http://u:" + secret + "@[::x'}\n",
		"in the wrong place":        "clusters:\n- name: a\n  upstream: {url: 'http://a', basic_auth: " + secret + "}\n",
		"in the wrong type":         "clusters:\n- name: a\n  upstream: {url: 'http://a', authorization: [" + secret + "]}\n",
		"beside a wrong field":      "clusters:\n- name: a\n  upstream: {url: 'http://a', basic_auth: {user: a, password: " + secret + "}}\n",
		"beside a contradiction":    "clusters:\n- name: a\n  upstream: {url: 'http://a', bearer_token: " + secret + ", basic_auth: {username: a}}\n",
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := load(t, content); err == nil || strings.Contains(err.Error(), secret) {
				t.Errorf("the error is %v", err)
			}
		})
	}
}

func TestSingleCluster(t *testing.T) {
	cfg, err := config.SingleCluster("prod", "http://localhost:9090/p")
	if err != nil || len(cfg.Clusters) != 1 || cfg.Clusters[0].Name != "prod" || cfg.Clusters[0].Upstream.URL[0].Path != "/p" {
		t.Errorf("got %+v and %v", cfg, err)
	}
	for _, tc := range []struct{ name, url, want string }{
		{"", "http://a", "needs a name"},
		{"a", "a:9090", `bad url "a:9090"`},
		{"a", "", "bad url"},
	} {
		if _, err := config.SingleCluster(tc.name, tc.url); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%q, %q: the error is %v, want one with %q", tc.name, tc.url, err, tc.want)
		}
	}
}

// Whatever the file says, it is refused with a place or gives a configuration that is whole.
func FuzzLoad(f *testing.F) {
	f.Add([]byte(head))
	f.Add([]byte(head + "    selector: '{a=\"b\"}'\n    stores: [{id: 1, address: 'a:1'}]\n"))
	f.Add([]byte("a: &a [*a]\n"))
	f.Add([]byte("clusters: [{<<: {name: a}, upstream: {url: [http://a]}}]"))
	f.Fuzz(func(t *testing.T, content []byte) {
		cfg, err := config.Load(content)
		if (cfg == nil) == (err == nil) {
			t.Fatalf("got %v and %v", cfg, err)
		}
		if err != nil {
			return
		}
		for _, c := range cfg.Clusters {
			if c.Name == "" || len(c.Upstream.URL) == 0 || c.RateWindow <= 0 || c.Upstream.Timeout <= 0 {
				t.Errorf("a cluster is not whole: %+v", c)
			}
		}
	})
}

func TestTheTextOfAConfigurationHidesSecrets(t *testing.T) {
	cfg, err := config.Load([]byte(`clusters:
- name: a
  selector: '{tidb_cluster="prod"}'
  upstream:
    url: http://u:9090/prefix
    params: {dedup: [hidden-1]}
    proxy_url: http://me:hidden-2@proxy
    oauth2: {client_id: id, client_secret: hidden-3, token_url: http://t, endpoint_params: {token: hidden-4}}
    http_headers: {X-Scope-OrgID: {values: [tenant], secrets: [hidden-5]}}
  pd: {url: http://pd, oauth2: {client_id: id, client_secret: hidden-6, token_url: http://t, endpoint_params: {token: hidden-7}}}
  stores: [{id: 7, address: "tikv-0:20160"}]
  metrics: [{name: operator_store_leaders, help: Leaders., expr: 'sum by (instance) (x)'}]
- {name: b, upstream: {url: http://b, basic_auth: {username: me, password: hidden-8}}, bucket_windows: false, rate_window: 2m}
- {name: c, upstream: {url: http://c, authorization: {credentials: hidden-9}}}
`))
	if err != nil {
		t.Fatal(err)
	}
	text := cfg.String()
	if strings.Contains(text, "hidden") {
		t.Errorf("a secret is shown:\n%s", text)
	}
	for _, want := range []string{"http://u:9090/prefix", `{tidb_cluster="prod"}`, "tenant", "tikv-0:20160", "operator_store_leaders", "bucket_windows: false", "rate_window: 2m", "username: me"} {
		if !strings.Contains(text, want) {
			t.Errorf("%s is not shown:\n%s", want, text)
		}
	}
	if again, err := config.Load([]byte(text)); err != nil || again.String() != text {
		t.Errorf("what is shown is no configuration: %v\n%s", err, text)
	}
}
