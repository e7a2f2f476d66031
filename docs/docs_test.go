// SPDX-License-Identifier: Apache-2.0

// Package docs_test compares the documentation with the code.
package docs_test

import (
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/promql/parser"

	"github.com/operator-store/operator_store_exporter/config"
	"github.com/operator-store/operator_store_exporter/internal/doctest"
	"github.com/operator-store/operator_store_exporter/internal/gauge"
	"github.com/operator-store/operator_store_exporter/internal/report"
	"github.com/operator-store/operator_store_exporter/internal/storematch"
)

const (
	module  = "github.com/operator-store/operator_store_exporter"
	program = "operator_store_exporter"
)

func gaugeNames() []string {
	var names []string
	for _, g := range gauge.Builtin() {
		names = append(names, g.Name)
	}
	return names
}

// docs/metrics.md has a row for each gauge and each query, and names each reason of a failure. The
// end-to-end tests hold its list of the exporter's own metrics against a real page.
func TestMetricsDocument(t *testing.T) {
	document := doctest.Read(t, "docs/metrics.md")

	previous := "gauge" // The first cell of the row above.
	for _, g := range gauge.Builtin() {
		requireRow(t, "docs/metrics.md", previous, fmt.Sprintf("| `%s` | %s | %s |", g.Name, g.Help, g.AbsentWhen))
		previous = "`" + g.Name + "`"
	}

	names := gaugeNames()
	previous = "query"
	for _, q := range gauge.BuiltinQueries() {
		names = append(names, q.Name)
		if q.HasExpr() {
			// The document writes the rate window as W.
			expression := strings.NewReplacer("[1m]", "[W]", "|", `\|`).Replace(q.Expr.String())
			requireRow(t, "docs/metrics.md", previous, fmt.Sprintf("| `%s` | `%s` |", q.Name, expression))
			previous = "`" + q.Name + "`"
		}
	}
	if t.Failed() {
		return // The comparison below would report each missing row again.
	}

	for _, reason := range report.Reasons() {
		names = append(names, string(reason))
	}

	isOwnMetric := func(name string) bool { return strings.HasPrefix(name, "operator_store_exporter_") }
	documented := slices.DeleteFunc(doctest.FirstCells(document), isOwnMetric)
	doctest.RequireSameSet(t, "docs/metrics.md", documented, names)
	if !strings.Contains(document, "`operator_store_info`") {
		t.Error("docs/metrics.md lacks operator_store_info")
	}
}

// requireRow fails the test unless a table of a file has the row. The error names the line below
// the first row that begins with the cell previous.
func requireRow(t *testing.T, file, previous, row string) {
	t.Helper()

	document := doctest.Read(t, file)
	if strings.Contains(document, "\n"+row+"\n") {
		return
	}

	before, _, _ := strings.Cut(document, "\n| "+previous+" |")
	t.Errorf("%s:%d: add or correct the row\n%s", file, strings.Count(before, "\n")+3, row)
}

// CHANGELOG.md names each gauge.
func TestChangelogNamesGauges(t *testing.T) {
	changelog := doctest.Read(t, "CHANGELOG.md")
	before, _, _ := strings.Cut(changelog, "\n## ")
	line := strings.Count(before, "\n") + 2

	for _, name := range gaugeNames() {
		if !strings.Contains(changelog, "`"+name+"`") {
			t.Errorf("CHANGELOG.md:%d: add a line for this version that names `%s`", line, name)
		}
	}
}

// The README lists the main gauges; docs/metrics.md lists all of them.
func TestREADMEListsGauges(t *testing.T) {
	_, table, _ := strings.Cut(doctest.Read(t, "README.md"), "## Gauges")
	table, _, _ = strings.Cut(table, "## Status page")

	listed := doctest.FirstCells(table)
	if len(listed) == 0 {
		t.Error("the table of gauges in README.md is empty")
	}

	for _, name := range listed {
		if !slices.Contains(gaugeNames(), name) {
			t.Errorf("README.md lists %s, which does not exist", name)
		}
	}
}

