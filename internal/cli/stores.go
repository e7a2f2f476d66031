// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/alecthomas/kingpin/v2"

	"github.com/operator-store/operator_store_exporter/collector"
	"github.com/operator-store/operator_store_exporter/internal/report"
	"github.com/operator-store/operator_store_exporter/internal/storejson"
	"github.com/operator-store/operator_store_exporter/internal/storetable"
)

// ErrIncomplete is the error of the command stores if an upstream failed.
var ErrIncomplete = errors.New("some values could not be queried")

// clearScreen moves the cursor of a terminal to the top of an empty screen.
const clearScreen = "\x1b[H\x1b[2J"

// Stores is the command stores.
type Stores struct {
	config   *ConfigFlags
	output   *string
	watch    *bool
	interval *time.Duration
	timeout  *time.Duration
}

// AddStores registers the command with app.
func AddStores(app *kingpin.Application, flags *ConfigFlags) *Stores {
	command := app.Command("stores", "Scrape once and print the stores.")

	return &Stores{
		config: flags,
		output: command.Flag("output", "Output format: table or json.").Short('o').Default("table").
			Enum("table", "json"),
		watch:    command.Flag("watch", "Scrape repeatedly until interrupted.").Short('w').Bool(),
		interval: command.Flag("watch.interval", "Interval between scrapes with --watch.").Default("5s").Duration(),
		timeout:  command.Flag("timeout", "Timeout of a scrape.").Default("10s").Duration(),
	}
}

// Run prints the stores, with --watch until ctx ends. The error is ErrIncomplete if an upstream
// failed; the values that arrived are printed anyway. With --watch, such failures are ignored.
func (s *Stores) Run(ctx context.Context, stdout io.Writer) error {
	if err := requirePositive(
		durationFlag{name: "--watch.interval", value: *s.interval},
		durationFlag{name: "--timeout", value: *s.timeout},
	); err != nil {
		return err
	}
	exporter, err := s.config.NewExporter(collector.Options{})
	if err != nil {
		return err
	}
	defer exporter.Close()

	out := newWriter(stdout)
	if *s.watch {
		return s.printRepeatedly(ctx, exporter, out)
	}

	return s.print(ctx, exporter, out)
}

func (s *Stores) printRepeatedly(ctx context.Context, exporter *collector.Exporter, out storetable.Writer) error {
	ticker := time.NewTicker(*s.interval)
	defer ticker.Stop()

	for {
		if out.Color { // It is a terminal.
			fmt.Fprint(out, clearScreen)
		}
		if err := s.print(ctx, exporter, out); err != nil && !errors.Is(err, ErrIncomplete) {
			return err
		}

		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// print scrapes once and prints the result, unless ctx is canceled: then values are missing.
func (s *Stores) print(ctx context.Context, exporter *collector.Exporter, out storetable.Writer) error {
	scrapeCtx, cancel := context.WithTimeout(ctx, *s.timeout)
	defer cancel()
	scrape, err := exporter.Scrape(scrapeCtx)
	if err != nil {
		return err
	}
	if ctx.Err() != nil {
		return nil // An interrupt is how --watch ends.
	}

	reports := scrape.Reports()
	if *s.output == "json" {
		err = storejson.Write(out, reports)
	} else {
		err = storetable.WriteTable(out, reports, time.Now())
	}
	if err != nil {
		return fmt.Errorf("print the stores: %w", err)
	}
	if slices.ContainsFunc(reports, func(r report.Report) bool { return !r.UpstreamUp }) {
		return ErrIncomplete
	}

	return nil
}
