package kernel

import (
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

func (n *Netlink) addAddress(a Address) error {
	err := n.addressMessage(a, unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL)
	if errors.Is(err, unix.EACCES) && a.Prefix.Addr().Is6() && a.Side == Pod {
		// A container runtime may have switched IPv6 off in the pod. A pod
		// that is given an IPv6 address is meant to use it.
		if err := n.enableIPv6(a.Link); err != nil {
			return err
		}
		return n.addressMessage(a, unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL)
	}
	return err
}

func (n *Netlink) removeAddress(a Address) error {
	return n.addressMessage(a, unix.RTM_DELADDR, 0)
}

func (n *Netlink) addressMessage(a Address, message, flags int) error {
	s, index, err := n.on(a.Side, a.Link)
	if err != nil {
		return err
	}
	r := s.Request(message, flags)
	header := nl.NewIfAddrmsg(family(a.Prefix.Addr()))
	header.Index = uint32(index)
	header.Prefixlen = uint8(a.Prefix.Bits())
	r.AddData(header)
	r.AddData(nl.NewRtAttr(unix.IFA_LOCAL, a.Prefix.Addr().AsSlice()))
	r.AddData(nl.NewRtAttr(unix.IFA_ADDRESS, a.Prefix.Addr().AsSlice()))
	if flags := a.flags(); flags != 0 {
		r.AddData(nl.NewRtAttr(unix.IFA_FLAGS, nl.Uint32Attr(flags)))
	}
	return s.Acknowledge(r)
}

func (n *Netlink) enableIPv6(link string) error {
	return n.pod.Do(func() error {
		// lo as well: the pod's traffic to its own address goes through it.
		for _, name := range []string{"lo", link} {
			if err := os.WriteFile(n.sysctl("net/ipv6/conf/"+name+"/disable_ipv6"), []byte("0"), 0); err != nil {
				return fmt.Errorf("enabling IPv6 on %s: %w", name, err)
			}
		}
		return nil
	})
}

func (n *Netlink) inspectAddress(a Address) (string, error) {
	s, index, err := n.on(a.Side, a.Link)
	if isGone(err) {
		return missing(a.Side, a.Link), nil
	}
	if err != nil {
		return "", err
	}
	addresses, err := s.addresses(family(a.Prefix.Addr()), index)
	if err != nil {
		return "", err
	}
	for _, found := range addresses {
		if found.prefix != a.Prefix {
			continue
		}
		if found.flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) != 0 {
			return fmt.Sprintf("%s address %s of %s cannot be used yet (tentative)", a.Side, a.Prefix, a.Link), nil
		}
		return "", nil
	}
	return fmt.Sprintf("%s interface %s lacks address %s", a.Side, a.Link, a.Prefix), nil
}

type foundAddress struct {
	prefix netip.Prefix
	flags  uint32
}

// addresses returns the addresses of one interface.
// Equivalent to: `ip addr show dev LINK`.
func (s *socket) addresses(family, index int) ([]foundAddress, error) {
	answer, err := s.Dump(unix.RTM_GETADDR, nl.NewIfAddrmsg(family))
	if err != nil {
		return nil, err
	}
	var all []foundAddress
	for _, message := range answer {
		header := nl.DeserializeIfAddrmsg(message)
		if int(header.Index) != index {
			continue
		}
		found, err := parseAddress(message)
		if err != nil {
			return nil, err
		}
		all = append(all, found)
	}
	return all, nil
}

func parseAddress(message []byte) (found foundAddress, err error) {
	header := nl.DeserializeIfAddrmsg(message)
	attributes, err := nl.ParseRouteAttr(message[header.Len():])
	if err != nil {
		return found, err
	}
	found.flags = uint32(header.IfAddrmsg.Flags)
	for _, a := range attributes {
		switch a.Attr.Type {
		case unix.IFA_ADDRESS:
			if address, ok := netip.AddrFromSlice(a.Value); ok {
				found.prefix = netip.PrefixFrom(address, int(header.Prefixlen))
			}
		case unix.IFA_FLAGS:
			found.flags = nl.NativeEndian().Uint32(a.Value)
		}
	}
	return found, nil
}

func family(a netip.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// unspecified is the address of a family that messages leave out: 0.0.0.0 or ::.
func unspecified(family uint8) netip.Addr {
	if family == unix.AF_INET6 {
		return netip.IPv6Unspecified()
	}
	return netip.IPv4Unspecified()
}
