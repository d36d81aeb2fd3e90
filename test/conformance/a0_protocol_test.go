package conformance

import (
	"maps"
	"strings"
)

var protocolItems = []item{
	{"A0.1", must, "the result of ADD is JSON on stdout, an error is JSON on stdout too", func(s *stage) {
		a, _ := s.attach("a", s.conf("1.1.0"))
		s.fails("ADD of what exists", s.exec("ADD", a, s.conf("1.1.0")))
	}},
	{"A0.2", must, "exit code 0 means success, any other failure, for every verb", func(s *stage) {
		conf := s.conf("1.1.0")
		a, res := s.attach("a", conf)
		s.quiet("CHECK", s.check(a, conf, res))
		s.quiet("STATUS", s.exec("STATUS", attachment{}, conf))
		s.quiet("GC", s.gc(conf, []attachment{a}))
		s.del(a, conf)
		for _, verb := range []string{"ADD", "CHECK", "DEL", "STATUS", "GC"} {
			r := s.request(verb, a, conf)
			r.stdin = []byte("{")
			s.fails(verb+" with half a configuration", s.run(r))
		}
	}},
	{"A0.2b", should, "every failure comes with an error object", func(s *stage) {
		conf := s.conf("1.1.0")
		a := s.pod("a")
		s.fails("ADD without network name", s.exec("ADD", a, with(conf, object{"name": nil})))
		s.fails("ADD into nothing", s.exec("ADD", a.via("/run/netns/nothing-there"), conf))
		s.fails("CHECK of nothing", s.exec("CHECK", a, conf))
		s.fails("ADD without configuration of IPAM", s.exec("ADD", a, withIPAM(conf, object{"ranges": "none"})))
	}},
	{"A0.3", must, "stdout is one JSON document for ADD and VERSION, and empty for DEL, CHECK, STATUS and GC", func(s *stage) {
		conf := s.dual("1.1.0")
		a, res := s.attach("a", conf)
		version := s.exec("VERSION", attachment{}, conf)
		if found, err := documents(version.stdout); err != nil || len(found) != 1 {
			s.failf("VERSION: %v", version)
		}
		s.quiet("CHECK", s.check(a, conf, res))
		s.quiet("STATUS", s.exec("STATUS", attachment{}, conf))
		s.quiet("GC", s.gc(conf, []attachment{a}))
		s.quiet("DEL", s.exec("DEL", a, conf))
		s.quiet("DEL, again", s.exec("DEL", a, conf))
	}},
	{"A0.5", should, "no process stays behind that holds stdout", func(s *stage) {
		// A reply says that it is broken if stdout did not end with the process.
		addAndDel(s, func(request) {})
		s.quiet("STATUS", s.exec("STATUS", attachment{}, s.conf("1.1.0")))
	}},
	{"A0.6", must, "variables that the plugin does not know do not matter", func(s *stage) {
		addAndDel(s, func(r request) {
			maps.Copy(r.env, map[string]string{
				"TRACEPARENT": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
				"TRACESTATE":  "a=b", "BAGGAGE": "user=1", "CNI_UNHEARD_OF": "yes",
				"HOME": "/nowhere/at/all", "LANG": "tlh_AQ.UTF-8", "GODEBUG": "nonsense=1", "TMPDIR": "/nowhere",
				"LONG": strings.Repeat("x", 1<<16),
			})
		})
	}},
	{"A0.6b", should, "the CNI variables alone suffice, without PATH and HOME", func(s *stage) {
		addAndDel(s, func(r request) { delete(r.env, "PATH") })
	}},
}

// addAndDel demands that a pod can be attached and detached, with something
// changed in the requests.
func addAndDel(s *stage, change func(request)) {
	conf := s.conf("1.1.0")
	a := s.pod("a")
	before := s.look(a)
	r := s.request("ADD", a, conf)
	change(r)
	s.works(a, s.added(s.run(r)))
	r = s.request("DEL", a, conf)
	change(r)
	s.quiet("DEL", s.run(r))
	s.nothingLeft("DEL", before, a)
}
