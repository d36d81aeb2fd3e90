package kernel

import (
	"errors"
	"fmt"

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
	r := s.request(message, flags)
	r.AddData(&netlink.Ndmsg{Family: uint8(family(o.Address)), Index: uint32(index), State: unix.NUD_PERMANENT})
	r.AddData(nl.NewRtAttr(unix.NDA_DST, o.Address.AsSlice()))
	r.AddData(nl.NewRtAttr(unix.NDA_LLADDR, []byte(o.MAC)))
	r.AddData(nl.NewRtAttr(attributeNeighbourProtocol, nl.Uint8Attr(Protocol)))
	return s.acknowledge(r)
}

func (n *Netlink) inspectNeighbour(o Neighbour) (string, error) {
	s, index, err := n.on(o.Side, o.Link)
	if isGone(err) {
		return fmt.Sprintf("%s interface %s is missing", o.Side, o.Link), nil
	}
	if err != nil {
		return "", err
	}
	r := s.request(unix.RTM_GETNEIGH, 0)
	r.AddData(&netlink.Ndmsg{Family: uint8(family(o.Address)), Index: uint32(index)})
	r.AddData(nl.NewRtAttr(unix.NDA_DST, o.Address.AsSlice()))
	answer, err := s.execute(r)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return "", nil // a kernel before 5.0 cannot be asked for one entry
	}
	missing := fmt.Sprintf("%s neighbour entry of %s on %s is missing", o.Side, o.Address, o.Link)
	if isGone(err) || (err == nil && len(answer) == 0) {
		return missing, nil
	}
	if err != nil {
		return "", err
	}
	found, err := netlink.NeighDeserialize(answer[0])
	if err != nil {
		return "", err
	}
	if found.State&unix.NUD_PERMANENT == 0 {
		return fmt.Sprintf("%s neighbour entry of %s on %s is not permanent", o.Side, o.Address, o.Link), nil
	}
	if mac := MAC(found.HardwareAddr); mac.String() != o.MAC.String() {
		return fmt.Sprintf("%s neighbour entry of %s on %s has MAC address %s instead of %s", o.Side, o.Address, o.Link, mac, o.MAC), nil
	}
	return "", nil
}
