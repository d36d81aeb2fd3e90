package kernel

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"

	vishvananda "github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/pkg/netlink"
)

// Neighbour is an entry of the neighbour table that is valid from the start, so
// that nothing has to be resolved, and exempt from garbage collection.
type Neighbour struct {
	Side    Side
	Link    string
	Address netip.Addr
	MAC     MAC
	// Amendable lets the neighbour itself announce another MAC address. Any
	// other entry is permanent: nothing but an administrator changes it.
	Amendable bool
}

func (n Neighbour) String() string {
	state := " nud permanent"
	if n.Amendable {
		state = " nud reachable extern_learn"
	}
	b := make([]byte, 0, 96)
	b = append(append(b, n.Side.ip()...), " neigh add "...)
	b = n.Address.AppendTo(b)
	b = append(append(b, " lladdr "...), n.MAC.String()...)
	b = append(append(b, " dev "...), n.Link...)
	b = append(append(b, state...), " proto "...)
	return string(strconv.AppendInt(b, Protocol, 10))
}

// Dependence implements [Object].
func (n Neighbour) Dependence() (Side, string) { return n.Side, n.Link }

// in fills a request in; index is the interface's.
func (n Neighbour) in(r *nl.NetlinkRequest, index int) *nl.NetlinkRequest {
	header := &vishvananda.Ndmsg{Family: uint8(family(n.Address)), Index: uint32(index), State: unix.NUD_PERMANENT}
	if n.Amendable {
		// Externally learned: valid without having been resolved, and like a
		// permanent entry not counted by the table's garbage collector.
		header.State, header.Flags = unix.NUD_REACHABLE, unix.NTF_EXT_LEARNED
	}
	r.AddData(header)
	r.AddData(nl.NewRtAttr(unix.NDA_DST, n.Address.AsSlice()))
	r.AddData(nl.NewRtAttr(unix.NDA_LLADDR, n.MAC[:]))
	r.AddData(nl.NewRtAttr(attributeNeighbourProtocol, nl.Uint8Attr(Protocol)))
	return r
}

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
	return s.Acknowledge(o.in(s.Request(message, flags), index))
}

// askNeighbour asks for one entry of a neighbour table.
// Equivalent to: `ip neigh get ADDRESS dev LINK`.
func (s *socket) askNeighbour(address netip.Addr, index int) ([][]byte, error) {
	r := s.Request(unix.RTM_GETNEIGH, 0)
	r.AddData(&vishvananda.Ndmsg{Family: uint8(family(address)), Index: uint32(index)})
	r.AddData(nl.NewRtAttr(unix.NDA_DST, address.AsSlice()))
	return s.Execute(r)
}

func (n *Netlink) inspectNeighbour(o Neighbour) (string, error) {
	s, index, err := n.on(o.Side, o.Link)
	if isGone(err) {
		return missing(o.Side, o.Link), nil
	}
	if err != nil {
		return "", err
	}
	answer, err := s.askNeighbour(o.Address, index)
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
	found, err := parseNeighbour(answer[0])
	if err != nil {
		return "", err
	}
	if !o.Amendable && found.state&unix.NUD_PERMANENT == 0 {
		return fmt.Sprintf("%s neighbour entry of %s on %s is not permanent", o.Side, o.Address, o.Link), nil
	}
	if found.mac != o.MAC {
		return fmt.Sprintf("%s neighbour entry of %s on %s has MAC address %s instead of %s", o.Side, o.Address, o.Link, found.mac, o.MAC), nil
	}
	return "", nil
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
	answer, err := s.askNeighbour(address, index)
	if isGone(err) || errors.Is(err, unix.EOPNOTSUPP) {
		return false, nil // or a kernel before 5.0
	}
	return len(answer) > 0, err
}

// Forward is an entry of a tunnel's forwarding database: frames to a MAC address
// go to a node.
type Forward struct {
	Link string
	MAC  MAC
	To   netip.Addr
}

func (f Forward) String() string {
	b := make([]byte, 0, 96)
	b = append(b, "bridge fdb add "...)
	b = append(b, f.MAC.String()...)
	b = append(b, " dev "...)
	b = append(b, f.Link...)
	b = append(b, " dst "...)
	b = f.To.AppendTo(b)
	b = append(b, " self permanent"...)
	return string(b)
}

// Dependence implements [Object].
func (f Forward) Dependence() (Side, string) { return Host, f.Link }

// in fills a request in; index is the interface's.
func (f Forward) in(r *nl.NetlinkRequest, index int) *nl.NetlinkRequest {
	r.AddData(&vishvananda.Ndmsg{Family: unix.AF_BRIDGE, Index: uint32(index), State: unix.NUD_PERMANENT, Flags: unix.NTF_SELF})
	r.AddData(nl.NewRtAttr(unix.NDA_LLADDR, f.MAC[:]))
	r.AddData(nl.NewRtAttr(unix.NDA_DST, f.To.AsSlice()))
	return r
}

// neighbour is an entry of a neighbour table or forwarding database (struct ndmsg
// and its attributes).
type neighbour struct {
	family  uint8
	link    int
	state   uint16
	address netip.Addr
	mac     MAC
}

const neighbourHeaderSize = 12

func parseNeighbour(message []byte) (n neighbour, err error) {
	if len(message) < neighbourHeaderSize {
		return n, unix.EINVAL
	}
	n.family = message[0]
	n.link = int(nl.NativeEndian().Uint32(message[4:]))
	n.state = nl.NativeEndian().Uint16(message[8:])
	for kind, value := range netlink.Attributes(message[neighbourHeaderSize:]) {
		switch kind {
		case unix.NDA_DST:
			n.address, _ = netip.AddrFromSlice(value)
		case unix.NDA_LLADDR:
			copy(n.mac[:], value)
		}
	}
	return n, nil
}
