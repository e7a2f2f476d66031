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

// datasources is a file in Grafana's directory of provisioned data sources, as far as the examples
// use it.
type datasources struct {
	APIVersion  int          `json:"apiVersion"`
	Datasources []datasource `json:"datasources"`
}

type datasource struct {
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
}

// providers is a file in Grafana's directory of dashboard providers, as far as the examples use it.
type providers struct {
	APIVersion int        `json:"apiVersion"`
	Providers  []provider `json:"providers"`
}

type provider struct {
	Name                  string `json:"name"`
	Type                  string `json:"type"`
	AllowUIUpdates        bool   `json:"allowUiUpdates"`
	DisableDeletion       bool   `json:"disableDeletion"`
	UpdateIntervalSeconds int    `json:"updateIntervalSeconds"`
	Options               struct {
		Path string `json:"path"`
	} `json:"options"`
}

// prometheusConfig is the configuration of a Prometheus, as far as it refers to other files and
// services.
type prometheusConfig struct {
	RuleFiles     []string `json:"rule_files"`
	ScrapeConfigs []struct {
		StaticConfigs []struct{ Targets []string } `json:"static_configs"`
	} `json:"scrape_configs"`
}

// servicePorts are the ports at which the programs of the services listen in their containers.
var servicePorts = map[string]string{
	"upstream": "9090", "operator_store_exporter": "9820", "federation": "9090", "grafana": "3000",
}

// grafanaSettings are the settings of Grafana that the examples use, with their valid values.
var grafanaSettings = map[string][]string{
	"GF_AUTH_ANONYMOUS_ENABLED":                  {"true"},
	"GF_AUTH_ANONYMOUS_ORG_ROLE":                 {"Viewer"},
	"GF_AUTH_DISABLE_LOGIN_FORM":                 {"true", "false"},
	"GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION": {"true", "false"},
	"GF_ANALYTICS_REPORTING_ENABLED":             {"true", "false"},
	"GF_ANALYTICS_CHECK_FOR_UPDATES":             {"true", "false"},
}

// composeCheck checks the compose file, and the files that its services mount.
type composeCheck struct {
	problems
	files   files
	project *types.Project
}

// checkCompose checks the compose example.
func checkCompose(f files) error {
	directory, err := filepath.Abs("compose")
	if err != nil {
		return err
	}
	project, err := loader.LoadWithContext(context.Background(), types.ConfigDetails{
		WorkingDir: directory,
		ConfigFiles: []types.ConfigFile{
			{Filename: filepath.Join(directory, "compose.yaml"), Content: []byte(f[composeFile])},
		},
	})
	if err != nil {
		return err
	}

	c := &composeCheck{files: f, project: project}
	for name, s := range project.Services {
		c.checkService(name, s)
	}
	c.checkPublishedPorts()
	c.checkExporter(project.Services["operator_store_exporter"])
	c.checkPrometheus("upstream", "compose/upstream.yml")

	for _, target := range c.checkPrometheus("federation", "compose/federation.yml") {
		c.checkServer("federation", target)
	}
	c.checkGrafana()

	return errors.Join(c.problems...)
}

// checkServer checks that the address that a client queries is one of a service.
func (c *composeCheck) checkServer(client, address string) {
	host, port, err := net.SplitHostPort(address)
	if _, ok := c.project.Services[host]; err != nil || !ok || servicePorts[host] != port {
		c.addf("%s queries %s, which is not a service", client, address)
	}
}

// checkService checks what applies to every service.
func (c *composeCheck) checkService(name string, s types.ServiceConfig) {
	c.add(checkImage(c.files, s.Image))
	if servicePorts[name] == "" {
		c.addf("service %s is unknown: add its port to servicePorts in compose_test.go", name)
	}

	for _, p := range s.Ports {
		if strconv.FormatUint(uint64(p.Target), 10) != servicePorts[name] || p.HostIP != "127.0.0.1" {
			c.addf("%s publishes port %d on %q, want port %s on 127.0.0.1",
				name, p.Target, p.HostIP, servicePorts[name])
		}
	}
	if !slices.Contains([]string{types.RestartPolicyAlways, types.RestartPolicyUnlessStopped}, s.Restart) {
		c.addf("%s: restart is %q", name, s.Restart)
	}

	for _, arg := range s.Command {
		if data, ok := strings.CutPrefix(arg, "--storage.tsdb.path="); ok && c.mounted(name, data) != name {
			c.addf("%s: no volume is mounted at %s", name, data)
		}
	}

	for variable, value := range s.Environment {
		if value == nil || !slices.Contains(grafanaSettings[variable], *value) {
			c.addf("%s: %s is unknown, or its value is invalid", name, variable)
		}
	}

	for _, v := range s.Volumes {
		c.checkMount(name, v)
	}
}

// checkMount checks that a file or directory of the host exists and is mounted read-only.
func (c *composeCheck) checkMount(service string, v types.ServiceVolumeConfig) {
	if v.Type != types.VolumeTypeBind {
		return
	}

	if !v.ReadOnly {
		c.addf("%s can write to %s", service, v.Source)
	}
	_, err := os.Stat(v.Source)
	c.add(err)
}

