package kernel

import (
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

func (n *Netlink) addRoute(o Route) error {
	// Exclusive: a route to a pod's address that is there already belongs to
	// another interface, which would go on receiving the pod's packets.
	return n.routeMessage(o, unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL)
}

func (n *Netlink) removeRoute(o Route) error {
	return n.routeMessage(o, unix.RTM_DELROUTE, 0)
}

func (n *Netlink) routeMessage(o Route, message, flags int) error {
	s, index, err := n.on(o.Side, o.Link)
	if err != nil {
		return err
	}
	r := s.Request(message, flags)
	header := nl.NewRtMsg()
	header.Family = uint8(family(o.Destination.Addr()))
	header.Dst_len = uint8(o.Destination.Bits())
	header.Protocol = Protocol
	header.Scope = o.scope()
	if o.Gateway.IsValid() {
		header.Flags |= unix.RTNH_F_ONLINK
	}
	// The header has a byte for the table; numbers above it go beside.
	header.Table = unix.RT_TABLE_UNSPEC
	r.AddData(header)
	r.AddData(nl.NewRtAttr(unix.RTA_TABLE, nl.Uint32Attr(uint32(o.table()))))
	if o.Destination.Bits() > 0 {
		r.AddData(nl.NewRtAttr(unix.RTA_DST, o.Destination.Addr().AsSlice()))
	}
	if o.Gateway.IsValid() {
		r.AddData(gatewayAttribute(o.Destination.Addr(), o.Gateway))
	}
	r.AddData(nl.NewRtAttr(unix.RTA_OIF, nl.Uint32Attr(uint32(index))))
	if o.Priority != 0 {
		r.AddData(nl.NewRtAttr(unix.RTA_PRIORITY, nl.Uint32Attr(uint32(o.Priority))))
	}
	if o.MTU != 0 || o.AdvMSS != 0 {
		metrics := nl.NewRtAttr(unix.RTA_METRICS, nil)
		if o.MTU != 0 {
			metrics.AddRtAttr(unix.RTAX_MTU, nl.Uint32Attr(uint32(o.MTU)))
		}
		if o.AdvMSS != 0 {
			metrics.AddRtAttr(unix.RTAX_ADVMSS, nl.Uint32Attr(uint32(o.AdvMSS)))
		}
		r.AddData(metrics)
	}
	return s.Acknowledge(r)
}

// gatewayAttribute is RTA_GATEWAY, or RTA_VIA for a next hop of the other family.
func gatewayAttribute(destination, gateway netip.Addr) *nl.RtAttr {
	if family(gateway) == family(destination) {
		return nl.NewRtAttr(unix.RTA_GATEWAY, gateway.AsSlice())
	}
	via := append(nl.Uint16Attr(uint16(family(gateway))), gateway.AsSlice()...)
	return nl.NewRtAttr(unix.RTA_VIA, via)
}

func (o Route) scope() uint8 {
	switch {
	case o.Scope != nil:
		return uint8(*o.Scope)
	case o.Gateway.IsValid() || o.Destination.Addr().Is6():
		return unix.RT_SCOPE_UNIVERSE
	}
	return unix.RT_SCOPE_LINK
}

func (o Route) table() int {
	if o.Table != 0 {
		return o.Table
	}
	return unix.RT_TABLE_MAIN
}

// inspectRoute asks the host for the one route that it would use, because its
// tables may be large, and reads the tables of the pod, which are small.
func (n *Netlink) inspectRoute(o Route) (string, error) {
	if o.Side == Host {
		return n.inspectHostRoute(o)
	}
	s, index, err := n.on(o.Side, o.Link)
	if isGone(err) {
		return missing(o.Side, o.Link), nil
	}
	if err != nil {
		return "", err
	}
	header := nl.NewRtMsg()
	header.Family = uint8(family(o.Destination.Addr()))
	answer, err := s.Dump(unix.RTM_GETROUTE, header)
	if err != nil {
		return "", err
	}
	for _, message := range answer {
		found, err := parseRoute(message)
		if err != nil {
			return "", err
		}
		if found.matches(o, index) {
			return "", nil
		}
	}
	return fmt.Sprintf("route %s through the pod's %s is missing", o.Destination, o.Link), nil
}

func (n *Netlink) inspectHostRoute(o Route) (string, error) {
	s, index, err := n.on(Host, o.Link)
	if isGone(err) {
		return missing(Host, o.Link), nil
	}
	if err != nil {
		return "", err
	}
	found, err := s.lookup(o.Destination.Addr())
	if isGone(err) || isUnreachable(err) {
		return fmt.Sprintf("host has no route to %s", o.Destination), nil
	}
	if err != nil {
		return "", err
	}
	switch {
	case found.destination != o.Destination:
		return fmt.Sprintf("host has no route to %s of its own, only %s", o.Destination, found.destination), nil
	case found.link != index:
		return fmt.Sprintf("host route to %s leads to %s instead of %s", o.Destination, s.linkName(found.link), o.Link), nil
	}
	return "", nil
}

// foundRoute is what a route message of the kernel says.
type foundRoute struct {
	Route
	kind     uint8 // RTN_UNICAST, RTN_LOCAL, …
	protocol uint8
	link     int

	destination netip.Prefix
	source      netip.Addr // that the node prefers
	scope       uint8
	onLink      bool
	cloned      bool // an exception in a cache, not an entry of a table
}

func (f foundRoute) matches(o Route, link int) bool {
	return f.destination == o.Destination && f.link == link && f.Table == o.table() && f.Gateway == o.Gateway &&
		(o.Scope == nil || o.Destination.Addr().Is6() || f.scope == uint8(*o.Scope)) &&
		(o.Priority == 0 || f.Priority == o.Priority) &&
		(o.MTU == 0 || f.MTU == o.MTU) && (o.AdvMSS == 0 || f.AdvMSS == o.AdvMSS)
}

// lookup asks which route the kernel takes to an address and returns that
// route as it stands in the table. Equivalent to: `ip route get ADDRESS fibmatch`.
func (s *socket) lookup(to netip.Addr) (foundRoute, error) {
	r := s.Request(unix.RTM_GETROUTE, 0)
	header := &nl.RtMsg{}
	header.Family = uint8(family(to))
	header.Dst_len = uint8(to.BitLen())
	header.Flags = unix.RTM_F_FIB_MATCH
	r.AddData(header)
	r.AddData(nl.NewRtAttr(unix.RTA_DST, to.AsSlice()))
	answer, err := s.Execute(r)
	if err != nil {
		return foundRoute{}, err
	}
	if len(answer) == 0 {
		return foundRoute{}, unix.ENETUNREACH
	}
	return parseRoute(answer[0])
}

func parseRoute(message []byte) (foundRoute, error) {
	header := nl.DeserializeRtMsg(message)
	attributes, err := nl.ParseRouteAttr(message[header.Len():])
	if err != nil {
		return foundRoute{}, err
	}
	f := foundRoute{
		kind: header.Type, protocol: header.Protocol, scope: header.Scope,
		onLink: header.Flags&unix.RTNH_F_ONLINK != 0, cloned: header.Flags&unix.RTM_F_CLONED != 0,
	}
	f.Table = int(header.Table)
	destination := unspecified(header.Family)
	for _, a := range attributes {
		switch a.Attr.Type {
		case unix.RTA_DST:
			if address, ok := netip.AddrFromSlice(a.Value); ok {
				destination = address
			}
		case unix.RTA_GATEWAY:
			f.Gateway, _ = netip.AddrFromSlice(a.Value)
		case unix.RTA_VIA:
			f.Gateway, _ = netip.AddrFromSlice(a.Value[2:])
		case unix.RTA_PREFSRC:
			f.source, _ = netip.AddrFromSlice(a.Value)
		case unix.RTA_OIF:
			f.link = int(nl.NativeEndian().Uint32(a.Value))
		case unix.RTA_TABLE:
			f.Table = int(nl.NativeEndian().Uint32(a.Value))
		case unix.RTA_PRIORITY:
			f.Priority = int(nl.NativeEndian().Uint32(a.Value))
		case unix.RTA_MULTIPATH:
			f.firstHop(a.Value)
		case unix.RTA_METRICS:
			if err := f.parseMetrics(a.Value); err != nil {
				return f, err
			}
		}
	}
	f.destination = netip.PrefixFrom(destination, int(header.Dst_len))
	return f, nil
}

// firstHop reads the first of several next hops (struct rtnexthop).
func (f *foundRoute) firstHop(raw []byte) {
	if len(raw) < unix.SizeofRtNexthop {
		return
	}
	length := int(nl.NativeEndian().Uint16(raw))
	if length < unix.SizeofRtNexthop || length > len(raw) {
		return
	}
	f.link = int(nl.NativeEndian().Uint32(raw[4:]))
	attributes, err := nl.ParseRouteAttr(raw[unix.SizeofRtNexthop:length])
	if err != nil {
		return
	}
	for _, a := range attributes {
		if a.Attr.Type == unix.RTA_GATEWAY {
			f.Gateway, _ = netip.AddrFromSlice(a.Value)
		}
	}
}

func (f *foundRoute) parseMetrics(raw []byte) error {
	metrics, err := nl.ParseRouteAttr(raw)
	if err != nil {
		return err
	}
	for _, m := range metrics {
		switch m.Attr.Type {
		case unix.RTAX_MTU:
			f.MTU = int(nl.NativeEndian().Uint32(m.Value))
		case unix.RTAX_ADVMSS:
			f.AdvMSS = int(nl.NativeEndian().Uint32(m.Value))
		}
	}
	return nil
}

// linkName returns an interface's name for a message to people.
func (s *socket) linkName(index int) string {
	if l, err := s.getLinkByIndex(index); err == nil {
		return l.Attrs().Name
	}
	return fmt.Sprintf("interface %d", index)
}
