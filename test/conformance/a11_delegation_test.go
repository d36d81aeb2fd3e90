package conformance

import (
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
)

// containsAll says whether text has all parts.
func containsAll(text string, parts ...string) bool {
	for _, part := range parts {
		if !strings.Contains(text, part) {
			return false
		}
	}
	return true
}

var delegationItems = []item{
	{"A11.79", must, "an IPAM plugin is found in CNI_PATH and asked with the same environment and configuration", func(s *stage) {
		conf := with(s.recorder(s.conf("1.1.0"), script{}), object{"runtimeConfig": object{"ips": []string{"10.1.2.77"}}, "args": object{"cni": object{}}})
		a := s.pod("a")
		a.args = "IgnoreUnknown=1;K8S_POD_NAME=web"
		res := s.add(a, conf)
		s.quiet("CHECK", s.check(a, conf, res))
		s.del(a, conf)
		for _, verb := range []string{"ADD", "CHECK", "DEL"} {
			asked := s.recordings(verb)
			if len(asked) != 1 {
				s.failf("IPAM was asked %d times to %s", len(asked), verb)
			}
			for key, want := range s.request(verb, a, conf).env {
				if got := asked[0].Env[key]; got != want {
					s.failf("%s: IPAM got %s=%q instead of %q", verb, key, got, want)
				}
			}
			var got object
			s.expect(json.Unmarshal(asked[0].Stdin, &got))
			for key := range conf {
				if _, there := got[key]; !there {
					s.failf("%s: IPAM got no %q: %s", verb, key, asked[0].Stdin)
				}
			}
		}
	}},
	{"A11.79b", must, "the address, the gateway and the routes of the IPAM plugin are used", func(s *stage) {
		conf := s.recorder(s.conf("1.1.0"), script{})
		a, res := s.attach("a", conf)
		if got := res.addresses(); len(got) != 1 || got[0] != recorded.Addr() || res.IPs[0].Gateway != netip.MustParseAddr(gateway4) {
			s.failf("IPAM said %v, the result is %s", recorded, res.raw)
		}
		s.works(a, res)
		s.expect(ping(a.space, recorded.Addr(), res.IPs[0].Gateway))
	}},
	{"A11.79c", must, "an ADD that the IPAM plugin fails is an error, followed by DEL of the IPAM plugin", func(s *stage) {
		conf := s.recorder(s.conf("1.1.0"), script{
			Fail:  map[string]bool{"ADD": true},
			Reply: map[string]object{"ADD": {"code": 142, "msg": "no address for you"}},
		})
		a := s.pod("a")
		before := s.look(a)
		if e := s.fails("ADD", s.exec("ADD", a, conf)); !strings.Contains(e.text(), "no address for you") {
			s.failf("the error of IPAM is lost: %s", e.text())
		}
		s.nothingLeft("ADD", before, a)
		if n := len(s.recordings("DEL")); n != 1 {
			s.failf("IPAM was asked %d times to DEL", n)
		}
	}},
	{"A11.79d", must, "an ADD that fails after the IPAM plugin's is followed by DEL of the IPAM plugin", func(s *stage) {
		conf := s.recorder(s.conf("1.1.0"), script{})
		a := s.pod("a").named("lo")
		before := s.look(a)
		s.fails("ADD", s.exec("ADD", a, conf))
		s.nothingLeft("ADD", before, a)
		if added, deleted := len(s.recordings("ADD")), len(s.recordings("DEL")); added > 0 && deleted == 0 {
			s.failf("IPAM was asked %d times to ADD, %d times to DEL", added, deleted)
		}
		s.expect(s.node.SetSysctl("net/ipv4/ip_forward", "0"))
		r := s.request("ADD", a.named("eth0"), conf)
		r.confine = func() error { return readOnly("/proc/sys/net/ipv4/ip_forward") }
		before = s.look(a)
		added := len(s.recordings("ADD"))
		deleted := len(s.recordings("DEL"))
		s.fails("ADD without forwarding", s.run(r))
		s.nothingLeft("ADD without forwarding", before, a)
		if len(s.recordings("ADD"))-added != len(s.recordings("DEL"))-deleted {
			s.failf("ADD without forwarding: IPAM was asked %d times to ADD, %d times to DEL",
				len(s.recordings("ADD"))-added, len(s.recordings("DEL"))-deleted)
		}
	}},
	{"A11.79e", must, "errors of the IPAM plugin in CHECK and DEL are passed on", func(s *stage) {
		good := s.recorder(s.conf("1.1.0"), script{})
		bad := s.recorder(good, script{
			Fail: map[string]bool{"CHECK": true, "DEL": true},
			Reply: map[string]object{
				"CHECK": {"code": 143, "msg": "not yours"}, "DEL": {"code": 144, "msg": "busy"},
			},
		})
		a, res := s.attach("a", good)
		s.quiet("CHECK", s.check(a, good, res))
		if e := s.fails("CHECK", s.check(a, bad, res)); !strings.Contains(e.text(), "not yours") {
			s.failf("the error of IPAM is lost: %s", e.text())
		}
		if e := s.fails("DEL", s.exec("DEL", a, bad)); !strings.Contains(e.text(), "busy") {
			s.failf("the error of IPAM is lost: %s", e.text())
		}
		s.del(a, good)
	}},
	{"A11.79f", must, "the IPAM plugin is asked to DEL without CNI_NETNS and without interface, too", func(s *stage) {
		conf := s.recorder(s.conf("1.1.0"), script{})
		a, _ := s.attach("a", conf)
		s.vanish(a)
		s.del(a.via(""), conf)
		s.del(a, conf)
		if n := len(s.recordings("DEL")); n != 2 {
			s.failf("IPAM was asked %d times to DEL", n)
		}
	}},
	{"A11.79g", should, "what the IPAM plugin prints on stderr reaches stderr", func(s *stage) {
		conf := s.recorder(s.conf("1.1.0"), script{Stderr: "a word from below"})
		if r := s.exec("ADD", s.pod("a"), conf); r.exit != 0 || !strings.Contains(r.stderr, "a word from below") {
			s.failf("%v", r)
		}
	}},
	{"A11.80", must, "an IPAM plugin that gives no address is an error that leaves nothing", func(s *stage) {
		conf := s.recorder(s.conf("1.1.0"), script{Reply: map[string]object{"ADD": {"ips": []object{}}}})
		a := s.pod("a")
		before := s.look(a)
		s.fails("ADD", s.exec("ADD", a, conf))
		s.nothingLeft("ADD", before, a)
	}},
	{"A11.81", must, "an IPAM plugin that is not in CNI_PATH is an error that names it", func(s *stage) {
		a := s.pod("a")
		before := s.look(a)
		conf := withIPAM(s.conf("1.1.0"), object{"type": "no-such-plugin"})
		if e := s.fails("ADD", s.exec("ADD", a, conf)); !strings.Contains(e.text(), "no-such-plugin") {
			s.failf("the error does not name it: %s", e.text())
		}
		s.nothingLeft("ADD", before, a)
	}},
	{"A11.82", must, "the reference plugin static serves as IPAM plugin", func(s *stage) {
		conf := with(s.conf("1.1.0"), object{"ipam": object{
			"type":      "static",
			"addresses": []object{{"address": "10.1.2.33/24", "gateway": gateway4}, {"address": "fd00:10:1:2::33/64", "gateway": gateway6}},
			"routes":    []object{{"dst": "0.0.0.0/0"}, {"dst": "::/0"}},
		}})
		a := s.pod("a")
		before := s.look(a)
		res := s.add(a, conf)
		s.works(a, res)
		s.quiet("CHECK", s.check(a, conf, res))
		s.del(a, conf)
		s.nothingLeft("DEL", before, a)
	}},
	{"A11.83", must, "an IPAM plugin cannot be executed from outside of CNI_PATH", func(s *stage) {
		conf := s.recorder(s.conf("1.1.0"), script{})
		conf["ipam"] = with(asObject(conf["ipam"]), object{"type": filepath.Join("..", "bin", recorderName)})
		a := s.pod("a")
		s.fails("ADD", s.exec("ADD", a, conf))
		if _, err := os.Stat(s.log()); err == nil {
			s.failf("the plugin was executed")
		}
	}},
}

// asObject converts by way of JSON.
func asObject(value any) object {
	raw, err := json.Marshal(value)
	if err != nil {
		panic(err)
	}
	var o object
	if err := json.Unmarshal(raw, &o); err != nil {
		panic(err)
	}
	return o
}
