package conformance

import "slices"

// The codes of STATUS.
const (
	errorUnavailable = 50 // no ADD can be served
	errorDegraded    = 51 // nor may existing pods be connected
)

// unavailable demands that STATUS fails with one of its codes.
func unavailable(s *stage, what string, r reply) {
	if e := s.fails(what, r); !slices.Contains([]uint{errorUnavailable, errorDegraded}, e.Code) {
		s.failf("%s: code %d instead of 50 or 51: %v", what, e.Code, r)
	}
}

// asStatus is a configuration as libcni sends it with STATUS.
func (s *stage) status(conf object) reply {
	return s.run(without(s.request("STATUS", attachment{}, conf), "CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS"))
}

var statusItems = []item{
	{"A6.50", must, "STATUS succeeds where ADD can be served, needs no attachment and changes nothing", func(s *stage) {
		conf := s.dual("1.1.0")
		before := s.look()
		s.quiet("STATUS before the first ADD", s.status(conf))
		s.unchanged("STATUS", before)
		a, res := s.attach("a", conf)
		before = s.look(a)
		s.quiet("STATUS after ADD", s.status(conf))
		s.unchanged("STATUS", before, a)
		s.quiet("CHECK", s.check(a, conf, res))
	}},
	{"A6.50b", must, "STATUS with a configuration older than 1.1.0 is refused with code 1", func(s *stage) {
		for _, version := range []string{"0.1.0", "0.3.1", "0.4.0", "1.0.0"} {
			s.failsWith("STATUS with "+version, errorVersion, s.status(s.conf(version)))
		}
	}},
	{"A6.51", should, "STATUS with a configuration that no ADD can be served with is an error", func(s *stage) {
		conf := withIPAM(s.conf("1.1.0"), object{"ranges": [][]object{{{"subnet": "nonsense"}}}})
		a := s.pod("a")
		s.fails("ADD", s.exec("ADD", a, conf))
		s.fails("STATUS", s.status(conf))
	}},
	{"A6.52", should, "STATUS is an error with code 50 while no address is free", func(s *stage) {
		conf := s.single("1.1.0")
		s.quiet("STATUS", s.status(conf))
		a, _ := s.attach("a", conf)
		unavailable(s, "STATUS with the only address in use", s.status(conf))
		s.del(a, conf)
		s.quiet("STATUS after DEL", s.status(conf))
	}},
	{"A6.52b", should, "STATUS is an error while one of two families has no address free", func(s *stage) {
		conf := s.single("1.1.0")
		ranges := append([][]object{{{"subnet": subnet6}}}, conf["ipam"].(object)["ranges"].([][]object)...)
		conf = withIPAM(conf, object{"ranges": ranges})
		s.quiet("STATUS", s.status(conf))
		s.attach("a", conf)
		unavailable(s, "STATUS with the only IPv4 address in use", s.status(conf))
	}},
	{"A6.53", must, "STATUS is delegated to the IPAM plugin, whose error is passed on", func(s *stage) {
		conf := s.conf("1.1.0")
		s.quiet("STATUS", s.status(s.recorder(conf, script{})))
		if n := len(s.recordings("STATUS")); n != 1 {
			s.failf("IPAM was asked %d times", n)
		}
		e := s.fails("STATUS with IPAM out of order", s.status(s.recorder(conf, script{
			Fail:  map[string]bool{"STATUS": true},
			Reply: map[string]object{"STATUS": {"code": 51, "msg": "the pool is on fire"}},
		})))
		if e.Code != errorDegraded {
			s.failf("IPAM said code 51, the plugin %d: %s", e.Code, e.text())
		}
	}},
	{"A6.54", must, "ADD and DEL are served after a STATUS that failed", func(s *stage) {
		conf := s.recorder(s.conf("1.1.0"), script{
			Fail:  map[string]bool{"STATUS": true},
			Reply: map[string]object{"STATUS": {"code": 50, "msg": "not now"}},
		})
		s.fails("STATUS", s.status(conf))
		a := s.pod("a")
		before := s.look(a)
		s.works(a, s.add(a, conf))
		s.del(a, conf)
		s.nothingLeft("DEL", before, a)
	}},
}
