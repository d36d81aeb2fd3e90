package conformance

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
)

// collected demands that nothing of an attachment is left on the node.
func collected(s *stage, what string, a attachment, res result) {
	for _, address := range res.addresses() {
		if _, held := s.reservations(network)[address]; held {
			s.failf("%s: %v of a stale attachment is still reserved", what, address)
		}
		if left := routesTo(s.node.Namespace, only(address)); len(left) > 0 {
			s.failf("%s: the node still has a route for stale %v: %v", what, address, left)
		}
	}
	host, err := res.host()
	s.expect(err)
	if links(s.node.Namespace)[host] != nil {
		s.failf("%s: the host's interface %s of a stale attachment is still there", what, host)
	}
	if files := s.mentions(a.id); len(files) > 0 {
		s.failf("%s: the container's id is still in %v", what, files)
	}
}

var gcItems = []item{
	{"A7.56", must, "GC with a configuration older than 1.1.0 is refused with code 1 and does nothing", func(s *stage) {
		for _, version := range []string{"0.1.0", "0.3.1", "0.4.0", "1.0.0"} {
			conf := s.conf(version)
			a := s.pod("a" + version)
			res := s.add(a, conf)
			before := s.look(a)
			s.failsWith("GC with "+version, errorVersion, s.gc(conf, nil))
			s.unchanged("GC with "+version, before, a)
			s.works(a, res)
		}
	}},
	{"A7.57", must, "GC takes the list of valid attachments from cni.dev/valid-attachments", func(s *stage) {
		keepsAndFrees(s, "cni.dev/valid-attachments")
	}},
	{"A7.57b", should, "GC takes the list from cni.dev/attachments where it comes alone", func(s *stage) {
		keepsAndFrees(s, "cni.dev/attachments")
	}},
	{"A7.57c", should, "GC prefers cni.dev/valid-attachments to cni.dev/attachments", func(s *stage) {
		conf := s.dual("1.1.0")
		live, res := s.attach("live", conf)
		stale, old := s.attach("stale", conf)
		s.quiet("GC", s.collect(with(conf, object{
			"cni.dev/valid-attachments": []object{{"containerID": live.id, "ifname": live.ifname}},
			"cni.dev/attachments":       []object{{"containerID": stale.id, "ifname": stale.ifname}},
		})))
		collected(s, "GC", stale, old)
		s.works(live, res)
	}},
	{"A7.58", must, "GC with no list at all hurts no pod that is alive", func(s *stage) {
		conf := s.dual("1.1.0")
		a, res := s.attach("a", conf)
		before := s.look(a)
		s.quiet("GC", s.collect(conf))
		intact(s, "GC", a, conf, res, before)
	}},
	{"A7.58b", should, "GC with an empty list frees every attachment of the network", func(s *stage) {
		conf := s.dual("1.1.0")
		before := s.look()
		a, one := s.attach("a", conf)
		b, two := s.attach("b", conf)
		s.quiet("GC", s.gc(conf, nil))
		collected(s, "GC", a, one)
		collected(s, "GC", b, two)
		s.unchanged("ADD and GC", before)
		if left := s.reservations(network); len(left) > 0 {
			s.failf("reservations after GC: %v", left)
		}
	}},
	{"A7.59", must, "GC frees what is stale of its own network and leaves other networks alone", func(s *stage) {
		conf := s.dual("1.1.0")
		neighbour := withIPAM(with(conf, object{"name": "neighbour"}), object{"ranges": [][]object{{{"subnet": "10.3.3.0/24"}}}, "routes": nil})
		a, res := s.attach("a", conf)
		b, other := s.attach("b", neighbour)
		pod := snapshot(b.space)
		s.quiet("GC", s.gc(conf, nil))
		collected(s, "GC", a, res)
		if now := snapshot(b.space); now != pod {
			s.failf("GC changed a pod of another network: %s", difference(pod, now))
		}
		if len(s.reservations("neighbour")) != 1 {
			s.failf("GC released addresses of another network: %v", s.reservations("neighbour"))
		}
		s.quiet("CHECK", s.check(b, neighbour, other))
		s.works(b, other)
	}},
	{"A7.59b", must, "GC tells interfaces of one container apart", func(s *stage) {
		conf := s.dual("1.1.0")
		a, res := s.attach("a", conf)
		old := s.add(a.named("net1"), s.second())
		s.quiet("GC", s.gc(conf, []attachment{a}))
		for _, address := range old.addresses() {
			if _, held := s.reservations(network)[address]; held {
				s.failf("%v of the stale interface is still reserved", address)
			}
		}
		s.quiet("CHECK", s.check(a, conf, res))
		s.works(a, res)
	}},
	{"A7.60", should, "GC frees reservations whose pod and interface are gone", func(s *stage) {
		conf := s.dual("1.1.0")
		live, kept := s.attach("live", conf)
		stale, old := s.attach("stale", conf)
		s.expect(stale.space.Netlink().LinkDel(links(stale.space)[stale.ifname]))
		s.vanish(stale)
		s.quiet("GC", s.gc(conf, []attachment{live}))
		collected(s, "GC", stale, old)
		s.works(live, kept)
	}},
	{"A7.61", must, "GC goes on after an error, and reports it", func(s *stage) {
		// The IPAM plugin fails; the stale interface has to go nevertheless.
		conf := s.recorder(s.conf("1.1.0"), script{
			Fail:  map[string]bool{"GC": true},
			Reply: map[string]object{"GC": {"code": 130, "msg": "the broom is broken"}},
		})
		a, res := s.attach("a", conf)
		s.fails("GC", s.gc(conf, nil))
		host, err := res.host()
		s.expect(err)
		if links(s.node.Namespace)[host] != nil || len(routesTo(s.node.Namespace, only(recorded.Addr()))) > 0 {
			s.failf("interface or route of the stale attachment are still there: %s", a.id)
		}
	}},
	{"A7.62", must, "GC is forwarded to the IPAM plugin with the list", func(s *stage) {
		conf := s.recorder(s.conf("1.1.0"), script{})
		a, _ := s.attach("a", conf)
		s.quiet("GC", s.gc(conf, []attachment{a}))
		asked := s.recordings("GC")
		if len(asked) != 1 {
			s.failf("IPAM was asked %d times", len(asked))
		}
		if !containsAll(string(asked[0].Stdin), "cni.dev/valid-attachments", a.id) {
			s.failf("IPAM was not given the list: %s", asked[0].Stdin)
		}
	}},
	{"A7.64", must, "GC with no list, again and again while pods are attached, hurts none of them", func(s *stage) {
		conf := s.conf("1.1.0")
		pods := make([]attachment, 8)
		for i := range pods {
			pods[i] = s.pod(fmt.Sprint(i))
		}
		replies := make([]reply, len(pods))
		collections := make(chan reply, 2*len(pods))
		var wait sync.WaitGroup
		for i, a := range pods {
			wait.Go(func() {
				replies[i] = s.exec("ADD", a, conf)
				collections <- s.collect(conf)
				collections <- s.collect(conf)
			})
		}
		wait.Wait()
		close(collections)
		for r := range collections {
			s.quiet("GC", r)
		}
		for i, a := range pods {
			res := s.added(replies[i])
			s.quiet("CHECK", s.check(a, conf, res))
			s.works(a, res)
		}
	}},
	{"A7.65", should, "GC leaves files alone that are not reservations", func(s *stage) {
		conf := s.dual("1.1.0")
		a, res := s.attach("a", conf)
		directory := filepath.Join(s.dataDir(), network)
		foreign := []string{"last_reserved_ip.0", "lock", "README"}
		for _, name := range foreign {
			path := filepath.Join(directory, name)
			if _, err := os.Stat(path); err != nil {
				s.expect(os.WriteFile(path, []byte(gateway4), 0o600))
			}
		}
		s.quiet("GC", s.gc(conf, nil))
		collected(s, "GC", a, res)
		for _, name := range foreign {
			if _, err := os.Stat(filepath.Join(directory, name)); err != nil {
				s.failf("%v", err)
			}
		}
		s.attach("next", conf)
	}},
	{"A7.65b", should, "GC keeps an old reservation that names a valid container but no interface", func(s *stage) {
		conf := s.dual("1.1.0")
		live, _ := s.attach("live", conf)
		stale, old := s.attach("stale", conf)
		legacy := netip.MustParseAddr("10.1.2.99")
		s.expect(os.WriteFile(s.record(legacy), []byte(live.id), 0o600))
		s.quiet("GC", s.gc(conf, []attachment{live}))
		collected(s, "GC", stale, old)
		if _, held := s.reservations(network)[legacy]; !held {
			s.failf("%v was released", legacy)
		}
	}},
	{"A7.67", should, "GC in a world where nothing was ever attached succeeds", func(s *stage) {
		before := s.look()
		s.quiet("GC with no list", s.collect(s.dual("1.1.0")))
		s.quiet("GC with an empty list", s.gc(s.dual("1.1.0"), nil))
		s.unchanged("GC", before)
	}},
}

// keepsAndFrees demands that GC keeps just what is on the list under a key.
func keepsAndFrees(s *stage, key string) {
	conf := s.dual("1.1.0")
	live, kept := s.attach("live", conf)
	stale, old := s.attach("stale", conf)
	s.quiet("GC", s.collect(with(conf, object{key: []object{{"containerID": live.id, "ifname": live.ifname}}})))
	collected(s, "GC", stale, old)
	for _, address := range kept.addresses() {
		if !s.reserved(address, live) {
			s.failf("GC released %v of a valid attachment", address)
		}
	}
	s.quiet("CHECK", s.check(live, conf, kept))
	s.works(live, kept)
}
