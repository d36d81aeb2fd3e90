package kernel

import (
	"fmt"
	"net/netip"
	"strconv"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/pkg/netlink"
)

// Route is a route, of the host or of a pod: to pods, to nodes, or to nowhere.
type Route struct {
	Side        Side
	Link        string // "" for an unreachable route
	Destination netip.Prefix
	// Gateway is the next hop; zero where the destination is on link.
	Gateway netip.Addr
	// Hops are the next hops where there are several, among which the kernel divides
	// what takes the route; Link and Gateway are empty then.
	Hops Hops
	// OnLink takes the next hop to be reachable through the interface,
	// whatever its addresses say.
	OnLink bool
	// Source is what the host sends from; zero leaves it to the kernel.
	Source netip.Addr
	// Scope is a routing scope, 0 (universe) to 255 (nowhere); nil means
	// universe with a gateway, link without.
	Scope  *int
	Table  int // 0 means main
	Metric int // 0 means the family's default
	MTU    int // bytes; 0 means that of the interface
	AdvMSS int // bytes; 0 means from the MTU
	// Unreachable answers what takes the route with an ICMP error.
	Unreachable bool
	// Odd is the type (RTN_…) of a route that flatnet does not make, such as a
	// blackhole, and that somebody made with its mark; else 0.
	Odd uint8
}

func (r Route) String() string {
	b := make([]byte, 0, 128)
	b = append(append(b, r.Side.ip()...), " route add "...)
	number := func(name string, value int) {
		if value != 0 {
			b = append(append(append(b, ' '), name...), ' ')
			b = strconv.AppendInt(b, int64(value), 10)
		}
	}
	if r.Unreachable {
		b = append(b, "unreachable "...)
	}
	if r.Odd != 0 {
		b = append(strconv.AppendInt(append(b, "type "...), int64(r.Odd), 10), ' ')
	}
	switch {
	case r.Destination.Bits() == 0 && r.Destination.Addr().Is4():
		b = append(b, "default"...)
	case r.Destination.Bits() == 0:
		b = append(b, "-6 default"...)
	case r.Destination.IsSingleIP() && !r.Gateway.IsValid():
		b = r.Destination.Addr().AppendTo(b)
	default:
		b = r.Destination.AppendTo(b)
	}
	if r.Gateway.IsValid() {
		b = r.Gateway.AppendTo(append(b, " via "...))
	}
	if r.Link != "" {
		b = append(append(b, " dev "...), r.Link...)
	}
	number("table", r.Table)
	number("proto", Protocol)
	if r.Source.IsValid() {
		b = r.Source.AppendTo(append(b, " src "...))
	}
	number("metric", r.Metric)
	for _, h := range r.Hops.All() {
		b = h.Gateway.AppendTo(append(b, " nexthop via "...))
		b = append(append(b, " dev "...), h.Link...)
	}
	if r.OnLink {
		b = append(b, " onlink"...)
	}
	number("mtu", r.MTU)
	number("advmss", r.AdvMSS)
	if r.Scope != nil {
		b = strconv.AppendInt(append(b, " scope "...), int64(*r.Scope), 10)
	}
	return string(b)
}

// Dependence implements [Object].
func (r Route) Dependence() (Side, string) { return r.Side, r.Link }

// in fills a request in; index is the interface's, 0 where there is none, and hops are the
// indices of several next hops' interfaces.
func (o Route) in(r *nl.NetlinkRequest, index int, hops ...int) *nl.NetlinkRequest {
	header := nl.NewRtMsg()
	header.Family = uint8(family(o.Destination.Addr()))
	header.Dst_len = uint8(o.Destination.Bits())
	header.Protocol = Protocol
	header.Scope = o.scope()
	switch {
	case o.Unreachable:
		header.Type = unix.RTN_UNREACHABLE
	case o.Odd != 0:
		header.Type = o.Odd
	}
	if o.OnLink {
		header.Flags |= unix.RTNH_F_ONLINK
	}
	// The header has a byte for the table; numbers above it go beside.
	header.Table = unix.RT_TABLE_UNSPEC
	r.AddData(header)
	number := func(add func(*nl.RtAttr), kind, value int) {
		if value != 0 {
			add(nl.NewRtAttr(kind, nl.Uint32Attr(uint32(value))))
		}
	}
	add := func(a *nl.RtAttr) { r.AddData(a) }
	number(add, unix.RTA_TABLE, o.table())
	if o.Destination.Bits() > 0 {
		r.AddData(nl.NewRtAttr(unix.RTA_DST, o.Destination.Addr().AsSlice()))
	}
	if o.Gateway.IsValid() {
		r.AddData(gatewayAttribute(o.Destination.Addr(), o.Gateway))
	}
	number(add, unix.RTA_OIF, index)
	if o.Hops != "" {
		r.AddData(nl.NewRtAttr(unix.RTA_MULTIPATH, o.Hops.attribute(o.Destination.Addr(), hops)))
	}
	if o.Source.IsValid() {
		r.AddData(nl.NewRtAttr(unix.RTA_PREFSRC, o.Source.AsSlice()))
	}
	number(add, unix.RTA_PRIORITY, o.Metric)
	if o.MTU != 0 || o.AdvMSS != 0 {
		metrics := nl.NewRtAttr(unix.RTA_METRICS, nil)
		inside := func(a *nl.RtAttr) { metrics.AddChild(a) }
		number(inside, unix.RTAX_MTU, o.MTU)
		number(inside, unix.RTAX_ADVMSS, o.AdvMSS)
		r.AddData(metrics)
	}
	return r
}

