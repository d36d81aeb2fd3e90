package conformance

import (
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// checkItems are about what CHECK needs and what it must put up with.
var checkItems = []item{
	{"A5.42", must, "CHECK with a configuration older than 0.4.0 is refused with code 1", func(s *stage) {
		for _, version := range []string{"0.1.0", "0.2.0", "0.3.0", "0.3.1"} {
			conf := s.conf(version)
			a, res := s.attach("a"+version, conf)
			s.failsWith("CHECK with "+version, errorVersion, s.check(a, conf, res))
		}
	}},
	{"A5.43", must, "CHECK without prevResult is an error", func(s *stage) {
		conf := s.conf("1.1.0")
		a, res := s.attach("a", conf)
		s.quiet("CHECK with prevResult", s.check(a, conf, res))
		s.fails("CHECK without prevResult", s.exec("CHECK", a, conf))
	}},
	{"A5.44", must, "CHECK puts up with routes, addresses and interfaces that were added later", func(s *stage) {
		conf := s.dual("1.1.0")
		a, res := s.attach("a", conf)
		pod := links(a.space)[a.ifname]
		s.expect(a.space.AddAddress(a.ifname, "10.200.0.1/32"))
		s.expect(a.space.Netlink().RouteAdd(&netlink.Route{
			Dst: ipNet(netip.MustParsePrefix("198.51.100.0/24")), LinkIndex: pod.Attrs().Index, Scope: netlink.SCOPE_LINK,
		}))
		s.expect(a.space.Netlink().LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "net1"}}))
		s.expect(s.node.Netlink().LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "other0"}}))
		s.quiet("CHECK", s.check(a, conf, res))
	}},
	{"A5.44b", must, "CHECK puts up with a changed MAC and further interfaces if prevResult has them", func(s *stage) {
		conf := s.conf("1.1.0")
		a, res := s.attach("a", conf)
		const mac = "02:01:02:03:04:05"
		address, err := net.ParseMAC(mac)
		s.expect(err)
		s.expect(a.space.Netlink().LinkSetHardwareAddr(links(a.space)[a.ifname], address))
		var changed []object
		for _, i := range res.Interfaces {
			if i.Name == a.ifname {
				i.Mac = mac
			}
			changed = append(changed, object{"name": i.Name, "mac": i.Mac, "sandbox": i.Sandbox})
		}
		changed = append(changed, object{"name": "ifb77", "mac": "02:00:00:00:00:77"})
		final := with(res.fields(), object{"interfaces": changed})
		s.quiet("CHECK", s.exec("CHECK", a, with(conf, object{"prevResult": final})))
	}},
	{"A5.45", should, "CHECK of a container that was never attached is an error", func(s *stage) {
		conf := s.conf("1.1.0")
		a, res := s.attach("a", conf)
		s.quiet("CHECK", s.check(a, conf, res))
		stranger := s.pod("stranger")
		s.fails("CHECK of a stranger", s.check(stranger, conf, res))
	}},
	{"A5.45b", should, "CHECK with a CNI_NETNS that is not the sandbox of prevResult is an error", func(s *stage) {
		conf := s.conf("1.1.0")
		a, res := s.attach("a", conf)
		s.quiet("CHECK", s.check(a, conf, res))
		s.fails("CHECK in an empty pod", s.check(a.via(s.pod("empty").netns), conf, res))
		s.fails("CHECK in the host's namespace", s.check(a.via(s.node.Path), conf, res))
		s.fails("CHECK in nothing", s.check(a.via("/run/netns/nothing-there"), conf, res))
	}},
	{"A5.48", must, "CHECK succeeds right after ADD, in every version that has it", func(s *stage) {
		for _, version := range []string{"0.4.0", "1.0.0", "1.1.0"} {
			conf := s.dual(version)
			a, res := s.attach("a"+version, conf)
			s.quiet("CHECK with "+version, s.check(a, conf, res))
		}
	}},
	{"A5.49", must, "CHECK finds a route in the table and with the priority that it was configured with", func(s *stage) {
		conf := withIPAM(s.conf("1.1.0"), object{"routes": []object{
			{"dst": "0.0.0.0/0"}, {"dst": "192.0.2.0/24", "priority": 77}, {"dst": "198.51.100.0/24", "table": 100},
		}})
		a, res := s.attach("a", conf)
		s.quiet("CHECK", s.check(a, conf, res))
	}},
	{"A5.50", must, "CHECK changes nothing", func(s *stage) {
		conf := s.dual("1.1.0")
		a, res := s.attach("a", conf)
		before := s.look(a)
		s.quiet("CHECK", s.check(a, conf, res))
		s.expect(a.space.Netlink().LinkSetDown(links(a.space)[a.ifname]))
		down := s.look(a)
		s.check(a, conf, res)
		s.unchanged("CHECK of a broken pod", down, a)
		if down.pods[a.id] == before.pods[a.id] {
			s.failf("the pod's interface did not go down")
		}
	}},
}
