package nft

import (
	"bytes"
	"encoding/binary"

	"github.com/flatnet-cni/flatnet/pkg/netlink"
)

// attribute is a netlink attribute: a value, or attributes inside of it.
type attribute struct {
	kind  uint16
	value []byte
	inner []attribute
}

func bytesOf(kind uint16, value []byte) attribute { return attribute{kind: kind, value: value} }

// number is an attribute of 32 bits, which nftables has in network byte order.
func number(kind uint16, n uint32) attribute {
	return attribute{kind: kind, value: binary.BigEndian.AppendUint32(nil, n)}
}

func text(kind uint16, s string) attribute {
	return attribute{kind: kind, value: append([]byte(s), 0)}
}

func nested(kind uint16, inner ...attribute) attribute {
	if inner == nil {
		inner = []attribute{}
	}
	return attribute{kind: kind, inner: inner}
}

const flagNested = 0x8000 // NLA_F_NESTED

// append encodes the attribute behind b.
func (a attribute) append(b []byte) []byte {
	begin := len(b)
	b = append(b, 0, 0, 0, 0)
	kind := a.kind
	if a.inner != nil {
		kind |= flagNested
		for _, i := range a.inner {
			b = i.append(b)
		}
	} else {
		b = append(b, a.value...)
	}
	binary.NativeEndian.PutUint16(b[begin:], uint16(len(b)-begin))
	binary.NativeEndian.PutUint16(b[begin+2:], kind)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// beginAttribute begins one that others follow inside of, and endAttribute ends it.
func beginAttribute(b []byte, kind uint16) []byte {
	b = binary.NativeEndian.AppendUint16(b, netlink.AttributeHeader)
	return binary.NativeEndian.AppendUint16(b, kind|flagNested)
}

func endAttribute(b []byte, begin int) {
	binary.NativeEndian.PutUint16(b[begin:], uint16(len(b)-begin))
}

// attributes are encoded attributes by kind; none that matters here is beyond.
type attributes [20][]byte

func parse(raw []byte) (a attributes) {
	for kind, value := range netlink.Attributes(raw) {
		if int(kind) < len(a) {
			a[kind] = value
		}
	}
	return a
}

func (a *attributes) has(kind uint16) bool { return a[kind] != nil }

func (a *attributes) text(kind uint16) string {
	return string(bytes.TrimSuffix(a[kind], []byte{0}))
}

func (a *attributes) number(kind uint16) uint32 {
	if len(a[kind]) < 4 {
		return 0
	}
	return binary.BigEndian.Uint32(a[kind])
}

func (a *attributes) nested(kind uint16) attributes { return parse(a[kind]) }
