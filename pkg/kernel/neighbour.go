package kernel

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// attributeNeighbourProtocol is NDA_PROTOCOL of linux/neighbour.h. Kernels
// before 5.2 ignore it.
const attributeNeighbourProtocol = 12

func (n *Netlink) addNeighbour(o Neighbour) error {
	// Replace: the kernel may have made an entry of its own by then.
	return n.neighbourMessage(o, unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE)
}

func (n *Netlink) removeNeighbour(o Neighbour) error {
	return n.neighbourMessage(o, unix.RTM_DELNEIGH, 0)
}

func (n *Netlink) neighbourMessage(o Neighbour, message, flags int) error {
	s, index, err := n.on(o.Side, o.Link)
	if err != nil {
		return err
	}
	r := s.Request(message, flags)
	header := &netlink.Ndmsg{Family: uint8(family(o.Address)), Index: uint32(index), State: unix.NUD_PERMANENT}
	if o.Amendable {
		// Externally learned: valid without having been resolved, and like a
		// permanent entry not counted by the table's garbage collector.
		header.State, header.Flags = unix.NUD_REACHABLE, unix.NTF_EXT_LEARNED
	}
	r.AddData(header)
	r.AddData(nl.NewRtAttr(unix.NDA_DST, o.Address.AsSlice()))
	r.AddData(nl.NewRtAttr(unix.NDA_LLADDR, []byte(o.MAC)))
	r.AddData(nl.NewRtAttr(attributeNeighbourProtocol, nl.Uint8Attr(Protocol)))
	return s.Acknowledge(r)
}

func (n *Netlink) inspectNeighbour(o Neighbour) (string, error) {
	s, index, err := n.on(o.Side, o.Link)
	if isGone(err) {
		return missing(o.Side, o.Link), nil
	}
	if err != nil {
		return "", err
	}
	r := s.Request(unix.RTM_GETNEIGH, 0)
	r.AddData(&netlink.Ndmsg{Family: uint8(family(o.Address)), Index: uint32(index)})
	r.AddData(nl.NewRtAttr(unix.NDA_DST, o.Address.AsSlice()))
	answer, err := s.Execute(r)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return "", nil // a kernel before 5.0 cannot be asked for one entry
	}
	if isGone(err) || (err == nil && len(answer) == 0) {
		if o.Amendable {
			return "", nil // the kernel resolves it when it needs it
		}
		return fmt.Sprintf("%s neighbour entry of %s on %s is missing", o.Side, o.Address, o.Link), nil
	}
	if err != nil {
		return "", err
	}
	found, err := netlink.NeighDeserialize(answer[0])
	if err != nil {
		return "", err
	}
	if !o.Amendable && found.State&unix.NUD_PERMANENT == 0 {
		return fmt.Sprintf("%s neighbour entry of %s on %s is not permanent", o.Side, o.Address, o.Link), nil
	}
	if mac := MAC(found.HardwareAddr); mac.String() != o.MAC.String() {
		return fmt.Sprintf("%s neighbour entry of %s on %s has MAC address %s instead of %s", o.Side, o.Address, o.Link, mac, o.MAC), nil
	}
	return "", nil
}

// Numbers of linux/neighbour.h: the attributes of a neighbour table.
const (
	tableName       = 1 // NDTA_NAME
	tableParameters = 6 // NDTA_PARMS
	parameterLink   = 1 // NDTPA_IFINDEX
	parameterReach  = 4 // NDTPA_BASE_REACHABLE_TIME
)

func (n *Netlink) bePatient(o Patience) error {
	s, index, err := n.on(o.Side, o.Link)
	if err != nil {
		return err
	}
	r := s.Request(unix.RTM_SETNEIGHTBL, 0)
	f := uint8(unix.AF_INET)
	if o.IPv6 {
		f = unix.AF_INET6
	}
	// A struct ndtmsg is as long as a struct rtgenmsg with its padding.
	r.AddData(&nl.RtGenMsg{RtGenmsg: unix.RtGenmsg{Family: f}})
	r.AddData(nl.NewRtAttr(tableName, nl.ZeroTerminated(o.table())))
	parameters := nl.NewRtAttr(tableParameters|unix.NLA_F_NESTED, nil)
	parameters.AddRtAttr(parameterLink, nl.Uint32Attr(uint32(index)))
	parameters.AddRtAttr(parameterReach, nl.Uint64Attr(patienceMilliseconds))
	r.AddData(parameters)
	return s.Acknowledge(r)
}

// KnowsNeighbour reports whether an interface of the host has an entry for an
// address. Equivalent to: `ip neigh get ADDRESS dev LINK`.
func (n *Netlink) KnowsNeighbour(link string, address netip.Addr) (bool, error) {
	s, index, err := n.on(Host, link)
	if isGone(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	r := s.Request(unix.RTM_GETNEIGH, 0)
	r.AddData(&netlink.Ndmsg{Family: uint8(family(address)), Index: uint32(index)})
	r.AddData(nl.NewRtAttr(unix.NDA_DST, address.AsSlice()))
	answer, err := s.Execute(r)
	if isGone(err) || errors.Is(err, unix.EOPNOTSUPP) {
		return false, nil // or a kernel before 5.0
	}
	return len(answer) > 0, err
}
