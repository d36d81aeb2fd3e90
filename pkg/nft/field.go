package nft

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// field is something that a packet has, or its way, or its connection.
type field struct {
	size   int // in bytes
	load   func(register) expression
	kind   kind
	family byte // that the packet has to be of: NFPROTO_IPV4; 0 for any
	needs  byte // protocol that the packet has to be of: IPPROTO_TCP; 0 for any
}

// kind is how a field's values are written, and how the kernel has them.
type kind uint8

const (
	kindNumber   kind = iota // in host byte order
	kindAddress              // or a prefix
	kindPort                 // in network byte order
	kindProtocol             // tcp, udp, sctp, icmp, ipv6-icmp, or a number
	kindFamily               // ipv4, ipv6
	kindBits                 // names of bits, any of which has to be set; or those that have to be, / of those that are looked at
	kindAddressType
)

// words are how many registers a field takes.
func (f field) words() int { return (f.size + 3) / 4 }

var protocols = map[string]byte{
	"icmp": unix.IPPROTO_ICMP, "tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP,
	"ipv6-icmp": unix.IPPROTO_ICMPV6, "sctp": unix.IPPROTO_SCTP,
}

// bits are the names of single bits, with the bytes of the field they are in.
var bits = sync.OnceValue(func() map[string]uint32 {
	return map[string]uint32{
		"seen-reply": 1 << 1, "assured": 1 << 2, "snat": 1 << 4, "dnat": 1 << 5, // ct status
		"invalid": 1 << 0, "established": 1 << 1, "related": 1 << 2, "new": 1 << 3, // ct state
		"fin": 1 << 0, "syn": 1 << 1, "rst": 1 << 2, "ack": 1 << 4, // tcp flags
	}
})

func loadPayload(base, offset uint32, size int) func(register) expression {
	return func(r register) expression { return payload(r, base, offset, uint32(size)) }
}

func loadMeta(key uint32) func(register) expression {
	return func(r register) expression { return meta(r, key) }
}

func loadCT(key uint32) func(register) expression {
	return func(r register) expression { return ct(r, key) }
}

func loadOriginal(key uint32) func(register) expression {
	return func(r register) expression { return ctOf(r, key, ctOriginal) }
}

// fields are those that can be written in a few words. Nobody writes to it.
var fields = sync.OnceValue(func() map[string]field {
	return map[string]field{
		"ip saddr":  {size: 4, kind: kindAddress, family: unix.NFPROTO_IPV4, load: loadPayload(baseNetwork, 12, 4)},
		"ip daddr":  {size: 4, kind: kindAddress, family: unix.NFPROTO_IPV4, load: loadPayload(baseNetwork, 16, 4)},
		"ip6 saddr": {size: 16, kind: kindAddress, family: unix.NFPROTO_IPV6, load: loadPayload(baseNetwork, 8, 16)},
		"ip6 daddr": {size: 16, kind: kindAddress, family: unix.NFPROTO_IPV6, load: loadPayload(baseNetwork, 24, 16)},

		"th sport":   {size: 2, kind: kindPort, load: loadPayload(baseTransport, 0, 2)},
		"th dport":   {size: 2, kind: kindPort, load: loadPayload(baseTransport, 2, 2)},
		"tcp dport":  {size: 2, kind: kindPort, needs: unix.IPPROTO_TCP, load: loadPayload(baseTransport, 2, 2)},
		"udp dport":  {size: 2, kind: kindPort, needs: unix.IPPROTO_UDP, load: loadPayload(baseTransport, 2, 2)},
		"sctp dport": {size: 2, kind: kindPort, needs: unix.IPPROTO_SCTP, load: loadPayload(baseTransport, 2, 2)},
		"tcp flags":  {size: 1, kind: kindBits, needs: unix.IPPROTO_TCP, load: loadPayload(baseTransport, 13, 1)},

		"meta l4proto": {size: 1, kind: kindProtocol, load: loadMeta(metaL4Proto)},
		"meta nfproto": {size: 1, kind: kindFamily, load: loadMeta(metaNFProto)},
		"meta mark":    {size: 4, load: loadMeta(metaMark)},
		"iif":          {size: 4, load: loadMeta(metaIIF)},
		"oif":          {size: 4, load: loadMeta(metaOIF)},
		"iifgroup":     {size: 4, load: loadMeta(metaIIFGroup)},
		"oifgroup":     {size: 4, load: loadMeta(metaOIFGroup)},

		"ct state":              {size: 4, kind: kindBits, load: loadCT(ctState)},
		"ct status":             {size: 4, kind: kindBits, load: loadCT(ctStatus)},
		"ct mark":               {size: 4, load: loadCT(ctMark)},
		"ct original ip daddr":  {size: 4, kind: kindAddress, load: loadOriginal(ctDstIP)},
		"ct original ip6 daddr": {size: 16, kind: kindAddress, load: loadOriginal(ctDstIP6)},
		"ct original proto-dst": {size: 2, kind: kindPort, load: loadOriginal(ctProtoDst)},

		"fib daddr type":      {size: 4, kind: kindAddressType, load: func(r register) expression { return fib(r, fibType, fibDestination) }},
		"fib saddr type":      {size: 4, kind: kindAddressType, load: func(r register) expression { return fib(r, fibType, fibSource) }},
		"fib saddr . iif oif": {size: 4, load: func(r register) expression { return fib(r, fibOIF, fibSource|fibIIF) }},
	}
})

