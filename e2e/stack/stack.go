// SPDX-License-Identifier: Apache-2.0

// Package stack starts the servers of the demo and of the end-to-end tests on loopback.
package stack

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Process is a running server.
type Process struct {
	Name string
	URL  string // For example http://127.0.0.1:41234, without a trailing slash.

	cmd    *exec.Cmd
	exited chan struct{} // Closed when the process has ended.
	err    error         // How the process ended, once it has.
	log    *tail
}

// Prometheus and exporter-toolkit log the address at which they listen, so servers can listen on
// free ports.
var listening = regexp.MustCompile(`msg="Listening on".* address=(127\.0\.0\.1:[0-9]+)`)

// Start starts a server and waits until it logs the address at which it listens. If ctx ends before
// that, the server is killed. What the server writes to its standard error is also written to
// cmd.Stderr if that is set.
func Start(ctx context.Context, name string, cmd *exec.Cmd) (*Process, error) {
	p, address, err := launch(name, cmd)
	if err != nil {
		return nil, err
	}

	select {
	case a := <-address:
		p.URL = "http://" + a
		return p, nil
	case <-p.exited:
		return nil, p.endedEarly()
	case <-ctx.Done():
		_ = p.Kill()
		return nil, fmt.Errorf("wait until %s listens: %w; its log:\n%s", name, ctx.Err(), p.log)
	}
}

func (p *Process) endedEarly() error {
	return fmt.Errorf("%s ended before it listened: %w; its log:\n%s", p.Name, p.err, p.log)
}

// launch starts a server. If the server logs the address at which it listens, the channel receives
// that.
func launch(name string, cmd *exec.Cmd) (*Process, <-chan string, error) {
	tee := cmd.Stderr
	cmd.Stderr = nil
	var stderr io.Reader
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return nil, nil, err
	}
	if tee != nil {
		stderr = io.TeeReader(stderr, tee)
	}

	cmd.SysProcAttr = childAttributes()
	p := &Process{Name: name, cmd: cmd, exited: make(chan struct{}), log: &tail{}}
	if err := cmd.Start(); err != nil {
		return nil, nil, fmt.Errorf("start %s: %w", name, err)
	}

	address := make(chan string, 1)
	go func() {
		defer close(p.exited)
		p.read(stderr, address)
		p.err = cmd.Wait()
	}()

	return p, address, nil
}

// read keeps the log, and sends the first address at which the server listens.
func (p *Process) read(stderr io.Reader, address chan<- string) {
	lines := bufio.NewScanner(stderr)
	lines.Buffer(nil, 1<<20)

	sent := false
	for lines.Scan() {
		p.log.add(lines.Bytes())
		if m := listening.FindSubmatch(lines.Bytes()); m != nil && !sent {
			sent = true
			address <- string(m[1])
		}
	}
	_, _ = io.Copy(io.Discard, stderr)
}

// Stop ends the process with SIGTERM, as an init system does, and returns how it ended.
func (p *Process) Stop() error { return p.end(syscall.SIGTERM) }

// Kill ends the process with SIGKILL.
func (p *Process) Kill() error { return p.end(syscall.SIGKILL) }

func (p *Process) end(signal os.Signal) error {
	_ = p.cmd.Process.Signal(signal) // It fails if the process has already ended.
	<-p.exited
	return p.err
}

// Signal sends a signal to the process.
func (p *Process) Signal(s os.Signal) error { return p.cmd.Process.Signal(s) }

// PID returns the process ID.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Exited returns a channel that is closed when the process has ended.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// Log returns the last lines that the process wrote to its standard error.
func (p *Process) Log() string { return p.log.String() }

// tail keeps the last lines that were added.
type tail struct {
	mu    sync.Mutex
	lines [][]byte
}

func (t *tail) add(line []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()

	t.lines = append(t.lines, bytes.Clone(line))
	if len(t.lines) > 200 {
		t.lines = t.lines[1:]
	}
}

// String implements fmt.Stringer.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.Join(t.lines, []byte("\n")))
}

// VictoriaMetrics starts binary, a VictoriaMetrics, with its data under dir. It scrapes targets
// every interval.
func VictoriaMetrics(
	ctx context.Context, name, binary, dir string, interval time.Duration, targets []Target, flags ...string,
) (*Process, error) {
	if err := prepare(binary, dir, Config{Interval: interval, Targets: targets}); err != nil {
		return nil, err
	}
	address, err := FreeAddress(ctx)
	if err != nil {
		return nil, err
	}
	p, _, err := launch(name, exec.CommandContext(ctx, binary, append([]string{
		"-promscrape.config=" + filepath.Join(dir, configFile), "-storageDataPath=" + filepath.Join(dir, dataDir),
		"-httpListenAddr=" + address, "-search.latencyOffset=1s", "-retentionPeriod=1d",
	}, flags...)...))
	if err != nil {
		return nil, err
	}

	p.URL = "http://" + address
	if err := p.waitUntilListening(ctx, address); err != nil {
		_ = p.Kill()
		return nil, err
	}

	return p, nil
}

// waitUntilListening waits until the server accepts a connection. It fails if the server ends.
func (p *Process) waitUntilListening(ctx context.Context, address string) error {
	err := Until(ctx, p.Name+" to listen", func(ctx context.Context) (bool, error) {
		select {
		case <-p.exited:
			return true, nil
		default:
		}
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
		if err != nil {
			return false, err
		}
		return true, conn.Close()
	})

	select {
	case <-p.exited:
		return p.endedEarly()
	default:
	}
	if err != nil {
		return fmt.Errorf("%w; its log:\n%s", err, p.log)
	}

	return nil
}

// FreeAddress returns an address on loopback with a free port, for servers that do not log which
// port they took.
func FreeAddress(ctx context.Context) (string, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// Until calls done again and again until it returns true. If ctx ends before that, the error
// contains the last error of done.
func Until(ctx context.Context, what string, done func(context.Context) (bool, error)) error {
	return UntilEvery(ctx, 50*time.Millisecond, what, done)
}

// UntilEvery is Until with a pause between two calls, for conditions that take long to check.
func UntilEvery(
	ctx context.Context, pause time.Duration, what string, done func(context.Context) (bool, error),
) error {
	tick := time.NewTicker(pause)
	defer tick.Stop()

	var last error
	for {
		ok, err := done(ctx)
		if ok {
			return nil
		}
		if ctx.Err() == nil { // Otherwise, the error may only be that of ctx.
			last = err
		}

		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", what, errors.Join(ctx.Err(), last))
		}
	}
}

// Host returns the host and port of a URL such as http://127.0.0.1:41234, as scrape configs want
// them.
func Host(url string) string { return strings.TrimPrefix(url, "http://") }
