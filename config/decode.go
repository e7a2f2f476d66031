// SPDX-License-Identifier: Apache-2.0

// Package config loads the exporter's configuration file.
package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/units"
	commonconfig "github.com/prometheus/common/config"
	"github.com/prometheus/common/model"
	"go.yaml.in/yaml/v4"
)

// Defaults of the fields that a configuration file may omit.
const (
	// DefaultTimeout bounds one upstream query.
	DefaultTimeout = Duration(10 * time.Second)
	// DefaultPDTimeout bounds one PD request. It is short because the first scrape waits for PD,
	// then still has to respond before the scraper's timeout.
	DefaultPDTimeout = Duration(3 * time.Second)
	// DefaultRateWindow adapts the window of every rate to upstream's scrape interval.
	DefaultRateWindow = RateWindowAuto

	// DefaultBodySizeLimit is the maximum size of one response.
	DefaultBodySizeLimit = Size(64 * units.MiB)
	// DefaultConcurrencyLimit is the maximum number of concurrent requests. It is well below 20,
	// the number of concurrent queries above which Prometheus makes everybody's queries wait.
	DefaultConcurrencyLimit = Limit(8)
	// DefaultSeriesLimit is the maximum number of series in one response.
	DefaultSeriesLimit = Limit(100_000)
	// DefaultStoreLimit is the maximum number of stores per cluster.
	DefaultStoreLimit = Limit(10_000)
)

const (
	metricPrefix         = "operator_store_"
	exporterMetricPrefix = "operator_store_exporter_"
)

// reservedMetrics are the built-in gauges that a configuration cannot redefine, because they show
// whether a store exists.
var reservedMetrics = []string{
	"operator_store_up", "operator_store_monitored", "operator_store_last_scrape_timestamp_seconds",
	"operator_store_info",
}

// reservedParams are the query parameters that the exporter sets on its requests.
var reservedParams = []string{"query", "time", "timeout", "start", "end", "match[]"}

// Config is the content of a configuration file.
type Config struct {
	// Clusters has at least one cluster. Each name is unique.
	Clusters []Cluster `yaml:"clusters"`
}

// Cluster configures one TiKV cluster: its upstream, its stores and its gauges.
type Cluster struct {
	// Name is the value of the label cluster. It is required.
	Name string `yaml:"name"`
	// Upstream is the server to query. It is required.
	Upstream Upstream `yaml:"upstream"`
	// Selector is added to every vector selector. It is needed if the upstream serves several
	// clusters.
	Selector Selector `yaml:"selector,omitempty"`
	// RateWindow is the window of every rate, DefaultRateWindow by default. It should be at least
	// four scrape intervals of upstream.
	RateWindow RateWindow `yaml:"rate_window"`
	// QueryOffset is how long before upstream's current time queries are evaluated, for upstreams
	// that ingest samples late.
	QueryOffset Offset `yaml:"query_offset,omitempty"`
	// ReplicaLabels are the labels by which the series of a Prometheus HA pair differ.
	ReplicaLabels []LabelName `yaml:"replica_labels,omitempty"`
	// Stores are the cluster's stores. If it is empty, the exporter discovers them.
	Stores []Store `yaml:"stores,omitempty"`
	// PD is the PD to get stores from. If it is nil, PD is not used.
	PD *PD `yaml:"pd,omitempty"`
	// StoreLimit is the maximum number of stores that get gauges, DefaultStoreLimit by default.
	StoreLimit Limit `yaml:"store_limit,omitempty"`
	// StoresPerQuery is the number of stores in one query of histogram buckets. If it is zero,
	// which is the default, the exporter learns the number from upstream's response times.
	StoresPerQuery Limit `yaml:"stores_per_query,omitempty"`
	// BucketWindows limits queries to the histogram buckets that the quantiles need. It is true by
	// default.
	BucketWindows bool `yaml:"bucket_windows"`
	// Metrics are custom gauges and replacement expressions for built-in gauges.
	Metrics []Metric `yaml:"metrics,omitempty"`

	line int
}

