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

	"github.com/operator-store/operator_store_exporter/config"
	"github.com/operator-store/operator_store_exporter/internal/doctest"
)

// The schemas of Kubernetes and compose are held by examples/, a module of its own. Here is what the exporter itself knows of its examples.

const program = "operator_store_exporter"

const unitFile = "examples/systemd/operator_store_exporter.service"

// exampleFiles returns the examples, and what they are held to, by path.
func exampleFiles(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(root+"/examples", func(name string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			name = strings.TrimPrefix(filepath.ToSlash(name), root+"/")
			found[name] = doctest.Read(t, name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	found["Dockerfile"] = doctest.Read(t, "Dockerfile")
	return found
}

// argsIn returns the arguments of each container of a program in a YAML file, which bears its name.
func argsIn(content string, programs ...string) ([][]string, error) {
	var found [][]string
	var walk func(name string, n *yaml.Node)
	walk = func(name string, n *yaml.Node) {
		for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value == "name" {
				name = n.Content[i+1].Value
			}
		}
		for i, child := range n.Content {
			own := name
			if n.Kind == yaml.MappingNode && i%2 == 1 {
				key := n.Content[i-1].Value
				if (key == "args" || key == "command") && slices.Contains(programs, strings.ReplaceAll(name, "-", "_")) {
					var args []string
					if child.Decode(&args) == nil {
						found = append(found, args)
					}
				}
				own = key
			}
			walk(own, child)
		}
	}
	decoder := yaml.NewDecoder(strings.NewReader(content))
	for {
		var document yaml.Node
		switch err := decoder.Decode(&document); {
		case errors.Is(err, io.EOF):
			return found, nil
		case err != nil:
			return nil, err
		}
		walk("", &document)
	}
}

// checkArgs says what of a command line is none of the exporter's.
func checkArgs(t *testing.T, args []string) error {
	t.Helper()
	good := writeFile(t, "c.yml", "clusters:\n- name: a\n  upstream: {url: 'http://127.0.0.1:1'}\n")
	if _, err := command(t, append(slices.Clone(args), "check-config", good)...); err != nil {
		return fmt.Errorf("%q: %w", args, err)
	}
	file := slices.ContainsFunc(args, func(a string) bool { return strings.HasPrefix(a, "--config.file=") })
	single := slices.ContainsFunc(args, func(a string) bool {
		return strings.HasPrefix(a, "--cluster=") || strings.HasPrefix(a, "--upstream.url=")
	})
	if file && single {
		return fmt.Errorf("%q: --config.file does not go with --cluster and --upstream.url", args)
	}
	return nil
}

// checkFlags says which file starts the exporter as it can't be started.
func checkFlags(t *testing.T, f map[string]string) error {
	var problems []error
	for _, file := range []string{"examples/kubernetes/sidecar.yaml", "examples/kubernetes/tidbmonitor.yaml", "examples/compose/compose.yaml"} {
		args, err := argsIn(f[file], program)
		if err != nil || len(args) != 1 {
			problems = append(problems, err, fmt.Errorf("%s starts %d exporters", file, len(args)))
		}
		for _, a := range args {
			if err := checkArgs(t, a); err != nil {
				problems = append(problems, fmt.Errorf("%s: %w", file, err))
			}
		}
	}
	commands := regexp.MustCompile(`(?m)^[^\n]*\bARGS="?(--[^"\n]+)"`)
	for file, n := range map[string]int{unitFile: 2, "examples/systemd/operator_store_exporter.default": 1} {
		found := commands.FindAllStringSubmatch(f[file], -1)
		if len(found) != n {
			problems = append(problems, fmt.Errorf("%s has %d command lines, want %d", file, len(found), n))
		}
		for _, m := range found {
			if err := checkArgs(t, strings.Fields(m[1])); err != nil {
				problems = append(problems, fmt.Errorf("%s: %w", file, err))
			}
		}
	}
	help, err := command(t, "--help")
	if err != nil {
		return err
	}
	if url := defaultOf(help, "--upstream.url"); !strings.Contains(f[unitFile], " --upstream.url="+url+`"`) {
		problems = append(problems, fmt.Errorf("%s does not query %q", unitFile, url))
	}
	// What listens is what is exposed: examples/ has the port too.
	_, port, err := net.SplitHostPort(defaultOf(help, "--web.listen-address"))
	if err != nil || !strings.Contains(f["Dockerfile"], "\nEXPOSE "+port+"\n") || !strings.Contains(f["examples/kubernetes_test.go"], "exporterPort = "+port+"\n") {
		problems = append(problems, err, fmt.Errorf("the Dockerfile or the examples do not have the port %q", port))
	}
	return errors.Join(problems...)
}

// defaultOf returns the default of a flag from the output of --help.
func defaultOf(help, flag string) string {
	m := regexp.MustCompile(`(?m)^\s+` + regexp.QuoteMeta(flag) + `="?([^\s"]*)`).FindStringSubmatch(help)
	if m == nil {
		return ""
	}
	return m[1]
}

// checkConfigs loads every configuration of the exporter.
func checkConfigs(f map[string]string) error {
	var problems []error
	load := func(file, content string) {
		if _, err := config.Load([]byte(content)); err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", file, err))
		}
	}
	load("examples/systemd/config.yml", f["examples/systemd/config.yml"])
	in, err := dataIn(f["examples/kubernetes/tidbmonitor.yaml"], "config.yml")
	load("examples/kubernetes/tidbmonitor.yaml", in)
	return errors.Join(append(problems, err)...)
}

// dataIn returns a file of the first ConfigMap.
func dataIn(content, file string) (string, error) {
	var configMap struct{ Data map[string]string }
	err := yaml.Unmarshal([]byte(content), &configMap)
	return configMap.Data[file], err
}

// checkPrometheis gives every configuration of a Prometheus to promtool, with the rules beside it where there are some.
func checkPrometheis(t *testing.T, f map[string]string) error {
	t.Helper()
	sidecar, err := dataIn(f["examples/kubernetes/sidecar.yaml"], "prometheus.yml")
	problems := []error{err}
	help, err := exec.CommandContext(t.Context(), prometheusBinary, "--help").CombinedOutput()
	if err != nil {
		return err
	}
	for file, n := range map[string]int{"examples/kubernetes/sidecar.yaml": 1, "examples/compose/compose.yaml": 2} {
		args, err := argsIn(f[file], "prometheus", "upstream", "federation")
		if err != nil || len(args) != n {
			problems = append(problems, err, fmt.Errorf("%s starts %d Prometheis", file, len(args)))
		}
		for _, arg := range slices.Concat(args...) {
			if flag, _, _ := strings.Cut(arg, "="); !regexp.MustCompile(`(?m)^\s+` + regexp.QuoteMeta(flag) + `=`).Match(help) {
				problems = append(problems, fmt.Errorf("%s: Prometheus has no flag %s", file, flag))
			}
		}
	}
	for name, content := range map[string]string{
		"sidecar.yaml": sidecar, "upstream.yml": f["examples/compose/upstream.yml"], "federation.yml": f["examples/compose/federation.yml"],
	} {
		problems = append(problems, checkTargets(name, content))
		dir := t.TempDir()
		args := []string{"check", "config", "--lint=all", "--lint-fatal"}
		rules, err := os.ReadFile(root + "/mixin/alerts.yml")
		problems = append(problems, err, os.WriteFile(dir+"/alerts.yml", rules, 0o600), os.WriteFile(dir+"/prometheus.yml", []byte(content), 0o600))
		if out, err := exec.CommandContext(t.Context(), promtoolBinary, append(args, dir+"/prometheus.yml")...).CombinedOutput(); err != nil || content == "" {
			problems = append(problems, err, fmt.Errorf("%s: %s", name, out))
		}
	}
	return errors.Join(problems...)
}

// checkTargets wants each target at the port at which its job serves metrics.
func checkTargets(name, content string) error {
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
					return fmt.Errorf("%s: %s is no target of the job %s", name, target, s.Job)
				}
			}
		}
	}
	return nil
}

