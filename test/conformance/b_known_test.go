package conformance

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// knownWrongItems are about what plugins are known to get wrong, as far as it
// is not among the items on CHECK, GC, DEL and failing ADDs.
var knownWrongItems = []item{
	{"B1", must, "an address that was released without CNI_NETNS leads to its new pod, though the old one is still there", func(s *stage) {
		conf := s.single("1.1.0")
		old, res := s.attach("old", conf)
		address := s.of(res, false)
		s.works(old, res)
		s.del(old.via(""), conf)
		young, now := s.attach("new", conf)
		if s.of(now, false) != address {
			s.failf("the only address is %v, the new pod got %v", address, s.of(now, false))
		}
		s.works(young, now)
		s.quiet("CHECK", s.check(young, conf, now))
	}},
	{"B2", must, "ADD whose CNI_NETNS is the plugin's own namespace is refused with one error of code 8, before anything happens", func(s *stage) {
		conf := s.dual("1.1.0")
		a := s.pod("a").via(s.node.Path)
		for _, ifname := range []string{"net7", "eth0"} {
			before := s.look()
			s.failsWith("ADD of "+ifname, errorNetns, s.exec("ADD", a.named(ifname), conf))
			s.unchanged("ADD of "+ifname, before)
			if left := s.reservations(network); len(left) > 0 {
				s.failf("ADD of %s left reservations: %v", ifname, left)
			}
		}
	}},
	{"B2b", must, "DEL whose CNI_NETNS is the plugin's own namespace is refused with one error of code 8, before anything happens", func(s *stage) {
		conf := s.dual("1.1.0")
		a, res := s.attach("a", conf)
		before := s.look(a)
		held := len(s.reservations(network))
		s.failsWith("DEL", errorNetns, s.exec("DEL", a.via(s.node.Path), conf))
		s.unchanged("DEL", before, a)
		if now := s.reservations(network); len(now) != held {
			s.failf("DEL released something: %d reservations before, after it %v", held, now)
		}
		s.works(a, res)
	}},
	{"B3", must, "priority, table and scope of a configured route reach the kernel, and the result", func(s *stage) {
		routed(s, []object{{"dst": "192.0.2.0/24", "priority": 77, "table": 100, "scope": 200}}, func(r netlink.Route) bool {
			return r.Priority == 77 && r.Table == 100 && r.Scope == 200
		})
	}},
	{"B3b", must, "mtu and advmss of a configured route reach the kernel, and the result", func(s *stage) {
		routed(s, []object{{"dst": "192.0.2.0/24", "mtu": 1300, "advmss": 1200}}, func(r netlink.Route) bool {
			return r.MTU == 1300 && r.AdvMSS == 1200
		})
	}},
	{"B3c", must, "mtu, advmss, priority and table of a configured IPv6 route reach the kernel, and the result", func(s *stage) {
		routed(s, []object{{"dst": "2001:db8:9::/48", "mtu": 1300, "advmss": 1200, "priority": 77, "table": 100}}, func(r netlink.Route) bool {
			return r.MTU == 1300 && r.AdvMSS == 1200 && r.Priority == 77 && r.Table == 100
		})
	}},
	{"B4", should, "the result has the mtu of every interface", func(s *stage) {
		a, res := s.attach("a", s.conf("1.1.0"))
		for _, i := range res.Interfaces {
			space := s.node.Namespace
			if i.Sandbox != "" {
				space = a.space
			}
			link := links(space)[i.Name]
			if link == nil {
				s.failf("%s does not exist: %s", i.Name, res.raw)
			}
			if link.Attrs().MTU != i.MTU {
				s.failf("%s: mtu %d in the result, %d in the kernel", i.Name, i.MTU, link.Attrs().MTU)
			}
		}
	}},
	{"B5", should, "ADD with IPv6 does not wait for duplicate address detection, and the address is usable at once", func(s *stage) {
		s.expect(s.node.SetSysctl("net/ipv6/conf/default/accept_dad", "1"))
		for i := range 3 {
			usableAtOnce(s, i)
		}
	}},
	{"B5b", should, "the first packet to a pod is not lost, however soon after ADD it comes", func(s *stage) {
		conf := s.conf("1.1.0")
		for i := range 16 {
			a := s.pod(fmt.Sprint(i))
			s.firstPacket(a, s.of(s.add(a, conf), false))
		}
	}},
	{"B6", should, "an error about a bad variable names the value", func(s *stage) {
		a := s.pod("a")
		for name, values := range map[string][]string{"CNI_CONTAINERID": badIDs, "CNI_IFNAME": badNames} {
			for _, value := range values {
				e := s.fails(name, s.run(setting(s.request("ADD", a, s.conf("1.1.0")), name, value)))
				if !names(e, value) {
					s.failf("%s=%q: %s", name, value, e.text())
				}
			}
		}
	}},
	{"B6b", should, "an error about a bad configuration names the value", func(s *stage) {
		a, conf := s.pod("a"), s.conf("1.1.0")
		for value, ranges := range badRanges {
			if e := s.fails("ADD with "+value, s.exec("ADD", a, withIPAM(conf, object{"ranges": ranges}))); !names(e, value) {
				s.failf("%s: %s", value, e.text())
			}
		}
		for _, value := range []string{"a b", "../escape", "-a"} {
			if e := s.fails("ADD with name "+value, s.exec("ADD", a, with(conf, object{"name": value}))); !names(e, value) {
				s.failf("name %s: %s", value, e.text())
			}
		}
	}},
}

