package chart

import (
	"maps"
	"reflect"
	"slices"
	"testing"

	"helm.sh/helm/v3/pkg/action"
	"helm.sh/helm/v3/pkg/release"
)

// upgrade is `helm upgrade flatnet CHART --reset-then-reuse-values --set SET`, to the chart of a later version.
func upgrade(t *testing.T, c *action.Configuration, set string) *release.Release {
	t.Helper()
	next := load(t)
	next.Metadata.Version, next.Metadata.AppVersion = "9.9.9", "v9.9.9"
	u := action.NewUpgrade(c)
	u.Namespace, u.ResetThenReuseValues = elsewhere, true
	r, err := u.Run("flatnet", next, values(t, set))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Another version is other pods, of the same objects: what an object is selected by cannot
// change, and what has another name is removed and made anew, the namespace with all that
// is in it.
func TestUpgradeKeeps(t *testing.T) {
	c := configuration(t)
	first, err := install(t, c, elsewhere, "fabric.mode=vxlan,policies.enabled=false,nodeSelector.flatnet=enabled")
	if err != nil {
		t.Fatal(err)
	}
	before, now := objects(t, first.Manifest), objects(t, upgrade(t, c, "").Manifest)
	if !slices.Equal(slices.Sorted(maps.Keys(before)), slices.Sorted(maps.Keys(now))) {
		t.Errorf("objects were %v, and are %v", before, now)
	}
	const agent, settings = "DaemonSet flatnetd", "ConfigMap flatnet"
	if got := at(now[agent], "metadata", "labels", "helm.sh/chart"); got != "flatnet-9.9.9" {
		t.Fatalf("the chart is %v", got)
	}
	for _, path := range [][]string{{"spec", "selector"}, {"spec", "template", "metadata"}, {"spec", "template", "spec", "nodeSelector"}} {
		if !reflect.DeepEqual(at(before[agent], path...), at(now[agent], path...)) {
			t.Errorf("%v was %v, and is %v", path, at(before[agent], path...), at(now[agent], path...))
		}
	}
	if !reflect.DeepEqual(before[settings]["data"], now[settings]["data"]) || at(now[settings], "data", "FLATNETD_FABRIC") != "vxlan" {
		t.Errorf("settings were %v, and are %v", before[settings]["data"], now[settings]["data"])
	}
	container := at(now[agent], "spec", "template", "spec", "containers").([]any)[0]
	if got := at(container, "image"); got != "ghcr.io/flatnet-cni/flatnet:v9.9.9" {
		t.Errorf("the image is %v", got)
	}
}

// Agents read their settings when they start: others start them anew, and nothing else does
// where the image stays.
func TestUpgradeRestarts(t *testing.T) {
	for set, want := range map[string]bool{
		"fabric.mtu=1400":                 true,
		"apiServer.host=172.30.0.1":       true,
		"metrics.allAddresses=true":       true,
		"maxUnavailable=1":                false,
		"monitoring.labels.release=other": false,
		"":                                false,
	} {
		c := configuration(t)
		first, err := install(t, c, elsewhere, "image.digest="+digest)
		if err != nil {
			t.Fatal(err)
		}
		next := upgrade(t, c, set)
		pods := func(r *release.Release) any {
			return at(objects(t, r.Manifest)["DaemonSet flatnetd"], "spec", "template")
		}
		if got := !reflect.DeepEqual(pods(first), pods(next)); got != want {
			t.Errorf("--set %s: other pods is %t, want %t", set, got, want)
		}
	}
}

// Removing flatnet from the nodes is an upgrade, and what it was installed with holds on.
func TestCleanupIsAnUpgrade(t *testing.T) {
	c := configuration(t)
	if _, err := install(t, c, elsewhere, k3s); err != nil {
		t.Fatal(err)
	}
	all := objects(t, upgrade(t, c, "cleanup.enabled=true").Manifest)
	pod := at(all["DaemonSet flatnetd"], "spec", "template", "spec")
	first := at(pod, "initContainers").([]any)[0]
	if got := at(first, "args"); !reflect.DeepEqual(got, []any{"cleanup"}) {
		t.Errorf("what runs is %v", got)
	}
	if mount := at(first, "volumeMounts").([]any)[0]; at(mount, "mountPath") != at(all["ConfigMap flatnet"], "data", "FLATNETD_CNI_BIN_DIR") {
		t.Errorf("cleaned up is %v", mount)
	}
}