// longest is how many words the longest of them has.
const longest = 5

// value reads a value of the field. Bits is what has to be taken of the field before
// it is compared; nil for all of it.
func (f field) value(s string) (value, bits []byte, err error) {
	switch f.kind {
	case kindAddress:
		return f.address(s)
	case kindPort:
		n, err := strconv.ParseUint(s, 10, 16)
		return binary.BigEndian.AppendUint16(nil, uint16(n)), nil, err
	case kindProtocol:
		if p, known := protocols[s]; known {
			return []byte{p}, nil, nil
		}
		n, err := strconv.ParseUint(s, 10, 8)
		return []byte{byte(n)}, nil, err
	case kindFamily:
		switch s {
		case "ipv4":
			return []byte{unix.NFPROTO_IPV4}, nil, nil
		case "ipv6":
			return []byte{unix.NFPROTO_IPV6}, nil, nil
		}
		return nil, nil, fmt.Errorf("%q is no family", s)
	case kindBits:
		return f.anyOf(s)
	case kindAddressType:
		const local = 2 // RTN_LOCAL
		if s != "local" {
			return nil, nil, fmt.Errorf("%q is no type of addresses that is known here", s)
		}
		return binary.NativeEndian.AppendUint32(nil, local), nil, nil
	}
	n, err := strconv.ParseUint(s, 0, 32)
	return binary.NativeEndian.AppendUint32(nil, uint32(n)), nil, err
}

func (f field) address(s string) (value, bits []byte, err error) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return nil, nil, err
		}
		p = netip.PrefixFrom(a, a.BitLen())
	}
	value = p.Addr().AsSlice()
	if len(value) != f.size {
		return nil, nil, fmt.Errorf("%q is an address of the other family", s)
	}
	if p.IsSingleIP() {
		return value, nil, nil
	}
	if p.Bits() > 0 && p.Bits()%8 == 0 {
		return value[:p.Bits()/8], nil, nil // the rest is not even loaded
	}
	bits = make([]byte, f.size)
	for i := range p.Bits() {
		bits[i/8] |= 1 << (7 - i%8)
	}
	return value, bits, nil
}

func (f field) anyOf(s string) (value, mask []byte, err error) {
	var all uint32
	for _, name := range strings.Split(s, ",") {
		bit, known := bits()[name]
		if !known {
			n, err := strconv.ParseUint(name, 0, 32) // one that nft has no name for
			if err != nil {
				return nil, nil, fmt.Errorf("%q is no bit that is known here", name)
			}
			bit = uint32(n)
		}
		all |= bit
	}
	if f.size == 1 {
		return []byte{0}, []byte{byte(all)}, nil
	}
	return make([]byte, f.size), binary.NativeEndian.AppendUint32(nil, all), nil
}
