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

// exporterPort is the port of the flag --web.listen-address. A test in e2e/ compares this line with
// the default of the flag.
const exporterPort = 9820

// namespace is the namespace of all objects. PodMonitors and Services find pods only in their own.
const namespace = "tidb"

// kinds are the kinds of objects that the examples use. The Go types are those of their owners.
var kinds = map[string]func() any{
	"v1 ConfigMap":                        func() any { return &core.ConfigMap{} },
	"v1 Service":                          func() any { return &core.Service{} },
	"apps/v1 StatefulSet":                 func() any { return &apps.StatefulSet{} },
	"pingcap.com/v1alpha1 TidbMonitor":    func() any { return &v1alpha1.TidbMonitor{} },
	"monitoring.coreos.com/v1 PodMonitor": func() any { return &monitoring.PodMonitor{} },
}

// decodeStrictly decodes YAML as the API server does with strict field validation: names are
// case-sensitive, and unknown and duplicate fields are errors.
func decodeStrictly(document string, into any) error {
	content, err := yaml.YAMLToJSONStrict([]byte(document))
	if err != nil {
		return err
	}

	strictErrors, err := json.UnmarshalStrict(content, into)

	return errors.Join(append(strictErrors, err)...)
}

// pod describes the pods that a StatefulSet or an operator creates.
type pod struct {
	labels     labels.Set
	containers []core.Container
	volumes    []core.Volume
	otherPorts []int32 // The ports of containers that an operator adds.
	user       *int64
	seccomp    *core.SeccompProfile
	service    string                    // The Service that gives the pods their names, or "".
	clusters   []v1alpha1.TidbClusterRef // The clusters that a TidbMonitor monitors.
}

// port returns the number of a port of the pod, or 0.
func (p pod) port(want intstr.IntOrString) int32 {
	for _, c := range p.containers {
		if n := containerPort(c, want); n != 0 {
			return n
		}
	}

	return 0
}

// containerPort returns the number of a port of the container, or 0.
func containerPort(c core.Container, want intstr.IntOrString) int32 {
	for _, p := range c.Ports {
		if want.Type == intstr.String && p.Name == want.StrVal ||
			want.Type == intstr.Int && p.ContainerPort == want.IntVal {
			return p.ContainerPort
		}
	}

	return 0
}

// manifests are the objects in a file of the examples.
type manifests struct {
	files      files
	configMaps map[string]core.ConfigMap
	services   []core.Service
	pods       []pod
	monitors   []monitoring.PodMonitor
}

var documentSeparator = regexp.MustCompile(`(?m)^---$`)

// decodeManifests decodes the objects in a file.
func decodeManifests(f files, content string) (*manifests, error) {
	m := &manifests{files: f, configMaps: map[string]core.ConfigMap{}}
	for i, document := range documentSeparator.Split(content, -1) {
		if err := m.decode(document); err != nil {
			return nil, fmt.Errorf("document %d: %w", i, err)
		}
	}

	return m, nil
}

// decode decodes and adds one object.
func (m *manifests) decode(document string) error {
	var meta v1.TypeMeta
	if err := yaml.Unmarshal([]byte(document), &meta); err != nil {
		return err
	}
	newObject := kinds[meta.APIVersion+" "+meta.Kind]
	if newObject == nil {
		return fmt.Errorf("%s %s has no check", meta.APIVersion, meta.Kind)
	}
	object := newObject()
	if err := decodeStrictly(document, object); err != nil {
		return fmt.Errorf("%s: %w", meta.Kind, err)
	}

	name, objectNamespace := object.(v1.Object).GetName(), object.(v1.Object).GetNamespace()
	if invalid := validation.IsDNS1123Subdomain(name); invalid != nil || objectNamespace != namespace {
		return fmt.Errorf("%s %q in namespace %q: the name must be valid and the namespace must be %s: %q",
			meta.Kind, name, objectNamespace, namespace, invalid)
	}

	switch o := object.(type) {
	case *core.ConfigMap:
		m.configMaps[o.Name] = *o
	case *core.Service:
		m.services = append(m.services, *o)
	case *apps.StatefulSet:
		return m.addStatefulSet(o)
	case *v1alpha1.TidbMonitor:
		return m.addTidbMonitor(o)
	case *monitoring.PodMonitor:
		m.monitors = append(m.monitors, *o)
	}

	return nil
}

