package fabric_test

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/flatnet-cni/flatnet/test/cluster"
)

// eachMode runs a test on two nodes of one subnet, joined directly and by the
// overlay.
func eachMode(t *testing.T, test func(*testing.T, *site, string)) {
	for _, mode := range []string{"direct", "vxlan"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, topologies[0], cluster.Dual)
			s.Start("--fabric", mode)
			test(t, s, mode)
		})
	}
}

// awaitPeers waits until a node has ways to so many others.
func awaitPeers(t *testing.T, n *cluster.Node, want int) {
	t.Helper()
	await(t, fmt.Sprintf("%s to know %d others", n.Name, want), func() error {
		if peers := n.Status().Peers; len(peers) != want {
			return fmt.Errorf("it knows %d", len(peers))
		}
		return nil
	})
}

// TestNodeJoinsAndLeaves: a new node's pods are reached, those of one that left
// are not, and nothing of others' traffic is lost.
func TestNodeJoinsAndLeaves(t *testing.T) {
	eachMode(t, func(t *testing.T, s *site, mode string) {
		one, two := placePod(t, s.Node("n1"), "one"), placePod(t, s.Node("n2"), "two")
		ping, stream := one.ping(t, two, false), two.stream(t, one, true)
		before := everything(t, s.Node("n1"))

		n3 := s.segments[0].AddNode()
		s.WriteNodes()
		n3.Start("--fabric", mode)
		n3.WaitReady()
		three := placePod(t, n3, "three")
		for _, ipv6 := range s.families.Each() {
			for _, p := range []*place{one, two} {
				p.awaitReach(t, three, ipv6)
				three.reaches(t, p, ipv6)
			}
		}

		s.Remove(n3)
		s.WriteNodes()
		for _, n := range s.Nodes {
			awaitPeers(t, n, 1)
		}
		for _, ipv6 := range s.families.Each() {
			one.cannotReach(t, three, ipv6)
		}
		if after := everything(t, s.Node("n1")); after != before {
			t.Errorf("n1 is not as it was before:%s", differing(before, after))
		}
		// A list without its own node is no list for n3: it goes on as before.
		if problems := n3.Status().Problems; !strings.Contains(fmt.Sprint(problems), "node n3 is not in the source of nodes") {
			t.Errorf("n3, which is not in the list, has the problems %v", problems)
		}
		ping.end(t)
		stream.end(t)
	})
}

// readdress gives a node's eth0 another address of each family, and returns the
// function that takes the old ones away.
func readdress(t *testing.T, s *site, n *cluster.Node, host int) (drop func()) {
	t.Helper()
	link := get(n.Netlink().LinkByName("eth0"))(t)
	// As systemd sets it; otherwise the kernel takes all IPv4 addresses of the
	// subnet away with the first.
	must(t, n.SetSysctl("net/ipv4/conf/all/promote_secondaries", "1"))
	var old []string
	for i, a := range n.Addresses {
		address, bits := fmt.Sprintf("172.30.0.%d", host), 24
		if a.Is6() {
			address, bits = fmt.Sprintf("fd00:30::%d", host), 64
		}
		old = append(old, netip.PrefixFrom(a, bits).String())
		must(t, n.AddAddress("eth0", netip.PrefixFrom(netip.MustParseAddr(address), bits).String()))
		n.Addresses[i] = netip.MustParseAddr(address)
	}
	return func() {
		t.Helper()
		for _, a := range old {
			must(t, n.Netlink().AddrDel(link, get(netlink.ParseAddr(a))(t)))
		}
	}
}

// awaitVia waits until a node reaches another one by its present addresses.
func awaitVia(t *testing.T, n, peer *cluster.Node) {
	t.Helper()
	await(t, n.Name+" to use the addresses of "+peer.Name, func() error {
		for _, p := range n.Status().Peers {
			for _, w := range p.Ways {
				if p.Name == peer.Name && !slices.Contains(peer.Addresses, w.Via) {
					return fmt.Errorf("it uses %s", w.Via)
				}
				if !w.Present {
					return fmt.Errorf("the route to %s is not there", w.PodCIDR)
				}
			}
		}
		return nil
	})
}

