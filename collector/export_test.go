// SPDX-License-Identifier: Apache-2.0

package collector

import (
	"github.com/operator-store/operator_store_exporter/config"
	"github.com/operator-store/operator_store_exporter/internal/discovery"
)

// Upstream is the interface of upstream's client, which tests replace.
type Upstream = upstream

// WithClients returns options that use the given clients instead of HTTP.
func (o Options) WithClients(u Upstream, pd discovery.PD) Options {
	o.connect = func(config.Upstream) (upstream, error) { return u, nil }
	o.connectPD = func(config.PD) (discovery.PD, error) { return pd, nil }

	return o
}
