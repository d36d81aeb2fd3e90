package kernel

import (
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/pkg/netlink"
)

// Address is an address of an interface, without duplicate address detection. A
// link-local one that is longer than its address brings a route to its prefix.
type Address struct {
	Side   Side
	Link   string
	Prefix netip.Prefix
	// Deprecated keeps an IPv6 address from being chosen as a source (RFC
	// 6724, 5, rule 3), other than by a route that names it.
	Deprecated bool
}

func (a Address) String() string {
	text := fmt.Sprintf("%s addr add %s dev %s", a.Side.ip(), a.Prefix, a.Link)
	if flags := a.flags(); flags&unix.IFA_F_NODAD != 0 {
		text += " nodad"
		if flags&unix.IFA_F_NOPREFIXROUTE != 0 {
			text += " noprefixroute"
		}
	}
	if a.Deprecated {
		text += " preferred_lft 0"
	}
	return text
}

// Dependence implements [Object].
func (a Address) Dependence() (Side, string) { return a.Side, a.Link }

// in fills a request in; index is the interface's.
func (a Address) in(r *nl.NetlinkRequest, index int) *nl.NetlinkRequest {
	header := nl.NewIfAddrmsg(family(a.Prefix.Addr()))
	header.Index = uint32(index)
	header.Prefixlen = uint8(a.Prefix.Bits())
	r.AddData(header)
	r.AddData(nl.NewRtAttr(unix.IFA_LOCAL, a.Prefix.Addr().AsSlice()))
	r.AddData(nl.NewRtAttr(unix.IFA_ADDRESS, a.Prefix.Addr().AsSlice()))
	if r.Type == unix.RTM_DELADDR {
		return r
	}
	if flags := a.flags(); flags != 0 {
		r.AddData(nl.NewRtAttr(unix.IFA_FLAGS, nl.Uint32Attr(flags)))
	}
	if a.Deprecated {
		const forever = 1<<32 - 1
		lifetime := nl.IfaCacheInfo{IfaCacheinfo: unix.IfaCacheinfo{Prefered: 0, Valid: forever}}
		r.AddData(nl.NewRtAttr(unix.IFA_CACHEINFO, lifetime.Serialize()))
	}
	return r
}

func (a Address) flags() uint32 {
	switch address := a.Prefix.Addr(); {
	case address.Is4():
		return 0
	case address.IsLinkLocalUnicast() && !a.Prefix.IsSingleIP():
		return unix.IFA_F_NODAD
	}
	return unix.IFA_F_NODAD | unix.IFA_F_NOPREFIXROUTE
}

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
	return s.Acknowledge(a.in(s.Request(message, flags), index))
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

type foundAddress struct {
	link   int
	prefix netip.Prefix
	own    netip.Addr // on a point-to-point interface the prefix is the other end's
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
		if found := parseAddress(message); found.link == index {
			all = append(all, found)
		}
	}
	return all, nil
}

func parseAddress(message []byte) foundAddress {
	header := nl.DeserializeIfAddrmsg(message)
	found := foundAddress{link: int(header.Index), flags: uint32(header.IfAddrmsg.Flags)}
	for kind, value := range netlink.Attributes(message[header.Len():]) {
		switch kind {
		case unix.IFA_ADDRESS:
			if address, ok := netip.AddrFromSlice(value); ok {
				found.prefix = netip.PrefixFrom(address, int(header.Prefixlen))
			}
		case unix.IFA_LOCAL:
			found.own, _ = netip.AddrFromSlice(value)
		case unix.IFA_FLAGS:
			found.flags = nl.NativeEndian().Uint32(value)
		}
	}
	if !found.own.IsValid() {
		found.own = found.prefix.Addr()
	}
	return found
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
