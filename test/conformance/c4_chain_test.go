package conformance

import (
	"net/netip"
	"strings"

	"github.com/containernetworking/cni/libcni"
	"github.com/flatnet-cni/flatnet/test/netlab"
	"github.com/vishvananda/netlink"
)

// needs ends the item where a chained plugin cannot do without a program that
// is missing.
func (s *stage) needs(plugin, program string) {
	if !executable(program) {
		s.skipf("the plugin %s executes %s, which is not in PATH", plugin, program)
	}
}

// chained attaches a pod with a list of plugins, demands that it works and
// passes CHECK, has try look at what the chain is for, and detaches it.
func chained(s *stage, try func(a attachment, res result, rt *libcni.RuntimeConf), capabilities map[string]any, others ...object) {
	l := s.library("1.0.0", s.dual("1.0.0"), others...)
	a := s.pod("a")
	before := s.look(a)
	rt := l.runtime(a, kubernetes(a)...)
	rt.CapabilityArgs = capabilities
	res := l.add(rt)
	s.works(a, res)
	s.expect(l.check(rt))
	try(a, res, rt)
	s.expect(l.del(rt))
	s.nothingLeft("DEL", before, a)
	s.expect(l.del(rt))
}

// mapped demands that a port of the node leads to the pod.
func mapped(s *stage, world *netlab.Node, a attachment, address netip.Addr, hostPort uint16) {
	port, stop := s.answeringAt(a.space, netip.AddrPortFrom(address, 8080), "pod")
	defer stop()
	if port != 8080 {
		s.failf("listening at port %d", port)
	}
	node := netip.MustParseAddr(node4)
	if address.Is6() {
		node = netip.MustParseAddr(node6)
	}
	label, _, err := ask(world.Namespace, netip.AddrPortFrom(node, hostPort))
	s.expect(err)
	if label != "pod" {
		s.failf("port %d of the node was answered by %s", hostPort, label)
	}
}

// tokenBucket is the one that an interface has at its root.
func tokenBucket(s *stage, space *netlab.Namespace, name string) *netlink.Tbf {
	list, err := space.Netlink().QdiscList(links(space)[name])
	s.expect(err)
	for _, q := range list {
		if bucket, is := q.(*netlink.Tbf); is {
			return bucket
		}
	}
	s.failf("no token bucket on %s: %v", name, list)
	return nil
}

