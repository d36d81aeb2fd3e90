package fabric

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/flatnet-cni/flatnet/pkg/kernel"
	"github.com/flatnet-cni/flatnet/pkg/node"
)

// underlayOf describes a node with eth0 in the given networks, and a default
// route for each gateway.
func underlayOf(addresses []string, more ...kernel.UnderlayRoute) kernel.Underlay {
	eth0 := kernel.UnderlayLink{Name: "eth0", MTU: 1500, Up: true}
	var routes []kernel.UnderlayRoute
	for _, text := range addresses {
		p := netip.MustParsePrefix(text)
		eth0.Addresses = append(eth0.Addresses, p)
		routes = append(routes, kernel.UnderlayRoute{Destination: p.Masked(), Link: "eth0"})
	}
	return kernel.Underlay{Links: []kernel.UnderlayLink{eth0}, Routes: append(routes, more...)}
}

func via(destination, gateway string) kernel.UnderlayRoute {
	return kernel.UnderlayRoute{Destination: netip.MustParsePrefix(destination), Link: "eth0", Gateway: netip.MustParseAddr(gateway)}
}

func plainNode(name string, parts ...string) node.Node {
	n := node.Node{Name: name}
	for _, text := range parts {
		if strings.Contains(text, "/") {
			n.PodCIDRs = append(n.PodCIDRs, netip.MustParsePrefix(text))
		} else {
			n.Addresses = append(n.Addresses, netip.MustParseAddr(text))
		}
	}
	return n
}

