// SPDX-License-Identifier: Apache-2.0

package stack

import (
	"context"
	"os/exec"
	"path/filepath"
)

// ThanosFlags are the flags of a Prometheus that a Thanos sidecar stands next to.
var ThanosFlags = []string{"--storage.tsdb.min-block-duration=2h", "--storage.tsdb.max-block-duration=2h"}

// ThanosSidecar starts binary, a Thanos, as the sidecar of the Prometheus at url, which has its
// data under dir. Address is where it serves the store API.
func ThanosSidecar(ctx context.Context, name, binary, url, dir, address string) (*Process, error) {
	return startThanos(ctx, name, binary,
		"sidecar", "--prometheus.url="+url, "--tsdb.path="+filepath.Join(dir, dataDir), "--grpc-address="+address)
}

// ThanosQuery starts binary, a Thanos, as the querier of the store APIs in flags.
func ThanosQuery(ctx context.Context, name, binary string, flags ...string) (*Process, error) {
	return startThanos(ctx, name, binary, append([]string{"query", "--grpc-address=127.0.0.1:0"}, flags...)...)
}

// ThanosQueryFrontend starts binary, a Thanos, as the frontend of the querier at url.
func ThanosQueryFrontend(ctx context.Context, name, binary, url string) (*Process, error) {
	return startThanos(ctx, name, binary, "query-frontend", "--query-frontend.downstream-url="+url)
}

func startThanos(ctx context.Context, name, binary string, args ...string) (*Process, error) {
	if err := requireBinary(binary); err != nil {
		return nil, err
	}

	return Start(ctx, name, exec.CommandContext(ctx, binary, append(args, "--http-address=127.0.0.1:0")...))
}
