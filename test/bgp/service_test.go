package bgp_test

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/flatnet-cni/flatnet/test/apiserver"
	"github.com/flatnet-cni/flatnet/test/cluster"
	"github.com/flatnet-cni/flatnet/test/racks"
)

// api gives the site an API server outside of the racks, and returns its kubeconfig.
func (s *site) api() (*apiserver.Server, string) {
	s.t.Helper()
	const address = "172.31.0.9:6443"
	server := apiserver.New()
	server.Protobuf, server.Streams = true, true
	kubeconfig := filepath.Join(s.Directory, "kubeconfig")
	must(s.t, apiserver.WriteKubeconfig(kubeconfig, address))
	must(s.t, s.World.Do(func() error { return server.Listen(address) }))
	s.t.Cleanup(server.Stop)
	return server, kubeconfig
}

const balancer = "198.51.100.1"

// web is a Service with an address of a load balancer and policy Local.
func web(number int, address string) *v1.Service {
	return &v1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprintf("web%d", number)},
		Spec: v1.ServiceSpec{
			Type: v1.ServiceTypeLoadBalancer, ClusterIP: fmt.Sprintf("10.96.%d.%d", number/250, 1+number%250), ClusterIPs: []string{fmt.Sprintf("10.96.%d.%d", number/250, 1+number%250)},
			ExternalTrafficPolicy: v1.ServiceExternalTrafficPolicyLocal,
			Ports:                 []v1.ServicePort{{Name: "tcp", Protocol: v1.ProtocolUDP, Port: 80}},
		},
		Status: v1.ServiceStatus{LoadBalancer: v1.LoadBalancerStatus{Ingress: []v1.LoadBalancerIngress{{IP: address}}}},
	}
}

// endpoints are those of web: a pod, at a port.
func endpoints(number int, pod *cluster.Pod, port int32, ready bool) *discovery.EndpointSlice {
	name, protocol := "tcp", v1.ProtocolUDP
	return &discovery.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprintf("web%d-a", number), Labels: map[string]string{discovery.LabelServiceName: fmt.Sprintf("web%d", number)}},
		AddressType: discovery.AddressTypeIPv4,
		Ports:       []discovery.EndpointPort{{Name: &name, Protocol: &protocol, Port: &port}},
		Endpoints: []discovery.Endpoint{{
			Addresses: []string{pod.Address(false).String()}, NodeName: &pod.Node.Name, Conditions: discovery.EndpointConditions{Ready: &ready, Serving: &ready},
		}},
	}
}

// Routers are told of a load balancer's address by the nodes that have an endpoint, and who
// comes from outside is seen as who it is. Without the API server nothing is withdrawn.
func TestServices(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	server, kubeconfig := s.api()
	s.configure(racks.Usual + "announce: {services: [loadBalancer, cluster]}\n")
	one, two := s.upWithPods("--services", "--services-health=", "--services-metrics=", "--kubeconfig", kubeconfig)
	outside := netip.MustParseAddr("172.31.0.9")
	// via waits until a router reaches the address by these nodes.
	via := func(r *racks.Router, prefix string, nodes ...string) {
		await(t, fmt.Sprintf("%s to reach %s by %v", r.Name, prefix, nodes), func() error {
			text, _ := r.Ask("show route " + prefix)
			for _, hop := range []string{"172.30.0.1", "172.31.0.3"} { // n1, and rack b
				want := false
				for _, n := range nodes {
					want = want || n == hop
				}
				if strings.Contains(text, "via "+hop+" ") != want {
					return fmt.Errorf("it says: %s", text)
				}
			}
			return nil
		})
	}
	serve := func(pod *cluster.Pod) netip.AddrPort {
		at, stop, err := pod.Echo(netip.AddrPortFrom(pod.Address(false), 0))
		must(t, err)
		t.Cleanup(stop)
		return at
	}
	at1, at2 := serve(one), serve(two)
	asks := func() {
		await(t, "an answer of the Service", func() error {
			seen, _, err := s.World.Ask(outside, netip.MustParseAddrPort(balancer+":80"), waitTime)
			if err == nil && seen != outside {
				err = fmt.Errorf("the client is seen as %s", seen)
			}
			return err
		})
	}
	server.Put(web(0, balancer))
	server.Put(endpoints(0, two, int32(at2.Port()), true))
	via(s.A1, balancer+"/32", "172.31.0.3")
	via(s.A1, "10.96.0.1/32", "172.30.0.1", "172.31.0.3")
	asks()
	server.Put(endpoints(0, one, int32(at1.Port()), true))
	via(s.A1, balancer+"/32", "172.30.0.1")
	asks()
	server.Put(endpoints(0, one, int32(at1.Port()), false))
	via(s.A1, balancer+"/32")
	begin := time.Now()
	server.Put(endpoints(0, one, int32(at1.Port()), true))
	via(s.A1, balancer+"/32", "172.30.0.1")
	t.Logf("from the endpoint to the router's table: %s", time.Since(begin))
	// The API server goes, and then the agent's own connections to it are refused.
	server.Stop()
	await(t, "the agent to miss the API server", func() error {
		if s.N1.Metrics()["flatnet_service_source_healthy"] != 0 {
			return fmt.Errorf("it does not")
		}
		return nil
	})
	via(s.A1, balancer+"/32", "172.30.0.1")
	asks()
}
