// Package kernel is the edge to rtnetlink: links, addresses, neighbours, routes and
// rules, as plain values whose text is the `ip` command that makes them.
//
// What a pod's attachment consists of is made, compared and removed one by one, in two
// network namespaces, by [Netlink]; [Recorder] stands in for it in tests, with a list
// of the commands. What joins a node to others is listed and changed many at a time,
// by [Fabric], and a [Monitor] tells when somebody else has changed it.
package kernel

import (
	"fmt"
	"net"
)

// Protocol is the route protocol number of everything that flatnet puts into a
// routing or neighbour table: `ip route show proto 70`.
const Protocol = 70

// Group is the interface group of flatnet's host interfaces:
// `ip link show group 70`.
const Group = 70

// Side says in which of an attachment's two network namespaces an object is.
type Side int

func (s Side) String() string {
	if s == Pod {
		return "pod"
	}
	return "host"
}

const (
	Host Side = iota // the node's namespace, where the plugin runs
	Pod              // the namespace that CNI_NETNS names
)

// ip is the beginning of an `ip` command for the side.
func (s Side) ip() string {
	if s == Pod {
		return "ip -n pod"
	}
	return "ip"
}

// tc is the same of a `tc` command.
func (s Side) tc() string {
	if s == Pod {
		return "tc -n pod"
	}
	return "tc"
}

// Object is one thing in the kernel. Its text is the `ip` command (or sysctl)
// that makes it.
type Object interface {
	fmt.Stringer
	// Dependence returns the interface without which the object cannot
	// exist: the kernel removes the object together with it. It returns ""
	// where the object stands alone.
	Dependence() (Side, string)
}

// MAC is a hardware address; zero is none. Its JSON form is its usual text.
type MAC [6]byte

func (m MAC) String() string { return net.HardwareAddr(m[:]).String() }

// MarshalText returns the form with colons, and "" for none.
func (m MAC) MarshalText() ([]byte, error) {
	if m == (MAC{}) {
		return nil, nil
	}
	return []byte(m.String()), nil
}

// UnmarshalText reads any form of six bytes that [net.ParseMAC] reads, and "" as none.
func (m *MAC) UnmarshalText(text []byte) error {
	*m = MAC{}
	if len(text) == 0 {
		return nil
	}
	parsed, err := net.ParseMAC(string(text))
	if err == nil && len(parsed) != len(m) {
		err = fmt.Errorf("address %s: not a MAC address of %d bytes", text, len(m))
	}
	if err == nil {
		*m = MAC(parsed)
	}
	return err
}
