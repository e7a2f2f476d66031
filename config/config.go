// SPDX-License-Identifier: Apache-2.0

// Package config reads the configuration file.
//
// Each type checks itself while it is decoded, so an error names the line it stands on.
package config

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/units"
	commonconfig "github.com/prometheus/common/config"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"go.yaml.in/yaml/v4"

	"github.com/operator-store/operator_store_exporter/internal/promqlexpr"
)

// Config is a whole configuration file.
type Config struct {
	Clusters []Cluster `yaml:"clusters"`
}

// Cluster is one TiKV cluster: who is asked about it, and about which stores.
type Cluster struct {
	Name          string      `yaml:"name"`
	Upstream      Upstream    `yaml:"upstream"`
	Selector      Selector    `yaml:"selector,omitempty"`
	RateWindow    Duration    `yaml:"rate_window,omitempty"`
	ReplicaLabels []LabelName `yaml:"replica_labels,omitempty"`
	Stores        []Store     `yaml:"stores,omitempty"`
	PD            *PD         `yaml:"pd,omitempty"`
	StoreLimit    Limit       `yaml:"store_limit,omitempty"` // Stores of which gauges are made.
	// StoresPerQuery is how many stores one query of buckets is about, 0 to learn it.
	StoresPerQuery Limit `yaml:"stores_per_query,omitempty"`
	BucketWindows  bool  `yaml:"bucket_windows"` // Only the buckets that the quantiles need are asked for.
	// Metrics are gauges of one's own, and other expressions for built-in ones.
	Metrics []Metric `yaml:"metrics,omitempty"`

	line int
}

// Server is who is asked, which may be several servers of the same data.
type Server struct {
	URL     URLs     `yaml:"url"`
	Timeout Duration `yaml:"timeout,omitempty"` // Of one request.

	BodySizeLimit    Size  `yaml:"body_size_limit,omitempty"`   // Of one answer, uncompressed.
	ConcurrencyLimit Limit `yaml:"concurrency_limit,omitempty"` // Requests at once; more wait.

	HTTPClient commonconfig.HTTPClientConfig `yaml:",inline"`
}

// Upstream is the Prometheus-compatible server that is asked about a cluster.
type Upstream struct {
	Server `yaml:",inline"`
	Params map[string][]string `yaml:"params,omitempty"` // Sent with every query.
	// PartialResponse takes an answer of which upstream says that data is missing from it.
	PartialResponse bool  `yaml:"partial_response,omitempty"`
	SeriesLimit     Limit `yaml:"series_limit,omitempty"` // Of one answer.
}

// PD is the PD of a cluster, which knows its stores.
type PD struct {
	Server `yaml:",inline"`
}

// Store is a TiKV store that the user names. Instance is set only where it can't be derived.
type Store struct {
	ID       StoreID `yaml:"id,omitempty"`
	Address  Address `yaml:"address"`
	Instance string  `yaml:"instance,omitempty"`

	line int
}

// Metric is a gauge of each store, told by an expression.
type Metric struct {
	Name string     `yaml:"name"`
	Help string     `yaml:"help,omitempty"`
	Expr Expression `yaml:"expr"`

	line int
}

// Wrong returns an error that tells the metric's place.
func (m Metric) Wrong(format string, args ...any) error {
	return fmt.Errorf("line %d: %s", m.line, fmt.Sprintf(format, args...))
}

// Defaults of a cluster.
const (
	DefaultTimeout    = Duration(10 * time.Second)
	DefaultPDTimeout  = Duration(3 * time.Second) // The first scrape waits for PD, and has to answer still.
	DefaultRateWindow = Duration(time.Minute)

	DefaultBodySizeLimit    = Size(64 * units.MiB)
	DefaultConcurrencyLimit = Limit(8) // Well below the 20 at which Prometheus lets everybody wait.
	DefaultSeriesLimit      = Limit(100_000)
	DefaultStoreLimit       = Limit(10_000)
)

// SingleCluster is the configuration of an exporter that was given no file: one cluster, with every
// store that its upstream knows.
func SingleCluster(name, upstreamURL string) (*Config, error) {
	node := &yaml.Node{}
	if err := node.Encode(map[string]any{"clusters": []any{map[string]any{
		"name": name, "upstream": map[string]any{"url": upstreamURL},
	}}}); err != nil {
		return nil, err
	}
	cfg := &Config{}
	if err := node.Load(cfg, yaml.WithKnownFields()); err != nil {
		var messages []error
		for _, p := range problems(err) {
			messages = append(messages, errors.New(p.message))
		}
		return nil, errors.Join(messages...)
	}
	return cfg, nil
}

