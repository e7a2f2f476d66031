// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logfmt/logfmt"

	"github.com/operator-store/operator_store_exporter/e2e/stack"
	"github.com/operator-store/operator_store_exporter/e2e/truth"
)

// Parts of messages of the exporter that several tests look for. Most tests only look for what
// upstream returned.
const (
	timeoutMessage    = "no response in time"
	malformedMessage  = "^response from http" // The cause, if a response could not be decoded.
	incompleteMessage = "some values could not be queried"
	shutdownMessage   = "Stopping, waiting for running scrapes to finish"
	urlHint           = "path prefix" // If an upstream does not respond like a Prometheus.
)

// The messages of the log lines about problems.
const (
	queryFailed     = "query failed"
	responseDropped = "response dropped"
	storesLeftOut   = "stores left out"
	noGauges        = "store has no gauges"
)

// logTimeout is how long a log line may take.
const logTimeout = 10 * time.Second

// logLines keeps the lines written to it.
type logLines struct {
	mu      sync.Mutex
	lines   []string
	partial []byte
}

// Write implements io.Writer.
func (l *logLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()

	l.partial = append(l.partial, p...)
	for {
		line, rest, found := bytes.Cut(l.partial, []byte("\n"))
		if !found {
			return len(p), nil
		}
		l.lines = append(l.lines, string(line))
		l.partial = rest
	}
}

// matching returns the lines that contain all of words.
func (l *logLines) matching(words ...string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()

	var lines []string
	for _, line := range l.lines {
		if containsAll(line, words) {
			lines = append(lines, line)
		}
	}
	return lines
}

// waitFor waits until the log has a line with a message.
func (l *logLines) waitFor(t *testing.T, msg string) {
	t.Helper()

	ctx, cancel := context.WithTimeout(t.Context(), logTimeout)
	defer cancel()
	err := stack.Until(ctx, fmt.Sprintf("a log line with msg=%q", msg), func(context.Context) (bool, error) {
		hasMessage := func(line logLine) bool { return line["msg"] == msg }
		return slices.ContainsFunc(l.parse(t), hasMessage), nil
	})
	if err != nil {
		t.Fatalf("%v; the log is\n%s", err, strings.Join(l.matching(), "\n"))
	}
}

// parse returns the structured lines.
func (l *logLines) parse(t *testing.T) []logLine {
	t.Helper()

	var lines []logLine
	for _, text := range l.matching() {
		if !strings.HasPrefix(text, "level=") {
			continue // It is of the Go runtime or the race detector.
		}

		line := logLine{}
		decoder := logfmt.NewDecoder(strings.NewReader(text))
		for decoder.ScanRecord() {
			for decoder.ScanKeyval() {
				line[string(decoder.Key())] = string(decoder.Value())
			}
		}
		if err := decoder.Err(); err != nil {
			t.Errorf("%s: %v", text, err)
		}
		lines = append(lines, line)
	}

	return lines
}

// warnings returns the lines with the level warn.
func (l *logLines) warnings(t *testing.T) []logLine {
	t.Helper()
	isNoWarning := func(line logLine) bool { return line["level"] != "warn" }
	return slices.DeleteFunc(l.parse(t), isNoWarning)
}

// waitForWarnings waits until the log has a warning for which is returns true: the exporter logs a
// problem before it responds, but the test may read the response first. It returns all warnings,
// with or without the one that it waited for.
func (l *logLines) waitForWarnings(t *testing.T, is func(logLine) bool) []logLine {
	t.Helper()

	ctx, cancel := context.WithTimeout(t.Context(), logTimeout)
	defer cancel()
	var lines []logLine
	_ = stack.Until(ctx, "a warning", func(context.Context) (bool, error) {
		lines = l.warnings(t)
		return slices.ContainsFunc(lines, is), nil
	})
	return lines
}

// requireOnlyWarning fails the test unless the log has one warning, which is as wanted.
func (l *logLines) requireOnlyWarning(t *testing.T, want warning) {
	t.Helper()

	lines := l.waitForWarnings(t, func(logLine) bool { return true })
	if len(lines) != 1 {
		t.Errorf("the log has %d warnings, want one:\n%s", len(lines), joinLines(lines))
	}

	for _, line := range lines {
		if differences := want.differences(line); len(differences) > 0 {
			t.Errorf("the warning\n%s\nis not as wanted:\n%s", line, strings.Join(differences, "\n"))
		}
	}
}

// requireWarning fails the test unless the log has exactly one warning as wanted, next to any
// others.
func (l *logLines) requireWarning(t *testing.T, want warning) {
	t.Helper()

	lines := l.waitForWarnings(t, want.describes)
	described := 0
	for _, line := range lines {
		if want.describes(line) {
			described++
		}
	}
	if described != 1 {
		t.Errorf("%d warnings are like %+v, want one; the warnings are\n%s", described, want, joinLines(lines))
	}
}

// logLine is a structured line of the log, by key.
type logLine map[string]string

// String returns the line without the keys that a test cannot know.
func (l logLine) String() string {
	var fields []string
	for _, key := range slices.Sorted(maps.Keys(l)) {
		if key != "time" && key != "caller" {
			fields = append(fields, fmt.Sprintf("%s=%q", key, l[key]))
		}
	}
	return strings.Join(fields, " ")
}

func joinLines(lines []logLine) string {
	var texts []string
	for _, line := range lines {
		texts = append(texts, line.String())
	}
	return strings.Join(texts, "\n")
}

// warning describes a log line about a problem. Only the fields that are set are compared.
type warning struct {
	msg     string
	cluster string
	query   string
	reason  string
	store   string
	target  string
	err     string // A pattern.
	hint    string // A pattern.
}

// differences returns how a line differs from the warning.
func (w warning) differences(line logLine) []string {
	var differences []string
	for key, want := range map[string]string{
		"msg": w.msg, "cluster": w.cluster, "query": w.query, "reason": w.reason, "store": w.store, "target": w.target,
	} {
		if want != "" && line[key] != want {
			differences = append(differences, fmt.Sprintf("%s is %q, want %q", key, line[key], want))
		}
	}

	for key, pattern := range map[string]string{"err": w.err, "hint": w.hint} {
		if !regexp.MustCompile(pattern).MatchString(line[key]) {
			differences = append(differences, fmt.Sprintf("%s is %q, want it to match %s", key, line[key], pattern))
		}
	}
	slices.Sort(differences)
	return differences
}

func (w warning) describes(line logLine) bool { return len(w.differences(line)) == 0 }

// scrapeQueries is the value of the key query if all queries of a scrape failed alike.
var scrapeQueries = strings.Join(queriesOfScrape(), ",")

func queriesOfScrape() []string {
	var names []string
	for _, q := range truth.Queries {
		if !q.Background && !q.Optional {
			names = append(names, q.Name)
		}
	}
	return names
}
