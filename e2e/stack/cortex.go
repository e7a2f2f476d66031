// SPDX-License-Identifier: Apache-2.0

package stack

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
)

// cortexConfig configures a Cortex of one process that requires a tenant and keeps everything under
// its directory. The limits of single tenants are in a separate file.
const cortexConfig = `
auth_enabled: true
server:
  http_listen_address: 127.0.0.1
  http_listen_port: %[1]s
  grpc_listen_address: 127.0.0.1
  grpc_listen_port: %[2]s
distributor:
  ring: {instance_addr: 127.0.0.1, kvstore: {store: inmemory}}
ingester:
  lifecycler:
    address: 127.0.0.1
    join_after: 0s
    min_ready_duration: 0s
    final_sleep: 0s
    ring: {kvstore: {store: inmemory}, replication_factor: 1}
compactor:
  data_dir: %[3]s/compactor
  sharding_ring: {instance_addr: 127.0.0.1, kvstore: {store: inmemory}}
store_gateway:
  sharding_ring: {instance_addr: 127.0.0.1, replication_factor: 1, kvstore: {store: inmemory}}
blocks_storage:
  backend: filesystem
  filesystem: {dir: %[3]s/blocks}
  tsdb: {dir: %[3]s/tsdb}
  bucket_store: {sync_dir: %[3]s/sync}
ruler:
  rule_path: %[3]s/rules
  ring: {instance_addr: 127.0.0.1, kvstore: {store: inmemory}}
ruler_storage: {backend: local, local: {directory: %[3]s/rules}}
alertmanager: {external_url: http://127.0.0.1, data_dir: %[3]s/alertmanager, cluster: {listen_address: ""}}
alertmanager_storage: {backend: local, local: {path: %[3]s/alertmanager}}
runtime_config: {file: %[3]s/overrides.yml}
`

// Cortex starts binary, a Cortex, with its data under dir. Overrides is YAML with the limits of
// tenants.
func Cortex(ctx context.Context, binary, dir, overrides string) (*Process, error) {
	if err := requireBinary(binary); err != nil {
		return nil, err
	}
	address, err := FreeAddress(ctx)
	if err != nil {
		return nil, err
	}
	grpcAddress, err := FreeAddress(ctx)
	if err != nil {
		return nil, err
	}
	if err := writeCortexConfig(dir, address, grpcAddress, overrides); err != nil {
		return nil, err
	}

	binary, err = filepath.Abs(binary)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, binary, "-config.file="+filepath.Join(dir, "cortex.yml"))
	cmd.Dir = dir // Some components write into the working directory.
	p, _, err := launch("Cortex", cmd)
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

func writeCortexConfig(dir, address, grpcAddress, overrides string) error {
	for _, sub := range []string{"rules", "alertmanager"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return err
		}
	}
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	_, grpcPort, err := net.SplitHostPort(grpcAddress)
	if err != nil {
		return err
	}

	content := fmt.Sprintf(cortexConfig, port, grpcPort, dir)
	if err := os.WriteFile(filepath.Join(dir, "cortex.yml"), []byte(content), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "overrides.yml"), []byte("overrides:\n"+overrides), 0o644)
}
