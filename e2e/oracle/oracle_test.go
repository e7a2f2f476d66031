// SPDX-License-Identifier: Apache-2.0

package oracle_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/operator-store/operator_store_exporter/e2e/oracle"
	"github.com/operator-store/operator_store_exporter/e2e/truth"
)

// The oracle knows the value of each gauge. Otherwise the soak would not check the gauge.
func TestGaugesAreComplete(t *testing.T) {
	content, err := os.ReadFile("oracle.go")
	if err != nil {
		t.Fatal(err)
	}
	before, _, _ := strings.Cut(string(content), "\tgauges := map")
	line := strings.Count(before, "\n") + 2

	gauges := oracle.Gauges(0, time.Now())
	for _, name := range truth.Names() {
		if _, ok := gauges[name]; !ok {
			t.Errorf("e2e/oracle/oracle.go:%d: add the value of %s here, and its metrics to seriesOf", line, name)
		}
	}
}