// checkPublishedPorts checks that ports do not conflict, and that documented ports are published.
func (c *composeCheck) checkPublishedPorts() {
	published := map[string]bool{}
	for _, s := range c.project.Services {
		for _, p := range s.Ports {
			if published[p.Published] {
				c.addf("port %s is published twice", p.Published)
			}
			published[p.Published] = true
		}
	}

	documented := regexp.MustCompile(`http://localhost:(\d+)`)
	for _, m := range documented.FindAllStringSubmatch(c.files[composeFile], -1) {
		if !published[m[1]] {
			c.addf("%s is documented but not published", m[0])
		}
	}
}

// checkExporter checks the image, the permissions and the upstream of the exporter.
func (c *composeCheck) checkExporter(s types.ServiceConfig) {
	if s.Image != exporterImage(c.files) {
		c.addf("the exporter's image is %s, want %s", s.Image, exporterImage(c.files))
	}
	dockerfile := filepath.Join(c.project.WorkingDir, "../../Dockerfile")
	if s.Build == nil || c.files["../Dockerfile"] == "" ||
		filepath.Join(s.Build.Context, s.Build.Dockerfile) != dockerfile {
		c.addf("the exporter is not built from the Dockerfile")
	}
	if !s.ReadOnly || !slices.Equal(s.CapDrop, []string{"ALL"}) ||
		!slices.Contains(s.SecurityOpt, "no-new-privileges:true") {
		c.addf("the exporter has more permissions than it needs")
	}

	for _, arg := range s.Command {
		u, ok := strings.CutPrefix(arg, "--upstream.url=")
		if !ok {
			continue
		}
		parsed, err := url.Parse(u)
		if err != nil {
			c.add(err)
			continue
		}
		c.checkServer("the exporter", parsed.Host)
	}
}

// checkPrometheus checks that a Prometheus has its configuration and its rules mounted. It returns
// the targets.
func (c *composeCheck) checkPrometheus(service, file string) []string {
	var config prometheusConfig
	if err := yaml.Unmarshal([]byte(c.files[file]), &config); err != nil {
		c.add(err)
		return nil
	}

	name := ""
	for _, arg := range c.project.Services[service].Command {
		if value, ok := strings.CutPrefix(arg, "--config.file="); ok {
			name = value
		}
	}
	want := filepath.Join(c.project.WorkingDir, "..", file)
	if source := c.mounted(service, name); source != want {
		c.addf("%s reads %s from %q, want %q", service, name, source, want)
	}

	for _, rules := range config.RuleFiles {
		want := filepath.Join(c.project.WorkingDir, "../../mixin", rules)
		if c.mounted(service, path.Join(path.Dir(name), rules)) != want {
			c.addf("%s: rule file %s is not mounted", service, rules)
		}
	}

	var targets []string
	for _, s := range config.ScrapeConfigs {
		for _, static := range s.StaticConfigs {
			targets = append(targets, static.Targets...)
		}
	}

	return targets
}

// mounted returns what a service has mounted at a path, or "".
func (c *composeCheck) mounted(service, target string) string {
	for _, v := range c.project.Services[service].Volumes {
		if v.Target == target {
			return v.Source
		}
	}

	return ""
}

// checkGrafana checks the volumes and the provisioning of Grafana.
func (c *composeCheck) checkGrafana() {
	provisioning := filepath.Join(c.project.WorkingDir, "grafana/provisioning")
	if c.mounted("grafana", "/etc/grafana/provisioning") != provisioning {
		c.addf("Grafana's provisioning is not mounted")
	}
	if c.mounted("grafana", "/var/lib/grafana") != "grafana" {
		c.addf("Grafana's data has no volume")
	}

	for _, name := range c.files.under("compose/grafana/") {
		var err error
		switch path.Dir(name) {
		case "compose/grafana/provisioning/datasources":
			err = c.checkDatasources(name)
		case "compose/grafana/provisioning/dashboards":
			err = c.checkProviders(name)
		default:
			err = errors.New("no check reads this file")
		}
		if err != nil {
			c.addf("%s: %w", name, err)
		}
	}
}

// checkDatasources checks a file of data sources.
func (c *composeCheck) checkDatasources(name string) error {
	var d datasources
	err := decodeStrictly(c.files[name], &d)
	if len(d.Datasources) != 1 || d.APIVersion != 1 || d.Datasources[0].Type != "prometheus" ||
		!d.Datasources[0].IsDefault || d.Datasources[0].Access != "proxy" {
		return errors.Join(err, errors.New("the only data source must be a Prometheus, and the default"))
	}

	source := d.Datasources[0]
	if method := source.JSONData.HTTPMethod; method != "POST" && method != "GET" {
		err = errors.Join(err, fmt.Errorf("HTTP method is %q", method))
	}
	u, parseErr := url.Parse(source.URL)
	if parseErr != nil {
		return errors.Join(err, parseErr)
	}
	c.checkServer(name, u.Host)

	return err
}

// checkProviders checks a file of dashboard providers.
func (c *composeCheck) checkProviders(name string) error {
	var p providers
	err := decodeStrictly(c.files[name], &p)

	dashboards := filepath.Join(c.project.WorkingDir, "../../mixin/dashboards")
	if len(p.Providers) != 1 || p.APIVersion != 1 || p.Providers[0].Type != "file" ||
		c.mounted("grafana", p.Providers[0].Options.Path) != dashboards {
		err = errors.Join(err, errors.New("it does not provide mixin/dashboards"))
	}

	return err
}