// unitKeys are keys that systemd knows, and that a unit of ours may have.
var unitKeys = map[string][]string{
	"Unit": {"Description", "Documentation", "Wants", "After"},
	"Service": {
		"Environment", "EnvironmentFile", "ExecStart", "ExecReload", "Restart", "RestartSec", "TimeoutStopSec", "DynamicUser", "UMask",
		"CapabilityBoundingSet", "AmbientCapabilities", "NoNewPrivileges", "ProtectSystem", "ProtectHome", "PrivateTmp", "PrivateDevices", "PrivateUsers",
		"DevicePolicy", "ProtectProc", "ProtectClock", "ProtectHostname", "ProtectKernelLogs", "ProtectKernelModules", "ProtectKernelTunables",
		"ProtectControlGroups", "RestrictAddressFamilies", "RestrictNamespaces", "RestrictRealtime", "RestrictSUIDSGID", "RemoveIPC", "LockPersonality",
		"MemoryDenyWriteExecute", "SystemCallArchitectures", "SystemCallFilter", "SystemCallErrorNumber", "MemoryMax",
	},
	"Install": {"WantedBy"},
}

// checkUnit reads the unit strictly, and has systemd read it where there is one.
func checkUnit(t *testing.T, f map[string]string) error {
	t.Helper()
	content := f[unitFile]
	var problems []error
	section, values := "", map[string]string{}
	for i, line := range strings.Split(content, "\n") {
		key, value, isKey := strings.Cut(line, "=")
		switch {
		case line == "" || strings.HasPrefix(line, "#"):
		case strings.HasPrefix(line, "[") && strings.HasSuffix(line, "]") && unitKeys[strings.Trim(line, "[]")] != nil:
			section = strings.Trim(line, "[]")
		case !isKey || !slices.Contains(unitKeys[section], key):
			problems = append(problems, fmt.Errorf("%s:%d: %q is nothing that [%s] has", unitFile, i+1, line, section))
		default:
			values[key] = value
		}
	}
	for key, want := range map[string]string{
		"ExecStart": "/usr/local/bin/" + program + " $ARGS", "ExecReload": "/bin/kill -HUP $MAINPID", "DynamicUser": "yes", "ProtectSystem": "strict",
		"ProtectHome": "yes", "PrivateTmp": "yes", "NoNewPrivileges": "yes", "CapabilityBoundingSet": "", "MemoryDenyWriteExecute": "yes",
		"EnvironmentFile": "-/etc/default/" + program, "WantedBy": "multi-user.target",
	} {
		if got, there := values[key]; got != want || !there {
			problems = append(problems, fmt.Errorf("%s: %s is %q, want %q", unitFile, key, got, want))
		}
	}
	// The files beside it say where they belong, which is where they are looked for.
	const (
		flags  = "examples/systemd/operator_store_exporter.default"
		config = "examples/systemd/config.yml"
		home   = "/etc/" + program + "/"
	)
	for file, says := range map[string][]string{
		flags: {"# /etc/default/" + program + ":", "--config.file=" + home + "config.yml "}, unitFile: {"--config.file=" + home + `config.yml"`, "#LoadCredential=password:" + home + "password\n"},
		config: {"# " + home + "config.yml:", "password_file: /run/credentials/" + program + ".service/password\n"},
	} {
		for _, text := range says {
			if !strings.Contains(f[file], text) {
				problems = append(problems, fmt.Errorf("%s does not have %q", file, text))
			}
		}
	}
	systemd, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Log("there is no systemd-analyze: systemd itself did not read the unit")
		return errors.Join(problems...)
	}
	unit := filepath.Join(t.TempDir(), filepath.Base(unitFile))
	if err := os.WriteFile(unit, []byte(strings.ReplaceAll(content, "/usr/local/bin/"+program, "/bin/true")), 0o600); err != nil {
		return err
	}
	// It only warns of what it does not know.
	if out, err := exec.CommandContext(t.Context(), systemd, "verify", unit).CombinedOutput(); err != nil || len(out) > 0 {
		problems = append(problems, err, fmt.Errorf("systemd says: %s", out))
	}
	return errors.Join(problems...)
}