// docs/configuration.md has each field of the configuration. The tests of the command line hold its
// flags.
func TestConfigurationDocument(t *testing.T) {
	document := doctest.Read(t, "docs/configuration.md")
	var fields []string
	var walk func(prefix string, of reflect.Type)
	walk = func(prefix string, of reflect.Type) {
		for f := range of.Fields() {
			name, option, _ := strings.Cut(f.Tag.Get("yaml"), ",")
			switch {
			case !f.IsExported() || name == "-":
			case option == "inline" && f.Type == reflect.TypeFor[config.Server]():
				walk(prefix, f.Type)
			case option == "inline":
				requireClientFields(t, document, f.Type)
			default:
				fields = append(fields, prefix+name)
				switch f.Type.Kind() {
				case reflect.Struct:
					walk(prefix+name+".", f.Type)
				case reflect.Pointer:
					walk(prefix+name+".", f.Type.Elem())
				case reflect.Slice:
					if f.Type.Elem().Kind() == reflect.Struct {
						walk(prefix+name+"[].", f.Type.Elem())
					}
				}
			}
		}
	}
	walk("", reflect.TypeFor[config.Config]())

	isFlag := func(name string) bool { return strings.HasPrefix(name, "--") }
	documented := slices.DeleteFunc(doctest.FirstCells(document), isFlag)
	doctest.RequireSameSet(t, "docs/configuration.md", documented, fields)
}

// requireClientFields fails the test unless a document names each field of the HTTP client's
// configuration.
func requireClientFields(t *testing.T, document string, client reflect.Type) {
	t.Helper()

	for f := range client.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if name != "" && !strings.Contains(document, "`"+name+"`") {
			t.Errorf("docs/configuration.md lacks the field %s of the HTTP client", name)
		}
	}
}

// .promu.yml builds the same binary as the Makefile.
func TestPromuMatchesMakefile(t *testing.T) {
	makefile, promu := doctest.Read(t, "Makefile"), doctest.Read(t, ".promu.yml")

	var makeNames, promuNames []string
	for _, m := range regexp.MustCompile(`-X \$\(V\)\.(\w+)=`).FindAllStringSubmatch(makefile, -1) {
		if !slices.Contains(makeNames, m[1]) {
			makeNames = append(makeNames, m[1])
		}
	}

	version := regexp.MustCompile(`-X github\.com/prometheus/common/version\.(\w+)=`)
	for _, m := range version.FindAllStringSubmatch(promu, -1) {
		promuNames = append(promuNames, m[1])
	}
	doctest.RequireSameSet(t, ".promu.yml", promuNames, makeNames)

	for _, flag := range []string{"-trimpath", "netgo", "-s -w"} {
		if !strings.Contains(makefile, flag) || !strings.Contains(promu, flag) {
			t.Errorf("the Makefile or .promu.yml lacks %s", flag)
		}
	}
	if !strings.Contains(makefile, "CGO_ENABLED=0") || !strings.Contains(promu, "cgo: false") {
		t.Error("the Makefile or .promu.yml does not disable cgo")
	}
}

// docs/stores.md has the matching rules in the order of the code.
func TestStoresDocument(t *testing.T) {
	document := doctest.Read(t, "docs/stores.md")
	last := strings.Index(document, "\n| rule | ")
	for _, rule := range storematch.RuleNames() {
		at := strings.Index(document, "\n| "+rule+" | ")
		if at <= last {
			line := strings.Count(document[:max(last, 0)], "\n") + 3
			t.Fatalf("docs/stores.md:%d: add the row of the rule %q here, or move it here", line, rule)
		}
		last = at
	}
}

// docs/design.md lists each package with its doc comment, which is one sentence.
func TestDesignDocument(t *testing.T) {
	const format = "{{if .GoFiles}}{{.ImportPath}}\t{{.Name}}\t{{.Doc}}{{end}}"
	list := exec.CommandContext(t.Context(), "go", "list", "-f", format, "./...")
	list.Dir = doctest.Root(t)
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	_, document, _ := strings.Cut(doctest.Read(t, "docs/design.md"), "## Packages")

	var packages []string
	for _, line := range strings.Split(strings.TrimSpace(string(out)), "\n") {
		fields := strings.Split(line, "\t")
		name := strings.TrimPrefix(strings.TrimPrefix(fields[0], module), "/")
		does, ok := strings.CutPrefix(fields[2], "Package "+fields[1]+" ")
		if name == "" {
			name = "."
			does, ok = strings.CutPrefix(fields[2], "Command "+program+" ")
		}
		if !ok {
			t.Errorf("the doc comment of %s is %q", name, fields[2])
		}
		packages = append(packages, name)
		if row := fmt.Sprintf("| `%s` | %s |\n", name, does); !strings.Contains(document, row) {
			t.Errorf("docs/design.md lacks the row\n%s", row)
		}
	}
	doctest.RequireSameSet(t, "docs/design.md", doctest.FirstCells(document), packages)
}

