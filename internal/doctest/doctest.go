// SPDX-License-Identifier: Apache-2.0

// Package doctest reads the documentation of the repository in tests.
package doctest

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// module is the first line of the go.mod file in the root of the repository.
const module = "module github.com/operator-store/operator_store_exporter"

// Root returns the path of the repository's root, seen from the working directory of the test.
func Root(t testing.TB) string {
	t.Helper()

	dir := "."
	for range 5 {
		content, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if first, _, _ := strings.Cut(string(content), "\n"); err == nil && first == module {
			return dir
		}
		dir = filepath.Join(dir, "..")
	}

	t.Fatalf("no folder above the test has a go.mod file that begins with %q", module)
	return ""
}

// Read returns the content of a file of the repository. The path is relative to the repository's
// root.
func Read(t testing.TB, path string) string {
	t.Helper()

	content, err := os.ReadFile(filepath.Join(Root(t), path))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// CodeBlocks returns the fenced code blocks of a Markdown document in a language.
func CodeBlocks(document, language string) []string {
	var blocks []string
	for _, m := range regexp.MustCompile("(?s)```"+language+"\n(.*?)```").FindAllStringSubmatch(document, -1) {
		blocks = append(blocks, m[1])
	}
	return blocks
}

var (
	firstCell  = regexp.MustCompile("(?m)^\\| (`[^|]*) \\|")
	quotedName = regexp.MustCompile("`([^`]+)`")
)

// FirstCells returns the names in code quotes in the first column of the tables of a Markdown
// document.
func FirstCells(document string) []string {
	var names []string
	for _, cell := range firstCell.FindAllStringSubmatch(document, -1) {
		for _, name := range quotedName.FindAllStringSubmatch(cell[1], -1) {
			names = append(names, name[1])
		}
	}
	return names
}

// RequireSameSet fails the test unless the file documents each of the actual names exactly once,
// and no other name.
func RequireSameSet(t testing.TB, file string, documented, actual []string) {
	t.Helper()

	count := map[string]int{}
	for _, name := range documented {
		count[name]++
	}

	for _, name := range actual {
		if count[name] != 1 {
			t.Errorf("%s: %s is documented %d times, want once", file, name, count[name])
		}
		delete(count, name)
	}

	for name := range count {
		t.Errorf("%s: documents %s, which does not exist", file, name)
	}
}
