// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"io"

	"github.com/alecthomas/kingpin/v2"

	"github.com/operator-store/operator_store_exporter/internal/gauge"
)

// Rules is the command rules.
type Rules struct{ config *ConfigFlags }

// AddRules registers the command with app.
func AddRules(app *kingpin.Application, flags *ConfigFlags) *Rules {
	app.Command("rules", "Print a Prometheus rule file that records the same gauges.")

	return &Rules{config: flags}
}

// Run prints the rule file.
func (r *Rules) Run(stdout io.Writer) error {
	cfg, err := r.config.Load()
	if err != nil {
		return err
	}

	return gauge.WriteRules(stdout, cfg, *r.config.lookback)
}
