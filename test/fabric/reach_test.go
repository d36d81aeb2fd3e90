package fabric_test

import (
	"errors"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/test/cluster"
	"github.com/flatnet-cni/flatnet/test/netlab"
)

const (
	vxlanPort = 4789
	vni       = 70
	linkMTU   = 1500
)

// topology is a shape of the underlay.
type topology struct {
	name        string
	left, right int // nodes on each of the two subnets; right 0 is one subnet
}

var topologies = []topology{{"two nodes", 2, 0}, {"three nodes", 3, 0}, {"two subnets", 2, 1}}

// site is a cluster with its underlay.
type site struct {
	*cluster.Cluster
	topology topology
	families cluster.Families
	segments []*cluster.Subnet
	router   *netlab.Node
}

func newSite(t *testing.T, top topology, f cluster.Families) *site {
	t.Helper()
	s := &site{Cluster: cluster.Start(t), topology: top, families: f}
	if top.right == 0 {
		s.segments = []*cluster.Subnet{s.OneSegment(f, top.left)}
		return s
	}
	a, b, router := s.TwoSegments(f, top.left, top.right)
	s.segments, s.router = []*cluster.Subnet{a, b}, router
	return s
}

// refusePods makes the router one of a network that knows its machines: it drops
// what comes from or goes to other addresses.
func (s *site) refusePods(t *testing.T) {
	t.Helper()
	get(s.router.Output("nft", `add table inet underlay; add chain inet underlay forward { type filter hook forward priority 0; };
		add rule inet underlay forward ip saddr 10.244.0.0/16 counter drop; add rule inet underlay forward ip daddr 10.244.0.0/16 counter drop;
		add rule inet underlay forward ip6 saddr fd00:244::/32 counter drop; add rule inet underlay forward ip6 daddr fd00:244::/32 counter drop`))(t)
}

// learnPods gives the router the routes to pods.
func (s *site) learnPods(t *testing.T) {
	t.Helper()
	for _, n := range s.Nodes {
		for _, c := range n.PodCIDRs {
			for _, a := range n.Addresses {
				if a.Is6() == c.Addr().Is6() {
					must(t, s.router.AddRoute(c.String(), a.String()))
				}
			}
		}
	}
}

// onLink reports whether two nodes are on one subnet.
func (s *site) onLink(a, b *cluster.Node) bool {
	return (a.Number <= s.topology.left) == (b.Number <= s.topology.left)
}

// overlaid reports whether a mode joins two nodes by the overlay.
func (s *site) overlaid(mode string, a, b *cluster.Node) bool {
	return a != b && (mode == "vxlan" || mode == "auto" && !s.onLink(a, b))
}

// vtep is the address that a node has on the overlay.
func vtep(n *cluster.Node, ipv6 bool) netip.Addr {
	for _, c := range n.PodCIDRs {
		if c.Addr().Is6() == ipv6 {
			return c.Addr()
		}
	}
	return netip.Addr{}
}

// TestReach: every pod reaches every pod, nodes reach remote pods and pods
// remote nodes. The receiver sees the sender's own address. What crosses the
// underlay is plain IP in direct, and VXLAN in vxlan.
func TestReach(t *testing.T) {
	for _, top := range topologies {
		for _, mode := range []string{"direct", "vxlan", "auto"} {
			for _, f := range []cluster.Families{cluster.IPv4, cluster.IPv6, cluster.Dual} {
				t.Run(top.name+"/"+mode+"/"+f.String(), func(t *testing.T) {
					t.Parallel()
					testReach(t, newSite(t, top, f), mode)
				})
			}
		}
	}
}

func testReach(t *testing.T, s *site, mode string) {
	if s.router != nil && mode == "direct" {
		s.learnPods(t)
	} else if s.router != nil {
		s.refusePods(t)
	}
	s.Start("--fabric", mode)
	var pods, nodes []*place
	for _, n := range s.Nodes {
		pods = append(pods, placePod(t, n, "x"))
		nodes = append(nodes, placeNode(t, n))
	}
	// Another one, so that pods have a neighbour on their node.
	pods = append(pods, placePod(t, s.Nodes[0], "y"))
	captured := s.capture(t)
	for _, ipv6 := range s.families.Each() {
		for _, from := range pods {
			for _, to := range slices.Concat(pods, nodes) {
				from.reaches(t, to, ipv6)
			}
		}
		for _, from := range nodes {
			for _, to := range nodes {
				from.reaches(t, to, ipv6)
			}
			for _, to := range pods {
				source := from.address(ipv6)
				if s.overlaid(mode, from.node, to.node) {
					source = vtep(from.node, ipv6)
				}
				from.expect(t, to, ipv6, source)
			}
		}
	}
	s.checkCapture(t, mode, captured(), pods)
	last := pods[len(s.Nodes)-1]
	for _, ipv6 := range s.families.Each() {
		s.fullSize(t, mode, pods[0], last, ipv6)
		s.fullSize(t, mode, last, pods[0], ipv6)
	}
	for _, n := range s.Nodes {
		if status := n.Status(); len(status.Problems) > 0 {
			t.Errorf("%s has problems: %v", n.Name, status.Problems)
		}
		for _, peer := range n.Status().Peers {
			want := "direct"
			if s.overlaid(mode, n, s.Node(peer.Name)) {
				want = "vxlan"
			}
			if peer.Mode != want {
				t.Errorf("%s says that it reaches %s by %q, want %s", n.Name, peer.Name, peer.Mode, want)
			}
		}
		if n.Repairs("") != 0 {
			t.Errorf("%s has repaired something: %v", n.Name, n.Metrics())
		}
	}
}

