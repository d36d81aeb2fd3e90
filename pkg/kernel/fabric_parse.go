package kernel

import (
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// parseRule reads a rule message; ours is false where it is not flatnet's.
func parseRule(message []byte) (rule Rule, ours bool) {
	header := nl.DeserializeRtMsg(message)
	attributes, err := nl.ParseRouteAttr(message[header.Len():])
	if err != nil {
		return rule, false
	}
	rule.Table = int(header.Table)
	source := unspecified(header.Family)
	for _, a := range attributes {
		switch a.Attr.Type {
		case unix.FRA_SRC:
			if address, ok := netip.AddrFromSlice(a.Value); ok {
				source = address
			}
		case unix.FRA_TABLE:
			rule.Table = int(nl.NativeEndian().Uint32(a.Value))
		case unix.FRA_PRIORITY:
			rule.Priority = int(nl.NativeEndian().Uint32(a.Value))
		case unix.FRA_PROTOCOL:
			ours = len(a.Value) == 1 && a.Value[0] == Protocol
		}
	}
	rule.From = netip.PrefixFrom(source, int(header.Src_len))
	return rule, ours
}

// parseNeighbour reads an entry of a neighbour table or forwarding database.
func parseNeighbour(message []byte) (header neighbourHeader, address netip.Addr, mac [6]byte, protocol uint8, err error) {
	if len(message) < neighbourHeaderSize {
		return header, address, mac, 0, unix.EINVAL
	}
	header = neighbourHeader{
		family: message[0],
		link:   int(nl.NativeEndian().Uint32(message[4:])),
		state:  nl.NativeEndian().Uint16(message[8:]),
		flags:  message[10],
	}
	attributes, err := nl.ParseRouteAttr(message[neighbourHeaderSize:])
	if err != nil {
		return header, address, mac, 0, err
	}
	for _, a := range attributes {
		switch a.Attr.Type {
		case unix.NDA_DST:
			address, _ = netip.AddrFromSlice(a.Value)
		case unix.NDA_LLADDR:
			copy(mac[:], a.Value)
		case attributeNeighbourProtocol:
			protocol = a.Value[0]
		}
	}
	return header, address, mac, protocol, nil
}

// neighbourHeader is a struct ndmsg.
type neighbourHeader struct {
	family uint8
	link   int
	state  uint16
	flags  uint8
}

const neighbourHeaderSize = 12
