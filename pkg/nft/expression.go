package nft

import (
	"encoding/binary"
	"time"

	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/pkg/netlink"
)

// expression is one step of a rule, as the kernel has it: it loads something into
// a register, compares a register, or does something with it.
type expression struct {
	name string
	with []attribute
}

// register is a word of the 64 bytes that a rule works in, 0 to 15. Keys and values
// of several fields are consecutive words.
type register int

// number is the kernel's name for the register: every fourth has one of old, when
// registers were of 16 bytes.
func (r register) number() uint32 {
	const words, first16, first4 = 4, 1, 8
	if r%words == 0 {
		return first16 + uint32(r/words)
	}
	return first4 + uint32(r)
}

const verdictRegister = 0

// Numbers of linux/netfilter/nf_tables.h, by what they are about.
const (
	baseNetwork, baseTransport = 1, 2

	metaMark, metaIIF, metaOIF, metaNFProto, metaL4Proto, metaIIFGroup, metaOIFGroup = 3, 4, 5, 15, 16, 21, 22

	ctState, ctStatus, ctMark, ctProtoDst, ctDstIP, ctDstIP6 = 0, 2, 3, 12, 20, 22
	ctOriginal                                               = 0 // IP_CT_DIR_ORIGINAL

	fibSource, fibIIF       = 1, 8
	fibDestination          = 2
	fibOIF, fibType         = 1, 3
	numgenRandom            = 1
	routeTCPMSS             = 3
	orderHostToNet          = 1
	headerTCPOption         = 1
	natDestination          = 1
	natFullyRandom          = 1 << 4
	rejectICMP              = 0
	rejectReset             = 1
	rejectBoth              = 2
	dynsetAdd               = 0
	dynsetUpdate            = 1
	lookupInverted          = 1
	compareEqual            = 0
	compareUnequal          = 1
	compareAtMost           = 3
	compareAtLeast          = 5
	verdictAccept     int32 = 1
	verdictDrop       int32 = 0
	verdictJump       int32 = -3
	verdictGoto       int32 = -4
	verdictReturn     int32 = -5
)

func payload(r register, base, offset, length uint32) expression {
	return expression{"payload", []attribute{number(1, r.number()), number(2, base), number(3, offset), number(4, length)}}
}

// payloadLength is which attribute of payload's is the length.
const payloadLength = 3

func meta(r register, key uint32) expression {
	return expression{"meta", []attribute{number(1, r.number()), number(2, key)}}
}

func setMeta(key uint32, from register) expression {
	return expression{"meta", []attribute{number(2, key), number(3, from.number())}}
}

func ct(r register, key uint32) expression {
	return expression{"ct", []attribute{number(1, r.number()), number(2, key)}}
}

func ctOf(r register, key uint32, direction byte) expression {
	e := ct(r, key)
	e.with = append(e.with, bytesOf(3, []byte{direction}))
	return e
}

func setCT(key uint32, from register) expression {
	return expression{"ct", []attribute{number(2, key), number(4, from.number())}}
}

func fib(r register, result, flags uint32) expression {
	return expression{"fib", []attribute{number(1, r.number()), number(2, result), number(3, flags)}}
}

func numgen(r register, modulus, offset uint32) expression {
	return expression{"numgen", []attribute{number(1, r.number()), number(2, modulus), number(3, numgenRandom), number(4, offset)}}
}

func compare(r register, operation uint32, value []byte) expression {
	return expression{"cmp", []attribute{number(1, r.number()), number(2, operation), nested(3, bytesOf(1, value))}}
}

func mask(r register, bits []byte) expression { return bitwise(r, bits, make([]byte, len(bits))) }

// bitwise keeps some bits of a register, and then changes some.
func bitwise(r register, kept, changed []byte) expression {
	return expression{"bitwise", []attribute{
		number(1, r.number()), number(2, r.number()), number(3, uint32(len(kept))),
		nested(4, bytesOf(1, kept)), nested(5, bytesOf(1, changed)),
	}}
}

// lookup ends the rule where the set has no such element, or has one and inverted is
// set.
func lookup(set string, key register, inverted bool) expression {
	var flags uint32
	if inverted {
		flags = lookupInverted
	}
	return expression{"lookup", []attribute{text(1, set), number(2, key.number()), number(5, flags)}}
}

// lookupValue loads the map's value, or ends the rule.
func lookupValue(set string, key register, to uint32) expression {
	return expression{"lookup", []attribute{text(1, set), number(2, key.number()), number(3, to), number(5, 0)}}
}

func verdict(code int32, chain string) expression {
	v := []attribute{number(1, uint32(code))}
	if chain != "" {
		v = append(v, text(2, chain))
	}
	return expression{"immediate", []attribute{number(1, verdictRegister), nested(2, nested(2, v...))}}
}

