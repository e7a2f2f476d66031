// SPDX-License-Identifier: Apache-2.0

// Package logging builds the loggers that the command-line flags configure.
package logging

import (
	"io"
	"log/slog"

	"github.com/alecthomas/kingpin/v2"
	"github.com/go-kit/log"
	"github.com/go-kit/log/level"
	sloggokit "github.com/tjhop/slog-gokit"
)

// Flags are the flags --log.level and --log.format. Add registers them.
type Flags struct {
	level  *string
	format *string
}

// Add registers the flags with app, which sets them when it parses the command line.
func (f *Flags) Add(app *kingpin.Application) {
	f.level = app.Flag("log.level", "Only log messages of this severity or above: debug, info, warn or error.").
		Default("info").Enum("debug", "info", "warn", "error")
	f.format = app.Flag("log.format", "Format of log messages: logfmt or json.").
		Default("logfmt").Enum("logfmt", "json")
}

// Loggers returns a go-kit logger and, for libraries that require slog, an equivalent slog logger.
// Both write to w. They are safe for concurrent use, even if w is not. The command line must be
// parsed before.
func (f *Flags) Loggers(w io.Writer) (log.Logger, *slog.Logger) {
	w = log.NewSyncWriter(w)
	base := log.NewLogfmtLogger(w)
	if *f.format == "json" {
		base = log.NewJSONLogger(w)
	}
	base = level.NewFilter(base, level.Allow(level.ParseDefault(*f.level, level.InfoValue())))

	// The bridge passes every level on, because base filters. It adds time and caller itself.
	bridge := slog.New(sloggokit.NewGoKitHandler(base, slog.LevelDebug))
	return log.With(base, "time", log.DefaultTimestampUTC, "caller", log.DefaultCaller), bridge
}
