package nft

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/pkg/netlink"
)

// datatype is what a field of a set's elements is, under the number that nft gives it
// (src/datatype.h): the kernel keeps that and does nothing with it.
type datatype struct {
	number uint32
	size   int // in bytes
	order  uint32
}

// Orders of bytes, as nft notes them; none is that of several fields, and of a verdict.
const (
	orderNone, orderHost, orderNetwork = 0, 1, 2

	typeInteger, typeIPv4, typeIPv6, typeProtocol, typeService, typeMark, typeInterface = 4, 7, 8, 12, 13, 19, 20
)

var (
	integerType   = datatype{typeInteger, 4, orderHost}
	ipv4Type      = datatype{typeIPv4, 4, orderNetwork}
	ipv6Type      = datatype{typeIPv6, 16, orderNetwork}
	protocolType  = datatype{typeProtocol, 1, orderNetwork}
	serviceType   = datatype{typeService, 2, orderNetwork}
	markType      = datatype{typeMark, 4, orderHost}
	interfaceType = datatype{typeInterface, 4, orderHost}
)

// datatypes are those that a declaration with `type` names. Like the other tables of
// words it is made when it is first asked for: most ADDs never do.
var datatypes = sync.OnceValue(func() map[string]datatype {
	return map[string]datatype{
		"ipv4_addr": ipv4Type, "ipv6_addr": ipv6Type, "inet_proto": protocolType, "inet_service": serviceType,
		"mark": markType, "iface_index": interfaceType,
	}
})

// origin is what a declaration with `typeof` names: a type, and the expression that
// nft notes beside the set, so that it can print the declaration again.
type origin struct {
	datatype
	expression uint32   // its number (enum expr_types)
	details    []uint32 // of the expression
}

const (
	ofPayload, ofMeta, ofCT, ofConcat, ofNumgen = 7, 9, 12, 13, 23

	udp, tcp, sctp, ip, ip6 = 6, 8, 10, 12, 13 // enum proto_desc_id
	anyDirection            = 0xffffffff
)

var origins = sync.OnceValue(func() map[string]origin {
	return map[string]origin{
		"ip saddr":                {ipv4Type, ofPayload, []uint32{ip, 11}},
		"ip daddr":                {ipv4Type, ofPayload, []uint32{ip, 12}},
		"ip6 saddr":               {ipv6Type, ofPayload, []uint32{ip6, 8}},
		"ip6 daddr":               {ipv6Type, ofPayload, []uint32{ip6, 9}},
		"tcp dport":               {serviceType, ofPayload, []uint32{tcp, 2}},
		"udp dport":               {serviceType, ofPayload, []uint32{udp, 2}},
		"sctp dport":              {serviceType, ofPayload, []uint32{sctp, 2}},
		"ct mark":                 {markType, ofCT, []uint32{ctMark, anyDirection}},
		"iif":                     {interfaceType, ofMeta, []uint32{metaIIF}},
		"numgen random mod 65536": {integerType, ofNumgen, []uint32{numgenRandom, 65536, 0}},
	}
})

// fieldTypes are the types of a key or a value, one after another.
type fieldTypes []datatype

// size is how many bytes the kernel has for them: every field but a lonely one begins
// at a multiple of four.
func (f fieldTypes) size() int {
	if len(f) == 1 {
		return f[0].size
	}
	n := 0
	for _, d := range f {
		n += netlink.Align(d.size)
	}
	return n
}

// number is that of nft for the combination.
func (f fieldTypes) number() (n uint32) {
	const bitsPerType = 6
	for _, d := range f {
		n = n<<bitsPerType | d.number
	}
	return n
}

func (f fieldTypes) order() uint32 {
	if len(f) == 1 {
		return f[0].order
	}
	return orderNone
}

// text returns encoded fields as nft writes them. Of interval is an element that
// ends at another one; an end that is the same says nothing.
func (f fieldTypes) text(raw, end string) string {
	var words []string
	for _, d := range f {
		size := netlink.Align(d.size)
		if len(f) == 1 {
			size = d.size
		}
		if len(raw) < size {
			return fmt.Sprintf("%x", raw)
		}
		first, last := raw[:d.size], ""
		raw = raw[size:]
		if len(end) >= size {
			last, end = end[:d.size], end[size:]
		}
		words = append(words, d.text(first, last))
	}
	return strings.Join(words, " . ")
}

func (d datatype) text(first, last string) string {
	raw := []byte(first)
	switch d.number {
	case typeIPv4, typeIPv6:
		a, _ := netip.AddrFromSlice(raw)
		z, is := netip.AddrFromSlice([]byte(last))
		if !is {
			z = a
		}
		return Range{a, z}.String()
	case typeProtocol:
		for name, number := range protocols {
			if number == raw[0] {
				return name
			}
		}
		return strconv.Itoa(int(raw[0]))
	case typeService:
		return strconv.Itoa(int(binary.BigEndian.Uint16(raw)))
	case typeMark:
		return fmt.Sprintf("0x%08x", binary.NativeEndian.Uint32(raw))
	}
	return strconv.FormatUint(uint64(binary.NativeEndian.Uint32(raw)), 10)
}

