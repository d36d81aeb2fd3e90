package speaker

import (
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// otherEnd returns the link-local address of the one router on an interface, as the kernel
// knows it of router advertisements or of having talked to it.
// Equivalent to: `ip -6 neigh show dev LINK`.
func otherEnd(name string) (found netip.Addr, err error) {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return found, fmt.Errorf("interface %s: %w", name, err)
	}
	list, err := netlink.NeighList(link.Attrs().Index, netlink.FAMILY_V6)
	if err != nil {
		return found, fmt.Errorf("listing neighbours of interface %s: %w", name, err)
	}
	for _, n := range list {
		if !n.IP.IsLinkLocalUnicast() || n.State&(netlink.NUD_FAILED|netlink.NUD_INCOMPLETE) != 0 || n.Flags&unix.NTF_ROUTER == 0 {
			continue
		}
		if found.IsValid() {
			return found, fmt.Errorf("interface %s has several routers on it (%s, %s): give the peer's address instead, as in %s%%%s", name, found, n.IP, n.IP, name)
		}
		address, _ := netip.AddrFromSlice(n.IP)
		found = address.WithZone(name)
	}
	if !found.IsValid() {
		return found, fmt.Errorf("interface %s: no router has been heard of; it is tried again", name)
	}
	return found, nil
}
