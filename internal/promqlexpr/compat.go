// SPDX-License-Identifier: Apache-2.0

package promqlexpr

// TODO: remove this name once its last callers in config are gone.

// Text is String.
func (e Expr) Text() string { return e.text }
