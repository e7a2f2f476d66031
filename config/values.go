// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/units"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"go.yaml.in/yaml/v4"

	"github.com/operator-store/operator_store_exporter/internal/promqlexpr"
)

// Expression is a PromQL expression that returns one sample per target.
type Expression struct {
	promqlexpr.Expr `yaml:"-"`
}

// UnmarshalYAML implements yaml.Unmarshaler. It rejects an expression that cannot return one sample
// per target, for example because it drops the labels job and instance.
func (e *Expression) UnmarshalYAML(node *yaml.Node) error {
	if node.Kind != yaml.ScalarNode {
		return errors.New("invalid expr: quote the expression")
	}

	parsed, err := promqlexpr.PerTarget(node.Value)
	if err != nil {
		return fmt.Errorf("invalid %w", err)
	}
	*e = Expression{parsed}
	return nil
}

// Duration is a positive duration in nanoseconds. In YAML it has Prometheus' notation, such as 1m
// or 1h30m.
type Duration model.Duration

// String returns the duration in Prometheus' notation.
func (d Duration) String() string { return model.Duration(d).String() }

// UnmarshalYAML implements yaml.Unmarshaler.
func (d *Duration) UnmarshalYAML(node *yaml.Node) error {
	parsed, err := model.ParseDuration(node.Value)
	if err != nil || parsed <= 0 {
		return fmt.Errorf("invalid duration %q: use a positive duration such as 30s, 1m or 1h30m", node.Value)
	}
	*d = Duration(parsed)
	return nil
}

// RateWindow is the window of rates in nanoseconds, or RateWindowAuto.
type RateWindow time.Duration

// RateWindowAuto adapts the window to upstream's scrape interval. In YAML it is "auto".
const RateWindowAuto RateWindow = 0

const autoText = "auto"

// String returns the window in Prometheus' notation, or "auto".
func (w RateWindow) String() string {
	if w == RateWindowAuto {
		return autoText
	}
	return model.Duration(w).String()
}

// UnmarshalYAML implements yaml.Unmarshaler.
func (w *RateWindow) UnmarshalYAML(node *yaml.Node) error {
	if node.Value == autoText {
		*w = RateWindowAuto
		return nil
	}

	parsed, err := model.ParseDuration(node.Value)
	if err != nil || parsed <= 0 {
		return fmt.Errorf("invalid duration %q: use auto, or a positive duration such as 30s, 1m or 1h30m", node.Value)
	}
	*w = RateWindow(parsed)
	return nil
}

// Offset is a duration in nanoseconds that is not negative. In YAML it has Prometheus' notation,
// such as 0s or 30s.
type Offset model.Duration

// String returns the offset in Prometheus' notation.
func (o Offset) String() string { return model.Duration(o).String() }

// UnmarshalYAML implements yaml.Unmarshaler.
func (o *Offset) UnmarshalYAML(node *yaml.Node) error {
	parsed, err := model.ParseDuration(node.Value)
	if err != nil {
		return fmt.Errorf("invalid duration %q: use 0s, or a duration such as 30s or 1m", node.Value)
	}
	*o = Offset(parsed)
	return nil
}

// Limit is a positive number of things, such as stores, series or requests. It fits into 32 bits.
type Limit int

// UnmarshalYAML implements yaml.Unmarshaler.
func (l *Limit) UnmarshalYAML(node *yaml.Node) error {
	n, err := strconv.ParseInt(node.Value, 10, 32)
	if err != nil || n <= 0 {
		return fmt.Errorf("invalid limit %q: use an integer from 1 to 2147483647", node.Value)
	}
	*l = Limit(n)
	return nil
}

// Size is a positive number of bytes. In YAML it has a unit, such as 64MB. Units are powers of
// 1024, as in Prometheus' body_size_limit.
type Size units.Base2Bytes

// UnmarshalYAML implements yaml.Unmarshaler.
func (s *Size) UnmarshalYAML(node *yaml.Node) error {
	parsed, err := units.ParseBase2Bytes(node.Value)
	if err != nil || parsed <= 0 {
		return fmt.Errorf("invalid size %q: use a positive size such as 64MB", node.Value)
	}
	*s = Size(parsed)
	return nil
}

// String returns the size with a unit, such as 64MiB.
func (s Size) String() string { return units.Base2Bytes(s).String() }

// URLs are the base URLs of servers with the same data, in the order in which they are tried. The
// scheme of each is http or https. None has credentials, a query or a fragment.
type URLs []*url.URL

