package lab

import (
	"fmt"
	"slices"
	"strings"
)

// PodNamespace is the path of a running pod's network namespace, as the real
// machine sees it. The container runtime is asked, not flatnet.
// Equivalent to: `ctr containers list`, and `ctr tasks list` for the PID.
func (l *Lab) PodNamespace(node, namespace, pod string) (string, error) {
	filter := fmt.Sprintf(`labels."io.cri-containerd.kind"==sandbox,labels."io.kubernetes.pod.namespace"==%s,labels."io.kubernetes.pod.name"==%s`, namespace, pod)
	sandboxes, err := l.Output(node, "ctr", "containers", "list", "--quiet", filter)
	if err != nil {
		return "", err
	}
	tasks, err := l.Output(node, "ctr", "tasks", "list")
	if err != nil {
		return "", err
	}
	outer, err := l.PID(node)
	if err != nil {
		return "", err
	}
	ids := strings.Fields(sandboxes)
	for line := range strings.Lines(tasks) {
		// TASK PID STATUS; the PID is that of the machine's own namespace.
		if f := strings.Fields(line); len(f) == 3 && f[2] == "RUNNING" && slices.Contains(ids, f[0]) {
			return fmt.Sprintf("/proc/%d/root/proc/%s/ns/net", outer, f[1]), nil
		}
	}
	return "", fmt.Errorf("pod %s/%s has no running sandbox on %s", namespace, pod, node)
}
