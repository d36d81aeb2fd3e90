package main

import (
	"strings"
	"testing"
)

func TestModule(t *testing.T) {
	const upstream = "module k8s.io/kubernetes\n\ngo 1.26.0\n\nrequire (\n\tk8s.io/api v0.0.0\n)\n\nreplace (\n\tk8s.io/api => ./staging/src/k8s.io/api\n)\n"
	text, err := module("1.37", "v1.37.2", "v0.37.2", upstream)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"go 1.26.0\n", "require k8s.io/kubernetes v1.37.2\n", "\tk8s.io/api => k8s.io/api v0.37.2\n", "\tk8s.io/kubernetes/cmd/kubelet\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in\n%s", want, text)
		}
	}
	if _, err := module("1.37", "v1.37.2", "v0.37.2", "module k8s.io/kubernetes\n\ngo 1.26.0\n"); err == nil {
		t.Error("no error without staging modules")
	}
}

func TestReferences(t *testing.T) {
	const source = `
	configs[Agnhost] = Config{list.PromoterE2eRegistry, "agnhost", "2.66.1"}
	configs[BusyBox] = Config{list.PromoterE2eRegistry, "busybox", "1.37.0-2"}
	configs[Etcd] = Config{list.GcEtcdRegistry, "etcd", "3.7.0-0"}
	configs[Pause] = Config{list.GcRegistry, "pause", "3.10.2"}`
	text, err := references(source)
	const want = "Agnhost registry.k8s.io/e2e-test-images/agnhost:2.66.1\nBusyBox registry.k8s.io/e2e-test-images/busybox:1.37.0-2\nPause registry.k8s.io/pause:3.10.2\n"
	if err != nil || text != want {
		t.Errorf("%v\n%s", err, text)
	}
	if _, err := references(""); err == nil {
		t.Error("no error for an empty list")
	}
}