func TestExampleFiles(t *testing.T) {
	checks := map[string]func(*testing.T, map[string]string) error{
		"flags":      checkFlags,
		"configs":    func(_ *testing.T, f map[string]string) error { return checkConfigs(f) },
		"unit":       checkUnit,
		"prometheis": checkPrometheis,
	}
	for name, check := range checks {
		t.Run(name, func(t *testing.T) {
			if err := check(t, exampleFiles(t)); err != nil {
				t.Error(err)
			}
		})
	}
	const (
		sidecar    = "examples/kubernetes/sidecar.yaml"
		monitor    = "examples/kubernetes/tidbmonitor.yaml"
		compose    = "examples/compose/compose.yaml"
		federation = "examples/compose/federation.yml"
	)
	for _, tc := range []struct{ name, check, file, old, new string }{
		{"a flag of the sidecar", "flags", sidecar, "--upstream.url=", "--upstream.uri="},
		{"a flag of the TidbMonitor", "flags", monitor, "--config.file=", "--config="},
		{"a flag of compose", "flags", compose, "--upstream.url=", "--upstream="},
		{"flags that do not go together", "flags", sidecar, "--cluster=basic", "--config.file=config.yml"},
		{"a container of another name", "flags", sidecar, "name: operator-store-exporter", "name: exporter"},
		{"a flag of the unit", "flags", unitFile, "=--cluster=", "=--clusters="},
		{"a flag in a comment of the unit", "flags", unitFile, "--config.file", "--config"},
		{"a flag of the unit's file", "flags", "examples/systemd/operator_store_exporter.default", "--log.level=info", "--log.level=all"},
		{"the image's port", "flags", "Dockerfile", "EXPOSE 9820", "EXPOSE 9821"},
		{"a field of a configuration", "configs", "examples/systemd/config.yml", "basic_auth:", "basicauth:"},
		{"a value of a configuration", "configs", "examples/systemd/config.yml", "https://prometheus-a", "prometheus-a"},
		{"a field of a ConfigMap's configuration", "configs", monitor, "selector: '", "selectors: '"},
		{"a selector that is none", "configs", monitor, `{tidb_cluster="tidb-basic"}`, "tidb-basic"},
		{"a section of the unit", "unit", unitFile, "[Install]", "[Instal]"},
		{"a key of the unit", "unit", unitFile, "ProtectHome=", "ProtectHomes="},
		{"a key in another section", "unit", unitFile, "WantedBy=", "ExecStart="},
		{"another program", "unit", unitFile, "/usr/local/bin/operator_store_exporter", "/usr/bin/operator_store_exporter"},
		{"flags elsewhere", "unit", unitFile, "EnvironmentFile=-/etc/default/", "EnvironmentFile=-/etc/sysconfig/"},
		{"a configuration elsewhere", "unit", "examples/systemd/operator_store_exporter.default", "/config.yml", ".yml"},
		{"a secret elsewhere", "unit", "examples/systemd/config.yml", ".service/password", ".service/secret"},
		{"a sandbox that is open", "unit", unitFile, "ProtectSystem=strict", "ProtectSystem=no"},
		{"a field of the sidecar's Prometheus", "prometheis", sidecar, "static_configs:", "static_config:"},
		{"a field of upstream", "prometheis", "examples/compose/upstream.yml", "scrape_interval:", "scrape_intervals:"},
		{"a target that is none", "prometheis", "examples/compose/upstream.yml", "tikv-0.example.com:20180", "http://tikv-0.example.com:20180"},
		{"a port of TiKV's", "prometheis", sidecar, "basic-tikv-1.basic-tikv-peer.tidb.svc:20180", "basic-tikv-1.basic-tikv-peer.tidb.svc:20160"},
		{"a flag of the sidecar's Prometheus", "prometheis", sidecar, "--storage.tsdb.path", "--storage.path"},
		{"a flag of upstream", "prometheis", compose, "--storage.tsdb.path", "--storage.path"},
		{"the unit's upstream", "flags", unitFile, "http://localhost:9090", "http://localhost:9091"},
		{"a field of the federation", "prometheis", federation, "job_name:", "name:"},
	} {
		t.Run("a mistake in "+tc.check+": "+tc.name, func(t *testing.T) {
			f := exampleFiles(t)
			if !strings.Contains(f[tc.file], tc.old) {
				t.Fatalf("%s has no %q", tc.file, tc.old)
			}
			f[tc.file] = strings.ReplaceAll(f[tc.file], tc.old, tc.new)
			if err := checks[tc.check](t, f); err == nil {
				t.Errorf("nobody minds %q in %s", tc.new, tc.file)
			}
		})
	}
	if _, err := exec.LookPath("systemd-analyze"); err == nil {
		for name, change := range map[string][2]string{
			"a group of calls that is none": {"@system-service", "@system-services"}, "a time that is none": {"RestartSec=5s", "RestartSec=5q"},
		} {
			t.Run("a mistake that systemd finds: "+name, func(t *testing.T) {
				f := exampleFiles(t)
				f[unitFile] = strings.Replace(f[unitFile], change[0], change[1], 1)
				if checkUnit(t, f) == nil {
					t.Errorf("nobody minds %q", change[1])
				}
			})
		}
	}
}

