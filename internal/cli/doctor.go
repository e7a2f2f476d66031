// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/alecthomas/kingpin/v2"

	"github.com/operator-store/operator_store_exporter/internal/display"
	"github.com/operator-store/operator_store_exporter/internal/doctor"
	"github.com/operator-store/operator_store_exporter/internal/storetable"
)

// Doctor is the command doctor.
type Doctor struct{ config *ConfigFlags }

// AddDoctor registers the command with app.
func AddDoctor(app *kingpin.Application, flags *ConfigFlags) *Doctor {
	app.Command("doctor", "Check the upstreams and print what to fix.")

	return &Doctor{config: flags}
}

// Run checks all clusters and prints the results. The error says how many checks failed.
func (d *Doctor) Run(ctx context.Context, stdout io.Writer) error {
	cfg, err := d.config.Load()
	if err != nil {
		return err
	}

	out := newWriter(stdout)
	failed := 0
	for _, cluster := range cfg.Clusters {
		fmt.Fprintf(out, "cluster %q\n", cluster.Name)
		checks := doctor.CheckCluster(ctx, cluster, doctor.Options{Lookback: *d.config.lookback})
		if ctx.Err() != nil {
			return ctx.Err()
		}

		for _, check := range checks {
			writeCheck(out, check)
			if check.Outcome == doctor.Fail {
				failed++
			}
		}
	}
	if failed > 0 {
		return fmt.Errorf("%s failed", display.Plural(failed, "check"))
	}

	return nil
}

// writeCheck writes a line. Texts of upstreams are part of it, so it is made printable.
func writeCheck(w storetable.Writer, c doctor.Check) {
	outcome := fmt.Sprintf("%-4s", c.Outcome)
	switch c.Outcome {
	case doctor.OK:
		outcome = w.Green(outcome)
	case doctor.Warn:
		outcome = w.Yellow(outcome)
	case doctor.Fail:
		outcome = w.Red(outcome)
	}

	fmt.Fprintf(w, "  %s  %-12s  %s\n", outcome, c.Name, display.Printable(c.Text))
}
