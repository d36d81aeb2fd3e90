package policy_test

import (
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// shape is how one sends something so that it might get around a policy.
type shape struct {
	name     string
	protocol byte
	only     string // a family, "IPv4" or "IPv6"; "" for both
	size     int    // of the data
	// packets are whole ones; nil for a usual datagram, which the kernel cuts.
	packets func(from, to netip.AddrPort, id int, data []byte) [][]byte
	// discarded says that the kernel's reassembly takes such from nobody.
	discarded bool
}

var shapes = []shape{
	{name: "a datagram that is cut", protocol: unix.IPPROTO_UDP, size: 3000},
	{name: "a first fragment without data", protocol: unix.IPPROTO_UDP, size: 64, packets: func(from, to netip.AddrPort, id int, data []byte) [][]byte {
		return fragments(from.Addr(), to.Addr(), unix.IPPROTO_UDP, id, pieces(udp(from, to, data), 8)...)
	}},
	{name: "the last fragment first", protocol: unix.IPPROTO_UDP, size: 64, packets: func(from, to netip.AddrPort, id int, data []byte) [][]byte {
		all := fragments(from.Addr(), to.Addr(), unix.IPPROTO_UDP, id, pieces(udp(from, to, data), 16)...)
		return [][]byte{all[1], all[0]}
	}},
	{name: "a first fragment with a part of the TCP header", protocol: unix.IPPROTO_TCP, only: "IPv4", size: 64, packets: cutTCP},
	// RFC 8200, 4.5: the first fragment has all headers, or is discarded.
	{name: "a first fragment with a part of the TCP header, of IPv6", protocol: unix.IPPROTO_TCP, only: "IPv6", size: 64, discarded: true, packets: cutTCP},
	// The one that overlaps says that it is to the port that everybody may reach, before or
	// after the one that tells the truth.
	{name: "a header in an overlapping fragment", protocol: unix.IPPROTO_UDP, size: 64, discarded: true, packets: func(from, to netip.AddrPort, id int, data []byte) [][]byte {
		s, lie := udp(from, to, data), udp(from, netip.AddrPortFrom(to.Addr(), everybodys), data)
		return fragments(from.Addr(), to.Addr(), unix.IPPROTO_UDP, id, piece{0, true, lie[:16]}, piece{0, true, s[:24]}, piece{16, false, s[16:]})
	}},
	{name: "a header that an overlapping fragment replaces", protocol: unix.IPPROTO_UDP, size: 64, discarded: true, packets: func(from, to netip.AddrPort, id int, data []byte) [][]byte {
		s, lie := udp(from, to, data), udp(from, netip.AddrPortFrom(to.Addr(), everybodys), data)
		return fragments(from.Addr(), to.Addr(), unix.IPPROTO_UDP, id, piece{0, true, s[:24]}, piece{0, true, lie[:16]}, piece{16, false, s[16:]})
	}},
	{name: "hop-by-hop options", protocol: unix.IPPROTO_UDP, only: "IPv6", size: 64, packets: func(from, to netip.AddrPort, id int, data []byte) [][]byte {
		return [][]byte{ipv6(from.Addr(), to.Addr(), unix.IPPROTO_HOPOPTS, options(id, udp(from, to, data)))}
	}},
	{name: "destination options", protocol: unix.IPPROTO_UDP, only: "IPv6", size: 64, packets: func(from, to netip.AddrPort, id int, data []byte) [][]byte {
		return [][]byte{ipv6(from.Addr(), to.Addr(), unix.IPPROTO_DSTOPTS, options(id, udp(from, to, data)))}
	}},
	{name: "a fragment that is all", protocol: unix.IPPROTO_UDP, only: "IPv6", size: 64, packets: func(from, to netip.AddrPort, id int, data []byte) [][]byte {
		return fragments(from.Addr(), to.Addr(), unix.IPPROTO_UDP, id, piece{0, false, udp(from, to, data)})
	}},
	{name: "destination options in a fragment that is all", protocol: unix.IPPROTO_UDP, only: "IPv6", size: 64, packets: func(from, to netip.AddrPort, id int, data []byte) [][]byte {
		return fragments(from.Addr(), to.Addr(), unix.IPPROTO_DSTOPTS, id, piece{0, false, options(id, udp(from, to, data))})
	}},
	{name: "destination options in the first of two fragments", protocol: unix.IPPROTO_UDP, only: "IPv6", size: 64, packets: func(from, to netip.AddrPort, id int, data []byte) [][]byte {
		return fragments(from.Addr(), to.Addr(), unix.IPPROTO_DSTOPTS, id, pieces(options(id, udp(from, to, data)), 24)...)
	}},
	{name: "a first fragment without the UDP header", protocol: unix.IPPROTO_UDP, only: "IPv6", size: 64, discarded: true, packets: func(from, to netip.AddrPort, id int, data []byte) [][]byte {
		return fragments(from.Addr(), to.Addr(), unix.IPPROTO_DSTOPTS, id, pieces(options(id, udp(from, to, data)), 16)...)
	}},
}

func cutTCP(from, to netip.AddrPort, id int, data []byte) [][]byte {
	return fragments(from.Addr(), to.Addr(), unix.IPPROTO_TCP, id, pieces(tcp(from, to, data), 8)...)
}

// send sends data once, from a port of its number.
func (one shape) send(from netip.Addr, to netip.AddrPort, number int, data []byte) error {
	source := netip.AddrPortFrom(from, uint16(20_000+number))
	if one.packets != nil {
		return sendRaw(to.Addr(), one.packets(source, to, number, data))
	}
	socket, err := net.DialUDP("udp", net.UDPAddrFromAddrPort(source), net.UDPAddrFromAddrPort(to))
	if err != nil {
		return err
	}
	defer socket.Close()
	_, err = socket.Write(data)
	return err
}
