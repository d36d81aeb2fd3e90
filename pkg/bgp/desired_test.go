package bgp

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/flatnet-cni/flatnet/pkg/node"
	"github.com/flatnet-cni/flatnet/pkg/service"
)

func prefixes(text string) (all []netip.Prefix) {
	for _, one := range strings.Fields(text) {
		all = append(all, netip.MustParsePrefix(one))
	}
	return all
}

func addresses(text string) (all []netip.Addr) {
	for _, one := range strings.Fields(text) {
		all = append(all, netip.MustParseAddr(one))
	}
	return all
}

func config(t *testing.T, more string) *Config {
	t.Helper()
	c, err := Parse([]byte("asn: 64512\npeers: [{name: tor, address: 172.30.0.250, asn: 64600}]\n" + more))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// web is a Service with every sort of address, and endpoints such as "n1 n2! n3": one on n2
// is not ready.
func web(internalLocal, externalLocal bool, endpoints string) map[service.Name]service.Service {
	s := service.Service{
		Name: service.Name{Namespace: "default", Name: "web"}, ClusterIPs: addresses("10.96.0.1 fd00:96::1"), ExternalIPs: addresses("192.0.2.9"),
		LoadBalancerIPs: addresses("198.51.100.1 2001:db8::1"), InternalLocal: internalLocal, ExternalLocal: externalLocal,
	}
	slice := service.Slice{Name: "a"}
	for i, text := range strings.Fields(endpoints) {
		node, unready := strings.CutSuffix(text, "!")
		slice.Endpoints = append(slice.Endpoints, service.Endpoint{Address: netip.AddrFrom4([4]byte{10, 244, 0, byte(i)}), Node: node, Ready: !unready, Serving: true})
	}
	s.Slices = []service.Slice{slice}
	return map[service.Name]service.Service{s.Name: s}
}

func TestAnnouncements(t *testing.T) {
	const all = "announce: {services: [loadBalancer, external, cluster]}"
	for _, c := range []struct {
		name, config, leaving string
		services              map[service.Name]service.Service
		want                  string
	}{
		{"pods alone", "", "", web(false, false, "n1"), "10.244.1.0/24 fd00:244:1::/64"},
		{"nothing", "announce: {podCIDRs: false}", "", web(false, false, "n1"), ""},
		{"all addresses", all, "", web(false, false, "n2"), "10.96.0.1/32 10.244.1.0/24 192.0.2.9/32 198.51.100.1/32 2001:db8::1/128 fd00:96::1/128 fd00:244:1::/64"},
		{"nobody is ready", all, "", web(false, false, "n1! n2!"), "10.244.1.0/24 fd00:244:1::/64"},
		{"local outside, elsewhere", all, "", web(false, true, "n1! n2"), "10.96.0.1/32 10.244.1.0/24 fd00:96::1/128 fd00:244:1::/64"},
		{"local outside, here", "announce: {services: [loadBalancer]}", "", web(false, true, "n1 n2"), "10.244.1.0/24 198.51.100.1/32 2001:db8::1/128 fd00:244:1::/64"},
		{"local inside, elsewhere", "announce: {services: [cluster]}", "", web(true, false, "n2"), "10.244.1.0/24 fd00:244:1::/64"},
		{"external alone", "announce: {services: [external], podCIDRs: false}", "", web(false, false, "n2"), "192.0.2.9/32"},
		{"as networks", "announce: {services: [loadBalancer, external], podCIDRs: false, prefixLength: {ipv4: 24, ipv6: 64}}", "", web(false, false, "n2"), "192.0.2.0/24 198.51.100.0/24 2001:db8::/64"},
		{"a node that goes", all, "it goes", web(false, false, "n1"), "10.244.1.0/24 fd00:244:1::/64"},
	} {
		self := node.Node{Name: "n1", Leaving: c.leaving}
		d := config(t, c.config).Desire(self, nil, prefixes("10.244.1.0/24 fd00:244:1::/64"), c.services)
		if len(d.Announce) != 1 || !slices.Equal(d.Announce[0].To, []string{"tor"}) {
			t.Errorf("%s: %+v", c.name, d.Announce)
		}
		got := d.Announce[0].Prefixes
		if text := strings.Trim(fmt.Sprint(got), "[]"); text != c.want {
			t.Errorf("%s: %s, want %s", c.name, text, c.want)
		}
	}
}

// A peer with announce of its own is told that, and nothing of what the others are told.
func TestAnnouncementsByPeer(t *testing.T) {
	c, err := Parse([]byte(`
asn: 64512
peers:
- {name: tor, address: 172.30.0.250, asn: 64600}
- {name: other, address: 172.30.0.251, asn: 64600}
- {name: wan, address: 172.30.0.252, asn: 64700, announce: {podCIDRs: false, services: [external], communities: ["64512:1"], med: 5}}
- {name: away, address: 172.30.0.253, asn: 64700, nodes: rack=z, announce: {}}
announce: {services: [loadBalancer], med: 7}
`))
	if err != nil {
		t.Fatal(err)
	}
	d := c.Desire(node.Node{Name: "n1"}, nil, prefixes("10.244.1.0/24"), web(false, false, "n1"))
	var lines []string
	for _, a := range d.Announce {
		lines = append(lines, fmt.Sprintf("%q to %v: %v, MED %d, %d communities", a.Name, a.To, a.Prefixes, *a.MED, len(a.Communities)))
	}
	const want = `"wan" to [wan]: [192.0.2.9/32], MED 5, 1 communities
"" to [tor other]: [10.244.1.0/24 198.51.100.1/32 2001:db8::1/128], MED 7, 0 communities`
	if got := strings.Join(lines, "\n"); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}

// Of Services those are told of that have the labels and the class that are meant.
func TestChosenServices(t *testing.T) {
	services := web(false, false, "n1")
	for name, s := range services {
		s.Labels, s.LoadBalancerClass = map[string]string{"expose": "yes", "tier": "web"}, "flatnet.io/loadbalancer"
		services[name] = s
	}
	const balanced = "198.51.100.1/32 2001:db8::1/128"
	for _, c := range []struct{ services, want string }{
		{"loadBalancer", balanced},
		{"{addresses: loadBalancer}", balanced},
		{"{addresses: loadBalancer, selector: expose=yes}", balanced},
		{"{addresses: loadBalancer, selector: expose=no}", ""},
		{"{addresses: loadBalancer, selector: \"expose=yes,tier in (web, api)\", loadBalancerClass: flatnet.io/loadbalancer}", balanced},
		{"{addresses: loadBalancer, loadBalancerClass: example.com/other}", ""},
		{"{addresses: external, selector: \"!private\"}, {addresses: cluster, selector: private}", "192.0.2.9/32"},
	} {
		d := config(t, "announce: {podCIDRs: false, services: ["+c.services+"]}").Desire(node.Node{Name: "n1"}, nil, nil, services)
		if got := strings.Trim(fmt.Sprint(d.Announce[0].Prefixes), "[]"); got != c.want {
			t.Errorf("%s: %s, want %s", c.services, got, c.want)
		}
	}
}

func TestNeighbours(t *testing.T) {
	c, err := Parse([]byte(`
asn: 64512
mesh: {}
peers:
- {name: a, address: 172.30.0.250, asn: 64600, nodes: rack=a}
- {name: b, address: 172.30.1.250, asn: 64600, nodes: rack=b}
- {name: all, address: 172.30.2.250, asn: 64600}
`))
	if err != nil {
		t.Fatal(err)
	}
	nodes := []node.Node{
		{Name: "n1", Addresses: addresses("172.30.0.1 fd00:30::1"), Labels: map[string]string{"rack": "a"}},
		{Name: "n2", Addresses: addresses("172.30.0.2")},
		{Name: "n3", Addresses: addresses("fd00:30::3")},
	}
	for self, want := range map[int]string{
		0: "a, all, node n2 ipv4, node n3 ipv6; 172.30.0.1",
		1: "all, node n1 ipv4; 172.30.0.2",
		2: "all, node n1 ipv6; " + c.routerID(nodes[2]),
	} {
		d := c.Desire(nodes[self], nodes, nil, nil)
		var names []string
		for _, n := range d.Neighbours {
			names = append(names, n.Name)
		}
		if got := strings.Join(names, ", ") + "; " + d.Global.RouterID; got != want {
			t.Errorf("%s: %s, want %s", nodes[self].Name, got, want)
		}
	}
	if a, b := c.routerID(nodes[2]), c.routerID(node.Node{Name: "n4"}); a == b || !netip.MustParseAddr(a).Is4() {
		t.Errorf("router ids are %s and %s", a, b)
	}
}

func TestPolicy(t *testing.T) {
	nodes := []node.Node{{Name: "n1", PodCIDRs: prefixes("10.244.1.0/24 fd00:244:1::/64")}, {Name: "n2", PodCIDRs: prefixes("10.244.2.0/24")}}
	for _, c := range []struct{ config, prefix, want string }{
		{"", "10.244.2.0/24", RefusedPod},
		{"", "192.0.2.0/24", RefusedOther},
		{"", "0.0.0.0/0", RefusedDefault},
		{"accept: {podCIDRs: true}", "10.244.2.0/24", ""},
		{"accept: {podCIDRs: true}", "10.244.2.0/25", RefusedOther},
		{"accept: {podCIDRs: true}", "10.244.1.0/24", RefusedOwn},
		{"accept: {podCIDRs: true}", "fd00:244:1:0::/80", RefusedOwn},
		{"accept: {prefixes: [{prefix: 10.0.0.0/8, maxLength: 32}]}", "10.244.1.7/32", RefusedOwn},
		{"accept: {prefixes: [{prefix: 10.0.0.0/8, maxLength: 32}]}", "10.244.2.0/24", ""},
		{"accept: {prefixes: [{prefix: 10.0.0.0/8}]}", "10.0.0.0/8", ""},
		{"accept: {prefixes: [{prefix: 10.0.0.0/8}]}", "10.1.0.0/16", RefusedOther},
		{"accept: {prefixes: [{prefix: 10.0.0.0/8, minLength: 16, maxLength: 24}]}", "10.0.0.0/8", RefusedOther},
		{"accept: {prefixes: [{prefix: 0.0.0.0/0, maxLength: 32}]}", "0.0.0.0/0", RefusedDefault},
		{"accept: {prefixes: [{prefix: 0.0.0.0/0, maxLength: 32}]}", "127.0.0.0/8", RefusedOdd},
		{"accept: {prefixes: [{prefix: 0.0.0.0/0, maxLength: 32}]}", "2001:db8::/32", RefusedOther},
		{"accept: {defaultRoute: true}", "::/0", ""},
	} {
		if got := config(t, c.config).Policy("n1", nodes).Refuses(netip.MustParsePrefix(c.prefix)); got != c.want {
			t.Errorf("%s, %s: %q, want %q", c.config, c.prefix, got, c.want)
		}
	}
}

// routes are what a table comes to, as a text.
func routes(l Learned) string {
	var all []string
	for p, hops := range l.Routes {
		all = append(all, fmt.Sprintf("%s %v", p, hops))
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

func TestTable(t *testing.T) {
	policy := config(t, "accept: {prefixes: [{prefix: 10.0.0.0/8, maxLength: 32}], maximumRoutes: 3}").Policy("n1", nil)
	table := NewTable()
	path := func(prefix, hop string, change func(*Path)) []Path {
		p := Path{Prefix: netip.MustParsePrefix(prefix), NextHop: netip.MustParseAddr(hop), LocalPref: 100, Length: 2}
		if change != nil {
			change(&p)
		}
		return []Path{p}
	}
	expect := func(want string) {
		t.Helper()
		if got := routes(table.Learned(policy)); got != want {
			t.Errorf("routes are %s, want %s", got, want)
		}
	}
	// What the kernel has of a run before is the last resort, and then forgotten.
	table.Seed(netip.MustParsePrefix("10.1.0.0/16"), addresses("172.30.0.250 172.30.0.251"))
	expect("10.1.0.0/16 [172.30.0.250 172.30.0.251]")
	table.Update("a", path("10.1.0.0/16", "172.30.0.250", nil), nil)
	expect("10.1.0.0/16 [172.30.0.250]")
	table.Update("b", path("10.1.0.0/16", "172.30.0.251", nil), nil)
	expect("10.1.0.0/16 [172.30.0.250 172.30.0.251]")
	if !table.Seeded() {
		t.Error("nothing is seeded")
	}
	table.Unseed()
	if table.Seeded() {
		t.Error("something is seeded")
	}
	expect("10.1.0.0/16 [172.30.0.250 172.30.0.251]")
	for name, change := range map[string]func(*Path){
		"a longer path": func(p *Path) { p.Length = 3 }, "less preference": func(p *Path) { p.LocalPref = 50 }, "a MED": func(p *Path) { p.MED = 5 },
		"an incomplete origin": func(p *Path) { p.Origin = 2 }, "an internal neighbour": func(p *Path) { p.Internal = true },
	} {
		table.Update("b", path("10.1.0.0/16", "172.30.0.251", change), nil)
		if got := routes(table.Learned(policy)); got != "10.1.0.0/16 [172.30.0.250]" {
			t.Errorf("%s: %s", name, got)
		}
	}
	table.Update("b", path("10.1.0.0/16", "172.30.0.251", nil), nil)
	// One that restarts is kept behind the others, until it has told all.
	table.Down("a", true)
	expect("10.1.0.0/16 [172.30.0.251]")
	table.Down("b", false)
	expect("10.1.0.0/16 [172.30.0.250]")
	table.Update("a", path("10.2.0.0/16", "172.30.0.250", nil), nil)
	table.End("a", IPv6)
	expect("10.1.0.0/16 [172.30.0.250], 10.2.0.0/16 [172.30.0.250]")
	table.End("a", IPv4)
	expect("10.2.0.0/16 [172.30.0.250]")
	table.Down("a", true)
	table.Expire("a")
	expect("")
	if table.Received("a") != 0 {
		t.Errorf("%d are received", table.Received("a"))
	}
	// What is refused is counted by neighbour, and what is too much is left out.
	for i := range 5 {
		table.Update("a", path(fmt.Sprintf("10.%d.0.0/16", i), "172.30.0.250", nil), nil)
	}
	table.Update("a", append(path("192.0.2.0/24", "172.30.0.250", nil), path("192.0.3.0/24", "172.30.0.250", nil)...), nil)
	l := table.Learned(policy)
	if l.Beyond != 2 || len(l.Routes) != 3 || l.Accepted["a"] != 3 || l.Refused["a"][RefusedOther] != 2 || l.Example["a"][RefusedOther].String() != "192.0.2.0/24" || table.Received("a") != 7 {
		t.Errorf("it comes to %+v, %d received", l, table.Received("a"))
	}
}
