// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/promql/parser"
	"go.yaml.in/yaml/v4"

	"github.com/operator-store/operator_store_exporter/collector"
	"github.com/operator-store/operator_store_exporter/config"
	"github.com/operator-store/operator_store_exporter/internal/httpclient"
	"github.com/operator-store/operator_store_exporter/internal/storematch"
)

func read(t *testing.T, file string) string {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// blocks returns the fenced blocks of a document in a language.
func blocks(document, language string) []string {
	var found []string
	for _, m := range regexp.MustCompile("(?s)```"+language+"\n(.*?)```").FindAllStringSubmatch(document, -1) {
		found = append(found, m[1])
	}
	return found
}

// firstCells returns what is in code quotes in the first column of a document's tables.
func firstCells(document string) []string {
	var cells []string
	for _, m := range regexp.MustCompile("(?m)^\\| (`[^|]*) \\|").FindAllStringSubmatch(document, -1) {
		for _, name := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(m[1], -1) {
			cells = append(cells, name[1])
		}
	}
	return cells
}

// sameSet fails unless the document has every name, each once, and no other.
func sameSet(t *testing.T, what string, documented, actual []string) {
	t.Helper()
	count := map[string]int{}
	for _, d := range documented {
		count[d]++
	}
	for _, r := range actual {
		if count[r] != 1 {
			t.Errorf("%s: %s is documented %d times", what, r, count[r])
		}
		delete(count, r)
	}
	for d := range count {
		t.Errorf("%s: there is no %s", what, d)
	}
}

func TestMetricsDocument(t *testing.T) {
	document := read(t, "docs/metrics.md")
	var actual []string
	for _, g := range collector.Gauges {
		actual = append(actual, g.Name)
		if row := fmt.Sprintf("| `%s` | %s | %s |\n", g.Name, g.Help, g.AbsentWhen); !strings.Contains(document, row) {
			t.Errorf("docs/metrics.md lacks the row\n%s", row)
		}
	}
	for _, q := range collector.Queries() {
		actual = append(actual, q.Name)
		if row := fmt.Sprintf("| `%s` | `%s` |\n", q.Name, strings.ReplaceAll(q.Expr, "|", `\|`)); q.Expr != "" && !strings.Contains(document, row) {
			t.Errorf("docs/metrics.md lacks the row\n%s", row)
		}
	}
	for _, reason := range httpclient.Reasons() {
		actual = append(actual, string(reason))
	}
	// The exporter's own metrics are those of a real page.
	exporter, _ := startExporter(t, "--upstream.url=http://127.0.0.1:1")
	own := map[string]bool{ // These are there once upstream and PD have answered.
		"operator_store_exporter_evaluation_timestamp_seconds": true, "operator_store_exporter_stores_timestamp_seconds": true,
		"operator_store_exporter_stores": true,
	}
	for series := range scrape(t, exporter+"/metrics", 5*time.Second).with("operator_store_exporter_") {
		name, _, _ := strings.Cut(series, "{")
		own[name] = true
	}
	for name := range own {
		actual = append(actual, name)
	}
	sameSet(t, "docs/metrics.md", firstCells(document), actual)

	var gauges []string
	for _, g := range collector.Gauges {
		gauges = append(gauges, g.Name)
	}
	_, table, _ := strings.Cut(read(t, "README.md"), "## The gauges")
	table, _, _ = strings.Cut(table, "## Configure it")
	sameSet(t, "README.md", firstCells(table), gauges)
}

func TestConfigurationDocument(t *testing.T) {
	document := read(t, "docs/configuration.md")
	app, _ := commandLine(nil, io.Discard, io.Discard)
	var actual []string
	for _, f := range app.Model().Flags {
		if f.Hidden || f.Name == "help" || f.Name == "version" {
			continue
		}
		actual = append(actual, "--"+f.Name)
		def := ""
		if d := strings.Join(f.Default, ""); d != "" {
			def = " `" + d + "`"
		} else if f.IsBoolFlag() {
			def = " `false`"
		}
		if row := fmt.Sprintf("| `--%s` |%s | ", f.Name, def); !strings.Contains(document, row) {
			t.Errorf("docs/configuration.md lacks the row %s", row)
		}
	}
	var walk func(prefix string, of reflect.Type)
	walk = func(prefix string, of reflect.Type) {
		for f := range of.Fields() {
			name, inline, _ := strings.Cut(f.Tag.Get("yaml"), ",")
			switch {
			case !f.IsExported() || name == "-":
			case inline == "inline" && f.Type == reflect.TypeFor[config.Server]():
				walk(prefix, f.Type)
			case inline == "inline":
				for f := range f.Type.Fields() {
					if name, _, _ := strings.Cut(f.Tag.Get("yaml"), ","); name != "" && !strings.Contains(document, "`"+name+"`") {
						t.Errorf("docs/configuration.md lacks the field %s of the HTTP client", name)
					}
				}
			default:
				actual = append(actual, prefix+name)
				switch {
				case f.Type.Kind() == reflect.Struct:
					walk(prefix+name+".", f.Type)
				case f.Type.Kind() == reflect.Pointer:
					walk(prefix+name+".", f.Type.Elem())
				case f.Type.Kind() == reflect.Slice && f.Type.Elem().Kind() == reflect.Struct:
					walk(prefix+name+"[].", f.Type.Elem())
				}
			}
		}
	}
	walk("", reflect.TypeFor[config.Config]())
	sameSet(t, "docs/configuration.md", firstCells(document), actual)
}

// Every example is good: configurations load, scrape configs and rules pass promtool.
func TestExamples(t *testing.T) {
	configs := 0
	for _, file := range []string{"README.md", "docs/configuration.md", "docs/upstreams.md"} {
		for i, block := range blocks(read(t, file), "yaml") {
			t.Run(fmt.Sprintf("%s %d", file, i), func(t *testing.T) {
				switch {
				case strings.HasPrefix(block, "clusters:"):
					configs++
					if _, err := config.Load([]byte(block)); err != nil {
						t.Error(err)
					}
				case strings.HasPrefix(block, "scrape_configs:"), strings.HasPrefix(block, "rule_files:"):
					dir := t.TempDir()
					for name, content := range map[string]string{"prometheus.yml": block, "alerts.yml": read(t, "mixin/alerts.yml")} {
						if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
							t.Fatal(err)
						}
					}
					promtool(t, "check", "config", filepath.Join(dir, "prometheus.yml"))
				case strings.HasPrefix(block, "groups:"):
					promtool(t, "check", "rules", writeFile(t, "rules.yml", block))
					rulesKnowTheirMetrics(t, block)
				default:
					t.Errorf("nobody checks\n%s", block)
				}
			})
		}
	}
	if configs < 7 {
		t.Errorf("%d configurations were checked, there are more", configs)
	}
}

