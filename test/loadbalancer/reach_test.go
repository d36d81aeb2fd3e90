package loadbalancer_test

import (
	"net/netip"
	"testing"

	v1 "k8s.io/api/core/v1"
)

// TestReached: a host of the segment finds the address of a Service by ARP and NDP, and
// reaches its pods; with the policy Local it is answered for by the node of a pod, and
// seen with its own address.
func TestReached(t *testing.T) {
	t.Parallel()
	s := newSite(t, 3)
	s.endpoints("web", s.pod("n1"), s.pod("n2"))
	s.api.Put(serviceObject("web", 1))
	for _, ip := range s.held("web", 2) {
		owner := s.agreed(ip, "n1", "n2", "n3")
		s.Eventually("an answer from "+ip.String(), func() error {
			_, _, err := s.ask(ip)
			return err
		})
		if got := s.resolved(ip); got != owner {
			t.Errorf("%s leads to %s, and %s is to answer", ip, got, owner)
		}
	}
	local := serviceObject("local", 2)
	local.Spec.ExternalTrafficPolicy = v1.ServiceExternalTrafficPolicyLocal
	s.endpoints("local", s.pod("n3"))
	s.api.Put(local)
	for _, ip := range s.held("local", 2) {
		if owner := s.agreed(ip, "n1", "n2", "n3"); owner != "n3" {
			t.Errorf("%s answers for %s, and the pod is on n3", owner, ip)
		}
		s.Eventually("an answer from "+ip.String(), func() error {
			server, source, err := s.ask(ip)
			if err == nil && (server != "n3" || source.String() != "172.30.0.250" && source.String() != "fd00:30::fa") {
				t.Errorf("%s: the pod of %s saw %s", ip, server, source)
			}
			return err
		})
		if got := s.resolved(ip); got != "n3" {
			t.Errorf("%s leads to %q", ip, got)
		}
	}
	out, err := s.Node("n1").Flatnetd("status", "announcements")
	must(t, err)
	t.Log("\n" + out)
	out, err = s.Node("n1").Flatnetd("status")
	must(t, err)
	t.Log("\n" + out)
}

// TestBalancedBySomebodyElse: where flatnetd does not balance Services, addresses are given
// and answered for all the same, and a rule as kube-proxy has it leads packets on.
func TestBalancedBySomebodyElse(t *testing.T) {
	t.Parallel()
	s := newSiteWith(t, 2)
	pod := s.pod("n2")
	s.endpoints("web", pod)
	s.api.Put(serviceObject("web", 1))
	ips := s.held("web", 2)
	for _, n := range s.Nodes {
		for _, ip := range ips {
			family, to := "ip", netip.AddrPortFrom(pod.Address(ip.Is6()), 8080).String()
			if ip.Is6() {
				family = "ip6"
			}
			for _, command := range []string{
				"add table " + family + " proxy",
				"add chain " + family + " proxy before { type nat hook prerouting priority dstnat; }",
				"add chain " + family + " proxy after { type nat hook postrouting priority srcnat; }",
				"add rule " + family + " proxy before " + family + " daddr " + ip.String() + " tcp dport 80 mark set 1 dnat to " + to,
				"add rule " + family + " proxy after mark 1 masquerade",
			} {
				_, err := n.Output("nft", command)
				must(t, err)
			}
		}
	}
	for _, ip := range ips {
		owner := s.agreed(ip, "n1", "n2")
		s.Eventually("an answer from "+ip.String(), func() error { _, _, err := s.ask(ip); return err })
		if got := s.resolved(ip); got != owner {
			t.Errorf("%s leads to %s, and %s is to answer", ip, got, owner)
		}
	}
}