// addStatefulSet adds the pods of a StatefulSet.
func (m *manifests) addStatefulSet(o *apps.StatefulSet) error {
	template := o.Spec.Template
	p := pod{
		labels:     template.Labels,
		containers: template.Spec.Containers,
		volumes:    template.Spec.Volumes,
		service:    o.Spec.ServiceName,
	}
	if security := template.Spec.SecurityContext; security != nil {
		p.user, p.seccomp = security.RunAsUser, security.SeccompProfile
	}

	for _, claim := range o.Spec.VolumeClaimTemplates {
		if claim.Spec.Resources.Requests.Storage().IsZero() {
			return fmt.Errorf("volume %s has no size", claim.Name)
		}
		p.volumes = append(p.volumes, core.Volume{Name: claim.Name})
	}

	selector, err := v1.LabelSelectorAsSelector(o.Spec.Selector)
	if err != nil {
		return err
	}
	if !selector.Matches(p.labels) {
		return fmt.Errorf("StatefulSet %s does not select its own pods", o.Name)
	}
	m.pods = append(m.pods, p)

	return nil
}

// addTidbMonitor adds the pods that TiDB Operator creates for a TidbMonitor.
func (m *manifests) addTidbMonitor(o *v1alpha1.TidbMonitor) error {
	initializer, reloader, prometheus := o.Spec.Initializer, o.Spec.Reloader, o.Spec.Prometheus
	if initializer.BaseImage == "" || reloader.BaseImage == "" || prometheus.BaseImage == "" ||
		len(o.Spec.Clusters) == 0 {
		return errors.New("the TidbMonitor lacks an image or clusters")
	}
	if policy := o.Spec.ImagePullPolicy; policy != core.PullIfNotPresent && policy != core.PullAlways {
		return fmt.Errorf("imagePullPolicy is %q", policy)
	}

	for _, c := range []v1alpha1.MonitorContainer{
		prometheus.MonitorContainer, initializer.MonitorContainer, reloader.MonitorContainer,
	} {
		if err := checkImage(m.files, c.BaseImage+":"+c.Version); err != nil {
			return err
		}
	}

	m.pods = append(m.pods, pod{
		labels:     labels.Set(label.NewMonitor().Instance(o.Name).Monitor().Labels()),
		containers: o.Spec.AdditionalContainers,
		volumes:    o.Spec.AdditionalVolumes,
		otherPorts: []int32{9090}, // Prometheus.
		clusters:   o.Spec.Clusters,
	})

	return nil
}

// checkKubernetes checks the manifests: each file by itself, then the PodMonitors with the pods of
// all files.
func checkKubernetes(f files) error {
	var p problems
	var all manifests
	for _, name := range f.under("kubernetes/") {
		m, err := decodeManifests(f, f[name])
		if err == nil {
			err = m.check()
			all.pods = append(all.pods, m.pods...)
			all.monitors = append(all.monitors, m.monitors...)
		}
		if err != nil {
			p.addf("%s: %w", name, err)
		}
	}

	for _, m := range all.monitors {
		p.add(all.checkPodMonitor(m))
	}

	return errors.Join(p...)
}

// checkPodMonitor checks that a PodMonitor finds the exporter in all pods.
func (m *manifests) checkPodMonitor(monitor monitoring.PodMonitor) error {
	selector, err := v1.LabelSelectorAsSelector(&monitor.Spec.Selector)
	if err != nil {
		return err
	}
	if n := len(monitor.Spec.PodMetricsEndpoints); n != 1 {
		return fmt.Errorf("PodMonitor %s has %d endpoints, want 1", monitor.Name, n)
	}

	var found problems
	endpoint := monitor.Spec.PodMetricsEndpoints[0]
	for _, p := range m.pods {
		if !selector.Matches(p.labels) || endpoint.Port == nil ||
			p.port(intstr.FromString(*endpoint.Port)) != exporterPort {
			found.addf("PodMonitor %s does not find the exporter in the pod with labels %v", monitor.Name, p.labels)
		}
	}
	if endpoint.Path != "/metrics" || endpoint.HonorLabels {
		found.addf("PodMonitor %s scrapes %s with honorLabels=%t, want /metrics without honorLabels",
			monitor.Name, endpoint.Path, endpoint.HonorLabels)
	}

	return errors.Join(found...)
}