func promtool(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), promtoolBinary, args...).CombinedOutput(); err != nil {
		t.Errorf("promtool %v: %v\n%s", args, err, out)
	}
}

func rulesKnowTheirMetrics(t *testing.T, content string) {
	t.Helper()
	var rules struct {
		Groups []struct {
			Rules []struct{ Expr string }
		}
	}
	if err := yaml.Unmarshal([]byte(content), &rules); err != nil {
		t.Fatal(err)
	}
	document := read(t, "docs/metrics.md")
	for _, g := range rules.Groups {
		for _, r := range g.Rules {
			root, err := parser.NewParser(parser.Options{}).ParseExpr(r.Expr)
			if err != nil {
				t.Fatal(err)
			}
			for _, selector := range parser.ExtractSelectors(root) {
				for _, m := range selector {
					if m.Name == "__name__" && m.Value != "up" && !strings.Contains(document, "`"+m.Value+"`") {
						t.Errorf("%s asks for %s, which docs/metrics.md does not have", r.Expr, m.Value)
					}
				}
			}
		}
	}
}

// The commands of the README are targets of the Makefile, or flags and commands that there are.
func TestREADMECommands(t *testing.T) {
	makefile := read(t, "Makefile")
	for _, block := range append(blocks(read(t, "README.md"), "sh"), blocks(read(t, "docs/commands.md"), "sh")...) {
		for _, line := range strings.Split(strings.TrimSpace(block), "\n") {
			line, _, _ := strings.Cut(line, " > ")
			words := strings.Fields(line)
			switch words[0] {
			case "make":
				if !strings.Contains(makefile, "\n"+words[1]+":") {
					t.Errorf("the Makefile has no target for %q", line)
				}
			case "./operator_store_exporter":
				app, _ := commandLine(nil, io.Discard, io.Discard)
				if _, err := app.Parse(words[1:]); err != nil {
					t.Errorf("%q: %v", line, err)
				}
			case "curl", "source":
			default:
				t.Errorf("nobody checks %q", line)
			}
		}
	}
}

// The release configuration stays true to the Makefile.
func TestPromuIsTrueToTheMakefile(t *testing.T) {
	makefile, promu := read(t, "Makefile"), read(t, ".promu.yml")
	var makeNames, promuNames []string
	for _, m := range regexp.MustCompile(`-X \$\(V\)\.(\w+)=`).FindAllStringSubmatch(makefile, -1) {
		if !strings.Contains(strings.Join(makeNames, " "), m[1]) {
			makeNames = append(makeNames, m[1])
		}
	}
	for _, m := range regexp.MustCompile(`-X github\.com/prometheus/common/version\.(\w+)=`).FindAllStringSubmatch(promu, -1) {
		promuNames = append(promuNames, m[1])
	}
	sameSet(t, ".promu.yml", promuNames, makeNames)
	for _, flag := range []string{"-trimpath", "netgo", "-s -w"} {
		if !strings.Contains(makefile, flag) || !strings.Contains(promu, flag) {
			t.Errorf("%s is not in both", flag)
		}
	}
	if !strings.Contains(makefile, "CGO_ENABLED=0") || !strings.Contains(promu, "cgo: false") {
		t.Error("cgo is not off in both")
	}
}

// The rules are those of the code, in their order, and every page of docs/ is linked from another.
func TestStoresDocument(t *testing.T) {
	document := read(t, "docs/stores.md")
	last := 0
	for _, rule := range storematch.RuleNames() {
		at := strings.Index(document, "\n| "+rule+" | ")
		if at <= last {
			t.Errorf("docs/stores.md lacks the rule %q, or has it at another place", rule)
		}
		last = at
	}
	if !strings.Contains(read(t, "docs/metrics.md"), "`operator_store_info`") {
		t.Error("docs/metrics.md lacks operator_store_info")
	}
	pages := read(t, "README.md") + read(t, "docs/metrics.md") + read(t, "docs/configuration.md")
	for _, m := range regexp.MustCompile(`\]\(((?:docs/)?[a-z]+\.md)\)`).FindAllStringSubmatch(pages, -1) {
		read(t, "docs/"+strings.TrimPrefix(m[1], "docs/"))
	}
}
