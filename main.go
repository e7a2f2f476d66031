// SPDX-License-Identifier: Apache-2.0

// Command operator_store_exporter exports a small set of gauges for each TiKV store, queried from
// the Prometheus that scrapes TiKV.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/go-kit/log"
	"github.com/go-kit/log/level"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	versioncollector "github.com/prometheus/client_golang/prometheus/collectors/version"
	"github.com/prometheus/common/version"
	toolkit "github.com/prometheus/exporter-toolkit/web"
	"github.com/prometheus/exporter-toolkit/web/kingpinflag"
	_ "golang.org/x/crypto/x509roots/fallback" // The container image has no certificates.

	"github.com/operator-store/operator_store_exporter/collector"
	"github.com/operator-store/operator_store_exporter/internal/cli"
	"github.com/operator-store/operator_store_exporter/internal/logging"
	"github.com/operator-store/operator_store_exporter/internal/reload"
	"github.com/operator-store/operator_store_exporter/internal/web"
)

const program = "operator_store_exporter"

// Limits of the HTTP server. No endpoint reads a body.
const (
	readTimeout      = 10 * time.Second
	idleTimeout      = 5 * time.Minute
	maxRequestBody   = 1 << 10
	maxRequestHeader = 64 << 10
)

// shutdownTimeout is how long running scrapes may take after SIGTERM.
const shutdownTimeout = 30 * time.Second

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %s\n", program, err)
		os.Exit(1)
	}
}

// run parses args and runs the command that they name until it is done or ctx ends.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	app, commands := commandLine(args, stdout, stderr)
	command, err := app.Parse(args)
	if err != nil {
		return fmt.Errorf("%w, try --help", err)
	}

	return commands[command](ctx)
}

// commandLine returns the command line for args, and what runs each command.
func commandLine(
	args []string, stdout, stderr io.Writer,
) (*kingpin.Application, map[string]func(context.Context) error) {
	app := kingpin.New(program,
		"Exports a small set of gauges for each TiKV store, queried from the Prometheus that scrapes TiKV.")
	app.UsageWriter(stdout).ErrorWriter(stderr).HelpFlag.Short('h')
	app.Version(version.Print(program))

	server := addServer(app)
	serve := app.Command("serve", "Serve the gauges over HTTP (default).")
	// With a default command, shell completion takes the beginning of a command's name for an
	// argument.
	if len(args) == 0 || args[0] != "--completion-bash" {
		serve.Default()
	}
	checkConfig := cli.AddCheckConfig(app)
	stores := cli.AddStores(app, server.config)
	doctor := cli.AddDoctor(app, server.config)
	rules := cli.AddRules(app, server.config)

	return app, map[string]func(context.Context) error{
		"serve":        func(ctx context.Context) error { return server.run(ctx, stderr) },
		"check-config": func(context.Context) error { return checkConfig.Run(stdout) },
		"stores":       func(ctx context.Context) error { return stores.Run(ctx, stdout) },
		"doctor":       func(ctx context.Context) error { return doctor.Run(ctx, stdout) },
		"rules":        func(ctx context.Context) error { return rules.Run(ctx, stdout) },
	}
}

// server is the command serve. Its flags belong to the application, so that they are accepted
// without the command's name.
type server struct {
	config          *cli.ConfigFlags
	timeoutOffset   *time.Duration
	telemetryPath   *string
	maxRequests     *int
	enableLifecycle *bool
	toolkit         *toolkit.FlagConfig
	logging         logging.Flags
}

func addServer(app *kingpin.Application) *server {
	s := &server{config: cli.AddConfigFlags(app)}
	s.timeoutOffset = app.Flag("scrape.timeout-offset", "Offset to subtract from the scraper's timeout.").
		Default("500ms").Duration()
	s.telemetryPath = app.Flag("web.telemetry-path", "Path under which to expose metrics.").
		Default("/metrics").String()
	s.maxRequests = app.Flag("web.max-requests",
		"Maximum number of parallel scrapes; further ones are answered with a 503. 0 means no limit.").
		Default("40").Int()
	s.enableLifecycle = app.Flag("web.enable-lifecycle", "Enable reloading the configuration with POST /-/reload.").
		Bool()
	s.toolkit = kingpinflag.AddFlags(app, ":9820")
	app.GetFlag("web.config.file").PlaceHolder("FILE").
		Help("Configuration file that enables TLS or authentication; see the exporter-toolkit documentation.")
	s.logging.Add(app)

	return s
}

// run serves until ctx ends, then lets running scrapes finish.
func (s *server) run(ctx context.Context, stderr io.Writer) error {
	logger, slogger := s.logging.Loggers(stderr)
	process := newProcessRegistry()
	reloader, err := s.newReloader(process, logger)
	if err != nil {
		return err
	}
	handler, err := web.Handler(web.Options{
		Acquire:         reloader.Acquire,
		Reload:          reloader.Reload,
		Process:         process,
		TelemetryPath:   *s.telemetryPath,
		TimeoutOffset:   *s.timeoutOffset,
		MaxRequests:     *s.maxRequests,
		EnableLifecycle: *s.enableLifecycle,
		Logger:          logger,
	})
	if err != nil {
		return err
	}

	exporter, release := reloader.Acquire()
	_ = level.Info(logger).Log("msg", "Starting "+program,
		"version", version.Info(), "clusters", fmt.Sprint(exporter.Clusters()))
	release()

	return s.serve(ctx, handler, reloader, logger, slogger)
}

// newProcessRegistry returns a registry with the metrics of the process.
func newProcessRegistry() *prometheus.Registry {
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		versioncollector.NewCollector(program),
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)

	return registry
}

func (s *server) newReloader(registry *prometheus.Registry, logger log.Logger) (*reload.Reloader, error) {
	build := func(previous *collector.Exporter) (*collector.Exporter, error) {
		return s.config.NewExporter(collector.Options{Logger: logger, Previous: previous})
	}

	return reload.New(build, registry, logger)
}

// serve serves HTTP, and reloads the configuration on SIGHUP, until ctx ends.
func (s *server) serve(
	ctx context.Context, handler http.Handler, reloader *reload.Reloader, logger log.Logger, slogger *slog.Logger,
) error {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)

	httpServer := &http.Server{
		Handler:           http.MaxBytesHandler(handler, maxRequestBody),
		MaxHeaderBytes:    maxRequestHeader,
		ReadHeaderTimeout: readTimeout,
		ReadTimeout:       readTimeout,
		IdleTimeout:       idleTimeout,
	}
	served := make(chan error, 1)
	go func() { served <- toolkit.ListenAndServe(httpServer, s.toolkit, slogger) }()

	for {
		select {
		case err := <-served:
			return fmt.Errorf("serve: %w", err)
		case <-hangup:
			_ = reloader.Reload() // It logs the outcome.
		case <-ctx.Done():
			_ = level.Info(logger).Log("msg", "Stopping, waiting for running scrapes to finish")
			shutdownCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
			defer cancel()
			defer reloader.Close()

			return errors.Join(httpServer.Shutdown(shutdownCtx), ignoreServerClosed(<-served))
		}
	}
}

func ignoreServerClosed(err error) error {
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}

	return err
}
