// SPDX-License-Identifier: Apache-2.0

// Package examples is only what there is to start from: its tests read each file as strictly as its owner does.
//
// It is a module of its own, so that the schemas of others are no dependency of the exporter.
package examples

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// files are the contents of the examples by their path, and of what they are held to.
type files map[string]string

func readFiles(t *testing.T) files {
	t.Helper()
	f := files{}
	add := func(name string) {
		content, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		f[name] = string(content)
	}
	for _, root := range []string{"kubernetes", "compose"} {
		err := filepath.WalkDir(root, func(name string, entry fs.DirEntry, err error) error {
			if err == nil && !entry.IsDir() {
				add(name)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	add("../VERSION")
	add("../Dockerfile")
	return f
}

// under returns the names with a prefix, sorted.
func (f files) under(prefix string) []string {
	var names []string
	for name := range f {
		if strings.HasPrefix(name, prefix) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// exporterImage is the image of the version that the examples belong to.
func exporterImage(f files) string {
	return "operator-store/operator_store_exporter:v" + strings.TrimSpace(f["../VERSION"])
}

// images are those of others.
var images = []string{"prom/prometheus", "grafana/grafana", "pingcap/tidb-monitor-initializer", "pingcap/tidb-monitor-reloader"}

var version = regexp.MustCompile(`^v?\d+\.\d+\.\d+$`)

// checkImage wants the image of this version, or one of others by its plain name and version.
func checkImage(f files, image string) error {
	repository, tag, _ := strings.Cut(image, ":")
	if image != exporterImage(f) && (!slices.Contains(images, repository) || !version.MatchString(tag)) {
		return fmt.Errorf("the image %q is not known, or has no version", image)
	}
	return nil
}

var checks = map[string]func(files) error{"kubernetes": checkKubernetes, "compose": checkCompose}

func TestExamples(t *testing.T) {
	for name, check := range checks {
		t.Run(name, func(t *testing.T) {
			if err := check(readFiles(t)); err != nil {
				t.Error(err)
			}
		})
	}
}

// A mistake in an example does not pass.
func TestMistakesAreFound(t *testing.T) {
	const (
		sidecar    = "kubernetes/sidecar.yaml"
		monitor    = "kubernetes/tidbmonitor.yaml"
		podMonitor = "kubernetes/podmonitor.yaml"
		datasource = "compose/grafana/provisioning/datasources/federation.yml"
		provider   = "compose/grafana/provisioning/dashboards/operator_store.yml"
	)
	for _, tc := range []struct{ name, check, file, old, new string }{
		{"a field of a container", "kubernetes", sidecar, "readinessProbe:", "readynessProbe:"},
		{"a field in other letters", "kubernetes", sidecar, "replicas: 1", "Replicas: 1"},
		{"a field twice", "kubernetes", sidecar, "  replicas: 1\n", "  replicas: 1\n  replicas: 1\n"},
		{"a field at another depth", "kubernetes", sidecar, "      automountServiceAccountToken: false\n", "      readOnlyRootFilesystem: true\n"},
		{"a kind that nobody checks", "kubernetes", sidecar, "kind: StatefulSet", "kind: Deployment"},
		{"a quantity", "kubernetes", sidecar, "memory: 256Mi", "memory: 256Mib"},
		{"a port of the exporter", "kubernetes", sidecar, "containerPort: 9820", "containerPort: 9821"},
		{"a port of a Service", "kubernetes", sidecar, "port: 9820, targetPort", "port: 9280, targetPort"},
		{"a target port of a Service", "kubernetes", sidecar, "targetPort: operator-store", "targetPort: operator"},
		{"a port of upstream", "kubernetes", sidecar, "http://localhost:9090", "http://localhost:9091"},
		{"a host of upstream", "kubernetes", sidecar, "http://localhost:9090", "http://prometheus:9090"},
		{"a path of a probe", "kubernetes", sidecar, "path: /-/ready, port: operator-store", "path: /ready, port: operator-store"},
		{"a port of a probe", "kubernetes", sidecar, "path: /-/ready, port: operator-store", "path: /-/ready, port: http-prometheus"},
		{"a long port name", "kubernetes", sidecar, "name: operator-store, containerPort", "name: operator-store-exporter, containerPort"},
		{"a selector of a Service", "kubernetes", sidecar, "    app.kubernetes.io/name: prometheus-tikv\n    app.kubernetes.io/component: monitor\n  ports", "    app.kubernetes.io/name: tikv\n  ports"},
		{"a volume", "kubernetes", sidecar, "name: data, mountPath", "name: date, mountPath"},
		{"a ConfigMap's name", "kubernetes", sidecar, "configMap: {name: prometheus-tikv}", "configMap: {name: prometheus}"},
		{"an image without version", "kubernetes", sidecar, "prom/prometheus:v3.16.0", "prom/prometheus"},
		{"an image of a host", "kubernetes", sidecar, "prom/prometheus:v3.16.0", "images.example.com/prom/prometheus:v3.16.0"},
		{"an exporter of another version", "kubernetes", sidecar, "operator_store_exporter:v0.1.0", "operator_store_exporter:v0.0.1"},
		{"a container that may write", "kubernetes", sidecar, "readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false"},
		{"a container with capabilities", "kubernetes", monitor, "drop: [ALL]", "drop: []"},
		{"a field of a TidbMonitor", "kubernetes", monitor, "  clusterScoped:", "  clustersScoped:"},
		{"a field of its container", "kubernetes", monitor, "mountPath:", "mountpath:"},
		{"a field of its Prometheus", "kubernetes", monitor, "baseImage: prom/prometheus", "image: prom/prometheus"},
		{"its API version", "kubernetes", monitor, "pingcap.com/v1alpha1", "pingcap.com/v1"},
		{"its configuration's path", "kubernetes", monitor, "--config.file=/etc/operator_store_exporter/config.yml", "--config.file=/etc/config.yml"},
		{"its configuration's key", "kubernetes", monitor, "  config.yml: |", "  config.yaml: |"},
		{"its upstream", "kubernetes", monitor, "http://localhost:9090", "http://localhost:9091"},
		{"the labels of its pods", "kubernetes", monitor, "app.kubernetes.io/instance: basic", "app.kubernetes.io/instance: advanced"},
		{"a namespace", "kubernetes", podMonitor, "namespace: tidb", "namespace: monitoring"},
		{"a StatefulSet's Service", "kubernetes", sidecar, "serviceName: prometheus-tikv", "serviceName: prometheus"},
		{"a profile", "kubernetes", monitor, "{type: RuntimeDefault}", "{type: Default}"},
		{"a policy", "kubernetes", monitor, "IfNotPresent", "IfMissing"},
		{"an image's name", "kubernetes", monitor, "prom/prometheus", "prometheus"},
		{"its cluster", "kubernetes", monitor, "tidb-basic", "basic"},
		{"the label of its cluster", "kubernetes", monitor, "tidb_cluster=", "cluster="},
		{"a Prometheus' path", "kubernetes", sidecar, "--storage.tsdb.path=/prometheus", "--storage.tsdb.path=/data"},
		{"a Prometheus' configuration", "kubernetes", sidecar, "  prometheus.yml: |", "  prometheus.yaml: |"},
		{"a volume without size", "kubernetes", sidecar, "requests: {storage: 50Gi}", "requests: {memory: 50Gi}"},
		{"another user than the image's", "kubernetes", "../Dockerfile", "USER 65534", "USER 65532"},
		{"a field of a PodMonitor", "kubernetes", podMonitor, "podMetricsEndpoints", "podMetricEndpoints"},
		{"its port", "kubernetes", podMonitor, "port: operator-store", "port: metrics"},
		{"its path", "kubernetes", podMonitor, "path: /metrics", "path: /metric"},
		{"its selector", "kubernetes", podMonitor, "component: monitor", "component: exporter"},
		{"its field that is not there", "kubernetes", podMonitor, "scrapeTimeout:", "timeout:"},

		{"a field of a service", "compose", composeFile, "read_only:", "readonly:"},
		{"a field of the file", "compose", composeFile, "services:", "service:"},
		{"a value", "compose", composeFile, "mem_limit: 256m", "mem_limit: much"},
		{"a port", "compose", composeFile, "127.0.0.1:9820:9820", "127.0.0.1:9820:9821"},
		{"a value of Grafana's", "compose", composeFile, "ORG_ROLE: Viewer", "ORG_ROLE: Reader"},
		{"a policy", "compose", composeFile, "unless-stopped", "until-stopped"},
		{"no place for Grafana's data", "compose", composeFile, "grafana:/var/lib/grafana\n", "grafana:/var/grafana\n"},
		{"a method", "compose", datasource, "httpMethod: POST", "httpMethod: PUT"},
		{"a port that is told", "compose", composeFile, "127.0.0.1:3000:3000", "127.0.0.1:3001:3000"},
		{"a port that is taken", "compose", composeFile, "127.0.0.1:9091:9090", "127.0.0.1:9090:9090"},
		{"a setting of Grafana", "compose", composeFile, "GF_AUTH_ANONYMOUS_ENABLED", "GF_AUTH_ANONYMOUSLY_ENABLED"},
		{"a directory without volume", "compose", composeFile, "--storage.tsdb.path=/prometheus", "--storage.tsdb.path=/data"},
		{"a port open to all", "compose", composeFile, "127.0.0.1:3000:3000", "3000:3000"},
		{"an upstream that is no service", "compose", composeFile, "http://upstream:9090", "http://prometheus:9090"},
		{"an upstream's port", "compose", composeFile, "http://upstream:9090", "http://upstream:9091"},
		{"a volume that is not there", "compose", composeFile, "- upstream:/prometheus", "- upstreams:/prometheus"},
		{"a file that is not there", "compose", composeFile, "./upstream.yml:", "./prometheus.yml:"},
		{"a file that may be written", "compose", composeFile, "/etc/grafana/provisioning:ro", "/etc/grafana/provisioning"},
		{"rules elsewhere", "compose", composeFile, "/etc/prometheus/alerts.yml:ro", "/etc/alerts.yml:ro"},
		{"a path of a configuration", "compose", composeFile, "--config.file=/etc/prometheus/prometheus.yml", "--config.file=/etc/prometheus.yml"},
		{"a Dockerfile elsewhere", "compose", composeFile, "build: ../..", "build: .."},
		{"an image without a version", "compose", composeFile, "grafana/grafana:13.2.3", "grafana/grafana:latest"},
		{"a service that nobody checks", "compose", composeFile, "  grafana:\n    image", "  dashboards:\n    image"},
		{"capabilities", "compose", composeFile, "cap_drop: [ALL]", "cap_drop: [NET_RAW]"},
		{"a target that is no service", "compose", "compose/federation.yml", "operator_store_exporter:9820", "exporter:9820"},
		{"a target's port", "compose", "compose/federation.yml", "operator_store_exporter:9820", "operator_store_exporter:9090"},
		{"a field of a data source", "compose", datasource, "isDefault:", "default:"},
		{"a data source elsewhere", "compose", datasource, "http://federation:9090", "http://federation:9091"},
		{"no default", "compose", datasource, "isDefault: true", "isDefault: false"},
		{"a field of a provider", "compose", provider, "options:", "option:"},
		{"dashboards elsewhere", "compose", provider, "path: /var/lib/grafana/dashboards", "path: /var/lib/grafana"},
	} {
		t.Run(tc.check+": "+tc.name, func(t *testing.T) {
			f := readFiles(t)
			if !strings.Contains(f[tc.file], tc.old) {
				t.Fatalf("%s has no %q", tc.file, tc.old)
			}
			f[tc.file] = strings.ReplaceAll(f[tc.file], tc.old, tc.new)
			err := checks[tc.check](f)
			if err == nil {
				t.Fatalf("nobody minds %q in %s", tc.new, tc.file)
			}
			t.Log(err)
		})
	}
}
