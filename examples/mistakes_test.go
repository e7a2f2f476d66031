// SPDX-License-Identifier: Apache-2.0

package examples

// change is a mistake in an example that a check must report.
type change struct {
	name     string
	old, new string // The text to replace, and what it is replaced with.
	want     string // Part of the error.
}

// mistakes are changes to the examples that the checks must report.
var mistakes = []struct {
	file    string
	check   string // The check that reports the changes, if it is not that of the file's directory.
	changes []change
}{
	{file: "kubernetes/sidecar.yaml", changes: sidecarMistakes},
	{file: "kubernetes/tidbmonitor.yaml", changes: tidbMonitorMistakes},
	{file: "kubernetes/podmonitor.yaml", changes: podMonitorMistakes},
	{file: "../Dockerfile", check: "kubernetes", changes: []change{
		{
			name: "other user than the examples", old: "USER 65534", new: "USER 65532",
			want: "the exporter does not run as the user of its image",
		},
	}},
	{file: "compose/compose.yaml", changes: composeMistakes},
	{file: "compose/federation.yml", changes: []change{
		{
			name: "target is not a service", old: "operator_store_exporter:9820", new: "exporter:9820",
			want: "federation queries exporter:9820, which is not a service",
		},
		{
			name: "wrong port of a target", old: "operator_store_exporter:9820", new: "operator_store_exporter:9090",
			want: "federation queries operator_store_exporter:9090, which is not a service",
		},
	}},
	{file: "compose/grafana/provisioning/datasources/federation.yml", changes: datasourceMistakes},
	{file: "compose/grafana/provisioning/dashboards/operator_store.yml", changes: []change{
		{
			name: "unknown field", old: "options:", new: "option:",
			want: `unknown field "providers[0].option"`,
		},
		{
			name: "wrong directory of the dashboards",
			old:  "path: /var/lib/grafana/dashboards", new: "path: /var/lib/grafana",
			want: "it does not provide mixin/dashboards",
		},
	}},
}

