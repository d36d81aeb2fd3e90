package netlab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Packet is an IP packet that crossed a segment.
type Packet struct {
	Source, Destination netip.Addr
	Protocol            int // unix.IPPROTO_…
	// Ports are 0 where the packet has none, and in all fragments but the first.
	SourcePort, DestinationPort int
	Size                        int // of the IP packet in bytes
	// DontFragment and Fragment are what an IPv4 header says; Fragment is set
	// for IPv6 as well.
	DontFragment, Fragment bool
	// Inner is what a VXLAN packet carries, if that is IP, and VNI its network.
	Inner *Packet
	VNI   int
}

func (p Packet) String() string {
	text := fmt.Sprintf("%s:%d > %s:%d proto %d size %d", p.Source, p.SourcePort, p.Destination, p.DestinationPort, p.Protocol, p.Size)
	if p.Inner != nil {
		text += fmt.Sprintf(" vni %d [%s]", p.VNI, *p.Inner)
	}
	return text
}

// captureBuffer holds some seconds of packets.
const captureBuffer = 64 << 20

// Capture records the IP packets that cross the segment, each once, until stop
// returns them. UDP packets to vxlanPort are taken for VXLAN. Stop fails if
// packets were missed.
func (s *Segment) Capture(vxlanPort int) (stop func() ([]Packet, error), err error) {
	var fd int
	err = s.space.Do(func() (err error) {
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, int(networkOrder(unix.ETH_P_ALL)))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("opening packet socket in namespace %s: %w", s.space.Name, err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, captureBuffer); err != nil {
		// In a user namespace the limit is the machine's.
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, captureBuffer)
	}
	file := os.NewFile(uintptr(fd), "capture of "+s.space.Name)
	c := &capture{file: file, vxlanPort: vxlanPort, done: make(chan error, 1)}
	go func() { c.done <- c.read() }()
	return c.stop, nil
}

func networkOrder(v uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v))
}

type capture struct {
	file      *os.File
	vxlanPort int
	packets   []Packet
	done      chan error
}

// stop takes what the kernel has queued, and ends the capture. A packet is
// queued before it crosses the bridge.
func (c *capture) stop() ([]Packet, error) {
	defer c.file.Close()
	if err := c.file.SetReadDeadline(time.Now()); err != nil {
		return nil, fmt.Errorf("ending capture: %w", err)
	}
	if err := <-c.done; !errors.Is(err, os.ErrDeadlineExceeded) {
		return nil, fmt.Errorf("capturing packets: %w", err)
	}
	for c.take(int(c.file.Fd())) {
	}
	statistics, err := unix.GetsockoptTpacketStats(int(c.file.Fd()), unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err == nil && statistics.Drops > 0 {
		err = fmt.Errorf("%d of %d packets were missed", statistics.Drops, statistics.Packets)
	}
	return c.packets, err
}

func (c *capture) read() error {
	raw, err := c.file.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Read(func(fd uintptr) bool {
		for c.take(int(fd)) {
		}
		return false
	})
}

// take reads one packet, and reports whether there was one.
func (c *capture) take(fd int) bool {
	buffer := make([]byte, 256) // the headers
	n, from, err := unix.Recvfrom(fd, buffer, unix.MSG_TRUNC|unix.MSG_DONTWAIT)
	if err != nil {
		return errors.Is(err, unix.EINTR)
	}
	// What leaves by a port has come by another one.
	link, is := from.(*unix.SockaddrLinklayer)
	if !is || link.Pkttype == unix.PACKET_OUTGOING {
		return true
	}
	if p := parsePacket(buffer[:min(n, len(buffer))], c.vxlanPort); p != nil {
		c.packets = append(c.packets, *p)
	}
	return true
}

// parsePacket reads the headers of an IP packet; nil stands for anything else.
func parsePacket(raw []byte, vxlanPort int) *Packet {
	if len(raw) < 20 {
		return nil
	}
	p := &Packet{}
	var payload []byte
	first := true
	switch raw[0] >> 4 {
	case 4:
		header := int(raw[0]&0x0f) * 4
		if header > len(raw) {
			return nil
		}
		flags := binary.BigEndian.Uint16(raw[6:])
		p.Source, p.Destination = netip.AddrFrom4([4]byte(raw[12:])), netip.AddrFrom4([4]byte(raw[16:]))
		p.Protocol, p.Size = int(raw[9]), int(binary.BigEndian.Uint16(raw[2:]))
		p.DontFragment, p.Fragment, first = flags&0x4000 != 0, flags&0x3fff != 0, flags&0x1fff == 0
		payload = raw[header:]
	case 6:
		if len(raw) < 40 {
			return nil
		}
		p.Source, p.Destination = netip.AddrFrom16([16]byte(raw[8:])), netip.AddrFrom16([16]byte(raw[24:]))
		p.Protocol, p.Size = int(raw[6]), int(binary.BigEndian.Uint16(raw[4:]))+40
		payload = raw[40:]
		if p.Protocol == unix.IPPROTO_FRAGMENT && len(payload) >= 8 {
			p.Protocol, p.Fragment, first = int(payload[0]), true, binary.BigEndian.Uint16(payload[2:])&0xfff8 == 0
			payload = payload[8:]
		}
	default:
		return nil
	}
	const udpHeader, vxlanHeader, ethernetHeader = 8, 8, 14
	if !first || len(payload) < udpHeader || p.Protocol != unix.IPPROTO_UDP && p.Protocol != unix.IPPROTO_TCP {
		return p
	}
	p.SourcePort, p.DestinationPort = int(binary.BigEndian.Uint16(payload)), int(binary.BigEndian.Uint16(payload[2:]))
	if p.Protocol == unix.IPPROTO_UDP && p.DestinationPort == vxlanPort && len(payload) >= udpHeader+vxlanHeader+ethernetHeader {
		inner := payload[udpHeader:]
		p.VNI = int(binary.BigEndian.Uint32(inner[4:]) >> 8)
		p.Inner = parsePacket(inner[vxlanHeader+ethernetHeader:], 0)
	}
	return p
}