// check checks the objects of one file.
func (m *manifests) check() error {
	var found problems
	for _, s := range m.services {
		for _, p := range m.pods {
			found.add(checkService(s, p))
		}
	}

	for _, p := range m.pods {
		found.add(m.checkPod(p))
	}

	return errors.Join(found...)
}

// checkService checks that a Service leads to the ports of a pod.
func checkService(s core.Service, p pod) error {
	var found problems
	if len(s.Spec.Selector) == 0 || !labels.SelectorFromSet(s.Spec.Selector).Matches(p.labels) {
		found.addf("Service %s does not select the pods with labels %v", s.Name, p.labels)
	}

	for _, port := range s.Spec.Ports {
		if n := p.port(port.TargetPort); n == 0 || n != port.Port {
			found.addf("Service %s: port %d leads to container port %d", s.Name, port.Port, n)
		}
	}

	return errors.Join(found...)
}

func (m *manifests) checkPod(p pod) error {
	var found problems
	sameName := func(s core.Service) bool { return s.Name == p.service }
	if p.service != "" && !slices.ContainsFunc(m.services, sameName) {
		found.addf("Service %s does not exist", p.service)
	}

	for _, v := range p.volumes {
		if _, ok := m.configMaps[configMapName(v)]; v.ConfigMap != nil && !ok {
			found.addf("ConfigMap %s does not exist", v.ConfigMap.Name)
		}
	}

	exporters := 0
	for _, c := range p.containers {
		found.add(m.checkContainer(p, c))
		if c.Name == "operator-store-exporter" {
			exporters++
			found.add(m.checkExporter(p, c))
		}
	}
	if exporters != 1 {
		found.addf("the pod has %d exporters, want 1", exporters)
	}

	return errors.Join(found...)
}

// checkContainer checks what applies to every container.
func (m *manifests) checkContainer(p pod, c core.Container) error {
	var found problems
	found.add(checkImage(m.files, c.Image))

	for _, port := range c.Ports {
		for _, invalid := range validation.IsValidPortName(port.Name) {
			found.addf("port name %q: %s", port.Name, invalid)
		}
	}

	for _, mount := range c.VolumeMounts {
		if !slices.ContainsFunc(p.volumes, func(v core.Volume) bool { return v.Name == mount.Name }) {
			found.addf("volume %s is mounted but not defined", mount.Name)
		}
	}

	for want, probe := range map[string]*core.Probe{"/-/ready": c.ReadinessProbe, "/-/healthy": c.LivenessProbe} {
		if probe == nil || probe.HTTPGet == nil || probe.HTTPGet.Path != want ||
			containerPort(c, probe.HTTPGet.Port) == 0 {
			found.addf("%s: no probe requests %s from a port of this container", c.Name, want)
		}
	}
	if err := checkRestricted(p, c); err != nil {
		found.addf("%s: %w", c.Name, err)
	}
	found.add(m.checkFiles(p, c))

	return errors.Join(found...)
}

// checkExporter checks the user, the port, the image and the upstreams of the exporter.
func (m *manifests) checkExporter(p pod, c core.Container) error {
	var found problems
	user := p.user
	if c.SecurityContext != nil && c.SecurityContext.RunAsUser != nil {
		user = c.SecurityContext.RunAsUser
	}
	if user == nil || !strings.Contains(m.files["../Dockerfile"], fmt.Sprintf("\nUSER %d:", *user)) {
		found.addf("the exporter does not run as the user of its image")
	}
	if containerPort(c, intstr.FromString("operator-store")) != exporterPort {
		found.addf("the exporter's port is not %d", exporterPort)
	}
	if c.Image != exporterImage(m.files) {
		found.addf("the exporter's image is %s, want %s", c.Image, exporterImage(m.files))
	}
	found.add(m.checkUpstreams(p, c))

	return errors.Join(found...)
}

