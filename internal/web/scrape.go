// SPDX-License-Identifier: Apache-2.0

package web

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// writeTimeout is how long a client may take to read the response after the scrape.
const writeTimeout = 30 * time.Second

// defaultScrapeTimeout is that of Prometheus. It applies to clients that do not send theirs.
const defaultScrapeTimeout = 10 * time.Second

// A scrapeFunc responds to a request with a scrape of the named clusters, or of all clusters if the
// list is empty. The scrape ends with the request's context. The error says what is wrong with the
// request; whatever upstream does is not an error.
type scrapeFunc func(w http.ResponseWriter, r *http.Request, clusters []string) error

// scrapeHandlers are the handlers that scrape. They share the limit of parallel scrapes.
type scrapeHandlers struct {
	timeoutOffset time.Duration
	maxRequests   int           // 0 means no limit.
	slots         chan struct{} // One element for each scrape in progress.
}

func newScrapeHandlers(o Options) scrapeHandlers {
	return scrapeHandlers{
		timeoutOffset: o.TimeoutOffset,
		maxRequests:   o.MaxRequests,
		slots:         make(chan struct{}, o.MaxRequests),
	}
}

// handler returns a handler that calls serve within the limits of parallel scrapes and of time.
func (h scrapeHandlers) handler(serve scrapeFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !h.acquireSlot() {
			http.Error(w, fmt.Sprintf("%d scrapes are in progress: scrape less often, or raise --web.max-requests.",
				h.maxRequests), http.StatusServiceUnavailable)

			return
		}
		defer h.releaseSlot()

		budget := scrapeBudget(r, h.timeoutOffset)
		// A client that does not read the response must not keep its slot forever. Setting the
		// deadline fails only in tests, whose responses have none.
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(budget + writeTimeout))
		ctx, cancel := context.WithTimeout(r.Context(), budget)
		defer cancel()

		params, err := url.ParseQuery(r.URL.RawQuery)
		if err != nil {
			http.Error(w, fmt.Sprintf("invalid URL parameters: %s: use ?cluster=NAME&cluster=NAME", err),
				http.StatusBadRequest)

			return
		}
		if err := serve(w, r.WithContext(ctx), params["cluster"]); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
		}
	})
}

func (h scrapeHandlers) acquireSlot() bool {
	if h.maxRequests == 0 {
		return true
	}

	select {
	case h.slots <- struct{}{}:
		return true
	default:
		return false
	}
}

func (h scrapeHandlers) releaseSlot() {
	if h.maxRequests > 0 {
		<-h.slots
	}
}

// scrapeBudget returns how long a scrape may take: the scraper's timeout minus offset, but at least
// half of the timeout.
func scrapeBudget(r *http.Request, offset time.Duration) time.Duration {
	timeout := defaultScrapeTimeout
	seconds, err := strconv.ParseFloat(r.Header.Get("X-Prometheus-Scrape-Timeout-Seconds"), 64)
	if err == nil && seconds > 0 && seconds <= time.Hour.Seconds() {
		timeout = time.Duration(seconds * float64(time.Second))
	}

	return max(timeout-offset, timeout/2)
}
