// SPDX-License-Identifier: Apache-2.0

package examples

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
	"sigs.k8s.io/yaml"
)

const composeFile = "compose/compose.yaml"

// datasources and providers are what Grafana reads from its provisioning directory, as far as the examples use it.
type datasources struct {
	APIVersion  int `json:"apiVersion"`
	Datasources []struct {
		Name      string `json:"name"`
		UID       string `json:"uid"`
		Type      string `json:"type"`
		Access    string `json:"access"`
		URL       string `json:"url"`
		IsDefault bool   `json:"isDefault"`
		Editable  bool   `json:"editable"`
		JSONData  struct {
			TimeInterval string `json:"timeInterval"`
			HTTPMethod   string `json:"httpMethod"`
		} `json:"jsonData"`
	} `json:"datasources"`
}

type providers struct {
	APIVersion int `json:"apiVersion"`
	Providers  []struct {
		Name                  string `json:"name"`
		Type                  string `json:"type"`
		AllowUIUpdates        bool   `json:"allowUiUpdates"`
		DisableDeletion       bool   `json:"disableDeletion"`
		UpdateIntervalSeconds int    `json:"updateIntervalSeconds"`
		Options               struct {
			Path string `json:"path"`
		} `json:"options"`
	} `json:"providers"`
}

// listens tells where the program of a service listens inside its container.
var listens = map[string]string{"upstream": "9090", "operator_store_exporter": "9820", "federation": "9090", "grafana": "3000"}

// settings are those of Grafana that the examples use, as its documentation spells them, with their values.
var settings = map[string][]string{
	"GF_AUTH_ANONYMOUS_ENABLED": {"true"}, "GF_AUTH_ANONYMOUS_ORG_ROLE": {"Viewer"}, "GF_AUTH_DISABLE_LOGIN_FORM": {"true", "false"},
	"GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION": {"true", "false"}, "GF_ANALYTICS_REPORTING_ENABLED": {"true", "false"}, "GF_ANALYTICS_CHECK_FOR_UPDATES": {"true", "false"},
}

// checkCompose says what is wrong with the compose file, and with what its services mount and ask.
func checkCompose(f files) error {
	directory, err := filepath.Abs("compose")
	if err != nil {
		return err
	}
	project, err := loader.LoadWithContext(context.Background(), types.ConfigDetails{
		WorkingDir: directory, ConfigFiles: []types.ConfigFile{{Filename: directory + "/compose.yaml", Content: []byte(f[composeFile])}},
	})
	if err != nil {
		return err
	}
	var problems []error
	add := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	published := map[string]bool{}
	asks := func(who, address string) {
		host, port, err := net.SplitHostPort(address)
		if _, there := project.Services[host]; err != nil || !there || listens[host] != port {
			add("%s asks %s, which is no service", who, address)
		}
	}
	for name, s := range project.Services {
		problems = append(problems, checkImage(f, s.Image))
		if listens[name] == "" {
			add("nobody checks the service %s", name)
		}
		for _, p := range s.Ports {
			if strconv.FormatUint(uint64(p.Target), 10) != listens[name] || p.HostIP != "127.0.0.1" {
				add("%s: port %d is published on %q, its program listens on %s", name, p.Target, p.HostIP, listens[name])
			}
		}
		for _, p := range s.Ports {
			if published[p.Published] {
				add("the port %s is published twice", p.Published)
			}
			published[p.Published] = true
		}
		for _, arg := range s.Command {
			if data, is := strings.CutPrefix(arg, "--storage.tsdb.path="); is && mount(project, name, data) != name {
				add("%s: no volume is at %s", name, data)
			}
		}
		for variable, value := range s.Environment {
			if value == nil || !slices.Contains(settings[variable], *value) {
				add("%s: %s does not exist, or can't be that", name, variable)
			}
		}
		if !slices.Contains([]string{types.RestartPolicyAlways, types.RestartPolicyUnlessStopped}, s.Restart) {
			add("%s: restart is %q", name, s.Restart)
		}
		for _, v := range s.Volumes {
			if v.Type != types.VolumeTypeBind {
				continue
			}
			if !v.ReadOnly {
				add("%s may write to %s", name, v.Source)
			}
			if _, err := os.Stat(v.Source); err != nil {
				problems = append(problems, err)
			}
		}
	}
	for _, m := range regexp.MustCompile(`http://localhost:(\d+)`).FindAllStringSubmatch(f[composeFile], -1) {
		if !published[m[1]] {
			add("%s is told of, and not published", m[0])
		}
	}
	exporter := project.Services["operator_store_exporter"]
	if exporter.Image != exporterImage(f) {
		add("the exporter's image is %s, not %s", exporter.Image, exporterImage(f))
	}
	if exporter.Build == nil || f["../Dockerfile"] == "" || filepath.Join(exporter.Build.Context, exporter.Build.Dockerfile) != filepath.Join(directory, "../../Dockerfile") {
		add("the exporter is not built from the Dockerfile")
	}
	if !exporter.ReadOnly || !slices.Equal(exporter.CapDrop, []string{"ALL"}) || !slices.Contains(exporter.SecurityOpt, "no-new-privileges:true") {
		add("the exporter may do what it has no need to")
	}
	for _, arg := range exporter.Command {
		if u, is := strings.CutPrefix(arg, "--upstream.url="); is {
			parsed, err := url.Parse(u)
			if err != nil {
				return err
			}
			asks("the exporter", parsed.Host)
		}
	}
	for service, file := range map[string]string{"upstream": "compose/upstream.yml", "federation": "compose/federation.yml"} {
		var config struct {
			RuleFiles     []string `json:"rule_files"`
			ScrapeConfigs []struct {
				StaticConfigs []struct{ Targets []string } `json:"static_configs"`
			} `json:"scrape_configs"`
		}
		if err := yaml.Unmarshal([]byte(f[file]), &config); err != nil {
			return err
		}
		mounted := ""
		for _, arg := range project.Services[service].Command {
			if c, is := strings.CutPrefix(arg, "--config.file="); is {
				mounted = c
			}
		}
		if source := mount(project, service, mounted); source != filepath.Join(directory, "..", file) {
			add("%s reads %s from %q", service, mounted, source)
		}
		for _, rules := range config.RuleFiles {
			if mount(project, service, path.Join(path.Dir(mounted), rules)) != filepath.Join(directory, "../../mixin", rules) {
				add("%s: the rules %s are not mounted", service, rules)
			}
		}
		for _, s := range config.ScrapeConfigs {
			for _, t := range s.StaticConfigs {
				for _, target := range t.Targets {
					if service == "federation" {
						asks(service, target)
					}
				}
			}
		}
	}
	return errors.Join(append(problems, checkGrafana(f, project, asks))...)
}