// docs/migrating.md has valid PromQL, and replaces expressions by gauges that exist.
func TestMigratingDocument(t *testing.T) {
	document, metrics := doctest.Read(t, "docs/migrating.md"), doctest.Read(t, "docs/metrics.md")

	var replacing []string
	rows := regexp.MustCompile("(?m)^\\| `([^`]+)` \\| `([^`]+)` \\|$").FindAllStringSubmatch(document, -1)
	for _, row := range rows {
		requireKnownMetrics(t, row[1])
		requireKnownMetrics(t, row[2])
		name, _, _ := strings.Cut(row[2], " ")
		replacing = append(replacing, name)
	}
	if len(replacing) == 0 {
		t.Error("docs/migrating.md replaces no expression")
	}

	for _, block := range doctest.CodeBlocks(document, "promql") {
		requireKnownMetrics(t, block)
	}

	for _, name := range regexp.MustCompile("`(operator_store_[a-z0-9_]+)`").FindAllStringSubmatch(document, -1) {
		if !strings.Contains(metrics, "`"+name[1]+"`") {
			t.Errorf("docs/migrating.md names %s, which docs/metrics.md lacks", name[1])
		}
	}
}

// requireKnownMetrics fails the test unless docs/metrics.md has each metric of the exporter in a
// PromQL expression.
func requireKnownMetrics(t *testing.T, expression string) {
	t.Helper()

	root, err := parser.NewParser(parser.Options{}).ParseExpr(expression)
	if err != nil {
		t.Errorf("%s: %v", expression, err)
		return
	}

	known := doctest.FirstCells(doctest.Read(t, "docs/metrics.md"))
	for _, m := range slices.Concat(parser.ExtractSelectors(root)...) {
		if m.Name != "__name__" || !strings.HasPrefix(m.Value, "operator_store_") {
			continue
		}
		if !slices.ContainsFunc(known, m.Matches) {
			t.Errorf("%s queries %s, which docs/metrics.md lacks", expression, m.Value)
		}
	}
}

// CONTRIBUTING.md lists each target of the Makefile that is meant for people, and names files that
// exist.
func TestContributingDocument(t *testing.T) {
	document, makefile := doctest.Read(t, "CONTRIBUTING.md"), doctest.Read(t, "Makefile")
	makefile = strings.ReplaceAll(makefile, "\\\n", " ") // Continued lines.

	var targets []string
	for _, m := range regexp.MustCompile(`(?m)^([a-z]+):.* ## `).FindAllStringSubmatch(makefile, -1) {
		targets = append(targets, m[1])
	}

	for _, m := range regexp.MustCompile("(?m)`make ([a-z]+)").FindAllStringSubmatch(document, -1) {
		if !slices.Contains(targets, m[1]) {
			t.Errorf("CONTRIBUTING.md: the Makefile has no target %s with a description", m[1])
		}
	}

	var documented []string
	for _, cell := range doctest.FirstCells(document) {
		documented = append(documented, strings.TrimPrefix(cell, "make "))
	}
	doctest.RequireSameSet(t, "CONTRIBUTING.md", documented, targets)

	path := regexp.MustCompile("`([a-z_0-9]+(?:/[a-z_0-9]+)*(?:/|\\.go))`")
	for _, m := range path.FindAllStringSubmatch(document, -1) {
		if _, err := os.Stat(filepath.Join(doctest.Root(t), m[1])); err != nil {
			t.Errorf("CONTRIBUTING.md: %v", err)
		}
	}
}

// Links in the documents lead to files that exist.
func TestLinks(t *testing.T) {
	root := doctest.Root(t)
	var documents []string
	for _, pattern := range []string{"*.md", "docs/*.md", "examples/*.md", "mixin/*.md"} {
		matches, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		documents = append(documents, matches...)
	}
	if len(documents) < 12 {
		t.Errorf("there are %d documents, want at least 12: %q", len(documents), documents)
	}

	link := regexp.MustCompile(`\]\(([^)#:]+)(?:#[^)]*)?\)`)
	for _, document := range documents {
		content, err := os.ReadFile(document)
		if err != nil {
			t.Fatal(err)
		}

		for _, m := range link.FindAllStringSubmatch(string(content), -1) {
			if _, err := os.Stat(path.Join(filepath.Dir(document), m[1])); err != nil {
				t.Errorf("%s: %v", document, err)
			}
		}
	}
}
