// SPDX-License-Identifier: Apache-2.0

package truth_test

import (
	"testing"

	"github.com/operator-store/operator_store_exporter/e2e/truth"
)

func TestCheck(t *testing.T) {
	if err := truth.Check(); err != nil {
		t.Error(err)
	}
}
