package kernel

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	vishvananda "github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Underlay is what a node has without flatnet: interfaces, their addresses, and
// the routes of the main table. Two reads of an unchanged node are equal.
type Underlay struct {
	Links  []UnderlayLink  // by name
	Routes []UnderlayRoute // longest prefix first
}

// UnderlayLink is an interface that is neither flatnet's tunnel nor a pod's.
type UnderlayLink struct {
	Name      string
	MTU       int // bytes
	Up        bool
	Addresses []netip.Prefix
}

// UnderlayRoute is a route of somebody else's, to other machines.
type UnderlayRoute struct {
	Destination netip.Prefix
	Link        string
	Gateway     netip.Addr // zero where the destination is on link
	Metric      int
	// Refused is a route of kind unreachable, blackhole or prohibit.
	Refused bool
}

// Addresses are those of all links.
func (u Underlay) Addresses() (all []netip.Addr) {
	for _, link := range u.Links {
		for _, p := range link.Addresses {
			all = append(all, p.Addr())
		}
	}
	return all
}

// Equal reports whether nothing has changed.
func (u Underlay) Equal(o Underlay) bool {
	return slices.Equal(u.Routes, o.Routes) && slices.EqualFunc(u.Links, o.Links, func(a, b UnderlayLink) bool {
		return a.Name == b.Name && a.MTU == b.MTU && a.Up == b.Up && slices.Equal(a.Addresses, b.Addresses)
	})
}

// Link returns an interface by its name.
func (u Underlay) Link(name string) (UnderlayLink, bool) {
	i, found := slices.BinarySearchFunc(u.Links, name, func(l UnderlayLink, name string) int { return strings.Compare(l.Name, name) })
	if !found {
		return UnderlayLink{}, false
	}
	return u.Links[i], true
}

// Owner returns the interface that has an address.
func (u Underlay) Owner(address netip.Addr) (UnderlayLink, bool) {
	for _, l := range u.Links {
		for _, a := range l.Addresses {
			if a.Addr() == address {
				return l, true
			}
		}
	}
	return UnderlayLink{}, false
}

// Underlay reads the node. Equivalent to: `ip addr; ip route; ip -6 route`,
// without what is flatnet's.
func (f *Fabric) Underlay() (Underlay, error) {
	var u Underlay
	names := map[int]string{}
	answer, err := f.socket.Dump(unix.RTM_GETLINK, nl.NewIfInfomsg(unix.AF_UNSPEC), nl.NewRtAttr(unix.IFLA_EXT_MASK, nl.Uint32Attr(withoutStatistics)))
	if err != nil {
		return u, fmt.Errorf("listing interfaces: %w", err)
	}
	for _, message := range answer {
		l, err := vishvananda.LinkDeserialize(nil, message)
		if err != nil {
			return u, fmt.Errorf("listing interfaces: %w", err)
		}
		a := l.Attrs()
		if a.Group == Group || a.Name == f.tunnel {
			continue
		}
		names[a.Index] = a.Name
		u.Links = append(u.Links, UnderlayLink{Name: a.Name, MTU: a.MTU, Up: a.Flags&net.FlagUp != 0})
	}
	slices.SortFunc(u.Links, func(a, b UnderlayLink) int { return strings.Compare(a.Name, b.Name) })
	if err := f.underlayAddresses(&u, names); err != nil {
		return u, err
	}
	if err := f.underlayRoutes(&u, names); err != nil {
		return u, err
	}
	return u, nil
}

func (f *Fabric) underlayAddresses(u *Underlay, names map[int]string) error {
	answer, err := f.socket.Dump(unix.RTM_GETADDR, nl.NewIfAddrmsg(unix.AF_UNSPEC))
	if err != nil {
		return fmt.Errorf("listing addresses: %w", err)
	}
	for _, message := range answer {
		found := parseAddress(message)
		name, known := names[found.link]
		if !known || !found.own.IsValid() || found.own.IsLinkLocalUnicast() {
			continue
		}
		i, _ := slices.BinarySearchFunc(u.Links, name, func(l UnderlayLink, name string) int { return strings.Compare(l.Name, name) })
		u.Links[i].Addresses = append(u.Links[i].Addresses, netip.PrefixFrom(found.own, found.prefix.Bits()))
	}
	for i := range u.Links {
		slices.SortFunc(u.Links[i].Addresses, netip.Prefix.Compare)
	}
	return nil
}

func (f *Fabric) underlayRoutes(u *Underlay, names map[int]string) error {
	for _, fam := range []uint8{unix.AF_INET, unix.AF_INET6} {
		header := &nl.RtMsg{}
		header.Family, header.Table = fam, unix.RT_TABLE_MAIN
		answer, err := f.socket.Dump(unix.RTM_GETROUTE, header)
		if isAbsentFamily(err) || errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return fmt.Errorf("listing routes: %w", err)
		}
		for _, message := range answer {
			if route, ok := underlayRoute(parseRoute(message), names); ok {
				u.Routes = append(u.Routes, route)
			}
		}
	}
	slices.SortFunc(u.Routes, func(a, b UnderlayRoute) int {
		return cmp.Or(cmp.Compare(b.Destination.Bits(), a.Destination.Bits()), a.Destination.Addr().Compare(b.Destination.Addr()),
			cmp.Compare(a.Metric, b.Metric), strings.Compare(a.Link, b.Link), a.Gateway.Compare(b.Gateway))
	})
	return nil
}

// underlayRoute describes a route of somebody else's that leads to machines.
func underlayRoute(found foundRoute, names map[int]string) (UnderlayRoute, bool) {
	if found.protocol == Protocol || found.cloned || found.Table != unix.RT_TABLE_MAIN ||
		found.Destination.Addr().IsLinkLocalUnicast() || found.Destination.Addr().IsMulticast() {
		return UnderlayRoute{}, false
	}
	route := UnderlayRoute{Destination: found.Destination, Gateway: found.Gateway, Metric: found.Metric}
	switch found.kind {
	case unix.RTN_UNREACHABLE, unix.RTN_BLACKHOLE, unix.RTN_PROHIBIT:
		route.Refused = true
		return route, true
	case unix.RTN_UNICAST:
	default:
		return UnderlayRoute{}, false
	}
	name, known := names[found.link]
	route.Link = name
	return route, known
}
