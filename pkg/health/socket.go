package health

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// socket is a [Network]: a raw socket of one family, bound to the address that it sends
// from. The kernel then hands it what is addressed to that, and of this what the filter
// lets pass: answers and errors.
type socket struct {
	fd         int
	ipv6       bool
	identifier uint16
	buffer     []byte // for what is sent
	received   []byte
	control    []byte
}

// Constants that golang.org/x/sys does not have.
const (
	solRaw       = 255 // SOL_RAW
	filter4      = 1   // ICMP_FILTER of linux/icmp.h
	filter6      = 1   // ICMPV6_FILTER of linux/icmpv6.h
	mostReceived = 1000
	// headroom is enough for the headers of an error and what it quotes.
	receiveBytes = 256
)

// Open opens a socket that sends from an address of this node, in the caller's network
// namespace. It needs CAP_NET_RAW.
func Open(source netip.Addr) (Network, error) {
	s := &socket{ipv6: source.Is6(), identifier: uint16(rand.Uint32()), received: make([]byte, receiveBytes), control: make([]byte, unix.CmsgSpace(16))}
	domain, protocol := unix.AF_INET, unix.IPPROTO_ICMP
	if s.ipv6 {
		domain, protocol = unix.AF_INET6, unix.IPPROTO_ICMPV6
	}
	var err error
	if s.fd, err = unix.Socket(domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol); err != nil {
		return nil, fmt.Errorf("opening a raw socket: %w", err)
	}
	if err := s.configure(source); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func (s *socket) configure(source netip.Addr) error {
	set := func(level, option, value int) func() error {
		return func() error { return unix.SetsockoptInt(s.fd, level, option, value) }
	}
	steps := []struct {
		what string
		do   func() error
	}{{"having arrivals noted", set(unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1)}}
	if s.ipv6 {
		var blocked unix.ICMPv6Filter
		for i := range blocked.Data {
			blocked.Data[i] = ^uint32(0)
		}
		for _, kind := range []byte{unreachable6, tooBig6, exceeded6, echoReply6} {
			blocked.Data[kind>>5] &^= 1 << (kind & 31)
		}
		steps = append(steps, []struct {
			what string
			do   func() error
		}{
			{"filtering", func() error { return unix.SetsockoptICMPv6Filter(s.fd, unix.IPPROTO_ICMPV6, filter6, &blocked) }},
			// What a router has said of the way's MTU does not count: it is asked anew.
			{"keeping probes whole", set(unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE)},
			{"keeping probes whole", set(unix.IPPROTO_IPV6, unix.IPV6_DONTFRAG, 1)},
			// The address is a local route's and no interface's.
			{"sending from a route's address", set(unix.IPPROTO_IPV6, unix.IPV6_FREEBIND, 1)},
		}...)
	} else {
		passing := uint32(1<<echoReply4 | 1<<unreachable4 | 1<<exceeded4)
		steps = append(steps, []struct {
			what string
			do   func() error
		}{
			{"filtering", set(solRaw, filter4, int(int32(^passing)))},
			{"keeping probes whole", set(unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE)},
		}...)
	}
	for _, step := range steps {
		if err := step.do(); err != nil {
			return fmt.Errorf("%s with a raw socket: %w", step.what, err)
		}
	}
	if err := unix.Bind(s.fd, sockaddr(source)); err != nil {
		return fmt.Errorf("sending from %s: %w", source, err)
	}
	return nil
}

func sockaddr(a netip.Addr) unix.Sockaddr {
	if a.Is4() {
		return &unix.SockaddrInet4{Addr: a.As4()}
	}
	return &unix.SockaddrInet6{Addr: a.As16()}
}

// Close closes the socket.
func (s *socket) Close() { _ = unix.Close(s.fd) } // nothing is lost by an error

// Send implements [Network].
func (s *socket) Send(to netip.Addr, sequence uint16, size int) error {
	s.buffer = request(s.buffer, s.ipv6, s.identifier, sequence, size, time.Now().UnixNano())
	switch err := unix.Sendto(s.fd, s.buffer, 0, sockaddr(to)); {
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.ENOBUFS), errors.Is(err, unix.ENOMEM), errors.Is(err, unix.EINTR):
		return ErrBusy
	case errors.Is(err, unix.EMSGSIZE):
		return ErrTooLarge
	default:
		return err
	}
}

// Receive implements [Network].
func (s *socket) Receive(tell func(Message)) {
	for range mostReceived {
		n, controlled, _, from, err := unix.Recvmsg(s.fd, s.received, s.control, unix.MSG_DONTWAIT)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return
		}
		b := s.received[:n]
		var source netip.Addr
		switch a := from.(type) {
		case *unix.SockaddrInet4:
			source = netip.AddrFrom4(a.Addr)
			if len(b) < header4 || int(b[0]&0xf)*4 > len(b) {
				continue
			}
			b = b[int(b[0]&0xf)*4:]
		case *unix.SockaddrInet6:
			source = netip.AddrFrom16(a.Addr)
		default:
			continue
		}
		m, sent, ok := parse(b, source, s.identifier)
		if !ok {
			continue
		}
		if at := arrival(s.control[:controlled]); m.Kind == Answer && at > 0 {
			// Where the clock was set meanwhile, the time is not known.
			if trip := time.Duration(at - sent); trip > 0 && trip < 2*Timeout {
				m.RoundTrip = trip
			}
		}
		tell(m)
	}
}

// arrival is when the kernel received a message, in nanoseconds; 0 if it does not say.
func arrival(control []byte) int64 {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return 0
	}
	for _, m := range messages {
		if m.Header.Level != unix.SOL_SOCKET || m.Header.Type != unix.SCM_TIMESTAMPNS {
			continue
		}
		switch word := int(unsafe.Sizeof(uintptr(0))); {
		case len(m.Data) >= 16 && word == 8:
			return int64(binary.NativeEndian.Uint64(m.Data))*1e9 + int64(binary.NativeEndian.Uint64(m.Data[8:]))
		case len(m.Data) >= 8 && word == 4:
			return int64(binary.NativeEndian.Uint32(m.Data))*1e9 + int64(binary.NativeEndian.Uint32(m.Data[4:]))
		}
	}
	return 0
}
