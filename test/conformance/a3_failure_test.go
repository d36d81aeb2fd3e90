package conformance

import (
	"net/netip"
	"os"
	"path/filepath"

	"github.com/vishvananda/netlink"
)

// failsWithoutTrace demands that ADD fails, and that neither it nor the DEL
// that follows leaves or removes anything.
func failsWithoutTrace(s *stage, what string, a attachment, conf object, r request) {
	before := s.look(a)
	e := s.fails(what, s.run(r))
	if e.Code == errorUnknownContainer {
		s.failf("%s: code %d makes the runtime skip the clean-up: %s", what, e.Code, e.text())
	}
	s.nothingLeft(what, before, a)
	if left := s.reservations(network); len(left) > 0 {
		s.failf("%s left reservations: %v", what, left)
	}
	s.del(a, conf)
	s.nothingLeft("DEL after "+what, before, a)
}

// addFailureItems are about ADDs that cannot succeed.
var addFailureItems = []item{
	{"A3.28", must, "an interface that is in the pod already is an error, and nothing is left behind", func(s *stage) {
		a := s.pod("a")
		s.expect(a.space.Netlink().LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: a.ifname}}))
		before := s.look(a)
		s.fails("ADD", s.exec("ADD", a, s.conf("1.1.0")))
		s.nothingLeft("ADD", before, a)
		if left := s.reservations(network); len(left) > 0 {
			s.failf("ADD left reservations: %v", left)
		}
	}},
	{"A3.29", must, "a name that cannot be used is an error, and nothing is left behind", func(s *stage) {
		a := s.pod("a").named("lo") // which every pod has
		before := s.look(a)
		s.fails("ADD of lo", s.exec("ADD", a, s.conf("1.1.0")))
		s.nothingLeft("ADD of lo", before, a)
		if left := s.reservations(network); len(left) > 0 {
			s.failf("ADD left reservations: %v", left)
		}
	}},
	{"A3.31", must, "ADD into a CNI_NETNS that does not exist leaves nothing", func(s *stage) {
		a, conf := s.pod("a"), s.conf("1.1.0")
		gone := a.via("/run/netns/nothing-there")
		failsWithoutTrace(s, "ADD into nothing", gone, conf, s.request("ADD", gone, conf))
	}},
	{"A3.31b", must, "ADD into a CNI_NETNS that is a regular file leaves nothing", func(s *stage) {
		a, conf := s.pod("a"), s.conf("1.1.0")
		file := filepath.Join(s.scratch, "file")
		s.expect(os.WriteFile(file, nil, 0o644))
		failsWithoutTrace(s, "ADD into a file", a.via(file), conf, s.request("ADD", a.via(file), conf))
	}},
	{"A3.31c", must, "ADD that is not allowed to switch forwarding on fails and leaves nothing", func(s *stage) {
		a, conf := s.pod("a"), s.conf("1.1.0")
		r := s.request("ADD", a, conf)
		r.confine = func() error { return readOnly("/proc/sys/net/ipv4/ip_forward") }
		failsWithoutTrace(s, "ADD without forwarding", a, conf, r)
	}},
	{"A3.31d", must, "ADD with an MTU that the kernel refuses leaves nothing", func(s *stage) {
		a, conf := s.pod("a"), with(s.conf("1.1.0"), object{"mtu": 70000})
		failsWithoutTrace(s, "ADD with mtu 70000", a, conf, s.request("ADD", a, conf))
	}},
	{"A3.31e", must, "ADD whose second family the kernel refuses leaves nothing of the first", func(s *stage) {
		a, conf := s.pod("a"), with(s.dual("1.1.0"), object{"mtu": 1000}) // IPv6 needs 1280
		failsWithoutTrace(s, "ADD with mtu 1000", a, conf, s.request("ADD", a, conf))
	}},
	{"A3.31f", must, "ADD with a route that the kernel refuses leaves nothing", func(s *stage) {
		a, conf := s.pod("a"), s.conf("1.1.0")
		// A route with a next hop cannot have the scope of a host.
		conf = withIPAM(conf, object{"routes": []object{{"dst": "192.0.2.0/24", "gw": gateway4, "scope": 254}}})
		failsWithoutTrace(s, "ADD with an impossible route", a, conf, s.request("ADD", a, conf))
	}},
	{"A3.31g", must, "ADD with an exhausted range leaves nothing", func(s *stage) {
		conf := s.single("1.1.0")
		a, res := s.attach("a", conf)
		b := s.pod("b")
		before := s.look(a, b)
		s.fails("ADD with the range exhausted", s.exec("ADD", b, conf))
		s.unchanged("ADD with the range exhausted", before, a, b)
		s.del(b, conf)
		s.unchanged("DEL after it", before, a, b)
		if files := s.mentions(b.id); len(files) > 0 {
			s.failf("it left the container's id in %v", files)
		}
		s.works(a, res)
	}},
	{"A3.31h", must, "where one family's range is exhausted, ADD reserves nothing of the other", func(s *stage) {
		conf := s.single("1.1.0")
		ranges := [][]object{{{"subnet": subnet6}}, conf["ipam"].(object)["ranges"].([][]object)[0]}
		conf = withIPAM(conf, object{"ranges": ranges})
		a, _ := s.attach("a", conf)
		b := s.pod("b")
		before := s.look(a, b)
		s.fails("ADD with IPv4 exhausted", s.exec("ADD", b, conf))
		s.unchanged("ADD with IPv4 exhausted", before, a, b)
		if held := s.reservations(network); len(held) != 2 {
			s.failf("two addresses are in use, reserved are %v", held)
		}
	}},
	{"A3.31i", must, "where the host has a route for the address to another device, ADD works or leaves all as it was", func(s *stage) {
		a, conf := s.pod("a"), s.single("1.1.0")
		target := only(netip.MustParseAddr("10.1.2.5"))
		uplink := links(s.node.Namespace)["eth0"].Attrs().Index
		foreign := &netlink.Route{Dst: ipNet(target), LinkIndex: uplink, Scope: netlink.SCOPE_LINK}
		s.expect(s.node.Netlink().RouteAdd(foreign))
		before := s.look(a)
		r := s.exec("ADD", a, conf)
		if r.exit == 0 {
			s.works(a, s.added(r))
			return
		}
		s.fails("refused ADD", r)
		s.nothingLeft("refused ADD", before, a)
		if left := s.reservations(network); len(left) > 0 {
			s.failf("refused ADD left reservations: %v", left)
		}
	}},
	{"A3.32", should, "a second ADD of the same attachment is an error and leaves the first intact", func(s *stage) {
		conf := s.dual("1.1.0")
		a, res := s.attach("a", conf)
		before, held := s.look(a), len(s.reservations(network))
		s.fails("second ADD", s.exec("ADD", a, conf))
		s.unchanged("second ADD", before, a)
		if now := s.reservations(network); len(now) != held {
			s.failf("%d reservations before the second ADD, after it %v", held, now)
		}
		s.quiet("CHECK of the first ADD", s.check(a, conf, res))
		s.works(a, res)
		s.del(a, conf)
		if left := s.reservations(network); len(left) > 0 {
			s.failf("reservations after DEL: %v", left)
		}
	}},
	{"A3.36", must, "a configuration of IPAM that makes no sense is an error, and nothing is left behind", func(s *stage) {
		a, conf := s.pod("a"), s.conf("1.1.0")
		before := s.look(a)
		for value, ranges := range badRanges {
			s.fails("ADD with "+value, s.exec("ADD", a, withIPAM(conf, object{"ranges": ranges})))
			s.nothingLeft("ADD with "+value, before, a)
		}
	}},
}

// badRanges are ranges that make no sense, by the value that does not.
var badRanges = map[string][][]object{
	"10.1.2.3/24":  {{{"subnet": "10.1.2.3/24"}}},                                             // host bits set
	"10.7.7.7":     {{{"subnet": subnet4, "rangeStart": "10.7.7.7"}}},                         // outside
	"not-a-subnet": {{{"subnet": "not-a-subnet"}}},                                            // no address
	"10.1.2.9":     {{{"subnet": subnet4, "rangeStart": "10.1.2.9", "rangeEnd": "10.1.2.8"}}}, // backwards
}
