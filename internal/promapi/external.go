// SPDX-License-Identifier: Apache-2.0

package promapi

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"

	"github.com/operator-store/operator_store_exporter/internal/httpclient"
)

// ExternalURL returns where people find the pages of the server that answers, as Prometheus tells its flag
// --web.external-url, and "" where that is not set. Other backends have no such flags. The answer is not to be trusted
// further than to be linked: it is an http or https URL without credentials.
func (c *Client) ExternalURL(ctx context.Context) (string, error) {
	u := c.servers.Serving().JoinPath("/api/v1/status/flags")
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return "", &httpclient.Error{Reason: httpclient.ReasonConnection, Request: "GET " + u.Host, Err: err}
	}
	// Not by Try: that nobody tells a flag must not let another server answer the queries.
	_, body, err := c.servers.Do(ctx, req) //nolint:bodyclose // It is closed.
	if err != nil {
		return "", err
	}
	var answer struct{ Data map[string]string }
	if err := json.Unmarshal(body, &answer); err != nil {
		return "", &httpclient.Error{Reason: httpclient.ReasonResponse, Request: "answer of " + u.String(), Err: err, Hint: httpclient.HintURL}
	}
	external, err := url.Parse(answer.Data["web.external-url"])
	if err != nil || external.Scheme != "http" && external.Scheme != "https" || external.Hostname() == "" {
		return "", nil //nolint:nilerr // A flag that is no URL of a page is none.
	}
	return fmt.Sprintf("%s://%s%s", external.Scheme, external.Host, external.EscapedPath()), nil
}
