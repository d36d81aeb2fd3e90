package service_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/flatnet-cni/flatnet/pkg/service"
)

// TestReach: who reaches which endpoints by what address, and what source they see.
func TestReach(t *testing.T) {
	for _, mode := range []string{"direct", "vxlan"} {
		for _, ipv6 := range []bool{false, true} {
			t.Run(describe(mode, ipv6), func(t *testing.T) {
				t.Parallel()
				s := newSite(t, mode, ipv6)
				s.everywhere()
				s.forget()
				s.policies()
				s.forget()
				s.sourceRanges()
				s.forget()
				s.noEndpoints()
			})
		}
	}
}

// external are the addresses that lead to n1 besides ClusterIPs.
func (s *site) external() []netip.AddrPort {
	return []netip.AddrPort{at(s.Node("n1").Addresses[0], nodePort), at(s.balancerIP(), 80), at(s.externalIP(), 80)}
}

func (s *site) everywhere() {
	s.apply(s.service("a1", "b1"))
	// To the own node's pods and to others', the source is kept.
	kept := map[string]string{"a1": "own", "b1": "own"}
	for _, protocol := range []string{"tcp", "udp"} {
		s.expect(protocol, s.pod("a2"), at(s.clusterIP(), 80), kept)
		s.expect(protocol, s.node("n1"), at(s.clusterIP(), 80), kept)
		s.expect(protocol, s.node("n3"), at(s.clusterIP(), 80), kept)
		// A pod that reaches itself.
		s.expect(protocol, s.pod("a1"), at(s.clusterIP(), 80), map[string]string{"a1": "n1", "b1": "own"})
		// What comes from outside of the node is translated where it leaves it.
		s.expect(protocol, s.outside(), at(s.clusterIP(), 80), map[string]string{"a1": "own", "b1": "n1"})
		for _, to := range s.external() {
			s.expect(protocol, s.outside(), to, map[string]string{"a1": "own", "b1": "n1"})
			s.expect(protocol, s.pod("a2"), to, kept)
			s.expect(protocol, s.pod("a1"), to, map[string]string{"a1": "n1", "b1": "own"})
			s.expect(protocol, s.node("n1"), to, kept)
		}
		// A NodePort of a node that has no endpoint, and of one that has.
		s.expect(protocol, s.outside(), at(s.Node("n3").Addresses[0], nodePort), map[string]string{"a1": "n3", "b1": "n3"})
		s.expect(protocol, s.pod("b1"), at(s.Node("n1").Addresses[0], nodePort), map[string]string{"a1": "own", "b1": "n1"})
	}
	s.refused("tcp", s.pod("a2"), at(s.clusterIP(), 81))
	s.refused("udp", s.node("n1"), at(s.clusterIP(), 81))
}

func (s *site) policies() {
	v := s.service("a1", "b1")
	v.ExternalLocal, v.InternalLocal = true, true
	s.apply(v)
	for _, protocol := range []string{"tcp", "udp"} {
		s.expect(protocol, s.pod("a2"), at(s.clusterIP(), 80), map[string]string{"a1": "own"})
		s.expect(protocol, s.node("n2"), at(s.clusterIP(), 80), map[string]string{"b1": "own"})
		s.dropped(protocol, s.node("n3"), at(s.clusterIP(), 80))
		for _, to := range s.external() {
			s.expect(protocol, s.outside(), to, map[string]string{"a1": "own"})
			s.expect(protocol, s.pod("a2"), to, map[string]string{"a1": "own", "b1": "own"})
			s.expect(protocol, s.node("n1"), to, map[string]string{"a1": "own", "b1": "own"})
		}
		s.dropped(protocol, s.outside(), at(s.Node("n3").Addresses[0], nodePort))
	}
	s.forget()
	// The local endpoint ends, and serves until there is another.
	v.Slices[0].Endpoints[0].Ready, v.Slices[0].Endpoints[0].Terminating = false, true
	s.apply(v)
	s.expect("tcp", s.outside(), s.external()[0], map[string]string{"a1": "own"})
	s.expect("tcp", s.pod("a2"), at(s.clusterIP(), 80), map[string]string{"a1": "own"})
	s.expect("tcp", s.pod("a2"), s.external()[1], map[string]string{"b1": "own"})
}

