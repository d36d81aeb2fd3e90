package conformance

import "fmt"

var lifecycleItems = []item{
	{"A12.80", must, "DEL frees everything although the configuration changed since ADD", func(s *stage) {
		conf := s.dual("1.1.0")
		for i, changed := range []object{
			s.conf("1.1.0"), // one family less
			withIPAM(conf, object{"ranges": [][]object{{{"subnet": "10.44.0.0/24"}}}}),
			withIPAM(conf, object{"routes": nil}),
			with(conf, object{"mtu": 1300, "dns": object{"domain": "x"}}),
			with(conf, object{"cniVersion": "0.3.1"}),
			with(conf, object{"ipMasq": true}),
		} {
			a := s.pod(fmt.Sprint(i))
			before := s.look(a)
			res := s.add(a, conf)
			released(s, a, changed, res)
			s.nothingLeft(fmt.Sprintf("DEL with changed configuration %d", i), before, a)
		}
	}},
	{"A12.80b", must, "DEL frees everything although the range is smaller now and CNI_NETNS is gone", func(s *stage) {
		conf := s.dual("1.1.0")
		a, res := s.attach("a", conf)
		s.vanish(a)
		released(s, a.via(""), s.single("1.1.0"), res)
	}},
	{"A12.82", must, "DEL frees everything after an ADD that was killed once it had an address", func(s *stage) {
		conf := s.recorder(s.conf("1.1.0"), script{Kill: "ADD"})
		a := s.pod("a")
		before := s.look(a)
		if r := s.exec("ADD", a, conf); r.exit != -1 {
			s.failf("ADD was not killed: %v", r)
		}
		s.del(a, s.recorder(conf, script{}))
		s.nothingLeft("DEL", before, a)
		if n := len(s.recordings("DEL")); n != 1 {
			s.failf("IPAM was asked %d times to DEL", n)
		}
		s.works(a, s.add(a, s.recorder(conf, script{})))
	}},
	{"A12.82b", must, "a DEL that was killed can be repeated", func(s *stage) {
		conf := s.recorder(s.conf("1.1.0"), script{})
		a := s.pod("a")
		before := s.look(a)
		s.add(a, conf)
		if r := s.exec("DEL", a, s.recorder(conf, script{Kill: "DEL"})); r.exit != -1 {
			s.failf("DEL was not killed: %v", r)
		}
		s.del(a, conf)
		s.nothingLeft("DEL", before, a)
	}},
	{"A12.83", must, "the same attachment can be added and deleted over and over", func(s *stage) {
		conf := s.dual("1.1.0")
		a := s.pod("a")
		before := s.look(a)
		for range 5 {
			res := s.add(a, conf)
			s.works(a, res)
			released(s, a, conf, res)
		}
		s.nothingLeft("DEL", before, a)
	}},
	{"A12.84", must, "a range of two addresses serves any number of pods, one after the other", func(s *stage) {
		conf := s.conf("1.1.0")
		conf = withIPAM(conf, object{"ranges": [][]object{{{"subnet": "10.1.2.0/29", "rangeStart": "10.1.2.2", "rangeEnd": "10.1.2.3"}}}})
		for i := range 6 {
			a, res := s.attach(fmt.Sprint(i), conf)
			s.works(a, res)
			s.del(a.via(""), conf)
		}
	}},
}
