// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"

	commonconfig "github.com/prometheus/common/config"
	"go.yaml.in/yaml/v4"

	"github.com/operator-store/operator_store_exporter/internal/promqlexpr"
)

// redacted replaces a secret. prometheus/common renders its own secrets with the same text.
const redacted = "<secret>"

// String returns the configuration as YAML, including defaults. Secrets are replaced with <secret>.
func (c *Config) String() string {
	content, err := yaml.Dump(c)
	if err != nil {
		return fmt.Sprintf("# cannot render the configuration: %s\n", err)
	}
	return string(content)
}

// MarshalYAML implements yaml.Marshaler. It redacts the values of all parameters, which may be
// secrets.
func (u Upstream) MarshalYAML() (any, error) {
	type plain Upstream

	shown := plain(u)
	shown.Params = map[string][]string{}
	for name := range u.Params {
		shown.Params[name] = []string{redacted}
	}

	shown.HTTPClient.OAuth2 = redactEndpointParams(u.HTTPClient.OAuth2)
	return shown, nil
}

// MarshalYAML implements yaml.Marshaler. It redacts secrets.
func (p PD) MarshalYAML() (any, error) {
	type plain PD
	shown := plain(p)
	shown.HTTPClient.OAuth2 = redactEndpointParams(p.HTTPClient.OAuth2)
	return shown, nil
}

// redactEndpointParams returns o with its endpoint parameters redacted. They may be secrets, but
// their type does not redact them, unlike the types of the other fields.
func redactEndpointParams(o *commonconfig.OAuth2) *commonconfig.OAuth2 {
	if o == nil {
		return nil
	}

	shown := *o
	shown.EndpointParams = map[string]string{}
	for name := range o.EndpointParams {
		shown.EndpointParams[name] = redacted
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
func (e Expression) MarshalYAML() (any, error) { return e.String(), nil }

// MarshalYAML implements yaml.Marshaler.
func (d Duration) MarshalYAML() (any, error) { return d.String(), nil }

// MarshalYAML implements yaml.Marshaler.
func (w RateWindow) MarshalYAML() (any, error) { return w.String(), nil }

// MarshalYAML implements yaml.Marshaler.
func (o Offset) MarshalYAML() (any, error) { return o.String(), nil }

// MarshalYAML implements yaml.Marshaler.
func (s Size) MarshalYAML() (any, error) { return s.String(), nil }
