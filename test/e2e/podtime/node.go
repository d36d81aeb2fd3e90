package main

import (
	"fmt"
	"maps"
	"strings"

	"github.com/flatnet-cni/flatnet/test/e2e/kube"
	"github.com/flatnet-cni/flatnet/test/e2e/lab"
)

// node is the one that the pods are on.
type node struct {
	lab  *lab.Lab
	name string
}

// metrics of containerd and kubelet together.
func (n node) metrics() (metrics, error) {
	text, err := n.lab.Output(n.name, "curl", "-fsS", "http://"+kube.ContainerdMetrics+"/v1/metrics")
	if err != nil {
		return nil, fmt.Errorf("asking containerd for metrics: %w", err)
	}
	all, err := readMetrics(text)
	if err != nil {
		return nil, err
	}
	if text, err = n.lab.Kubectl("get", "--raw", "/api/v1/nodes/"+n.name+"/proxy/metrics"); err != nil {
		return nil, fmt.Errorf("asking the kubelet for metrics: %w", err)
	}
	kubelets, err := readMetrics(text)
	if err != nil {
		return nil, err
	}
	maps.Copy(all, kubelets)
	return all, nil
}

// attachments counts the interfaces of pods by the network that made them: the
// runtime's library keeps the result of each ADD until the DEL.
func (n node) attachments() (map[string]int, error) {
	text, err := n.lab.Output(n.name, "ls", "/var/lib/cni/results")
	if err != nil {
		return nil, fmt.Errorf("asking which plugins attached pods: %w", err)
	}
	return networks(text), nil
}

// networks counts the names of files NETWORK-CONTAINER-eth0.
func networks(text string) map[string]int {
	count := map[string]int{}
	for name := range strings.Lines(text) {
		if rest, found := strings.CutSuffix(strings.TrimSpace(name), "-eth0"); found {
			if end := strings.LastIndex(rest, "-"); end > 0 {
				count[rest[:end]]++
			}
		}
	}
	return count
}

// containers counts what containerd remembers, sandboxes and what has ended
// included.
func (n node) containers() (int, error) {
	text, err := n.lab.Output(n.name, "ctr", "-n", "k8s.io", "containers", "list", "-q")
	if err != nil {
		return 0, fmt.Errorf("asking for containers: %w", err)
	}
	return strings.Count(text, "\n"), nil
}
