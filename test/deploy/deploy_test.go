// Package deploy tests the manifests in deploy/: that Kubernetes would read them
// without a doubt, and that they ask for no right that was not decided on.
package deploy

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"reflect"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/flatnet-cni/flatnet/pkg/agent"
	"github.com/flatnet-cni/flatnet/test/reference"
)

var update = flag.Bool("update", false, "write what is made out of others anew")

const (
	environmentPrefix = "FLATNETD_"
	listenPort        = 9370
)

// flags are flatnetd's.
func flags() []string {
	set := flag.NewFlagSet("flatnetd", flag.ContinueOnError)
	agent.Flags(set, func(string) string { return "" })
	var names []string
	set.VisitAll(func(f *flag.Flag) { names = append(names, f.Name) })
	return names
}

// capabilities are the ones that flatnetd has a use for; daemonset.yaml says which.
func capabilities() []corev1.Capability {
	return []corev1.Capability{"NET_ADMIN", "NET_RAW", "SYS_PTRACE", "DAC_OVERRIDE", "BPF", "PERFMON"}
}

func path(t *testing.T, elements ...string) string {
	t.Helper()
	return reference.Path(t, append([]string{"deploy"}, elements...)...)
}

func read(t *testing.T, elements ...string) []byte {
	t.Helper()
	text, err := os.ReadFile(path(t, elements...))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// decode reads all objects of a text; a field that Kubernetes does not know, or
// that is there twice, is an error.
func decode(t *testing.T, text []byte) (all []runtime.Object) {
	t.Helper()
	decoder := serializer.NewCodecFactory(scheme.Scheme, serializer.EnableStrict).UniversalDeserializer()
	documents := yaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(text)))
	for {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		object, _, err := decoder.Decode(document, nil, nil)
		if err != nil {
			t.Fatalf("%v in\n%s", err, document)
		}
		all = append(all, object)
	}
}

// kustomization is what is used of kustomize's files.
type kustomization struct {
	APIVersion string   `json:"apiVersion"`
	Kind       string   `json:"kind"`
	Resources  []string `json:"resources"`
	Components []string `json:"components"`
	Patches    []struct {
		Path   string            `json:"path"`
		Target map[string]string `json:"target"`
	} `json:"patches"`
}

func readKustomization(t *testing.T, elements ...string) (k kustomization) {
	t.Helper()
	if err := yaml.UnmarshalStrict(read(t, append(elements, "kustomization.yaml")...), &k); err != nil {
		t.Fatal(err)
	}
	return k
}

// base are the objects of deploy/base.
func base(t *testing.T) (all []runtime.Object) {
	t.Helper()
	for _, file := range readKustomization(t, "base").Resources {
		all = append(all, decode(t, read(t, "base", file))...)
	}
	return all
}

// only returns the one object of a type.
func only[T runtime.Object](t *testing.T, all []runtime.Object) (found T) {
	t.Helper()
	count := 0
	for _, o := range all {
		if object, ok := o.(T); ok {
			found = object
			count++
		}
	}
	if count != 1 {
		t.Fatalf("there are %d objects of type %T, want one", count, found)
	}
	return found
}

