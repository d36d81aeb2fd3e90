package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// More numbers of linux/netfilter/nfnetlink_conntrack.h.
const (
	conntrackGet           = unix.NFNL_SUBSYS_CTNETLINK<<8 | 1 // IPCTNL_MSG_CT_GET
	attributeID            = 12                                // CTA_ID
	attributeTupleProtocol = 2                                 // CTA_TUPLE_PROTO
	attributeIPv4Target    = 2                                 // CTA_IP_V4_DST
	attributeIPv6Target    = 4                                 // CTA_IP_V6_DST
	attributeProtocol      = 1                                 // CTA_PROTO_NUM
	attributeSourcePort    = 2                                 // CTA_PROTO_SRC_PORT
	attributeTargetPort    = 3                                 // CTA_PROTO_DST_PORT
	filterOnProtocol       = 1 << 2                            // CTA_FILTER_F_CTA_PROTO_NUM
	attributeStatus        = 3                                 // CTA_STATUS
	statusAnswered         = 1 << 1                            // IPS_SEEN_REPLY
)

// Flow is a tracked connection or, in UDP, what is taken for one.
type Flow struct {
	// Source opened it, and sent to Destination.
	Source, Destination netip.AddrPort
	// Answering is who got what was sent, after translation, and Seen is whom it
	// answers: the Source as it looks from there.
	Answering, Seen netip.AddrPort
	// Answered says that there was an answer, ever.
	Answered bool
}

// ForgetFlows deletes the connection tracking entries of a protocol (17 for UDP)
// for which stale says so, and returns how many those were. The next packet of
// such a flow is seen as the first of a new one. Equivalent to:
//
//	conntrack -L -p PROTOCOL; conntrack -D -p PROTOCOL -s … --sport … -d … --dport …
//
// Where nothing is tracked it costs the reading of one file.
func ForgetFlows(protocol uint8, stale func(Flow) bool) (int, error) {
	if tracksNothing() {
		return 0, nil
	}
	s, err := openSocket(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return 0, err
	}
	defer s.close()
	forgotten := 0
	for _, f := range []int{unix.AF_INET, unix.AF_INET6} {
		n, err := s.forgetFlows(f, protocol, stale)
		forgotten += n
		if err != nil {
			return forgotten, fmt.Errorf("deleting connection tracking entries of protocol %d: %w", protocol, err)
		}
	}
	return forgotten, nil
}

func (s *socket) forgetFlows(family int, protocol uint8, stale func(Flow) bool) (int, error) {
	// The kernel leaves out other protocols, from 5.8 on; an older one ignores
	// the filter.
	tuple := nl.NewRtAttr(attributeTupleOrig|unix.NLA_F_NESTED, nil)
	tuple.AddRtAttr(attributeTupleProtocol|unix.NLA_F_NESTED, nil).AddRtAttr(attributeProtocol, []byte{protocol})
	filter := nl.NewRtAttr(attributeFilter|unix.NLA_F_NESTED, nil)
	filter.AddRtAttr(filterOriginal, nl.Uint32Attr(filterOnProtocol))
	header := &nl.Nfgenmsg{NfgenFamily: uint8(family), Version: nl.NFNETLINK_V0}
	entries, err := s.dump(conntrackGet, header, tuple, filter)
	if err != nil {
		return 0, err
	}
	forgotten := 0
	for _, raw := range entries {
		e, ok := parseEntry(raw)
		if !ok || e.protocol != protocol || !stale(e.flow) {
			continue
		}
		r := s.request(conntrackDelete, 0)
		r.AddData(header)
		r.AddData(nl.NewRtAttr(attributeTupleOrig|unix.NLA_F_NESTED, e.tuple))
		r.AddData(nl.NewRtAttr(attributeID, e.id))
		// It may have ended by itself.
		if err := s.acknowledge(r); err != nil && !errors.Is(err, unix.ENOENT) {
			return forgotten, err
		}
		forgotten++
	}
	return forgotten, nil
}

// entry is what is needed of a connection tracking entry.
type entry struct {
	flow      Flow
	protocol  uint8
	tuple, id []byte // as the kernel wants them back
}

func parseEntry(raw []byte) (e entry, ok bool) {
	const generic = 4 // struct nfgenmsg
	if len(raw) < generic {
		return e, false
	}
	attributes, err := nl.ParseRouteAttr(raw[generic:])
	if err != nil {
		return e, false
	}
	for _, a := range attributes {
		switch a.Attr.Type & nl.NLA_TYPE_MASK {
		case attributeTupleOrig:
			e.tuple = a.Value
			e.flow.Source, e.flow.Destination, e.protocol, ok = parseTuple(a.Value)
		case attributeTupleReply:
			e.flow.Answering, e.flow.Seen, _, _ = parseTuple(a.Value)
		case attributeStatus:
			e.flow.Answered = len(a.Value) >= 4 && binary.BigEndian.Uint32(a.Value)&statusAnswered != 0
		case attributeID:
			e.id = a.Value
		}
	}
	return e, ok && e.id != nil
}

func parseTuple(raw []byte) (source, target netip.AddrPort, protocol uint8, ok bool) {
	var addresses [2]netip.Addr
	var ports [2]uint16
	parts, err := nl.ParseRouteAttr(raw)
	if err != nil {
		return source, target, 0, false
	}
	for _, part := range parts {
		inner, err := nl.ParseRouteAttr(part.Value)
		if err != nil {
			return source, target, 0, false
		}
		isIP := part.Attr.Type&nl.NLA_TYPE_MASK == attributeTupleIP
		for _, a := range inner {
			kind := int(a.Attr.Type & nl.NLA_TYPE_MASK)
			switch {
			case isIP && (kind == attributeIPv4Source || kind == attributeIPv6Source):
				addresses[0], _ = netip.AddrFromSlice(a.Value)
			case isIP && (kind == attributeIPv4Target || kind == attributeIPv6Target):
				addresses[1], _ = netip.AddrFromSlice(a.Value)
			case !isIP && kind == attributeProtocol && len(a.Value) > 0:
				protocol = a.Value[0]
			case !isIP && kind == attributeSourcePort && len(a.Value) >= 2:
				ports[0] = binary.BigEndian.Uint16(a.Value)
			case !isIP && kind == attributeTargetPort && len(a.Value) >= 2:
				ports[1] = binary.BigEndian.Uint16(a.Value)
			}
		}
	}
	source, target = netip.AddrPortFrom(addresses[0], ports[0]), netip.AddrPortFrom(addresses[1], ports[1])
	return source, target, protocol, addresses[0].IsValid() && addresses[1].IsValid()
}
