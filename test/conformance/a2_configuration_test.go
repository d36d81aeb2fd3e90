package conformance

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const (
	errorVersion = 1 // incompatible version
	errorDecode  = 6 // content cannot be decoded
	errorConfig  = 7 // invalid network configuration
)

// configuredVerbs are those that read a configuration.
var configuredVerbs = []string{"ADD", "CHECK", "DEL", "STATUS", "GC"}

// accepts demands that a pod can be attached, checked and detached with a
// configuration, and returns the result of ADD.
func accepts(s *stage, what string, conf object) result {
	a := s.pod("accepts")
	defer a.space.Delete()
	before := s.look(a)
	r := s.exec("ADD", a, conf)
	if r.exit != 0 {
		s.failf("ADD with %s: %v", what, r)
	}
	res := s.added(r)
	s.quiet("CHECK with "+what, s.check(a, conf, res))
	s.quiet("DEL with "+what, s.exec("DEL", a, conf))
	s.nothingLeft("DEL with "+what, before, a)
	return res
}

// supported are the versions that the plugin says it supports.
func (s *stage) supported() []string {
	return s.versions(s.exec("VERSION", attachment{}, object{"cniVersion": "1.1.0"})).SupportedVersions
}

var configurationItems = []item{
	{"A2.17", must, "a configuration that is not a JSON object is refused with code 6", func(s *stage) {
		a := s.pod("a")
		before := s.look(a)
		for _, stdin := range []string{"", "{", `[1]`, `"x"`, `{"name":`, "\x00"} {
			for _, verb := range configuredVerbs {
				r := s.request(verb, a, nil)
				r.stdin = []byte(stdin)
				s.failsWith(fmt.Sprintf("%s with configuration %q", verb, stdin), errorDecode, s.run(r))
			}
		}
		s.nothingLeft("bad configuration", before, a)
	}},
	{"A2.17b", must, "a missing or invalid network name is refused with code 7", func(s *stage) {
		a := s.pod("a")
		before := s.look(a)
		for _, name := range []any{nil, "", "a b", "../escape", "a/b", "-a", ".a", "a\n"} {
			for _, verb := range configuredVerbs {
				r := s.exec(verb, a, with(s.conf("1.1.0"), object{"name": name}))
				s.failsWith(fmt.Sprintf("%s with name %q", verb, name), errorConfig, r)
			}
		}
		s.nothingLeft("bad name", before, a)
	}},
	{"A2.18", must, "a configuration with no cniVersion, or an empty one, is of version 0.1.0", func(s *stage) {
		for _, version := range []any{nil, ""} {
			conf := with(s.conf(""), object{"cniVersion": version})
			a, res := s.attach("a", conf)
			if res.IP4 == nil || res.IPs != nil || res.CNIVersion > "0.1.0" {
				s.failf("the result is not of version 0.1.0: %s", res.raw)
			}
			s.failsWith("CHECK", errorVersion, s.check(a, conf, res))
			s.del(a, conf)
			s.expect(a.space.Delete())
		}
	}},
	{"A2.18b", must, "an unsupported version is refused with code 1, and the error lists both sides", func(s *stage) {
		supported := s.supported()
		a := s.pod("a")
		before := s.look(a)
		for _, verb := range []string{"ADD", "DEL"} {
			e := s.failsWith(verb, errorVersion, s.exec(verb, a, s.conf("9.8.7")))
			for _, version := range append([]string{"9.8.7"}, supported...) {
				if !strings.Contains(e.text(), version) {
					s.failf("%s: the error does not list %s: %s", verb, version, e.text())
				}
			}
		}
		for _, verb := range []string{"CHECK", "STATUS", "GC"} {
			s.failsWith(verb, errorVersion, s.exec(verb, a, s.conf("9.8.7")))
		}
		s.nothingLeft("bad version", before, a)
	}},
	{"A2.19", must, "\"capabilities\" in a configuration do not matter", func(s *stage) {
		accepts(s, "capabilities", with(s.conf("1.1.0"), object{"capabilities": object{"portMappings": true, "ips": true, "aliens": false}}))
	}},
	{"A2.20", should, "unknown keys do not matter", func(s *stage) {
		accepts(s, "unknown keys", with(s.conf("1.1.0"), object{
			"unheardOf": object{"a": []int{1}}, "_comment": "x", "isGateway": true, "disableCheck": false,
		}))
	}},
	{"A2.21", must, "what a runtime may put into reserved keys does not matter", func(s *stage) {
		accepts(s, "reserved keys", with(s.conf("1.1.0"), object{
			"runtimeConfig": object{
				"portMappings": []object{{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}},
				"bandwidth":    object{"ingressRate": 1000, "ingressBurst": json.Number("18446744073709551615")},
				"cgroupPath":   "/kubepods/x", "dns": object{"servers": []string{"10.96.0.10"}},
				"io.kubernetes.cri.pod-annotations": object{"a": "b"},
			},
			"args":              object{"labels": []object{{"key": "app", "value": "x"}}, "org.example": 1},
			"cni.dev/something": []int{1, 2},
		}))
	}},
	{"A2.22", must, "DEL succeeds with the result of ADD as prevResult and without it", func(s *stage) {
		for _, version := range []string{"0.3.1", "0.4.0", "1.0.0", "1.1.0"} {
			conf := s.conf(version)
			for _, given := range []bool{true, false} {
				a := s.pod(fmt.Sprint("a", given, version))
				before := s.look(a)
				res := s.add(a, conf)
				if given {
					s.quiet("DEL with prevResult", s.exec("DEL", a, with(conf, object{"prevResult": res.raw})))
				} else {
					s.del(a, conf)
				}
				s.nothingLeft("DEL", before, a)
			}
		}
	}},
	{"A2.22b", must, "a prevResult with no cniVersion of its own has that of the configuration", func(s *stage) {
		conf := s.conf("0.4.0")
		a, res := s.attach("a", conf)
		bare := with(res.fields(), object{"cniVersion": nil})
		s.quiet("CHECK", s.exec("CHECK", a, with(conf, object{"prevResult": bare})))
		s.quiet("DEL", s.exec("DEL", a, with(conf, object{"prevResult": bare})))
	}},
	{"A2.24", must, "with ipMasq the world sees the node's address, without it the pod's", func(s *stage) {
		masquerades(s, s.conf("1.1.0"), false)
	}},
	{"A2.24b", must, "ipMasq works for IPv6 as well", func(s *stage) {
		masquerades(s, s.dual("1.1.0"), true)
	}},
	{"A2.24c", must, "with ipMasq pods of the network still see each other's own address", func(s *stage) {
		conf := with(s.dual("1.1.0"), object{"ipMasq": true})
		a, from := s.attachMasquerading("a", conf)
		b, to := s.attachMasquerading("b", conf)
		for _, ipv6 := range []bool{false, true} {
			if source := s.reach(a.space, b.space, s.of(to, ipv6)); source != s.of(from, ipv6).String() {
				s.failf("pod %v saw %s instead of %v", s.of(to, ipv6), source, s.of(from, ipv6))
			}
		}
	}},
	{"A2.25", must, "without \"dns\" in the configuration the result has the DNS settings of IPAM", func(s *stage) {
		conf := s.withResolvConf(s.conf("1.1.0"))
		if dns := accepts(s, "resolvConf", conf).DNS; dns == nil || !slices.Equal(dns.Nameservers, []string{"192.0.2.53"}) || !slices.Equal(dns.Search, []string{"example.org"}) {
			s.failf("dns of the result: %+v", dns)
		}
	}},
	{"A2.25b", must, "any key of \"dns\" in the configuration replaces the DNS settings of IPAM as a whole", func(s *stage) {
		conf := with(s.withResolvConf(s.conf("1.1.0")), object{"dns": object{"domain": "cluster.local"}})
		if dns := accepts(s, "a domain", conf).DNS; dns == nil || dns.Domain != "cluster.local" || len(dns.Nameservers)+len(dns.Search) > 0 {
			s.failf("dns of the result with a domain configured: %+v", dns)
		}
		full := object{"domain": "d", "nameservers": []string{"192.0.2.1"}, "search": []string{"s"}, "options": []string{"ndots:5"}}
		dns := accepts(s, "all of dns", with(conf, object{"dns": full})).DNS
		if dns == nil || dns.Domain != "d" || !slices.Equal(dns.Nameservers, []string{"192.0.2.1"}) ||
			!slices.Equal(dns.Search, []string{"s"}) || !slices.Equal(dns.Options, []string{"ndots:5"}) {
			s.failf("dns of the result with everything configured: %+v", dns)
		}
	}},
	{"A2.25c", must, "an empty list in \"dns\" replaces the DNS settings of IPAM, too", func(s *stage) {
		conf := with(s.withResolvConf(s.conf("1.1.0")), object{"dns": object{"nameservers": []string{}}})
		if dns := accepts(s, "an empty list", conf).DNS; dns != nil && len(dns.Nameservers)+len(dns.Search) > 0 {
			s.failf("dns of the result: %+v", dns)
		}
	}},
}

