package conntrack

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/pkg/netlink"
)

// Numbers of linux/netfilter/nfnetlink_conntrack.h that the packages in use lack.
const (
	messageGet    = unix.NFNL_SUBSYS_CTNETLINK<<8 | 1 // IPCTNL_MSG_CT_GET
	messageDelete = unix.NFNL_SUBSYS_CTNETLINK<<8 | 2 // IPCTNL_MSG_CT_DELETE

	attributeTupleOrig  = 1  // CTA_TUPLE_ORIG
	attributeTupleReply = 2  // CTA_TUPLE_REPLY
	attributeStatus     = 3  // CTA_STATUS
	attributeID         = 12 // CTA_ID
	attributeFilter     = 25 // CTA_FILTER

	tupleIP       = 1 // CTA_TUPLE_IP
	tupleProtocol = 2 // CTA_TUPLE_PROTO
	ipv4Source    = 1 // CTA_IP_V4_SRC
	ipv4Target    = 2 // CTA_IP_V4_DST
	ipv6Source    = 3 // CTA_IP_V6_SRC
	ipv6Target    = 4 // CTA_IP_V6_DST
	protocolKind  = 1 // CTA_PROTO_NUM
	sourcePort    = 2 // CTA_PROTO_SRC_PORT
	targetPort    = 3 // CTA_PROTO_DST_PORT

	filterOriginal   = 1      // CTA_FILTER_ORIG_FLAGS
	filterReply      = 2      // CTA_FILTER_REPLY_FLAGS
	filterOnSource   = 1 << 0 // CTA_FILTER_F_CTA_IP_SRC
	filterOnProtocol = 1 << 2 // CTA_FILTER_F_CTA_PROTO_NUM

	statusAnswered = 1 << 1 // IPS_SEEN_REPLY
)

// Flow is a tracked connection or, in UDP, what is taken for one.
type Flow struct {
	Protocol uint8 // 6 for TCP, 17 for UDP
	// Source opened it, and sent to Destination.
	Source, Destination netip.AddrPort
	// Answering is who got what was sent, after translation, and Seen is whom it
	// answers: the Source as it looks from there.
	Answering, Seen netip.AddrPort
	// Answered says that there was an answer, ever.
	Answered bool

	tuple, id []byte // as the kernel wants them back
}

// parse reads an entry; ok is false for one that cannot be named to the kernel.
func parse(message []byte) (f Flow, ok bool) {
	const generic = 4 // struct nfgenmsg
	for kind, value := range netlink.Attributes(message[min(generic, len(message)):]) {
		switch {
		case kind == attributeTupleOrig:
			f.tuple = value
			f.Source, f.Destination, f.Protocol = parseTuple(value)
		case kind == attributeTupleReply:
			f.Answering, f.Seen, _ = parseTuple(value)
		case kind == attributeStatus && len(value) >= 4:
			f.Answered = binary.BigEndian.Uint32(value)&statusAnswered != 0
		case kind == attributeID:
			f.id = value
		}
	}
	return f, f.Source.IsValid() && f.Destination.IsValid() && f.id != nil
}

func parseTuple(raw []byte) (source, target netip.AddrPort, protocol uint8) {
	var addresses [2]netip.Addr
	var ports [2]uint16
	for part, inner := range netlink.Attributes(raw) {
		for kind, value := range netlink.Attributes(inner) {
			switch {
			case part == tupleIP && (kind == ipv4Source || kind == ipv6Source):
				addresses[0], _ = netip.AddrFromSlice(value)
			case part == tupleIP && (kind == ipv4Target || kind == ipv6Target):
				addresses[1], _ = netip.AddrFromSlice(value)
			case part == tupleProtocol && kind == protocolKind && len(value) > 0:
				protocol = value[0]
			case part == tupleProtocol && kind == sourcePort && len(value) >= 2:
				ports[0] = binary.BigEndian.Uint16(value)
			case part == tupleProtocol && kind == targetPort && len(value) >= 2:
				ports[1] = binary.BigEndian.Uint16(value)
			}
		}
	}
	return netip.AddrPortFrom(addresses[0], ports[0]), netip.AddrPortFrom(addresses[1], ports[1]), protocol
}
