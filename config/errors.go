// SPDX-License-Identifier: Apache-2.0

package config

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"

	"go.yaml.in/yaml/v4"
)

// mistake is one mistake in a configuration file.
type mistake struct {
	line    int
	message string
}

// mistakes are all mistakes in a configuration file.
type mistakes []mistake

func (m *mistakes) add(line int, format string, args ...any) {
	*m = append(*m, mistake{line: line, message: fmt.Sprintf(format, args...)})
}

// join returns one error that joins the formatted mistakes.
func (m mistakes) join(format func(mistake) error) error {
	errs := make([]error, len(m))
	for i, one := range m {
		errs[i] = format(one)
	}
	return errors.Join(errs...)
}

// decodingMistakes splits an error of the YAML decoder into single mistakes.
func decodingMistakes(err error) mistakes {
	switch e := err.(type) { //nolint:errorlint // The function unwraps one layer at a time.
	case *yaml.LoadErrors:
		var found mistakes
		for _, loadError := range e.Errors {
			found = append(found, decodingMistakes(loadError)...)
		}
		return found
	case *yaml.LoadError:
		message := describe(e.Message)
		switch e.Stage {
		case yaml.ReaderStage, yaml.ScannerStage, yaml.ParserStage:
			message = "invalid YAML: " + message
		}
		return mistakes{{line: max(1, e.Mark.Line), message: message}}
	default:
		return mistakes{{line: 1, message: describe(err.Error())}}
	}
}

// typeMismatch matches the decoder's message about a value of the wrong type.
var typeMismatch = regexp.MustCompile("^cannot (?:construct|unmarshal) !!(\\w+)(?: `(?s:.*)`)? into \\S+$")

// typeNames are the names of YAML types in messages, by tag. Other types go by their tag.
var typeNames = map[string]string{
	"map": "mapping", "seq": "list", "str": "string", "int": "integer", "bool": "boolean", "float": "number",
}

// rewrites replace parts of the decoder's messages.
var rewrites = []struct {
	pattern     *regexp.Regexp
	replacement string
}{
	{
		pattern:     regexp.MustCompile(`^field (.*) not found in type \S+$`),
		replacement: `unknown field "$1": see docs/configuration.md for the available fields`,
	},
	{
		pattern:     regexp.MustCompile(`(?s)cannot (?:construct|unmarshal) .*`),
		replacement: `unexpected type: quote a value that starts with !, or remove its YAML tag`,
	},
	{
		pattern:     regexp.MustCompile(`(?s)unknown anchor .*`),
		replacement: `unknown anchor: quote a value that starts with *`,
	},
	{
		pattern:     regexp.MustCompile(`^(yaml: )?no documents in stream$`),
		replacement: `the file is empty: define at least one cluster, see docs/configuration.md`,
	},
	{
		pattern:     regexp.MustCompile(`^(yaml: )?expected single document, found multiple$`),
		replacement: `the file has several YAML documents: keep one`,
	},
	{
		pattern:     regexp.MustCompile(`^go-yaml load error in \w+ (?:\(.*\) )?at (?:<unknown position>|[^:]+): `),
		replacement: ``,
	},
	{
		pattern:     regexp.MustCompile(`^yaml: `),
		replacement: ``,
	},
	{
		pattern:     regexp.MustCompile(`//[^/@\s]*@`),
		replacement: `//` + redacted + `@`,
	},
}

// describe rewrites a message of the YAML decoder for the author of the file. The decoder's
// messages name Go types, which mean nothing to the author. They also repeat values, which may be
// secrets.
func describe(message string) string {
	if match := typeMismatch.FindStringSubmatch(message); match != nil {
		return fmt.Sprintf("unexpected %s: see docs/configuration.md for the type of the field",
			cmp.Or(typeNames[match[1]], match[1]))
	}

	for _, r := range rewrites {
		message = r.pattern.ReplaceAllString(message, r.replacement)
	}
	return message
}
