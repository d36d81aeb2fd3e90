package kernel

import (
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

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
	return parseRoute(answer[0]), nil
}

// HasRoute reports whether the node would send a packet of its own to an address
// somewhere: whether there is a route to it that is not unreachable, prohibit or
// blackhole. Equivalent to: `ip route get 10.96.0.1`.
func HasRoute(to netip.Addr) (bool, error) {
	s, err := openSocket(nil, usualBytes)
	if err != nil {
		return false, err
	}
	defer s.Close()
	_, err = s.lookup(to)
	if isUnreachable(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("looking up the route to %s: %w", to, err)
	}
	return true, nil
}

// isLocal reports whether packets to an address are for the namespace itself.
// Equivalent to: `ip route get ADDRESS fibmatch`.
func (s *socket) isLocal(address netip.Addr) (bool, error) {
	route, err := s.lookup(address)
	if err != nil && !isGone(err) && !isUnreachable(err) {
		return false, err
	}
	return err == nil && route.kind == unix.RTN_LOCAL, nil
}

// wayOut looks up the route to an address; found is false where there is none that leads
// out by an interface.
func (s *socket) wayOut(address netip.Addr) (route foundRoute, found bool, err error) {
	route, err = s.lookup(address)
	if isGone(err) || isUnreachable(err) {
		return route, false, nil
	}
	return route, err == nil && route.kind == unix.RTN_UNICAST && route.link != 0, err
}

// LeadsToPod reports whether the node's route to an address goes out by an interface of
// flatnet's: whether a pod with that address is attached.
// Equivalent to: `ip route get ADDRESS fibmatch; ip link show dev …`.
func (n *Netlink) LeadsToPod(address netip.Addr) (bool, error) {
	s := n.sockets[Host]
	route, found, err := s.wayOut(address)
	if err != nil {
		return false, fmt.Errorf("looking up the route to %s: %w", address, err)
	}
	if !found {
		return false, nil
	}
	link, err := s.getLinkByIndex(route.link)
	if isGone(err) {
		return false, nil // since
	}
	if err != nil {
		return false, fmt.Errorf("looking up the route to %s: %w", address, err)
	}
	return link.Attrs().Group == Group, nil
}

// IsLocal reports whether an address is one of the node's own.
// Equivalent to: `ip route get ADDRESS fibmatch`.
func (n *Netlink) IsLocal(address netip.Addr) (bool, error) { return n.sockets[Host].isLocal(address) }

// defaultMTU is taken where the node has no default route to learn from.
const defaultMTU = 1500

// UplinkMTU returns the MTU, in bytes, of the interface that has the node's
// default route, IPv4 before IPv6, or 1500 where there is none.
// Equivalent to: `ip route get 192.0.2.1; ip link show dev …`.
func (n *Netlink) UplinkMTU() (int, error) {
	s := n.sockets[Host]
	// Addresses of the documentation prefixes: nobody has a route of its own
	// to them, so the default route answers.
	for _, outside := range []netip.Addr{
		netip.AddrFrom4([4]byte{192, 0, 2, 1}), netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 15: 1}),
	} {
		route, err := s.lookup(outside)
		if err != nil || route.link == 0 || route.kind != unix.RTN_UNICAST {
			continue
		}
		link, err := s.getLinkByIndex(route.link)
		if err != nil {
			return 0, err
		}
		return link.Attrs().MTU, nil
	}
	return defaultMTU, nil
}

// OnLinkElsewhere reports whether the node reaches an address directly through
// an interface that is not flatnet's: the address then belongs to a machine
// outside, for example a router of the underlay.
func (n *Netlink) OnLinkElsewhere(address netip.Addr) (bool, error) {
	s := n.sockets[Host]
	route, found, err := s.wayOut(address)
	if err != nil || !found || route.Gateway.IsValid() {
		return false, err
	}
	link, err := s.getLinkByIndex(route.link)
	if err != nil {
		return false, err
	}
	return link.Attrs().Group != Group, nil
}
