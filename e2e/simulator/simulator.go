// SPDX-License-Identifier: Apache-2.0

// Package simulator serves the metrics pages of simulated TiKV stores, of a PD and of other
// processes.
//
// All values derive from a seed and the time since a store was started, so that the true rates of a
// store are known.
package simulator

import (
	"bytes"
	"context"
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// Cluster is a simulated TiKV cluster. Its pages are /tikv/NAME for a store, /process/NAME for
// another process, and /pd for PD. It is safe for concurrent use.
type Cluster struct {
	seed uint64

	mu        sync.Mutex
	stores    map[string]*Store
	processes map[string]*process
}

// NewCluster returns a cluster without stores. The same seed gives the same values.
func NewCluster(seed uint64) *Cluster {
	return &Cluster{seed: seed, stores: map[string]*Store{}, processes: map[string]*process{}}
}

// Store is a simulated TiKV. Its methods may be called while it is scraped.
type Store struct {
	ID      int
	Name    string
	Address string // As PD has it; Move changes it.
	Version Version

	mu         sync.Mutex
	truth      Truth
	started    time.Time
	age        time.Duration // How long before started its process claims to have started.
	active     time.Duration // Time under load before since.
	since      time.Time     // Start of the load; zero while idle.
	stopped    bool
	noCapacity bool

	lag                   histogram
	messages, coprocessor []histogram
}

// Truth holds the true rates and values of a store under load.
type Truth struct {
	Commands  []float64 // Per second, by type in the order of the page.
	Messages  []Load    // gRPC messages by type in the order of the page. The priorities share each load equally.
	Lag       Load
	Used      float64 // Bytes.
	Available float64
	Capacity  float64
	CPU       float64 // Cores in use.
	Cores     float64
}

// Load is a stream of observations: Rate per second, with a log-logistic distribution around
// Median.
type Load struct{ Rate, Median, Shape float64 }

// below returns the share of observations that are at most bound.
func (l Load) below(bound float64) float64 {
	return 1 / (1 + math.Pow(l.Median/bound, l.Shape))
}

// QPS returns the true number of storage commands per second.
func (t Truth) QPS() float64 {
	var sum float64
	for _, rate := range t.Commands {
		sum += rate
	}
	return sum
}

// Below returns the true share of gRPC messages that take at most bound seconds.
func (t Truth) Below(bound float64) float64 {
	var below, all float64
	for _, m := range t.Messages {
		below += m.Rate * m.below(bound)
		all += m.Rate
	}
	return below / all
}

// AddStore adds a store under load. Its address need not be unique.
func (c *Cluster) AddStore(name, address string, version Version) *Store {
	c.mu.Lock()
	defer c.mu.Unlock()

	now := time.Now()
	s := &Store{
		ID: len(c.stores) + 1, Name: name, Address: address, Version: version,
		started: now, age: time.Hour, since: now, truth: c.truth(name, version),
	}
	s.prepareHistograms()
	c.stores[name] = s
	return s
}

// Store returns the store with a name, or nil.
func (c *Cluster) Store(name string) *Store {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stores[name]
}

func (c *Cluster) truth(name string, v Version) Truth {
	hash := fnv.New64a()
	_, _ = hash.Write([]byte(name)) // It never fails.
	r := rand.New(rand.NewPCG(c.seed, hash.Sum64()))

	t := Truth{Commands: make([]float64, v.CommandTypes), Messages: make([]Load, v.GRPCTypes)}
	for i := range t.Commands {
		if r.Float64() < 0.6 || i == 0 { // The rest stays at zero, as on a real store.
			t.Commands[i] = math.Exp(r.Float64() * 7)
		}
	}

	speed := math.Exp(r.Float64()*3 - 8) // Around 2 ms.
	for i := range t.Messages {
		if r.Float64() < 0.6 || i == 1 {
			t.Messages[i] = Load{math.Exp(r.Float64() * 7), speed * math.Exp(r.Float64()*2), 1.5 + r.Float64()}
		} else {
			t.Messages[i] = Load{0, speed, 2}
		}
	}

	t.Lag = Load{20 + 200*r.Float64(), 1 + 5*r.Float64(), 2}
	t.Capacity = math.Floor((1 + 3*r.Float64()) * (1 << 40))
	t.Available = math.Floor(t.Capacity * (0.1 + 0.8*r.Float64()))
	t.Used = math.Floor((t.Capacity - t.Available) * (0.5 + 0.5*r.Float64())) // Other processes use the disk too.
	t.CPU = 0.5 + 6*r.Float64()
	t.Cores = 8

	return t
}

// AddProcess adds a process that is not a TiKV but exports CPU seconds too, such as a node
// exporter.
func (c *Cluster) AddProcess(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.processes[name] = &process{started: time.Now()}
}

// Truth returns the true rates and values of the store under load.
func (s *Store) Truth() Truth {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.truth
}

// Idle removes the load from the store.
func (s *Store) Idle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.active, s.since = s.loaded(time.Now()), time.Time{}
}

