package deploy

import (
	"maps"
	"os/exec"
	"reflect"
	"slices"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/flatnet-cni/flatnet/pkg/agent"
)

// places are the overlays for runtimes that look in other directories: what each documents.
func places() map[string]struct{ bin, conf string } {
	return map[string]struct{ bin, conf string }{
		"k3s":      {"/var/lib/rancher/k3s/data/cni", "/var/lib/rancher/k3s/agent/etc/cni/net.d"},
		"microk8s": {"/var/snap/microk8s/current/opt/cni/bin", "/var/snap/microk8s/current/args/cni-network"},
	}
}

// moved is what a component of directories makes of objects: the flags, the mounts and the
// volumes, all of them with the node's own path.
func moved(t *testing.T, all []runtime.Object, bin, conf string) []runtime.Object {
	t.Helper()
	maps.Copy(only[*corev1.ConfigMap](t, all).Data, map[string]string{agent.Variable("cni-bin-dir"): bin, agent.Variable("cni-conf-dir"): conf})
	pod := &only[*appsv1.DaemonSet](t, all).Spec.Template.Spec
	for name, path := range map[string]string{"cni-bin": bin, "cni-conf": conf} {
		mounts := pod.Containers[0].VolumeMounts
		mount := slices.IndexFunc(mounts, func(m corev1.VolumeMount) bool { return m.Name == name })
		volume := slices.IndexFunc(pod.Volumes, func(v corev1.Volume) bool { return v.Name == name })
		if mount < 0 || volume < 0 {
			t.Fatalf("the base has no volume %s", name)
		}
		mounts[mount].MountPath = path
		pod.Volumes[volume].HostPath.Path = path
	}
	return all
}

// The overlays for other directories are the base with a component, which is also to be
// combined with others.
func TestPlacesAreComponents(t *testing.T) {
	for name := range places() {
		overlay := readKustomization(t, "overlays", name)
		if !slices.Equal(overlay.Resources, []string{"../../base"}) || !slices.Equal(overlay.Components, []string{"../../components/" + name}) || len(overlay.Patches) > 0 {
			t.Errorf("overlay %s has resources %v, components %v and patches %v", name, overlay.Resources, overlay.Components, overlay.Patches)
		}
		if k := readKustomization(t, "components", name); k.Kind != "Component" || len(k.Resources) > 0 {
			t.Errorf("component %s is a %s with resources %v", name, k.Kind, k.Resources)
		}
	}
}

// What kustomize makes of them, where kubectl is installed.
func TestPlaces(t *testing.T) {
	kubectl, err := exec.LookPath("kubectl")
	if err != nil {
		t.Skip("kubectl, which has kustomize in it, is not installed")
	}
	for name, place := range places() {
		text, err := exec.Command(kubectl, "kustomize", path(t, "overlays", name)).Output()
		if err != nil {
			t.Fatalf("building %s: %v", name, err)
		}
		if got, want := byName(decode(t, text)), byName(moved(t, base(t), place.bin, place.conf)); !reflect.DeepEqual(got, want) {
			t.Errorf("kustomize makes of %s:\n%s", name, text)
		}
	}
}

// Cleaning up is one DaemonSet, which sees what the agent sees and is called like it.
func TestCleanup(t *testing.T) {
	kubectl, err := exec.LookPath("kubectl")
	if err != nil {
		t.Skip("kubectl, which has kustomize in it, is not installed")
	}
	for directory, name := range map[string]string{"cleanup/all": "flatnetd", "cleanup/by-label": "flatnet-cleanup"} {
		text, err := exec.Command(kubectl, "kustomize", path(t, directory)).Output()
		if err != nil {
			t.Fatalf("building %s: %v", directory, err)
		}
		all := decode(t, text)
		set, of := only[*appsv1.DaemonSet](t, all), only[*appsv1.DaemonSet](t, base(t)).Spec.Template.Spec
		pod := set.Spec.Template.Spec
		if len(all) != 1 || set.Name != name || len(pod.InitContainers) != 1 {
			t.Fatalf("kustomize makes of %s:\n%s", directory, text)
		}
		agent := of.Containers[0]
		agent.Args, agent.LivenessProbe, agent.ReadinessProbe = []string{"cleanup"}, nil, nil
		if !reflect.DeepEqual(pod.InitContainers[0], agent) || !reflect.DeepEqual(pod.Volumes, of.Volumes) {
			t.Errorf("%s runs\n%v, want\n%v", directory, pod.InitContainers[0], agent)
		}
	}
}