// capture records all segments, and returns what to call for the packets.
func (s *site) capture(t *testing.T) func() []netlab.Packet {
	t.Helper()
	var stops []func() ([]netlab.Packet, error)
	for _, segment := range s.segments {
		stops = append(stops, get(segment.Capture(vxlanPort))(t))
	}
	return func() []netlab.Packet {
		t.Helper()
		var all []netlab.Packet
		for _, stop := range stops {
			all = append(all, get(stop())(t)...)
		}
		return all
	}
}

// checkCapture looks at how packets of pods crossed the underlay.
func (s *site) checkCapture(t *testing.T, mode string, packets []netlab.Packet, pods []*place) {
	t.Helper()
	owner := map[netip.Addr]*cluster.Node{}
	isPod := map[netip.Addr]bool{}
	for _, p := range pods {
		for _, a := range p.pod.Addresses {
			owner[a], isPod[a] = p.node, true
		}
	}
	for _, n := range s.Nodes {
		for _, a := range n.Addresses {
			owner[a] = n
		}
	}
	type pair struct{ from, to netip.Addr }
	plain, overlaid := map[pair]int{}, map[pair]int{}
	for _, p := range packets {
		if p.Inner == nil {
			plain[pair{p.Source, p.Destination}]++
			continue
		}
		if p.VNI != vni {
			t.Errorf("the VXLAN network is not %d: %s", vni, p)
		}
		overlaid[pair{p.Inner.Source, p.Inner.Destination}]++
	}
	expected := 0
	for from := range owner {
		for to := range owner {
			// What goes from node to node is no concern of the fabric.
			if owner[from] == owner[to] || from.Is6() != to.Is6() || !isPod[from] && !isPod[to] {
				continue
			}
			p := pair{from, to}
			switch s.overlaid(mode, owner[from], owner[to]) {
			case true:
				if plain[p] > 0 {
					t.Errorf("%d packets from %s to %s crossed the underlay without VXLAN", plain[p], from, to)
				}
				if overlaid[p] > 0 {
					expected++
				}
			case false:
				if overlaid[p] > 0 {
					t.Errorf("%d packets from %s to %s crossed the underlay in VXLAN", overlaid[p], from, to)
				}
				if plain[p] > 0 {
					expected++
				}
			}
			if isPod[from] && isPod[to] && plain[p]+overlaid[p] == 0 {
				t.Errorf("no packet from %s to %s was seen on the underlay", from, to)
			}
		}
	}
	if expected == 0 {
		t.Error("no packet of a pod was seen on the underlay")
	}
}

// fullSize sends as much as fits: many full TCP segments, and the largest
// datagram that is not fragmented.
func (s *site) fullSize(t *testing.T, mode string, from, to *place, ipv6 bool) {
	t.Helper()
	const size = 10 << 20
	seen, err := netlab.Transfer(from.Namespace, to.Namespace, to.address(ipv6), size, 2*timeout)
	if err != nil || seen != from.address(ipv6) {
		t.Errorf("%s to %s, %s: the receiver saw %s: %v", from, to, familyName(ipv6), seen, err)
	}
	// Of the overlay, the outer packet is of the family listed first.
	want := linkMTU
	if mode == "vxlan" || s.overlaid(mode, from.node, to.node) {
		want -= 50
		if from.node.Addresses[0].Is6() {
			want -= 20
		}
	}
	if from.pod.MTU != want {
		t.Errorf("the MTU of %s is %d, want %d", from, from.pod.MTU, want)
	}
	echo := to.echos[family(ipv6)]
	captured := s.capture(t)
	if err := from.datagram(echo, want, timeout); err != nil {
		t.Errorf("%s to %s: a datagram of %d bytes, %s: %v", from, to, want, familyName(ipv6), err)
	}
	full := 0
	for _, p := range captured() {
		if p.Fragment || p.Size > linkMTU {
			t.Errorf("a datagram of %d bytes crossed the underlay as %s", want, p)
		}
		if p.Size == linkMTU {
			full++
		}
	}
	if crossings := len(s.segments); full != crossings {
		t.Errorf("a datagram of %d bytes filled %d packets on the underlay, want %d", want, full, crossings)
	}
	if err := from.datagram(echo, want+1, unanswered); !errors.Is(err, unix.EMSGSIZE) {
		t.Errorf("%s to %s: a datagram of %d bytes, %s: %v, want %v", from, to, want+1, familyName(ipv6), err, unix.EMSGSIZE)
	}
}