// Resume puts the load on the store again.
func (s *Store) Resume() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.active, s.since = s.loaded(time.Now()), time.Now()
}

// Stop makes the store's page fail.
func (s *Store) Stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = true
}

// Restart brings the page back with its counters at zero.
func (s *Store) Restart() {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	s.stopped, s.started, s.age, s.active = false, now, 0, 0
	if !s.since.IsZero() {
		s.since = now
	}
}

// DropCapacity removes the capacity from the page.
func (s *Store) DropCapacity() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.noCapacity = true
}

// Move changes the address that PD has of the store.
func (s *Store) Move(address string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Address = address
}

func (s *Store) address() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.Address
}

// loaded returns how long the store has been under load. The caller holds the lock.
func (s *Store) loaded(now time.Time) time.Duration {
	if s.since.IsZero() {
		return s.active
	}
	return s.active + now.Sub(s.since)
}

// ServeHTTP implements http.Handler.
func (c *Cluster) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var (
		page bytes.Buffer
		ok   bool
	)
	kind, name, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	c.mu.Lock()
	store, proc := c.stores[name], c.processes[name]
	c.mu.Unlock()

	switch {
	case kind == "tikv" && store != nil:
		ok = store.write(r.Context(), &page)
	case kind == "process" && proc != nil:
		ok = proc.write(&page)
	case kind == "pd":
		ok = c.writePD(&page)
	}

	if !ok {
		http.Error(w, "no such process", http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "text/plain; version=0.0.4")
	_, _ = w.Write(page.Bytes()) // If it fails, the scraper has gone.
}

// write writes the store's page. It returns false if the store is stopped, or if the scraper has
// given up meanwhile: on a busy machine, pages that nobody reads would make all others late.
func (s *Store) write(ctx context.Context, w *bytes.Buffer) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped || ctx.Err() != nil {
		return false
	}
	now := time.Now()
	t := s.loaded(now).Seconds()

	s.writeProcess(w, t)
	s.writeCommands(w, t)
	s.writeHistograms(w, t)
	s.writeSizes(w)
	s.writeServer(w)
	s.writeEngine(w)
	s.writeRegions(w)
	return true
}

// The histograms of the page.
const (
	messagesName    = "tikv_grpc_msg_duration_seconds"
	lagName         = "tikv_raftstore_log_lag"
	coprocessorName = "tikv_coprocessor_request_duration_seconds"
)

func (s *Store) prepareHistograms() {
	bounds := s.Version.latencyBounds()
	for i, load := range s.truth.Messages {
		if len(s.Version.Priorities) == 0 {
			s.messages = append(s.messages,
				newHistogram(messagesName, fmt.Sprintf("type=%q,", grpcTypes[i]), load, bounds))
			continue
		}

		load.Rate /= float64(len(s.Version.Priorities))
		for _, p := range s.Version.Priorities {
			labels := fmt.Sprintf("type=%q,priority=%q,", grpcTypes[i], p)
			s.messages = append(s.messages, newHistogram(messagesName, labels, load, bounds))
		}
	}

	s.lag = newHistogram(lagName, "", s.truth.Lag, lagBounds)
	for i, request := range coprocessorRequests {
		load := Load{Rate: float64(10 * (s.ID + i)), Median: 0.005, Shape: 2}
		s.coprocessor = append(s.coprocessor,
			newHistogram(coprocessorName, fmt.Sprintf("req=%q,", request), load, coprocessorBounds))
	}
}

func (s *Store) writeHistograms(w *bytes.Buffer, t float64) {
	head(w, messagesName, "histogram")

	for i := range s.messages {
		s.messages[i].write(w, t)
	}

	head(w, lagName, "histogram")
	s.lag.write(w, t)

	head(w, coprocessorName, "histogram")

	for i := range s.coprocessor {
		s.coprocessor[i].write(w, t)
	}
}

func (s *Store) writeProcess(w *bytes.Buffer, t float64) {
	head(w, "process_cpu_seconds_total", "counter")
	cpu := s.truth.CPU * t
	if s.Version.WholeSeconds {
		cpu = math.Floor(cpu)
	}
	fmt.Fprintf(w, "process_cpu_seconds_total %g\n", cpu)
	head(w, "process_start_time_seconds", "gauge")
	fmt.Fprintf(w, "process_start_time_seconds %d\n", s.started.Add(-s.age).Unix())

	head(w, "process_resident_memory_bytes", "gauge")
	fmt.Fprintf(w, "process_resident_memory_bytes %d\n", s.ID<<30)
}