func masquerade(flags uint32) expression {
	e := expression{name: "masq", with: []attribute{}}
	if flags != 0 {
		e.with = append(e.with, number(1, flags))
	}
	return e
}

// destination translates to the address and the port in two registers.
func destination(family uint32, address, port register) expression {
	return expression{"nat", []attribute{
		number(1, natDestination), number(2, family),
		number(3, address.number()), number(4, address.number()), number(5, port.number()), number(6, port.number()),
	}}
}

func reject(kind uint32, code ...byte) expression {
	e := expression{"reject", []attribute{number(1, kind)}}
	if len(code) > 0 {
		e.with = append(e.with, bytesOf(2, code))
	}
	return e
}

func routeMSS(r register) expression {
	return expression{"rt", []attribute{number(1, r.number()), number(2, routeTCPMSS)}}
}

func byteorder(r register, size uint32) expression {
	return expression{"byteorder", []attribute{
		number(1, r.number()), number(2, r.number()), number(3, orderHostToNet), number(4, size), number(5, size),
	}}
}

func setTCPOption(option byte, offset, length uint32, from register) expression {
	return expression{"exthdr", []attribute{
		bytesOf(2, []byte{option}), number(3, offset), number(4, length), number(6, headerTCPOption), number(7, from.number()),
	}}
}

// remember adds an element to a set, or renews it. The value is that of a map where
// it is not negative.
func remember(operation uint32, set string, key, value register, timeout time.Duration) expression {
	e := expression{"dynset", []attribute{text(1, set), number(3, operation), number(4, key.number())}}
	if value >= 0 {
		e.with = append(e.with, number(5, value.number()))
	}
	e.with = append(e.with, bytesOf(6, binary.BigEndian.AppendUint64(nil, uint64(timeout.Milliseconds()))))
	return e
}

// noTrack has connection tracking not look at the packet.
func noTrack() expression { return expression{"notrack", []attribute{}} }

// counter counts the packets that come by.
func counter() expression { return expression{"counter", []attribute{}} }

// count adds an element to a set that counts, and counts the packet.
func count(operation uint32, set string, key register) expression {
	return expression{"dynset", []attribute{
		text(1, set), number(3, operation), number(4, key.number()),
		nested(7, text(1, "counter"), nested(2)),
	}}
}

// limit ends the rule for what is more than so many packets a second.
func limit(rate uint64, burst uint32) expression {
	const second, packets = 1, 0
	return expression{"limit", []attribute{
		bytesOf(1, binary.BigEndian.AppendUint64(nil, rate)), bytesOf(2, binary.BigEndian.AppendUint64(nil, second)),
		number(3, burst), number(4, packets), number(5, 0),
	}}
}

// logTo has the beginning of a packet told to who reads a group.
func logTo(group uint16, prefix string, length uint32) expression {
	return expression{"log", []attribute{bytesOf(1, binary.BigEndian.AppendUint16(nil, group)), text(2, prefix), number(3, length)}}
}

// append encodes the expression as an element of a list.
func (e expression) append(b []byte) []byte {
	const (
		listElement = 1 // NFTA_LIST_ELEM
		name, data  = 1, 2
	)
	return nested(listElement, text(name, e.name), nested(data, e.with...)).append(b)
}

// expressions are those of a rule.
func expressions(code []expression) attribute {
	var raw []byte
	for _, e := range code {
		raw = e.append(raw)
	}
	return attribute{kind: unix.NFTA_RULE_EXPRESSIONS | flagNested, value: raw}
}

// is reports whether an expression of the kernel's, encoded, is this one: it has all
// its attributes. What the kernel says beyond them has to be zero, or to follow from
// the rest.
func (e expression) is(name string, raw []byte) bool {
	if name != e.name {
		return false
	}
	if name == "counter" {
		return true // whatever it has counted
	}
	have := parse(raw)
	for _, a := range e.with {
		if !a.is(have[a.kind]) {
			return false
		}
		have[a.kind] = nil
	}
	for kind, value := range have {
		const natFlags = 7 // that address and port are given
		if e.name == "nat" && kind == natFlags {
			continue
		}
		for _, b := range value {
			if b != 0 {
				return false
			}
		}
	}
	return true
}

func (a attribute) is(raw []byte) bool {
	if a.inner == nil {
		return string(raw) == string(a.value)
	}
	have := parse(raw)
	for _, i := range a.inner {
		if !i.is(have[i.kind]) {
			return false
		}
	}
	return true
}

// same reports whether a rule's expressions are what the kernel has, encoded.
func same(code []expression, raw []byte) bool {
	n := 0
	for _, e := range netlink.Attributes(raw) {
		a := parse(e)
		if n == len(code) || !code[n].is(a.text(1), a[2]) {
			return false
		}
		n++
	}
	return n == len(code)
}