// flatnet.yaml is what `kustomize build deploy/base` gives, with the comments:
// the base changes nothing in its resources (a field of kustomization.yaml that
// would is refused by [readKustomization]), so it is their concatenation.
func TestPlainFileIsTheBase(t *testing.T) {
	want := []byte("# Made out of deploy/base by `go test ./test/deploy -update`; change it there.\n" +
		"#\n#     kubectl apply -f deploy/flatnet.yaml\n")
	for i, file := range readKustomization(t, "base").Resources {
		if i > 0 {
			want = append(want, "---\n"...)
		}
		want = append(want, read(t, "base", file)...)
	}
	if *update {
		if err := os.WriteFile(path(t, "flatnet.yaml"), want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(read(t, "flatnet.yaml"), want) {
		t.Error("deploy/flatnet.yaml is not made out of deploy/base: run go test ./test/deploy -update")
	}
	if got := decode(t, read(t, "flatnet.yaml")); !reflect.DeepEqual(got, base(t)) {
		t.Errorf("deploy/flatnet.yaml has other objects than deploy/base: %v", got)
	}
}

func TestOverlaysChangeTheModeOnly(t *testing.T) {
	for _, mode := range []string{"direct", "vxlan"} {
		k := readKustomization(t, "overlays", mode)
		if !slices.Equal(k.Resources, []string{"../../base"}) || len(k.Patches) != 1 {
			t.Fatalf("overlay %s has resources %v and patches %v", mode, k.Resources, k.Patches)
		}
		patch := only[*corev1.ConfigMap](t, decode(t, read(t, "overlays", mode, k.Patches[0].Path)))
		of := only[*corev1.ConfigMap](t, base(t))
		if patch.Name != of.Name || patch.Namespace != of.Namespace || !maps.Equal(patch.Data, map[string]string{"FLATNETD_FABRIC": mode}) {
			t.Errorf("overlay %s patches %s/%s with %v", mode, patch.Namespace, patch.Name, patch.Data)
		}
	}
}

// The overlay of Services is the base with the component, and that is one key.
func TestServicesAreOneKey(t *testing.T) {
	overlay := readKustomization(t, "overlays", "services")
	if !slices.Equal(overlay.Resources, []string{"../../base"}) || !slices.Equal(overlay.Components, []string{"../../components/services"}) || len(overlay.Patches) > 0 {
		t.Errorf("overlay services has resources %v, components %v and patches %v", overlay.Resources, overlay.Components, overlay.Patches)
	}
	k := readKustomization(t, "components", "services")
	if k.Kind != "Component" || len(k.Resources) > 0 || len(k.Patches) != 1 {
		t.Fatalf("component services is a %s with resources %v and patches %v", k.Kind, k.Resources, k.Patches)
	}
	patch := only[*corev1.ConfigMap](t, decode(t, read(t, "components", "services", k.Patches[0].Path)))
	of := only[*corev1.ConfigMap](t, base(t))
	if patch.Name != of.Name || patch.Namespace != of.Namespace || !maps.Equal(patch.Data, map[string]string{"FLATNETD_SERVICES": "true"}) || of.Data["FLATNETD_SERVICES"] != "false" {
		t.Errorf("component services patches %s/%s with %v", patch.Namespace, patch.Name, patch.Data)
	}
}

// What kustomize itself makes of it, where kubectl is installed.
func TestKustomize(t *testing.T) {
	kubectl, err := exec.LookPath("kubectl")
	if err != nil {
		t.Skip("kubectl, which has kustomize in it, is not installed")
	}
	for directory, set := range map[string]map[string]string{
		"base": {}, "overlays/direct": {"FLATNETD_FABRIC": "direct"}, "overlays/vxlan": {"FLATNETD_FABRIC": "vxlan"},
		"overlays/services": {"FLATNETD_SERVICES": "true"},
	} {
		text, err := exec.Command(kubectl, "kustomize", path(t, directory)).Output()
		if err != nil {
			t.Fatalf("building %s: %v", directory, err)
		}
		want := base(t)
		maps.Copy(only[*corev1.ConfigMap](t, want).Data, set)
		got := byName(decode(t, text))
		if !reflect.DeepEqual(got, byName(want)) {
			t.Errorf("kustomize makes of %s:\n%s", directory, text)
		}
	}
}

// byName makes the order not matter, which kustomize chooses itself.
func byName(all []runtime.Object) map[string]runtime.Object {
	named := map[string]runtime.Object{}
	for _, o := range all {
		name := o.(interface{ GetName() string }).GetName()
		named[fmt.Sprintf("%s %s", o.GetObjectKind().GroupVersionKind(), name)] = o
	}
	return named
}

// What is read, and that nothing but Events is written.
func TestRights(t *testing.T) {
	all := base(t)
	role := only[*rbacv1.ClusterRole](t, all)
	want := []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"nodes"}, Verbs: []string{"get", "list", "watch"}},
		{APIGroups: []string{""}, Resources: []string{"services"}, Verbs: []string{"list", "watch"}},
		{APIGroups: []string{"discovery.k8s.io"}, Resources: []string{"endpointslices"}, Verbs: []string{"list", "watch"}},
		{APIGroups: []string{"networking.k8s.io"}, Resources: []string{"networkpolicies"}, Verbs: []string{"list", "watch"}},
		{APIGroups: []string{"policy.networking.k8s.io"}, Resources: []string{"clusternetworkpolicies"}, Verbs: []string{"list", "watch"}},
		{APIGroups: []string{""}, Resources: []string{"pods", "namespaces"}, Verbs: []string{"list", "watch"}},
		{APIGroups: []string{""}, Resources: []string{"events"}, Verbs: []string{"create", "patch"}},
	}
	if !reflect.DeepEqual(role.Rules, want) || role.AggregationRule != nil {
		t.Errorf("the role is %v, want %v", role.Rules, want)
	}
	account := only[*corev1.ServiceAccount](t, all)
	binding := only[*rbacv1.ClusterRoleBinding](t, all)
	if len(binding.Subjects) != 1 || binding.Subjects[0].Kind != "ServiceAccount" || binding.Subjects[0].Name != account.Name ||
		binding.Subjects[0].Namespace != account.Namespace || binding.RoleRef.Kind != "ClusterRole" || binding.RoleRef.Name != role.Name {
		t.Errorf("the binding gives %v to %v", binding.RoleRef, binding.Subjects)
	}
	if got := only[*appsv1.DaemonSet](t, all).Spec.Template.Spec.ServiceAccountName; got != account.Name {
		t.Errorf("the pods' account is %q, want %q", got, account.Name)
	}
	namespace := only[*corev1.Namespace](t, all)
	if namespace.Labels["pod-security.kubernetes.io/enforce"] != "privileged" {
		t.Error("the namespace does not admit pods on the host's network")
	}
	for _, o := range all {
		if of := o.(interface{ GetNamespace() string }).GetNamespace(); of != "" && of != namespace.Name {
			t.Errorf("%T is in namespace %q", o, of)
		}
	}
	if len(all) != 6 {
		t.Errorf("there are %d objects, and 6 are looked at", len(all))
	}
}

