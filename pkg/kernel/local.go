package kernel

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// localRoute adds or deletes a route by which a namespace takes packets to an
// address as its own.
func (n *Netlink) localRoute(side Side, link string, address netip.Addr, message, flags int) error {
	s, index, err := n.on(side, link)
	if err != nil {
		return err
	}
	r := s.Request(message, flags)
	header := nl.NewRtMsg()
	header.Family = uint8(family(address))
	header.Dst_len = uint8(address.BitLen())
	header.Table = unix.RT_TABLE_LOCAL
	header.Type = unix.RTN_LOCAL
	header.Protocol = Protocol
	if address.Is4() {
		header.Scope = unix.RT_SCOPE_HOST
	}
	r.AddData(header)
	r.AddData(nl.NewRtAttr(unix.RTA_DST, address.AsSlice()))
	r.AddData(nl.NewRtAttr(unix.RTA_OIF, nl.Uint32Attr(uint32(index))))
	return s.Acknowledge(r)
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

func (n *Netlink) makeReachable(o Reachable) error {
	err := n.localRoute(o.Side, o.Link, o.Address, unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL)
	if errors.Is(err, ErrExists) {
		return nil // by another interface that has the address: it is delivered
	}
	return err
}

func (n *Netlink) inspectReachable(o Reachable) (string, error) {
	s, err := n.socket(o.Side)
	if err != nil {
		return "", err
	}
	local, err := s.isLocal(o.Address)
	if err == nil && !local {
		return fmt.Sprintf("packets to %s are not delivered in the %s's namespace", o.Address, o.Side), nil
	}
	return "", err
}
