package conformance

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
)

// errorUnknownContainer tells the runtime that there is nothing to clean up.
const errorUnknownContainer = 3

// mishaps are errors of many kinds.
func mishaps(s *stage) map[string]reply {
	conf := s.conf("1.1.0")
	a, _ := s.attach("a", conf)
	b := s.pod("b")
	unnamed := with(conf, object{"name": nil})
	return map[string]reply{
		"unknown verb":         s.exec("BOGUS", b, conf),
		"no network name":      s.exec("ADD", b, unnamed),
		"unsupported version":  s.exec("ADD", b, s.conf("9.8.7")),
		"no netns":             s.exec("ADD", b.via("/run/netns/nothing-there"), conf),
		"existing attachment":  s.exec("ADD", a, conf),
		"CHECK of nothing":     s.exec("CHECK", b, conf),
		"bad interface name":   s.exec("ADD", b.named("a/b"), conf),
		"impossible mtu":       s.exec("ADD", b, with(conf, object{"mtu": 70000})),
		"unknown IPAM plugin":  s.exec("ADD", b, withIPAM(conf, object{"type": "no-such-plugin"})),
		"configuration's type": s.exec("ADD", b, with(conf, object{"mtu": "big"})),
	}
}

var errorItems = []item{
	{"A10.75", must, "an error object has a code and a msg", func(s *stage) {
		for what, r := range mishaps(s) {
			s.fails(what, r)
		}
	}},
	{"A10.75b", should, "an error object has a cniVersion", func(s *stage) {
		for what, r := range mishaps(s) {
			e := s.fails(what, r)
			if !slices.Contains(versions, e.CNIVersion) {
				s.failf("%s: cniVersion %q: %v", what, e.CNIVersion, r)
			}
		}
	}},
	{"A10.76", must, "error codes below 100 are those that the specification or the library has", func(s *stage) {
		for what, r := range mishaps(s) {
			if e := s.fails(what, r); e.Code < 100 && !slices.Contains([]uint{1, 2, 4, 5, 6, 7, 8, 11, 50, 51}, e.Code) {
				s.failf("%s: code %d: %v", what, e.Code, r)
			}
		}
	}},
	{"A10.76b", should, "an error object has only the keys that the specification gives it", func(s *stage) {
		for what, r := range mishaps(s) {
			s.fails(what, r)
			var e object
			s.expect(json.Unmarshal([]byte(r.stdout), &e))
			knows(s, what+": an error object", e, []string{"cniVersion", "code", "msg", "details"})
		}
	}},
	{"A10.77", should, "the code of an IPAM plugin's error is passed on as it is", func(s *stage) {
		good := s.recorder(s.conf("1.1.0"), script{})
		bad := s.recorder(good, script{
			Fail: map[string]bool{"ADD": true, "CHECK": true, "DEL": true},
			Reply: map[string]object{
				"ADD": {"code": 11, "msg": "later"}, "CHECK": {"code": 143, "msg": "not yours"}, "DEL": {"code": 144, "msg": "busy"},
			},
		})
		s.failsWith("ADD", 11, s.exec("ADD", s.pod("b"), bad))
		a, res := s.attach("a", good)
		s.failsWith("CHECK", 143, s.check(a, bad, res))
		s.failsWith("DEL", 144, s.exec("DEL", a, bad))
	}},
	{"A10.78", should, "a DEL that has to be repeated does not say what makes containerd take it for done", func(s *stage) {
		conf := s.recorder(s.conf("1.1.0"), script{})
		a, _ := s.attach("a", conf)
		s.vanish(a)
		gone := slices.Clone(s.plugin.search)
		s.plugin.search = gone[:len(gone)-1] // the IPAM plugin is not to be had
		e := s.fails("DEL without the IPAM plugin", s.exec("DEL", a.via(""), conf))
		sounds(s, e)
		s.plugin.search = gone
		e = s.fails("DEL with IPAM out of order", s.exec("DEL", a.via(""), s.recorder(conf, script{
			Fail:  map[string]bool{"DEL": true},
			Reply: map[string]object{"DEL": {"code": 11, "msg": "come back later"}},
		})))
		sounds(s, e)
		s.del(a.via(""), conf)
	}},
	{"A10.79", should, "a DEL that cannot write its state does not say what makes containerd take it for done", func(s *stage) {
		conf := s.conf("1.1.0")
		a, _ := s.attach("a", conf)
		s.expect(os.RemoveAll(s.dataDir()))
		s.expect(os.WriteFile(s.dataDir(), nil, 0o600)) // no directory can be there
		if r := s.exec("DEL", a, conf); r.exit != 0 {
			sounds(s, s.fails("DEL", r))
		}
	}},
}

// sounds demands that a DEL's error has none of the words at which containerd's
// CNI library takes a DEL for done.
func sounds(s *stage, e cniError) {
	for _, trap := range []string{"not found", "no such file or directory"} {
		if strings.Contains(e.text(), trap) {
			s.failf("%q in %s", trap, e.text())
		}
	}
}