// Server has the settings that Upstream and PD share. If it lists several URLs, all of these
// servers must have the same data.
type Server struct {
	// URL lists the base URLs. It is required.
	URL URLs `yaml:"url"`
	// Timeout bounds one request: DefaultTimeout by default for an upstream, DefaultPDTimeout for
	// PD.
	Timeout Duration `yaml:"timeout,omitempty"`
	// BodySizeLimit is the maximum uncompressed size of one response, DefaultBodySizeLimit by
	// default.
	BodySizeLimit Size `yaml:"body_size_limit,omitempty"`
	// ConcurrencyLimit is the maximum number of concurrent requests, DefaultConcurrencyLimit by
	// default. Further requests wait.
	ConcurrencyLimit Limit `yaml:"concurrency_limit,omitempty"`

	// HTTPClient has Prometheus' HTTP client settings. Unlike in Prometheus, redirects are not
	// followed by default.
	HTTPClient commonconfig.HTTPClientConfig `yaml:",inline"`
}

// Upstream configures the Prometheus-compatible server that is queried for a cluster.
type Upstream struct {
	Server `yaml:",inline"`

	// Params are URL parameters that are sent with every query.
	Params map[string][]string `yaml:"params,omitempty"`
	// PartialResponse accepts responses that upstream marks as incomplete. By default such a query
	// fails.
	PartialResponse bool `yaml:"partial_response,omitempty"`
	// SeriesLimit is the maximum number of series in one response, DefaultSeriesLimit by default.
	SeriesLimit Limit `yaml:"series_limit,omitempty"`
}

// PD configures the Placement Driver of a cluster, which knows the cluster's stores.
type PD struct {
	Server `yaml:",inline"`
}

// Store is a TiKV store listed in the configuration.
type Store struct {
	// ID is the value of the label store_id. It may be empty.
	ID StoreID `yaml:"id,omitempty"`
	// Address is the value of the label address. It is required.
	Address Address `yaml:"address"`
	// Instance is the label instance of the store's target. It is needed only if it cannot be
	// derived.
	Instance string `yaml:"instance,omitempty"`

	line int
}

// Metric defines a custom gauge of each store, or replaces the expression of a built-in gauge.
type Metric struct {
	// Name starts with operator_store_. It is required.
	Name string `yaml:"name"`
	// Help is the help text of a custom gauge. If it is empty, the expression is the help text.
	Help string `yaml:"help,omitempty"`
	// Expr returns the value of the gauge for each target. It is required.
	Expr Expression `yaml:"expr"`

	line int
}

// Errorf formats an error about m that starts with its line in the configuration file.
func (m Metric) Errorf(format string, args ...any) error {
	return fmt.Errorf("line %d: %w", m.line, fmt.Errorf(format, args...))
}

// LoadFile loads the configuration file at path. Relative file names in it are relative to the
// directory of the file. If the file has mistakes, the error joins one error per mistake, each with
// the path, the line and the reason. Another error means that the file cannot be read.
func LoadFile(path string) (*Config, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read config file: %w", err)
	}

	cfg, mistakes := load(content)
	if len(mistakes) > 0 {
		return nil, mistakes.join(func(m mistake) error { return fmt.Errorf("%s:%d: %s", path, m.line, m.message) })
	}

	for i := range cfg.Clusters {
		cfg.Clusters[i].Upstream.HTTPClient.SetDirectory(filepath.Dir(path))
		if pd := cfg.Clusters[i].PD; pd != nil {
			pd.HTTPClient.SetDirectory(filepath.Dir(path))
		}
	}
	return cfg, nil
}

// Load loads the content of a configuration file. Relative file names in it are relative to the
// working directory. If the content has mistakes, the error joins one error per mistake, each with
// the line and the reason.
func Load(content []byte) (*Config, error) {
	cfg, mistakes := load(content)
	if len(mistakes) > 0 {
		return nil, mistakes.join(func(m mistake) error { return fmt.Errorf("line %d: %s", m.line, m.message) })
	}
	return cfg, nil
}

// SingleCluster returns the configuration that is used without a configuration file: one cluster,
// with the stores that the upstream at upstreamURL knows. The error says which argument is invalid.
func SingleCluster(name, upstreamURL string) (*Config, error) {
	content, err := yaml.Dump(map[string]any{"clusters": []any{
		map[string]any{"name": name, "upstream": map[string]any{"url": upstreamURL}},
	}})
	if err != nil {
		return nil, err
	}

	cfg, mistakes := load(content)
	if len(mistakes) > 0 {
		return nil, mistakes.join(func(m mistake) error { return errors.New(m.message) })
	}
	return cfg, nil
}