// withResolvConf makes IPAM answer with DNS settings.
func (s *stage) withResolvConf(conf object) object {
	path := filepath.Join(s.scratch, "resolv.conf")
	s.expect(os.WriteFile(path, []byte("nameserver 192.0.2.53\nsearch example.org\n"), 0o644))
	return withIPAM(conf, object{"resolvConf": path})
}

// attachMasquerading is attach, but ends the item where the plugin cannot do
// without a program for ipMasq that is missing.
func (s *stage) attachMasquerading(name string, conf object) (attachment, result) {
	a := s.pod(name)
	r := s.exec("ADD", a, conf)
	if r.exit != 0 && strings.Contains(r.stdout, "iptables") && !executable("iptables") && !executable("nft") {
		s.skipf("this plugin executes iptables or nft for ipMasq, and neither is in PATH")
	}
	return a, s.added(r)
}

// masquerades demands that the configuration's ipMasq does what it says, and
// that DEL takes it back.
func masquerades(s *stage, conf object, ipv6 bool) {
	world := s.world()
	target, own := netip.MustParseAddr(world4), node4
	if ipv6 {
		target, own = netip.MustParseAddr(world6), node6
	}
	plain, res := s.attach("plain", conf)
	if source := s.reach(plain.space, world.Namespace, target); source != s.of(res, ipv6).String() {
		s.failf("without ipMasq the world saw %s instead of %v", source, s.of(res, ipv6))
	}
	conf = with(conf, object{"ipMasq": true})
	a, hidden := s.attachMasquerading("a", conf)
	if source := s.reach(a.space, world.Namespace, target); source != own {
		s.failf("with ipMasq the world saw %s instead of %s", source, own)
	}
	s.quiet("CHECK", s.check(a, conf, hidden))
	s.del(a, conf)
	s.del(plain, conf)
	if !executable("nft") {
		return
	}
	rules, err := s.node.Output("nft", "list", "ruleset")
	s.expect(err)
	for _, trace := range []string{a.id, s.of(hidden, ipv6).String()} {
		if strings.Contains(rules, trace) {
			s.failf("after DEL nftables still have %s: %s", trace, rules)
		}
	}
}
