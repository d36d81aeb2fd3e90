// Package nflog reads packets that rules of nftables log to a group.
package nflog

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/pkg/netlink"
)

// Packet is a packet as far as it is of interest.
type Packet struct {
	Prefix              string // of the rule
	Protocol            uint8
	Source, Destination netip.AddrPort // ports are 0 where there are none, or in a fragment
}

// Numbers of linux/netfilter/nfnetlink_log.h.
const (
	messagePacket = unix.NFNL_SUBSYS_ULOG << 8   // NFULNL_MSG_PACKET
	messageConfig = unix.NFNL_SUBSYS_ULOG<<8 | 1 // NFULNL_MSG_CONFIG

	packetPayload, packetPrefix = 9, 10 // NFULA_PAYLOAD, NFULA_PREFIX
	configCommand, configMode   = 1, 2  // NFULA_CFG_CMD, NFULA_CFG_MODE
	commandBind                 = 1     // NFULNL_CFG_CMD_BIND
	copyPacket                  = 2     // NFULNL_COPY_PACKET

	// copied is how much of each packet is told, in bytes.
	copied = 128
	buffer = 1 << 20
)

// Run calls tell for each packet that is logged to the group in the caller's network
// namespace, until ctx ends; then it returns nil. It fails where another process reads
// the group (EBUSY), and where the kernel has no nfnetlink_log.
func Run(ctx context.Context, group uint16, tell func(Packet)) error {
	l, err := netlink.Listen(unix.NETLINK_NETFILTER, buffer)
	if err != nil {
		return err
	}
	mode := append(binary.BigEndian.AppendUint32(nil, copied), copyPacket, 0)
	for _, a := range [][]byte{attribute(configCommand, []byte{commandBind}), attribute(configMode, mode)} {
		if err := l.Ask(config(group, a)); err != nil {
			l.Close()
			return fmt.Errorf("reading log group %d of nftables: %w", group, err)
		}
	}
	return l.Run(ctx, func(h *unix.NlMsghdr, payload []byte) {
		if h.Type == messagePacket {
			if p, ok := parse(payload); ok {
				tell(p)
			}
		}
	}, func() {})
}

// config is a request about a group.
func config(group uint16, what []byte) []byte {
	const header, generic = unix.SizeofNlMsghdr, 4
	b := make([]byte, header, header+generic+len(what))
	binary.NativeEndian.PutUint32(b[0:], uint32(header+generic+len(what)))
	binary.NativeEndian.PutUint16(b[4:], messageConfig)
	binary.NativeEndian.PutUint16(b[6:], unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	b = append(b, unix.AF_UNSPEC, unix.NFNETLINK_V0)
	return append(binary.BigEndian.AppendUint16(b, group), what...)
}

func attribute(kind uint16, value []byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(netlink.AttributeHeader+len(value)))
	b = append(binary.NativeEndian.AppendUint16(b, kind), value...)
	return append(b, make([]byte, netlink.Align(len(b))-len(b))...)
}

func parse(message []byte) (p Packet, ok bool) {
	const generic = 4
	if len(message) < generic {
		return p, false
	}
	for kind, value := range netlink.Attributes(message[generic:]) {
		switch kind {
		case packetPrefix:
			for len(value) > 0 && value[len(value)-1] == 0 {
				value = value[:len(value)-1]
			}
			p.Prefix = string(value)
		case packetPayload:
			ok = p.parse(value)
		}
	}
	return p, ok
}

// parse reads an IP packet's headers.
func (p *Packet) parse(raw []byte) bool {
	const minimum4, minimum6, version = 20, 40, 4
	switch {
	case len(raw) >= minimum4 && raw[0]>>version == 4:
		source, destination := netip.AddrFrom4([4]byte(raw[12:16])), netip.AddrFrom4([4]byte(raw[16:20]))
		offset := binary.BigEndian.Uint16(raw[6:]) & 0x1fff
		p.Protocol = raw[9]
		rest := raw[min(len(raw), int(raw[0]&0xf)*4):]
		if offset > 0 {
			rest = nil
		}
		p.ends(source, destination, rest)
		return true
	case len(raw) >= minimum6 && raw[0]>>version == 6:
		source, destination := netip.AddrFrom16([16]byte(raw[8:24])), netip.AddrFrom16([16]byte(raw[24:40]))
		var rest []byte
		p.Protocol, rest = upper(raw[6], raw[minimum6:])
		p.ends(source, destination, rest)
		return true
	}
	return false
}

// upper goes through the extension headers of an IPv6 packet; there is no rest of a
// fragment that is not the first.
func upper(next uint8, raw []byte) (protocol uint8, rest []byte) {
	for len(raw) >= 8 {
		size := 8
		switch next {
		case unix.IPPROTO_HOPOPTS, unix.IPPROTO_ROUTING, unix.IPPROTO_DSTOPTS:
			size = 8 * (int(raw[1]) + 1)
		case unix.IPPROTO_FRAGMENT:
			if binary.BigEndian.Uint16(raw[2:])&0xfff8 != 0 {
				return raw[0], nil
			}
		default:
			return next, raw
		}
		next, raw = raw[0], raw[min(len(raw), size):]
	}
	return next, raw
}

// ends notes addresses, and ports where the protocol has some.
func (p *Packet) ends(source, destination netip.Addr, rest []byte) {
	var ports [2]uint16
	if (p.Protocol == unix.IPPROTO_TCP || p.Protocol == unix.IPPROTO_UDP || p.Protocol == unix.IPPROTO_SCTP) && len(rest) >= 4 {
		ports = [2]uint16{binary.BigEndian.Uint16(rest), binary.BigEndian.Uint16(rest[2:])}
	}
	p.Source, p.Destination = netip.AddrPortFrom(source, ports[0]), netip.AddrPortFrom(destination, ports[1])
}
