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

// Reason is why a query failed: the value of the label reason.
type Reason string

// The reasons there are. ReasonAmbiguous is not an answer of upstream but a store that two targets fit.
const (
	ReasonTimeout    Reason = "timeout"    // No answer in time, here or there.
	ReasonConnection Reason = "connection" // No connection, or one that broke.
	ReasonHTTP       Reason = "http"       // A status that is not the query API's.
	ReasonQuery      Reason = "query"      // Upstream refused the expression or failed to evaluate it.
	ReasonResponse   Reason = "response"   // An answer that is not what was asked for.
	ReasonLimit      Reason = "limit"      // An answer larger than we take.
)

// Reasons lists every Reason.
func Reasons() []Reason {
	return []Reason{
		ReasonTimeout, ReasonConnection, ReasonHTTP, ReasonQuery, ReasonResponse, ReasonLimit,
	}
}

// Permanent reports whether the same request will fail again, as far as the reason tells.
func (r Reason) Permanent() bool { return r == ReasonQuery || r == ReasonLimit }

// Error is a request that failed: what was attempted, what came back, what to do.
type Error struct {
	Reason  Reason
	Request string // Such as "POST http://localhost:9090/api/v1/query".
	Err     error
	Hint  string

	elsewhere bool // The status tells that another server may do better.
}

// Error implements error.
func (e *Error) Error() string {
	msg := fmt.Sprintf("%s: %s", e.Request, e.Err)
	if e.Hint != "" {
		msg += ": " + e.Hint
	}
	return msg
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// ReasonOf returns the reason of the Error in err's chain.
func ReasonOf(err error) Reason {
	var e *Error
	if errors.As(err, &e) {
		return e.Reason
	}
	return ReasonResponse
}

// failures are those of one server after the other.
type failures []error

// Error implements error.
func (f failures) Error() string {
	words := make([]string, len(f))
	for i, err := range f {
		words[i] = err.Error()
	}
	return strings.Join(words, "; then ")
}

// Unwrap returns the failures.
func (f failures) Unwrap() []error { return f }

// failover tells whether another server of the same data may do better.
func (e *Error) failover() bool {
	return e.Reason == ReasonConnection || e.Reason == ReasonTimeout || e.Reason == ReasonHTTP && e.elsewhere
}

var errTooBig = errors.New("body too large")

// What to do about a server that is slow, and about an address at which there is something else.
const (
	HintTimeout = "the server is slow or overloaded: raise the scrape timeout and the timeout in the configuration, or widen the scrape interval"
	HintLimit   = "narrow what is asked with selector, or raise "
	HintURL     = "does url point at the right API? check its host, port and path prefix"
)

// transportError classifies a request that got no whole answer.
func transportError(request string, err error) *Error {
	var (
		netErr net.Error
		own    *Error
	)
	switch {
	case errors.As(err, &own):
		return own
	case errors.Is(err, errTooBig):
		return &Error{Reason: ReasonLimit, Request: request, Err: err, Hint: HintLimit + "body_size_limit"}
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled),
		errors.As(err, &netErr) && netErr.Timeout():
		return &Error{Reason: ReasonTimeout, Request: request, Err: errors.New("no answer in time"), Hint: HintTimeout}
	default:
		return &Error{Reason: ReasonConnection, Request: request, Err: bare(err), Hint: connectionHint(err)}
	}
}

func connectionHint(err error) string {
	var (
		certificate *tls.CertificateVerificationError
		record      tls.RecordHeaderError
		alert       tls.AlertError
		lookup      *net.DNSError
		file        *fs.PathError
		token       *oauth2.RetrieveError
		op          *net.OpError
	)
	switch {
	case errors.As(err, &file):
		return "can the file that the configuration names for a secret or a certificate be read?"
	case errors.As(err, &token):
		return "check client_id, client_secret and token_url of oauth2"
	case errors.As(err, &op) && op.Op == "proxyconnect":
		return "is proxy_url right, and the proxy running?"
	case errors.As(err, &certificate):
		return "its certificate is not trusted: set tls_config with the ca_file that signed it, or with its server_name"
	case errors.As(err, &record) || strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		return "it does not speak TLS: write http:// into url"
	case errors.As(err, &alert):
		return "it refused the TLS handshake: check cert_file and key_file of tls_config"
	case errors.As(err, &lookup):
		return "its name can't be looked up: is the host in url right?"
	default:
		return "is it running, and is url right?"
	}
}

