package chart

import (
	"reflect"
	"testing"
)

const (
	k3s      = "cni.binDir=/var/lib/rancher/k3s/data/cni,cni.confDir=/var/lib/rancher/k3s/agent/etc/cni/net.d"
	microk8s = "cni.binDir=/var/snap/microk8s/current/opt/cni/bin,cni.confDir=/var/snap/microk8s/current/args/cni-network"
)

// The chart makes the objects of the kustomizations, all of them and no others.
func TestSameObjects(t *testing.T) {
	for _, c := range []struct{ name, set, kustomization string }{
		{"defaults", "", "base"},
		{"direct", "fabric.mode=direct", "overlays/direct"},
		{"vxlan", "fabric.mode=vxlan", "overlays/vxlan"},
		{"services", "services.enabled=true", "overlays/services"},
		{"by label", "nodeSelector.flatnet=enabled", "overlays/by-label"},
		{"k3s", k3s, "overlays/k3s"},
		{"microk8s", microk8s, "overlays/microk8s"},
		{"monitoring", "monitoring.enabled=true", "overlays/monitoring"},
		{"all monitored", "services.enabled=true,monitoring.enabled=true,fabric.mode=vxlan", `
resources: [../overlays/vxlan]
components: [../components/services, ../monitoring, ../monitoring/services]
`},
		{"load balancer", "services.enabled=true,loadBalancer.pools[0].name=lan,loadBalancer.pools[0].addresses[0]=192.168.1.200-192.168.1.220,loadBalancer.pools[0].layer2.interfaces[0]=eth0", `
resources: [../overlays/services]
components: [../components/loadbalancer]
patches:
  - patch: |
      apiVersion: v1
      data:
        pools.yaml: |
          pools:
          - addresses:
            - 192.168.1.200-192.168.1.220
            layer2:
              interfaces:
              - eth0
            name: lan
      kind: ConfigMap
      metadata: {name: flatnet-loadbalancer, namespace: flatnet}
`},
		{"without kube-proxy", "services.enabled=true,apiServer.host=172.30.0.1,fabric.mode=vxlan", `
resources: [../overlays/vxlan]
components: [../components/services]
patches:
  - patch: |
      {apiVersion: v1, kind: ConfigMap, metadata: {name: flatnet, namespace: flatnet},
       data: {KUBERNETES_SERVICE_HOST: 172.30.0.1, KUBERNETES_SERVICE_PORT: "6443"}}
`},
	} {
		t.Run(c.name, func(t *testing.T) {
			compare(t, c.set, kustomize(t, c.kustomization), true)
		})
	}
}

// Where flatnet is removed, kustomize makes the DaemonSet alone.
func TestSameCleanup(t *testing.T) {
	for _, c := range []struct{ name, set, kustomization string }{
		{"defaults", "", "cleanup/all"},
		{"k3s", "," + k3s, "{resources: [../overlays/k3s], components: [../components/cleanup]}"},
	} {
		t.Run(c.name, func(t *testing.T) {
			compare(t, "cleanup.enabled=true"+c.set, kustomize(t, c.kustomization), false)
		})
	}
}

func compare(t *testing.T, set string, want map[string]map[string]any, all bool) {
	t.Helper()
	got := withoutHelm(t, objects(t, installed(t, set).Manifest))
	if len(want) == 0 {
		t.Fatal("kustomize makes nothing")
	}
	for name, object := range want {
		if !reflect.DeepEqual(got[name], object) {
			t.Errorf("%s is\n%s\n\nwant\n\n%s", name, text(t, got[name]), text(t, object))
		}
	}
	for name := range got {
		if all && want[name] == nil {
			t.Errorf("%s is the chart's alone", name)
		}
	}
}

// A release in flatnet's own namespace finds it there, or --create-namespace makes it.
func TestNamespace(t *testing.T) {
	for _, c := range []struct {
		namespace, set string
		want           bool
	}{
		{elsewhere, "", true},
		{"flatnet", "", false},
		{elsewhere, "namespace.create=false", false},
		{"flatnet", "namespace.name=network", true},
	} {
		r, err := install(t, configuration(t), c.namespace, c.set)
		if err != nil {
			t.Fatal(err)
		}
		name := "flatnet"
		if c.set == "namespace.name=network" {
			name = "network"
		}
		all := objects(t, r.Manifest)
		if got := all["Namespace "+name] != nil; got != c.want {
			t.Errorf("release in %s with %q: makes the namespace is %t, want %t", c.namespace, c.set, got, c.want)
		}
		for which, object := range all {
			if of := at(object, "metadata", "namespace"); of != nil && of != name {
				t.Errorf("release in %s with %q: %s is in namespace %s", c.namespace, c.set, which, of)
			}
		}
	}
}
