// SPDX-License-Identifier: Apache-2.0

// Package examples contains the deployment examples. Its tests read each file as strictly as the
// program that uses it.
//
// It is a separate module, so that the schemas of these programs are not dependencies of the
// exporter.
package examples

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// files are the contents of the examples, and of the files that they are compared with, by path.
type files map[string]string

func readFiles(t *testing.T) files {
	t.Helper()

	f := files{}
	add := func(name string) {
		content, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		f[name] = string(content)
	}

	for _, root := range []string{"kubernetes", "compose"} {
		err := filepath.WalkDir(root, func(name string, entry fs.DirEntry, err error) error {
			if err == nil && !entry.IsDir() {
				add(name)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	add("../VERSION")
	add("../Dockerfile")

	return f
}

// under returns the names that have a prefix, sorted.
func (f files) under(prefix string) []string {
	var names []string
	for name := range f {
		if strings.HasPrefix(name, prefix) {
			names = append(names, name)
		}
	}
	slices.Sort(names)

	return names
}

// problems collects what is wrong with the examples.
type problems []error

func (p *problems) addf(format string, args ...any) { p.add(fmt.Errorf(format, args...)) }

// add adds an error unless it is nil.
func (p *problems) add(err error) {
	if err != nil {
		*p = append(*p, err)
	}
}

// exporterImage returns the exporter's image of the version that the examples belong to.
func exporterImage(f files) string {
	return "operator-store/operator_store_exporter:v" + strings.TrimSpace(f["../VERSION"])
}

// otherImages are the repositories of the images of other programs.
var otherImages = []string{
	"prom/prometheus", "grafana/grafana", "pingcap/tidb-monitor-initializer", "pingcap/tidb-monitor-reloader",
}

var version = regexp.MustCompile(`^v?\d+\.\d+\.\d+$`)

// checkImage accepts the exporter's image of this version, and images of known other programs
// without a registry and with a version.
func checkImage(f files, image string) error {
	repository, tag, _ := strings.Cut(image, ":")
	if image != exporterImage(f) && (!slices.Contains(otherImages, repository) || !version.MatchString(tag)) {
		return fmt.Errorf("image %q is unknown or has no version", image)
	}

	return nil
}

// checks check the examples in one directory.
var checks = map[string]func(files) error{"kubernetes": checkKubernetes, "compose": checkCompose}

func TestExamples(t *testing.T) {
	for name, check := range checks {
		t.Run(name, func(t *testing.T) {
			if err := check(readFiles(t)); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestBrokenExamples(t *testing.T) {
	for _, m := range mistakes {
		directory, _, _ := strings.Cut(m.file, "/")
		if m.check != "" {
			directory = m.check
		}

		for _, c := range m.changes {
			t.Run(path.Base(m.file)+": "+c.name, func(t *testing.T) {
				f := readFiles(t)
				if !strings.Contains(f[m.file], c.old) {
					t.Fatalf("%s does not contain %q", m.file, c.old)
				}
				f[m.file] = strings.ReplaceAll(f[m.file], c.old, c.new)

				err := checks[directory](f)

				if err == nil {
					t.Fatalf("no check reports %q in %s", c.new, m.file)
				}
				if !strings.Contains(err.Error(), c.want) {
					t.Errorf("got:\n%v\nwant:\n%s", err, c.want)
				}
			})
		}
	}
}
