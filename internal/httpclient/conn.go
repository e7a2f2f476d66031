// SPDX-License-Identifier: Apache-2.0

package httpclient

import (
	"context"
	"net"
	"time"

	commonconfig "github.com/prometheus/common/config"
)

// dialWithDeadline returns a function that dials connections which wait at most timeout for a
// response to what was written last.
func dialWithDeadline(timeout time.Duration) commonconfig.DialContextFunc {
	dialer := net.Dialer{Timeout: timeout}

	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dialer.DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}

		return deadlineConn{Conn: conn, timeout: timeout}, nil
	}
}

// deadlineConn is a connection that fails once nothing was written to it for the timeout. A request
// is one or more writes, so that each request on a reused connection starts with the full timeout.
type deadlineConn struct {
	net.Conn
	timeout time.Duration
}

// Write implements net.Conn.
func (c deadlineConn) Write(p []byte) (int, error) {
	if err := c.SetDeadline(time.Now().Add(c.timeout)); err != nil {
		return 0, err
	}

	return c.Conn.Write(p)
}
