package bgp_test

import (
	"fmt"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"

	"github.com/flatnet-cni/flatnet/test/cluster"
	"github.com/flatnet-cni/flatnet/test/racks"
)

// nodeOf is a Node of a rack as Kubernetes has it.
func nodeOf(n *cluster.Node, rack string, taints ...v1.Taint) *v1.Node {
	o := n.Object()
	o.Labels, o.Spec.Taints = map[string]string{"rack": rack}, taints
	return o
}

// A node that is to go tells of no Service any more, while its pods are still reached; when
// its agent ends, routers forget them at once, though they would keep them for an hour.
// Beside kube-proxy, nobody but BGP follows Services.
func TestLeaving(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	server, kubeconfig := s.api()
	s.configure(strings.Replace(racks.Usual, "restartTime: 60s", "restartTime: 1h", 1) + "announce: {services: [loadBalancer]}\n")
	server.Put(nodeOf(s.N1, "a"))
	server.Put(nodeOf(s.N2, "b"))
	s.up("--nodes-file=", "--kubeconfig", kubeconfig)
	s.joined(s.N2, "bgp", 2)
	one := s.N1.Pod("one")
	server.Put(web(0, balancer))
	server.Put(endpoints(0, one, 80, true))
	for _, r := range s.Routers() {
		s.knows(r, balancer+"/32", true)
	}
	server.Put(nodeOf(s.N1, "a", v1.Taint{Key: "ToBeDeletedByClusterAutoscaler", Effect: v1.TaintEffectNoSchedule}))
	for _, r := range s.Routers() {
		s.knows(r, balancer+"/32", false)
	}
	s.knows(s.A1, "10.244.1.0/24", true)
	s.N1.Stop()
	for _, r := range s.Routers() {
		s.knows(r, "10.244.1.0/24", false)
		s.knows(r, "fd00:244:1::/64", false)
	}
	// One that stays is kept.
	s.N2.Stop()
	await(t, "the session with n2 to be gone", func() error {
		if text := ask(t, s.B1, "show protocols node4"); strings.Contains(text, "Established") {
			return fmt.Errorf("b1: %s", text)
		}
		return nil
	})
	s.knows(s.B1, "10.244.2.0/24", true)
}