// load decodes and validates content. It returns either a configuration or all mistakes by line.
func load(content []byte) (*Config, mistakes) {
	cfg := &Config{}

	var found mistakes
	if err := yaml.Load(content, cfg, yaml.WithKnownFields()); err != nil {
		found = decodingMistakes(err)
	} else if len(cfg.Clusters) == 0 {
		found = mistakes{{line: 1, message: "clusters is empty: define at least one cluster"}}
	}
	found = append(found, validate(cfg)...)

	if len(found) > 0 {
		slices.SortStableFunc(found, func(a, b mistake) int { return a.line - b.line })
		return nil, found
	}
	return cfg, nil
}

// UnmarshalYAML implements yaml.Unmarshaler. It sets the defaults.
func (c *Cluster) UnmarshalYAML(node *yaml.Node) error {
	type plain Cluster
	*c = Cluster{
		RateWindow:    DefaultRateWindow,
		StoreLimit:    DefaultStoreLimit,
		BucketWindows: true,
		line:          node.Line,
	}
	if err := node.Load((*plain)(c), yaml.WithKnownFields()); err != nil {
		return err
	}

	if c.Name == "" {
		return errors.New("a cluster needs a name, which becomes the value of the label cluster")
	}
	if c.Upstream.URL == nil {
		return fmt.Errorf("cluster %q needs an upstream with a url, such as http://localhost:9090", c.Name)
	}
	return nil
}

// UnmarshalYAML implements yaml.Unmarshaler. It sets the defaults.
func (u *Upstream) UnmarshalYAML(node *yaml.Node) error {
	type plain Upstream
	*u = Upstream{Server: defaultServer(DefaultTimeout), SeriesLimit: DefaultSeriesLimit}
	if err := node.Load((*plain)(u), yaml.WithKnownFields()); err != nil {
		return err
	}

	for _, param := range reservedParams {
		if _, ok := u.Params[param]; ok {
			return fmt.Errorf("params: %q is set by the exporter: remove it", param)
		}
	}
	if u.URL == nil {
		return errors.New("upstream needs a url, such as http://localhost:9090")
	}
	return u.HTTPClient.Validate()
}

// UnmarshalYAML implements yaml.Unmarshaler. It sets the defaults.
func (p *PD) UnmarshalYAML(node *yaml.Node) error {
	type plain PD
	*p = PD{Server: defaultServer(DefaultPDTimeout)}
	if err := node.Load((*plain)(p), yaml.WithKnownFields()); err != nil {
		return err
	}

	if p.URL == nil {
		return errors.New("pd needs a url, such as http://pd:2379")
	}
	return p.HTTPClient.Validate()
}

func defaultServer(timeout Duration) Server {
	s := Server{
		Timeout:          timeout,
		BodySizeLimit:    DefaultBodySizeLimit,
		ConcurrencyLimit: DefaultConcurrencyLimit,
		HTTPClient:       commonconfig.DefaultHTTPClientConfig,
	}
	// Following a redirect could send credentials to a server that must not see them.
	s.HTTPClient.FollowRedirects = false
	return s
}

// UnmarshalYAML implements yaml.Unmarshaler.
func (s *Store) UnmarshalYAML(node *yaml.Node) error {
	type plain Store
	*s = Store{line: node.Line}
	if err := node.Load((*plain)(s), yaml.WithKnownFields()); err != nil {
		return err
	}

	if s.Address == "" {
		return errors.New("a store needs an address, such as tikv-0:20160")
	}
	return nil
}

// UnmarshalYAML implements yaml.Unmarshaler.
func (m *Metric) UnmarshalYAML(node *yaml.Node) error {
	type plain Metric
	*m = Metric{line: node.Line}
	if err := node.Load((*plain)(m), yaml.WithKnownFields()); err != nil {
		return err
	}

	const example = "operator_store_my_gauge"
	switch {
	case m.Name == "":
		return errors.New("a metric needs a name, such as " + example)
	case !validMetricName(m.Name):
		return fmt.Errorf("invalid metric name %q: use a name that starts with %s, such as %s",
			m.Name, metricPrefix, example)
	case slices.Contains(reservedMetrics, m.Name) || strings.HasPrefix(m.Name, exporterMetricPrefix):
		return fmt.Errorf("metric %q is reserved for the exporter: choose another name", m.Name)
	case m.Expr == Expression{}:
		return fmt.Errorf("metric %q needs an expr: write PromQL that returns one sample per target", m.Name)
	}
	return nil
}

func validMetricName(name string) bool {
	suffix, ok := strings.CutPrefix(name, metricPrefix)
	return ok && suffix != "" && model.LegacyValidation.IsValidMetricName(name)
}
