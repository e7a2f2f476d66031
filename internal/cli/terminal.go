// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"io"
	"os"

	"golang.org/x/term"

	"github.com/operator-store/operator_store_exporter/internal/storetable"
)

// newWriter returns a Writer that uses colors if w is a terminal whose user wants them.
func newWriter(w io.Writer) storetable.Writer {
	file, isFile := w.(*os.File)
	color := isFile && term.IsTerminal(int(file.Fd())) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"

	return storetable.Writer{Writer: w, Color: color}
}
