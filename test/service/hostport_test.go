package service_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

// TestHostPortOfTheSameNumber: where a Service has the port of the node that a pod asked
// for, all who come by it reach the Service, with endpoints or without, and the pod
// again when it has it no more.
func TestHostPortOfTheSameNumber(t *testing.T) {
	for _, ipv6 := range []bool{false, true} {
		t.Run(describe("direct", ipv6), func(t *testing.T) {
			t.Parallel()
			s := newSite(t, "direct", ipv6)
			const other = nodePort + 1
			s.addPodWithPorts("web", "n1", nodePort, other)
			everybody := []place{s.outside(), s.pod("a2"), s.pod("b1"), s.node("n1"), s.node("n3")}
			web := func(port uint16) {
				t.Helper()
				for _, protocol := range []string{"tcp", "udp"} {
					for _, from := range everybody {
						s.expect(protocol, from, at(s.Node("n1").Addresses[0], port), map[string]string{"web": "own"})
					}
				}
			}
			web(nodePort)
			s.forget()

			s.apply(s.service("a1", "b1"))
			for _, protocol := range []string{"tcp", "udp"} {
				to := at(s.Node("n1").Addresses[0], nodePort)
				// What comes from outside of the node is translated where it leaves it.
				s.expect(protocol, s.outside(), to, map[string]string{"a1": "own", "b1": "n1"})
				s.expect(protocol, s.node("n3"), to, map[string]string{"a1": "own", "b1": "n1"})
				s.expect(protocol, s.pod("a2"), to, map[string]string{"a1": "own", "b1": "own"})
				s.expect(protocol, s.node("n1"), to, map[string]string{"a1": "own", "b1": "own"})
				s.expect(protocol, s.pod("web"), to, map[string]string{"a1": "own", "b1": "own"})
			}
			web(other)
			took := s.Eventually("the status to say who is not reached", func() error {
				status, err := s.Node("n1").TryStatus()
				if err != nil {
					return err
				}
				problems := fmt.Sprint(status.Problems)
				for _, protocol := range []string{"tcp", "udp"} {
					if !strings.Contains(problems, fmt.Sprintf("host port %[1]s/%[2]s of pod test/web Service default/web:%[2]s has the same port", at(s.Node("n1").Addresses[0], nodePort), protocol)) {
						return fmt.Errorf("it says %s", problems)
					}
				}
				return nil
			})
			t.Logf("the status said it after %s", took)
			s.forget()

			s.apply(s.service())
			for _, protocol := range []string{"tcp", "udp"} {
				s.refused(protocol, s.outside(), at(s.Node("n1").Addresses[0], nodePort))
			}
			s.forget()

			s.control.forget(s.service().Name)
			s.reached()
			web(nodePort)
			s.Eventually("the status to have no problem any more", func() error {
				status, err := s.Node("n1").TryStatus()
				if err == nil && len(status.Problems) > 0 {
					err = fmt.Errorf("it has %v", status.Problems)
				}
				return err
			})
		})
	}
}

// addPodWithPorts adds a pod with these ports of its node, of TCP and UDP.
func (s *site) addPodWithPorts(name, node string, ports ...uint16) {
	s.t.Helper()
	pod := s.Node(node).Prepare("test", name)
	var mappings []map[string]any
	for _, port := range ports {
		for _, protocol := range []string{"tcp", "udp"} {
			mappings = append(mappings, map[string]any{"hostPort": port, "containerPort": 8080, "protocol": protocol})
		}
	}
	pod.Capabilities = map[string]any{"portMappings": mappings}
	must(s.t, pod.Add())
	s.pods[name] = pod
	s.servers[name] = serve(s.t, pod.Namespace, name, netip.AddrPortFrom(pod.Address(s.ipv6), 8080))
}
