package scenarios

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// pod is what scenarios have to know of one.
type pod struct {
	Name, Node string
	Addresses  []netip.Addr
}

// pods of a label, ordered by node.
func (r *Run) pods(label string) ([]pod, error) {
	text, err := r.kubectl("get", "pods", "-l", label, "-o", "json")
	if err != nil {
		return nil, err
	}
	var list struct {
		Items []struct {
			Metadata struct{ Name string }
			Spec     struct{ NodeName string }
			Status   struct {
				PodIPs []struct{ IP netip.Addr }
			}
		}
	}
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		return nil, fmt.Errorf("reading pods: %w", err)
	}
	var all []pod
	for _, item := range list.Items {
		p := pod{Name: item.Metadata.Name, Node: item.Spec.NodeName}
		for _, address := range item.Status.PodIPs {
			p.Addresses = append(p.Addresses, address.IP)
		}
		if len(p.Addresses) != len(r.Lab.Plan().Pods) {
			return nil, fmt.Errorf("pod %s on %s has addresses %s, want one of each family of the cluster", p.Name, p.Node, p.Addresses)
		}
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b pod) int { return strings.Compare(a.Node, b.Node) })
	return all, nil
}

// everywhere starts a pod of the test image on every node, the control plane
// too, and returns them. Those on the host's network serve another port.
func (r *Run) everywhere(name string, hostNetwork bool) ([]pod, error) {
	port := podPort
	if hostNetwork {
		port = hostPort
	}
	err := r.apply(fmt.Sprintf(`
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: %[1]s}
spec:
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s}}
    spec:
      hostNetwork: %[2]t
      terminationGracePeriodSeconds: 0
      tolerations: [{operator: Exists}]
      containers:
      - name: agnhost
        image: agnhost
        imagePullPolicy: IfNotPresent
        args: [netexec, --http-port=%[3]d, --udp-port=%[3]d]
        readinessProbe: {httpGet: {path: /healthz, port: %[3]d}, periodSeconds: 1}
`, name, hostNetwork, port))
	if err != nil {
		return nil, err
	}
	if _, err := r.kubectl("rollout", "status", "daemonset/"+name, "--timeout=90s"); err != nil {
		return nil, err
	}
	all, err := r.pods("app=" + name)
	if err == nil && len(all) != len(r.Lab.Plan().Machines) {
		err = fmt.Errorf("%d pods %s on %d nodes", len(all), name, len(r.Lab.Plan().Machines))
	}
	return all, err
}

// Ports that test pods serve, HTTP and UDP.
const (
	podPort  = 8080
	hostPort = 28080
)