// bare is the innermost error that still says what happened: client errors repeat method and URL.
func bare(err error) error {
	var (
		op    *net.OpError
		file  *fs.PathError
		token *oauth2.RetrieveError
	)
	switch {
	case errors.As(err, &file):
		return file
	case errors.As(err, &token): // Its text repeats the answer, which may repeat the secret.
		return fmt.Errorf("the token_url of oauth2 answers %s", token.Response.Status)
	case errors.As(err, &op) && op.Op == "proxyconnect":
		return fmt.Errorf("proxy: %w", bare(op.Err))
	case errors.As(err, &op) && op.Addr != nil:
		return fmt.Errorf("%s %s: %w", op.Op, op.Addr, op.Err) // Without our own port, which is another each time.
	}
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err
		}
		err = inner
	}
}

// statusError classifies an answer whose status is not 2xx. The error's type, which only a query API
// tells, and message are what the body says of it.
func statusError(request string, resp *http.Response, errorType, message string) *Error {
	status := fmt.Sprintf("%d %s", resp.StatusCode, http.StatusText(resp.StatusCode))
	cause := errors.New(status)
	if message != "" {
		cause = fmt.Errorf("%s: %s", status, message)
	}
	if after := resp.Header.Get("Retry-After"); after != "" {
		cause = fmt.Errorf("%w (retry after %s)", cause, oneLine(after))
	}
	e := &Error{Reason: ReasonHTTP, Request: request, Err: cause}
	switch code := resp.StatusCode; {
	case errorType == "timeout" || errorType == "canceled" || timedOut(message):
		e.Reason, e.Hint = ReasonTimeout, HintTimeout
	case errorType != "" && (code == http.StatusBadRequest || code == http.StatusUnprocessableEntity):
		e.Reason = ReasonQuery
	case code == http.StatusUnauthorized || code == http.StatusForbidden:
		e.Hint = "check basic_auth, authorization or oauth2"
	case code == http.StatusNotFound || code == http.StatusMethodNotAllowed:
		e.Hint = HintURL
	case code == http.StatusTooManyRequests:
		e.Hint = "the server limits its callers: scrape less often or raise its limit"
	case code/100 == 3:
		e.Err = fmt.Errorf("%s to %s", status, location(resp))
		e.Hint = "redirects are not followed, or only ten times and with credentials to no other host: put the final address into url"
		e.elsewhere = true
	case code/100 == 5:
		e.elsewhere = true
	}
	return e
}

// location is where resp redirects to, without credentials or parameters.
func location(resp *http.Response) string {
	u, err := resp.Location()
	if err != nil {
		return "nowhere"
	}
	return u.Scheme + "://" + u.Host + u.Path
}

// A query that expires while it waits for its turn comes back as 400 bad_data: the words tell.
func timedOut(message string) bool {
	for _, words := range []string{"context deadline exceeded", "context canceled", "timed out"} {
		if strings.Contains(message, words) {
			return true
		}
	}
	return false
}

// AsError returns the first Error in err's chain.
func AsError(err error) (*Error, bool) {
	var e *Error
	ok := errors.As(err, &e)

	return e, ok
}

// Cause returns the text of err without hints.
func Cause(err error) string {
	return err.Error()
}

// HintOf returns the hint of the first Error in err's chain; "" if there is none.
func HintOf(err error) string {
	if e, ok := AsError(err); ok {
		return e.Hint
	}

	return ""
}
