// SPDX-License-Identifier: Apache-2.0

package stack

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"
)

// Target is a target that a Prometheus scrapes.
type Target struct {
	Job, Instance string
	Address       string // host:port
	Path          string
	Labels        map[string]string
}

// Config is the configuration of a Prometheus.
type Config struct {
	Interval       time.Duration // At which it scrapes.
	Histograms     Histograms    // The form in which it stores histograms.
	Jobs           map[string]Job
	Targets        []Target
	ExternalLabels map[string]string
	RemoteWrites   []RemoteWrite
	RemoteRead     string // The URL of a server that it reads from as well.
}

// Job is the configuration of a job. It replaces that of the Config.
type Job struct {
	Interval   time.Duration
	Histograms Histograms
}

// Histograms is the form in which a Prometheus stores histograms.
type Histograms int

// The forms of histograms.
const (
	ClassicHistograms Histograms = iota
	NativeHistograms             // Classic histograms are converted.
	BothHistograms               // Classic histograms are converted, and kept.
)

// fields returns the fields of a job's configuration.
func (h Histograms) fields() string {
	if h == ClassicHistograms {
		return ""
	}
	return fmt.Sprintf("  scrape_native_histograms: true\n  convert_classic_histograms_to_nhcb: true\n"+
		"  always_scrape_classic_histograms: %t\n", h == BothHistograms)
}

// RemoteWrite is a server that a Prometheus sends its samples to, as a tenant.
type RemoteWrite struct{ URL, Tenant string }

// Prometheus starts binary, a Prometheus, with its data under dir. It scrapes targets every
// interval.
func Prometheus(
	ctx context.Context, name, binary, dir string, interval time.Duration, targets []Target, flags ...string,
) (*Process, error) {
	return ConfiguredPrometheus(ctx, name, binary, dir, Config{Interval: interval, Targets: targets}, flags...)
}

// ConfiguredPrometheus starts binary, a Prometheus, with its data under dir.
func ConfiguredPrometheus(
	ctx context.Context, name, binary, dir string, config Config, flags ...string,
) (*Process, error) {
	if err := prepare(binary, dir, config); err != nil {
		return nil, err
	}

	return Start(ctx, name, exec.CommandContext(ctx, binary, append([]string{
		"--config.file=" + filepath.Join(dir, configFile), "--storage.tsdb.path=" + filepath.Join(dir, dataDir),
		"--web.listen-address=127.0.0.1:0",
	}, flags...)...))
}

// prepare makes dir with the configuration of a server that scrapes.
func prepare(binary, dir string, config Config) error {
	if err := requireBinary(binary); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return Reconfigure(dir, config)
}

func requireBinary(binary string) error {
	if _, err := os.Stat(binary); err != nil {
		return fmt.Errorf("%s is missing: run `make tools` in the root of the repository", binary)
	}
	return nil
}

const (
	configFile = "prometheus.yml"
	dataDir    = "data"
)

// Retarget is Reconfigure with a configuration of an interval and targets.
func Retarget(dir string, interval time.Duration, targets []Target) error {
	return Reconfigure(dir, Config{Interval: interval, Targets: targets})
}

// Reconfigure rewrites the configuration of the Prometheus that has its data under dir. On SIGHUP,
// Prometheus reads it.
func Reconfigure(dir string, config Config) error {
	return os.WriteFile(filepath.Join(dir, configFile), config.file(), 0o644)
}

// file returns the configuration file.
func (c Config) file() []byte {
	byJob := map[string][]Target{}
	var jobs []string
	for _, t := range c.Targets {
		if byJob[t.Job] == nil {
			jobs = append(jobs, t.Job)
		}
		byJob[t.Job] = append(byJob[t.Job], t)
	}

	var b bytes.Buffer
	fmt.Fprintf(&b, "global: {scrape_interval: %dms, scrape_timeout: %[1]dms", c.Interval.Milliseconds())
	if len(c.ExternalLabels) > 0 {
		b.WriteString(", external_labels: {")

		for _, name := range slices.Sorted(maps.Keys(c.ExternalLabels)) {
			fmt.Fprintf(&b, "%s: %q, ", name, c.ExternalLabels[name])
		}
		b.WriteString("}")
	}
	b.WriteString("}\nscrape_configs:\n")

	for _, job := range jobs {
		j, ok := c.Jobs[job]
		if !ok {
			j = Job{Interval: c.Interval, Histograms: c.Histograms}
		}
		j.write(&b, job)
		b.WriteString("  static_configs:\n")

		for _, t := range byJob[job] {
			t.write(&b)
		}
	}

	if c.RemoteRead != "" {
		fmt.Fprintf(&b, "remote_read: [{url: %q, read_recent: true}]\n", c.RemoteRead)
	}

	for i, w := range c.RemoteWrites {
		if i == 0 {
			b.WriteString("remote_write:\n")
		}
		// The default is to wait five seconds for a batch to fill.
		const format = "- {url: %q, headers: {X-Scope-OrgID: %q}, queue_config: {batch_send_deadline: 100ms}}\n"
		fmt.Fprintf(&b, format, w.URL, w.Tenant)
	}

	return b.Bytes()
}

// write writes the fields of the element of scrape_configs.
func (j Job) write(b *bytes.Buffer, name string) {
	const format = "- job_name: %q\n  scrape_interval: %dms\n  scrape_timeout: %[2]dms\n"
	fmt.Fprintf(b, format, name, j.Interval.Milliseconds())
	b.WriteString(j.Histograms.fields())
}

// write writes a target as an element of static_configs.
func (t Target) write(b *bytes.Buffer) {
	fmt.Fprintf(b, "  - targets: [%q]\n    labels: {__metrics_path__: %q", t.Address, t.Path)
	if t.Instance != "" {
		fmt.Fprintf(b, ", instance: %q", t.Instance)
	}

	for name, value := range t.Labels {
		fmt.Fprintf(b, ", %s: %q", name, value)
	}
	b.WriteString("}\n")
}
