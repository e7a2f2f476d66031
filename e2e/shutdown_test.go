// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"net/http"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// On SIGTERM a scrape that is under way finishes with every gauge, and the exporter exits with status 0.
func TestSIGTERM(t *testing.T) {
	upstream := startFleet(t, 1)
	queried, gate := make(chan struct{}), make(chan struct{})
	var once sync.Once
	_, address := startProxy(t, upstream.URL, func(form url.Values) http.HandlerFunc {
		if strings.HasPrefix(form.Get("query"), "up{") {
			once.Do(func() { close(queried) })
			<-gate
		}
		return nil
	})
	exporter, log := startProcess(t, "--upstream.url="+address)

	type result struct {
		page page
		err  error
	}
	done := make(chan result, 1)
	go func() {
		page, err := tryScrape(t.Context(), exporter.URL+"/metrics", time.Minute)
		done <- result{page, err}
	}()
	<-queried
	if err := exporter.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	log.wait(t, "Stopping")
	close(gate)

	r := <-done
	if n := len(r.page.with("operator_store_", "address=")); r.err != nil || n != perStore {
		t.Errorf("the scrape under way got %d gauges and the error %v, want %d gauges", n, r.err, perStore)
	}
	<-exporter.Exited()
	if err := exporter.Stop(); err != nil {
		t.Errorf("the exporter ended with %v, want exit status 0:\n%s", err, exporter.Log())
	}
}