func TestPlans(t *testing.T) {
	const ownTunnel = "ip link add flatnet.vx address 3a:e1:fc:fc:cf:f8 mtu 1450 type vxlan id 70 local 172.30.0.1 dstport 4789 nolearning noudpcsum; ip link set flatnet.vx up addrgenmode none\n"
	n1 := plainNode("n1", "172.30.0.1", "10.244.1.0/24")
	dual1 := plainNode("n1", "172.30.0.1", "fd00:30::1", "10.244.1.0/24", "fd00:244:1::/64")
	lan := underlayOf([]string{"172.30.0.1/24"}, via("0.0.0.0/0", "172.30.0.254"))
	dualLAN := underlayOf([]string{"172.30.0.1/24", "fd00:30::1/64"}, via("0.0.0.0/0", "172.30.0.254"), via("::/0", "fd00:30::fe"))
	const last = " proto 70 metric 1073741824\n"
	for _, c := range []struct {
		name     string
		mode     Mode
		self     node.Node
		peer     node.Node
		underlay kernel.Underlay
		want     string
		mtu      int
	}{
		{"direct, on link", Direct, n1, plainNode("n2", "172.30.0.2", "10.244.2.0/24"), lan,
			"ip route add unreachable 10.244.1.0/24" + last +
				"# n2\nip route add 10.244.2.0/24 via 172.30.0.2 dev eth0 proto 70 src 172.30.0.1\n", 1500},
		{"direct, behind a router that has to know", Direct, n1, plainNode("n2", "172.31.0.2", "10.244.2.0/24"), lan,
			"ip route add unreachable 10.244.1.0/24" + last +
				"# n2\nip route add 10.244.2.0/24 via 172.30.0.254 dev eth0 proto 70 src 172.30.0.1\n", 1500},
		{"vxlan", VXLAN, n1, plainNode("n2", "172.30.0.2", "10.244.2.0/24"), lan,
			ownTunnel + "ip addr add 10.244.1.0/32 dev flatnet.vx\n" +
				"ip rule add from 10.244.1.0/24 lookup 70 priority 7070 protocol 70\n" +
				"ip route add unreachable 10.244.1.0/24" + last +
				"# n2\nip neigh add 10.244.2.0 lladdr 2e:f4:38:4d:ef:ac dev flatnet.vx nud permanent proto 70\n" +
				"bridge fdb add 2e:f4:38:4d:ef:ac dev flatnet.vx dst 172.30.0.2 self permanent\n" +
				"ip route add 172.30.0.2/32 via 10.244.2.0 dev flatnet.vx table 70 proto 70 onlink\n" +
				"ip route add 10.244.2.0/24 via 10.244.2.0 dev flatnet.vx proto 70 onlink\n", 1450},
		{"auto, on link: the tunnel waits, and takes nothing of the MTU", Auto, n1, plainNode("n2", "172.30.0.2", "10.244.2.0/24"), lan,
			ownTunnel + "ip addr add 10.244.1.0/32 dev flatnet.vx\n" +
				"ip route add unreachable 10.244.1.0/24" + last +
				"# n2\nip route add 10.244.2.0/24 via 172.30.0.2 dev eth0 proto 70 src 172.30.0.1\n", 1500},
		{"auto, one family on link and the other not", Auto, dual1, plainNode("n2", "172.30.0.2", "fd00:39::2", "10.244.2.0/24", "fd00:244:2::/64"), dualLAN,
			ownTunnel + "ip addr add 10.244.1.0/32 dev flatnet.vx\nip addr add fd00:244:1::/128 dev flatnet.vx nodad noprefixroute preferred_lft 0\n" +
				"ip route add unreachable 10.244.1.0/24" + last +
				"ip rule add from fd00:244:1::/64 lookup 70 priority 7070 protocol 70\n" +
				"ip route add unreachable fd00:244:1::/64" + last +
				"# n2\nip neigh add fe80::2cf4:38ff:fe4d:efac lladdr 2e:f4:38:4d:ef:ac dev flatnet.vx nud permanent proto 70\n" +
				"bridge fdb add 2e:f4:38:4d:ef:ac dev flatnet.vx dst 172.30.0.2 self permanent\n" +
				"ip route add fd00:39::2/128 via fe80::2cf4:38ff:fe4d:efac dev flatnet.vx table 70 proto 70\n" +
				"ip route add 10.244.2.0/24 via 172.30.0.2 dev eth0 proto 70 src 172.30.0.1\n" +
				"ip route add fd00:244:2::/64 via fe80::2cf4:38ff:fe4d:efac dev flatnet.vx proto 70 src fd00:244:1::\n", 1450},
		{"vxlan over IPv6: 70 bytes, with checksums", VXLAN, plainNode("n1", "fd00:30::1", "10.244.1.0/24"), plainNode("n2", "fd00:30::2", "10.244.2.0/24"), underlayOf([]string{"fd00:30::1/64"}),
			"ip link add flatnet.vx address 3a:e1:fc:fc:cf:f8 mtu 1430 type vxlan id 70 local fd00:30::1 dstport 4789 nolearning udpcsum; ip link set flatnet.vx up addrgenmode none\n" +
				"ip addr add 10.244.1.0/32 dev flatnet.vx\n" +
				"ip rule add from 10.244.1.0/24 lookup 70 priority 7070 protocol 70\n" +
				"ip route add unreachable 10.244.1.0/24" + last +
				"# n2\nip neigh add 10.244.2.0 lladdr 2e:f4:38:4d:ef:ac dev flatnet.vx nud permanent proto 70\n" +
				"bridge fdb add 2e:f4:38:4d:ef:ac dev flatnet.vx dst fd00:30::2 self permanent\n" +
				"ip route add 10.244.2.0/24 via 10.244.2.0 dev flatnet.vx proto 70 onlink\n", 1430},
		{"several podCIDRs and addresses of a family", Direct, n1, plainNode("n2", "172.31.0.2", "172.30.0.2", "10.244.2.0/24", "10.245.2.0/24"), lan,
			"ip route add unreachable 10.244.1.0/24" + last +
				"# n2\nip route add 10.244.2.0/24 via 172.30.0.2 dev eth0 proto 70 src 172.30.0.1\n" +
				"ip route add 10.245.2.0/24 via 172.30.0.2 dev eth0 proto 70 src 172.30.0.1\n", 1500},
		{"none", None, n1, plainNode("n2", "172.30.0.2", "10.244.2.0/24"), lan, "# n2\n", 1500},
		{"no podCIDR yet", Direct, plainNode("n1", "172.30.0.1"), plainNode("n2", "172.30.0.2"), lan, "# n2\n", 1500},
		{"a peer without an address", Direct, n1, plainNode("n2", "10.244.2.0/24"), lan,
			"ip route add unreachable 10.244.1.0/24" + last +
				"# n2\n# problem: node n2: podCIDR 10.244.2.0/24: the node has no address to reach it by\n", 1500},
		{"direct needs an address of the family", Direct, n1, plainNode("n2", "172.30.0.2", "fd00:244:2::/64"), lan,
			"ip route add unreachable 10.244.1.0/24" + last +
				"# n2\n# problem: node n2: podCIDR fd00:244:2::/64: the node has no address of this family, and fabric direct needs one\n", 1500},
		{"direct needs a route to the node", Direct, n1, plainNode("n2", "172.31.0.2", "10.244.2.0/24"), underlayOf([]string{"172.30.0.1/24"}),
			"ip route add unreachable 10.244.1.0/24" + last +
				"# n2\n# problem: node n2: podCIDR 10.244.2.0/24: node n1 has no route to the node's address 172.31.0.2\n", 1500},
		{"a podCIDR that the underlay is part of", Direct, n1, plainNode("n2", "172.30.0.2", "10.9.0.0/24"), underlayOf([]string{"172.30.0.1/24", "10.9.0.7/16"}),
			"ip route add unreachable 10.244.1.0/24" + last +
				"# n2\n# problem: node n2: podCIDR 10.9.0.0/24: overlaps with the route 10.9.0.0/16 dev eth0 of node n1, which is not flatnet's\n", 1500},
		{"a podCIDR of which a part goes elsewhere", Direct, n1, plainNode("n2", "172.30.0.2", "10.244.2.0/24"), underlayOf([]string{"172.30.0.1/24"}, via("10.244.2.128/25", "172.30.0.9")),
			"ip route add unreachable 10.244.1.0/24" + last +
				"# n2\n# problem: node n2: podCIDR 10.244.2.0/24: overlaps with the route 10.244.2.128/25 via 172.30.0.9 dev eth0 of node n1, which is not flatnet's\n", 1500},
		{"a wider network behind a router is no conflict", Direct, n1, plainNode("n2", "172.30.0.2", "10.244.2.0/24"), underlayOf([]string{"172.30.0.1/24"}, via("10.0.0.0/8", "172.30.0.9")),
			"ip route add unreachable 10.244.1.0/24" + last +
				"# n2\nip route add 10.244.2.0/24 via 172.30.0.2 dev eth0 proto 70 src 172.30.0.1\n", 1500},
		{"the overlay needs an address of the node", VXLAN, plainNode("n1", "172.30.0.99", "10.244.1.0/24"), plainNode("n2", "172.30.0.2", "10.244.2.0/24"), lan,
			"ip route add unreachable 10.244.1.0/24" + last +
				"# n2\n# problem: node n2: podCIDR 10.244.2.0/24: can be reached through the overlay only, which node n1 does not have\n" +
				"# problem: node n1: addresses [172.30.0.99]: no interface of this node has one of them: the overlay cannot be made\n", 1500},
		{"the overlay's family", VXLAN, n1, plainNode("n2", "fd00:30::2", "10.244.2.0/24"), lan,
			ownTunnel + "ip addr add 10.244.1.0/32 dev flatnet.vx\nip route add unreachable 10.244.1.0/24" + last +
				"# n2\n# problem: node n2: podCIDR 10.244.2.0/24: of the node's addresses [fd00:30::2] none is of the overlay's family: node n1 uses 172.30.0.1\n", 1450},
	} {
		t.Run(c.name, func(t *testing.T) {
			plan := (&Planner{Config: config(c.mode)}).Plan(c.self, []node.Node{c.self, c.peer}, c.underlay)
			if got := plan.String(); got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
			if plan.PodMTU != c.mtu {
				t.Errorf("MTU of pods is %d instead of %d", plan.PodMTU, c.mtu)
			}
			if wrapped := strings.Contains(c.want, "bridge fdb"); wrapped != plan.Outer.IsValid() {
				t.Errorf("this node's end of the overlay is %s; a peer is reached through it: %t", plan.Outer, wrapped)
			}
		})
	}
}

