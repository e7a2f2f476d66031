// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"

	commonconfig "github.com/prometheus/common/config"
	"go.yaml.in/yaml/v4"

	"github.com/operator-store/operator_store_exporter/internal/promqlexpr"
)

const hidden = "<secret>"

// String is the configuration as YAML, with its defaults and without its secrets.
func (c *Config) String() string {
	content, err := yaml.Dump(c)
	if err != nil {
		return fmt.Sprintf("# it can't be shown: %s\n", err)
	}
	return string(content)
}

// MarshalYAML implements yaml.Marshaler. Values of parameters may be secrets.
func (u Upstream) MarshalYAML() (any, error) {
	type plain Upstream
	shown := plain(u)
	shown.Params = map[string][]string{}
	for name := range u.Params {
		shown.Params[name] = []string{hidden}
	}
	shown.HTTPClient.OAuth2 = withoutSecrets(u.HTTPClient.OAuth2)
	return shown, nil
}

// MarshalYAML implements yaml.Marshaler.
func (p PD) MarshalYAML() (any, error) {
	type plain PD
	shown := plain(p)
	shown.HTTPClient.OAuth2 = withoutSecrets(p.HTTPClient.OAuth2)
	return shown, nil
}

// withoutSecrets hides what hides itself not: an endpoint's parameters may be secrets too.
func withoutSecrets(o *commonconfig.OAuth2) *commonconfig.OAuth2 {
	if o == nil {
		return nil
	}
	shown := *o
	shown.EndpointParams = map[string]string{}
	for name := range o.EndpointParams {
		shown.EndpointParams[name] = hidden
	}
	return &shown
}

// MarshalYAML implements yaml.Marshaler.
func (u URLs) MarshalYAML() (any, error) {
	texts := make([]string, len(u))
	for i, url := range u {
		texts[i] = url.Redacted()
	}
	return texts, nil
}

// MarshalYAML implements yaml.Marshaler.
func (s Selector) MarshalYAML() (any, error) { return promqlexpr.Selector(s), nil }

// MarshalYAML implements yaml.Marshaler.
func (e Expression) MarshalYAML() (any, error) { return e.Text(), nil }

// MarshalYAML implements yaml.Marshaler.
func (d Duration) MarshalYAML() (any, error) { return d.String(), nil }

// MarshalYAML implements yaml.Marshaler.
func (s Size) MarshalYAML() (any, error) { return s.String(), nil }
