// SPDX-License-Identifier: Apache-2.0

package httpclient

import (
	"errors"
	"slices"
	"strings"
)

// Reason is why a request failed: a value of the label reason.
type Reason string

// The reasons for which a request fails.
const (
	ReasonTimeout    Reason = "timeout"    // No response in time, or the server ran out of time.
	ReasonConnection Reason = "connection" // No connection, or the connection broke.
	ReasonHTTP       Reason = "http"       // A status that is not a response of the query API.
	ReasonQuery      Reason = "query"      // Upstream rejected the expression or failed to evaluate it.
	ReasonResponse   Reason = "response"   // A response that is malformed or not of the requested kind.
	ReasonLimit      Reason = "limit"      // A response that is larger than a configured limit.
	ReasonPartial    Reason = "partial"    // A response that may lack series.
)

// Reasons returns every Reason.
func Reasons() []Reason {
	return []Reason{
		ReasonTimeout, ReasonConnection, ReasonHTTP, ReasonQuery, ReasonResponse, ReasonLimit, ReasonPartial,
	}
}

// Permanent reports whether repeating the same request is pointless, as far as the reason shows.
func (r Reason) Permanent() bool { return r == ReasonQuery || r == ReasonLimit }

// Error is a failed request to one server.
type Error struct {
	Reason     Reason
	Request    string // What was attempted, such as "POST http://localhost:9090/api/v1/query".
	Err        error  // What happened.
	Hint       string // How to fix it; "" if that is not known.
	StatusCode int    // The status of the response; 0 if none was received.

	// TooLarge reports whether the server rejected the query for its size or cost, so that a
	// smaller one may succeed.
	TooLarge bool

	tryNext bool // The status shows that another server may succeed.
}

// Error returns "REQUEST: ERR: HINT".
func (e *Error) Error() string { return withHint(e.cause(), e.Hint) }

// Unwrap returns what happened.
func (e *Error) Unwrap() error { return e.Err }

func (e *Error) cause() string { return e.Request + ": " + e.Err.Error() }

// failover reports whether another server with the same data may succeed. It may if the server
// could not be reached, did not respond in time, is broken, or lacks data. It would not if the
// request itself is wrong: a wrong password or expression has to be fixed, and a server that
// happens to accept it must not hide that.
func (e *Error) failover() bool {
	switch e.Reason {
	case ReasonConnection, ReasonTimeout, ReasonPartial:
		return true
	default:
		return e.Reason == ReasonHTTP && e.tryNext
	}
}

// serverErrors are the errors of several servers, in the order in which they were tried.
type serverErrors []error

// Error returns "REQUEST: ERR: HINT; then REQUEST: ERR: HINT". A hint that several servers have in
// common is given once, for the last of them.
func (s serverErrors) Error() string {
	texts := make([]string, len(s))
	for i, err := range s {
		texts[i] = err.Error()
		if hint := HintOf(err); hint != "" && s[i+1:].haveHint(hint) {
			texts[i] = Cause(err)
		}
	}

	return joinServers(texts)
}

// Unwrap returns the errors of the servers.
func (s serverErrors) Unwrap() []error { return s }

func (s serverErrors) haveHint(hint string) bool {
	for _, err := range s {
		if HintOf(err) == hint {
			return true
		}
	}

	return false
}

// AsError returns the first Error in err's tree: if several servers failed, the one of the first of
// them.
func AsError(err error) (*Error, bool) {
	var e *Error
	ok := errors.As(err, &e)

	return e, ok
}

// ReasonOf returns the reason of the first Error in err's tree, and ReasonResponse if there is
// none.
func ReasonOf(err error) Reason {
	if e, ok := AsError(err); ok {
		return e.Reason
	}

	return ReasonResponse
}

// Cause returns the text of err without hints: for one server "REQUEST: ERR", for several servers
// "REQUEST: ERR; then REQUEST: ERR". What a wrapper adds stays: the cause of fmt.Errorf("%w: old
// stores stay in use", e) is "REQUEST: ERR: old stores stay in use".
//
// The text of a wrapper contains the text of the error it wraps. Cause replaces the latter, from
// the inside out. A wrapper that does not repeat the wrapped error's text has nothing to replace.
func Cause(err error) string {
	switch e := err.(type) { //nolint:errorlint // Wrappers are unwrapped below, to keep their text.
	case nil:
		return ""
	case *Error:
		return e.cause()
	case serverErrors:
		texts := make([]string, len(e))
		for i, err := range e {
			texts[i] = Cause(err)
		}

		return joinServers(texts)
	}

	text := err.Error()
	for _, wrapped := range unwrap(err) {
		text = strings.Replace(text, wrapped.Error(), Cause(wrapped), 1)
	}

	return text
}

// HintOf returns the hint of the last Error in err's tree that has one: if several servers failed,
// the one of the last of them that has a hint. It returns "" if there is none.
func HintOf(err error) string {
	if e, ok := err.(*Error); ok { //nolint:errorlint // Wrappers are unwrapped below.
		return e.Hint
	}

	hint := ""
	for _, wrapped := range unwrap(err) {
		if h := HintOf(wrapped); h != "" {
			hint = h
		}
	}

	return hint
}

// IsTooLarge reports whether a server rejected the query for its size or cost, so that a smaller
// one may succeed.
func IsTooLarge(err error) bool {
	if e, ok := err.(*Error); ok { //nolint:errorlint // Wrappers are unwrapped below.
		return e.TooLarge
	}

	return slices.ContainsFunc(unwrap(err), IsTooLarge)
}

// unwrap returns the errors that err wraps directly.
func unwrap(err error) []error {
	switch e := err.(type) { //nolint:errorlint // It is what errors.As does itself.
	case interface{ Unwrap() error }:
		if wrapped := e.Unwrap(); wrapped != nil {
			return []error{wrapped}
		}
	case interface{ Unwrap() []error }:
		return e.Unwrap()
	}

	return nil
}

func withHint(text, hint string) string {
	if hint == "" {
		return text
	}

	return text + ": " + hint
}

func joinServers(texts []string) string { return strings.Join(texts, "; then ") }
