package conformance

import (
	"net/netip"
	"slices"
)

// granted demands that a pod gets just these addresses.
func granted(s *stage, a attachment, conf object, want ...string) {
	got := s.add(a, conf).addresses()
	for _, address := range want {
		if !slices.Contains(got, netip.MustParseAddr(address)) {
			s.failf("asked for %v, got %v", want, got)
		}
		if !holds(a.space, a.ifname, netip.MustParseAddr(address)) {
			s.failf("%s is in the result, but not in the pod", address)
		}
	}
	s.del(a, conf)
}

// requestedAddressItems are about the ways to ask for a certain address.
var requestedAddressItems = []item{
	{"A2.26", must, "the address in args.cni.ips is granted", func(s *stage) {
		granted(s, s.pod("a"), with(s.conf("1.1.0"), object{"args": object{"cni": object{"ips": []string{"10.1.2.50"}}}}), "10.1.2.50")
	}},
	{"A2.26b", must, "the address IP in CNI_ARGS is granted", func(s *stage) {
		a := s.pod("a")
		a.args = "IgnoreUnknown=1;IP=10.1.2.60;K8S_POD_NAME=web"
		granted(s, a, s.conf("1.1.0"), "10.1.2.60")
	}},
	{"A2.26c", must, "the addresses in runtimeConfig.ips are granted, in both families", func(s *stage) {
		conf := with(s.dual("1.1.0"), object{
			"capabilities":  object{"ips": true},
			"runtimeConfig": object{"ips": []string{"10.1.2.70", "fd00:10:1:2::70"}},
		})
		granted(s, s.pod("a"), conf, "10.1.2.70", "fd00:10:1:2::70")
	}},
	{"A2.26d", must, "where args.cni.ips is given, IP in CNI_ARGS is ignored", func(s *stage) {
		a := s.pod("a")
		a.args = "IP=10.1.2.60"
		granted(s, a, with(s.conf("1.1.0"), object{"args": object{"cni": object{"ips": []string{"10.1.2.50"}}}}), "10.1.2.50")
	}},
	{"A2.26e", must, "a requested address that is taken is an error, and its holder keeps it", func(s *stage) {
		conf := with(s.conf("1.1.0"), object{"args": object{"cni": object{"ips": []string{"10.1.2.50"}}}})
		a, res := s.attach("a", conf)
		b := s.pod("b")
		before := s.look(a, b)
		s.fails("second ADD for 10.1.2.50", s.exec("ADD", b, conf))
		s.unchanged("refused ADD", before, a, b)
		s.del(b, conf)
		s.works(a, res)
		s.quiet("CHECK", s.check(a, conf, res))
	}},
	{"A2.26f", must, "a requested address outside of the ranges is an error", func(s *stage) {
		conf := with(s.conf("1.1.0"), object{"args": object{"cni": object{"ips": []string{"192.0.2.9"}}}})
		a := s.pod("a")
		before := s.look(a)
		s.fails("ADD", s.exec("ADD", a, conf))
		s.nothingLeft("refused ADD", before, a)
	}},
	{"A2.26g", must, "runtimeConfig.ipRanges come before the configured ranges", func(s *stage) {
		conf := with(s.conf("1.1.0"), object{
			"capabilities":  object{"ipRanges": true},
			"runtimeConfig": object{"ipRanges": [][]object{{{"subnet": "10.9.9.0/24", "rangeStart": "10.9.9.9", "rangeEnd": "10.9.9.9"}}}},
		})
		granted(s, s.pod("a"), conf, "10.9.9.9")
	}},
}