func (s *site) sourceRanges() {
	v := s.service("a1", "b1")
	v.SourceRanges = []netip.Prefix{netip.MustParsePrefix(pick(s.ipv6, "203.0.113.0/24", "2001:db8:1::/48"))}
	s.apply(v)
	s.dropped("tcp", s.outside(), at(s.balancerIP(), 80))
	s.dropped("udp", s.pod("a2"), at(s.balancerIP(), 80))
	s.expect("tcp", s.outside(), at(s.externalIP(), 80), map[string]string{"a1": "own", "b1": "n1"})
	v.SourceRanges = append(v.SourceRanges, netip.PrefixFrom(s.outside().own, s.outside().own.BitLen()))
	s.apply(v)
	s.expect("tcp", s.outside(), at(s.balancerIP(), 80), map[string]string{"a1": "own", "b1": "n1"})
	s.expect("udp", s.outside(), at(s.balancerIP(), 80), map[string]string{"a1": "own", "b1": "n1"})
	s.dropped("tcp", s.node("n1"), at(s.balancerIP(), 80))
}

func (s *site) noEndpoints() {
	for _, v := range []service.Service{s.service(), func() service.Service {
		v := s.service()
		v.ExternalLocal, v.InternalLocal = true, true
		return v
	}()} {
		s.apply(v)
		for _, protocol := range []string{"tcp", "udp"} {
			for _, from := range []place{s.pod("a1"), s.node("n1"), s.node("n3"), s.outside()} {
				s.refused(protocol, from, at(s.clusterIP(), 80))
				for _, to := range s.external() {
					if from.name != "node n3" || to == s.external()[0] {
						s.refused(protocol, from, to)
					}
				}
			}
		}
	}
}

// TestAffinity: a client stays with its endpoint, by whatever address it comes,
// until it has been away for long enough.
func TestAffinity(t *testing.T) {
	for _, ipv6 := range []bool{false, true} {
		t.Run(describe("direct", ipv6), func(t *testing.T) {
			t.Parallel()
			s := newSite(t, "direct", ipv6)
			v := s.service("a1", "a2", "b1")
			v.Affinity = 3 * time.Hour
			s.apply(v)
			stays := func(protocol string, from place, addresses ...netip.AddrPort) string {
				t.Helper()
				first := ""
				must(t, from.Do(func() error {
					for range tries {
						for _, to := range addresses {
							a, err := askHere(protocol, to)
							if err != nil {
								return err
							}
							if first == "" {
								first = a.server
							}
							if a.server != first {
								return fmt.Errorf("%s was sent to %s, and by %s to %s, %s", from.name, first, to, a.server, protocol)
							}
						}
					}
					return nil
				}))
				return first
			}
			addresses := append(s.external(), at(s.clusterIP(), 80))
			remembered := map[string]string{}
			for _, protocol := range []string{"tcp", "udp"} {
				for _, from := range []place{s.pod("a1"), s.pod("a2"), s.node("n1"), s.outside()} {
					remembered[protocol+from.name] = stays(protocol, from, addresses...)
				}
			}
			// A restart, and what has nothing to do with it, change nothing.
			n1 := s.Node("n1")
			n1.Kill()
			n1.StartAgain()
			n1.WaitReady()
			other := s.service("a2")
			other.Name.Name, other.ClusterIPs, other.ExternalIPs, other.LoadBalancerIPs = "other", []netip.Addr{s.clusterIP().Next()}, nil, nil
			other.Ports = other.Ports[:1]
			other.Ports[0].NodePort = 0
			other.Affinity = time.Second
			s.apply(other)
			for _, from := range []place{s.pod("a1"), s.pod("a2"), s.node("n1"), s.outside()} {
				if again := stays("tcp", from, addresses[0]); again != remembered["tcp"+from.name] {
					t.Errorf("%s was sent to %s before, now to %s", from.name, remembered["tcp"+from.name], again)
				}
			}
			// The endpoint goes: another one, and that again and again.
			gone := remembered["tcp"+s.outside().name]
			var left []string
			for _, name := range []string{"a1", "a2", "b1"} {
				if name != gone {
					left = append(left, name)
				}
			}
			fewer := s.service(left...)
			fewer.Affinity = v.Affinity
			s.apply(fewer)
			if now := stays("tcp", s.outside(), addresses...); now == gone {
				t.Errorf("the client is sent to %s, which is gone", gone)
			}
			// Of a second: it is forgotten after a pause. Chance sends the client to the
			// same endpoint once more in half of the cases, but not for ever.
			fewer.Affinity = time.Second
			s.apply(fewer)
			seen := map[string]bool{}
			const pauses = 40
			for range pauses {
				a, err := ask(s.pod("a2").Namespace, "tcp", at(s.clusterIP(), 80))
				must(t, err)
				if seen[a.server] = true; len(seen) == 2 {
					break
				}
				time.Sleep(1300 * time.Millisecond) // that is what is tested; it may be longer
			}
			if len(seen) != 2 {
				t.Errorf("after %d pauses the client was sent to %v", pauses, seen)
			}
		})
	}
}