var sidecarMistakes = []change{
	{
		name: "unknown field of a container", old: "readinessProbe:", new: "readynessProbe:",
		want: `unknown field "spec.template.spec.containers[0].readynessProbe"`,
	},
	{
		name: "wrong case of a field", old: "replicas: 1", new: "Replicas: 1",
		want: `unknown field "spec.Replicas"`,
	},
	{
		name: "duplicate field", old: "  replicas: 1\n", new: "  replicas: 1\n  replicas: 1\n",
		want: `key "replicas" already set`,
	},
	{
		name: "field at the wrong level",
		old:  "      automountServiceAccountToken: false\n", new: "      readOnlyRootFilesystem: true\n",
		want: `unknown field "spec.template.spec.readOnlyRootFilesystem"`,
	},
	{
		name: "kind without a check", old: "kind: StatefulSet", new: "kind: Deployment",
		want: "apps/v1 Deployment has no check",
	},
	{
		name: "invalid quantity", old: "memory: 256Mi", new: "memory: 256Mib",
		want: "quantities must match the regular expression",
	},
	{
		name: "wrong port of the exporter", old: "containerPort: 9820", new: "containerPort: 9821",
		want: "the exporter's port is not 9820",
	},
	{
		name: "wrong port of a Service", old: "port: 9820, targetPort", new: "port: 9280, targetPort",
		want: "Service prometheus-tikv: port 9280 leads to container port 9820",
	},
	{
		name: "unknown target port of a Service", old: "targetPort: operator-store", new: "targetPort: operator",
		want: "Service prometheus-tikv: port 9820 leads to container port 0",
	},
	{
		name: "wrong port of upstream", old: "http://localhost:9090", new: "http://localhost:9091",
		want: "http://localhost:9091 is not a server in the pod",
	},
	{
		name: "wrong host of upstream", old: "http://localhost:9090", new: "http://prometheus:9090",
		want: "http://prometheus:9090 is not a server in the pod",
	},
	{
		name: "wrong path of a probe",
		old:  "path: /-/ready, port: operator-store", new: "path: /ready, port: operator-store",
		want: "operator-store-exporter: no probe requests /-/ready from a port of this container",
	},
	{
		name: "port of another container in a probe",
		old:  "path: /-/ready, port: operator-store", new: "path: /-/ready, port: http-prometheus",
		want: "operator-store-exporter: no probe requests /-/ready from a port of this container",
	},
	{
		name: "port name is too long",
		old:  "name: operator-store, containerPort", new: "name: operator-store-exporter, containerPort",
		want: `port name "operator-store-exporter": must be no more than 15 characters`,
	},
	{
		name: "wrong selector of a Service",
		old: "    app.kubernetes.io/name: prometheus-tikv\n    app.kubernetes.io/component: monitor\n" +
			"  ports",
		new:  "    app.kubernetes.io/name: tikv\n  ports",
		want: "Service prometheus-tikv does not select the pods with labels",
	},
	{
		name: "unknown volume", old: "name: data, mountPath", new: "name: date, mountPath",
		want: "volume date is mounted but not defined",
	},
	{
		name: "unknown ConfigMap", old: "configMap: {name: prometheus-tikv}", new: "configMap: {name: prometheus}",
		want: "ConfigMap prometheus does not exist",
	},
	{
		name: "image without a version", old: "prom/prometheus:v3.16.0", new: "prom/prometheus",
		want: `image "prom/prometheus" is unknown or has no version`,
	},
	{
		name: "image with a registry",
		old:  "prom/prometheus:v3.16.0", new: "images.example.com/prom/prometheus:v3.16.0",
		want: `image "images.example.com/prom/prometheus:v3.16.0" is unknown or has no version`,
	},
	{
		name: "other version of the exporter",
		old:  "operator_store_exporter:v0.1.0", new: "operator_store_exporter:v0.0.1",
		want: "the exporter's image is operator-store/operator_store_exporter:v0.0.1, want",
	},
	{
		name: "writable container", old: "readOnlyRootFilesystem: true", new: "readOnlyRootFilesystem: false",
		want: "prometheus: it can gain privileges or write to its image, or it has capabilities",
	},
	{
		name: "unknown Service of a StatefulSet",
		old:  "serviceName: prometheus-tikv", new: "serviceName: prometheus",
		want: "Service prometheus does not exist",
	},
	{
		name: "data directory without a volume",
		old:  "--storage.tsdb.path=/prometheus", new: "--storage.tsdb.path=/data",
		want: "no writable volume is mounted at /data",
	},
	{
		name: "missing configuration of Prometheus", old: "  prometheus.yml: |", new: "  prometheus.yaml: |",
		want: "no ConfigMap contains /etc/prometheus/prometheus.yml",
	},
	{
		name: "volume without a size", old: "requests: {storage: 50Gi}", new: "requests: {memory: 50Gi}",
		want: "volume data has no size",
	},
}

