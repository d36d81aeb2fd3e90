// Package apivalue reads values that objects of the Kubernetes API have as text.
package apivalue

import (
	"fmt"
	"net/netip"
	"strings"

	v1 "k8s.io/api/core/v1"
)

// Protocol is one of IP's, by its number.
type Protocol uint8

// The protocols that Kubernetes knows, all of them with ports.
const (
	TCP  Protocol = 6
	UDP  Protocol = 17
	SCTP Protocol = 132
)

// ProtocolOf returns the number of a protocol; what is not said is TCP. It is not ok for
// one that Kubernetes does not know.
func ProtocolOf(p v1.Protocol) (_ Protocol, ok bool) {
	switch p {
	case v1.ProtocolTCP, "":
		return TCP, true
	case v1.ProtocolUDP:
		return UDP, true
	case v1.ProtocolSCTP:
		return SCTP, true
	}
	return 0, false
}

// HasPorts reports whether the protocol has ports.
func (p Protocol) HasPorts() bool { return p == TCP || p == UDP || p == SCTP }

// String returns the protocol's name as nft writes it, with ICMP's as people do; its
// number where it has none here.
func (p Protocol) String() string {
	const icmp, icmpv6 = 1, 58
	switch p {
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	case SCTP:
		return "sctp"
	case icmp:
		return "icmp"
	case icmpv6:
		return "icmpv6"
	}
	return fmt.Sprint(uint8(p))
}

// ParseAddr reads an address. The API server accepts leading zeros in old objects, and
// takes the numbers for decimal. One of IPv4 that is written as IPv6 is one of IPv4.
func ParseAddr(text string) (netip.Addr, error) {
	if strings.Contains(text, ".") && !strings.Contains(text, ":") {
		parts := strings.Split(text, ".")
		for i, part := range parts {
			if trimmed := strings.TrimLeft(part, "0"); trimmed != "" {
				parts[i] = trimmed
			} else if part != "" {
				parts[i] = "0"
			}
		}
		text = strings.Join(parts, ".")
	}
	a, err := netip.ParseAddr(text)
	return a.Unmap(), err
}