// The workflows do what .ci/run and make release do, with no more rights and time than that takes.
func TestWorkflows(t *testing.T) {
	inputs := map[string]map[string]string{
		"actions/checkout":         {"persist-credentials": "false"},
		"actions/setup-go":         {"go-version-file": "go.mod"},
		"actions/cache":            {"path": ".bin"},
		"docker/build-push-action": {"context": ".", "build-args": "BINARIES=.build", "platforms": "linux/amd64,linux/arm64", "push": "true"},
	}
	for file, want := range map[string][]string{
		".github/workflows/ci.yml": {".ci/run"},
		".github/workflows/release.yml": {
			`test "$GITHUB_REF_NAME" = "v$(cat VERSION)"`, ".ci/run", "make release",
			`gh release create "$GITHUB_REF_NAME" --verify-tag --title "$GITHUB_REF_NAME" --notes-from-tag .tarballs/*`,
		},
	} {
		t.Run(file, func(t *testing.T) {
			var workflow struct {
				Permissions map[string]string
				Jobs        map[string]struct {
					Timeout int `yaml:"timeout-minutes"`
					Steps   []struct {
						Uses, Run, If string
						Env, With     map[string]string
					}
				}
			}
			if err := yaml.Unmarshal([]byte(doctest.Read(t, file)), &workflow); err != nil {
				t.Fatal(err)
			}
			if len(workflow.Permissions) != 1 || workflow.Permissions["contents"] != "read" {
				t.Errorf("the permissions are %v", workflow.Permissions)
			}
			var runs []string
			for name, job := range workflow.Jobs {
				if job.Timeout <= 0 {
					t.Errorf("%s has no timeout", name)
				}
				for _, step := range job.Steps {
					if step.Uses != "" && !regexp.MustCompile(`^[a-z-]+/[a-z-]+@v\d+$`).MatchString(step.Uses) {
						t.Errorf("%s is not pinned by its major version", step.Uses)
					}
					if strings.HasPrefix(step.Run, "gh ") && step.Env["GH_TOKEN"] == "" {
						t.Errorf("%q has no token", step.Run)
					}
					action, _, _ := strings.Cut(step.Uses, "@")
					for key, value := range inputs[action] {
						if step.With[key] != value {
							t.Errorf("%s: %s is %q, want %q", step.Uses, key, step.With[key], value)
						}
					}
					if strings.HasPrefix(action, "docker/") && step.If != "vars.IMAGE != ''" {
						t.Errorf("%s is used if %q", step.Uses, step.If)
					}
					if step.Run != "" {
						runs = append(runs, step.Run)
					}
				}
			}
			if !slices.Equal(runs, want) {
				t.Errorf("%q is run, want %q", runs, want)
			}
			if err := actionlint(t, doctest.Read(t, file)); err != nil {
				t.Error(err)
			}
		})
	}
	for _, tc := range []struct{ name, file, old, new string }{
		{"a field of the file", "ci", "permissions:", "permission:"},
		{"a field of a job", "ci", "timeout-minutes:", "timeout:"},
		{"an input of an action", "ci", "go-version-file:", "go-version-files:"},
		{"a function", "ci", "hashFiles(", "hashFile("},
		{"a context", "release", "${{ github.", "${{ githup."},
		{"a right", "release", "contents: write", "content: write"},
	} {
		t.Run("a mistake: "+tc.name, func(t *testing.T) {
			content := doctest.Read(t, ".github/workflows/"+tc.file+".yml")
			if !strings.Contains(content, tc.old) {
				t.Fatalf("there is no %q", tc.old)
			}
			if actionlint(t, strings.ReplaceAll(content, tc.old, tc.new)) == nil {
				t.Errorf("nobody minds %q", tc.new)
			}
		})
	}
}

// actionlint says what GitHub would not take of a workflow.
func actionlint(t *testing.T, content string) error {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), actionlintBinary, "-shellcheck=", "-pyflakes=", "-oneline", writeFile(t, "workflow.yml", content)).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return nil
}
