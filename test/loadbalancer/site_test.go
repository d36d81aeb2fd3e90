package loadbalancer_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	v1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/flatnet-cni/flatnet/pkg/agent"
	"github.com/flatnet-cni/flatnet/pkg/announce"
	"github.com/flatnet-cni/flatnet/test/apiserver"
	"github.com/flatnet-cni/flatnet/test/cluster"
	"github.com/flatnet-cni/flatnet/test/netlab"
	"github.com/flatnet-cni/flatnet/test/pace"
)

// site is a cluster with an API server on a segment of its own and a client on the nodes' segment.
type site struct {
	*cluster.Cluster
	t      testing.TB
	api    *apiserver.Server
	client *netlab.Node
	lan    *netlab.Segment
	file   string // with the pools
}

// pools are those of the tests.
const pools = `
defaultClass: true
pools:
- name: lan
  addresses: [172.30.0.100-172.30.0.199, "fd00:30::100-fd00:30::1ff"]
  layer2:
    interfaces: [eth0]
`

// newSite makes n nodes, which reach the API server by eth1 and everything else by eth0.
func newSite(t testing.TB, n int) *site {
	t.Helper()
	return newSiteWith(t, n, "--services")
}

// newSiteWith makes one whose agents have other flags.
func newSiteWith(t testing.TB, n int, flags ...string) *site {
	t.Helper()
	s := &site{Cluster: cluster.Start(t), t: t, api: apiserver.New()}
	lan, management := s.Lab.Segment("lan"), s.Lab.Segment("management")
	s.lan = lan
	for i := range n {
		s.AddNode(fmt.Sprintf("n%d", i+1), lan.Port(fmt.Sprintf("172.30.0.%d/24", i+1), fmt.Sprintf("fd00:30::%d/64", i+1)), management.Port(fmt.Sprintf("172.31.0.%d/24", i+1)))
	}
	s.client = s.Lab.Node("client", lan.Port("172.30.0.250/24", "fd00:30::fa/64"))
	s.api.Protobuf, s.api.Streams, s.api.Controllers = true, true, true
	machine := s.Lab.Node("control", management.Port("172.31.0.250/24"))
	const address = "172.31.0.250:6443"
	must(t, machine.Do(func() error { return s.api.Listen(address) }))
	t.Cleanup(s.api.Stop)
	kubeconfig := filepath.Join(s.Directory, "kubeconfig")
	must(t, apiserver.WriteKubeconfig(kubeconfig, address))
	s.file = filepath.Join(s.Directory, "pools.yaml")
	must(t, os.WriteFile(s.file, []byte(pools), 0o600))
	for _, n := range s.Nodes {
		s.api.Put(n.Object())
		// What goes to a ClusterIP has to have a way, though it never takes it.
		must(t, n.AddRoute("default", "172.30.0.250"))
	}
	s.Cluster.Start(append([]string{"--nodes-file=", "--fabric=direct", "--kubeconfig", kubeconfig, "--loadbalancer-config", s.file}, flags...)...)
	s.Eventually("all nodes to be able to answer", func() error { return s.members(n) })
	return s
}

// members fails where not so many nodes can answer, as all of them see it.
func (s *site) members(n int) error {
	for _, node := range s.Nodes {
		a, err := agent.AskAnnouncements(context.Background(), node.StateDir)
		if err != nil {
			return err
		}
		if len(a.Members) != n || !a.Valid || a.Leader == "" {
			return fmt.Errorf("%s: valid %t, leader %q, members %v", node.Name, a.Valid, a.Leader, a.Members)
		}
	}
	return nil
}

// serviceObject is a Service of both families at TCP port 80.
func serviceObject(name string, number int) *v1.Service {
	policy := v1.IPFamilyPolicyRequireDualStack
	return &v1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID("uid-" + name), CreationTimestamp: metav1.Unix(int64(1_700_000_000+number), 0)},
		Spec: v1.ServiceSpec{
			Type: v1.ServiceTypeLoadBalancer, Selector: map[string]string{"app": name}, ExternalTrafficPolicy: v1.ServiceExternalTrafficPolicyCluster,
			ClusterIPs: []string{fmt.Sprintf("10.96.%d.%d", number>>8, number&255), fmt.Sprintf("fd00:96::%x", number)},
			IPFamilies: []v1.IPFamily{v1.IPv4Protocol, v1.IPv6Protocol}, IPFamilyPolicy: &policy,
			Ports: []v1.ServicePort{{Protocol: v1.ProtocolTCP, Port: 80}},
		},
	}
}

