// SPDX-License-Identifier: Apache-2.0

package httpclient

import (
	"net/http"

	commonconfig "github.com/prometheus/common/config"
)

const maxRedirects = 10

// redirectPolicy returns a function for http.Client.CheckRedirect. Whoever controls a server could
// redirect the exporter to a server of their choice. The HTTP client adds the configured
// credentials to every request it sends, also to redirected ones, so a client with credentials
// follows redirects only to the same scheme, host and port. A redirect that is not followed is
// returned as the response.
func redirectPolicy(credentials bool) func(*http.Request, []*http.Request) error {
	return func(req *http.Request, via []*http.Request) error {
		original := via[0].URL
		sameServer := req.URL.Scheme == original.Scheme && req.URL.Host == original.Host
		if len(via) >= maxRedirects || credentials && !sameServer {
			return http.ErrUseLastResponse
		}

		return nil
	}
}

// sendsCredentials reports whether requests carry anything that other servers must not see. Custom
// headers count: they may contain an API key or a tenant.
func sendsCredentials(c commonconfig.HTTPClientConfig) bool {
	return c.BasicAuth != nil || c.Authorization != nil || c.OAuth2 != nil || len(headers(c)) > 0 ||
		c.BearerToken != "" || c.BearerTokenFile != "" || c.TLSConfig.Cert != "" || c.TLSConfig.CertFile != ""
}