func (o Route) scope() uint8 {
	switch {
	case o.Scope != nil:
		return uint8(*o.Scope)
	case o.Gateway.IsValid() || o.Hops != "" || o.Destination.Addr().Is6() || o.Unreachable || o.Odd != 0:
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

// gatewayAttribute is RTA_GATEWAY, or RTA_VIA for a next hop of the other family.
func gatewayAttribute(destination, gateway netip.Addr) *nl.RtAttr {
	if family(gateway) == family(destination) {
		return nl.NewRtAttr(unix.RTA_GATEWAY, gateway.AsSlice())
	}
	via := append(nl.Uint16Attr(uint16(family(gateway))), gateway.AsSlice()...)
	return nl.NewRtAttr(unix.RTA_VIA, via)
}

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
	return s.Acknowledge(o.in(s.Request(message, flags), index))
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
		if parseRoute(message).matches(o, index) {
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
	case found.Destination != o.Destination:
		return fmt.Sprintf("host has no route to %s of its own, only %s", o.Destination, found.Destination), nil
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
	scope    uint8
	cloned   bool       // an exception in a cache, not an entry of a table
	hops     []foundHop // where there are several; link and Gateway are the first's
}

func (f foundRoute) matches(o Route, link int) bool {
	return f.Destination == o.Destination && f.link == link && f.Table == o.table() && f.Gateway == o.Gateway &&
		(o.Scope == nil || o.Destination.Addr().Is6() || f.scope == uint8(*o.Scope)) &&
		(o.Metric == 0 || f.Metric == o.Metric) &&
		(o.MTU == 0 || f.MTU == o.MTU) && (o.AdvMSS == 0 || f.AdvMSS == o.AdvMSS)
}

func parseRoute(message []byte) foundRoute {
	header := nl.DeserializeRtMsg(message)
	f := foundRoute{
		Route: Route{Table: int(header.Table), OnLink: header.Flags&unix.RTNH_F_ONLINK != 0},
		kind:  header.Type, protocol: header.Protocol, scope: header.Scope, cloned: header.Flags&unix.RTM_F_CLONED != 0,
	}
	number := func(value []byte) int { return int(nl.NativeEndian().Uint32(value)) }
	destination := unspecified(header.Family)
	for kind, value := range netlink.Attributes(message[header.Len():]) {
		switch kind {
		case unix.RTA_DST:
			if address, ok := netip.AddrFromSlice(value); ok {
				destination = address
			}
		case unix.RTA_GATEWAY:
			f.Gateway, _ = netip.AddrFromSlice(value)
		case unix.RTA_VIA: // struct rtvia: the family, then the address
			f.Gateway, _ = netip.AddrFromSlice(value[2:])
		case unix.RTA_PREFSRC:
			f.Source, _ = netip.AddrFromSlice(value)
		case unix.RTA_OIF:
			f.link = number(value)
		case unix.RTA_TABLE:
			f.Table = number(value)
		case unix.RTA_PRIORITY:
			f.Metric = number(value)
		case unix.RTA_MULTIPATH:
			f.readHops(value)
		case unix.RTA_METRICS:
			for kind, value := range netlink.Attributes(value) {
				switch kind {
				case unix.RTAX_MTU:
					f.MTU = number(value)
				case unix.RTAX_ADVMSS:
					f.AdvMSS = number(value)
				}
			}
		}
	}
	f.Destination = netip.PrefixFrom(destination, int(header.Dst_len))
	return f
}
