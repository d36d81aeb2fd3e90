package service_test

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/flatnet-cni/flatnet/pkg/service"
	"github.com/flatnet-cni/flatnet/test/cluster"
	"github.com/flatnet-cni/flatnet/test/netlab"
	"github.com/flatnet-cni/flatnet/test/pace"
)

// site is a cluster of three nodes on which flatnetd balances, an API server that
// tells it of Services, and a client outside of the cluster, which is the nodes'
// default gateway.
//
// Pods a1 and a2 are on n1, b1 on n2, and none on n3.
type site struct {
	*cluster.Cluster
	t       *testing.T
	ipv6    bool
	client  *netlab.Node
	control *control
	servers map[string]*server // by the pod's name
	pods    map[string]*cluster.Pod
}

func newSite(t *testing.T, mode string, ipv6 bool) *site {
	t.Helper()
	f := cluster.IPv4
	if ipv6 {
		f = cluster.IPv6
	}
	s := &site{Cluster: cluster.Start(t), t: t, ipv6: ipv6, servers: map[string]*server{}, pods: map[string]*cluster.Pod{}}
	segment := s.OneSegment(f, 3)
	s.client = s.Lab.Node("client", segment.Port(pick(ipv6, "172.30.0.200/24", "fd00:30::c8/64")))
	for _, n := range s.Nodes {
		// What goes to a ClusterIP has to have a way, though it never takes it.
		must(t, n.AddRoute("default", pick(ipv6, "172.30.0.200", "fd00:30::c8")))
		// The kernel sends few ICMP errors to one place; a test asks often.
		must(t, n.SetSysctl("net/ipv4/icmp_ratelimit", "0"))
		must(t, n.SetSysctl("net/ipv6/icmp/ratelimit", "0"))
	}
	s.control = newControl(t, s.Cluster, segment, ipv6)
	s.Cluster.Start("--fabric", mode, "--services", "--kubeconfig", s.control.kubeconfig)
	for name, node := range map[string]string{"a1": "n1", "a2": "n1", "b1": "n2"} {
		s.addPod(name, node)
	}
	// The way to addresses of load balancers, and what they stand for.
	for _, prefix := range []string{pick(ipv6, "192.0.2.0/24", "2001:db8::/64"), pick(ipv6, "10.96.0.0/16", "fd00:96::/112")} {
		must(t, s.client.AddRoute(prefix, s.Node("n1").Addresses[0].String()))
	}
	return s
}

func (s *site) addPod(name, node string) {
	s.t.Helper()
	pod := s.Node(node).Pod(name)
	s.pods[name] = pod
	s.servers[name] = serve(s.t, pod.Namespace, name, netip.AddrPortFrom(pod.Address(s.ipv6), 8080))
}

func pick(ipv6 bool, four, six string) string {
	if ipv6 {
		return six
	}
	return four
}

// clusterIP is an address of the tests' Service.
func (s *site) clusterIP() netip.Addr {
	return netip.MustParseAddr(pick(s.ipv6, "10.96.0.1", "fd00:96::1"))
}

func (s *site) balancerIP() netip.Addr {
	return netip.MustParseAddr(pick(s.ipv6, "192.0.2.1", "2001:db8::1"))
}

func (s *site) externalIP() netip.Addr {
	return netip.MustParseAddr(pick(s.ipv6, "192.0.2.9", "2001:db8::9"))
}

const nodePort = 30080

