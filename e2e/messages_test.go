// SPDX-License-Identifier: Apache-2.0

package e2e

// Parts of messages of the exporter that several tests look for. Most tests only look for what
// upstream returned.
const (
	timeoutMessage    = "no response in time"
	incompleteMessage = "some values could not be queried" // The error of the stores command if an upstream failed.
	shutdownMessage   = "Stopping"
	urlHint           = "path prefix" // What to check if an upstream does not respond like a Prometheus.
)

// queryInLog returns what a log line about a query contains.
func queryInLog(query string) string { return `\"` + query + `\"` }
