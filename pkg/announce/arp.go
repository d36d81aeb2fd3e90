package announce

import (
	"encoding/binary"
	"net"
	"net/netip"
)

// An ARP packet in its frame (RFC 826): 14 bytes of Ethernet, and 28 of ARP.
const arpFrame = 14 + 28

const (
	etherARP   = 0x0806
	arpRequest = 1
	arpReply   = 2
)

var broadcast = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// question is that of a neighbour for an address.
type question struct {
	target netip.Addr
	asker  netip.Addr       // unspecified where somebody looks whether the address is in use
	from   net.HardwareAddr // to whom the answer goes
}

// readARP reads a frame: a question, or that somebody has an address (asker).
func readARP(frame []byte) (q question, asks, good bool) {
	if len(frame) < arpFrame {
		return q, false, false
	}
	arp := frame[14:]
	// Ethernet, IPv4, with addresses of 6 and 4 bytes.
	if binary.BigEndian.Uint64(arp[0:8])>>16 != 0x000108000604 {
		return q, false, false
	}
	q.from = net.HardwareAddr(arp[8:14])
	q.asker, _ = netip.AddrFromSlice(arp[14:18])
	q.target, _ = netip.AddrFromSlice(arp[24:28])
	return q, binary.BigEndian.Uint16(arp[6:8]) == arpRequest && q.asker != q.target, true
}

// arp makes a frame that says that own has an address.
func arp(operation uint16, own, to net.HardwareAddr, ip, asker netip.Addr, target net.HardwareAddr) []byte {
	frame := make([]byte, 0, arpFrame)
	frame = append(append(frame, to...), own...)
	frame = binary.BigEndian.AppendUint16(frame, etherARP)
	frame = append(frame, 0, 1, 8, 0, 6, 4)
	frame = binary.BigEndian.AppendUint16(frame, operation)
	frame = append(append(frame, own...), ip.AsSlice()...)
	return append(append(frame, target...), asker.AsSlice()...)
}

// answerARP answers a question.
func answerARP(own net.HardwareAddr, q question) []byte {
	return arp(arpReply, own, q.from, q.target, q.asker, q.from)
}

// announceARP tells everybody: some listen to questions only, and some to answers
// (RFC 5227, 3).
func announceARP(own net.HardwareAddr, ip netip.Addr) [][]byte {
	return [][]byte{
		arp(arpRequest, own, broadcast, ip, ip, net.HardwareAddr{0, 0, 0, 0, 0, 0}),
		arp(arpReply, own, broadcast, ip, ip, broadcast),
	}
}
