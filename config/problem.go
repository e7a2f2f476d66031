// SPDX-License-Identifier: Apache-2.0

package config

import (
	"regexp"
	"slices"

	"go.yaml.in/yaml/v4"
)

// problem is one mistake in a configuration file.
type problem struct {
	line    int
	message string
}

func (p problem) Error() string { return p.message }

// problems takes err apart into the single mistakes it tells of, in the order of their lines.
func problems(err error) []problem {
	var all []problem
	var collect func(error)
	collect = func(err error) {
		switch e := err.(type) { //nolint:errorlint // It is taken apart layer by layer.
		case *yaml.LoadErrors:
			for _, e := range e.Errors {
				collect(e)
			}
		case *yaml.LoadError:
			all = append(all, problem{max(1, e.Mark.Line), plainWords(e.Message)})
		case interface{ Unwrap() []error }:
			for _, e := range e.Unwrap() {
				collect(e)
			}
		case problem:
			all = append(all, e)
		default:
			all = append(all, problem{1, plainWords(err.Error())})
		}
	}
	collect(err)
	slices.SortStableFunc(all, func(a, b problem) int { return a.line - b.line })
	return all
}

// What the decoder says of Go types says nothing to the file's author, and it repeats values, which
// may be secrets.
var rewrites = []struct {
	pattern *regexp.Regexp
	with    string
}{
	{regexp.MustCompile(`^field (.*) not found in type \S+$`), `unknown field "$1": see docs/configuration.md for the fields there are`},
	{regexp.MustCompile("^cannot (?:construct|unmarshal) !!(\\w+)(?: `(?s:.*)`)? into \\S+$"), `a value of another type is wanted here than $1`},
	{regexp.MustCompile(`(?s)cannot (?:construct|unmarshal) .*`), `a value of another type is wanted here: one that begins with ! needs quotes`},
	{regexp.MustCompile(`(?s)unknown anchor .*`), `there is no such anchor: a value that begins with * needs quotes`},
	{regexp.MustCompile(`^(yaml: )?no documents in stream$`), `the file is empty: it needs clusters, see docs/configuration.md`},
	{regexp.MustCompile(`^yaml: `), ``},
	{regexp.MustCompile(`//[^/@\s]*@`), `//<secret>@`},
}

func plainWords(message string) string {
	for _, r := range rewrites {
		message = r.pattern.ReplaceAllString(message, r.with)
	}
	return message
}
