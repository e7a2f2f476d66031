// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/operator-store/operator_store_exporter/e2e/stack"
	"github.com/operator-store/operator_store_exporter/internal/gauge"
)

// scenario is what is measured at once: a column of the tables in docs/performance.md.
type scenario struct {
	shape  *shape
	stores int
	delay  time.Duration // Added to each response of upstream.
}

// String returns the heading of the column, such as "1,000 stores, 5 ms delay".
func (s scenario) String() string {
	name := fmt.Sprintf("%d stores", s.stores)
	if s.stores >= 1000 {
		name = fmt.Sprintf("%d,%03d stores", s.stores/1000, s.stores%1000)
	}
	if s.shape != tikv75 {
		name += ", " + s.shape.version
	}
	if s.delay > 0 {
		name += fmt.Sprintf(", %d ms delay", s.delay.Milliseconds())
	}

	return name
}

// plain reports whether the scenario is one of TiKV v7.5 without delay.
func (s scenario) plain() bool { return s.shape == tikv75 && s.delay == 0 }

// goals are the upper bounds of figures. 0 means that there is no goal.
type goals struct {
	handwritten  float64 // A scrape ÷ (a).
	storeByStore float64 // A scrape ÷ (b).
	cpu          float64
	memory       float64 // In MiB.
	samples      float64
}

func (s scenario) goals() goals {
	switch {
	case s.delay > 0:
		return goals{storeByStore: 0.02}
	case s.shape == tikv85 && s.stores == 300:
		return goals{samples: 0.45}
	case s.plain() && s.stores == 300:
		return goals{handwritten: 0.40, storeByStore: 0.15, cpu: 0.20, memory: 40, samples: 0.45}
	case s.plain() && s.stores == 3000:
		return goals{memory: 120}
	}

	return goals{}
}

// measurement is a scenario with its servers.
type measurement struct {
	*bench
	scenario
	dir      string // Data of upstream and configuration files.
	upstream *stack.Process
	url      string // Upstream, through the proxy that delays responses if there is one.
	exporter *stack.Process
}

// measure measures a scenario and returns the duration of a scrape.
func (b *bench) measure(ctx context.Context, s scenario) (time.Duration, error) {
	fmt.Printf("\n%s: generating data\n", s)
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return 0, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if err := writeBlock(ctx, filepath.Join(dir, "data"), s.shape, s.stores, b.ahead); err != nil {
		return 0, err
	}

	m := &measurement{bench: b, scenario: s, dir: dir}
	if m.upstream, err = b.startPrometheus(ctx, dir, ""); err != nil {
		return 0, err
	}
	defer func() { _ = m.upstream.Kill() }()
	m.url = m.upstream.URL
	if s.delay > 0 {
		proxy, err := startDelay(m.upstream.URL, s.delay)
		if err != nil {
			return 0, err
		}
		defer proxy.Stop()
		m.url = "http://" + proxy.Listen
	}
	if m.exporter, err = b.startExporter(ctx, dir, m.url, ""); err != nil {
		return 0, err
	}
	defer func() { _ = m.exporter.Kill() }()

	return m.measureAll(ctx)
}

// measureAll measures everything that applies to the scenario and returns the duration of a scrape.
func (m *measurement) measureAll(ctx context.Context) (time.Duration, error) {
	if err := m.warmUp(ctx, m.exporter); err != nil {
		return 0, err
	}
	scrape, err := m.measureDurations(ctx)
	if err != nil || m.delay > 0 {
		return scrape, err
	}

	if err := m.measureUsage(ctx); err != nil {
		return 0, err
	}
	if err := m.measureQueries(ctx); err != nil {
		return 0, err
	}
	if !m.plain() {
		return scrape, nil
	}

	if m.stores == 30 {
		if err := m.measureStart(ctx); err != nil {
			return 0, err
		}
	}

	return scrape, m.measureRules(ctx, scrape)
}

// addFigure adds a figure of the scenario.
func (m *measurement) addFigure(f figure) {
	f.name = m.String() + ": " + f.name
	m.bench.addFigure(f)
}

// addText adds a row of the scenario whose value is a text, such as a duration.
func (m *measurement) addText(name, value string) {
	m.bench.addText(m.String()+": "+name, value)
}

// scrape scrapes the exporter once and checks that every store has a quantile.
func (m *measurement) scrape(ctx context.Context, exporter *stack.Process) error {
	body, err := get(ctx, exporter.URL+"/metrics")
	if err != nil {
		return err
	}

	if n := bytes.Count(body, []byte("\n"+gauge.LatencyP99+"{")); n != m.stores {
		return fmt.Errorf("%d stores have a p99, want %d", n, m.stores)
	}

	return nil
}

// warmUp scrapes until the exporter has learned its bucket windows and batches, and upstream's
// caches are filled.
func (m *measurement) warmUp(ctx context.Context, exporter *stack.Process) error {
	for range 5 {
		if err := m.scrape(ctx, exporter); err != nil {
			return err
		}
	}
	return nil
}

