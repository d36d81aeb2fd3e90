package conformance

import (
	"fmt"
	"strings"
)

// errorEnvironment is the code for variables that are missing or invalid.
const errorEnvironment = 4

// without is a request that lacks some variables.
func without(r request, names ...string) request {
	for _, name := range names {
		delete(r.env, name)
	}
	return r
}

// setting is a request with another value of one variable.
func setting(r request, name, value string) request {
	r.env[name] = value
	return r
}

// Values that a variable must not have.
var (
	badIDs   = []string{"../escape", "a/b", "-a", ".a", "_a", "a b", "a:b", "ä", "a\nb", "/"}
	badNames = []string{"sixteen-letters-", ".", "..", "a/b", "../x", "a:b", "a b", "a\tb", "a\n"}
)

// refusesVariable demands that ADD, CHECK and DEL refuse each value of a
// variable with the code for it, and do nothing.
func refusesVariable(s *stage, name string, values []string) {
	conf := s.conf("1.1.0")
	a, res := s.attach("a", conf)
	before := s.look(a)
	for _, verb := range []string{"ADD", "CHECK", "DEL"} {
		for _, value := range values {
			what := fmt.Sprintf("%s with %s=%q", verb, name, value)
			r := s.request(verb, a, with(conf, object{"prevResult": res.raw}))
			s.failsWith(what, errorEnvironment, s.run(setting(r, name, value)))
			s.unchanged(what, before, a)
		}
	}
	s.quiet("CHECK afterwards", s.check(a, conf, res))
}

// requiresVariable demands that verbs refuse to work without a variable, and
// name it.
func requiresVariable(s *stage, name string, verbs ...string) {
	conf := s.conf("1.1.0")
	a, res := s.attach("a", conf)
	before := s.look(a)
	for _, verb := range verbs {
		for _, unset := range []bool{true, false} {
			r := setting(s.request(verb, a, with(conf, object{"prevResult": res.raw})), name, "")
			if unset {
				r = without(r, name)
			}
			what := fmt.Sprintf("%s without %s", verb, name)
			if e := s.failsWith(what, errorEnvironment, s.run(r)); !strings.Contains(e.text(), name) {
				s.failf("%s: the error does not name the variable: %s", what, e.text())
			}
			s.unchanged(what, before, a)
		}
	}
	s.quiet("CHECK afterwards", s.check(a, conf, res))
}