// endpoints has a Service served by these pods, in both families.
func (s *site) endpoints(name string, pods ...*cluster.Pod) {
	for _, family := range []discovery.AddressType{discovery.AddressTypeIPv4, discovery.AddressTypeIPv6} {
		port, protocol, empty := int32(8080), v1.ProtocolTCP, ""
		o := &discovery.EndpointSlice{
			ObjectMeta:  metav1.ObjectMeta{Namespace: "default", Name: name + "-" + strings.ToLower(string(family)), Labels: map[string]string{discovery.LabelServiceName: name}},
			AddressType: family, Ports: []discovery.EndpointPort{{Name: &empty, Port: &port, Protocol: &protocol}},
		}
		for _, p := range pods {
			node, ready := p.Node.Name, true
			o.Endpoints = append(o.Endpoints, discovery.Endpoint{
				Addresses: []string{p.Address(family == discovery.AddressTypeIPv6).String()}, NodeName: &node,
				Conditions: discovery.EndpointConditions{Ready: &ready, Serving: &ready},
			})
		}
		s.api.Put(o)
	}
}

// pod makes a pod that answers with the name of its node.
func (s *site) pod(node string) *cluster.Pod {
	s.t.Helper()
	p := s.Node(node).Pod("on-" + node)
	for _, six := range []bool{false, true} {
		var listener net.Listener
		must(s.t, p.Namespace.Do(func() (err error) {
			listener, err = net.Listen("tcp", netip.AddrPortFrom(p.Address(six), 8080).String())
			return err
		}))
		s.t.Cleanup(func() { listener.Close() })
		go func() {
			for {
				c, err := listener.Accept()
				if err != nil {
					return
				}
				source, _ := netip.ParseAddrPort(c.RemoteAddr().String())
				fmt.Fprintf(c, "%s %s\n", node, source.Addr())
				c.Close()
			}
		}()
	}
	return p
}

// held waits until a Service has as many addresses, and returns them.
func (s *site) held(name string, count int) (all []netip.Addr) {
	s.t.Helper()
	s.Eventually(fmt.Sprintf("%d addresses of %s", count, name), func() error {
		all = nil
		o := s.service(name)
		for _, i := range o.Status.LoadBalancer.Ingress {
			all = append(all, netip.MustParseAddr(i.IP))
		}
		if len(all) != count {
			return fmt.Errorf("they are %v", all)
		}
		return nil
	})
	return all
}

func (s *site) service(name string) *v1.Service {
	s.t.Helper()
	o, is := s.api.Get(&v1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}}).(*v1.Service)
	if !is {
		s.t.Fatalf("there is no Service %s", name)
	}
	return o
}

// ask connects from the client, and returns which node's pod answered, and whom it saw.
func (s *site) ask(ip netip.Addr) (server string, source netip.Addr, err error) {
	err = s.client.Do(func() error {
		c, err := net.DialTimeout("tcp", netip.AddrPortFrom(ip, 80).String(), pace.Of(5*time.Second))
		if err != nil {
			return err
		}
		defer c.Close()
		must(s.t, c.SetDeadline(time.Now().Add(pace.Far())))
		line, err := bufio.NewReader(c).ReadString('\n')
		if err != nil {
			return err
		}
		_, err = fmt.Sscanf(line, "%s", &server)
		if err == nil {
			source, err = netip.ParseAddr(strings.Fields(line)[1])
		}
		return err
	})
	return server, source, err
}

// resolved is the node whose MAC address the client's kernel has for an address; empty
// where it has none.
func (s *site) resolved(ip netip.Addr) string {
	family := netlink.FAMILY_V4
	if ip.Is6() {
		family = netlink.FAMILY_V6
	}
	all, err := s.client.Netlink().NeighList(0, family)
	must(s.t, err)
	for _, n := range all {
		if a, _ := netip.AddrFromSlice(n.IP); a.Unmap() != ip || len(n.HardwareAddr) == 0 || n.State&(netlink.NUD_FAILED|netlink.NUD_INCOMPLETE) != 0 {
			continue
		}
		for _, node := range s.Nodes {
			l, err := node.Netlink().LinkByName("eth0")
			must(s.t, err)
			if l.Attrs().HardwareAddr.String() == n.HardwareAddr.String() {
				return node.Name
			}
		}
		return n.HardwareAddr.String()
	}
	return ""
}

// unlearn has the client forget its neighbours.
func (s *site) unlearn() {
	s.t.Helper()
	_, err := s.client.Output("ip", "neigh", "flush", "all")
	must(s.t, err)
}

// owner is the node that answers for an address, as a node sees it.
func (s *site) owner(at string, ip netip.Addr) (string, error) {
	a, err := agent.AskAnnouncements(context.Background(), s.Node(at).StateDir)
	if err != nil {
		return "", err
	}
	i := slices.IndexFunc(a.Addresses, func(one announce.Answered) bool { return one.IP == ip })
	if i < 0 {
		return "", errors.New("it is not answered for")
	}
	return a.Addresses[i].Node, nil
}

// agreed waits until all these nodes say the same of who answers, and returns it.
func (s *site) agreed(ip netip.Addr, nodes ...string) (owner string) {
	s.t.Helper()
	s.Eventually("the nodes to agree about "+ip.String(), func() error {
		owner = ""
		for _, n := range nodes {
			o, err := s.owner(n, ip)
			if err != nil {
				return err
			}
			if o == "" || owner != "" && o != owner {
				return fmt.Errorf("%s says %q, another says %q", n, o, owner)
			}
			owner = o
		}
		return nil
	})
	return owner
}