// measureDurations compares a scrape with the clients that query upstream themselves. It returns
// the duration of a scrape.
func (m *measurement) measureDurations(ctx context.Context) (time.Duration, error) {
	goals := m.goals()

	clients := []struct {
		name string
		goal float64
		run  func() error
	}{
		{
			name: "(a) handwritten queries, all in parallel",
			goal: goals.handwritten,
			run:  func() error { return runHandwritten(ctx, m.url, m.stores) },
		},
		{
			name: "(b) five queries per store, one after another",
			goal: goals.storeByStore,
			run:  func() error { return runStoreByStore(ctx, m.url, m.stores, 1) },
		},
		{
			name: "(c) five queries per store, 16 in parallel",
			run:  func() error { return runStoreByStore(ctx, m.url, m.stores, 16) },
		},
	}
	tasks := []task{{name: "scrape", run: func() error { return m.scrape(ctx, m.exporter) }}}
	for _, c := range clients {
		tasks = append(tasks, task{name: c.name, run: c.run})
	}

	medians, err := measureInTurn(m.rounds, tasks)
	if err != nil {
		return 0, err
	}

	for i, t := range tasks {
		fmt.Printf("%s: %s\n", t.name, medians[i].Round(100*time.Microsecond))
	}
	scrape := medians[0]
	m.addText("duration of a scrape", scrape.Round(time.Millisecond).String())

	for i, c := range clients {
		m.addFigure(figure{
			name:  "scrape ÷ " + c.name,
			value: ratio(scrape, medians[i+1]),
			goal:  c.goal,
			note: fmt.Sprintf("%s ÷ %s, %d rounds",
				scrape.Round(time.Millisecond), medians[i+1].Round(time.Millisecond), m.rounds),
		})
	}

	return scrape, nil
}

// task is something whose duration is measured.
type task struct {
	name string
	run  func() error
}

// measureInTurn runs all tasks one after another, once per round, and returns the median duration
// of each.
func measureInTurn(rounds int, tasks []task) ([]time.Duration, error) {
	durations := make([][]time.Duration, len(tasks))
	for range rounds {
		for i, t := range tasks {
			start := time.Now()
			if err := t.run(); err != nil {
				return nil, fmt.Errorf("%s: %w", t.name, err)
			}
			durations[i] = append(durations[i], time.Since(start))
		}
	}

	medians := make([]time.Duration, len(tasks))
	for i, d := range durations {
		slices.Sort(d)
		medians[i] = d[len(d)/2]
	}

	return medians, nil
}

// measureUsage compares the CPU usage of the exporter and of upstream, and reads the exporter's
// peak memory.
func (m *measurement) measureUsage(ctx context.Context) error {
	const scrapes = 5
	exporterBefore, upstreamBefore := cpuSeconds(m.exporter.PID()), cpuSeconds(m.upstream.PID())
	for range scrapes {
		if err := m.scrape(ctx, m.exporter); err != nil {
			return err
		}
	}
	exporter := cpuSeconds(m.exporter.PID()) - exporterBefore
	upstream := cpuSeconds(m.upstream.PID()) - upstreamBefore

	m.addFigure(figure{
		name:  "exporter CPU ÷ upstream CPU per scrape",
		value: exporter / upstream,
		goal:  m.goals().cpu,
		note:  fmt.Sprintf("%.0f ms ÷ %.0f ms per scrape", 1000*exporter/scrapes, 1000*upstream/scrapes),
	})
	m.addFigure(figure{
		name:  "peak resident memory, MiB",
		value: peakMemory(m.exporter.PID()),
		goal:  m.goals().memory,
	})

	return nil
}

// measureQueries compares the samples that upstream reads for one scrape, after the exporter has
// learned its bucket windows, with the samples that it reads for the handwritten queries, which
// read each sample once.
func (m *measurement) measureQueries(ctx context.Context) error {
	recorder, err := newQueryRecorder(ctx, m.upstream.URL)
	if err != nil {
		return err
	}
	defer recorder.close()
	exporter, err := m.startExporter(ctx, m.dir, recorder.url, "")
	if err != nil {
		return err
	}
	defer func() { _ = exporter.Kill() }()

	if err := m.warmUp(ctx, exporter); err != nil {
		return err
	}
	recorder.reset()
	if err := m.scrape(ctx, exporter); err != nil {
		return err
	}
	queries, size := recorder.recorded()

	at := time.Now()
	read, err := samplesRead(ctx, m.upstream.URL, queries, at)
	if err != nil {
		return err
	}
	full, err := samplesRead(ctx, m.upstream.URL, handwritten, at)
	if err != nil {
		return err
	}

	m.addFigure(figure{
		name:  "samples read ÷ one full pass",
		value: read / full,
		goal:  m.goals().samples,
		note:  fmt.Sprintf("%.0f ÷ %.0f", read, full),
	})
	m.addFigure(figure{name: "size of all responses, kB", value: float64(size) / 1000})
	m.addFigure(figure{name: "queries", value: float64(len(queries))})

	return nil
}

// measureStart compares the time from the start of the process to the first complete scrape with a
// scrape of all buckets by a process that has been running.
func (m *measurement) measureStart(ctx context.Context) error {
	warm, err := m.startExporter(ctx, m.dir, m.upstream.URL, "  bucket_windows: false\n")
	if err != nil {
		return err
	}
	defer func() { _ = warm.Kill() }()
	if err := m.scrape(ctx, warm); err != nil {
		return err
	}

	medians, err := measureInTurn(m.rounds, []task{
		{name: "first scrape", run: func() error { return m.startAndScrape(ctx) }},
		{name: "warm scrape", run: func() error { return m.scrape(ctx, warm) }},
	})
	if err != nil {
		return err
	}

	m.bench.addFigure(figure{
		name: fmt.Sprintf("process start to first complete scrape ÷ a warm scrape of all buckets, %s",
			m.scenario),
		value: ratio(medians[0], medians[1]),
		goal:  2,
		note: fmt.Sprintf("%s ÷ %s, including the start of the process",
			medians[0].Round(time.Millisecond), medians[1].Round(time.Millisecond)),
	})

	return nil
}

// startAndScrape starts an exporter and scrapes it once.
func (m *measurement) startAndScrape(ctx context.Context) error {
	exporter, err := m.startExporter(ctx, m.dir, m.upstream.URL, "")
	if err != nil {
		return err
	}
	defer func() { _ = exporter.Kill() }()

	return m.scrape(ctx, exporter)
}
