// SPDX-License-Identifier: Apache-2.0

package examples

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/pingcap/tidb-operator/pkg/apis/label"
	"github.com/pingcap/tidb-operator/pkg/apis/pingcap/v1alpha1"
	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	v1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

// exporterPort is the port of the flag --web.listen-address, which a test beside main.go holds to it.
const exporterPort = 9820

// namespace is that of all objects: a PodMonitor and a Service find pods in their own alone.
const namespace = "tidb"

// kinds are those that the examples use, of the Go types that their owners publish.
var kinds = map[string]func() any{
	"v1 ConfigMap":                        func() any { return &core.ConfigMap{} },
	"v1 Service":                          func() any { return &core.Service{} },
	"apps/v1 StatefulSet":                 func() any { return &apps.StatefulSet{} },
	"pingcap.com/v1alpha1 TidbMonitor":    func() any { return &v1alpha1.TidbMonitor{} },
	"monitoring.coreos.com/v1 PodMonitor": func() any { return &monitoring.PodMonitor{} },
}

// strictly decodes YAML as the API server does where fields are validated strictly: letter case counts, and no field is twice or unknown.
func strictly(document string, into any) error {
	content, err := yaml.YAMLToJSONStrict([]byte(document))
	if err != nil {
		return err
	}
	unknown, err := json.UnmarshalStrict(content, into)
	return errors.Join(append(unknown, err)...)
}

// pod is what a StatefulSet or an operator makes pods of.
type pod struct {
	labels     labels.Set
	containers []core.Container
	volumes    []core.Volume
	ports      []int32 // Of containers that somebody else adds.
	user       *int64
	seccomp    *core.SeccompProfile
	service    string                    // That gives the pods their names, if there is one.
	clusters   []v1alpha1.TidbClusterRef // What the pod's Prometheus watches, if TiDB Operator has made it.
}

// manifests is what a file of the examples has in it.
type manifests struct {
	configMaps map[string]core.ConfigMap
	services   []core.Service
	pods       []pod
	monitors   []monitoring.PodMonitor
}

func decodeManifests(f files, content string) (*manifests, error) {
	found := &manifests{configMaps: map[string]core.ConfigMap{}}
	for i, document := range regexp.MustCompile(`(?m)^---$`).Split(content, -1) {
		var meta v1.TypeMeta
		if err := yaml.Unmarshal([]byte(document), &meta); err != nil {
			return nil, err
		}
		kind := kinds[meta.APIVersion+" "+meta.Kind]
		if kind == nil {
			return nil, fmt.Errorf("document %d: nobody checks %s %s", i, meta.APIVersion, meta.Kind)
		}
		object := kind()
		if err := strictly(document, object); err != nil {
			return nil, fmt.Errorf("document %d, %s: %w", i, meta.Kind, err)
		}
		named := object.(v1.Object)
		if problems := validation.IsDNS1123Subdomain(named.GetName()); problems != nil || named.GetNamespace() != namespace {
			return nil, fmt.Errorf("%s %q in %q: it has no good name, or another namespace: %q", meta.Kind, named.GetName(), named.GetNamespace(), problems)
		}
		switch o := object.(type) {
		case *core.ConfigMap:
			found.configMaps[o.Name] = *o
		case *core.Service:
			found.services = append(found.services, *o)
		case *apps.StatefulSet:
			p := pod{labels: o.Spec.Template.Labels, containers: o.Spec.Template.Spec.Containers, volumes: o.Spec.Template.Spec.Volumes}
			p.service = o.Spec.ServiceName
			if security := o.Spec.Template.Spec.SecurityContext; security != nil {
				p.user, p.seccomp = security.RunAsUser, security.SeccompProfile
			}
			for _, claim := range o.Spec.VolumeClaimTemplates {
				if claim.Spec.Resources.Requests.Storage().IsZero() {
					return nil, fmt.Errorf("the volume %s has no size", claim.Name)
				}
				p.volumes = append(p.volumes, core.Volume{Name: claim.Name})
			}
			selector, err := v1.LabelSelectorAsSelector(o.Spec.Selector)
			if err != nil {
				return nil, err
			}
			if !selector.Matches(p.labels) {
				return nil, fmt.Errorf("StatefulSet %s does not select its own pods", o.Name)
			}
			found.pods = append(found.pods, p)
		case *v1alpha1.TidbMonitor:
			if o.Spec.Initializer.BaseImage == "" || o.Spec.Reloader.BaseImage == "" || o.Spec.Prometheus.BaseImage == "" || len(o.Spec.Clusters) == 0 {
				return nil, errors.New("the TidbMonitor lacks an image, or clusters")
			}
			if policy := o.Spec.ImagePullPolicy; policy != core.PullIfNotPresent && policy != core.PullAlways {
				return nil, fmt.Errorf("imagePullPolicy is %q", policy)
			}
			for _, c := range []v1alpha1.MonitorContainer{o.Spec.Prometheus.MonitorContainer, o.Spec.Initializer.MonitorContainer, o.Spec.Reloader.MonitorContainer} {
				if err := checkImage(f, c.BaseImage+":"+c.Version); err != nil {
					return nil, err
				}
			}
			found.pods = append(found.pods, pod{
				labels:     labels.Set(label.NewMonitor().Instance(o.Name).Monitor().Labels()),
				containers: o.Spec.AdditionalContainers, volumes: o.Spec.AdditionalVolumes,
				ports:    []int32{9090}, // Its Prometheus.
				clusters: o.Spec.Clusters,
			})
		case *monitoring.PodMonitor:
			found.monitors = append(found.monitors, *o)
		}
	}
	return found, nil
}