// LoadFile reads the file at path. Relative file names in it are taken relative to its directory.
// The error joins one error a mistake, each with file, line and reason.
func LoadFile(path string) (*Config, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read config file: %w", err)
	}
	cfg, err := Load(content)
	if err != nil {
		var placed []error
		for _, p := range problems(err) {
			placed = append(placed, fmt.Errorf("%s:%d: %s", path, p.line, p.message))
		}
		return nil, errors.Join(placed...)
	}
	for i := range cfg.Clusters {
		cfg.Clusters[i].Upstream.HTTPClient.SetDirectory(filepath.Dir(path))
		if pd := cfg.Clusters[i].PD; pd != nil {
			pd.HTTPClient.SetDirectory(filepath.Dir(path))
		}
	}
	return cfg, nil
}

// Load reads a configuration file's content.
func Load(content []byte) (*Config, error) {
	cfg := &Config{}
	if err := yaml.Load(content, cfg, yaml.WithKnownFields()); err != nil {
		return nil, errors.Join(err, cfg.check())
	}
	if len(cfg.Clusters) == 0 {
		return nil, problem{1, "clusters is empty: name at least one cluster"}
	}
	if err := cfg.check(); err != nil {
		return nil, err
	}
	return cfg, nil
}

// check finds the mistakes that no part of the configuration can see by itself.
func (c *Config) check() error {
	var errs []error
	wrong := func(line int, format string, args ...any) {
		errs = append(errs, problem{line, fmt.Sprintf(format, args...)})
	}
	clusters := map[string]int{}
	helps := map[string]Metric{} // The first with each name: one help for all clusters, as for any metric.
	for _, cluster := range c.Clusters {
		if cluster.Name == "" {
			continue // It did not decode, which is told elsewhere.
		}
		if first, ok := clusters[cluster.Name]; ok {
			wrong(cluster.line, "duplicate cluster %q, first at line %d: give each cluster a name of its own", cluster.Name, first)
		} else {
			clusters[cluster.Name] = cluster.line
		}
		metrics := map[string]int{}
		for _, m := range cluster.Metrics {
			if m.Name == "" {
				continue
			}
			if first, ok := metrics[m.Name]; ok {
				wrong(m.line, "duplicate metric %q, first at line %d: give each one a name of its own", m.Name, first)
				continue
			}
			metrics[m.Name] = m.line
			if first, ok := helps[m.Name]; ok && first.Help != m.Help {
				wrong(m.line, "metric %q has another help at line %d: write the same one, for all clusters' samples stand below it", m.Name, first.line)
			} else {
				helps[m.Name] = m
			}
		}
		unique := map[string]int{}
		for _, s := range cluster.Stores {
			for _, key := range []struct{ field, value string }{
				{"id", string(s.ID)}, {"address", string(s.Address)}, {"instance", s.Instance},
			} {
				if key.value == "" {
					continue
				}
				k := key.field + " " + strconv.Quote(key.value)
				if first, ok := unique[k]; ok {
					wrong(s.line, "duplicate store: %s stands at line %d too", k, first)
				} else {
					unique[k] = s.line
				}
			}
		}
	}
	return errors.Join(errs...)
}

// UnmarshalYAML implements yaml.Unmarshaler.
func (c *Cluster) UnmarshalYAML(node *yaml.Node) error {
	type plain Cluster
	*c = Cluster{RateWindow: DefaultRateWindow, StoreLimit: DefaultStoreLimit, BucketWindows: true, line: node.Line}
	if err := node.Load((*plain)(c), yaml.WithKnownFields()); err != nil {
		return err
	}
	if c.Name == "" {
		return errors.New("a cluster needs a name: it becomes the label cluster")
	}
	if c.Upstream.URL == nil {
		return fmt.Errorf("cluster %q needs upstream with a url, such as http://localhost:9090", c.Name)
	}
	return nil
}

// UnmarshalYAML implements yaml.Unmarshaler.
func (u *Upstream) UnmarshalYAML(node *yaml.Node) error {
	type plain Upstream
	*u = Upstream{Server: defaultServer(), SeriesLimit: DefaultSeriesLimit}
	if err := node.Load((*plain)(u), yaml.WithKnownFields()); err != nil {
		return err
	}
	for _, reserved := range []string{"query", "time", "timeout", "start", "end", "match[]"} {
		if _, ok := u.Params[reserved]; ok {
			return fmt.Errorf("params: %q is set by the exporter itself: remove it", reserved)
		}
	}
	return u.check("upstream needs a url, such as http://localhost:9090")
}

