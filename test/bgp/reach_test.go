package bgp_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"
)

const waitTime = 2 * time.Second

// Pods of different racks reach each other by the racks' routers, over both of them,
// untranslated and through no tunnel, and a machine outside reaches pods.
func TestRacks(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	one, two := s.upWithPods()
	for i, outside := range []string{"172.31.0.9", "fd00:31::9"} {
		ipv6 := i == 1
		s.reaches(one.Namespace, one.Address(ipv6), two.Address(ipv6), two.Namespace)
		s.reaches(two.Namespace, two.Address(ipv6), one.Address(ipv6), one.Namespace)
		s.reaches(s.World.Namespace, netip.MustParseAddr(outside), one.Address(ipv6), one.Namespace)
	}
	routes, err := s.N1.Output("ip", "route", "show", "proto", "70")
	must(t, err)
	t.Logf("n1$ ip route show proto 70\n%s", routes)
	if strings.Contains(routes, "flatnet.vx") {
		t.Error("something is routed into the tunnel")
	}
	if _, err := s.N1.Output("ip", "-s", "link", "show", "flatnet.vx"); err != nil {
		t.Error(err)
	}
	for _, r := range s.Routers() {
		if r.IsBIRD {
			t.Logf("%s: birdc show route\n%s", r.Name, ask(t, r, "show route"))
		} else {
			t.Logf("%s: vtysh -c 'show bgp ipv4'\n%s", r.Name, ask(t, r, "show bgp ipv4"))
		}
	}
	text, err := s.N1.Flatnetd("status", "bgp")
	must(t, err)
	t.Logf("flatnetd status bgp\n%s", text)
	b := s.bgp(s.N1)
	for _, p := range b.Peers {
		if p.State != "established" || p.Announced != 1 || p.Accepted == 0 {
			t.Errorf("peer %s: %+v", p.Name, p)
		}
	}
	// A list without the node is no list: all stays as it is.
	s.WriteNodesText("nodes:\n- {name: n2, addresses: [172.30.1.2], podCIDRs: [10.244.2.0/24]}\n")
	s.problem(s.N1, "node-unlisted")
	must(t, s.established(s.N1, 4))
	s.knows(s.A1, "10.244.1.0/24", true)
}