func TestConfinement(t *testing.T) {
	pod := only[*appsv1.DaemonSet](t, base(t)).Spec.Template.Spec
	if len(pod.Containers) != 1 || len(pod.InitContainers) != 0 {
		t.Fatalf("%d containers and %d before them, want one", len(pod.Containers), len(pod.InitContainers))
	}
	s := pod.Containers[0].SecurityContext
	if s.Privileged == nil || *s.Privileged || s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation {
		t.Error("the container is privileged or may become so")
	}
	if s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem {
		t.Error("the root file system is writable")
	}
	if !slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) || !slices.Equal(s.Capabilities.Add, capabilities()) {
		t.Errorf("capabilities %v without %v, want %v alone", s.Capabilities.Add, s.Capabilities.Drop, capabilities())
	}
	if s.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
		t.Errorf("seccomp profile %s", s.SeccompProfile.Type)
	}
	if !pod.HostNetwork || !pod.HostPID || pod.HostIPC {
		t.Errorf("host's network %v, processes %v, IPC %v", pod.HostNetwork, pod.HostPID, pod.HostIPC)
	}
}

func TestVolumes(t *testing.T) {
	pod := only[*appsv1.DaemonSet](t, base(t)).Spec.Template.Spec
	var got []string
	for _, mount := range pod.Containers[0].VolumeMounts {
		i := slices.IndexFunc(pod.Volumes, func(v corev1.Volume) bool { return v.Name == mount.Name })
		if i < 0 || pod.Volumes[i].HostPath == nil {
			t.Fatalf("there is no volume %s of the host", mount.Name)
		}
		line := pod.Volumes[i].HostPath.Path + " at " + mount.MountPath
		if mount.MountPropagation != nil {
			line += " " + string(*mount.MountPropagation)
		}
		got = append(got, line)
		if strings.HasPrefix(mount.MountPath, "/proc") || strings.HasPrefix(mount.MountPath, "/sys") {
			t.Errorf("runc refuses to mount at %s", mount.MountPath)
		}
	}
	want := []string{
		"/opt/cni/bin at /opt/cni/bin", "/etc/cni/net.d at /etc/cni/net.d", "/var/lib/flatnet at /var/lib/flatnet", "/run at /run HostToContainer",
		"/proc/sys/net at /host/proc/sys/net",
	}
	if !slices.Equal(got, want) || len(pod.Volumes) != len(got) {
		t.Errorf("mounted are\n%s\nof %d volumes, want\n%s", strings.Join(got, "\n"), len(pod.Volumes), strings.Join(want, "\n"))
	}
}

