package fabric

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/flatnet-cni/flatnet/pkg/kernel"
	"github.com/flatnet-cni/flatnet/pkg/node"
)

// learned reads lines such as "10.244.2.0/24 172.30.0.251 fe80::1%eth0".
func learned(text string) Learned {
	l := Learned{}
	for line := range strings.Lines(text) {
		if words := strings.Fields(line); len(words) > 0 {
			var hops []netip.Addr
			for _, w := range words[1:] {
				hops = append(hops, netip.MustParseAddr(w))
			}
			l[netip.MustParsePrefix(words[0])] = hops
		}
	}
	return l
}

// What was learned is used where a peer is not on link and a next hop is, and nothing else
// of the way to a peer depends on it.
func TestLearned(t *testing.T) {
	under := kernel.Underlay{
		Links: []kernel.UnderlayLink{
			{Name: "eth0", MTU: 1500, Up: true, Addresses: []netip.Prefix{netip.MustParsePrefix("172.30.0.1/24")}},
			{Name: "eth1", MTU: 1500},
		},
		Routes: []kernel.UnderlayRoute{
			{Destination: netip.MustParsePrefix("172.30.0.0/24"), Link: "eth0"},
			{Destination: netip.MustParsePrefix("192.0.2.0/24"), Link: "eth0", Gateway: netip.MustParseAddr("172.30.0.9")},
			{Destination: netip.MustParsePrefix("0.0.0.0/0"), Link: "eth0", Gateway: netip.MustParseAddr("172.30.0.250")},
		},
	}
	self := node.Node{Name: "n1", Addresses: []netip.Addr{netip.MustParseAddr("172.30.0.1")}, PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")}}
	near := node.Node{Name: "n2", Addresses: []netip.Addr{netip.MustParseAddr("172.30.0.2")}, PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.2.0/24")}}
	far := node.Node{Name: "n3", Addresses: []netip.Addr{netip.MustParseAddr("172.31.0.3")}, PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.3.0/24")}}
	const (
		onLink   = "ip route add 10.244.2.0/24 via 172.30.0.2 dev eth0 proto 70 src 172.30.0.1"
		tunnel   = "ip route add 10.244.3.0/24 via 10.244.3.0 dev flatnet.vx proto 70 onlink"
		one      = "ip route add 10.244.3.0/24 via 172.30.0.251 dev eth0 proto 70 src 172.30.0.1"
		two      = "ip route add 10.244.3.0/24 proto 70 src 172.30.0.1 nexthop via 172.30.0.251 dev eth0 nexthop via 172.30.0.252 dev eth0"
		guessed  = "ip route add 10.244.3.0/24 via 172.30.0.250 dev eth0 proto 70 src 172.30.0.1"
		problems = "# problem: node n1: next hop "
	)
	for _, c := range []struct {
		name          string
		mode          Mode
		learned       string
		want, without []string
	}{
		{"nothing", Auto, "", []string{onLink, tunnel}, []string{problems}},
		{"one next hop", Auto, "10.244.3.0/24 172.30.0.251", []string{onLink, one}, []string{tunnel, problems}},
		{"two", Auto, "10.244.3.0/24 172.30.0.252 172.30.0.251", []string{two}, []string{tunnel, problems}},
		{"one of two is off link", Auto, "10.244.3.0/24 172.30.0.251 203.0.113.9", []string{one}, []string{tunnel, problems}},
		{"off link", Auto, "10.244.3.0/24 203.0.113.9", []string{tunnel, problems + "203.0.113.9: is not on link"}, nil},
		{"a link-local one", Auto, "10.244.3.0/24 fe80::9%eth0", []string{"ip route add 10.244.3.0/24 via fe80::9 dev eth0 proto 70 src 172.30.0.1"}, []string{tunnel, problems}},
		{"on an interface that is down", Auto, "10.244.3.0/24 fe80::9%eth1", []string{tunnel, problems + "fe80::9%eth1"}, nil},
		{"the node itself", Auto, "10.244.3.0/24 172.30.0.1", []string{tunnel}, nil},
		{"a peer on link", Auto, "10.244.2.0/24 172.30.0.251", []string{onLink}, []string{problems}},
		{"direct", Direct, "10.244.3.0/24 172.30.0.251", []string{one}, []string{guessed}},
		{"direct, nothing", Direct, "", []string{guessed}, nil},
		{"vxlan", VXLAN, "10.244.3.0/24 172.30.0.251", []string{tunnel}, []string{one, problems}},
		{"others", Auto, "198.51.100.0/24 172.30.0.251\n192.0.2.0/24 172.30.0.251", []string{"ip route add 198.51.100.0/24 via 172.30.0.251 dev eth0 proto 70 src 172.30.0.1 metric 7070"}, []string{"ip route add 192.0.2.0/24"}},
		{"none", None, "198.51.100.0/24 172.30.0.251\n10.244.3.0/24 172.30.0.251", nil, []string{"198.51.100.0", "10.244.3.0"}},
	} {
		p := &Planner{Config: Config{Mode: c.mode, Tunnel: "flatnet.vx", VNI: 70, Port: 4789}}
		peers := []node.Node{self, near, far}
		p.Plan(self, peers, under) // what it remembers is no different
		p.Learned = learned(c.learned)
		plan := p.Plan(self, peers, under).String()
		for _, w := range c.want {
			if !strings.Contains(plan, w) {
				t.Errorf("%s: no %s in\n%s", c.name, w, plan)
			}
		}
		for _, w := range c.without {
			if strings.Contains(plan, w) {
				t.Errorf("%s: there is %s in\n%s", c.name, w, plan)
			}
		}
		fresh := &Planner{Config: p.Config, Learned: p.Learned}
		if got := fresh.Plan(self, peers, under).String(); got != plan {
			t.Errorf("%s: a planner without a memory plans\n%swhere this one plans\n%s", c.name, got, plan)
		}
		p.Learned = nil
		fresh.Learned = nil
		if a, b := p.Plan(self, peers, under).String(), fresh.Plan(self, peers, under).String(); a != b || strings.Contains(a, "172.30.0.251") {
			t.Errorf("%s: when it is gone, the plan is\n%s", c.name, a)
		}
	}
}
