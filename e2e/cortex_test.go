// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/operator-store/operator_store_exporter/e2e/simulator"
	"github.com/operator-store/operator_store_exporter/e2e/stack"
)

// The tenants of TestCortex. Queries of the limited one may not fetch the buckets of two stores.
const (
	tenant        = "tikv"
	limitedTenant = "limited"
	seriesLimit   = 1200
)

// tenantTransport sends requests as a tenant.
type tenantTransport string

// RoundTrip implements http.RoundTripper.
func (tr tenantTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("X-Scope-OrgID", string(tr))
	return client.Transport.RoundTrip(r)
}

// The exporter with a real Cortex, which a Prometheus writes to.
func TestCortex(t *testing.T) {
	t.Parallel()

	f := newFleet(t)
	var instances []string
	for i := range 3 {
		name := fmt.Sprintf("tikv-%d", i)
		f.add(name, simulator.V7)
		instances = append(instances, name+":20180")
	}
	url := startCortex(t, f)

	as := func(cluster, tenant string) view {
		return view{
			cluster: cluster, upstream: url, client: &http.Client{Transport: tenantTransport(tenant)},
			instances: instances,
		}
	}

	views := []view{as("plain", tenant), as("late", tenant), as("limited", limitedTenant)}
	for _, v := range views {
		v.waitForSamples(t, "tikv_raftstore_log_lag_count")
	}
	exporter := startConfigured(t, fmt.Sprintf(`
clusters:
- name: plain
  upstream: &upstream {url: %[1]q, http_headers: {X-Scope-OrgID: {values: [%[2]s]}}}
- name: late
  upstream: *upstream
  query_offset: 3s
- name: limited
  upstream: {url: %[1]q, http_headers: {X-Scope-OrgID: {values: [%[3]s]}}}
- name: missing-tenant
  upstream: {url: %[1]q}
`, url, tenant, limitedTenant))
	p := requireUpstreamValues(t, exporter, views...)

	t.Run("a limit that rejects queries makes them smaller, and no failure is counted", func(t *testing.T) {
		requireRejected(t, views[2])
		if up := views[2].own(p, "upstream_up"); up != 1 {
			t.Errorf("upstream_up is %g, want 1", up)
		}
		if counted := views[2].failures(p); len(counted) > 0 {
			t.Errorf("failures are counted: %v", counted)
		}
	})
	t.Run("a query offset makes the evaluation time earlier", func(t *testing.T) {
		plain := views[0].own(p, "evaluation_timestamp_seconds")
		late := views[1].own(p, "evaluation_timestamp_seconds")
		if d := plain - late; d < 2 || d > 4 {
			t.Errorf("the evaluation time is %g s before the one without an offset, want 3", d)
		}
	})
	t.Run("a missing tenant is a clear error", func(t *testing.T) {
		if up := p[`operator_store_exporter_upstream_up{cluster="missing-tenant"}`]; up != 0 {
			t.Errorf("upstream_up is %g, want 0", up)
		}
		if failures := failuresBecause(p, "missing-tenant", "http", "targets"); failures == 0 {
			t.Error("no failure has the reason http")
		}
		if lines := exporter.log.matching("cluster=missing-tenant", "401 Unauthorized: no org id"); len(lines) != 1 {
			t.Errorf("the log has %q, want one line with the error", exporter.log.matching("level=warn"))
		}
	})
}

// startCortex starts a Cortex and the Prometheus of a fleet, which writes to both tenants. It
// returns the URL of Cortex' query API.
func startCortex(t *testing.T, f *fleet) string {
	t.Helper()

	overrides := fmt.Sprintf("  %s: {max_fetched_series_per_query: %d}\n", limitedTenant, seriesLimit)
	cortex, err := stack.Cortex(t.Context(), cortexBinary, t.TempDir(), overrides)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cortex.Kill() })

	push := cortex.URL + "/api/v1/push"
	f.startConfigured(t, stack.Config{RemoteWrites: []stack.RemoteWrite{
		{URL: push, Tenant: tenant}, {URL: push, Tenant: limitedTenant},
	}})
	return cortex.URL + "/prometheus"
}

// requireRejected fails the test unless Cortex rejects the query for all buckets of all stores.
func requireRejected(t *testing.T, v view) {
	t.Helper()

	_, err := v.query(t.Context(), "rate(tikv_grpc_msg_duration_seconds_bucket[1m])", "")
	if err == nil || !strings.Contains(err.Error(), "max number of series limit") {
		t.Fatalf("the query about all buckets returns the error %v, want that of the limit", err)
	}
}
