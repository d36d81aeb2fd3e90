package fastpath

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/pkg/kernel"
	"github.com/flatnet-cni/flatnet/pkg/netlink"
)

// interfaceLink is what has to be known of an interface.
type interfaceLink struct {
	index    int
	name     string
	group    uint32
	ethernet bool
	mac      kernel.MAC
	queue    string // root qdisc
}

const linkHeader = 16 // struct ifinfomsg

func readLink(message []byte) (l interfaceLink, ok bool) {
	if len(message) < linkHeader || message[0] == unix.AF_BRIDGE {
		return l, false
	}
	l.ethernet = binary.NativeEndian.Uint16(message[2:]) == unix.ARPHRD_ETHER
	l.index = int(int32(binary.NativeEndian.Uint32(message[4:])))
	for kind, value := range netlink.Attributes(message[linkHeader:]) {
		switch {
		case kind == unix.IFLA_IFNAME:
			l.name = unix.ByteSliceToString(value)
		case kind == unix.IFLA_ADDRESS && len(value) == len(l.mac):
			l.mac = kernel.MAC(value)
		case kind == unix.IFLA_QDISC:
			l.queue = unix.ByteSliceToString(value)
		case kind == unix.IFLA_GROUP && len(value) >= 4:
			l.group = binary.NativeEndian.Uint32(value)
		}
	}
	return l, true
}

// listLinks returns all interfaces.
// Equivalent to: `ip link show`.
func listLinks(s *netlink.Socket) (all []interfaceLink, err error) {
	answer, err := s.Dump(unix.RTM_GETLINK, nl.NewIfInfomsg(unix.AF_UNSPEC))
	if err != nil {
		return nil, fmt.Errorf("listing interfaces: %w", err)
	}
	for _, message := range answer {
		if l, ok := readLink(message); ok {
			all = append(all, l)
		}
	}
	return all, nil
}

// Where says which interfaces the programs are to be at, besides those of pods.
type Where struct {
	Underlay []string // names
	Tunnel   string   // "" for none
	// Outer is the node's own end of the tunnel's packets; zero where it has none.
	Outer netip.Addr
	// Without are names of pods' interfaces that are to be left alone.
	Without map[string]bool
}

// place is an interface that programs are to be at, or why not.
type place struct {
	interfaceLink
	pod    bool
	reason string // why not; "" where they are
}

// places are all interfaces that somebody might expect programs at.
func (w Where) places(all []interfaceLink) (places []place) {
	for _, l := range all {
		p := place{interfaceLink: l, pod: l.group == kernel.Group}
		switch {
		case p.pod && w.Without[l.name]:
			p.reason = "it is switched off for the pod"
		case p.pod && l.queue != "noqueue" && l.queue != "noop": // that of one that is not up yet
			// What is sent past the interface would be sent past its queue.
			p.reason = fmt.Sprintf("the pod's interface has a queue (%s), which holds it to a rate", l.queue)
		case p.pod:
		case !slices.Contains(w.Underlay, l.name) && (w.Tunnel == "" || l.name != w.Tunnel):
			continue
		case !l.ethernet:
			p.reason = "it is no Ethernet"
		}
		places = append(places, p)
	}
	return places
}