// configMapName returns the name of the ConfigMap in a volume, or "".
func configMapName(v core.Volume) string {
	if v.ConfigMap == nil {
		return ""
	}

	return v.ConfigMap.Name
}

// checkRestricted checks that a container has no permissions that it does not need, and that its
// resources are limited.
func checkRestricted(p pod, c core.Container) error {
	s := c.SecurityContext
	if s == nil {
		return errors.New("it has no securityContext")
	}

	seccomp := cmp.Or(s.SeccompProfile, p.seccomp)
	if seccomp == nil || seccomp.Type != core.SeccompProfileTypeRuntimeDefault {
		return errors.New("its seccomp profile is not RuntimeDefault")
	}
	if s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation ||
		s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem ||
		s.Capabilities == nil || !slices.Equal(s.Capabilities.Drop, []core.Capability{"ALL"}) {
		return errors.New("it can gain privileges or write to its image, or it has capabilities")
	}
	if c.Resources.Limits.Memory().IsZero() || c.Resources.Requests.Cpu().IsZero() ||
		c.Resources.Requests.Memory().IsZero() {
		return errors.New("it needs a memory limit, and requests for CPU and memory")
	}

	return nil
}

// mountedFile returns the content of the ConfigMap's file that a container has at a path, or "".
func (m *manifests) mountedFile(p pod, c core.Container, name string) string {
	for _, mount := range c.VolumeMounts {
		for _, v := range p.volumes {
			if v.Name == mount.Name && path.Dir(name) == mount.MountPath {
				return m.configMaps[configMapName(v)].Data[path.Base(name)]
			}
		}
	}

	return ""
}

// checkFiles checks that a container has the configuration file and the data directory that its
// flags name.
func (m *manifests) checkFiles(p pod, c core.Container) error {
	for _, arg := range c.Args {
		name, value, _ := strings.Cut(arg, "=")
		switch name {
		case "--config.file":
			if m.mountedFile(p, c, value) == "" {
				return fmt.Errorf("no ConfigMap contains %s", value)
			}
		case "--storage.tsdb.path":
			writable := func(m core.VolumeMount) bool { return m.MountPath == value && !m.ReadOnly }
			if !slices.ContainsFunc(c.VolumeMounts, writable) {
				return fmt.Errorf("no writable volume is mounted at %s", value)
			}
		}
	}

	return nil
}

var urlPattern = regexp.MustCompile(`https?://[^"\s]+`)

// checkUpstreams checks that the exporter queries servers in its own pod, and that each cluster of
// a TidbMonitor has a selector in the exporter's configuration.
func (m *manifests) checkUpstreams(p pod, c core.Container) error {
	parts := slices.Clone(c.Args)
	for _, arg := range c.Args {
		if name, ok := strings.CutPrefix(arg, "--config.file="); ok {
			parts = append(parts, m.mountedFile(p, c, name))
		}
	}
	config := strings.Join(parts, " ")

	urls := urlPattern.FindAllString(config, -1)
	if len(urls) == 0 {
		return errors.New("the exporter has no upstream")
	}

	for _, u := range urls {
		parsed, err := url.Parse(u)
		if err != nil {
			return err
		}
		port := intstr.Parse(parsed.Port())
		if parsed.Hostname() != "localhost" || p.port(port) == 0 && !slices.Contains(p.otherPorts, port.IntVal) {
			return fmt.Errorf("%s is not a server in the pod", u)
		}
	}

	for _, cluster := range p.clusters {
		selector := fmt.Sprintf(`'{tidb_cluster="%s-%s"}'`, cluster.Namespace, cluster.Name)
		if !strings.Contains(config, selector) {
			return fmt.Errorf("no selector is %s", selector)
		}
	}
	if n := strings.Count(config, "selector:"); n != len(p.clusters) {
		return fmt.Errorf("%d clusters have %d selectors", len(p.clusters), n)
	}

	return nil
}