// UnmarshalYAML implements yaml.Unmarshaler.
func (p *PD) UnmarshalYAML(node *yaml.Node) error {
	type plain PD
	*p = PD{Server: defaultServer()}
	p.Timeout = DefaultPDTimeout
	if err := node.Load((*plain)(p), yaml.WithKnownFields()); err != nil {
		return err
	}
	return p.check("pd needs a url, such as http://pd:2379")
}

func defaultServer() Server {
	s := Server{
		Timeout: DefaultTimeout, BodySizeLimit: DefaultBodySizeLimit, ConcurrencyLimit: DefaultConcurrencyLimit,
		HTTPClient: commonconfig.DefaultHTTPClientConfig,
	}
	// A redirect that is followed may carry credentials to where nobody meant to send them.
	s.HTTPClient.FollowRedirects = false
	return s
}

func (s *Server) check(noURL string) error {
	if s.URL == nil {
		return errors.New(noURL)
	}
	return s.HTTPClient.Validate()
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

// Gauges that tell whether a store is there can't be told by something else.
var reservedMetrics = []string{"operator_store_up", "operator_store_last_scrape_timestamp_seconds", "operator_store_info"}

const (
	metricPrefix    = "operator_store_"
	exporterMetrics = "operator_store_exporter_"
)

// UnmarshalYAML implements yaml.Unmarshaler.
func (m *Metric) UnmarshalYAML(node *yaml.Node) error {
	type plain Metric
	*m = Metric{line: node.Line}
	if err := node.Load((*plain)(m), yaml.WithKnownFields()); err != nil {
		return err
	}
	switch {
	case m.Name == "":
		return errors.New("a metric needs a name, such as operator_store_leaders")
	case !model.LegacyValidation.IsValidMetricName(m.Name) || !strings.HasPrefix(m.Name, metricPrefix) || m.Name == metricPrefix:
		return fmt.Errorf("bad metric name %q: write one such as operator_store_leaders", m.Name)
	case slices.Contains(reservedMetrics, m.Name) || strings.HasPrefix(m.Name, exporterMetrics):
		return fmt.Errorf("metric %q is the exporter's own: choose another name", m.Name)
	case m.Expr == Expression{}:
		return fmt.Errorf("metric %q needs an expr", m.Name)
	}
	return nil
}

// Expression is PromQL that tells one number of each target.
type Expression struct {
	promqlexpr.Expr `yaml:"-"`
}

// UnmarshalYAML implements yaml.Unmarshaler.
func (e *Expression) UnmarshalYAML(node *yaml.Node) error {
	if node.Kind != yaml.ScalarNode {
		return errors.New("bad expr: put it into quotes")
	}
	parsed, err := promqlexpr.PerTarget(node.Value)
	if err != nil {
		return fmt.Errorf("bad %w", err)
	}
	*e = Expression{parsed}
	return nil
}

// Duration is a positive duration in Prometheus' notation, such as 1m or 1h30m.
type Duration model.Duration

// String implements fmt.Stringer.
func (d Duration) String() string { return model.Duration(d).String() }

// UnmarshalYAML implements yaml.Unmarshaler.
func (d *Duration) UnmarshalYAML(node *yaml.Node) error {
	parsed, err := model.ParseDuration(node.Value)
	if err != nil || parsed <= 0 {
		return fmt.Errorf("bad duration %q: write a positive one such as 30s, 1m or 1h30m", node.Value)
	}
	*d = Duration(parsed)
	return nil
}

// Limit is a positive number of things.
type Limit int

// UnmarshalYAML implements yaml.Unmarshaler.
func (l *Limit) UnmarshalYAML(node *yaml.Node) error {
	n, err := strconv.ParseInt(node.Value, 10, 32)
	if err != nil || n <= 0 {
		return fmt.Errorf("bad limit %q: write a positive number", node.Value)
	}
	*l = Limit(n)
	return nil
}

// Size is a positive number of bytes, such as 64MB, in powers of 1024 as Prometheus' body_size_limit is.
type Size units.Base2Bytes

// UnmarshalYAML implements yaml.Unmarshaler.
func (s *Size) UnmarshalYAML(node *yaml.Node) error {
	parsed, err := units.ParseBase2Bytes(node.Value)
	if err != nil || parsed <= 0 {
		return fmt.Errorf("bad size %q: write one such as 64MB", node.Value)
	}
	*s = Size(parsed)
	return nil
}

// String implements fmt.Stringer.
func (s Size) String() string { return units.Base2Bytes(s).String() }

// URLs are the base URLs of one upstream, in the order in which they are tried.
type URLs []*url.URL

// UnmarshalYAML implements yaml.Unmarshaler. It takes one URL or a list of them.
func (u *URLs) UnmarshalYAML(node *yaml.Node) error {
	items := []*yaml.Node{node}
	if node.Kind == yaml.SequenceNode {
		items = node.Content
	}
	if len(items) == 0 {
		return errors.New("url is an empty list: write at least one, such as http://localhost:9090")
	}
	*u = nil
	for _, item := range items {
		if item.Kind == yaml.AliasNode {
			item = item.Alias
		}
		parsed, err := parseURL(item.Value)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(*u, func(o *url.URL) bool { return *o == *parsed }) {
			return fmt.Errorf("duplicate url %q: name each server once", parsed)
		}
		*u = append(*u, parsed)
	}
	return nil
}

func parseURL(s string) (*url.URL, error) {
	const want = "write it like http://localhost:9090 or https://host/prefix"
	u, err := url.Parse(s)
	switch {
	case strings.Contains(s, "@"): // What stands before it may be a password: nothing is repeated.
		return nil, errors.New("bad url: it holds credentials: move them to basic_auth")
	case err != nil:
		return nil, fmt.Errorf("bad url: it does not parse: %s", want)
	case u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.Opaque != "":
		return nil, fmt.Errorf("bad url %q: %s", s, want)
	case u.RawQuery != "" || u.Fragment != "":
		return nil, errors.New("bad url: it holds a query or a fragment: move the parameters to params")
	}
	return u, nil
}

// Selector is a list of matchers that is added to every vector selector.
type Selector []*labels.Matcher

// UnmarshalYAML implements yaml.Unmarshaler.
func (s *Selector) UnmarshalYAML(node *yaml.Node) error {
	if node.Kind != yaml.ScalarNode {
		return errors.New(`bad selector: put it into quotes, as selector: '{tidb_cluster="prod"}'`)
	}
	matchers, err := promqlexpr.ParseSelector(node.Value)
	if err != nil {
		return fmt.Errorf(`bad %w; write it like {tidb_cluster="prod"}`, err)
	}
	*s = matchers
	return nil
}

// LabelName is the name of a label that tells Prometheus replicas apart.
type LabelName string

// UnmarshalYAML implements yaml.Unmarshaler.
func (l *LabelName) UnmarshalYAML(node *yaml.Node) error {
	switch name := node.Value; {
	case !model.LegacyValidation.IsValidLabelName(name):
		return fmt.Errorf("bad label name %q: write one such as replica", name)
	case slices.Contains([]string{"job", "instance", "le", "type"}, name):
		return fmt.Errorf("label %q tells targets or series apart, not replicas: name the replica label alone", name)
	default:
		*l = LabelName(name)
		return nil
	}
}

// StoreID is PD's id of a store, a positive integer, or "" where it is not known.
type StoreID string

// UnmarshalYAML implements yaml.Unmarshaler.
func (id *StoreID) UnmarshalYAML(node *yaml.Node) error {
	n, err := strconv.ParseUint(node.Value, 10, 64)
	if err != nil || n == 0 {
		return fmt.Errorf("bad store id %q: write PD's id of the store, a positive integer", node.Value)
	}
	*id = StoreID(strconv.FormatUint(n, 10))
	return nil
}

// Address is a store's address as PD knows it: host:port, or a host alone.
type Address string

// A host name, an IPv4 or a bracketed IPv6 address; underscores are seen in container names.
var addressPattern = regexp.MustCompile(`^(\[[0-9A-Fa-f:.]+(%[0-9A-Za-z._-]+)?\]|[0-9A-Za-z_]([0-9A-Za-z._-]*[0-9A-Za-z_.])?)(:([0-9]{1,5}))?$`)

// UnmarshalYAML implements yaml.Unmarshaler.
func (a *Address) UnmarshalYAML(node *yaml.Node) error {
	parts := addressPattern.FindStringSubmatch(node.Value)
	if parts == nil || parts[5] != "" && !validPort(parts[5]) {
		return fmt.Errorf("bad address %q: write host:port as PD knows the store, such as tikv-0:20160 or [2001:db8::1]:20160", node.Value)
	}
	*a = Address(node.Value)
	return nil
}

func validPort(s string) bool {
	port, err := strconv.ParseUint(s, 10, 16)
	return err == nil && port > 0
}
