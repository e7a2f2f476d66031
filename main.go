// SPDX-License-Identifier: Apache-2.0

// Command operator_store_exporter asks the Prometheus of a TiKV cluster about its stores, and
// exposes few, normalised gauges of each.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/go-kit/log/level"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	versioncollector "github.com/prometheus/client_golang/prometheus/collectors/version"
	"github.com/prometheus/common/version"
	toolkit "github.com/prometheus/exporter-toolkit/web"
	"github.com/prometheus/exporter-toolkit/web/kingpinflag"
	_ "golang.org/x/crypto/x509roots/fallback" // The image has no certificates of its own.

	"github.com/operator-store/operator_store_exporter/collector"
	"github.com/operator-store/operator_store_exporter/config"
	"github.com/operator-store/operator_store_exporter/internal/logging"
	"github.com/operator-store/operator_store_exporter/internal/reload"
	"github.com/operator-store/operator_store_exporter/internal/web"
)

const program = "operator_store_exporter"

// No request of ours has a body, and no header or answer takes a client longer.
const (
	readTimeout      = 10 * time.Second
	maxRequestBody   = 1 << 10
	maxRequestHeader = 64 << 10
)

// drainTimeout is how long scrapes that are under way may take after SIGTERM.
const drainTimeout = 30 * time.Second

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %s\n", program, err)
		os.Exit(1)
	}
}

// run parses args and does what they say until ctx ends.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	app, commands := commandLine(args, stdout, stderr)
	command, err := app.Parse(args)
	if err != nil {
		return fmt.Errorf("%w, try --help", err)
	}
	return commands[command](ctx)
}

// commandLine returns the command line for args, with what each command does.
func commandLine(args []string, stdout, stderr io.Writer) (*kingpin.Application, map[string]func(context.Context) error) {
	app := kingpin.New(program, "Exposes few, normalised gauges of each TiKV store, asked of the Prometheus that scrapes TiKV.")
	app.UsageWriter(stdout).ErrorWriter(stderr).HelpFlag.Short('h')
	app.Version(version.Print(program))
	s := &serving{}
	s.flags(app)
	serve := app.Command("serve", "Serve the gauges over HTTP (the default).")
	if len(args) == 0 || args[0] != "--completion-bash" { // Else the beginning of a command's name is taken for the default one's argument.
		serve.Default()
	}
	check := app.Command("check-config", "Check a configuration file, and say what is wrong with it and where.")
	checked := check.Arg("file", "The configuration file.").Required().String()
	stores := storesCommand(app, s)
	app.Command("doctor", "Ask upstream, and say what is right, what is not and what to change.")
	app.Command("rules", "Print a Prometheus rule file that records the same gauges in upstream.")
	return app, map[string]func(context.Context) error{
		"serve":        func(ctx context.Context) error { return s.run(ctx, stderr) },
		"check-config": func(context.Context) error { return checkConfig(*checked, stdout) },
		"stores":       func(ctx context.Context) error { return stores.run(ctx, stdout) },
		"doctor":       func(ctx context.Context) error { return s.doctor(ctx, stdout) },
		"rules":        func(context.Context) error { return s.rules(stdout) },
	}
}

// serving is the command that serves, with its flags.
type serving struct {
	configFile      *string
	single          struct{ name, url *string }
	singleSet       [2]bool
	lookback        *time.Duration
	interval        *time.Duration
	telemetryPath   *string
	maxRequests     *int
	enableLifecycle *bool
	timeoutOffset   *time.Duration
	toolkit         *toolkit.FlagConfig
	logging         logging.Flags
}

