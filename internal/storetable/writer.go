// SPDX-License-Identifier: Apache-2.0

package storetable

import "io"

// Writer writes to a terminal or to a file.
type Writer struct {
	io.Writer
	Color bool // Whether to use escape sequences for colors.
}

// A style is the parameter of the escape sequence that selects how a terminal shows text.
type style string

const (
	plain  style = ""
	faint  style = "2"
	red    style = "31"
	green  style = "32"
	yellow style = "33"
)

// Green returns s in green if the Writer has colors.
func (w Writer) Green(s string) string { return w.paint(green, s) }

// Yellow returns s in yellow if the Writer has colors.
func (w Writer) Yellow(s string) string { return w.paint(yellow, s) }

// Red returns s in red if the Writer has colors.
func (w Writer) Red(s string) string { return w.paint(red, s) }

func (w Writer) paint(as style, s string) string {
	if !w.Color || as == plain {
		return s
	}

	return "\x1b[" + string(as) + "m" + s + "\x1b[0m"
}