// mount returns what a service has mounted at a path, or "".
func mount(project *types.Project, service, target string) string {
	for _, v := range project.Services[service].Volumes {
		if v.Target == target {
			return v.Source
		}
	}
	return ""
}

func checkGrafana(f files, project *types.Project, asks func(who, address string)) error {
	var problems []error
	root := filepath.Join(project.WorkingDir, "grafana/provisioning")
	if mount(project, "grafana", "/etc/grafana/provisioning") != root {
		problems = append(problems, errors.New("the provisioning of Grafana is not mounted"))
	}
	if mount(project, "grafana", "/var/lib/grafana") != "grafana" {
		problems = append(problems, errors.New("the data of Grafana has no volume"))
	}
	for _, name := range f.under("compose/grafana/") {
		switch path.Dir(name) {
		case "compose/grafana/provisioning/datasources":
			var d datasources
			if err := strictly(f[name], &d); err != nil {
				problems = append(problems, fmt.Errorf("%s: %w", name, err))
			}
			if len(d.Datasources) != 1 || d.APIVersion != 1 || d.Datasources[0].Type != "prometheus" || !d.Datasources[0].IsDefault || d.Datasources[0].Access != "proxy" {
				problems = append(problems, fmt.Errorf("%s: there is not one Prometheus by default", name))
				continue
			}
			if method := d.Datasources[0].JSONData.HTTPMethod; method != "POST" && method != "GET" {
				problems = append(problems, fmt.Errorf("%s: the method is %q", name, method))
			}
			u, err := url.Parse(d.Datasources[0].URL)
			if err != nil {
				return err
			}
			asks(name, u.Host)
		case "compose/grafana/provisioning/dashboards":
			var p providers
			if err := strictly(f[name], &p); err != nil {
				problems = append(problems, fmt.Errorf("%s: %w", name, err))
			}
			if len(p.Providers) != 1 || p.APIVersion != 1 || p.Providers[0].Type != "file" ||
				mount(project, "grafana", p.Providers[0].Options.Path) != filepath.Join(project.WorkingDir, "../../mixin/dashboards") {
				problems = append(problems, fmt.Errorf("%s does not provide mixin/dashboards", name))
			}
		default:
			problems = append(problems, fmt.Errorf("nobody checks %s", name))
		}
	}
	return errors.Join(problems...)
}