// checkKubernetes says what is wrong with the manifests, each file by itself and all of them together.
func checkKubernetes(f files) error {
	var problems []error
	var all manifests
	for _, name := range f.under("kubernetes/") {
		m, err := decodeManifests(f, f[name])
		if err == nil {
			err = m.check(f)
			all.pods = append(all.pods, m.pods...)
			all.monitors = append(all.monitors, m.monitors...)
		}
		if err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", name, err))
		}
	}
	for _, m := range all.monitors {
		selector, err := v1.LabelSelectorAsSelector(&m.Spec.Selector)
		if err != nil {
			return err
		}
		if len(m.Spec.PodMetricsEndpoints) != 1 {
			problems = append(problems, fmt.Errorf("PodMonitor %s has %d endpoints", m.Name, len(m.Spec.PodMetricsEndpoints)))
			continue
		}
		endpoint := m.Spec.PodMetricsEndpoints[0]
		for _, p := range all.pods {
			if !selector.Matches(p.labels) || endpoint.Port == nil || p.port(intstr.FromString(*endpoint.Port)) != exporterPort {
				problems = append(problems, fmt.Errorf("PodMonitor %s misses the exporter in the pod with %v", m.Name, p.labels))
			}
		}
		if endpoint.Path != "/metrics" || endpoint.HonorLabels {
			problems = append(problems, fmt.Errorf("PodMonitor %s scrapes %s, honorLabels is %t", m.Name, endpoint.Path, endpoint.HonorLabels))
		}
	}
	return errors.Join(problems...)
}

// port returns the number of a port of the pod, or 0.
func (p pod) port(wanted intstr.IntOrString) int32 {
	for _, c := range p.containers {
		for _, has := range c.Ports {
			if wanted.Type == intstr.String && has.Name == wanted.StrVal || wanted.Type == intstr.Int && has.ContainerPort == wanted.IntVal {
				return has.ContainerPort
			}
		}
	}
	return 0
}

func (m *manifests) check(f files) error {
	var problems []error
	add := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	for _, s := range m.services {
		for _, p := range m.pods {
			if len(s.Spec.Selector) == 0 || !labels.SelectorFromSet(s.Spec.Selector).Matches(p.labels) {
				add("Service %s does not select the pods with %v", s.Name, p.labels)
			}
			for _, port := range s.Spec.Ports {
				if n := p.port(port.TargetPort); n == 0 || n != port.Port {
					add("Service %s: the port %d is %d of a pod", s.Name, port.Port, n)
				}
			}
		}
	}
	for _, p := range m.pods {
		if p.service != "" && !slices.ContainsFunc(m.services, func(s core.Service) bool { return s.Name == p.service }) {
			add("there is no Service %s", p.service)
		}
		exporters := 0
		for _, c := range p.containers {
			problems = append(problems, checkImage(f, c.Image))
			for _, port := range c.Ports {
				for _, problem := range validation.IsValidPortName(port.Name) {
					add("the port name %q: %s", port.Name, problem)
				}
			}
			for _, mount := range c.VolumeMounts {
				if !slices.ContainsFunc(p.volumes, func(v core.Volume) bool { return v.Name == mount.Name }) {
					add("the volume %s is mounted, and not there", mount.Name)
				}
			}
			for _, v := range p.volumes {
				if _, there := m.configMaps[nameOf(v)]; v.ConfigMap != nil && !there {
					add("the ConfigMap %s is not there", v.ConfigMap.Name)
				}
			}
			own := pod{containers: []core.Container{c}}
			for want, probe := range map[string]*core.Probe{"/-/ready": c.ReadinessProbe, "/-/healthy": c.LivenessProbe} {
				if probe == nil || probe.HTTPGet == nil || probe.HTTPGet.Path != want || own.port(probe.HTTPGet.Port) == 0 {
					add("%s: a probe does not ask a port of its own for %s", c.Name, want)
				}
			}
			if err := p.restricted(c); err != nil {
				add("%s: %w", c.Name, err)
			}
			problems = append(problems, m.checkFiles(p, c))
			if c.Name != "operator-store-exporter" {
				continue
			}
			exporters++
			user := p.user
			if c.SecurityContext != nil && c.SecurityContext.RunAsUser != nil {
				user = c.SecurityContext.RunAsUser
			}
			if user == nil || !strings.Contains(f["../Dockerfile"], fmt.Sprintf("\nUSER %d:", *user)) {
				add("the exporter does not run as the user of its image")
			}
			if own.port(intstr.FromString("operator-store")) != exporterPort {
				add("the exporter's port is not %d", exporterPort)
			}
			if c.Image != exporterImage(f) {
				add("the exporter's image is %s, not %s", c.Image, exporterImage(f))
			}
			problems = append(problems, m.checkUpstreams(p, c))
		}
		if exporters != 1 {
			add("the pod has %d exporters", exporters)
		}
	}
	return errors.Join(problems...)
}

