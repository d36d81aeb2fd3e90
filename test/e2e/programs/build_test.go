package programs

import "testing"

func TestNamed(t *testing.T) {
	found, err := Named(Cluster, []string{"kube-proxy", "pause"})
	if err != nil || len(found) != 2 || found[0].Name != "kube-proxy" || found[1].Name != "pause" {
		t.Errorf("found are %v, %v", found, err)
	}
	if _, err := Named(Cluster, []string{"kube-proxy", "kubeproxy"}); err == nil || err.Error() != "kubeproxy is not among the programs that are built" {
		t.Error(err)
	}
}
