package conformance

import (
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
)

// notices demands that CHECK succeeds first, and is an error once the
// attachment is broken.
func notices(conf func(*stage) object, damage func(*stage, attachment, result)) func(*stage) {
	return func(s *stage) {
		conf := conf(s)
		a, res := s.attach("a", conf)
		s.quiet("CHECK before the damage", s.check(a, conf, res))
		damage(s, a, res)
		s.fails("CHECK after the damage", s.check(a, conf, res))
	}
}

func only4(s *stage) object    { return s.conf("1.1.0") }
func bothWays(s *stage) object { return s.dual("1.1.0") }

// cut removes the host's routes to an address and demands that there were some.
func cut(s *stage, address netip.Addr) {
	found := routesTo(s.node.Namespace, only(address))
	if len(found) == 0 {
		s.failf("the node has no route to %v", address)
	}
	for _, r := range found {
		s.expect(s.node.Netlink().RouteDel(&r))
	}
}

// divert sends an address to the host's uplink instead.
func divert(s *stage, address netip.Addr) {
	cut(s, address)
	uplink := links(s.node.Namespace)["eth0"].Attrs().Index
	s.expect(s.node.Netlink().RouteAdd(&netlink.Route{Dst: ipNet(only(address)), LinkIndex: uplink, Scope: netlink.SCOPE_LINK}))
}

// checkNoticesItems are about the damage that CHECK finds.
var checkNoticesItems = []item{
	{"A5.46", should, "CHECK notices that the pod's interface is gone", notices(only4, func(s *stage, a attachment, _ result) {
		s.expect(a.space.Netlink().LinkDel(links(a.space)[a.ifname]))
	})},
	{"A5.46b", should, "CHECK notices that the pod's interface is another one", notices(only4, func(s *stage, a attachment, _ result) {
		s.expect(a.space.Netlink().LinkDel(links(a.space)[a.ifname]))
		s.expect(a.space.Netlink().LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: a.ifname}}))
	})},
	{"A5.46c", should, "CHECK notices that the pod's interface has another MAC", notices(only4, func(s *stage, a attachment, _ result) {
		s.expect(a.space.Netlink().LinkSetHardwareAddr(links(a.space)[a.ifname], net.HardwareAddr{2, 1, 2, 3, 4, 5}))
	})},
	{"A5.46d", should, "CHECK notices that the pod's interface lacks its address", notices(only4, func(s *stage, a attachment, _ result) {
		for _, address := range addressesOn(a.space, a.ifname) {
			if address.IP.To4() != nil {
				s.expect(a.space.Netlink().AddrDel(links(a.space)[a.ifname], &address))
			}
		}
	})},
	{"A5.46e", should, "CHECK notices that the pod's interface lacks its IPv6 address", notices(bothWays, func(s *stage, a attachment, res result) {
		for _, address := range addressesOn(a.space, a.ifname) {
			if address.IP.Equal(s.of(res, true).AsSlice()) {
				s.expect(a.space.Netlink().AddrDel(links(a.space)[a.ifname], &address))
			}
		}
	})},
	{"A5.46f", should, "CHECK notices that a route is missing in the pod", notices(only4, func(s *stage, a attachment, res result) {
		if len(res.Routes) == 0 {
			s.failf("no routes in the result: %s", res.raw)
		}
		for _, r := range routesTo(a.space, res.Routes[0].Dst) {
			s.expect(a.space.Netlink().RouteDel(&r))
		}
	})},
	{"A5.46g", should, "CHECK notices that the pod's interface is down", notices(only4, func(s *stage, a attachment, _ result) {
		s.expect(a.space.Netlink().LinkSetDown(links(a.space)[a.ifname]))
	})},
	{"A5.47", should, "CHECK notices that the reservation is missing", notices(only4, func(s *stage, _ attachment, res result) {
		s.expect(os.Remove(s.record(s.of(res, false))))
	})},
	{"A5.47b", should, "CHECK notices that the address is reserved for another container", notices(only4, func(s *stage, a attachment, res result) {
		s.expect(os.WriteFile(s.record(s.of(res, false)), []byte(containerID()+"\r\n"+a.ifname), 0o600))
	})},
	{"A5.47c", should, "CHECK notices that the reservation of one of two families is missing", notices(bothWays, func(s *stage, _ attachment, res result) {
		s.expect(os.Remove(s.record(s.of(res, true))))
	})},
	{"A5.47d", should, "CHECK notices that the host has no route to the pod", notices(only4, func(s *stage, _ attachment, res result) {
		cut(s, s.of(res, false))
	})},
	{"A5.47e", should, "CHECK notices that the host has no IPv6 route to the pod", notices(bothWays, func(s *stage, _ attachment, res result) {
		cut(s, s.of(res, true))
	})},
	{"A5.47f", should, "CHECK notices that the host's route to the pod leads to another device", notices(only4, func(s *stage, _ attachment, res result) {
		divert(s, s.of(res, false))
	})},
	{"A5.47g", should, "CHECK notices that the host's IPv6 route to the pod leads to another device", notices(bothWays, func(s *stage, _ attachment, res result) {
		divert(s, s.of(res, true))
	})},
	{"A5.47h", should, "CHECK notices that the host's interface is down", notices(only4, func(s *stage, _ attachment, res result) {
		host, err := res.host()
		s.expect(err)
		s.expect(s.node.Netlink().LinkSetDown(links(s.node.Namespace)[host]))
	})},
	{"A5.47i", should, "CHECK notices that the host no longer forwards", notices(only4, func(s *stage, _ attachment, _ result) {
		s.expect(s.node.SetSysctl("net/ipv4/ip_forward", "0"))
	})},
	{"A5.47j", should, "CHECK notices that the host no longer forwards IPv6", notices(bothWays, func(s *stage, _ attachment, _ result) {
		s.expect(s.node.SetSysctl("net/ipv6/conf/all/forwarding", "0"))
	})},
}