func TestEveryNodeAtOnce(t *testing.T) {
	set := only[*appsv1.DaemonSet](t, base(t))
	pod := set.Spec.Template.Spec
	if !reflect.DeepEqual(pod.Tolerations, []corev1.Toleration{{Operator: corev1.TolerationOpExists}}) {
		t.Errorf("tolerations %v, want all", pod.Tolerations)
	}
	if pod.PriorityClassName != "system-node-critical" || pod.DNSPolicy != corev1.DNSDefault {
		t.Errorf("priority %q, DNS %q", pod.PriorityClassName, pod.DNSPolicy)
	}
	if u := set.Spec.UpdateStrategy; u.Type != appsv1.RollingUpdateDaemonSetStrategyType || u.RollingUpdate.MaxUnavailable.String() != "25%" {
		t.Errorf("update strategy %v", u)
	}
	for label, value := range set.Spec.Selector.MatchLabels {
		if set.Spec.Template.Labels[label] != value {
			t.Errorf("the pods have no label %s=%s", label, value)
		}
	}
	if _, limited := pod.Containers[0].Resources.Limits[corev1.ResourceCPU]; limited {
		t.Error("there is a limit of CPU")
	}
	for path, probe := range map[string]*corev1.Probe{"/healthz": pod.Containers[0].LivenessProbe, "/readyz": pod.Containers[0].ReadinessProbe} {
		if probe == nil || probe.HTTPGet == nil || probe.HTTPGet.Path != path || probe.HTTPGet.Host != "127.0.0.1" || probe.HTTPGet.Port.IntValue() != listenPort {
			t.Errorf("the probe of %s is %v", path, probe)
		}
	}
}

// Every variable, key and argument is of a flag that flatnetd has.
func TestFlags(t *testing.T) {
	known := map[string]bool{}
	for _, name := range flags() {
		known[environmentPrefix+strings.ToUpper(strings.ReplaceAll(name, "-", "_"))] = true
	}
	all := base(t)
	settings := only[*corev1.ConfigMap](t, all)
	for key := range settings.Data {
		if !known[key] {
			t.Errorf("key %s of the ConfigMap is the variable of no flag", key)
		}
	}
	container := only[*appsv1.DaemonSet](t, all).Spec.Template.Spec.Containers[0]
	variables := map[string]bool{}
	for _, v := range container.Env {
		variables[v.Name] = true
		if strings.HasPrefix(v.Name, environmentPrefix) && !known[v.Name] {
			t.Errorf("variable %s is of no flag", v.Name)
		}
	}
	for _, argument := range container.Args {
		name, value, _ := strings.Cut(strings.TrimPrefix(argument, "--"), "=")
		if !slices.Contains(flags(), name) {
			t.Errorf("argument %s is no flag", argument)
		}
		if v, is := strings.CutPrefix(value, "$("); is && !variables[strings.TrimSuffix(v, ")")] {
			t.Errorf("argument %s names a variable that is not there", argument)
		}
	}
	if len(container.EnvFrom) != 1 || container.EnvFrom[0].ConfigMapRef.Name != settings.Name || container.EnvFrom[0].Prefix != "" {
		t.Errorf("variables come from %v, want from %s", container.EnvFrom, settings.Name)
	}
}
