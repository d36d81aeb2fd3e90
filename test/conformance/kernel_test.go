package conformance

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/flatnet-cni/flatnet/test/netlab"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// whole repeats a dump until the kernel says that nothing changed meanwhile.
func whole[T any](dump func() ([]T, error)) []T {
	for {
		all, err := dump()
		if errors.Is(err, netlink.ErrDumpInterrupted) {
			continue
		}
		if err != nil {
			panic(err)
		}
		return all
	}
}

// links are a namespace's interfaces by name.
func links(space *netlab.Namespace) map[string]netlink.Link {
	found := map[string]netlink.Link{}
	for _, l := range whole(space.Netlink().LinkList) {
		found[l.Attrs().Name] = l
	}
	return found
}

// macs are interfaces' MAC addresses by name.
func macs(links map[string]netlink.Link) map[string]string {
	found := map[string]string{}
	for name, l := range links {
		found[name] = l.Attrs().HardwareAddr.String()
	}
	return found
}

// routes are those of all tables and one family.
func routes(space *netlab.Namespace, family int) []netlink.Route {
	return whole(func() ([]netlink.Route, error) {
		return space.Netlink().RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
	})
}

// routesTo are a namespace's routes to exactly this destination, in all tables
// but the one of its own addresses.
func routesTo(space *netlab.Namespace, destination netip.Prefix) []netlink.Route {
	var found []netlink.Route
	for _, r := range routes(space, familyOf(destination.Addr())) {
		if r.Table != unix.RT_TABLE_LOCAL && prefixOf(r.Dst, destination.Addr()) == destination {
			found = append(found, r)
		}
	}
	return found
}

// prefixOf converts; no network at all is the default route of like's family.
func prefixOf(n *net.IPNet, like netip.Addr) netip.Prefix {
	if n == nil {
		unspecified := netip.IPv4Unspecified()
		if like.Is6() {
			unspecified = netip.IPv6Unspecified()
		}
		return netip.PrefixFrom(unspecified, 0)
	}
	address, _ := netip.AddrFromSlice(n.IP)
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(address.Unmap(), bits)
}

// ipNet converts back.
func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// only is the prefix that holds just this address.
func only(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

func familyOf(a netip.Addr) int {
	if a.Is6() {
		return unix.AF_INET6
	}
	return unix.AF_INET
}

// addressesOn are an interface's addresses, as the kernel has them.
func addressesOn(space *netlab.Namespace, link string) []netlink.Addr {
	l, ok := links(space)[link]
	if !ok {
		return nil
	}
	return whole(func() ([]netlink.Addr, error) { return space.Netlink().AddrList(l, netlink.FAMILY_ALL) })
}

// holds says whether an interface has an address.
func holds(space *netlab.Namespace, link string, address netip.Addr) bool {
	return slices.ContainsFunc(addressesOn(space, link), func(a netlink.Addr) bool {
		return a.IP.Equal(net.IP(address.AsSlice()))
	})
}

// snapshot describes all that a plugin could leave in a namespace: interfaces,
// addresses, routes, rules and permanent neighbours. What the kernel derives by
// itself from an address, and has for link-local and multicast ones some time
// after an interface came up, is left out.
func snapshot(space *netlab.Namespace) string {
	var lines []string
	line := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	names := map[int]string{}
	handle := space.Netlink()
	for _, l := range links(space) {
		a := l.Attrs()
		names[a.Index] = a.Name
		line("link %s %s mac %s mtu %d up %v alias %q", a.Name, l.Type(), a.HardwareAddr, a.MTU, a.Flags&net.FlagUp != 0, a.Alias)
	}
	for _, a := range whole(func() ([]netlink.Addr, error) { return handle.AddrList(nil, netlink.FAMILY_ALL) }) {
		if !a.IP.IsLinkLocalUnicast() {
			line("addr %s dev %s", a.IPNet, names[a.LinkIndex])
		}
	}
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		for _, r := range routes(space, family) {
			if r.Table == unix.RT_TABLE_LOCAL || r.Dst != nil && (r.Dst.IP.IsLinkLocalUnicast() || r.Dst.IP.IsMulticast()) {
				continue
			}
			line("route %v via %v dev %s table %d type %d metric %d", r.Dst, r.Gw, names[r.LinkIndex], r.Table, r.Type, r.Priority)
		}
		for _, r := range whole(func() ([]netlink.Rule, error) { return handle.RuleList(family) }) {
			line("rule %v", r)
		}
		for _, n := range whole(func() ([]netlink.Neigh, error) { return handle.NeighList(0, family) }) {
			if n.State&netlink.NUD_PERMANENT != 0 {
				line("neigh %s %s dev %s", n.IP, n.HardwareAddr, names[n.LinkIndex])
			}
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// difference lists the lines that came (+) and went (-).
func difference(before, after string) string {
	old, now := strings.Split(before, "\n"), strings.Split(after, "\n")
	var changes []string
	for _, l := range now {
		if !slices.Contains(old, l) {
			changes = append(changes, "+ "+l)
		}
	}
	for _, l := range old {
		if !slices.Contains(now, l) {
			changes = append(changes, "- "+l)
		}
	}
	return strings.Join(changes, "; ")
}