// names says whether an error has a value in it, as it is or quoted.
func names(e cniError, value string) bool {
	return strings.Contains(e.text(), value) || strings.Contains(e.text(), strings.Trim(strconv.Quote(value), `"`))
}

// usableAtOnce demands that the IPv6 address of a new pod takes packets when ADD
// is done, and that nothing was waited for: an address that the kernel is told not to
// look for elsewhere has no duplicate address detection, which takes a second or two.
func usableAtOnce(s *stage, attempt int) {
	a := s.pod(fmt.Sprint("both", attempt))
	r := s.exec("ADD", a, s.dual("1.1.0"))
	res := s.added(r)
	address := s.of(res, true)
	for _, k := range addressesOn(a.space, a.ifname) {
		switch {
		case !k.IP.Equal(address.AsSlice()):
		case k.Flags&unix.IFA_F_TENTATIVE != 0:
			s.failf("%v is still tentative", address)
		case k.Flags&unix.IFA_F_NODAD == 0:
			s.failf("%v went through duplicate address detection; ADD took %v", address, r.took.Round(time.Millisecond))
		}
	}
	s.firstPacket(a, address)
	s.works(a, res)
	s.expect(ping(a.space, address, netip.MustParseAddr(gateway6)))
}

// firstPacket demands that a single datagram from the node to the pod is answered.
func (s *stage) firstPacket(a attachment, address netip.Addr) {
	port, stop := s.answering(a.space, address, a.space.Name)
	defer stop()
	s.expect(askOnce(s.node.Namespace, netip.AddrPortFrom(address, port)))
}

// errorNetns is the library's code for an invalid network namespace.
const errorNetns = 8

// routed demands that the pod gets a configured route with its attributes, and
// that the result says so.
func routed(s *stage, configured []object, as func(netlink.Route) bool) {
	conf := s.dual("1.1.0")
	all := slices.Concat(conf["ipam"].(object)["routes"].([]object), configured)
	conf = withIPAM(conf, object{"routes": all})
	a, res := s.attach("a", conf)
	for _, c := range configured {
		dst := netip.MustParsePrefix(c["dst"].(string))
		found := routesTo(a.space, dst)
		if !slices.ContainsFunc(found, as) {
			s.failf("configured is %v, the pod has %v", c, found)
		}
		if !slices.ContainsFunc(res.fields()["routes"].([]any), func(r any) bool { return includes(r.(object), asObject(c)) }) {
			s.failf("configured is %v, the result %s", c, res.raw)
		}
	}
}

// includes says whether an object has all keys of another with the same values.
func includes(whole, part object) bool {
	for key, value := range part {
		if whole[key] != value {
			return false
		}
	}
	return true
}
