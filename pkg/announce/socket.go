package announce

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// packets is a socket for the frames of one protocol at one interface.
type packets struct {
	file   *os.File
	link   int
	closed atomic.Bool
}

// isNeighbour lets only neighbour solicitations and advertisements into the socket: IPv6
// of an interface may be gigabits. In words: next header at 14+6 is ICMPv6, type at 14+40
// is 135 or 136.
var isNeighbour = []unix.SockFilter{
	{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: atIPv6 + 6},
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: protocolICMP6, Jf: 4},
	{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: atICMP6},
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: solicitation, Jt: 1},
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: advertisement, Jf: 1},
	{Code: unix.BPF_RET | unix.BPF_K, K: 1 << 16},
	{Code: unix.BPF_RET | unix.BPF_K, K: 0},
}

// openPackets opens a socket. Nothing comes before the filter is there: until it is bound
// it has no protocol.
func openPackets(link int, protocol uint16, filter []unix.SockFilter) (*packets, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("opening packet socket: %w", err)
	}
	if len(filter) > 0 {
		err = unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]})
	}
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: networkOrder(protocol), Ifindex: link})
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("binding packet socket: %w", err)
	}
	return &packets{file: os.NewFile(uintptr(fd), "packets"), link: link}, nil
}

func networkOrder(v uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v))
}

// each calls do with each frame that comes, until the socket is closed, which is no error,
// or breaks. The frame is good until do returns.
func (p *packets) each(do func(frame []byte)) error {
	raw, err := p.file.SyscallConn()
	if err != nil {
		return err
	}
	buffer := make([]byte, 2048)
	var broken error
	err = raw.Read(func(fd uintptr) bool {
		for {
			n, from, err := unix.Recvfrom(int(fd), buffer, unix.MSG_DONTWAIT)
			switch {
			case errors.Is(err, unix.EAGAIN):
				return false
			case errors.Is(err, unix.EINTR), errors.Is(err, unix.ENETDOWN):
				continue // the interface is down: it says so once
			case err != nil:
				broken = err
				return true
			}
			// What the node sends itself comes by here too.
			if link, is := from.(*unix.SockaddrLinklayer); is && link.Pkttype != unix.PACKET_OUTGOING {
				do(buffer[:n])
			}
		}
	})
	if p.closed.Load() {
		return nil // os has no error of its own for that
	}
	return errors.Join(err, broken)
}

// send sends a frame.
func (p *packets) send(frame []byte) error {
	raw, err := p.file.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	err = raw.Control(func(fd uintptr) {
		sent = unix.Sendto(int(fd), frame, unix.MSG_DONTWAIT, &unix.SockaddrLinklayer{Protocol: networkOrder(binary.BigEndian.Uint16(frame[12:14])), Ifindex: p.link})
	})
	return errors.Join(err, sent)
}

func (p *packets) close() {
	p.closed.Store(true)
	p.file.Close()
}

// groups are multicast groups that an interface is in, so that its driver, and switches
// that go by MLD, let solicitations in.
type groups struct {
	link    int
	sockets []int
	in      map[netip.Addr]int // the socket
	users   map[netip.Addr]int
}

func newGroups(link int) *groups {
	return &groups{link: link, in: map[netip.Addr]int{}, users: map[netip.Addr]int{}}
}

// join joins a group. A socket is in so many as the sysctl optmem_max allows: then there
// is another one.
func (g *groups) join(group netip.Addr) error {
	if g.users[group]++; g.users[group] > 1 {
		return nil
	}
	request := &unix.IPv6Mreq{Multiaddr: group.As16(), Interface: uint32(g.link)}
	if n := len(g.sockets); n > 0 {
		if unix.SetsockoptIPv6Mreq(g.sockets[n-1], unix.IPPROTO_IPV6, unix.IPV6_JOIN_GROUP, request) == nil {
			g.in[group] = g.sockets[n-1]
			return nil
		}
	}
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		if err = unix.SetsockoptIPv6Mreq(fd, unix.IPPROTO_IPV6, unix.IPV6_JOIN_GROUP, request); err != nil {
			unix.Close(fd)
		}
	}
	if err != nil {
		g.users[group]--
		return fmt.Errorf("joining multicast group %s: %w", group, err)
	}
	g.sockets = append(g.sockets, fd)
	g.in[group] = fd
	return nil
}

func (g *groups) leave(group netip.Addr) {
	if g.users[group]--; g.users[group] > 0 {
		return
	}
	delete(g.users, group)
	// An interface that is gone is in no group.
	_ = unix.SetsockoptIPv6Mreq(g.in[group], unix.IPPROTO_IPV6, unix.IPV6_LEAVE_GROUP, &unix.IPv6Mreq{Multiaddr: group.As16(), Interface: uint32(g.link)})
	delete(g.in, group)
}

func (g *groups) close() {
	for _, fd := range g.sockets {
		unix.Close(fd)
	}
}
