package userspace_test

import (
	"fmt"
	"path/filepath"
	"testing"

	v1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/flatnet-cni/flatnet/test/apiserver"
	"github.com/flatnet-cni/flatnet/test/cluster"
)

// controlPlane is an API server with one Service that asks for all that rules can
// say, in both families; it returns the way to it.
func controlPlane(t *testing.T, c *cluster.Cluster, segment *cluster.Subnet) (kubeconfig string) {
	t.Helper()
	server := apiserver.New()
	server.Protobuf, server.Streams = true, true
	const address = "172.30.0.250:6443"
	machine := c.Lab.Node("control", segment.Port("172.30.0.250/24", "fd00:30::fa/64"))
	must(t, machine.Do(func() error { return server.Listen(address) }))
	t.Cleanup(server.Stop)
	for _, s := range services() {
		server.Put(s)
	}
	for _, s := range slices(c) {
		server.Put(s)
	}
	kubeconfig = filepath.Join(c.Directory, "kubeconfig")
	must(t, apiserver.WriteKubeconfig(kubeconfig, address))
	return kubeconfig
}

// services are a plain one, one with affinity, one for a few sources whose traffic
// stays on its node, and one without endpoints.
func services() (all []*v1.Service) {
	for i, name := range []string{"plain", "sticky", "local", "empty"} {
		s := &v1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}}
		four, six := fmt.Sprintf("10.96.0.%d", i+1), fmt.Sprintf("fd00:96::%d", i+1)
		s.Spec.Type, s.Spec.ClusterIPs = v1.ServiceTypeLoadBalancer, []string{four, six}
		s.Spec.ExternalIPs = []string{fmt.Sprintf("192.0.2.%d", i+1), fmt.Sprintf("2001:db8::%d", i+1)}
		s.Status.LoadBalancer.Ingress = []v1.LoadBalancerIngress{{IP: fmt.Sprintf("192.0.2.%d", i+101)}, {IP: fmt.Sprintf("2001:db8::%d", i+101)}}
		s.Spec.Ports = []v1.ServicePort{
			{Name: "tcp", Protocol: v1.ProtocolTCP, Port: 80, NodePort: int32(30080 + i)},
			{Name: "udp", Protocol: v1.ProtocolUDP, Port: 80, NodePort: int32(30080 + i)},
		}
		switch name {
		case "sticky":
			seconds := int32(600)
			s.Spec.SessionAffinity = v1.ServiceAffinityClientIP
			s.Spec.SessionAffinityConfig = &v1.SessionAffinityConfig{ClientIP: &v1.ClientIPConfig{TimeoutSeconds: &seconds}}
		case "local":
			internal := v1.ServiceInternalTrafficPolicyLocal
			s.Spec.InternalTrafficPolicy, s.Spec.ExternalTrafficPolicy = &internal, v1.ServiceExternalTrafficPolicyLocal
			s.Spec.LoadBalancerSourceRanges = []string{"172.30.0.0/24", "203.0.113.0/25", "fd00:30::/64"}
		}
		all = append(all, s)
	}
	return all
}

// slices are an endpoint on each node and in each family, but for the empty one.
func slices(c *cluster.Cluster) (all []*discovery.EndpointSlice) {
	yes := true
	for _, s := range services()[:3] {
		for family, kind := range []discovery.AddressType{discovery.AddressTypeIPv4, discovery.AddressTypeIPv6} {
			o := &discovery.EndpointSlice{AddressType: kind, ObjectMeta: metav1.ObjectMeta{
				Namespace: s.Namespace, Name: fmt.Sprintf("%s-%d", s.Name, family), Labels: map[string]string{discovery.LabelServiceName: s.Name},
			}}
			for _, p := range s.Spec.Ports {
				port := int32(8080)
				o.Ports = append(o.Ports, discovery.EndpointPort{Name: &p.Name, Protocol: &p.Protocol, Port: &port})
			}
			for _, n := range c.Nodes {
				address := n.PodCIDRs[family].Addr().Next().Next()
				o.Endpoints = append(o.Endpoints, discovery.Endpoint{
					Addresses: []string{address.String()}, NodeName: &n.Name,
					Conditions: discovery.EndpointConditions{Ready: &yes, Serving: &yes},
				})
			}
			all = append(all, o)
		}
	}
	return all
}
