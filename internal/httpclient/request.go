// SPDX-License-Identifier: Apache-2.0

package httpclient

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/operator-store/operator_store_exporter/config"
)

// Do sends req to its server and returns the body of the response. It waits while ConcurrencyLimit
// requests are in progress. Errors are of type *Error, also for a response whose status is not 2xx.
// They name the request by its method and by its URL without parameters.
func (s *Servers) Do(ctx context.Context, req *http.Request) ([]byte, error) {
	withoutParams := *req.URL
	withoutParams.RawQuery = ""
	request := req.Method + " " + withoutParams.String()

	if err := s.acquireSlot(ctx, request); err != nil {
		return nil, err
	}
	resp := s.send(req.WithContext(ctx))

	switch {
	case resp.err != nil:
		e := transportError(request, resp.err)
		if resp.Response != nil {
			e.StatusCode = resp.StatusCode
		}

		return nil, e
	case resp.StatusCode/100 != 2:
		return nil, statusError(request, resp.Response, s.parseAPIError(resp.body))
	case resp.Header.Get("Content-Encoding") != "":
		return nil, &Error{
			Reason: ReasonResponse, Request: request, Hint: HintURL, StatusCode: resp.StatusCode,
			Err: fmt.Errorf("the response is compressed with %s, which was not requested",
				oneLine(resp.Header.Get("Content-Encoding"))),
		}
	}

	return resp.body, nil
}

// acquireSlot waits until fewer requests than ConcurrencyLimit are in progress.
func (s *Servers) acquireSlot(ctx context.Context, request string) error {
	select {
	case s.slots <- struct{}{}:
		return nil
	default:
	}

	s.queued.Add(1)

	select {
	case s.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return &Error{
			Reason: ReasonTimeout, Request: request, Hint: HintTimeout,
			Err: fmt.Errorf("timed out waiting for one of %d request slots", cap(s.slots)),
		}
	}
}

func (s *Servers) releaseSlot() { <-s.slots }

// response is a response with its body, or why there is none. The body is closed.
type response struct {
	*http.Response
	body []byte
	err  error
}

// send sends req and reads the response. It returns when the context of req ends, and releases the
// slot of the request.
//
// Usually both happen at once. But the OAuth2 client fetches tokens without regard to the context
// of the request that needs one, so that a fetch may go on after the request has been given up. A
// goroutine carries on with it, so that the caller does not wait, and keeps the slot until it ends.
// If it released the slot early, every scrape would add another fetch to a token server that hangs,
// without limit. The deadline of the connection (see dialWithDeadline) bounds how long the
// goroutine lives.
func (s *Servers) send(req *http.Request) response {
	if !s.fetchTokens {
		return s.roundTrip(req)
	}

	responses := make(chan response, 1)
	go func() { responses <- s.roundTrip(req) }()

	select {
	case resp := <-responses:
		return resp
	case <-req.Context().Done():
		return response{err: req.Context().Err()}
	}
}

// roundTrip sends req, reads the response and releases the slot of the request.
func (s *Servers) roundTrip(req *http.Request) response {
	defer s.releaseSlot()

	resp, err := s.client.Do(req)
	if err != nil {
		return response{err: err}
	}
	defer resp.Body.Close()
	body, err := s.readBody(resp)

	return response{Response: resp, body: body, err: err}
}

// readBody reads at most BodySizeLimit bytes. A response whose length is known to exceed it is not
// read at all.
func (s *Servers) readBody(resp *http.Response) ([]byte, error) {
	limit := config.Size(s.maxBodyBytes)
	if resp.ContentLength > s.maxBodyBytes {
		return nil, fmt.Errorf("%w: %d bytes, over body_size_limit of %s", errBodyTooLarge, resp.ContentLength, limit)
	}

	body, err := io.ReadAll(io.LimitReader(resp.Body, s.maxBodyBytes+1))
	if int64(len(body)) > s.maxBodyBytes {
		return nil, fmt.Errorf("%w: over body_size_limit of %s", errBodyTooLarge, limit)
	}

	return body, err
}

// maxErrorText bounds what is read of the body of a failed response that is not the query API's.
const maxErrorText = 16 << 10

// apiError is what the body of a failed response says.
type apiError struct {
	kind    string // The errorType of the query API, such as "bad_data"; "" if another program responded.
	message string
	// tooLarge reports whether the message says that the query was rejected for its size or cost.
	tooLarge bool
}

// parseAPIError returns the error in a response of the query API, or the beginning of any other
// body.
func (s *Servers) parseAPIError(body []byte) apiError {
	var parsed struct {
		ErrorType string `json:"errorType"`
		Error     string `json:"error"`
	}
	if json.Unmarshal(body, &parsed) == nil && parsed.Error != "" {
		return apiError{
			kind: parsed.ErrorType, message: s.Sanitize(parsed.Error), tooLarge: MentionsSizeLimit(parsed.Error),
		}
	}

	text := string(body[:min(len(body), maxErrorText)])

	return apiError{message: s.Sanitize(text), tooLarge: MentionsSizeLimit(text)}
}

// timedOut reports whether the server gave up because the query took too long, or because it was
// canceled. A query that expires while it waits for its turn has the type "bad_data": only its
// message shows the timeout.
func (a apiError) timedOut() bool {
	if a.kind == "timeout" || a.kind == "canceled" {
		return true
	}

	for _, text := range []string{"context deadline exceeded", "context canceled", "timed out"} {
		if strings.Contains(a.message, text) {
			return true
		}
	}

	return false
}
