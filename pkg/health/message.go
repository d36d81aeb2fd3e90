package health

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

// Types of ICMP messages (RFC 792, RFC 4443).
const (
	echoReply4, unreachable4, echoRequest4, exceeded4          = 0, 3, 8, 11
	unreachable6, tooBig6, exceeded6, echoRequest6, echoReply6 = 1, 2, 3, 128, 129
	needsFragments                                             = 4 // code of unreachable4
)

const (
	header4, header6, headerICMP = 20, 40, 8
	protocolICMP4, protocolICMP6 = 1, 58
)

// request is an echo request whose IP packet has size bytes, or as few as can be. It
// says when it was sent, in nanoseconds. For ICMPv6 the kernel makes the checksum.
func request(b []byte, ipv6 bool, identifier, sequence uint16, size int, sent int64) []byte {
	kind, header := byte(echoRequest4), header4
	if ipv6 {
		kind, header = echoRequest6, header6
	}
	n := max(size-header, headerICMP+8)
	b = append(b[:0], make([]byte, n)...)
	b[0] = kind
	binary.BigEndian.PutUint16(b[4:], identifier)
	binary.BigEndian.PutUint16(b[6:], sequence)
	binary.BigEndian.PutUint64(b[headerICMP:], uint64(sent))
	if !ipv6 {
		binary.BigEndian.PutUint16(b[2:], checksum(b))
	}
	return b
}

// checksum is the ones' complement of the ones' complement sum of all words (RFC 1071).
func checksum(b []byte) uint16 {
	var sum uint32
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) > 0 {
		sum += uint32(b[0]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// parse reads an ICMP message that came from an address: an answer, or what somebody
// says of a probe. sent is what the answer has of its request.
func parse(b []byte, from netip.Addr, identifier uint16) (m Message, sent int64, ok bool) {
	if len(b) < headerICMP {
		return m, 0, false
	}
	m.From = from
	ipv6 := from.Is6()
	if kind := b[0]; !ipv6 && kind == echoReply4 || ipv6 && kind == echoReply6 {
		if binary.BigEndian.Uint16(b[4:]) != identifier || len(b) < headerICMP+8 {
			return m, 0, false
		}
		m.Kind, m.To, m.Sequence = Answer, from, binary.BigEndian.Uint16(b[6:])
		return m, int64(binary.BigEndian.Uint64(b[headerICMP:])), true
	}
	to, echo, ok := quoted(b[headerICMP:], ipv6)
	if !ok || binary.BigEndian.Uint16(echo[4:]) != identifier {
		return m, 0, false
	}
	m.To, m.Sequence = to, binary.BigEndian.Uint16(echo[6:])
	m.Kind, m.Text = meaning(b[0], b[1], ipv6)
	return m, 0, m.Text != ""
}

// quoted returns where the packet that an error quotes was going, and its echo request.
func quoted(b []byte, ipv6 bool) (to netip.Addr, echo []byte, ok bool) {
	if ipv6 {
		if len(b) < header6+headerICMP || b[0]>>4 != 6 || b[6] != protocolICMP6 || b[header6] != echoRequest6 {
			return to, nil, false
		}
		return netip.AddrFrom16([16]byte(b[24:40])), b[header6:], true
	}
	if len(b) < header4 || b[0]>>4 != 4 || b[9] != protocolICMP4 {
		return to, nil, false
	}
	length := int(b[0]&0xf) * 4
	if length < header4 || len(b) < length+headerICMP || b[length] != echoRequest4 {
		return to, nil, false
	}
	return netip.AddrFrom4([4]byte(b[16:20])), b[length:], true
}

// meaning is what an error says; "" for what is none.
func meaning(kind, code byte, ipv6 bool) (Kind, string) {
	switch {
	case ipv6 && kind == tooBig6, !ipv6 && kind == unreachable4 && code == needsFragments:
		return TooLarge, "packet too large"
	case ipv6 && kind == exceeded6, !ipv6 && kind == exceeded4:
		return Unreachable, "time to live exceeded"
	case ipv6 && kind == unreachable6:
		return Unreachable, name(code, "no route", "prohibited", "beyond scope", "host unreachable", "port unreachable", "source address refused", "route rejects it")
	case !ipv6 && kind == unreachable4:
		if code == 13 {
			return Unreachable, "prohibited"
		}
		return Unreachable, name(code, "network unreachable", "host unreachable", "protocol unreachable", "port unreachable", "", "source route failed",
			"network unknown", "host unknown", "source isolated", "network prohibited", "host prohibited")
	}
	return Unreachable, ""
}

func name(code byte, names ...string) string {
	if int(code) < len(names) && names[code] != "" {
		return names[code]
	}
	return fmt.Sprintf("unreachable, code %d", code)
}
