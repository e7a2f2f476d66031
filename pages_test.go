// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/promql/parser"
)

// The packages are those that there are, and what they do is what their doc comments say, which is one sentence.
func TestDesignDocument(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-f", "{{.ImportPath}}\t{{.Name}}\t{{.Doc}}", "./...").Output()
	if err != nil {
		t.Fatal(err)
	}
	_, document, _ := strings.Cut(read(t, "docs/design.md"), "## Packages")
	var packages []string
	for _, line := range strings.Split(strings.TrimSpace(string(out)), "\n") {
		fields := strings.Split(line, "\t")
		name := strings.TrimPrefix(strings.TrimPrefix(fields[0], "github.com/operator-store/operator_store_exporter"), "/")
		does, is := strings.CutPrefix(fields[2], "Package "+fields[1]+" ")
		if name == "" {
			name = "."
			does, is = strings.CutPrefix(fields[2], "Command "+program+" ")
		}
		if !is {
			t.Errorf("the doc comment of %s is %q", name, fields[2])
		}
		packages = append(packages, name)
		if row := fmt.Sprintf("| `%s` | %s |\n", name, does); !strings.Contains(document, row) {
			t.Errorf("docs/design.md lacks the row\n%s", row)
		}
	}
	sameSet(t, "docs/design.md", firstCells(document), packages)
}

// Old and new are PromQL, and every gauge has an expression that it replaces.
func TestMigratingDocument(t *testing.T) {
	document := read(t, "docs/migrating.md")
	known := read(t, "docs/metrics.md")
	asked := func(expression string) {
		root, err := parser.NewParser(parser.Options{}).ParseExpr(expression)
		if err != nil {
			t.Errorf("%s: %v", expression, err)
			return
		}
		for _, selector := range parser.ExtractSelectors(root) {
			for _, m := range selector {
				if m.Name != "__name__" || !strings.HasPrefix(m.Value, "operator_store_") {
					continue
				}
				if !slices.ContainsFunc(firstCells(known), m.Matches) {
					t.Errorf("%s asks for %s, which docs/metrics.md does not have", expression, m.Value)
				}
			}
		}
	}
	rows := regexp.MustCompile("(?m)^\\| `([^`]+)` \\| `([^`]+)` \\|$").FindAllStringSubmatch(document, -1)
	var replaced []string
	for _, row := range rows {
		asked(row[1])
		asked(row[2])
		name, _, _ := strings.Cut(row[2], " ")
		replaced = append(replaced, name)
	}
	gauges, _, _ := strings.Cut(known, "## What upstream is asked")
	sameSet(t, "docs/migrating.md", replaced, firstCells(gauges[strings.Index(gauges, "| gauge |"):strings.Index(gauges, "`operator_store_info`")]))
	for _, block := range blocks(document, "promql") {
		asked(block)
	}
	for _, name := range regexp.MustCompile("`(operator_store_[a-z0-9_]+)`").FindAllStringSubmatch(document, -1) {
		if !strings.Contains(known, "`"+name[1]+"`") {
			t.Errorf("docs/metrics.md does not have %s", name[1])
		}
	}
	for i, block := range blocks(document, "yaml") {
		switch {
		case strings.HasPrefix(block, "scrape_configs:"):
			promtool(t, "check", "config", writeFile(t, "prometheus.yml", block))
		case strings.HasPrefix(block, "groups:"):
			promtool(t, "check", "rules", writeFile(t, "rules.yml", block))
			rulesKnowTheirMetrics(t, block)
		default:
			t.Errorf("nobody checks block %d", i)
		}
	}
}

// CONTRIBUTING.md names every target that is meant for people, and no other.
func TestContributingDocument(t *testing.T) {
	document, makefile := read(t, "CONTRIBUTING.md"), read(t, "Makefile")
	phony := regexp.MustCompile(`(?m)^\.PHONY: (.+)$`).FindStringSubmatch(makefile)
	targets := strings.Fields(phony[1])[1:] // Not all, which is build.
	for _, m := range regexp.MustCompile("(?m)`make ([a-z]+)").FindAllStringSubmatch(document, -1) {
		if !strings.Contains(phony[1]+" ", " "+m[1]+" ") || !strings.Contains(makefile, "\n"+m[1]+":") {
			t.Errorf("the Makefile has no target %s", m[1])
		}
	}
	var named []string
	for _, cell := range firstCells(document) {
		named = append(named, strings.TrimPrefix(cell, "make "))
	}
	sameSet(t, "CONTRIBUTING.md", named, targets)
	for _, m := range regexp.MustCompile("`([a-z_]+(?:/[a-z_]+)*(?:/|\\.go))`").FindAllStringSubmatch(document, -1) {
		if _, err := os.Stat(m[1]); err != nil && m[1] != "." {
			t.Error(err)
		}
	}
}

// Links lead to files that there are.
func TestLinks(t *testing.T) {
	var documents []string
	for _, pattern := range []string{"*.md", "docs/*.md", "examples/*.md"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		documents = append(documents, found...)
	}
	if len(documents) < 12 {
		t.Errorf("there are but %q", documents)
	}
	for _, document := range documents {
		for _, m := range regexp.MustCompile(`\]\(([^)#:]+)(?:#[^)]*)?\)`).FindAllStringSubmatch(read(t, document), -1) {
			target := path.Join(path.Dir(filepath.ToSlash(document)), m[1])
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s: %v", document, err)
			}
		}
	}
}