// TestNodeChangesAddress: with the new address there before the old one is gone
// nothing is lost; otherwise what is sent until the list of nodes has the new
// one, and nothing after that.
func TestNodeChangesAddress(t *testing.T) {
	eachMode(t, func(t *testing.T, s *site, mode string) {
		n1, n2 := s.Node("n1"), s.Node("n2")
		one, two := placePod(t, n1, "one"), placePod(t, n2, "two")
		there, back, stream := one.ping(t, two, false), two.ping(t, one, true), one.stream(t, two, false)
		drop := readdress(t, s, n2, 22)
		there.rerouted(1)
		back.rerouted(1)
		s.WriteNodes()
		awaitVia(t, n1, n2)
		await(t, "n2 to send from its new address", func() error {
			if now := n2.Status().Addresses; !slices.Equal(now, n2.Addresses) {
				return fmt.Errorf("it has %s", now)
			}
			return nil
		})
		// Both know, so nobody uses the old ones.
		drop()
		for _, ipv6 := range s.families.Each() {
			one.awaitReach(t, two, ipv6)
			two.awaitReach(t, one, ipv6)
		}
		there.end(t)
		back.end(t)

		there, back = one.ping(t, two, false), two.ping(t, one, true)
		begin := time.Now()
		drop = readdress(t, s, n2, 23)
		drop()
		s.WriteNodes()
		for _, ipv6 := range s.families.Each() {
			one.awaitReach(t, two, ipv6)
			two.awaitReach(t, one, ipv6)
		}
		t.Logf("at once, the change took %s", time.Since(begin).Round(time.Millisecond))
		there.restored()
		back.restored()
		for _, ipv6 := range s.families.Each() {
			one.reaches(t, two, ipv6)
			two.reaches(t, one, ipv6)
		}
		there.end(t)
		back.end(t)
		stream.end(t)
		for _, n := range s.Nodes {
			if problems := n.Status().Problems; len(problems) > 0 {
				t.Errorf("%s has problems: %v", n.Name, problems)
			}
		}
	})
}

// TestNodeChangesPodCIDR: pods get addresses of the new podCIDR and are reached
// there; those with addresses of the old one are reached for as long as the node
// has it.
func TestNodeChangesPodCIDR(t *testing.T) {
	eachMode(t, func(t *testing.T, s *site, mode string) {
		n1, n2 := s.Node("n1"), s.Node("n2")
		one, two := placePod(t, n1, "one"), placePod(t, n2, "two")
		ping, stream := one.ping(t, two, false), two.stream(t, one, true)
		first := n2.PodCIDRs
		second := []netip.Prefix{netip.MustParsePrefix("10.245.2.0/24"), netip.MustParsePrefix("fd00:245:2::/64")}
		n2.PodCIDRs = slices.Concat(first, second)
		s.WriteNodes()
		awaitRanges(t, n2, n2.PodCIDRs...)
		for _, ipv6 := range s.families.Each() {
			one.reaches(t, two, ipv6)
			two.reaches(t, one, ipv6)
		}
		ping.end(t)
		stream.end(t)

		n2.PodCIDRs = second
		s.WriteNodes()
		awaitRanges(t, n2, second...)
		three := placePod(t, n2, "three")
		for _, ipv6 := range s.families.Each() {
			if !second[family(ipv6)].Contains(three.address(ipv6)) {
				t.Errorf("the new pod has %s", three.address(ipv6))
			}
			one.awaitReach(t, three, ipv6)
			three.awaitReach(t, one, ipv6)
			placeNode(t, n1).reachesRemote(t, mode, three, ipv6)
			one.cannotReach(t, two, ipv6)
		}
	})
}

// awaitRanges waits until the plugin's configuration has these podCIDRs and no
// others.
func awaitRanges(t *testing.T, n *cluster.Node, podCIDRs ...netip.Prefix) {
	t.Helper()
	await(t, "the configuration on "+n.Name+" to have other ranges", func() error {
		text := get(n.Output("cat", n.Conflist()))(t)
		for _, c := range podCIDRs {
			if !strings.Contains(text, fmt.Sprintf("%q", c)) {
				return fmt.Errorf("%s is not in %s", c, text)
			}
		}
		if count := strings.Count(text, `"subnet"`); count != len(podCIDRs) {
			return fmt.Errorf("%d ranges in %s", count, text)
		}
		return nil
	})
}

// reachesRemote asks a pod of another node, from a node.
func (p *place) reachesRemote(t *testing.T, mode string, to *place, ipv6 bool) {
	t.Helper()
	source := p.address(ipv6)
	if mode == "vxlan" {
		source = vtep(p.node, ipv6)
	}
	p.expect(t, to, ipv6, source)
}

