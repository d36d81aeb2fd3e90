package ports

import (
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// Mapping gives a port of the node to a pod.
type Mapping struct {
	HostPort      uint16 `json:"hostPort"`      // 1 to 65535
	ContainerPort uint16 `json:"containerPort"` // 1 to 65535
	Protocol      string `json:"protocol"`      // one of Protocols
	// HostIP is the one address of the node that is meant; 0.0.0.0 and :: are all of
	// their family, and the zero value is all of both.
	HostIP netip.Addr `json:"hostIP,omitzero"`
}

// protocols are what can be mapped, with their numbers. Nobody writes to it.
var protocols = map[string]uint8{"tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP, "sctp": unix.IPPROTO_SCTP}

// ProtocolNumber returns a protocol's number; ok is false for one that has no ports
// which could be mapped.
func ProtocolNumber(name string) (number uint8, ok bool) {
	number, ok = protocols[name]
	return number, ok
}

// String is what of the node is given away: "8080/tcp", "192.0.2.1:8080/tcp".
func (m Mapping) String() string {
	if !m.HostIP.IsValid() {
		return fmt.Sprintf("%d/%s", m.HostPort, m.Protocol)
	}
	return fmt.Sprintf("%s/%s", netip.AddrPortFrom(m.HostIP, m.HostPort), m.Protocol)
}

// allOf reports whether the mapping is for all addresses of a family.
func (m Mapping) allOf(ipv6 bool) bool {
	return !m.HostIP.IsValid() || m.HostIP.IsUnspecified() && m.HostIP.Is6() == ipv6
}

// in reports whether the mapping is for any address of a family.
func (m Mapping) in(ipv6 bool) bool { return !m.HostIP.IsValid() || m.HostIP.Is6() == ipv6 }

// Overlaps reports whether there is a packet that both could mean.
func (m Mapping) Overlaps(o Mapping) bool {
	if m.HostPort != o.HostPort || m.Protocol != o.Protocol {
		return false
	}
	for _, ipv6 := range []bool{false, true} {
		if m.in(ipv6) && o.in(ipv6) && (m.allOf(ipv6) || o.allOf(ipv6) || m.HostIP == o.HostIP) {
			return true
		}
	}
	return false
}

// Wanted are the ports of one pod.
type Wanted struct {
	Mappings []Mapping `json:"mappings,omitempty"`
	// KeepSource leaves every source as it is, even where no answer can come back then:
	// from the node's 127.0.0.1, and from the pod itself (portmap's "snat": false).
	KeepSource bool `json:"keepSource,omitempty"`
	// MasqueradeAll gives every connection the node's address (portmap's "masqAll").
	MasqueradeAll bool `json:"masqueradeAll,omitempty"`
}

// IsZero reports whether there are no ports. It is also for JSON's omitzero.
func (w Wanted) IsZero() bool { return len(w.Mappings) == 0 }

// Localnet reports whether connections from the node's 127.0.0.1 lead to the pod, whose
// addresses are given. To IPv6's ::1 the kernel has no such way.
func (w Wanted) Localnet(addresses []netip.Addr) bool {
	return !w.KeepSource && slices.ContainsFunc(addresses, netip.Addr.Is4) && slices.ContainsFunc(w.Mappings, func(m Mapping) bool {
		return m.allOf(false) || m.HostIP.Is4() && m.HostIP.IsLoopback()
	})
}

// Without returns those of the mappings that lead nowhere: the pod has no address of
// the family that they are for.
func (w Wanted) Without(addresses []netip.Addr) (nowhere []Mapping) {
	for _, m := range w.Mappings {
		if m.HostIP.IsValid() && !slices.ContainsFunc(addresses, func(a netip.Addr) bool { return a.Is6() == m.HostIP.Is6() }) {
			nowhere = append(nowhere, m)
		}
	}
	return nowhere
}

// Pod is a pod with its ports.
type Pod struct {
	Name      string       // namespace/name, or another name for people
	Addresses []netip.Addr // the first of each family is mapped to
	Wanted
}

// address returns the pod's address of a family.
func (p Pod) address(ipv6 bool) (netip.Addr, bool) {
	i := slices.IndexFunc(p.Addresses, func(a netip.Addr) bool { return a.Is6() == ipv6 })
	if i < 0 {
		return netip.Addr{}, false
	}
	return p.Addresses[i], true
}

// Conflict says that a port is another pod's.
type Conflict struct {
	Wanted Mapping
	Has    Mapping // that of the other pod
	Pod    string  // the other one; "" where its name is not known
	Leads  netip.AddrPort
}

func (c *Conflict) Error() string {
	pod := "another pod"
	if c.Pod != "" {
		pod = "pod " + c.Pod
	}
	text := fmt.Sprintf("host port %s is taken by %s (it leads to %s)", c.Wanted, pod, c.Leads)
	if c.Wanted != c.Has {
		text = fmt.Sprintf("host port %s is taken by %s, which has %s (it leads to %s)", c.Wanted, pod, c.describe(), c.Leads)
	}
	return text
}

func (c *Conflict) describe() string {
	if c.Has.HostIP.IsValid() {
		return c.Has.String()
	}
	return c.Has.String() + " of all addresses"
}
