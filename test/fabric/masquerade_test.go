package fabric_test

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/flatnet-cni/flatnet/test/cluster"
)

// placeOutside makes a machine on the underlay that is no node: it knows the way
// to pods' addresses, so that it could answer if it saw one.
func placeOutside(t *testing.T, s *site) *place {
	t.Helper()
	world := s.Lab.Node("world", s.segments[0].Port("172.30.0.200/24", "fd00:30::200/64"))
	for _, n := range s.Nodes {
		for i, c := range n.PodCIDRs {
			must(t, world.AddRoute(c.String(), n.Addresses[i].String()))
		}
	}
	outside := &cluster.Node{Node: world, Name: "world", Addresses: []netip.Addr{netip.MustParseAddr("172.30.0.200"), netip.MustParseAddr("fd00:30::200")}}
	p := &place{Namespace: world.Namespace, name: "world", node: outside}
	p.echo(t)
	return p
}

// TestMasquerade: only what leaves the cluster gets the node's address.
func TestMasquerade(t *testing.T) {
	cases := []struct {
		flags       []string
		masqueraded [2]bool // IPv4, IPv6
	}{
		{nil, [2]bool{true, true}},
		{[]string{"--masquerade-ipv6=false"}, [2]bool{true, false}},
		{[]string{"--masquerade-ipv4=false"}, [2]bool{false, true}},
		{[]string{"--masquerade-ipv4=false", "--masquerade-ipv6=false"}, [2]bool{false, false}},
		{[]string{"--non-masquerade-cidrs", "172.30.0.192/26,fd00:30::200/128"}, [2]bool{false, false}},
		{[]string{"--fabric", "vxlan"}, [2]bool{true, true}},
	}
	for _, c := range cases {
		t.Run(strings.Join(append([]string{"with"}, c.flags...), " "), func(t *testing.T) {
			t.Parallel()
			s := newSite(t, topologies[0], cluster.Dual)
			world := placeOutside(t, s)
			s.Start(c.flags...)
			n1 := s.Node("n1")
			one, two, node := placePod(t, n1, "one"), placePod(t, s.Node("n2"), "two"), placeNode(t, n1)
			other := placeNode(t, s.Node("n2"))
			for _, ipv6 := range s.families.Each() {
				source := one.address(ipv6)
				if c.masqueraded[family(ipv6)] {
					source = node.address(ipv6)
				}
				one.expect(t, world, ipv6, source)
				node.reaches(t, world, ipv6)
				one.reaches(t, two, ipv6)
				one.reaches(t, node, ipv6)
				one.reaches(t, other, ipv6)
				// Who comes from outside is not translated either.
				world.reaches(t, one, ipv6)
			}
		})
	}
}

// TestMasqueradedConnectionsStay: kill -9, restart and somebody's flush of the
// ruleset do not break connections that are translated.
func TestMasqueradedConnectionsStay(t *testing.T) {
	t.Parallel()
	s := newSite(t, topologies[0], cluster.Dual)
	world := placeOutside(t, s)
	s.Start()
	n := s.Node("n1")
	one := placePod(t, n, "one")
	var streams []*streaming
	var pings []*pinging
	for _, ipv6 := range s.families.Each() {
		streams = append(streams, one.stream(t, world, ipv6))
		pings = append(pings, one.ping(t, world, ipv6))
	}
	for range 3 {
		n.Kill()
		n.StartAgain()
		n.WaitReady()
	}
	// Another set of networks: the rules are changed in place.
	n.Restart("--non-masquerade-cidrs", "192.0.2.0/24")
	for _, p := range pings {
		p.end(t)
	}
	for _, stream := range streams {
		stream.end(t)
	}
}

// TestPluginMasquerades: a user's own configuration with ipMasq does not
// translate what goes to pods and nodes, of which the plugin does not know.
func TestPluginMasquerades(t *testing.T) {
	for _, mode := range []string{"direct", "vxlan"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, topologies[0], cluster.Dual)
			world := placeOutside(t, s)
			s.WriteNodes()
			n1, n2 := s.Node("n1"), s.Node("n2")
			n1.Start("--fabric", mode, "--cni-conf-dir", "")
			n2.Start("--fabric", mode)
			n1.WaitReady()
			n2.WaitReady()
			conflist := filepath.Join(n1.Directory, "own.conflist")
			must(t, os.WriteFile(conflist, fmt.Appendf(nil, `{"cniVersion": "1.0.0", "name": "own", "plugins": [
				{"type": "flatnet", "stateDir": %q, "ipMasq": true, "ipam": {"ranges": [[{"subnet": %q}], [{"subnet": %q}]]}}]}`,
				n1.StateDir, n1.PodCIDRs[0], n1.PodCIDRs[1]), 0o644))
			pod := n1.PodWith("one", conflist)
			one := &place{Namespace: pod.Namespace, name: "pod one", node: n1, pod: pod}
			one.echo(t)
			two, node := placePod(t, n2, "two"), placeNode(t, n2)
			check := func() {
				t.Helper()
				for _, ipv6 := range s.families.Each() {
					one.awaitReach(t, two, ipv6)
					one.reaches(t, node, ipv6)
					two.reaches(t, one, ipv6)
					one.expect(t, world, ipv6, n1.Addresses[family(ipv6)])
				}
			}
			check()
			// A node that joins later is exempt as well, and pods that come later.
			n3 := s.segments[0].AddNode()
			s.WriteNodes()
			n3.Start("--fabric", mode)
			n3.WaitReady()
			three := placePod(t, n3, "three")
			for _, ipv6 := range s.families.Each() {
				one.awaitReach(t, three, ipv6)
			}
			pod = n1.PodWith("late", conflist)
			late := &place{Namespace: pod.Namespace, name: "pod late", node: n1, pod: pod}
			for _, ipv6 := range s.families.Each() {
				late.awaitReach(t, two, ipv6)
				late.awaitReach(t, three, ipv6)
			}
			check()
			if _, err := os.Stat(n1.Conflist()); err == nil {
				t.Error("flatnetd wrote a configuration, though it has no directory for it")
			}
		})
	}
}
