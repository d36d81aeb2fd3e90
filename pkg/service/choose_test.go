package service

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

func lists(c *choice) string {
	short := func(all []netip.AddrPort) string {
		var texts []string
		for _, a := range all {
			texts = append(texts, strings.TrimPrefix(a.String(), "10.244."))
		}
		return "[" + strings.Join(texts, " ") + "]"
	}
	return fmt.Sprintf("cluster %s local %s", short(c.cluster.sorted()), short(c.local.sorted()))
}

func TestChoose(t *testing.T) {
	for _, test := range []struct{ name, service, want string }{
		{"none", "s cluster=10.96.0.1 80", "cluster [] local []"},
		{"ready", "s cluster=10.96.0.1 80\n  80 10.244.2.5@n2 10.244.1.5@n1", "cluster [1.5:80 2.5:80] local [1.5:80]"},
		{"the port's own number on endpoints", "s cluster=10.96.0.1 80\n  8080 10.244.1.5@n1", "cluster [1.5:8080] local [1.5:8080]"},
		{"a named port that has other numbers in other slices", "s cluster=10.96.0.1 http:80\n  http:8080 10.244.1.5@n1\n  http:9090 10.244.2.5@n2",
			"cluster [1.5:8080 2.5:9090] local [1.5:8080]"},
		{"other ports and protocols of the slice", "s cluster=10.96.0.1 http:80\n  dns:53/udp,http:53/udp,admin:99,http:8080 10.244.1.5@n1", "cluster [1.5:8080] local [1.5:8080]"},
		{"several slices", "s cluster=10.96.0.1 80\n  80 10.244.2.5@n2\n  80 10.244.1.5@n1 10.244.1.4@n1", "cluster [1.4:80 1.5:80 2.5:80] local [1.4:80 1.5:80]"},
		{"the other family", "s cluster=10.96.0.1 80\n  80 fd00:244:1::5@n1\n  80 10.244.1.5@n1", "cluster [1.5:80] local [1.5:80]"},
		{"one endpoint in two slices, the better counts", "s cluster=10.96.0.1 80\n  80 10.244.1.5@n1!unready\n  80 10.244.1.5@n1\n  80 10.244.1.5@n1!terminating", "cluster [1.5:80] local [1.5:80]"},
		{"not ready", "s cluster=10.96.0.1 80\n  80 10.244.1.5@n1!unready 10.244.2.5@n2", "cluster [2.5:80] local []"},
		{"terminating beside ready", "s cluster=10.96.0.1 80\n  80 10.244.1.5@n1!terminating 10.244.2.5@n2", "cluster [2.5:80] local [1.5:80]"},
		{"only terminating ones serve", "s cluster=10.96.0.1 80\n  80 10.244.1.5@n1!terminating 10.244.2.5@n2!terminating 10.244.1.6@n1!dead", "cluster [1.5:80 2.5:80] local [1.5:80]"},
		{"not ready does not mean terminating", "s cluster=10.96.0.1 80\n  80 10.244.1.5@n1!unready", "cluster [] local []"},
		{"hints for zones", "s cluster=10.96.0.1 80\n  80 10.244.1.5@n1/a 10.244.2.5@n2/b 10.244.3.5@n3/a", "cluster [1.5:80 3.5:80] local [1.5:80]"},
		{"one without a hint", "s cluster=10.96.0.1 80\n  80 10.244.1.5@n1/a 10.244.2.5@n2", "cluster [1.5:80 2.5:80] local [1.5:80]"},
		{"one without a hint, but it is not ready", "s cluster=10.96.0.1 80\n  80 10.244.1.5@n1/a 10.244.2.5@n2!unready 10.244.3.5@n3/b", "cluster [1.5:80] local [1.5:80]"},
		{"no hint for this zone", "s cluster=10.96.0.1 80\n  80 10.244.1.5@n1/b 10.244.2.5@n2/b", "cluster [1.5:80 2.5:80] local [1.5:80]"},
		{"hints for nodes go first", "s cluster=10.96.0.1 80\n  80 10.244.1.5@n1/a/n1 10.244.2.5@n2/a/n2", "cluster [1.5:80] local [1.5:80]"},
		{"no hint for this node, but for its zone", "s cluster=10.96.0.1 80\n  80 10.244.3.5@n3/b/n3 10.244.2.5@n2/a/n2", "cluster [2.5:80] local []"},
		{"policy Local knows no hints", "s cluster=10.96.0.1 80\n  80 10.244.1.5@n1/b 10.244.2.5@n2/a", "cluster [2.5:80] local [1.5:80]"},
		{"the near ones terminate", "s cluster=10.96.0.1 80\n  80 10.244.1.5@n1/a!terminating 10.244.2.5@n2/b", "cluster [2.5:80] local [1.5:80]"},
		{"of no node", "s cluster=10.96.0.1 80\n  80 192.0.2.7", "cluster [192.0.2.7:80] local []"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := worldOf(t, test.service)
			n := nodeN(1)
			if got := lists(choose(&s, portOf{s.Ports[0].Name, s.Ports[0].Protocol, ipv4}, &n, nil)); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
}

func TestChooseTooMany(t *testing.T) {
	s := Service{Ports: []Port{{"", TCP, 80, 0}}, Slices: []Slice{{Ports: []SlicePort{{"", TCP, 80}}}}}
	for i := range maximumEndpoints + 10 {
		s.Slices[0].Endpoints = append(s.Slices[0].Endpoints, Endpoint{Address: netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), Ready: true})
	}
	n := nodeN(1)
	if c := choose(&s, portOf{"", TCP, ipv4}, &n, nil); c.cluster.size() != maximumEndpoints {
		t.Errorf("%d endpoints", c.cluster.size())
	}
}

func TestNodePortAddresses(t *testing.T) {
	known := addresses([]string{"172.30.0.1", "fd00:30::1", "172.30.9.1"})
	local := append(addresses([]string{"127.0.0.1", "::1", "fe80::1", "192.0.2.1"}), known...)
	for _, test := range []struct{ text, want string }{
		{"", "[172.30.0.1 fd00:30::1]"},
		{"primary", "[172.30.0.1 fd00:30::1]"},
		{"192.0.2.0/24", "[192.0.2.1]"},
		{"primary,192.0.2.0/24, 172.30.0.0/16", "[172.30.0.1 172.30.9.1 192.0.2.1 fd00:30::1]"},
		{"0.0.0.0/0", "[172.30.0.1 172.30.9.1 192.0.2.1]"},
		{"::/0", "[fd00:30::1]"},
		{"secondary", `reading --nodeport-addresses: "secondary" is neither primary nor a prefix such as 192.0.2.0/24`},
	} {
		n, err := ParseNodePortAddresses(test.text)
		got := fmt.Sprint(n.Select(known, local))
		if err != nil {
			got = err.Error()
		}
		if got != test.want {
			t.Errorf("%q: got %s, want %s", test.text, got, test.want)
		}
	}
}
