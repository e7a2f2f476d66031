// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"

	"github.com/operator-store/operator_store_exporter/internal/doctest"
)

// The module in examples/ checks the examples against the schemas of Kubernetes and Compose. The
// tests here check them against the exporter, Prometheus and systemd.

const program = "operator_store_exporter"

// The example files.
const (
	sidecarFile    = "examples/kubernetes/sidecar.yaml"
	monitorFile    = "examples/kubernetes/tidbmonitor.yaml"
	composeFile    = "examples/compose/compose.yaml"
	upstreamFile   = "examples/compose/upstream.yml"
	federationFile = "examples/compose/federation.yml"
	unitFile       = "examples/systemd/operator_store_exporter.service"
	unitFlagsFile  = "examples/systemd/operator_store_exporter.default"
	unitConfigFile = "examples/systemd/config.yml"
)

// exampleFiles returns the example files and the Dockerfile by path.
func exampleFiles(t *testing.T) map[string]string {
	t.Helper()

	files := map[string]string{"Dockerfile": doctest.Read(t, "Dockerfile")}
	err := filepath.WalkDir(root+"/examples", func(name string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			name = strings.TrimPrefix(filepath.ToSlash(name), root+"/")
			files[name] = doctest.Read(t, name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// exampleChecks are the checks of the example files. Each returns all mistakes.
var exampleChecks = map[string]func(*testing.T, map[string]string) error{
	"flags":      checkFlags,
	"configs":    checkConfigs,
	"unit":       checkUnit,
	"prometheus": checkPrometheusServers,
}

// A brokenExample is a mistake in an example file that a check must find.
type brokenExample struct{ name, check, file, old, new string }

var brokenExamples = []brokenExample{
	{name: "flag of the sidecar", check: "flags", file: sidecarFile, old: "--upstream.url=", new: "--upstream.uri="},
	{name: "flag of the TidbMonitor", check: "flags", file: monitorFile, old: "--config.file=", new: "--config="},
	{name: "flag of Compose", check: "flags", file: composeFile, old: "--upstream.url=", new: "--upstream="},
	{
		name: "conflicting flags", check: "flags", file: sidecarFile,
		old: "--cluster=basic", new: "--config.file=config.yml",
	},
	{
		name: "other container name", check: "flags", file: sidecarFile,
		old: "name: operator-store-exporter", new: "name: exporter",
	},
	{name: "flag of the unit", check: "flags", file: unitFile, old: "=--cluster=", new: "=--clusters="},
	{name: "flag in a comment of the unit", check: "flags", file: unitFile, old: "--config.file", new: "--config"},
	{
		name: "flag in the unit's environment file", check: "flags", file: unitFlagsFile,
		old: "--log.level=info", new: "--log.level=all",
	},
	{
		name: "upstream of the unit", check: "flags", file: unitFile,
		old: "http://localhost:9090", new: "http://localhost:9091",
	},
	{name: "port of the image", check: "flags", file: "Dockerfile", old: "EXPOSE 9820", new: "EXPOSE 9821"},

	{name: "field", check: "configs", file: unitConfigFile, old: "basic_auth:", new: "basicauth:"},
	{name: "value", check: "configs", file: unitConfigFile, old: "https://prometheus-a", new: "prometheus-a"},
	{name: "field in a ConfigMap", check: "configs", file: monitorFile, old: "selector: '", new: "selectors: '"},
	{
		name: "selector in a ConfigMap", check: "configs", file: monitorFile,
		old: `{tidb_cluster="tidb-basic"}`, new: "tidb-basic",
	},

	{name: "section", check: "unit", file: unitFile, old: "[Install]", new: "[Installation]"},
	{name: "key", check: "unit", file: unitFile, old: "ProtectHome=", new: "ProtectHomes="},
	{name: "key of another section", check: "unit", file: unitFile, old: "WantedBy=", new: "ExecStart="},
	{
		name: "other program", check: "unit", file: unitFile,
		old: "/usr/local/bin/operator_store_exporter", new: "/usr/bin/operator_store_exporter",
	},
	{
		name: "other environment file", check: "unit", file: unitFile,
		old: "EnvironmentFile=-/etc/default/", new: "EnvironmentFile=-/etc/sysconfig/",
	},
	{name: "other configuration file", check: "unit", file: unitFlagsFile, old: "/config.yml", new: ".yml"},
	{
		name: "other secret", check: "unit", file: unitConfigFile,
		old: ".service/password", new: ".service/secret",
	},
	{name: "open sandbox", check: "unit", file: unitFile, old: "ProtectSystem=strict", new: "ProtectSystem=no"},

	{
		name: "field of the sidecar's Prometheus", check: "prometheus", file: sidecarFile,
		old: "static_configs:", new: "static_config:",
	},
	{
		name: "flag of the sidecar's Prometheus", check: "prometheus", file: sidecarFile,
		old: "--storage.tsdb.path", new: "--storage.path",
	},
	{
		name: "port of TiKV", check: "prometheus", file: sidecarFile,
		old: "basic-tikv-1.basic-tikv-peer.tidb.svc:20180", new: "basic-tikv-1.basic-tikv-peer.tidb.svc:20160",
	},
	{
		name: "field of upstream", check: "prometheus", file: upstreamFile,
		old: "scrape_interval:", new: "scrape_intervals:",
	},
	{
		name: "target that is a URL", check: "prometheus", file: upstreamFile,
		old: "tikv-0.example.com:20180", new: "http://tikv-0.example.com:20180",
	},
	{
		name: "flag of upstream", check: "prometheus", file: composeFile,
		old: "--storage.tsdb.path", new: "--storage.path",
	},
	{name: "field of the federation", check: "prometheus", file: federationFile, old: "job_name:", new: "name:"},
}

func TestExamples(t *testing.T) {
	t.Parallel()

	for name, check := range exampleChecks {
		t.Run(name, func(t *testing.T) {
			if err := check(t, exampleFiles(t)); err != nil {
				t.Error(err)
			}
		})
	}

	for _, b := range brokenExamples {
		t.Run("broken "+b.check+"/"+b.name, func(t *testing.T) { b.test(t) })
	}

	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Log("systemd-analyze is not installed: systemd itself did not check the unit")
		return
	}

	for _, b := range []brokenExample{
		{
			name: "group of system calls", check: "unit", file: unitFile,
			old: "@system-service", new: "@system-services",
		},
		{name: "time", check: "unit", file: unitFile, old: "RestartSec=5s", new: "RestartSec=5q"},
	} {
		t.Run("broken for systemd/"+b.name, func(t *testing.T) { b.test(t) })
	}
}

func (b brokenExample) test(t *testing.T) {
	files := exampleFiles(t)
	if !strings.Contains(files[b.file], b.old) {
		t.Fatalf("%s lacks %q", b.file, b.old)
	}
	files[b.file] = strings.ReplaceAll(files[b.file], b.old, b.new)
	if err := exampleChecks[b.check](t, files); err == nil {
		t.Errorf("the check accepts %q in %s", b.new, b.file)
	}
}

// argsIn returns the arguments of each container in a YAML file that has the name of one of the
// programs.
func argsIn(content string, programs ...string) ([][]string, error) {
	var all [][]string
	var walk func(name string, n *yaml.Node)
	walk = func(name string, n *yaml.Node) {
		isMapping := n.Kind == yaml.MappingNode
		for i := 0; isMapping && i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value == "name" {
				name = n.Content[i+1].Value
			}
		}

		for i, child := range n.Content {
			childName := name
			if isMapping && i%2 == 1 {
				key := n.Content[i-1].Value
				isProgram := slices.Contains(programs, strings.ReplaceAll(name, "-", "_"))
				var args []string
				if isProgram && (key == "args" || key == "command") && child.Decode(&args) == nil {
					all = append(all, args)
				}
				childName = key
			}
			walk(childName, child)
		}
	}

	decoder := yaml.NewDecoder(strings.NewReader(content))
	for {
		var document yaml.Node
		switch err := decoder.Decode(&document); {
		case errors.Is(err, io.EOF):
			return all, nil
		case err != nil:
			return nil, err
		}
		walk("", &document)
	}
}

// checkArgs returns an error if the exporter does not accept a command line.
func checkArgs(t *testing.T, args []string) error {
	t.Helper()

	// With check-config, the exporter parses all flags but does not use their values.
	file := writeFile(t, "c.yml", "clusters:\n- name: a\n  upstream: {url: 'http://127.0.0.1:1'}\n")
	if _, err := runCommand(t, append(slices.Clone(args), "check-config", file)...); err != nil {
		return fmt.Errorf("%q: %w", args, err)
	}

	has := func(flag string) bool {
		return slices.ContainsFunc(args, func(a string) bool { return strings.HasPrefix(a, flag+"=") })
	}
	if has("--config.file") && (has("--cluster") || has("--upstream.url")) {
		return fmt.Errorf("%q: --config.file conflicts with --cluster and --upstream.url", args)
	}
	return nil
}

var argsVariable = regexp.MustCompile(`(?m)^[^\n]*\bARGS="?(--[^"\n]+)"`)

// checkFlags checks the command lines of the exporter, and the defaults that other files repeat.
func checkFlags(t *testing.T, files map[string]string) error {
	t.Helper()

	var mistakes []error
	for _, file := range []string{sidecarFile, monitorFile, composeFile} {
		args, err := argsIn(files[file], program)
		if err != nil || len(args) != 1 {
			mistakes = append(mistakes, err, fmt.Errorf("%s starts %d exporters, want 1", file, len(args)))
		}

		for _, a := range args {
			if err := checkArgs(t, a); err != nil {
				mistakes = append(mistakes, fmt.Errorf("%s: %w", file, err))
			}
		}
	}

	for file, want := range map[string]int{unitFile: 2, unitFlagsFile: 1} {
		lines := argsVariable.FindAllStringSubmatch(files[file], -1)
		if len(lines) != want {
			mistakes = append(mistakes, fmt.Errorf("%s has %d command lines, want %d", file, len(lines), want))
		}

		for _, m := range lines {
			if err := checkArgs(t, strings.Fields(m[1])); err != nil {
				mistakes = append(mistakes, fmt.Errorf("%s: %w", file, err))
			}
		}
	}

	return errors.Join(append(mistakes, checkDefaults(t, files))...)
}

// checkDefaults checks the defaults of the exporter's flags that example files repeat.
func checkDefaults(t *testing.T, files map[string]string) error {
	t.Helper()

	help, err := runCommand(t, "--help")
	if err != nil {
		return err
	}
	var mistakes []error
	if url := defaultOf(help, "--upstream.url"); !strings.Contains(files[unitFile], " --upstream.url="+url+`"`) {
		mistakes = append(mistakes, fmt.Errorf("%s does not have the default --upstream.url=%s", unitFile, url))
	}

	_, port, err := net.SplitHostPort(defaultOf(help, "--web.listen-address"))
	if err != nil {
		return err
	}

	for file, want := range map[string]string{
		"Dockerfile":                  "\nEXPOSE " + port + "\n",
		"examples/kubernetes_test.go": "exporterPort = " + port + "\n",
	} {
		if !strings.Contains(files[file], want) {
			mistakes = append(mistakes, fmt.Errorf("%s does not have the port %s", file, port))
		}
	}

	return errors.Join(mistakes...)
}

// defaultOf returns the default of a flag from the output of --help.
func defaultOf(help, flag string) string {
	m := regexp.MustCompile(`(?m)^\s+` + regexp.QuoteMeta(flag) + `="?([^\s"]*)`).FindStringSubmatch(help)
	if m == nil {
		return ""
	}
	return m[1]
}

// checkConfigs gives each configuration of the exporter to check-config.
func checkConfigs(t *testing.T, files map[string]string) error {
	t.Helper()

	inConfigMap, err := dataIn(files[monitorFile], "config.yml")
	mistakes := []error{err}
	for file, content := range map[string]string{unitConfigFile: files[unitConfigFile], monitorFile: inConfigMap} {
		if _, err := runCommand(t, "check-config", writeFile(t, "config.yml", content)); err != nil {
			mistakes = append(mistakes, fmt.Errorf("%s: %w", file, err))
		}
	}
	return errors.Join(mistakes...)
}

// dataIn returns a file of the first ConfigMap.
func dataIn(content, file string) (string, error) {
	var configMap struct{ Data map[string]string }
	err := yaml.Unmarshal([]byte(content), &configMap)
	return configMap.Data[file], err
}

// checkPrometheusServers checks the flags and configurations of the Prometheus servers, together
// with the alerts.
func checkPrometheusServers(t *testing.T, files map[string]string) error {
	t.Helper()

	help, err := exec.CommandContext(t.Context(), prometheusBinary, "--help").CombinedOutput()
	if err != nil {
		return err
	}

	var mistakes []error
	for file, want := range map[string]int{sidecarFile: 1, composeFile: 2} {
		args, err := argsIn(files[file], "prometheus", "upstream", "federation")
		if err != nil || len(args) != want {
			err = errors.Join(err, fmt.Errorf("%s starts %d Prometheus servers, want %d", file, len(args), want))
			mistakes = append(mistakes, err)
		}

		for _, arg := range slices.Concat(args...) {
			flag, _, _ := strings.Cut(arg, "=")
			if !regexp.MustCompile(`(?m)^\s+` + regexp.QuoteMeta(flag) + `=`).Match(help) {
				mistakes = append(mistakes, fmt.Errorf("%s: Prometheus has no flag %s", file, flag))
			}
		}
	}

	sidecar, err := dataIn(files[sidecarFile], "prometheus.yml")
	mistakes = append(mistakes, err)
	for file, content := range map[string]string{
		sidecarFile: sidecar, upstreamFile: files[upstreamFile], federationFile: files[federationFile],
	} {
		mistakes = append(mistakes, checkTargets(file, content), lintPrometheusConfig(t, file, content))
	}

	return errors.Join(mistakes...)
}

// lintPrometheusConfig returns the mistakes and questionable settings that promtool finds in a
// configuration.
func lintPrometheusConfig(t *testing.T, file, content string) error {
	t.Helper()

	dir := t.TempDir()
	config := filepath.Join(dir, "prometheus.yml")
	alerts := doctest.Read(t, "mixin/alerts.yml")
	if err := errors.Join(
		os.WriteFile(filepath.Join(dir, "alerts.yml"), []byte(alerts), 0o600),
		os.WriteFile(config, []byte(content), 0o600),
	); err != nil {
		return err
	}

	cmd := exec.CommandContext(t.Context(), promtoolBinary, "check", "config", "--lint=all", "--lint-fatal", config)
	if out, err := cmd.CombinedOutput(); err != nil || content == "" {
		return fmt.Errorf("%s: promtool: %w: %s", file, err, out)
	}
	return nil
}

// checkTargets checks that each target has the port at which its job exports metrics.
func checkTargets(file, content string) error {
	var prometheus struct {
		ScrapeConfigs []struct {
			Job    string                       `yaml:"job_name"`
			Static []struct{ Targets []string } `yaml:"static_configs"`
		} `yaml:"scrape_configs"`
	}
	if err := yaml.Unmarshal([]byte(content), &prometheus); err != nil {
		return err
	}

	ports := map[string]string{"tikv": ":20180", "pd": ":2379", "operator_store": ":9820"}
	for _, s := range prometheus.ScrapeConfigs {
		for _, static := range s.Static {
			for _, target := range static.Targets {
				if ports[s.Job] == "" || !strings.HasSuffix(target, ports[s.Job]) {
					return fmt.Errorf("%s: %s is not a target of the job %s", file, target, s.Job)
				}
			}
		}
	}

	return nil
}

// unitKeys are the keys of systemd that the unit may have, by section.
var unitKeys = map[string][]string{
	"Unit": {"Description", "Documentation", "Wants", "After"},
	"Service": {
		"Environment", "EnvironmentFile", "ExecStart", "ExecReload", "Restart", "RestartSec", "TimeoutStopSec",
		"DynamicUser", "UMask", "CapabilityBoundingSet", "AmbientCapabilities", "NoNewPrivileges", "ProtectSystem",
		"ProtectHome", "PrivateTmp", "PrivateDevices", "PrivateUsers", "DevicePolicy", "ProtectProc", "ProtectClock",
		"ProtectHostname", "ProtectKernelLogs", "ProtectKernelModules", "ProtectKernelTunables", "ProtectControlGroups",
		"RestrictAddressFamilies", "RestrictNamespaces", "RestrictRealtime", "RestrictSUIDSGID", "RemoveIPC",
		"LockPersonality", "MemoryDenyWriteExecute", "SystemCallArchitectures", "SystemCallFilter",
		"SystemCallErrorNumber", "MemoryMax",
	},
	"Install": {"WantedBy"},
}

// unitValues are the values that the unit must have.
var unitValues = map[string]string{
	"CapabilityBoundingSet":  "",
	"DynamicUser":            "yes",
	"EnvironmentFile":        "-/etc/default/" + program,
	"ExecReload":             "/bin/kill -HUP $MAINPID",
	"ExecStart":              "/usr/local/bin/" + program + " $ARGS",
	"MemoryDenyWriteExecute": "yes",
	"NoNewPrivileges":        "yes",
	"PrivateTmp":             "yes",
	"ProtectHome":            "yes",
	"ProtectSystem":          "strict",
	"WantedBy":               "multi-user.target",
}

// unitReferences are the places at which the unit and the files next to it refer to each other.
var unitReferences = map[string][]string{
	unitFile: {
		"--config.file=/etc/" + program + `/config.yml"`,
		"#LoadCredential=password:/etc/" + program + "/password\n",
	},
	unitFlagsFile: {
		"# /etc/default/" + program + ":",
		"--config.file=/etc/" + program + "/config.yml ",
	},
	unitConfigFile: {
		"# /etc/" + program + "/config.yml:",
		"password_file: /run/credentials/" + program + ".service/password\n",
	},
}

// checkUnit checks the unit, the files next to it, and what systemd reports about the unit if it is
// installed.
func checkUnit(t *testing.T, files map[string]string) error {
	t.Helper()

	var mistakes []error
	section, values := "", map[string]string{}
	for i, line := range strings.Split(files[unitFile], "\n") {
		key, value, isKey := strings.Cut(line, "=")
		switch {
		case line == "" || strings.HasPrefix(line, "#"):
		case strings.HasPrefix(line, "[") && strings.HasSuffix(line, "]") && unitKeys[strings.Trim(line, "[]")] != nil:
			section = strings.Trim(line, "[]")
		case !isKey || !slices.Contains(unitKeys[section], key):
			mistakes = append(mistakes, fmt.Errorf("%s:%d: %q must not be in [%s]", unitFile, i+1, line, section))
		default:
			values[key] = value
		}
	}

	for key, want := range unitValues {
		if got, ok := values[key]; got != want || !ok {
			mistakes = append(mistakes, fmt.Errorf("%s: %s is %q, want %q", unitFile, key, got, want))
		}
	}

	for file, references := range unitReferences {
		for _, text := range references {
			if !strings.Contains(files[file], text) {
				mistakes = append(mistakes, fmt.Errorf("%s lacks %q", file, text))
			}
		}
	}

	return errors.Join(append(mistakes, verifyUnit(t, files[unitFile]))...)
}

// verifyUnit returns what systemd reports about a unit.
func verifyUnit(t *testing.T, content string) error {
	t.Helper()

	systemd, err := exec.LookPath("systemd-analyze")
	if err != nil {
		return nil //nolint:nilerr // Only systemd itself can verify a unit.
	}
	unit := filepath.Join(t.TempDir(), filepath.Base(unitFile))
	runnable := strings.ReplaceAll(content, "/usr/local/bin/"+program, "/bin/true")
	if err := os.WriteFile(unit, []byte(runnable), 0o600); err != nil {
		return err
	}

	// systemd only warns about unknown keys.
	out, err := exec.CommandContext(t.Context(), systemd, "verify", unit).CombinedOutput()
	if err != nil || len(out) > 0 {
		return errors.Join(err, fmt.Errorf("systemd reports %s", out))
	}
	return nil
}
