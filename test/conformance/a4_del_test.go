package conformance

import (
	"os"
	"path/filepath"
)

// released demands that an attachment's DEL succeeds, and that it frees all of
// its addresses.
func released(s *stage, a attachment, conf object, res result) {
	s.del(a, conf)
	for _, address := range res.addresses() {
		if _, held := s.reservations(network)[address]; held {
			s.failf("%v is still reserved after DEL", address)
		}
		if left := routesTo(s.node.Namespace, only(address)); len(left) > 0 {
			s.failf("the node has a route for %v after DEL: %v", address, left)
		}
	}
	if files := s.mentions(a.id); len(files) > 0 {
		s.failf("DEL left the container's id in %v", files)
	}
}

// delItems are about what DEL must put up with.
var delItems = []item{
	{"A4.35", must, "DEL leaves nothing of an ADD in the pod, on the node and in the state files", func(s *stage) {
		conf := s.dual("1.1.0")
		a := s.pod("a")
		before := s.look(a)
		res := s.add(a, conf)
		released(s, a, conf, res)
		s.nothingLeft("DEL", before, a)
	}},
	{"A4.36", must, "DEL succeeds with CNI_NETNS empty or unset and releases the addresses", func(s *stage) {
		conf := s.dual("1.1.0")
		a, res := s.attach("a", conf)
		s.vanish(a)
		released(s, a.via(""), conf, res)
		b, res := s.attach("b", conf)
		s.vanish(b)
		s.quiet("DEL with CNI_NETNS unset", s.run(without(s.request("DEL", b, conf), "CNI_NETNS")))
		released(s, b, conf, res)
	}},
	{"A4.36b", must, "DEL succeeds with a CNI_NETNS that is gone and releases the addresses", func(s *stage) {
		conf := s.dual("1.1.0")
		a, res := s.attach("a", conf)
		s.vanish(a)
		released(s, a, conf, res)
	}},
	{"A4.36c", must, "DEL succeeds with a CNI_NETNS that is a regular file and releases the addresses", func(s *stage) {
		conf := s.dual("1.1.0")
		a, res := s.attach("a", conf)
		file := filepath.Join(s.scratch, "file")
		s.expect(os.WriteFile(file, nil, 0o644))
		released(s, a.via(file), conf, res)
	}},
	{"A4.36d", must, "DEL succeeds where the interface is gone", func(s *stage) {
		conf := s.dual("1.1.0")
		a, res := s.attach("a", conf)
		s.expect(a.space.Netlink().LinkDel(links(a.space)[a.ifname]))
		released(s, a, conf, res)
	}},
	{"A4.36e", must, "DEL succeeds where the addresses are released already", func(s *stage) {
		conf := s.dual("1.1.0")
		a, res := s.attach("a", conf)
		for _, address := range res.addresses() {
			s.expect(os.Remove(s.record(address)))
		}
		released(s, a, conf, res)
	}},
	{"A4.36f", must, "DEL succeeds where the state directories are gone", func(s *stage) {
		conf := s.dual("1.1.0")
		a, res := s.attach("a", conf)
		before := links(s.node.Namespace)
		s.expect(os.RemoveAll(s.state))
		released(s, a, conf, res)
		if links(a.space)[a.ifname] != nil || len(links(s.node.Namespace)) >= len(before) {
			s.failf("DEL left the interface")
		}
	}},
	{"A4.36g", must, "DEL succeeds where pod, interface, addresses and state are all gone", func(s *stage) {
		conf := s.dual("1.1.0")
		a, res := s.attach("a", conf)
		s.expect(a.space.Netlink().LinkDel(links(a.space)[a.ifname]))
		s.vanish(a)
		s.expect(os.RemoveAll(s.state))
		released(s, a, conf, res)
	}},
	{"A4.37", must, "DEL can be repeated", func(s *stage) {
		conf := s.dual("1.1.0")
		a, res := s.attach("a", conf)
		b, other := s.attach("b", conf)
		for range 3 {
			released(s, a, conf, res)
			released(s, a.via(""), conf, res)
		}
		s.quiet("CHECK of another pod", s.check(b, conf, other))
	}},
	{"A4.37b", must, "DEL succeeds without an ADD, even in an empty world", func(s *stage) {
		a := s.pod("a")
		before := s.look(a)
		for _, netns := range []string{a.netns, "", "/run/netns/nothing-there"} {
			s.del(a.via(netns), s.dual("1.1.0"))
		}
		s.nothingLeft("DEL", before, a)
	}},
	{"A4.40", should, "DEL removes interface and route before it releases the address", func(s *stage) {
		conf := s.recorder(s.conf("1.1.0"), script{})
		a, _ := s.attach("a", conf)
		s.del(a, conf)
		asked := s.recordings("DEL")
		if len(asked) == 0 {
			s.failf("IPAM was not asked to release the address")
		}
		for _, r := range asked {
			if r.Interface || r.Route {
				s.failf("when IPAM was asked to release the address, the pod's interface was there: %v, the host's route: %v", r.Interface, r.Route)
			}
		}
	}},
}
