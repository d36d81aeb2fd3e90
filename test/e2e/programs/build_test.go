package programs

import (
	"slices"
	"strings"
	"testing"
)

func TestNamed(t *testing.T) {
	all := Kubernetes{Minor: "1.37", Version: "v1.37.2"}.Cluster()
	found, err := Named(all, []string{"kube-proxy", "pause"})
	if err != nil || len(found) != 2 || found[0].Name != "kube-proxy" || found[1].Name != "pause" {
		t.Errorf("found are %v, %v", found, err)
	}
	if _, err := Named(all, []string{"kube-proxy", "kubeproxy"}); err == nil || err.Error() != "kubeproxy is not among the programs that are built" {
		t.Error(err)
	}
}

// Each version of the repository is complete, and the newest is the default.
func TestKubernetes(t *testing.T) {
	all, err := AllKubernetes("..")
	if err != nil || len(all) == 0 {
		t.Fatal(all, err)
	}
	for _, k := range all {
		if !strings.HasPrefix(k.Version, "v"+k.Minor+".") {
			t.Errorf("kubernetes/%s requires %s", k.Minor, k.Version)
		}
		for _, image := range []string{"Agnhost", "BusyBox", "Pause"} {
			if !strings.Contains(k.Images[image], ":") {
				t.Errorf("Kubernetes %s wants %q as %s", k.Minor, k.Images[image], image)
			}
		}
	}
	newest, err := FindKubernetes("..", "")
	if err != nil || newest.Version != all[len(all)-1].Version {
		t.Errorf("the default is %s, %v", newest.Version, err)
	}
	if _, err := FindKubernetes("..", "1.2"); err == nil || !strings.HasPrefix(err.Error(), "-kubernetes 1.2: possible are "+all[0].Minor) {
		t.Error(err)
	}
}

func TestContainerd(t *testing.T) {
	for version, want := range map[string]string{"1.7": "github.com/containerd/containerd/cmd/ctr", KindContainerd: "github.com/containerd/containerd/v2/cmd/ctr"} {
		all, err := Containerd("..", version)
		if err != nil || !slices.ContainsFunc(all, func(p Program) bool { return p.Package == want && p.Module == "containerd/"+version }) {
			t.Errorf("containerd %s is %v, %v", version, all, err)
		}
	}
	if _, err := Containerd("..", "1.5"); err == nil {
		t.Error("no error")
	}
}

func TestVersionsAreInOrder(t *testing.T) {
	if slices.Compare(numbers("1.9"), numbers("1.10")) >= 0 {
		t.Error("1.10 is before 1.9")
	}
}