// TestOwnPodCIDRChanges: a node gets other podCIDRs while its pods run. They go on
// with those of the node, untranslated, and status says who they are.
func TestOwnPodCIDRChanges(t *testing.T) {
	t.Parallel()
	s := newSite(t, topologies[0], cluster.Dual)
	s.Start("--fabric", "direct")
	n := s.Node("n1")
	old, neighbour := placePod(t, n, "old"), placePod(t, n, "neighbour")
	n.PodCIDRs = []netip.Prefix{netip.MustParsePrefix("10.245.1.0/24"), netip.MustParsePrefix("fd00:245:1::/64")}
	s.WriteNodes()
	await(t, "the problem", func() error {
		status, err := n.TryStatus()
		if err != nil {
			return err
		}
		for _, p := range status.Problems {
			if strings.Contains(p.Object, "outside of the podCIDRs 10.245.1.0/24, fd00:245:1::/64") {
				for _, pod := range []*place{old, neighbour} {
					for _, ipv6 := range s.families.Each() {
						if !strings.Contains(p.Reason, pod.address(ipv6).String()) {
							return fmt.Errorf("%s is not named: %s", pod.address(ipv6), p.Reason)
						}
					}
				}
				return nil
			}
		}
		return fmt.Errorf("problems are %v", status.Problems)
	})
	if u := n.Status().Pods[0]; u.Used != 0 || u.Outside != 2 {
		t.Errorf("status has %+v", u)
	}
	if m := n.Metrics(); m[`flatnet_addresses{family="IPv6",state="outside"}`] != 2 {
		t.Errorf("metrics have %v outside", m[`flatnet_addresses{family="IPv6",state="outside"}`])
	}
	await(t, "the configuration", func() error {
		raw, err := os.ReadFile(n.Conflist())
		if err == nil && !strings.Contains(string(raw), "10.245.1.0/24") {
			err = fmt.Errorf("it is %s", raw)
		}
		return err
	})
	fresh := placePod(t, n, "fresh")
	for _, ipv6 := range s.families.Each() {
		for _, pair := range [][2]*place{{fresh, old}, {old, fresh}, {old, neighbour}} {
			pair[0].reaches(t, pair[1], ipv6)
		}
	}
	old.pod.Delete()
	neighbour.pod.Delete()
	await(t, "the problem's end", func() error {
		if problems := n.Status().Problems; len(problems) > 0 {
			return fmt.Errorf("problems are %v", problems)
		}
		return nil
	})
}

// TestModeSwitch: another mode is another flag and a restart, node by node. By
// way of auto, which has both ends of the overlay ready, nothing is lost; otherwise
// nothing after the last node is ready.
func TestModeSwitch(t *testing.T) {
	t.Parallel()
	s := newSite(t, topologies[0], cluster.Dual)
	s.Start("--fabric", "direct")
	one, two := placePod(t, s.Node("n1"), "one"), placePod(t, s.Node("n2"), "two")
	streams := []*streaming{one.stream(t, two, false), two.stream(t, one, true)}
	begin := func() []*pinging { return []*pinging{one.ping(t, two, false), two.ping(t, one, true)} }
	for _, mode := range []string{"auto", "vxlan", "auto", "direct"} {
		pings := begin()
		for _, n := range s.Nodes {
			n.Restart("--fabric", mode)
			for _, p := range pings {
				p.rerouted(1)
			}
		}
		t.Logf("to %s, node by node:", mode)
		for _, p := range pings {
			p.end(t)
		}
		s.checkMode(t, mode, one, two)
	}
	for _, mode := range []string{"vxlan", "direct"} {
		pings := begin()
		for _, n := range s.Nodes {
			n.Restart("--fabric", mode)
		}
		t.Logf("to %s at once, while the other node has no end of the overlay:", mode)
		for _, p := range pings {
			p.restored()
		}
		s.checkMode(t, mode, one, two)
		for _, p := range pings {
			p.end(t)
		}
	}
	for _, stream := range streams {
		stream.end(t)
	}
}

// checkMode looks at what crosses the underlay after a switch, on one subnet.
func (s *site) checkMode(t *testing.T, mode string, one, two *place) {
	t.Helper()
	captured := s.capture(t)
	for _, ipv6 := range s.families.Each() {
		one.reaches(t, two, ipv6)
		two.reaches(t, one, ipv6)
	}
	s.checkCapture(t, mode, captured(), []*place{one, two})
}