func TestAConflictWithTheOwnPodCIDRKeepsItFromBeingUsed(t *testing.T) {
	self := plainNode("n1", "172.30.0.1", "10.244.1.0/24", "10.245.1.0/24")
	docker := kernel.UnderlayRoute{Destination: netip.MustParsePrefix("10.244.0.0/16"), Link: "docker0"}
	pod := kernel.UnderlayRoute{Destination: netip.MustParsePrefix("10.245.1.7/32"), Link: "veth12345678"} // another plugin's
	plan := (&Planner{Config: config(Direct)}).Plan(self, nil, underlayOf([]string{"172.30.0.1/24"}, docker, pod))
	if len(plan.OwnPodCIDRs) != 1 || plan.OwnPodCIDRs[0] != self.PodCIDRs[1] {
		t.Errorf("usable are %v", plan.OwnPodCIDRs)
	}
	if len(plan.Problems) != 1 || !strings.Contains(plan.Problems[0].String(), "10.244.0.0/16 dev docker0") {
		t.Errorf("problems: %v", plan.Problems)
	}
}

func TestPodMTU(t *testing.T) {
	self, peer := plainNode("n1", "172.30.0.1", "10.244.1.0/24"), plainNode("n2", "172.31.0.2", "10.244.2.0/24")
	underlay := underlayOf([]string{"172.30.0.1/24"}, via("0.0.0.0/0", "172.30.0.254"))
	underlay.Links[0].MTU = 9000
	for _, c := range []struct {
		mode      Mode
		mtu, want int
	}{{Direct, 0, 9000}, {VXLAN, 0, 8950}, {Auto, 0, 8950}, {None, 0, 9000}, {VXLAN, 1400, 1400}, {Direct, 1400, 1400}} {
		conf := config(c.mode)
		conf.MTU = c.mtu
		if got := (&Planner{Config: conf}).Plan(self, []node.Node{self, peer}, underlay).PodMTU; got != c.want {
			t.Errorf("%s with --mtu %d: %d instead of %d", c.mode, c.mtu, got, c.want)
		}
	}
}

