// SPDX-License-Identifier: Apache-2.0

package logging_test

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/go-kit/log"
	"github.com/go-kit/log/level"

	"github.com/operator-store/operator_store_exporter/internal/logging"
)

// newLoggers returns the loggers for a command line, and what they write.
func newLoggers(t *testing.T, args ...string) (log.Logger, *slog.Logger, *bytes.Buffer) {
	t.Helper()
	var flags logging.Flags
	app := kingpin.New("test", "")
	flags.Add(app)
	if _, err := app.Parse(args); err != nil {
		t.Fatal(err)
	}

	out := &bytes.Buffer{}
	logger, slogger := flags.Loggers(out)
	return logger, slogger, out
}

// record is one log line by key.
type record map[string]string

// parsers parse one log line, by format.
var parsers = map[string]func(t *testing.T, line string) record{
	"logfmt": parseLogfmt,
	"json":   parseJSON,
}

// pair matches one pair of a logfmt line. The value may be quoted.
var pair = regexp.MustCompile(`([^\s=]+)=("(?:[^"\\]|\\.)*"|\S*)`)

func parseLogfmt(t *testing.T, line string) record {
	t.Helper()

	r := record{}
	for _, match := range pair.FindAllStringSubmatch(line, -1) {
		key, value := match[1], match[2]
		if unquoted, err := strconv.Unquote(value); err == nil {
			value = unquoted
		}
		r[key] = value
	}
	if rest := strings.TrimSpace(pair.ReplaceAllString(line, "")); rest != "" {
		t.Fatalf("the line %q has %q outside of pairs", line, rest)
	}
	return r
}

func parseJSON(t *testing.T, line string) record {
	t.Helper()
	r := record{}
	if err := json.Unmarshal([]byte(line), &r); err != nil {
		t.Fatalf("%v in the line %q", err, line)
	}
	return r
}

func lines(out *bytes.Buffer) []string {
	return strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
}

func TestLevels(t *testing.T) {
	for _, tc := range []struct {
		name string
		args []string
		want []string
	}{
		{name: "default", want: []string{"info", "warn", "error"}},
		{name: "debug", args: []string{"--log.level=debug"}, want: []string{"debug", "info", "warn", "error"}},
		{name: "info", args: []string{"--log.level=info"}, want: []string{"info", "warn", "error"}},
		{name: "warn", args: []string{"--log.level=warn"}, want: []string{"warn", "error"}},
		{name: "error", args: []string{"--log.level=error"}, want: []string{"error"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			logger, slogger, out := newLoggers(t, tc.args...)

			for _, logAt := range []func(log.Logger) log.Logger{level.Debug, level.Info, level.Warn, level.Error} {
				logAt(logger).Log("msg", "go-kit")
			}

			for _, logAt := range []func(string, ...any){slogger.Debug, slogger.Info, slogger.Warn, slogger.Error} {
				logAt("slog")
			}

			written := map[string][]string{}
			for _, line := range lines(out) {
				r := parseLogfmt(t, line)
				written[r["msg"]] = append(written[r["msg"]], strings.ToLower(r["level"]))
			}

			for _, source := range []string{"go-kit", "slog"} {
				if !slices.Equal(written[source], tc.want) {
					t.Errorf("%s writes the levels %q, want %q", source, written[source], tc.want)
				}
			}
		})
	}
}

func TestFormats(t *testing.T) {
	for _, tc := range []struct {
		name   string
		args   []string
		format string
	}{
		{name: "default", format: "logfmt"},
		{name: "logfmt", args: []string{"--log.format=logfmt"}, format: "logfmt"},
		{name: "json", args: []string{"--log.format=json"}, format: "json"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			logger, slogger, out := newLoggers(t, tc.args...)
			level.Info(logger).Log("msg", "query failed", "cluster", `a "b"`)
			slogger.Info("query failed", "cluster", `a "b"`)

			written := lines(out)
			if len(written) != 2 {
				t.Fatalf("got %d lines, want 2:\n%s", len(written), out)
			}

			for i, source := range []string{"go-kit", "slog"} {
				checkRecord(t, source, parsers[tc.format](t, written[i]))
			}
		})
	}
}

// checkRecord checks the keys and values of a line that TestFormats writes.
func checkRecord(t *testing.T, source string, r record) {
	t.Helper()
	keys := slices.Sorted(maps.Keys(r))
	if want := []string{"caller", "cluster", "level", "msg", "time"}; !slices.Equal(keys, want) {
		t.Errorf("%s: got the keys %q, want %q", source, keys, want)
	}
	if r["msg"] != "query failed" || r["cluster"] != `a "b"` || !strings.EqualFold(r["level"], "info") {
		t.Errorf("%s: got %v", source, r)
	}
	if !strings.HasPrefix(r["caller"], "logging_test.go:") {
		t.Errorf("%s: the caller is %q, want a line of logging_test.go", source, r["caller"])
	}

	at, err := time.Parse(time.RFC3339Nano, r["time"])
	if err != nil || time.Since(at).Abs() > time.Minute {
		t.Errorf("%s: the time is %q, want now (error %v)", source, r["time"], err)
	}
}

func TestSlogAttributes(t *testing.T) {
	_, slogger, out := newLoggers(t)
	slogger.With("address", ":9820").WithGroup("tls").Warn("listening", "enabled", true)

	r := parseLogfmt(t, lines(out)[0])
	if r["msg"] != "listening" || r["address"] != ":9820" || r["tls.enabled"] != "true" {
		t.Errorf("got %v, want the message, the attribute and the grouped attribute", r)
	}
}

func TestConcurrentWritesAreWholeLines(t *testing.T) {
	const goroutines, count = 8, 50
	logger, slogger, out := newLoggers(t)

	var all sync.WaitGroup
	for range goroutines {
		all.Go(func() {
			for range count {
				level.Info(logger).Log("msg", "whole")
				slogger.Info("whole")
			}
		})
	}
	all.Wait()

	written := lines(out)
	if len(written) != 2*goroutines*count {
		t.Errorf("got %d lines, want %d", len(written), 2*goroutines*count)
	}

	for _, line := range written {
		if parseLogfmt(t, line)["msg"] != "whole" {
			t.Fatalf("got the line %q, want one message", line)
		}
	}
}

func TestInvalidFlags(t *testing.T) {
	for _, arg := range []string{"--log.level=loud", "--log.format=xml"} {
		t.Run(arg, func(t *testing.T) {
			var flags logging.Flags
			app := kingpin.New("test", "")
			flags.Add(app)

			_, value, _ := strings.Cut(arg, "=")
			if _, err := app.Parse([]string{arg}); err == nil || !strings.Contains(err.Error(), value) {
				t.Errorf("got the error %v, want one that contains %q", err, value)
			}
		})
	}
}
