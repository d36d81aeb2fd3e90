package nft

import (
	"encoding/binary"
	"net/netip"
)

// Key encodes fields of an element one after another, as the kernel has them: keys,
// and values of maps. The equivalent in nft is what stands between the dots.
//
//	nft.Key(nil).Address(a).Protocol(unix.IPPROTO_TCP).Port(80)      // 10.0.0.1 . tcp . 80
type Key []byte

// Address appends an address of 4 or 16 bytes.
func (k Key) Address(a netip.Addr) Key {
	if a.Is4() {
		raw := a.As4()
		return append(k, raw[:]...)
	}
	raw := a.As16()
	return append(k, raw[:]...)
}

// Protocol appends a protocol's number.
func (k Key) Protocol(p uint8) Key { return append(k, p, 0, 0, 0) }

// Port appends a port.
func (k Key) Port(port uint16) Key { return append(binary.BigEndian.AppendUint16(k, port), 0, 0) }

// Number appends what is in host byte order: a mark, an index.
func (k Key) Number(n uint32) Key { return binary.NativeEndian.AppendUint32(k, n) }

// Fields reads fields in the order in which a [Key] has them. What is not there reads
// as zero.
type Fields string

func (f *Fields) take(n int) []byte {
	raw := make([]byte, n)
	*f = (*f)[copy(raw, *f):]
	return raw
}

// Address reads an address of so many bytes.
func (f *Fields) Address(size int) netip.Addr {
	a, _ := netip.AddrFromSlice(f.take(size))
	return a
}

// Protocol reads a protocol's number.
func (f *Fields) Protocol() uint8 { return f.take(4)[0] }

// Port reads a port.
func (f *Fields) Port() uint16 { return binary.BigEndian.Uint16(f.take(4)) }

// Number reads what is in host byte order.
func (f *Fields) Number() uint32 { return binary.NativeEndian.Uint32(f.take(4)) }