var environmentItems = []item{
	{"A1.7", must, "an unknown CNI_COMMAND is refused with code 4", func(s *stage) {
		a := s.pod("a")
		before := s.look(a)
		for _, verb := range []string{"BOGUS", "add", "ADD ", "DELETE"} {
			s.failsWith(fmt.Sprintf("CNI_COMMAND=%q", verb), errorEnvironment, s.exec(verb, a, s.conf("1.1.0")))
			s.nothingLeft(verb, before, a)
		}
	}},
	{"A1.8", should, "without CNI_COMMAND the plugin says on stderr what it is, and exits with 0", func(s *stage) {
		r := s.run(without(s.request("", attachment{}, object{}), "CNI_COMMAND"))
		if r.exit != 0 || r.stdout != "" || !strings.Contains(r.stderr, "CNI protocol versions supported") {
			s.failf("%v", r)
		}
	}},
	{"A1.9", must, "ADD, CHECK and DEL refuse to work without CNI_CONTAINERID", func(s *stage) {
		requiresVariable(s, "CNI_CONTAINERID", "ADD", "CHECK", "DEL")
	}},
	{"A1.9b", must, "a CNI_CONTAINERID with characters that are not allowed is refused with code 4", func(s *stage) {
		refusesVariable(s, "CNI_CONTAINERID", badIDs)
	}},
	{"A1.9c", must, "every CNI_CONTAINERID of allowed characters is accepted", func(s *stage) {
		conf := s.conf("1.1.0")
		for i, id := range []string{"a", "0", "A.b_c-9", "cnitool-77383ca0a0715733ca6f", "a..", strings.Repeat("f", 64), strings.Repeat("x", 128)} {
			a := s.pod(fmt.Sprint(i))
			a.id = id
			before := s.look(a)
			res := s.add(a, conf)
			s.quiet("CHECK of "+id, s.check(a, conf, res))
			s.del(a, conf)
			s.unchanged("ADD and DEL of "+id, before, a)
		}
	}},
	{"A1.10", must, "ADD and CHECK refuse to work without CNI_NETNS", func(s *stage) {
		requiresVariable(s, "CNI_NETNS", "ADD", "CHECK")
	}},
	{"A1.11", must, "ADD, CHECK and DEL refuse to work without CNI_IFNAME", func(s *stage) {
		requiresVariable(s, "CNI_IFNAME", "ADD", "CHECK", "DEL")
	}},
	{"A1.11b", must, "a CNI_IFNAME that cannot name an interface is refused with code 4", func(s *stage) {
		refusesVariable(s, "CNI_IFNAME", badNames)
	}},
	{"A1.11c", must, "every CNI_IFNAME that can name an interface is accepted", func(s *stage) {
		conf := s.conf("1.1.0")
		for i, name := range []string{"e", "fifteen-letters", "net.1", "-x", "..."} {
			a := s.pod(fmt.Sprint(i)).named(name)
			s.add(a, conf)
			if links(a.space)[name] == nil {
				s.failf("there is no %s in the pod after ADD", name)
			}
			s.del(a, conf)
		}
	}},
	{"A1.12", must, "CNI_ARGS with unknown keys is accepted where IgnoreUnknown says so, in any order", func(s *stage) {
		conf := s.conf("1.1.0")
		for i, args := range []string{
			"IgnoreUnknown=1;K8S_POD_NAME=web;K8S_POD_NAMESPACE=default",
			"K8S_POD_NAME=web;K8S_POD_NAMESPACE=default;IgnoreUnknown=true",
			"FOO=BAR;IgnoreUnknown=1;EMPTY=",
		} {
			a := s.pod(fmt.Sprint(i))
			a.args = args
			res := s.add(a, conf)
			s.quiet("CHECK", s.check(a, conf, res))
			s.del(a, conf)
		}
	}},
	{"A1.12b", must, "CNI_ARGS that is malformed, or has unknown keys without IgnoreUnknown, is an error", func(s *stage) {
		a := s.pod("a")
		before := s.look(a)
		for _, args := range []string{"FOO", "FOO;IgnoreUnknown=1", "FOO=BAR", "IgnoreUnknown=0;FOO=BAR", "IgnoreUnknown=1;IP=nonsense"} {
			a.args = args
			s.fails("ADD with CNI_ARGS="+args, s.exec("ADD", a, s.conf("1.1.0")))
			s.nothingLeft("ADD with CNI_ARGS="+args, before, a)
		}
	}},
	{"A1.13", should, "no verb needs CNI_PATH that executes no other plugin", func(s *stage) {
		conf := s.conf("1.1.0")
		a := s.pod("a")
		res := s.added(s.run(without(s.request("ADD", a, conf), "CNI_PATH")))
		for _, verb := range []string{"CHECK", "STATUS", "GC", "DEL"} {
			r := s.request(verb, a, with(conf, object{
				"prevResult":                res.raw,
				"cni.dev/valid-attachments": []object{{"containerID": a.id, "ifname": a.ifname}},
			}))
			s.quiet(verb, s.run(without(r, "CNI_PATH")))
		}
	}},
	{"A1.14", must, "where several variables are missing, one error names them all", func(s *stage) {
		r := without(s.request("ADD", attachment{}, s.conf("1.1.0")), "CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME")
		e := s.failsWith("ADD without variables", errorEnvironment, s.run(r))
		for _, name := range []string{"CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"} {
			if !strings.Contains(e.text(), name) {
				s.failf("%s is not named: %s", name, e.text())
			}
		}
	}},
	{"A1.16", must, "STATUS, GC and VERSION do not look at the variables of an attachment", func(s *stage) {
		conf := s.conf("1.1.0")
		for _, value := range []string{"", "dummy", "not/valid at:all"} {
			a := attachment{id: value, netns: value, ifname: value}
			s.quiet("STATUS with variables "+value, s.exec("STATUS", a, conf))
			s.quiet("GC with variables "+value, s.exec("GC", a, conf))
			s.versions(s.exec("VERSION", a, conf))
		}
		r := setting(s.request("VERSION", attachment{netns: "dummy", ifname: "dummy"}, conf), "CNI_PATH", "dummy")
		s.versions(s.run(r))
	}},
}
