// SPDX-License-Identifier: Apache-2.0

package httpclient

import "regexp"

// tooLargePatterns match the messages with which upstreams reject a query for its size or cost. If
// one matches, the query is split and sent again. A pattern must not match an error that does not
// depend on the number of stores: the query would be split in vain, down to single stores.
var tooLargePatterns = []*regexp.Regexp{
	// Prometheus: --query.max-samples, --storage.remote.read-sample-limit.
	regexp.MustCompile(`query processing would load too many samples`),
	regexp.MustCompile(`exceeded sample limit`),
	// Thanos: --store.limits.request-*, --store.grpc.series-sample-limit, --query.max-series and
	// the like.
	regexp.MustCompile(`exceeded (series|chunks|samples|bytes) limit`),
	regexp.MustCompile(`limit \d+ violated`),
	// Cortex: max_fetched_series_per_query and the other limits of a query.
	regexp.MustCompile(`the query hit the (max number of|aggregated) \w+( size)? limit`),
	// Mimir: max_fetched_series_per_query and the other limits of a query.
	regexp.MustCompile(`err-mimir-max-(series|chunks|chunks-bytes|estimated-chunks)-per-query`),
	regexp.MustCompile(`err-mimir-max-estimated-memory-consumption-per-query`),
	regexp.MustCompile(`err-mimir-max-query-expression-size-bytes`),
	// VictoriaMetrics: -search.maxUniqueTimeseries, -search.maxSamplesPerQuery and the like. The
	// other flags that begin with -search.max, such as -search.maxQueryDuration, are about time,
	// concurrency or single series, which smaller queries do not change.
	regexp.MustCompile(`the number of matching (unique )?timeseries exceeds`),
	regexp.MustCompile(`not enough memory for processing .*time series`),
	regexp.MustCompile(`-search\.max(SamplesPerQuery|UniqueTimeseries|Series|ResponseSeries)\b`),
	regexp.MustCompile(`-search\.max(MemoryPerQuery|QueryLen)\b`),
	// Any upstream or proxy: a query, a regular expression or a label value that is too long. A
	// time range that is too long must not match.
	regexp.MustCompile(`(?i)\b(query|expression|regexp?|label value|request body) (string )?(is )?too ` +
		`(large|long)\b`),
	regexp.MustCompile(`(?i)\b(query|expression|regexp?|label value) size( in bytes)? exceeds`),
}

// MentionsSizeLimit reports whether the error message of a query API says that a query was too
// large or too expensive.
func MentionsSizeLimit(message string) bool {
	for _, p := range tooLargePatterns {
		if p.MatchString(message) {
			return true
		}
	}

	return false
}

// HintTooLarge is how to fix a query that upstream rejects for its size although it is about a
// single store.
const HintTooLarge = "a query about a single store is too large for upstream: raise the limit that it names"
