package programs

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// Kubernetes is a version that clusters can be made of: a directory below
// test/e2e/kubernetes, which the program pin has written.
type Kubernetes struct {
	Minor   string // "1.37", the directory's name
	Version string // "v1.37.2"
	// Images are those that the version's own tests start, by upstream's names.
	Images map[string]string
}

var required = regexp.MustCompile(`(?m)^(?:require)?\s*k8s\.io/kubernetes (v\S+)`)

// AllKubernetes are the versions that there are, the oldest first. source is test/e2e.
func AllKubernetes(source string) ([]Kubernetes, error) {
	names, err := versions(filepath.Join(source, "kubernetes"))
	if err != nil {
		return nil, err
	}
	var all []Kubernetes
	for _, name := range names {
		directory := filepath.Join(source, "kubernetes", name)
		module, err := os.ReadFile(filepath.Join(directory, "go.mod"))
		if err != nil {
			return nil, fmt.Errorf("reading which Kubernetes %s is: %w", name, err)
		}
		match := required.FindSubmatch(module)
		if match == nil {
			return nil, fmt.Errorf("reading which Kubernetes %s is: its go.mod requires none", name)
		}
		k := Kubernetes{Minor: name, Version: string(match[1]), Images: map[string]string{}}
		images, err := os.ReadFile(filepath.Join(directory, "images"))
		if err != nil {
			return nil, fmt.Errorf("reading images of Kubernetes %s: %w", name, err)
		}
		for line := range strings.Lines(string(images)) {
			if image, reference, is := strings.Cut(strings.TrimSpace(line), " "); is {
				k.Images[image] = reference
			}
		}
		all = append(all, k)
	}
	return all, nil
}

// FindKubernetes returns a version by its directory's name, for "" the newest.
func FindKubernetes(source, minor string) (Kubernetes, error) {
	all, err := AllKubernetes(source)
	if err != nil {
		return Kubernetes{}, err
	}
	var names []string
	for _, k := range all {
		if k.Minor == minor {
			return k, nil
		}
		names = append(names, k.Minor)
	}
	if minor == "" && len(all) > 0 {
		return all[len(all)-1], nil
	}
	return Kubernetes{}, fmt.Errorf("-kubernetes %s: possible are %s", minor, strings.Join(names, ", "))
}

// Cluster are the programs that a cluster consists of, the longest first.
func (k Kubernetes) Cluster() []Program {
	return append(k.named("kube-apiserver", "kubelet", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubectl"),
		k.program("agnhost", "k8s.io/kubernetes/test/images/agnhost"),
		k.program("regression-issue-74839", "k8s.io/kubernetes/test/images/regression-issue-74839"),
		Program{Name: "coredns", Module: "coredns", Package: "github.com/coredns/coredns"},
		Program{Name: "pause", Module: ".", Package: "github.com/flatnet-cni/flatnet/test/e2e/pause"},
	)
}

// Tests are Kubernetes' own tests, and what runs them.
func (k Kubernetes) Tests() []Program {
	tests := k.program("e2e.test", "k8s.io/kubernetes/test/e2e")
	tests.Test = true
	return []Program{tests, k.program("ginkgo", "github.com/onsi/ginkgo/v2/ginkgo")}
}

// Helm is the one that the chart is tested with.
func Helm() Program {
	return Program{Name: "helm", Module: filepath.Join("..", "chart"), Package: "helm.sh/helm/v3/cmd/helm"}
}

func (k Kubernetes) named(names ...string) (all []Program) {
	for _, name := range names {
		all = append(all, k.program(name, "k8s.io/kubernetes/cmd/"+name))
	}
	return all
}

func (k Kubernetes) program(name, pkg string) Program {
	return Program{Name: name, Module: filepath.Join("kubernetes", k.Minor), Package: pkg, Version: k.Version}
}
