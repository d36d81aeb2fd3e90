package announce

import (
	"encoding/binary"
	"net"
	"net/netip"
)

const (
	etherIPv6     = 0x86dd
	protocolICMP6 = 58
	solicitation  = 135
	advertisement = 136
	hopLimit      = 255 // of all that has not come through a router (RFC 4861, 7.1)
	// Offsets in a frame: Ethernet, IPv6, ICMPv6.
	atIPv6, atICMP6 = 14, 14 + 40
	// The flags of an advertisement (RFC 4861, 4.4).
	solicited, override = 0x40, 0x20
)

var (
	allNodes    = netip.MustParseAddr("ff02::1")
	allNodesMAC = net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1}
)

// solicitedNode is the group at which an address is asked for (RFC 4291, 2.7.1).
func solicitedNode(ip netip.Addr) netip.Addr {
	raw, group := ip.As16(), netip.MustParseAddr("ff02::1:ff00:0").As16()
	copy(group[13:], raw[13:])
	return netip.AddrFrom16(group)
}

// message returns a message of a type in a frame, with the target link-layer address or
// the source's, as far as it says one.
func message(frame []byte, kind, option byte) (source, target netip.Addr, mac net.HardwareAddr, good bool) {
	const shortest = atICMP6 + 24
	if len(frame) < shortest {
		return source, target, nil, false
	}
	ip, icmp := frame[atIPv6:atICMP6], frame[atICMP6:]
	length := int(binary.BigEndian.Uint16(ip[4:6]))
	if ip[6] != protocolICMP6 || ip[7] != hopLimit || icmp[0] != kind || icmp[1] != 0 || length < 24 || length > len(icmp) {
		return source, target, nil, false
	}
	icmp = icmp[:length]
	source, destination := netip.AddrFrom16([16]byte(ip[8:24])), netip.AddrFrom16([16]byte(ip[24:40]))
	if checksum(source, destination, icmp) != 0 {
		return source, target, nil, false
	}
	for options := icmp[24:]; len(options) >= 8; {
		size := int(options[1]) * 8
		if size == 0 || size > len(options) {
			return source, target, nil, false
		}
		if options[0] == option && size == 8 {
			mac = net.HardwareAddr(options[2:8])
		}
		options = options[size:]
	}
	if mac == nil {
		mac = net.HardwareAddr(frame[6:12])
	}
	return source, netip.AddrFrom16([16]byte(icmp[8:24])), mac, true
}

// The options of link-layer addresses (RFC 4861, 4.6.1).
const (
	sourceAddress = 1
	targetAddress = 2
)

// readNDP reads a neighbour solicitation.
func readNDP(frame []byte) (q question, good bool) {
	q.asker, q.target, q.from, good = message(frame, solicitation, sourceAddress)
	return q, good
}

// readAdvertisement reads who says to have an address.
func readAdvertisement(frame []byte) (ip netip.Addr, mac net.HardwareAddr, good bool) {
	_, ip, mac, good = message(frame, advertisement, targetAddress)
	return ip, mac, good
}

// advertise makes a frame that says that own has an address.
func advertise(flags byte, own, to net.HardwareAddr, source, destination, ip netip.Addr) []byte {
	target := ip.As16()
	icmp := append([]byte{advertisement, 0, 0, 0, flags, 0, 0, 0}, target[:]...)
	icmp = append(append(icmp, targetAddress, 1), own...)
	binary.BigEndian.PutUint16(icmp[2:], checksum(source, destination, icmp))
	frame := append(append(make([]byte, 0, atICMP6+len(icmp)), to...), own...)
	frame = binary.BigEndian.AppendUint16(frame, etherIPv6)
	frame = append(frame, 0x60, 0, 0, 0, 0, byte(len(icmp)), protocolICMP6, hopLimit)
	s, d := source.As16(), destination.As16()
	return append(append(append(frame, s[:]...), d[:]...), icmp...)
}

// answerNDP answers a solicitation; source is an address of the own interface.
func answerNDP(own net.HardwareAddr, source netip.Addr, q question) []byte {
	if q.asker.IsUnspecified() { // to see whether anybody has it (RFC 4861, 7.2.4)
		return advertise(override, own, allNodesMAC, source, allNodes, q.target)
	}
	return advertise(solicited|override, own, q.from, source, q.asker, q.target)
}

// announceNDP tells everybody (RFC 4861, 7.2.6).
func announceNDP(own net.HardwareAddr, source, ip netip.Addr) [][]byte {
	return [][]byte{advertise(override, own, allNodesMAC, source, allNodes, ip)}
}

// checksum is that of ICMPv6 (RFC 4443, 2.3); zero of a message that has the right one.
func checksum(source, destination netip.Addr, icmp []byte) uint16 {
	s, d := source.As16(), destination.As16()
	sum := uint32(len(icmp)) + protocolICMP6
	add := func(bytes []byte) {
		for ; len(bytes) > 1; bytes = bytes[2:] {
			sum += uint32(binary.BigEndian.Uint16(bytes))
		}
		if len(bytes) == 1 {
			sum += uint32(bytes[0]) << 8
		}
	}
	add(s[:])
	add(d[:])
	add(icmp)
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
