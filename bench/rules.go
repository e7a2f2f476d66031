// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/operator-store/operator_store_exporter/e2e/stack"
	"github.com/operator-store/operator_store_exporter/internal/gauge"
)

// recordedName returns the name under which the recording rules record a gauge.
func recordedName(g gauge.Gauge) string {
	return "recorded_" + strings.TrimPrefix(g.Name, "operator_store_")
}

// ruleFile returns a rule file that records all gauges for all targets.
func ruleFile() string {
	b := &strings.Builder{}
	b.WriteString("groups:\n- name: gauges\n  interval: 15s\n  rules:\n")

	for _, g := range catalog.Gauges() {
		fmt.Fprintf(b, "  - {record: %s, expr: '%s'}\n", recordedName(g), catalog.Rule(g, time.Minute))
	}

	return b.String()
}

// measureRules compares a scrape with recording rules of the same gauges. It stops upstream.
func (m *measurement) measureRules(ctx context.Context, scrape time.Duration) error {
	rules := filepath.Join(m.dir, "rules.yml")
	if err := os.WriteFile(rules, []byte(ruleFile()), 0o600); err != nil {
		return err
	}
	federation, err := federate(ctx, m.upstream.URL)
	if err != nil {
		return err
	}

	if m.vmalertPath != "" {
		evaluation, err := m.evaluateInVMAlert(ctx, rules)
		if err != nil {
			return err
		}
		m.addFigure(figure{
			name:  "scrape ÷ (e) recording rules in vmalert",
			value: ratio(scrape, evaluation),
			note:  fmt.Sprintf("%s ÷ %s", scrape.Round(time.Millisecond), evaluation.Round(time.Millisecond)),
		})
	}

	_ = m.upstream.Kill()
	evaluation, err := m.evaluateInPrometheus(ctx, rules)
	if err != nil {
		return err
	}
	m.addFigure(figure{
		name:  "scrape ÷ (d) recording rules and `/federate`",
		value: ratio(scrape, evaluation+federation.duration),
		note: fmt.Sprintf("%s ÷ (%s + %s)", scrape.Round(time.Millisecond),
			evaluation.Round(time.Millisecond), federation.duration.Round(time.Millisecond)),
	})
	m.addText("age of a recorded sample in (d)", federation.age)

	return nil
}

// federationScrape is the result of a scrape of /federate.
type federationScrape struct {
	duration time.Duration
	age      string // The age of a recorded sample, or "unknown".
}

// federate scrapes the recorded gauges of all stores from the server at base.
func federate(ctx context.Context, base string) (federationScrape, error) {
	page := base + "/federate?" + url.Values{"match[]": {`{__name__=~"recorded_.+"}`}}.Encode()
	if _, err := get(ctx, page); err != nil { // Fills upstream's caches.
		return federationScrape{}, err
	}

	start := time.Now()
	body, err := get(ctx, page)
	if err != nil {
		return federationScrape{}, err
	}
	result := federationScrape{duration: time.Since(start), age: "unknown"}

	if m := regexp.MustCompile(`(?m)^recorded_\w+\{.* ([0-9]+)$`).FindSubmatch(body); m != nil {
		ms, _ := strconv.ParseInt(string(m[1]), 10, 64)
		result.age = time.Since(time.UnixMilli(ms)).Round(time.Second).String()
	}

	return result, nil
}

// evaluateInPrometheus returns how long a Prometheus with the data of upstream takes to evaluate
// the rules.
func (m *measurement) evaluateInPrometheus(ctx context.Context, rules string) (time.Duration, error) {
	server, err := m.startPrometheus(ctx, m.dir, rules)
	if err != nil {
		return 0, err
	}
	defer func() { _ = server.Kill() }()

	return waitForEvaluations(ctx, server.URL+"/metrics",
		regexp.MustCompile(`(?m)^prometheus_rule_group_last_duration_seconds\{.*\} (\S+)$`))
}

// evaluateInVMAlert returns how long vmalert takes to evaluate the rules. The results are written
// to a server that discards them.
func (m *measurement) evaluateInVMAlert(ctx context.Context, rules string) (time.Duration, error) {
	remoteWrite, stop, err := startDiscard(ctx)
	if err != nil {
		return 0, err
	}
	defer stop()
	address, err := stack.FreeAddress(ctx)
	if err != nil {
		return 0, err
	}

	vmalert := exec.CommandContext(ctx, m.vmalertPath, "-rule="+rules, "-datasource.url="+m.upstream.URL,
		"-remoteWrite.url="+remoteWrite, "-httpListenAddr="+address, "-evaluationInterval=5s",
		"-group.maxStartDelay=1s", "-loggerLevel=ERROR")
	if err := vmalert.Start(); err != nil {
		return 0, err
	}
	defer func() {
		_ = vmalert.Process.Kill()
		_ = vmalert.Wait()
	}()

	return waitForEvaluations(ctx, "http://"+address+"/metrics",
		regexp.MustCompile(`(?m)^vmalert_iteration_duration_seconds\{.*quantile="0.5"\} (\S+)$`))
}

// startDiscard starts a server that discards what it receives. It returns its URL and a function
// that stops it.
func startDiscard(ctx context.Context) (string, func(), error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}

	handler := func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusNoContent)
	}

	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(handler)}
	go func() { _ = server.Serve(listener) }() // Ends with Close.

	return "http://" + listener.Addr().String(), func() { _ = server.Close() }, nil
}

// waitForEvaluations reads the duration of a rule group from a metrics page until it has seen two
// different values, and returns the second one.
func waitForEvaluations(ctx context.Context, metrics string, pattern *regexp.Regexp) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()

	var last float64
	seen := map[float64]bool{}
	err := stack.Until(ctx, "two evaluations of the rules", func(ctx context.Context) (bool, error) {
		body, err := get(ctx, metrics)
		if err != nil {
			return false, err
		}
		m := pattern.FindSubmatch(body)
		if m == nil {
			return false, errors.New("no duration yet")
		}
		if v, err := strconv.ParseFloat(string(m[1]), 64); err == nil && v > 0 {
			last = v
			seen[v] = true
		}

		return len(seen) > 1, nil
	})

	return time.Duration(last * float64(time.Second)), err
}