// service is a Service with every sort of address, TCP and UDP, and these pods.
func (s *site) service(pods ...string) service.Service {
	v := service.Service{
		Name:       service.Name{Namespace: "default", Name: "web"},
		Ports:      []service.Port{{Name: "tcp", Protocol: service.TCP, Port: 80, NodePort: nodePort}, {Name: "udp", Protocol: service.UDP, Port: 80, NodePort: nodePort}},
		ClusterIPs: []netip.Addr{s.clusterIP()}, LoadBalancerIPs: []netip.Addr{s.balancerIP()}, ExternalIPs: []netip.Addr{s.externalIP()},
	}
	slice := service.Slice{Ports: []service.SlicePort{{Name: "tcp", Protocol: service.TCP, Port: 8080}, {Name: "udp", Protocol: service.UDP, Port: 8080}}}
	for _, name := range pods {
		pod := s.pods[name]
		slice.Endpoints = append(slice.Endpoints, service.Endpoint{Address: pod.Address(s.ipv6), Node: pod.Node.Name, Ready: true, Serving: true})
	}
	v.Slices = []service.Slice{slice}
	return v
}

// apply has every node balance these Services.
func (s *site) apply(services ...service.Service) {
	s.t.Helper()
	s.control.put(services...)
	s.reached()
}

// forget has the nodes forget all flows, so that a new one that happens to have the
// port of an old one is a new one.
func (s *site) forget() {
	s.t.Helper()
	for _, n := range s.Nodes {
		must(s.t, n.Netlink().ConntrackTableFlush(netlink.ConntrackTable))
	}
}

// place is where a connection comes from.
type place struct {
	*netlab.Namespace
	name string
	own  netip.Addr
}

func (s *site) pod(name string) place {
	return place{s.pods[name].Namespace, "pod " + name, s.pods[name].Address(s.ipv6)}
}

func (s *site) node(name string) place {
	n := s.Node(name)
	return place{n.Namespace, "node " + name, n.Addresses[0]}
}

func (s *site) outside() place {
	return place{s.client.Namespace, "client", netip.MustParseAddr(pick(s.ipv6, "172.30.0.200", "fd00:30::c8"))}
}

// tries is how many connections it takes to meet each of two endpoints: all but one
// in a billion times; where connections are slow, one in a million.
var tries = func() int {
	if pace.Slow() {
		return 20
	}
	return 40
}()

// expect connects many times. The answers have to come from these pods, each of
// which sees a source that is named after the pod: own for the place's own address,
// n1 for one of that node.
func (s *site) expect(protocol string, from place, to netip.AddrPort, want map[string]string) {
	s.t.Helper()
	got := map[string]string{}
	err := from.Do(func() error {
		for range tries {
			a, err := askHere(protocol, to)
			if err != nil {
				return err
			}
			got[a.server] = s.sourceName(from, a.source)
		}
		return nil
	})
	if err != nil {
		s.t.Errorf("%s to %s, %s: %v", from.name, to, protocol, err)
		return
	}
	if !maps.Equal(got, want) {
		s.t.Errorf("%s to %s, %s: reached %v, want %v", from.name, to, protocol, got, want)
	}
}

func (s *site) sourceName(from place, source netip.Addr) string {
	if source == from.own {
		return "own"
	}
	for _, n := range s.Nodes {
		if slices.Contains(n.Addresses, source) {
			return n.Name
		}
		for _, c := range n.PodCIDRs {
			// Its address on the overlay.
			if c.Addr() == source {
				return n.Name
			}
		}
	}
	return source.String()
}

// refused connects once: it has to be refused.
func (s *site) refused(protocol string, from place, to netip.AddrPort) {
	s.t.Helper()
	if err := askRefused(from.Namespace, protocol, to); err != nil {
		s.t.Errorf("%s to %s, %s: %v", from.name, to, protocol, err)
	}
}

// dropped connects once: nothing has to come back.
func (s *site) dropped(protocol string, from place, to netip.AddrPort) {
	s.t.Helper()
	if err := askDropped(from.Namespace, protocol, to); err != nil {
		s.t.Errorf("%s to %s, %s: %v", from.name, to, protocol, err)
	}
}

func at(a netip.Addr, port uint16) netip.AddrPort { return netip.AddrPortFrom(a, port) }

func describe(mode string, ipv6 bool) string {
	return fmt.Sprintf("%s/%s", mode, pick(ipv6, "IPv4", "IPv6"))
}
