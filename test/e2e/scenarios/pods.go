package scenarios

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// pod is what scenarios have to know of one.
type pod struct {
	Namespace, Name, UID, Node string
	Addresses                  []netip.Addr
	// Containers are the IDs of those that run, and Restarts how often all
	// together were started anew.
	Containers []string
	Restarts   int
	// OnHost is on the node's network. Ready is what the API says. Ending is told
	// to end, and Ended has no network any more.
	OnHost, Ready, Ending, Ended bool
}

// pods of a label, ordered by node and name. Each has its addresses.
func (r *Run) pods(label string) ([]pod, error) {
	all, err := r.list("-l", label)
	if err != nil {
		return nil, err
	}
	for _, p := range all {
		if len(p.Addresses) != len(r.Lab.Plan().Pods) {
			return nil, fmt.Errorf("pod %s on %s has addresses %s, want one of each family of the cluster", p.Name, p.Node, p.Addresses)
		}
	}
	return all, nil
}

// onNode are all pods of a node, in all namespaces.
func (r *Run) onNode(node string) ([]pod, error) {
	return r.list("--all-namespaces", "--field-selector=spec.nodeName="+node)
}

// list is `kubectl get pods` with these arguments.
func (r *Run) list(args ...string) ([]pod, error) {
	text, err := r.kubectl(append([]string{"get", "pods", "-o", "json"}, args...)...)
	if err != nil {
		return nil, err
	}
	var list struct {
		Items []struct {
			Metadata struct {
				Namespace, Name, UID string
				DeletionTimestamp    *time.Time
			}
			Spec struct {
				NodeName    string
				HostNetwork bool
			}
			Status struct {
				Phase             string
				PodIPs            []struct{ IP netip.Addr }
				Conditions        []struct{ Type, Status string }
				ContainerStatuses []struct {
					ContainerID  string
					RestartCount int
				}
			}
		}
	}
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		return nil, fmt.Errorf("reading pods: %w", err)
	}
	var all []pod
	for _, item := range list.Items {
		p := pod{
			Namespace: item.Metadata.Namespace, Name: item.Metadata.Name, UID: item.Metadata.UID, Node: item.Spec.NodeName,
			OnHost: item.Spec.HostNetwork, Ending: item.Metadata.DeletionTimestamp != nil,
			Ended: item.Status.Phase == "Succeeded" || item.Status.Phase == "Failed",
		}
		for _, address := range item.Status.PodIPs {
			p.Addresses = append(p.Addresses, address.IP)
		}
		for _, c := range item.Status.Conditions {
			p.Ready = p.Ready || c.Type == "Ready" && c.Status == "True"
		}
		for _, c := range item.Status.ContainerStatuses {
			p.Containers = append(p.Containers, c.ContainerID)
			p.Restarts += c.RestartCount
		}
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b pod) int {
		return cmp.Or(strings.Compare(a.Node, b.Node), strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
	})
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