func (s *serving) flags(app *kingpin.Application) {
	s.configFile = app.Flag("config.file", "Configuration file. Without one, a single cluster is bridged.").PlaceHolder("FILE").String()
	s.single.name = app.Flag("cluster", "Name of the single cluster, without --config.file.").IsSetByUser(&s.singleSet[0]).Default("default").String()
	s.single.url = app.Flag("upstream.url", "URL of the Prometheus that scrapes TiKV, without --config.file.").IsSetByUser(&s.singleSet[1]).Default("http://localhost:9090").String()
	s.lookback = app.Flag("discovery.lookback", "How long a store is known after upstream last saw it.").Default("1h").Duration()
	s.interval = app.Flag("discovery.interval", "How often the stores are found out anew.").Default("30s").Duration()
	s.telemetryPath = app.Flag("web.telemetry-path", "Path under which the metrics are served.").Default("/metrics").String()
	s.maxRequests = app.Flag("web.max-requests", "How many scrapes may be under way at once; more get a 503. 0 for any number.").Default("40").Int()
	s.enableLifecycle = app.Flag("web.enable-lifecycle", "Let POST /-/reload reload the configuration.").Bool()
	s.timeoutOffset = app.Flag("scrape.timeout-offset", "How much earlier than the scraper's timeout a scrape ends.").Default("500ms").Duration()
	s.toolkit = kingpinflag.AddFlags(app, ":9820")
	app.GetFlag("web.config.file").Help("File that turns TLS or authentication on, as exporter-toolkit describes it.").PlaceHolder("FILE")
	s.logging.Add(app)
}

// run serves until ctx ends, then lets the scrapes under way finish.
func (s *serving) run(ctx context.Context, stderr io.Writer) error {
	if err := s.check(); err != nil {
		return err
	}
	logger, slogger := s.logging.Loggers(stderr)
	registry := prometheus.NewRegistry()
	registry.MustRegister(versioncollector.NewCollector(program),
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	reloader, err := reload.New(func(previous *collector.Exporter) (*collector.Exporter, error) {
		cfg, err := s.config()
		if err != nil {
			return nil, err
		}
		return collector.New(cfg, collector.Options{Lookback: *s.lookback, Interval: *s.interval, Logger: logger, Previous: previous})
	}, registry, logger)
	if err != nil {
		return err
	}
	handler, err := web.Handler(web.Options{
		Scrape: reloader.Scrape, Report: reloader.Report, Config: func() fmt.Stringer { return reloader.Config() },
		Reload: reloader.Reload, Process: registry, TelemetryPath: *s.telemetryPath,
		TimeoutOffset: *s.timeoutOffset, MaxRequests: *s.maxRequests, EnableLifecycle: *s.enableLifecycle, Logger: logger,
	})
	if err != nil {
		return err
	}
	level.Info(logger).Log("msg", "Starting "+program, "version", version.Info(), "clusters", fmt.Sprint(reloader.Clusters()))

	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	server := &http.Server{
		Handler: http.MaxBytesHandler(handler, maxRequestBody), MaxHeaderBytes: maxRequestHeader,
		ReadHeaderTimeout: readTimeout, ReadTimeout: readTimeout, IdleTimeout: 5 * time.Minute,
	}
	served := make(chan error, 1)
	go func() { served <- toolkit.ListenAndServe(server, s.toolkit, slogger) }()
	for {
		select {
		case err := <-served:
			return fmt.Errorf("serve: %w", err)
		case <-hangup:
			_ = reloader.Reload() // It tells the log.
		case <-ctx.Done():
			level.Info(logger).Log("msg", "Stopping: scrapes that are under way finish")
			drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
			defer cancel()
			defer reloader.Close()
			return errors.Join(server.Shutdown(drain), unlessClosed(<-served))
		}
	}
}

// check finds the durations that can't be.
func (s *serving) check() error {
	for name, d := range map[string]time.Duration{"--discovery.lookback": *s.lookback, "--discovery.interval": *s.interval} {
		if d <= 0 {
			return fmt.Errorf("%s=%s: write a positive duration", name, d)
		}
	}
	return nil
}

func unlessClosed(err error) error {
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// config reads the configuration as it is now.
func (s *serving) config() (*config.Config, error) {
	switch {
	case *s.configFile == "":
		cfg, err := config.SingleCluster(*s.single.name, *s.single.url)
		if err != nil {
			return nil, fmt.Errorf("--cluster=%s with --upstream.url: %w", *s.single.name, err)
		}
		return cfg, nil
	case s.singleSet != [2]bool{}:
		return nil, errors.New("--cluster and --upstream.url do not go with --config.file: move them into the file")
	default:
		return config.LoadFile(*s.configFile)
	}
}
