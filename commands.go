// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/go-kit/log"
	"github.com/prometheus/common/model"
	"golang.org/x/term"

	"github.com/operator-store/operator_store_exporter/collector"
	"github.com/operator-store/operator_store_exporter/config"
	"github.com/operator-store/operator_store_exporter/internal/doctor"
	"github.com/operator-store/operator_store_exporter/internal/rulefile"
	"github.com/operator-store/operator_store_exporter/internal/statuspage"
)

// checkConfig prints a line if the file is good, or returns every mistake in it.
func checkConfig(file string, stdout io.Writer) error {
	cfg, err := config.LoadFile(file)
	if err != nil {
		return err
	}
	exporter, err := collector.New(cfg, collector.Options{Logger: log.NewNopLogger()})
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	defer exporter.Close()
	_, err = fmt.Fprintf(stdout, "%s is good: %d cluster(s) %q\n", file, len(cfg.Clusters), exporter.Clusters())
	return err
}

// storesPrinting is the command that prints the stores, with its flags.
type storesPrinting struct {
	serving  *serving
	output   *string
	watch    *bool
	interval *time.Duration
	timeout  *time.Duration
}

func storesCommand(app *kingpin.Application, s *serving) *storesPrinting {
	command := app.Command("stores", "Make one scrape, and print the stores.")
	return &storesPrinting{
		serving:  s,
		output:   command.Flag("output", "How to print them: table or json.").Short('o').Default("table").Enum("table", "json"),
		watch:    command.Flag("watch", "Scrape again and again, until interrupted.").Short('w').Bool(),
		interval: command.Flag("watch.interval", "How long to wait between scrapes.").Default("5s").Duration(),
		timeout:  command.Flag("timeout", "How long a scrape may take.").Default("10s").Duration(),
	}
}

var errIncomplete = errors.New("not every value could be asked for")

// run prints the stores. The error is errIncomplete where an upstream failed; what arrived is printed all the same.
func (p *storesPrinting) run(ctx context.Context, stdout io.Writer) error {
	for name, d := range map[string]time.Duration{"--watch.interval": *p.interval, "--timeout": *p.timeout} {
		if d <= 0 {
			return fmt.Errorf("%s=%s: write a positive duration", name, d)
		}
	}
	if err := p.serving.check(); err != nil {
		return err
	}
	cfg, err := p.serving.config()
	if err != nil {
		return err
	}
	exporter, err := collector.New(cfg, collector.Options{Lookback: *p.serving.lookback, Interval: *p.serving.interval, Logger: log.NewNopLogger()})
	if err != nil {
		return err
	}
	defer exporter.Close()
	out := terminal(stdout)
	if !*p.watch {
		return p.print(ctx, exporter, out)
	}
	ticker := time.NewTicker(*p.interval)
	defer ticker.Stop()
	for {
		if out.Colour {
			fmt.Fprint(out, "\x1b[H\x1b[2J") // From the top of an empty screen.
		}
		if err := p.print(ctx, exporter, out); err != nil && !errors.Is(err, errIncomplete) {
			return err
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func (p *storesPrinting) print(ctx context.Context, exporter *collector.Exporter, out statuspage.Writer) error {
	bounded, cancel := context.WithTimeout(ctx, *p.timeout)
	defer cancel()
	scrape, err := exporter.Scrape(bounded)
	if err != nil {
		return err
	}
	if ctx.Err() != nil {
		return nil // Interrupted: what there is by then is not all.
	}
	reports := scrape.Reports()
	if *p.output == "json" {
		err = statuspage.WriteJSON(out, statuspage.NewDocument(reports))
	} else {
		err = statuspage.WriteTable(out, reports, time.Now())
	}
	if err != nil {
		return fmt.Errorf("print the stores: %w", err)
	}
	if slices.ContainsFunc(reports, func(r collector.Report) bool { return !r.Up }) {
		return errIncomplete
	}
	return nil
}

// terminal writes to w, in colour if that is a terminal whose user wants it.
func terminal(w io.Writer) statuspage.Writer {
	file, ok := w.(*os.File)
	return statuspage.Writer{Writer: w, Colour: ok && term.IsTerminal(int(file.Fd())) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"}
}

// doctor examines all clusters and prints what it finds. The error counts the checks that failed.
func (s *serving) doctor(ctx context.Context, stdout io.Writer) error {
	if err := s.check(); err != nil {
		return err
	}
	cfg, err := s.config()
	if err != nil {
		return err
	}
	out := terminal(stdout)
	failed := 0
	for _, c := range cfg.Clusters {
		fmt.Fprintf(out, "cluster %q\n", c.Name)
		for _, check := range doctor.Examine(ctx, c, doctor.Options{Lookback: *s.lookback}) {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			statuspage.WriteCheck(out, check)
			if check.Outcome == doctor.Fail {
				failed++
			}
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d of the doctor's checks failed", failed)
	}
	return nil
}

// rules prints the rules that record the gauges.
func (s *serving) rules(stdout io.Writer) error {
	if err := s.check(); err != nil {
		return err
	}
	cfg, err := s.config()
	if err != nil {
		return err
	}
	return rulefile.Write(stdout, cfg, config.Duration(model.Duration(*s.lookback)))
}
