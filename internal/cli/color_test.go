// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/operator-store/operator_store_exporter/internal/doctor"
	"github.com/operator-store/operator_store_exporter/internal/storetable"
)

func TestWriteCheck(t *testing.T) {
	for _, tc := range []struct {
		name  string
		color bool
		check doctor.Check
		want  string
	}{
		{
			name:  "without colors",
			check: doctor.Check{Outcome: doctor.Fail, Name: "rate_window", Text: "too short"},
			want:  "  FAIL  rate_window   too short\n",
		},
		{
			name:  "ok is green",
			color: true,
			check: doctor.Check{Outcome: doctor.OK, Name: "pd", Text: "fine"},
			want:  "  \x1b[32mok  \x1b[0m  pd            fine\n",
		},
		{
			name:  "warn is yellow",
			color: true,
			check: doctor.Check{Outcome: doctor.Warn, Name: "gauges", Text: "absent"},
			want:  "  \x1b[33mwarn\x1b[0m  gauges        absent\n",
		},
		{
			name:  "FAIL is red",
			color: true,
			check: doctor.Check{Outcome: doctor.Fail, Name: "stores", Text: "unmatched"},
			want:  "  \x1b[31mFAIL\x1b[0m  stores        unmatched\n",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var out bytes.Buffer

			writeCheck(storetable.Writer{Writer: &out, Color: tc.color}, tc.check)

			if out.String() != tc.want {
				t.Errorf("the line is %q, want %q", &out, tc.want)
			}
		})
	}
}

// The end-to-end tests check that a terminal has colors.
func TestNoColorsInFiles(t *testing.T) {
	t.Setenv("TERM", "xterm")
	file, err := os.Create(filepath.Join(t.TempDir(), "output"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()

	if newWriter(file).Color {
		t.Error("a file has colors")
	}
	if newWriter(&bytes.Buffer{}).Color {
		t.Error("a buffer has colors")
	}
}
