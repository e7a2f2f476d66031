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

// ExternalURL returns the URL under which people reach the pages of the active server: the flag
// --web.external-url of Prometheus, or "" if it is not set. Other backends have no such flag. The
// server could return anything, so the result is only fit to be linked: an http or https URL
// without credentials, parameters or fragment.
func (c *Client) ExternalURL(ctx context.Context) (string, error) {
	u := c.servers.Active().JoinPath("/api/v1/status/flags")

	// Without failover: a server that does not show its flags must not make another server active.
	body, err := c.get(ctx, u)
	if err != nil {
		return "", err
	}

	var flags struct{ Data map[string]string }
	if err := json.Unmarshal(body, &flags); err != nil {
		return "", &httpclient.Error{
			Reason: httpclient.ReasonResponse, Request: "response from " + u.String(), Err: err,
			Hint: httpclient.HintURL, StatusCode: http.StatusOK,
		}
	}

	external, err := url.Parse(flags.Data["web.external-url"])
	if err != nil || external.Scheme != "http" && external.Scheme != "https" || external.Hostname() == "" {
		return "", nil //nolint:nilerr // A flag that is not the URL of a page is the same as no flag.
	}

	return fmt.Sprintf("%s://%s%s", external.Scheme, external.Host, external.EscapedPath()), nil
}