var tidbMonitorMistakes = []change{
	{
		name: "container with capabilities", old: "drop: [ALL]", new: "drop: []",
		want: "operator-store-exporter: it can gain privileges or write to its image, or it has capabilities",
	},
	{
		name: "unknown field of the TidbMonitor", old: "  clusterScoped:", new: "  clustersScoped:",
		want: `unknown field "spec.clustersScoped"`,
	},
	{
		name: "unknown field of the container", old: "mountPath:", new: "mountpath:",
		want: `unknown field "spec.additionalContainers[0].volumeMounts[0].mountpath"`,
	},
	{
		name: "unknown field of Prometheus", old: "baseImage: prom/prometheus", new: "image: prom/prometheus",
		want: `unknown field "spec.prometheus.image"`,
	},
	{
		name: "unknown API version", old: "pingcap.com/v1alpha1", new: "pingcap.com/v1",
		want: "pingcap.com/v1 TidbMonitor has no check",
	},
	{
		name: "wrong path of the configuration",
		old:  "--config.file=/etc/operator_store_exporter/config.yml", new: "--config.file=/etc/config.yml",
		want: "no ConfigMap contains /etc/config.yml",
	},
	{
		name: "wrong file name of the configuration", old: "  config.yml: |", new: "  config.yaml: |",
		want: "no ConfigMap contains /etc/operator_store_exporter/config.yml",
	},
	{
		name: "wrong port of upstream", old: "http://localhost:9090", new: "http://localhost:9091",
		want: "http://localhost:9091 is not a server in the pod",
	},
	{
		name: "wrong selector of the Service",
		old:  "app.kubernetes.io/instance: basic", new: "app.kubernetes.io/instance: advanced",
		want: "Service operator-store-exporter does not select the pods with labels",
	},
	{
		name: "unknown seccomp profile", old: "{type: RuntimeDefault}", new: "{type: Default}",
		want: "operator-store-exporter: its seccomp profile is not RuntimeDefault",
	},
	{
		name: "unknown image pull policy", old: "IfNotPresent", new: "IfMissing",
		want: `imagePullPolicy is "IfMissing"`,
	},
	{
		name: "unknown image", old: "prom/prometheus", new: "prometheus",
		want: `image "prometheus:v2.27.1" is unknown or has no version`,
	},
	{
		name: "wrong cluster in a selector", old: "tidb-basic", new: "basic",
		want: `no selector is '{tidb_cluster="tidb-basic"}'`,
	},
	{
		name: "wrong label in a selector", old: "tidb_cluster=", new: "cluster=",
		want: `no selector is '{tidb_cluster="tidb-basic"}'`,
	},
}

var podMonitorMistakes = []change{
	{
		name: "other namespace", old: "namespace: tidb", new: "namespace: monitoring",
		want: `PodMonitor "operator-store-exporter" in namespace "monitoring"`,
	},
	{
		name: "misspelled field", old: "podMetricsEndpoints", new: "podMetricEndpoints",
		want: `unknown field "spec.podMetricEndpoints"`,
	},
	{
		name: "wrong port", old: "port: operator-store", new: "port: metrics",
		want: "PodMonitor operator-store-exporter does not find the exporter in the pod with labels",
	},
	{
		name: "wrong path", old: "path: /metrics", new: "path: /metric",
		want: "PodMonitor operator-store-exporter scrapes /metric",
	},
	{
		name: "wrong selector", old: "component: monitor", new: "component: exporter",
		want: "PodMonitor operator-store-exporter does not find the exporter in the pod with labels",
	},
	{
		name: "unknown field of an endpoint", old: "scrapeTimeout:", new: "timeout:",
		want: `unknown field "spec.podMetricsEndpoints[0].timeout"`,
	},
}