func TestNodesOutsideOfTheOverlay(t *testing.T) {
	self, peer := plainNode("n1", "172.30.0.1", "10.244.1.0/24"), plainNode("n2", "172.31.0.2", "10.244.2.0/24")
	conf := config(VXLAN)
	conf.Nodes = false
	plan := (&Planner{Config: conf}).Plan(self, []node.Node{self, peer}, underlayOf([]string{"172.30.0.1/24"})).String()
	if strings.Contains(plan, "ip rule") || strings.Contains(plan, "table 70") || !strings.Contains(plan, "ip route add 10.244.2.0/24 via 10.244.2.0 dev flatnet.vx") {
		t.Errorf("got\n%s", plan)
	}
}

// A node answers probes at the gateways of its podCIDRs, where there is one, and not for
// a podCIDR that it cannot use.
func TestNodesAnswer(t *testing.T) {
	c := config(Direct)
	c.Answer = true
	self := plainNode("n1", "172.30.0.1", "10.244.1.0/24", "10.250.0.0/24", "10.245.0.4/31", "fd00:244:1::/64")
	taken := kernel.UnderlayRoute{Destination: netip.MustParsePrefix("10.250.0.0/16"), Link: "docker0"}
	plan := (&Planner{Config: c}).Plan(self, nil, underlayOf([]string{"172.30.0.1/24"}, taken))
	var got []string
	for _, e := range plan.Shared {
		if _, is := e.Object.(kernel.Answered); is {
			got = append(got, e.Object.String())
		}
	}
	want := []string{
		"ip route add local 10.244.1.1 dev lo proto 70 metric 1073741824 table local",
		"ip route add local fd00:244:1::1 dev lo proto 70 metric 1073741824 table local",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestMACsAreUnicastLocalAndOfTheirNode(t *testing.T) {
	seen := map[kernel.MAC]string{}
	for i := range 5000 {
		name := "node-" + strings.Repeat("x", i%7) + netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}).String()
		mac := MAC(name)
		if mac[0]&1 != 0 || mac[0]&2 == 0 || mac != MAC(name) {
			t.Fatalf("%s has %v", name, mac)
		}
		if other, taken := seen[mac]; taken {
			t.Fatalf("%s and %s have %v", name, other, mac)
		}
		seen[mac] = name
	}
}

// Without VXLAN what is on link is joined all the same, and the rest is said.
func TestPlanWithoutOverlay(t *testing.T) {
	p := Planner{Config: Config{Mode: Auto, Tunnel: "flatnet.vx", VNI: 70, Port: 4789, Nodes: true, WithoutOverlay: "kernel 6.1: VXLAN (vxlan) is missing"}}
	self := plainNode("n1", "172.30.0.1", "10.244.1.0/24")
	peers := []node.Node{plainNode("n2", "172.30.0.2", "10.244.2.0/24"), plainNode("n3", "172.31.0.3", "10.244.3.0/24")}
	plan := p.Plan(self, peers, underlayOf([]string{"172.30.0.1/24"}, via("0.0.0.0/0", "172.30.0.254")))
	const want = `ip route add unreachable 10.244.1.0/24 proto 70 metric 1073741824
# n2
ip route add 10.244.2.0/24 via 172.30.0.2 dev eth0 proto 70 src 172.30.0.1
# n3
# problem: node n3: podCIDR 10.244.3.0/24: can be reached through the overlay only, which node n1 does not have
`
	if got := plan.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if plan.PodMTU != 1500 || plan.Tunnel != "" {
		t.Errorf("MTU %d, tunnel %q", plan.PodMTU, plan.Tunnel)
	}
}

// What is not about joining has nothing planned anew, of the node itself and of others.
func TestLabelsAndTaintsArePlannedNothingFor(t *testing.T) {
	self, peer := plainNode("n1", "172.30.0.1", "10.244.1.0/24"), plainNode("n2", "172.30.0.2", "10.244.2.0/24")
	p := &Planner{Config: Config{Mode: Direct}}
	under := underlayOf([]string{"172.30.0.1/24"})
	before := p.Plan(self, []node.Node{self, peer}, under).Peers[0]
	self.Labels, self.Leaving, self.Unfit, peer.Away = map[string]string{"rack": "a"}, "it is deleted", "it is cordoned", "its Node is not ready"
	if p.Plan(self, []node.Node{self, peer}, under).Peers[0] != before {
		t.Error("the peer was joined anew")
	}
	if p.Plan(self, []node.Node{self, plainNode("n2", "172.30.0.3", "10.244.2.0/24")}, under).Peers[0] == before {
		t.Error("the peer with another address was not joined anew")
	}
}