// shape is what a set's declaration comes to.
type shape struct {
	key, value fieldTypes
	isMap      bool
	verdict    bool // a map's values are where to go
	intervals  bool // elements have ends
	dynamic    bool // rules add elements
	timeouts   bool // elements end by themselves
	origins    [2][]origin
}

// shape reads a declaration.
func (s Set) shape() (shape, error) {
	var made shape
	how, rest, _ := strings.Cut(s.Type, " ")
	key, value, isMap := strings.Cut(rest, " : ")
	made.isMap, made.verdict = isMap, value == "verdict"
	for i, part := range []string{key, value} {
		if part == "" || part == "verdict" {
			continue
		}
		var types fieldTypes
		for _, word := range strings.Split(part, " . ") {
			d, known := datatypes()[word]
			if how == "typeof" {
				o, is := origins()[word]
				d, known = o.datatype, is
				made.origins[i] = append(made.origins[i], o)
			}
			if !known {
				return made, fmt.Errorf("set %s: %s %q is not known", s.Name, how, word)
			}
			types = append(types, d)
		}
		if i == 0 {
			made.key = types
		} else {
			made.value = types
		}
	}
	for _, flag := range strings.Split(s.Flags, ",") {
		switch flag {
		case "interval":
			made.intervals = true
		case "dynamic":
			made.dynamic = true
		case "timeout":
			made.timeouts = true
		case "":
		default:
			return made, fmt.Errorf("set %s: flag %q is not known", s.Name, flag)
		}
	}
	return made, nil
}

// edges reports whether the kernel has an element for where an interval begins, and
// another one for where it no longer holds; of several fields it has both in one.
func (s shape) edges() bool { return s.intervals && len(s.key) == 1 }

// flags are those that the kernel is told (enum nft_set_flags).
func (s shape) flags() (flags uint32) {
	for _, f := range []struct {
		is   bool
		flag uint32
	}{
		{s.intervals, unix.NFT_SET_INTERVAL}, {s.isMap, unix.NFT_SET_MAP}, {s.timeouts, unix.NFT_SET_TIMEOUT},
		{s.dynamic, unix.NFT_SET_EVAL}, {s.intervals && len(s.key) > 1, setConcat},
	} {
		if f.is {
			flags |= f.flag
		}
	}
	return flags
}

// Kinds of what nft notes beside a set (enum nftnl_udata_set_types).
const (
	noteKeyOrder, noteValueOrder, noteKeyOrigin, noteValueOrigin, noteValueInterval = 0, 1, 3, 4, 6
	noteElementComment                                                              = 0 // and of a table
)

// note appends a piece of what nft notes: its kind, its length, and itself.
func note(b []byte, kind byte, value []byte) []byte {
	return append(append(b, kind, byte(len(value))), value...)
}

func noteNumber(b []byte, kind byte, n uint32) []byte {
	return note(b, kind, binary.NativeEndian.AppendUint32(nil, n))
}

// notes are what nft wants to find beside a set, in order to print it as it was
// declared.
func (s shape) notes() []byte {
	b := noteNumber(nil, noteKeyOrder, s.key.order())
	if s.isMap {
		b = noteNumber(b, noteValueOrder, s.value.order())
	}
	for i, kind := range []byte{noteKeyOrigin, noteValueOrigin} {
		if all := s.origins[i]; len(all) > 0 {
			b = note(b, kind, noteOrigins(all))
		} else if i == 0 && len(s.key) > 1 {
			b = note(b, kind, note(noteNumber(nil, 0, ofConcat), 1, nil))
		}
	}
	if s.isMap {
		b = noteNumber(b, noteValueInterval, 0)
	}
	return b
}

func noteOrigins(all []origin) []byte {
	if len(all) == 1 {
		return all[0].note()
	}
	var parts []byte
	for i, o := range all {
		parts = note(parts, byte(i), o.note())
	}
	return note(noteNumber(nil, 0, ofConcat), 1, parts)
}

func (o origin) note() []byte {
	var details []byte
	for i, n := range o.details {
		details = noteNumber(details, byte(i), n)
	}
	return note(noteNumber(nil, 0, o.expression), 1, details)
}

// commentIn finds the comment in what nft notes beside an element or a table: a text
// that ends with a zero.
func commentIn(notes []byte) string {
	for len(notes) >= 2 {
		length := int(notes[1])
		if len(notes) < 2+length {
			return ""
		}
		if notes[0] == noteElementComment && length > 0 {
			return string(notes[2 : 2+length-1])
		}
		notes = notes[2+length:]
	}
	return ""
}

func commentNote(comment string) []byte {
	return note(nil, noteElementComment, append([]byte(comment), 0))
}
