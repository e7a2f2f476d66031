// SPDX-License-Identifier: Apache-2.0

package httpclient

import (
	"cmp"
	"regexp"
	"slices"
	"strings"
	"unicode"

	commonconfig "github.com/prometheus/common/config"
)

// credentials are what an Authorization header contains, as an error page may repeat it.
var credentials = regexp.MustCompile(`(?i)\b(basic|bearer|digest|token)\s+[A-Za-z0-9._~+/=-]{4,}`)

const redacted = "<secret>"

// Sanitize returns a message of a server as one line for people. It has no credentials: some
// servers and proxies repeat the request, with the credentials the exporter sent, in their error
// messages, and these end up in the log and on the status page. Sanitize hides the secrets of the
// configuration and whatever looks like an Authorization header, which covers secrets from files
// and OAuth2 tokens.
func (s *Servers) Sanitize(message string) string {
	// Shorten after redacting: half of a secret would not be recognized.
	const enough = 64 << 10
	message = message[:min(len(message), enough)]

	return oneLine(s.secrets.Replace(credentials.ReplaceAllString(message, "$1 "+redacted)))
}

// newSecretReplacer returns a replacer that hides the secrets in the configuration itself.
func newSecretReplacer(c commonconfig.HTTPClientConfig) *strings.Replacer {
	var secrets []string
	hide := func(values ...commonconfig.Secret) {
		for _, v := range values {
			if v != "" {
				secrets = append(secrets, string(v))
			}
		}
	}

	hide(c.BearerToken)
	if c.BasicAuth != nil {
		hide(c.BasicAuth.Password)
	}
	if c.Authorization != nil {
		hide(c.Authorization.Credentials)
	}
	if c.OAuth2 != nil {
		hide(c.OAuth2.ClientSecret)
	}

	for _, h := range headers(c) {
		hide(h.Secrets...)
	}

	for _, values := range c.ProxyConnectHeader {
		hide(values...)
	}

	// Long secrets first: another secret may be the beginning of one.
	slices.SortFunc(secrets, func(a, b string) int { return cmp.Compare(len(b), len(a)) })

	var pairs []string
	for _, secret := range secrets {
		pairs = append(pairs, secret, redacted)
	}

	return strings.NewReplacer(pairs...)
}

func headers(c commonconfig.HTTPClientConfig) map[string]commonconfig.Header {
	if c.HTTPHeaders == nil {
		return nil
	}

	return c.HTTPHeaders.Headers
}

// oneLine returns the printable characters of s, with runs of other characters replaced by a space.
// If there are more than 200, it leaves out those in the middle: errors of nested calls, such as
// those of Thanos, begin with where they happened and end with the cause.
func oneLine(s string) string {
	const (
		maxRunes = 200
		ellipsis = "..."
		head     = 100
		tail     = maxRunes - head - len(ellipsis)
	)
	words := strings.FieldsFunc(strings.ToValidUTF8(s, ""), func(r rune) bool {
		return unicode.IsSpace(r) || !unicode.IsPrint(r)
	})
	runes := []rune(strings.Join(words, " "))

	if len(runes) <= maxRunes {
		return string(runes)
	}

	return string(runes[:head]) + ellipsis + string(runes[len(runes)-tail:])
}