// chainItems are about plugins that come after this one in a list.
var chainItems = []item{
	{"C4.1", must, "portmap (nftables) after this plugin: a port of the node leads to the pod in both families", func(s *stage) {
		s.needs("portmap", "nft")
		world := s.world()
		ports := map[string]any{"portMappings": []object{{"hostPort": 30080, "containerPort": 8080, "protocol": "udp"}}}
		chained(s, func(a attachment, res result, _ *libcni.RuntimeConf) {
			for _, address := range res.addresses() {
				mapped(s, world, a, address, 30080)
			}
		}, ports, object{"type": "portmap", "backend": "nftables", "snat": true, "capabilities": object{"portMappings": true}})
	}},
	{"C4.2", must, "portmap (iptables) after this plugin: a port of the node leads to the pod", func(s *stage) {
		s.needs("portmap", "iptables")
		s.needs("portmap", "ip6tables")
		world := s.world()
		ports := map[string]any{"portMappings": []object{{"hostPort": 30080, "containerPort": 8080, "protocol": "udp"}}}
		chained(s, func(a attachment, res result, _ *libcni.RuntimeConf) {
			mapped(s, world, a, s.of(res, false), 30080)
		}, ports, object{"type": "portmap", "backend": "iptables", "snat": true, "capabilities": object{"portMappings": true}})
	}},
	{"C4.7", must, "a pod that portmap gave a port keeps it, and DEL with a list without portmap leaves nothing of it", func(s *stage) {
		for _, backend := range []string{"nftables", "iptables"} {
			program := map[string]string{"nftables": "nft", "iptables": "iptables"}[backend]
			s.needs("portmap", program)
			// What portmap leaves in any case: empty chains and tables.
			rules := func() (lines string) {
				for _, command := range [][]string{{"nft", "list", "ruleset"}, {"iptables-save", "-t", "nat"}, {"ip6tables-save", "-t", "nat"}} {
					text, err := s.node.Output(command[0], command[1:]...)
					s.expect(err)
					for _, line := range strings.Split(text, "\n") {
						if strings.Contains(line, "dnat to") || strings.Contains(line, "CNI-DN-") || strings.Contains(line, "to-destination") {
							lines += line + "\n"
						}
					}
				}
				return lines
			}
			conf := with(s.dual("1.0.0"), object{"capabilities": object{"portMappings": true}})
			before := s.library("1.0.0", s.dual("1.0.0"), object{"type": "portmap", "backend": backend, "capabilities": object{"portMappings": true}})
			now := s.library("1.0.0", conf)
			a, b := s.pod("before-"+backend), s.pod("now-"+backend)
			old, fresh := before.runtime(a, kubernetes(a)...), now.runtime(b, kubernetes(b)...)
			old.CapabilityArgs = map[string]any{"portMappings": []object{{"hostPort": 30080, "containerPort": 8080, "protocol": "udp"}}}
			fresh.CapabilityArgs = map[string]any{"portMappings": []object{{"hostPort": 30081, "containerPort": 8080, "protocol": "udp"}}}
			before.add(old)
			now.add(fresh)
			if rules() == "" {
				s.failf("%s: portmap made no rule", backend)
			}
			s.expect(now.del(old))
			if left := rules(); strings.Contains(left, "30080") || strings.Contains(left, "CNI-DN-") {
				s.failf("%s: left behind:\n%s", backend, left)
			}
			s.expect(now.check(fresh))
			s.expect(now.del(fresh))
			s.expect(now.del(fresh))
		}
	}},
	{"C4.3", must, "tuning after this plugin: a sysctl and another MAC, which CHECK accepts", func(s *stage) {
		const mac = "02:0a:0b:0c:0d:0e"
		chained(s, func(a attachment, res result, _ *libcni.RuntimeConf) {
			if got := links(a.space)[a.ifname].Attrs().HardwareAddr.String(); got != mac {
				s.failf("the pod's MAC is %s instead of %s", got, mac)
			}
			value, err := a.space.Sysctl("net/ipv4/conf/eth0/log_martians")
			if err != nil || value != "1" {
				s.failf("log_martians is %q: %v", value, err)
			}
		}, nil, object{"type": "tuning", "mac": mac, "sysctl": object{"net.ipv4.conf.eth0.log_martians": "1"}})
	}},
	{"C4.4", must, "bandwidth after this plugin: it finds the host's interface, and CHECK accepts what it adds", func(s *stage) {
		chained(s, func(a attachment, res result, _ *libcni.RuntimeConf) {
			host, err := res.host()
			s.expect(err)
			tokenBucket(s, s.node.Namespace, host)
		}, map[string]any{"bandwidth": object{"ingressRate": 100e6, "ingressBurst": 100e6, "egressRate": 100e6, "egressBurst": 100e6}},
			object{"type": "bandwidth", "capabilities": object{"bandwidth": true}})
	}},
	{"C4.8", should, "the capability bandwidth of this plugin: a rate in both directions, which CHECK misses, and a result that passes through", func(s *stage) {
		conf := with(s.dual("1.0.0"), object{"capabilities": object{"bandwidth": true}})
		l := s.library("1.0.0", conf, object{"type": "tuning"})
		a := s.pod("a")
		before := s.look(a)
		rt := l.runtime(a, kubernetes(a)...)
		plain := l.add(rt)
		s.expect(l.del(rt))
		rt.CapabilityArgs = map[string]any{"bandwidth": object{"ingressRate": 100e6, "ingressBurst": 1 << 31, "egressRate": 50e6, "egressBurst": 1 << 31}}
		for _, side := range []string{"host", "pod"} {
			res := l.add(rt)
			if len(res.Interfaces) != len(plain.Interfaces) || len(res.IPs) != len(plain.IPs) || len(res.Routes) != len(plain.Routes) {
				s.failf("without rates the result was %s, with rates %s", plain.raw, res.raw)
			}
			s.works(a, res)
			s.expect(l.check(rt))
			host, err := res.host()
			s.expect(err)
			space, name, rate := s.node.Namespace, host, uint64(100e6)
			if side == "pod" {
				space, name, rate = a.space, a.ifname, 50e6
			}
			bucket := tokenBucket(s, space, name)
			if bucket.Rate*8 != rate {
				s.failf("%s is held to %d bits per second instead of %d", name, bucket.Rate*8, rate)
			}
			s.expect(space.Netlink().QdiscDel(bucket))
			if err := l.check(rt); err == nil || !strings.Contains(err.Error(), name) {
				s.failf("CHECK without the qdisc of %s says %v", name, err)
			}
			s.expect(l.del(rt))
			s.nothingLeft("DEL", before, a)
		}
	}},
	{"C4.5", must, "firewall (iptables) after this plugin works", func(s *stage) {
		s.needs("firewall", "iptables")
		s.needs("firewall", "ip6tables")
		chained(s, func(a attachment, res result, _ *libcni.RuntimeConf) {
			rules, err := s.node.Output("iptables", "-S")
			s.expect(err)
			if !strings.Contains(rules, s.of(res, false).String()) {
				s.failf("firewall made no rule for %v: %s", s.of(res, false), rules)
			}
		}, nil, object{"type": "firewall", "backend": "iptables"})
	}},
	{"C4.6", must, "a result passes through a chain with this plugin's interfaces, addresses and routes in it", func(s *stage) {
		plain := s.library("1.0.0", s.dual("1.0.0"))
		a := s.pod("a")
		alone := plain.add(plain.runtime(a))
		s.expect(plain.del(plain.runtime(a)))
		l := s.library("1.0.0", s.dual("1.0.0"), object{"type": "tuning"})
		res := l.add(l.runtime(a))
		if len(res.Interfaces) != len(alone.Interfaces) || len(res.IPs) != len(alone.IPs) || len(res.Routes) != len(alone.Routes) {
			s.failf("alone the result was %s, in a chain %s", alone.raw, res.raw)
		}
	}},
}
