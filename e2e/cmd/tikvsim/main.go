// SPDX-License-Identifier: Apache-2.0

// Command tikvsim serves the metrics pages of simulated TiKV stores and of their PD on loopback.
//
// The pages are /tikv/tikv-N, /process/node-exporter and /pd. POST /tikv/tikv-N?do=ACTION does one of
// idle, resume, stop, restart and drop-capacity to a store.
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
	port := flag.Int("port", 0, "port on 127.0.0.1; 0 takes a free one")
	n := flag.Int("stores", 3, "number of stores")
	seed := flag.Uint64("seed", 1, "what the numbers follow from")
	release := flag.String("version", "7", "major version of TiKV: 4, 7 or 8")
	flag.Parse()
	version, ok := map[string]simulator.Version{"4": simulator.V4, "7": simulator.V7, "8": simulator.V8}[*release]
	if !ok {
		return fmt.Errorf("-version %s: there are 4, 7 and 8", *release)
	}

	cluster := simulator.NewCluster(*seed)
	stores := map[string]*simulator.Store{}
	for i := range *n {
		name := fmt.Sprintf("tikv-%d", i)
		stores[name] = cluster.AddStore(name, name+":20160", version)
	}
	cluster.AddProcess("node-exporter")

	mux := http.NewServeMux()
	mux.Handle("GET /", cluster)
	mux.HandleFunc("POST /tikv/{store}", func(w http.ResponseWriter, r *http.Request) {
		s, ok := stores[r.PathValue("store")]
		if !ok {
			http.NotFound(w, r)
			return
		}
		actions := map[string]func(){
			"idle": s.Idle, "resume": s.Resume, "stop": s.Stop, "restart": s.Restart, "drop-capacity": s.DropCapacity,
		}
		do, ok := actions[strings.ToLower(r.FormValue("do"))]
		if !ok {
			http.Error(w, "do is one of idle, resume, stop, restart, drop-capacity", http.StatusBadRequest)
			return
		}
		do()
	})

	listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", *port))
	if err != nil {
		return err
	}
	fmt.Printf("serving %d stores at http://%s/tikv/tikv-0\n", *n, listener.Addr())
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
