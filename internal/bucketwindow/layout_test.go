// SPDX-License-Identifier: Apache-2.0

package bucketwindow_test

import (
	"slices"
	"testing"

	"github.com/operator-store/operator_store_exporter/internal/bucketwindow"
)

// newLayout returns a valid layout.
func newLayout(t testing.TB, les ...string) *bucketwindow.Layout {
	t.Helper()
	l, err := bucketwindow.NewLayout(les)
	if err != nil {
		t.Fatal(err)
	}

	return l
}

func TestLayout(t *testing.T) {
	l := newLayout(t, "+Inf", "2", "0.5", "1.0", "1")

	if got, want := l.Labels(), []string{"0.5", "1", "1.0", "2", "+Inf"}; !slices.Equal(got, want) {
		t.Errorf("the labels are %q, want %q", got, want)
	}
	if l.Unambiguous() {
		t.Error("the layout is unambiguous, although 1 is spelled in two ways")
	}

	for le, want := range map[string]int{"0.5": 0, "1": 1, "1.0": 1, "2": 2, "+Inf": 3} {
		if got, ok := l.Index(le); !ok || got != want {
			t.Errorf("le=%q has the position %d, %v, want %d", le, got, ok, want)
		}
	}
	if i, ok := l.Index("3"); ok {
		t.Errorf("le=3, which the layout does not have, has the position %d", i)
	}
	if !newLayout(t, "1", "+Inf").Unambiguous() {
		t.Error("the layout is ambiguous, although each bound has one spelling")
	}
}

func TestInvalidLayouts(t *testing.T) {
	for _, tc := range []struct {
		name string
		les  []string
		want string
	}{
		{
			name: "no buckets",
			les:  []string{},
			want: `the response has buckets, but not the one with le="+Inf"`,
		},
		{
			name: "without +Inf",
			les:  []string{"1", "2"},
			want: `the response has buckets, but not the one with le="+Inf"`,
		},
		{
			name: "not a number",
			les:  []string{"x", "+Inf"},
			want: `the response has a bucket whose bound is not a number: le="x"`,
		},
		{
			name: "empty",
			les:  []string{"", "+Inf"},
			want: `the response has a bucket whose bound is not a number: le=""`,
		},
		{
			name: "NaN",
			les:  []string{"NaN", "+Inf"},
			want: `the response has a bucket whose bound is not a number: le="NaN"`,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if _, err := bucketwindow.NewLayout(tc.les); err == nil || err.Error() != tc.want {
				t.Errorf("got the error %v, want %s", err, tc.want)
			}
		})
	}
}
