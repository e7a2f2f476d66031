// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"io"

	"github.com/alecthomas/kingpin/v2"

	"github.com/operator-store/operator_store_exporter/collector"
	"github.com/operator-store/operator_store_exporter/config"
)

// CheckConfig is the command check-config.
type CheckConfig struct{ file *string }

// AddCheckConfig registers the command with app.
func AddCheckConfig(app *kingpin.Application) *CheckConfig {
	command := app.Command("check-config", "Check a configuration file and report every mistake with its line.")

	return &CheckConfig{file: command.Arg("file", "Configuration file.").Required().String()}
}

// Run prints a line if the file is valid. Otherwise it returns an error with every mistake.
func (c *CheckConfig) Run(stdout io.Writer) error {
	cfg, err := config.LoadFile(*c.file)
	if err != nil {
		return err
	}
	// Some mistakes only show when the file is used, such as certificates that do not exist.
	exporter, err := collector.New(cfg, collector.Options{})
	if err != nil {
		return fmt.Errorf("%s: %w", *c.file, err)
	}
	defer exporter.Close()

	_, err = fmt.Fprintf(stdout, "%s is valid: %d cluster(s) %q\n", *c.file, len(cfg.Clusters), exporter.Clusters())

	return err
}
