package kernel

import (
	"context"
	"net"

	vishvananda "github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/pkg/netlink"
)

// Event is news from the kernel that concerns a node's fabric.
type Event struct {
	// Object came, or went where Gone is set. nil for the other kinds. A
	// [Neighbour] without MAC is one that is no longer valid.
	Object Object
	Gone   bool
	// Underlay says that an interface, address or route that is not flatnet's
	// has changed. The kernel removes routes with their interface or address
	// without a word, so any of flatnet's may be gone.
	Underlay bool
	// Pods says that somebody took a route of a pod or of a gateway that the
	// node answers to. Where IPv6 is in use, that a pod left says so as well.
	Pods bool
	// Lost says that news were lost, for there were too many: anything may
	// have changed.
	Lost bool
}

// Monitor tells what happens to a node's fabric and underlay.
// Equivalent to: `ip monitor link address route rule neigh`.
type Monitor struct {
	listener *netlink.Listener
	tunnel   string
	links    map[int]seenLink
	lookup   *socket
}

type seenLink struct {
	name  string
	group int
	mtu   int
	up    bool
	runs  bool // has a carrier
	mac   string
}

// monitorBuffer holds some ten thousand notifications.
const monitorBuffer = 16 << 20

// NewMonitor opens a monitor in the caller's network namespace. What happens
// from then on is told by [Monitor.Run].
func NewMonitor(tunnel string) (*Monitor, error) {
	listener, err := netlink.Listen(unix.NETLINK_ROUTE, monitorBuffer,
		unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR,
		unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV6_RULE)
	if err != nil {
		return nil, err
	}
	lookup, err := openSocket(nil, usualBytes)
	if err != nil {
		listener.Close()
		return nil, err
	}
	return &Monitor{listener: listener, tunnel: tunnel, links: map[int]seenLink{}, lookup: lookup}, nil
}

// Run calls tell for every event until ctx ends; then it returns nil and the
// monitor is closed.
func (m *Monitor) Run(ctx context.Context, tell func(Event)) error {
	defer m.lookup.Close()
	return m.listener.Run(ctx, func(h *unix.NlMsghdr, message []byte) { m.interpret(h.Type, message, tell) }, func() {
		clear(m.links)
		tell(Event{Lost: true})
	})
}

func (m *Monitor) interpret(kind uint16, message []byte, tell func(Event)) {
	switch kind {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		m.link(message, kind == unix.RTM_DELLINK, tell)
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		m.address(message, kind == unix.RTM_DELADDR, tell)
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		m.route(message, kind == unix.RTM_DELROUTE, tell)
	case unix.RTM_NEWRULE, unix.RTM_DELRULE:
		if rule, ours := parseRule(message); ours {
			tell(Event{Object: rule, Gone: kind == unix.RTM_DELRULE})
		}
	case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
		m.neighbour(message, kind == unix.RTM_DELNEIGH, tell)
	}
}

// seen returns what is known of an interface, and asks where that is nothing.
func (m *Monitor) seen(index int) seenLink {
	l, known := m.links[index]
	if known {
		return l
	}
	found, err := m.lookup.getLinkByIndex(index)
	if err != nil {
		return seenLink{}
	}
	l = describe(found.Attrs())
	m.links[index] = l
	return l
}

func describe(a *vishvananda.LinkAttrs) seenLink {
	return seenLink{name: a.Name, group: int(a.Group), mtu: a.MTU, up: a.Flags&net.FlagUp != 0, runs: a.RawFlags&unix.IFF_RUNNING != 0, mac: a.HardwareAddr.String()}
}

func (m *Monitor) link(message []byte, gone bool, tell func(Event)) {
	if message[0] == unix.AF_BRIDGE {
		return // a port's state
	}
	l, err := vishvananda.LinkDeserialize(nil, message)
	if err != nil {
		return
	}
	now, index := describe(l.Attrs()), l.Attrs().Index
	before, known := m.links[index]
	m.links[index] = now
	if gone {
		delete(m.links, index)
	}
	switch {
	case now.group == Group, known && !gone && before == now:
	case now.name == m.tunnel:
		if device, isVxlan := l.(*vishvananda.Vxlan); isVxlan {
			tell(Event{Object: tunnelOf(device), Gone: gone})
		} else {
			tell(Event{Underlay: true})
		}
	default:
		tell(Event{Underlay: true})
	}
}

func (m *Monitor) address(message []byte, gone bool, tell func(Event)) {
	found := parseAddress(message)
	l := m.seen(found.link)
	switch {
	case l.group == Group:
	case l.name == m.tunnel:
		if !found.prefix.Addr().IsLinkLocalUnicast() {
			tell(Event{Object: tunnelAddress(m.tunnel, found), Gone: gone})
		}
	default:
		tell(Event{Underlay: true})
	}
}

func (m *Monitor) route(message []byte, gone bool, tell func(Event)) {
	found := parseRoute(message)
	if found.cloned {
		return
	}
	if a, is := found.lasting(); is {
		tell(Event{Object: a, Gone: gone})
		return
	}
	if found.Table == unix.RT_TABLE_LOCAL && found.protocol == Protocol && gone {
		tell(Event{Pods: true})
	}
	if found.Table != unix.RT_TABLE_MAIN && found.Table != FabricTable {
		return
	}
	if found.protocol != Protocol {
		if l := m.seen(found.link); found.Table == unix.RT_TABLE_MAIN && l.group != Group && l.name != m.tunnel &&
			!found.Destination.Addr().IsLinkLocalUnicast() && !found.Destination.Addr().IsMulticast() {
			tell(Event{Underlay: true})
		}
		return
	}
	if found.link != 0 {
		l := m.seen(found.link)
		if l.group == Group && gone {
			tell(Event{Pods: true})
		}
		if l.group == Group || l.name == "" {
			return // a pod's, or gone with its interface
		}
	}
	if route, ours := nodeRoute(found, func(link int) string { return m.seen(link).name }); ours {
		tell(Event{Object: route, Gone: gone})
	}
}

func (m *Monitor) neighbour(message []byte, gone bool, tell func(Event)) {
	if len(message) < neighbourHeaderSize {
		return
	}
	// Most are about machines on the underlay and pods.
	index := int(nl.NativeEndian().Uint32(message[4:]))
	if m.seen(index).name != m.tunnel || toldTwice(message) {
		return
	}
	if object := readNeighbour(message, m.tunnel, index); object != nil {
		tell(Event{Object: object, Gone: gone})
		return
	}
	// An entry that is deleted first becomes a failed one without MAC, and is
	// told of as that.
	n, err := parseNeighbour(message)
	if err == nil && n.family != unix.AF_BRIDGE && !n.address.IsMulticast() {
		tell(Event{Object: Neighbour{Link: m.tunnel, Address: n.address}})
	}
}

// toldTwice reports whether a message is the second one about an entry of a
// forwarding database. Before Linux 6.15 the network core tells of each entry that
// was asked for once more, after the VXLAN driver has (rtnl_fdb_notify), and knows
// neither the destination nor whether anything has changed.
func toldTwice(message []byte) bool {
	if message[0] != unix.AF_BRIDGE {
		return false
	}
	const nextHopGroup = 13 // NDA_NH_ID: such an entry has no address either
	for kind := range netlink.Attributes(message[neighbourHeaderSize:]) {
		if kind == unix.NDA_DST || kind == nextHopGroup {
			return false
		}
	}
	return true
}
