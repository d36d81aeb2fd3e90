package policy_test

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// piece is a part of what comes after the IP header.
type piece struct {
	offset int // in bytes, a multiple of 8
	more   bool
	data   []byte
}

// pieces cuts at an offset.
func pieces(data []byte, at int) []piece {
	return []piece{{0, true, data[:at]}, {at, false, data[at:]}}
}

// fragments are the packets of pieces: of IPv6 with a fragment header each, also where
// there is one piece only.
func fragments(from, to netip.Addr, next byte, id int, all ...piece) (packets [][]byte) {
	for _, p := range all {
		more := uint16(0)
		if p.more {
			more = 1
		}
		if from.Is4() {
			h := ipv4Header(from, to, next, len(p.data))
			binary.BigEndian.PutUint16(h[4:], uint16(id))
			binary.BigEndian.PutUint16(h[6:], more<<13|uint16(p.offset/8))
			packets = append(packets, append(h, p.data...))
			continue
		}
		h := []byte{next, 0}
		h = binary.BigEndian.AppendUint16(h, uint16(p.offset)|more)
		h = binary.BigEndian.AppendUint32(h, uint32(id))
		packets = append(packets, ipv6(from, to, unix.IPPROTO_FRAGMENT, append(h, p.data...)))
	}
	return packets
}

// ipv4Header leaves the checksum to the kernel.
func ipv4Header(from, to netip.Addr, next byte, length int) []byte {
	h := []byte{0x45, 0, 0, 0, 0, 0, 0, 0, 64, next, 0, 0}
	binary.BigEndian.PutUint16(h[2:], uint16(20+length))
	return append(append(h, from.AsSlice()...), to.AsSlice()...)
}

func ipv6(from, to netip.Addr, next byte, data []byte) []byte {
	h := []byte{0x60, 0, 0, 0, 0, 0, next, 64}
	binary.BigEndian.PutUint16(h[4:], uint16(len(data)))
	return append(append(append(h, from.AsSlice()...), to.AsSlice()...), data...)
}

// options puts a header before a datagram: what hop-by-hop and destination options look
// like. The one option in it is for experiments, and skipped by who does not know it; it
// has the datagram's mark.
func options(number int, datagram []byte) []byte {
	const eights, experiment, padN = 2, 0x1e, 1
	h := append([]byte{unix.IPPROTO_UDP, eights - 1, experiment, 8}, mark(number)...)
	return append(append(h, padN, 2, 0, 0), datagram...)
}

// mark tells what a packet belongs to. It is 8 bytes long, so that fragments have whole
// ones.
func mark(number int) []byte { return fmt.Appendf(nil, "<%06d>", number) }

// udp is a datagram, tcp the first segment of a connection.
func udp(from, to netip.AddrPort, data []byte) []byte {
	s := binary.BigEndian.AppendUint16(nil, from.Port())
	s = binary.BigEndian.AppendUint16(s, to.Port())
	s = binary.BigEndian.AppendUint16(s, uint16(8+len(data)))
	return sum(from.Addr(), to.Addr(), unix.IPPROTO_UDP, append(append(s, 0, 0), data...), 6)
}

func tcp(from, to netip.AddrPort, data []byte) []byte {
	const words, syn, window = 5, 2, 64
	s := binary.BigEndian.AppendUint16(nil, from.Port())
	s = binary.BigEndian.AppendUint16(s, to.Port())
	s = append(s, 0, 0, 0, 1, 0, 0, 0, 0, words<<4, syn, window, 0, 0, 0, 0, 0)
	return sum(from.Addr(), to.Addr(), unix.IPPROTO_TCP, append(s, data...), 16)
}

// sum writes the checksum of a segment, with its pseudo header, to an offset in it.
func sum(from, to netip.Addr, protocol byte, segment []byte, at int) []byte {
	all := append(from.AsSlice(), to.AsSlice()...)
	all = binary.BigEndian.AppendUint32(all, uint32(len(segment)))
	all = append(append(all, 0, 0, 0, protocol), segment...)
	if len(all)%2 == 1 {
		all = append(all, 0)
	}
	total := uint32(0)
	for i := 0; i < len(all); i += 2 {
		total += uint32(binary.BigEndian.Uint16(all[i:]))
	}
	for total>>16 > 0 {
		total = total&0xffff + total>>16
	}
	binary.BigEndian.PutUint16(segment[at:], ^uint16(total))
	return segment
}

// sendRaw sends whole IP packets from the calling thread's namespace.
func sendRaw(to netip.Addr, packets [][]byte) error {
	family, address := unix.AF_INET, unix.Sockaddr(&unix.SockaddrInet4{Addr: [4]byte(to.AsSlice()[:4])})
	if to.Is6() {
		family, address = unix.AF_INET6, &unix.SockaddrInet6{Addr: to.As16()}
	}
	fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return fmt.Errorf("opening a raw socket: %w", err)
	}
	defer unix.Close(fd)
	for _, p := range packets {
		if err := unix.Sendto(fd, p, 0, address); err != nil {
			return fmt.Errorf("sending %d bytes to %s: %w", len(p), to, err)
		}
	}
	return nil
}