func (s *Store) writeCommands(w *bytes.Buffer, t float64) {
	head(w, "tikv_storage_command_total", "counter")

	for i, rate := range s.truth.Commands {
		fmt.Fprintf(w, "tikv_storage_command_total{type=%q} %.0f\n", commandTypes[i], math.Floor(rate*t))
	}
}

func (s *Store) writeSizes(w *bytes.Buffer) {
	head(w, "tikv_store_size_bytes", "gauge")
	if !s.noCapacity {
		fmt.Fprintf(w, "tikv_store_size_bytes{type=\"capacity\"} %.0f\n", s.truth.Capacity)
	}
	fmt.Fprintf(w, "tikv_store_size_bytes{type=\"available\"} %.0f\n", s.truth.Available)
	if s.Version.StoreUsed {
		fmt.Fprintf(w, "tikv_store_size_bytes{type=\"used\"} %.0f\n", s.truth.Used)

		for _, part := range []string{"snap_size", "raft_size", "kv_size", "import_size"} {
			fmt.Fprintf(w, "tikv_store_size_bytes{type=%q} %.0f\n", part, math.Floor(s.truth.Used/4))
		}
	}
}

func (s *Store) writeServer(w *bytes.Buffer) {
	if s.Version.CPUQuota {
		head(w, "tikv_server_cpu_cores_quota", "gauge")
		fmt.Fprintf(w, "tikv_server_cpu_cores_quota %g\n", s.truth.Cores)
		head(w, "tikv_server_info", "gauge")
		fmt.Fprintf(w, "tikv_server_info{version=%q,hash=\"simulated\"} %d\n", s.Version.Name, s.started.Unix())
	}
}

// stallTypes are the values of the label type of tikv_engine_write_stall.
var stallTypes = []string{
	"write_stall_average", "write_stall_percentile95", "write_stall_percentile99", "write_stall_max",
}

func (s *Store) writeEngine(w *bytes.Buffer) {
	head(w, "tikv_engine_write_stall", "gauge")

	for _, db := range []string{"kv", "raft"} {
		for i, kind := range stallTypes {
			fmt.Fprintf(w, "tikv_engine_write_stall{db=%q,type=%q} %d\n", db, kind, (len(db)+i)*1000)
		}
	}
	head(w, "tikv_engine_size_bytes", "gauge")

	for i, cf := range []string{"default", "lock", "write", "raft"} {
		fmt.Fprintf(w, "tikv_engine_size_bytes{db=\"kv\",type=%q} %d\n", cf, (i+1)*s.ID<<20)
	}
}

func (s *Store) writeRegions(w *bytes.Buffer) {
	if s.Version.CPUQuota {
		head(w, "tikv_resolved_ts_min_resolved_ts_gap_millis", "gauge")
		fmt.Fprintf(w, "tikv_resolved_ts_min_resolved_ts_gap_millis %d\n", 1000+s.ID)
	}
	head(w, "tikv_raftstore_region_count", "gauge")
	fmt.Fprintf(w, "tikv_raftstore_region_count{type=\"region\"} %d\n", 300*s.ID)
	fmt.Fprintf(w, "tikv_raftstore_region_count{type=\"leader\"} %d\n", 100*s.ID)
}

func head(w *bytes.Buffer, name, kind string) {
	fmt.Fprintf(w, "# HELP %s Simulated.\n# TYPE %s %s\n", name, name, kind)
}

// process is a process that is not a TiKV.
type process struct{ started time.Time }

func (p *process) write(w *bytes.Buffer) bool {
	head(w, "process_cpu_seconds_total", "counter")
	fmt.Fprintf(w, "process_cpu_seconds_total %g\n", 3*time.Since(p.started).Seconds())
	head(w, "process_start_time_seconds", "gauge")
	fmt.Fprintf(w, "process_start_time_seconds %d\n", p.started.Unix())
	return true
}

// writePD writes the page of PD's leader.
func (c *Cluster) writePD(w *bytes.Buffer) bool {
	c.mu.Lock()
	defer c.mu.Unlock()

	stores := make([]*Store, 0, len(c.stores))
	for _, s := range c.stores {
		stores = append(stores, s)
	}
	slices.SortFunc(stores, func(a, b *Store) int { return a.ID - b.ID })

	head(w, "pd_scheduler_store_status", "gauge")

	for _, s := range stores {
		t := s.Truth()
		for _, status := range []struct {
			kind  string
			value float64
		}{
			{"store_capacity", t.Capacity},
			{"store_available", t.Available},
			{"store_used", t.Used},
			{"region_count", float64(300 * s.ID)},
			{"leader_count", float64(100 * s.ID)},
		} {
			labels := fmt.Sprintf("address=%q,store=\"%d\",type=%q", s.address(), s.ID, status.kind)
			fmt.Fprintf(w, "pd_scheduler_store_status{%s} %.0f\n", labels, status.value)
		}
	}

	return true
}