// UnmarshalYAML implements yaml.Unmarshaler. It accepts one URL or a list of URLs without
// duplicates.
func (u *URLs) UnmarshalYAML(node *yaml.Node) error {
	items := []*yaml.Node{node}
	if node.Kind == yaml.SequenceNode {
		items = node.Content
	}
	if len(items) == 0 {
		return errors.New("url is an empty list: add at least one URL, such as http://localhost:9090")
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
		if slices.ContainsFunc(*u, func(other *url.URL) bool { return *other == *parsed }) {
			return fmt.Errorf("duplicate URL %q: list each server once", parsed)
		}
		*u = append(*u, parsed)
	}

	return nil
}

func parseURL(s string) (*url.URL, error) {
	const fix = "use a URL such as http://localhost:9090 or https://host/prefix"

	u, err := url.Parse(s)
	switch {
	case strings.Contains(s, "@"): // A password may precede it: do not repeat the URL.
		return nil, errors.New("invalid URL: it contains credentials: move them to basic_auth")
	case err != nil:
		return nil, fmt.Errorf("invalid URL: it cannot be parsed: %s", fix)
	case u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.Opaque != "":
		return nil, fmt.Errorf("invalid URL %q: %s", s, fix)
	case u.RawQuery != "" || u.Fragment != "":
		return nil, errors.New("invalid URL: it contains a query or a fragment: move the parameters to params")
	}
	return u, nil
}

// Selector is a list of matchers that is added to every vector selector. In YAML it is a selector
// without a metric name, such as {tidb_cluster="prod"}.
type Selector []*labels.Matcher

// UnmarshalYAML implements yaml.Unmarshaler.
func (s *Selector) UnmarshalYAML(node *yaml.Node) error {
	if node.Kind != yaml.ScalarNode {
		return errors.New(`invalid selector: quote it, as in selector: '{tidb_cluster="prod"}'`)
	}

	matchers, err := promqlexpr.ParseSelector(node.Value)
	if err != nil {
		return fmt.Errorf(`invalid %w; example: {tidb_cluster="prod"}`, err)
	}
	*s = matchers
	return nil
}

// LabelName is the name of a label by which Prometheus replicas differ. It cannot be a label that
// identifies targets or series.
type LabelName string

// UnmarshalYAML implements yaml.Unmarshaler.
func (l *LabelName) UnmarshalYAML(node *yaml.Node) error {
	name := node.Value
	if !model.LegacyValidation.IsValidLabelName(name) {
		return fmt.Errorf("invalid label name %q: use a name such as replica", name)
	}
	if slices.Contains([]string{"job", "instance", "le", "type"}, name) {
		return fmt.Errorf("label %q identifies targets or series, not replicas: "+
			"list only labels by which replicas differ", name)
	}
	*l = LabelName(name)
	return nil
}

// StoreID is the ID that PD assigned to a store: a positive integer, or "" if it is unknown.
type StoreID string

// UnmarshalYAML implements yaml.Unmarshaler.
func (id *StoreID) UnmarshalYAML(node *yaml.Node) error {
	n, err := strconv.ParseUint(node.Value, 10, 64)
	if err != nil || n == 0 {
		return fmt.Errorf("invalid store ID %q: use the ID that PD assigned to the store, "+
			"a positive integer", node.Value)
	}
	*id = StoreID(strconv.FormatUint(n, 10))
	return nil
}

// Address is the address of a store in PD: host:port, or only a host.
type Address string

// addressPattern matches a bracketed IPv6 address, an IPv4 address or a host name, each with an
// optional port. Host names may contain underscores, because container names do.
var addressPattern = regexp.MustCompile(
	`^(\[[0-9A-Fa-f:.]+(%[0-9A-Za-z._-]+)?\]` +
		`|[0-9A-Za-z_]([0-9A-Za-z._-]*[0-9A-Za-z_.])?)` +
		`(:(?P<port>[0-9]{1,5}))?$`)

// UnmarshalYAML implements yaml.Unmarshaler.
func (a *Address) UnmarshalYAML(node *yaml.Node) error {
	if !validAddress(node.Value) {
		return fmt.Errorf("invalid address %q: use the store's host:port in PD, "+
			"such as tikv-0:20160 or [2001:db8::1]:20160", node.Value)
	}
	*a = Address(node.Value)
	return nil
}

func validAddress(s string) bool {
	parts := addressPattern.FindStringSubmatch(s)
	if parts == nil {
		return false
	}

	port := parts[addressPattern.SubexpIndex("port")]
	if port == "" {
		return true
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && n > 0
}
