// SPDX-License-Identifier: Apache-2.0

// Command bench compares a scrape of the exporter with alternative ways to get the same values.
//
// It generates data, starts a real Prometheus with it, and measures everything in turn on loopback.
// Each ratio is one of medians of the same run. docs/performance.md describes the alternatives and
// has the figures of one run.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/rs/zerolog"
)

// bench holds the flags and the table of figures.
type bench struct {
	prometheusPath, exporterPath, vmalertPath string
	rounds                                    int
	ahead                                     time.Duration
	large                                     bool

	rows   []string
	missed []string // The names of the figures that are above their goal.
}

func main() {
	b := &bench{}
	sizes := flag.String("stores", "3,30,300,1000,3000", "Numbers of stores to measure, separated by commas.")
	flag.StringVar(&b.prometheusPath, "prometheus", "../.bin/prometheus", "Path of the Prometheus binary.")
	flag.StringVar(&b.exporterPath, "exporter", "../operator_store_exporter", "Path of the exporter's binary.")
	flag.StringVar(&b.vmalertPath, "vmalert", "../.bin/vmalert", "Path of the vmalert binary.")
	flag.IntVar(&b.rounds, "rounds", 7, "Number of measurements of each alternative.")
	flag.DurationVar(&b.ahead, "ahead", 30*time.Minute,
		"How far the generated data reaches into the future. Measuring one number of stores must not take longer.")
	flag.BoolVar(&b.large, "large", true, "Also measure 300 stores of TiKV v8.5.")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := b.run(ctx, strings.Split(*sizes, ","))
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// run measures all scenarios and prints the table.
func (b *bench) run(ctx context.Context, sizes []string) error {
	zerolog.SetGlobalLevel(zerolog.Disabled) // toxiproxy's logger.
	if _, err := os.Stat(b.vmalertPath); err != nil {
		fmt.Println("vmalert is not measured:", err)
		b.vmalertPath = ""
	}
	scenarios, err := b.scenarios(sizes)
	if err != nil {
		return err
	}

	scrapes := map[int]time.Duration{} // Of TiKV v7.5 without delay, by number of stores.
	for _, s := range scenarios {
		duration, err := b.measure(ctx, s)
		if err != nil {
			return fmt.Errorf("%s: %w", s, err)
		}
		if s.plain() {
			scrapes[s.stores] = duration
		}
	}
	if scrapes[300] > 0 && scrapes[3000] > 0 {
		b.addFigure(figure{
			name:  "scrape at 3,000 stores ÷ scrape at 300 stores",
			value: ratio(scrapes[3000], scrapes[300]),
			goal:  10,
		})
	}

	fmt.Printf("\n| figure | measured | goal | |\n|---|---|---|---|\n%s\n", strings.Join(b.rows, "\n"))
	if len(b.missed) > 0 {
		return fmt.Errorf("goals missed: %s", strings.Join(b.missed, "; "))
	}

	return nil
}

// scenarios returns the scenarios for the numbers of stores in sizes.
func (b *bench) scenarios(sizes []string) ([]scenario, error) {
	var all []scenario
	for _, size := range sizes {
		stores, err := strconv.Atoi(size)
		if err != nil {
			return nil, err
		}

		all = append(all, scenario{shape: tikv75, stores: stores})
		if stores == 300 && b.large {
			all = append(all, scenario{shape: tikv85, stores: stores})
		}
		if stores == 1000 {
			all = append(all, scenario{shape: tikv75, stores: stores, delay: 5 * time.Millisecond})
		}
	}

	return all, nil
}

// figure is a row of the table.
type figure struct {
	name  string
	value float64
	goal  float64 // The upper bound, or 0 if there is no goal.
	note  string
}

// addFigure adds a row to the table and prints it.
func (b *bench) addFigure(f figure) {
	goal := ""
	if f.goal > 0 {
		goal = fmt.Sprintf("%.3g", f.goal)
		if f.value > f.goal {
			goal += ", **missed**"
			b.missed = append(b.missed, f.name)
		}
	}

	b.addRow(f.name, fmt.Sprintf("%.3g", f.value), goal, f.note)
}

// addText adds a row whose value is a text, such as a duration, and prints it.
func (b *bench) addText(name, value string) { b.addRow(name, value, "", "") }

func (b *bench) addRow(name, value, goal, note string) {
	row := fmt.Sprintf("| %s | %s | %s | %s |", name, value, goal, note)
	b.rows = append(b.rows, row)
	fmt.Println(row)
}

func ratio(a, b time.Duration) float64 { return a.Seconds() / b.Seconds() }
