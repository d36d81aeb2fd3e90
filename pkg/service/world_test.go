package service

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// world reads Services from lines such as
//
//	web cluster=10.96.0.1,fd00:96::1 http:80/tcp@30080 dns:53/udp lb=192.0.2.1 external=192.0.2.9
//	    ranges=10.0.0.0/8 local=internal,external affinity=60 created=3 health=31000
//	  http:8080/tcp 10.244.1.5@n1 10.244.2.6@n2!terminating 10.244.3.7@n3/a/n3
//
// An indented line that begins with a port is a slice of the Service above: its
// ports with commas, and endpoints with the node, hints for a zone and a node, and
// the state: ready if not said, else !terminating (and serving), !dead or !unready.
func world(t testing.TB, text string) []Service {
	t.Helper()
	var all []Service
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		if !strings.HasPrefix(line, " ") && !strings.HasPrefix(line, "\t") {
			namespace, name, found := strings.Cut(fields[0], "/")
			if !found {
				namespace, name = "default", fields[0]
			}
			all = append(all, Service{Name: Name{namespace, name}})
			fields = fields[1:]
		}
		s := &all[len(all)-1]
		slice := Slice{Name: fmt.Sprintf("%s-%d", s.Name.Name, len(s.Slices))}
		for i, field := range fields {
			switch {
			case strings.Contains(field, "="):
				property(t, s, field)
			case strings.HasPrefix(line, " ") && i == 0:
				for _, p := range strings.Split(field, ",") {
					name, port, protocol, _ := parsePort(t, p)
					slice.Ports = append(slice.Ports, SlicePort{name, protocol, port})
				}
			case strings.HasPrefix(line, " "):
				slice.Endpoints = append(slice.Endpoints, parseEndpoint(t, field))
			default:
				name, port, protocol, nodePort := parsePort(t, field)
				s.Ports = append(s.Ports, Port{name, protocol, port, nodePort})
			}
		}
		if len(slice.Ports) > 0 {
			slice.sort()
			s.Slices = append(s.Slices, slice)
		}
	}
	return all
}

// worldOf reads one Service.
func worldOf(t testing.TB, text string) Service {
	t.Helper()
	all := world(t, text)
	if len(all) != 1 {
		t.Fatalf("%d Services", len(all))
	}
	return all[0]
}

func property(t testing.TB, s *Service, field string) {
	t.Helper()
	name, text, _ := strings.Cut(field, "=")
	values := strings.Split(text, ",")
	addrs := func() (all []netip.Addr) {
		for _, v := range values {
			all = append(all, netip.MustParseAddr(v))
		}
		return all
	}
	number := func() int {
		n, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	switch name {
	case "cluster":
		s.ClusterIPs = addrs()
	case "lb":
		s.LoadBalancerIPs = addrs()
	case "external":
		s.ExternalIPs = addrs()
	case "ranges":
		for _, v := range values {
			s.SourceRanges = append(s.SourceRanges, netip.MustParsePrefix(v))
		}
	case "local":
		s.InternalLocal = slices.Contains(values, "internal")
		s.ExternalLocal = slices.Contains(values, "external")
	case "affinity":
		s.Affinity = time.Duration(number()) * time.Second
	case "created":
		s.Created = time.Unix(int64(number()), 0)
	case "health":
		s.HealthCheckPort = uint16(number())
	default:
		t.Fatalf("unknown property %s", field)
	}
}

func parsePort(t testing.TB, text string) (name string, port uint16, protocol Protocol, nodePort uint16) {
	t.Helper()
	text, at, _ := strings.Cut(text, "@")
	if at != "" {
		n, err := strconv.ParseUint(at, 10, 16)
		if err != nil {
			t.Fatal(err)
		}
		nodePort = uint16(n)
	}
	text, kind, _ := strings.Cut(text, "/")
	protocol = map[string]Protocol{"": TCP, "tcp": TCP, "udp": UDP, "sctp": SCTP}[kind]
	number := text
	if before, after, found := strings.Cut(text, ":"); found {
		name, number = before, after
	}
	n, err := strconv.ParseUint(number, 10, 16)
	if err != nil || protocol == 0 {
		t.Fatalf("port %q: %v", text, err)
	}
	return name, uint16(n), protocol, nodePort
}

func parseEndpoint(t testing.TB, text string) Endpoint {
	t.Helper()
	text, state, _ := strings.Cut(text, "!")
	address, place, _ := strings.Cut(text, "@")
	parts := append(strings.Split(place, "/"), "", "")
	e := Endpoint{Address: netip.MustParseAddr(address), Node: parts[0]}
	if parts[1] != "" || parts[2] != "" {
		e.Hints = &Hints{}
		if parts[1] != "" {
			e.Hints.Zones = []string{parts[1]}
		}
		if parts[2] != "" {
			e.Hints.Nodes = []string{parts[2]}
		}
	}
	switch state {
	case "":
		e.Ready, e.Serving = true, true
	case "terminating":
		e.Serving, e.Terminating = true, true
	case "dead":
		e.Terminating = true
	case "unready":
	default:
		t.Fatalf("unknown state %s", state)
	}
	return e
}

// nodeN is the node n<number> of the tests' cluster, in zone a.
func nodeN(number int) Node {
	n := Node{
		Name: fmt.Sprintf("n%d", number), Zone: "a",
		Addresses: []netip.Addr{netip.AddrFrom4([4]byte{172, 30, 0, byte(number)}), netip.MustParseAddr(fmt.Sprintf("fd00:30::%d", number))},
		PodCIDRs:  []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 244, byte(number), 0}), 24), netip.MustParsePrefix(fmt.Sprintf("fd00:244:%d::/64", number))},
	}
	n.NodePortAddresses = n.Addresses
	return n
}