func nameOf(v core.Volume) string {
	if v.ConfigMap == nil {
		return ""
	}
	return v.ConfigMap.Name
}

// restricted says what a container may do that it has no need to.
func (p pod) restricted(c core.Container) error {
	s := c.SecurityContext
	if s == nil {
		return errors.New("it has no securityContext")
	}
	if seccomp := cmp.Or(s.SeccompProfile, p.seccomp); seccomp == nil || seccomp.Type != core.SeccompProfileTypeRuntimeDefault {
		return errors.New("it may call anything of the kernel")
	}
	if s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation || s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem ||
		s.Capabilities == nil || !slices.Equal(s.Capabilities.Drop, []core.Capability{"ALL"}) {
		return errors.New("it may gain privileges, write to its image or has capabilities")
	}
	if c.Resources.Limits.Memory().IsZero() || c.Resources.Requests.Cpu().IsZero() || c.Resources.Requests.Memory().IsZero() {
		return errors.New("it has no resources")
	}
	return nil
}

// file returns the ConfigMap's file that a container has at a path, or "".
func (m *manifests) file(p pod, c core.Container, name string) string {
	for _, mount := range c.VolumeMounts {
		for _, v := range p.volumes {
			if v.Name == mount.Name && path.Dir(name) == mount.MountPath {
				return m.configMaps[nameOf(v)].Data[path.Base(name)]
			}
		}
	}
	return ""
}

// checkFiles finds the file that a container is told to read, and the directory that it is told to write to.
func (m *manifests) checkFiles(p pod, c core.Container) error {
	for _, arg := range c.Args {
		name, value, _ := strings.Cut(arg, "=")
		switch name {
		case "--config.file":
			if m.file(p, c, value) == "" {
				return fmt.Errorf("no ConfigMap has %s", value)
			}
		case "--storage.tsdb.path":
			if !slices.ContainsFunc(c.VolumeMounts, func(m core.VolumeMount) bool { return m.MountPath == value && !m.ReadOnly }) {
				return fmt.Errorf("no volume is at %s", value)
			}
		}
	}
	return nil
}

// checkUpstreams finds the servers that the exporter asks in its own pod, and the clusters that it names there.
func (m *manifests) checkUpstreams(p pod, c core.Container) error {
	parts := c.Args
	for _, arg := range c.Args {
		if name, is := strings.CutPrefix(arg, "--config.file="); is {
			parts = append(slices.Clone(parts), m.file(p, c, name))
		}
	}
	asked := strings.Join(parts, " ")
	urls := regexp.MustCompile(`https?://[^"\s]+`).FindAllString(asked, -1)
	if len(urls) == 0 {
		return errors.New("the exporter asks nobody")
	}
	for _, u := range urls {
		parsed, err := url.Parse(u)
		if err != nil {
			return err
		}
		port := intstr.Parse(parsed.Port())
		if parsed.Hostname() != "localhost" || p.port(port) == 0 && !slices.Contains(p.ports, port.IntVal) {
			return fmt.Errorf("%s is no server of the pod", u)
		}
	}
	for _, cluster := range p.clusters {
		if selector := fmt.Sprintf(`'{tidb_cluster="%s-%s"}'`, cluster.Namespace, cluster.Name); !strings.Contains(asked, selector) {
			return fmt.Errorf("no selector is %s", selector)
		}
	}
	if selectors := strings.Count(asked, "selector:"); selectors != len(p.clusters) {
		return fmt.Errorf("%d clusters have %d selectors", len(p.clusters), selectors)
	}
	return nil
}
