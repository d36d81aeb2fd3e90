package kernel

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Questions about the node that an attachment has to ask.

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
	route, err := s.lookup(address)
	switch {
	case isGone(err) || isUnreachable(err):
		return false, nil
	case err != nil:
		return false, err
	case route.kind != unix.RTN_UNICAST || route.Gateway.IsValid() || route.link == 0:
		return false, nil
	}
	link, err := s.getLinkByIndex(route.link)
	if err != nil {
		return false, err
	}
	return link.Attrs().Group != Group, nil
}

// Link is what can be seen of an interface from outside.
type Link struct {
	Name  string
	Alias string
	Group int
	Kind  string // "veth", …
}

// FindLink looks an interface up by name; ok is false where there is none.
// Equivalent to: `ip link show dev NAME`.
func (n *Netlink) FindLink(side Side, name string) (found Link, ok bool, err error) {
	s, err := n.socket(side)
	if err != nil {
		return Link{}, false, err
	}
	l, err := s.getLink(name)
	if isGone(err) {
		return Link{}, false, nil
	}
	if err != nil {
		return Link{}, false, err
	}
	return Link{Name: name, Alias: l.Attrs().Alias, Group: int(l.Attrs().Group), Kind: l.Type()}, true, nil
}

// LinksOfGroup returns flatnet's interfaces on the host.
// Equivalent to: `ip link show group 70`.
func (n *Netlink) LinksOfGroup() ([]Link, error) {
	answer, err := n.sockets[Host].Dump(unix.RTM_GETLINK, nl.NewIfInfomsg(unix.AF_UNSPEC))
	if err != nil {
		return nil, fmt.Errorf("listing interfaces: %w", err)
	}
	var links []Link
	for _, message := range answer {
		l, err := netlink.LinkDeserialize(nil, message)
		if err != nil {
			return nil, fmt.Errorf("listing interfaces: %w", err)
		}
		if a := l.Attrs(); a.Group == Group {
			links = append(links, Link{Name: a.Name, Alias: a.Alias, Group: Group, Kind: l.Type()})
		}
	}
	return links, nil
}

// HasAddress reports whether an interface has one of the addresses. Where there
// is no such interface it has none.
func (n *Netlink) HasAddress(side Side, link string, addresses []netip.Addr) (bool, error) {
	s, index, err := n.on(side, link)
	if isGone(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	found, err := s.addresses(unix.AF_UNSPEC, index)
	if err != nil {
		return false, err
	}
	for _, f := range found {
		for _, a := range addresses {
			if f.prefix.Addr() == a {
				return true, nil
			}
		}
	}
	return false, nil
}

// DeleteLink removes an interface; it is no error where there is none.
// Equivalent to: `ip link del NAME`.
func (n *Netlink) DeleteLink(side Side, name string) error {
	s, err := n.socket(side)
	if err != nil {
		return err
	}
	if n.Step != nil {
		if err := n.Step("ip link del " + name); err != nil {
			return err
		}
	}
	if err := s.deleteLink(name); !isGone(err) {
		return err
	}
	return nil
}

func isUnreachable(err error) bool {
	for _, errno := range []error{unix.ENETUNREACH, unix.EHOSTUNREACH, unix.EACCES, unix.EINVAL} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}
