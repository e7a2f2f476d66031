// SPDX-License-Identifier: Apache-2.0

// Command tikvsim serves the metrics pages of simulated TiKV stores and of their PD on loopback.
//
// The pages are /tikv/tikv-N, /process/node-exporter and /pd. POST /tikv/tikv-N?do=ACTION applies
// an action to a store: idle, resume, stop, restart or drop-capacity.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/operator-store/operator_store_exporter/e2e/simulator"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "tikvsim:", err)
		os.Exit(1)
	}
}

func run() error {
	port := flag.Int("port", 0, "Port on 127.0.0.1; 0 for a free one.")
	stores := flag.Int("stores", 3, "Number of stores.")
	seed := flag.Uint64("seed", 1, "Seed of the values.")
	release := flag.String("version", "7", "Major version of TiKV: 4, 7 or 8.")
	flag.Parse()
	versions := map[string]simulator.Version{"4": simulator.V4, "7": simulator.V7, "8": simulator.V8}
	version, ok := versions[*release]
	if !ok {
		return fmt.Errorf("-version=%s: want 4, 7 or 8", *release)
	}

	listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", *port))
	if err != nil {
		return err
	}
	fmt.Printf("serving %d stores at http://%s/tikv/tikv-0\n", *stores, listener.Addr())

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	server := &http.Server{Handler: handler(*stores, *seed, version), ReadHeaderTimeout: 10 * time.Second}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}

	return nil
}

// handler serves the pages and actions of a cluster.
func handler(stores int, seed uint64, version simulator.Version) http.Handler {
	cluster := simulator.NewCluster(seed)
	cluster.AddProcess("node-exporter")

	for i := range stores {
		name := fmt.Sprintf("tikv-%d", i)
		cluster.AddStore(name, name+":20160", version)
	}

	mux := http.NewServeMux()
	mux.Handle("GET /", cluster)
	mux.HandleFunc("POST /tikv/{store}", func(w http.ResponseWriter, r *http.Request) {
		s := cluster.Store(r.PathValue("store"))
		if s == nil {
			http.NotFound(w, r)
			return
		}

		actions := map[string]func(){
			"idle": s.Idle, "resume": s.Resume, "stop": s.Stop, "restart": s.Restart, "drop-capacity": s.DropCapacity,
		}
		do, ok := actions[strings.ToLower(r.FormValue("do"))]
		if !ok {
			http.Error(w, "do must be idle, resume, stop, restart or drop-capacity", http.StatusBadRequest)
			return
		}
		do()
	})

	return mux
}
