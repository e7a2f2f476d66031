// SPDX-License-Identifier: Apache-2.0

package httpclient

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"strings"

	"golang.org/x/oauth2"
)

// The hints that callers share.
const (
	// HintTimeout is how to fix a server that does not respond in time.
	HintTimeout = "the server is slow or overloaded: raise the scrape timeout and the timeout in the configuration, " +
		"or widen the scrape interval"
	// HintURL is how to fix a URL at which there is something else than the expected API.
	HintURL = "does url point at the right API? check its host, port and path prefix"
)

// HintLimit returns how to fix a response that exceeds the given limit of the configuration.
func HintLimit(limit string) string { return "narrow the queries with selector, or raise " + limit }

var errBodyTooLarge = errors.New("the response body is too large")

// transportError classifies a request to which no complete response was received.
func transportError(request string, err error) *Error {
	e := &Error{Request: request}

	var netErr net.Error
	switch {
	case errors.Is(err, errBodyTooLarge):
		e.Reason, e.Err, e.Hint = ReasonLimit, err, HintLimit("body_size_limit")
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled),
		errors.As(err, &netErr) && netErr.Timeout():
		e.Reason, e.Err, e.Hint = ReasonTimeout, errors.New("no response in time"), HintTimeout
	default:
		e.Reason, e.Err, e.Hint = ReasonConnection, connectionCause(err), connectionHint(err)
	}

	return e
}

// connectionHint returns how to fix a connection that failed with err.
func connectionHint(err error) string {
	var (
		file        *fs.PathError
		token       *oauth2.RetrieveError
		op          *net.OpError
		certificate *tls.CertificateVerificationError
		record      tls.RecordHeaderError
		lookup      *net.DNSError
	)

	switch {
	case errors.As(err, &file):
		return "check that the secret and certificate files in the configuration can be read"
	case errors.As(err, &token):
		return "check client_id, client_secret and token_url of oauth2"
	case errors.As(err, &op) && op.Op == "proxyconnect":
		return "is the proxy running, and is proxy_url right?"
	case errors.As(err, &certificate):
		return "the server's certificate is not trusted: in tls_config, set ca_file to the CA that signed it, " +
			"or server_name to the name it is for"
	case errors.As(err, &record) || strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		return "the server does not speak TLS: use http:// in url"
	case errors.As(err, &op) && op.Op == "remote error": // How crypto/tls returns an alert.
		return "the server refused the TLS handshake: check cert_file and key_file of tls_config"
	case errors.As(err, &lookup):
		return "the host name cannot be resolved: is the host in url right?"
	default:
		return "is it running, and is url right?"
	}
}

// connectionCause returns the innermost error that still says what happened. The outer errors of
// net/http repeat the method and URL. A network error keeps the address it concerns but not the
// local port, which differs each time and would make each failure look like a new one.
func connectionCause(err error) error {
	var (
		file  *fs.PathError
		token *oauth2.RetrieveError
		op    *net.OpError
	)

	switch {
	case errors.As(err, &file):
		return file
	case errors.As(err, &token): // Its text repeats the body of the response, which may contain the secret.
		return fmt.Errorf("the token_url of oauth2 returned %s", token.Response.Status)
	case errors.As(err, &op) && op.Op == "proxyconnect":
		return fmt.Errorf("proxy: %w", connectionCause(op.Err))
	case errors.As(err, &op) && op.Addr != nil:
		return fmt.Errorf("%s %s: %w", op.Op, op.Addr, op.Err)
	}

	for {
		wrapped := errors.Unwrap(err)
		if wrapped == nil {
			return err
		}
		err = wrapped
	}
}

// statusError classifies a response whose status is not 2xx, by its status and by what its body
// says.
//
// The query API has its own error types, and a status alone is ambiguous. Prometheus returns 400
// for an expression that it cannot parse, but also for a query that expired while it waited for its
// turn: only the error type or the message shows that the latter is a timeout, which goes away by
// itself. Without an error type, the response is that of a proxy or another program, so that 400 is
// not a statement about the expression.
func statusError(request string, resp *http.Response, body apiError) *Error {
	status := fmt.Sprintf("%d %s", resp.StatusCode, http.StatusText(resp.StatusCode))
	e := &Error{
		Reason: ReasonHTTP, Request: request, Err: statusCause(status, resp, body.message),
		StatusCode: resp.StatusCode,
	}

	switch code := resp.StatusCode; {
	case body.tooLarge || code == http.StatusRequestEntityTooLarge || code == http.StatusRequestURITooLong:
		e.Reason, e.Hint, e.TooLarge = ReasonQuery, HintTooLarge, true
		if body.kind == "" && !body.tooLarge {
			e.Reason = ReasonHTTP
		}
	case body.timedOut():
		e.Reason, e.Hint = ReasonTimeout, HintTimeout
	case body.kind != "" && (code == http.StatusBadRequest || code == http.StatusUnprocessableEntity):
		e.Reason = ReasonQuery
	case code == http.StatusUnauthorized || code == http.StatusForbidden:
		e.Hint = "check basic_auth, authorization or oauth2"
	case code == http.StatusNotFound || code == http.StatusMethodNotAllowed:
		e.Hint = HintURL
	case code == http.StatusTooManyRequests:
		e.Hint = "the server limits its clients: scrape less often, or raise its limit"
	case code/100 == 3:
		e.Err = fmt.Errorf("%s: redirect to %s", status, location(resp))
		e.Hint = "redirects are not followed by default, and with follow_redirects only ten times and, with " +
			"credentials, not to another host: set url to the final address"
		e.tryNext = true
	case code/100 == 5:
		e.tryNext = true
	}

	return e
}

// statusCause returns what a response with the given status says.
func statusCause(status string, resp *http.Response, message string) error {
	text := status
	if message != "" {
		text += ": " + message
	}
	if after := resp.Header.Get("Retry-After"); after != "" {
		text += fmt.Sprintf(" (retry after %s)", oneLine(after))
	}

	return errors.New(text)
}

// location returns the URL that resp redirects to, without credentials or parameters.
func location(resp *http.Response) string {
	u, err := resp.Location()
	if err != nil {
		return "nowhere"
	}

	return u.Scheme + "://" + u.Host + u.Path
}