var composeMistakes = []change{
	{
		name: "unknown field of a service", old: "read_only:", new: "readonly:",
		want: "services.operator_store_exporter.readonly",
	},
	{
		name: "unknown field of the file", old: "services:", new: "service:",
		want: "additional properties 'service' not allowed",
	},
	{
		name: "invalid value", old: "mem_limit: 256m", new: "mem_limit: much",
		want: "invalid size: 'much'",
	},
	{
		name: "wrong port in the container", old: "127.0.0.1:9820:9820", new: "127.0.0.1:9820:9821",
		want: `operator_store_exporter publishes port 9821 on "127.0.0.1", want port 9820 on 127.0.0.1`,
	},
	{
		name: "unknown value of a Grafana setting", old: "ORG_ROLE: Viewer", new: "ORG_ROLE: Reader",
		want: "grafana: GF_AUTH_ANONYMOUS_ORG_ROLE is unknown, or its value is invalid",
	},
	{
		name: "unknown restart policy", old: "unless-stopped", new: "until-stopped",
		want: `upstream: restart is "until-stopped"`,
	},
	{
		name: "no volume for Grafana's data", old: "grafana:/var/lib/grafana\n", new: "grafana:/var/grafana\n",
		want: "Grafana's data has no volume",
	},
	{
		name: "documented port is not published", old: "127.0.0.1:3000:3000", new: "127.0.0.1:3001:3000",
		want: "http://localhost:3000 is documented but not published",
	},
	{
		name: "port is published twice", old: "127.0.0.1:9091:9090", new: "127.0.0.1:9090:9090",
		want: "port 9090 is published twice",
	},
	{
		name: "unknown Grafana setting", old: "GF_AUTH_ANONYMOUS_ENABLED", new: "GF_AUTH_ANONYMOUSLY_ENABLED",
		want: "grafana: GF_AUTH_ANONYMOUSLY_ENABLED is unknown, or its value is invalid",
	},
	{
		name: "data directory without a volume",
		old:  "--storage.tsdb.path=/prometheus", new: "--storage.tsdb.path=/data",
		want: "upstream: no volume is mounted at /data",
	},
	{
		name: "port is published on all interfaces", old: "127.0.0.1:3000:3000", new: "3000:3000",
		want: `grafana publishes port 3000 on "", want port 3000 on 127.0.0.1`,
	},
	{
		name: "upstream is not a service", old: "http://upstream:9090", new: "http://prometheus:9090",
		want: "the exporter queries prometheus:9090, which is not a service",
	},
	{
		name: "wrong port of upstream", old: "http://upstream:9090", new: "http://upstream:9091",
		want: "the exporter queries upstream:9091, which is not a service",
	},
	{
		name: "undefined volume", old: "- upstream:/prometheus", new: "- upstreams:/prometheus",
		want: `service "upstream" refers to undefined volume upstreams`,
	},
	{
		name: "missing file", old: "./upstream.yml:", new: "./prometheus.yml:",
		want: "prometheus.yml: no such file or directory",
	},
	{
		name: "writable file", old: "/etc/grafana/provisioning:ro", new: "/etc/grafana/provisioning",
		want: "grafana can write to ",
	},
	{
		name: "rules mounted at the wrong path", old: "/etc/prometheus/alerts.yml:ro", new: "/etc/alerts.yml:ro",
		want: "federation: rule file alerts.yml is not mounted",
	},
	{
		name: "wrong path of a configuration",
		old:  "--config.file=/etc/prometheus/prometheus.yml", new: "--config.file=/etc/prometheus.yml",
		want: `upstream reads /etc/prometheus.yml from ""`,
	},
	{
		name: "wrong path of the Dockerfile", old: "build: ../..", new: "build: ..",
		want: "the exporter is not built from the Dockerfile",
	},
	{
		name: "image without a version", old: "grafana/grafana:13.2.3", new: "grafana/grafana:latest",
		want: `image "grafana/grafana:latest" is unknown or has no version`,
	},
	{
		name: "unknown service", old: "  grafana:\n    image", new: "  dashboards:\n    image",
		want: "service dashboards is unknown: add its port to servicePorts in compose_test.go",
	},
	{
		name: "exporter with capabilities", old: "cap_drop: [ALL]", new: "cap_drop: [NET_RAW]",
		want: "the exporter has more permissions than it needs",
	},
}

var datasourceMistakes = []change{
	{
		name: "unknown HTTP method", old: "httpMethod: POST", new: "httpMethod: PUT",
		want: `HTTP method is "PUT"`,
	},
	{
		name: "unknown field", old: "isDefault:", new: "default:",
		want: `unknown field "datasources[0].default"`,
	},
	{
		name: "wrong port of the data source", old: "http://federation:9090", new: "http://federation:9091",
		want: "queries federation:9091, which is not a service",
	},
	{
		name: "not the default", old: "isDefault: true", new: "isDefault: false",
		want: "the only data source must be a Prometheus, and the default",
	},
}
