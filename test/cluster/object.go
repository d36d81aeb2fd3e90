package cluster

import (
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Object is the node as Kubernetes has it.
func (n *Node) Object() *v1.Node {
	o := &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: n.Name}}
	for _, a := range n.Addresses {
		o.Status.Addresses = append(o.Status.Addresses, v1.NodeAddress{Type: v1.NodeInternalIP, Address: a.String()})
	}
	for _, c := range n.PodCIDRs {
		o.Spec.PodCIDRs = append(o.Spec.PodCIDRs, c.String())
	}
	if len(o.Spec.PodCIDRs) > 0 {
		o.Spec.PodCIDR = o.Spec.PodCIDRs[0]
	}
	return o
}
