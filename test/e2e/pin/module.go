package main

import (
	"fmt"
	"regexp"
	"strings"
)

// tools are the programs of Kubernetes that the cluster and its tests consist
// of; package programs builds them.
var tools = []string{
	"github.com/onsi/ginkgo/v2/ginkgo",
	"k8s.io/kubernetes/cmd/kube-apiserver",
	"k8s.io/kubernetes/cmd/kube-controller-manager",
	"k8s.io/kubernetes/cmd/kube-proxy",
	"k8s.io/kubernetes/cmd/kube-scheduler",
	"k8s.io/kubernetes/cmd/kubectl",
	"k8s.io/kubernetes/cmd/kubelet",
	"k8s.io/kubernetes/test/e2e",
	"k8s.io/kubernetes/test/images/agnhost",
	"k8s.io/kubernetes/test/images/regression-issue-74839",
}

var (
	staged   = regexp.MustCompile(`(?m)^\s*(\S+) => \./staging/`)
	language = regexp.MustCompile(`(?m)^go (\S+)$`)
)

// module is the text of the module file for a version of Kubernetes, whose own
// module file is upstream; published is the version of its staging modules.
func module(minor, version, published, upstream string) (string, error) {
	replaced, goVersion := staged.FindAllStringSubmatch(upstream, -1), language.FindStringSubmatch(upstream)
	if len(replaced) == 0 || goVersion == nil {
		return "", fmt.Errorf("the module file of Kubernetes %s has no staging modules or no version of Go: its layout has changed", version)
	}
	var text strings.Builder
	fmt.Fprintf(&text, "// Kubernetes %s, built as Go modules. Written by test/e2e/pin.\n", minor)
	fmt.Fprintf(&text, "module github.com/flatnet-cni/flatnet/test/e2e/kubernetes/%s\n\ngo %s\n\nrequire k8s.io/kubernetes %s\n\n", minor, goVersion[1], version)
	text.WriteString("// The Kubernetes repository replaces its staging modules by its own directories,\n// which only works inside of it; these are the same, as published.\nreplace (\n")
	for _, match := range replaced {
		fmt.Fprintf(&text, "\t%s => %s %s\n", match[1], match[1], published)
	}
	text.WriteString(")\n\ntool (\n")
	for _, tool := range tools {
		fmt.Fprintf(&text, "\t%s\n", tool)
	}
	text.WriteString(")\n")
	return text.String(), nil
}
