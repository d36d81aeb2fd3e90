// Package netlink talks to the kernel: requests and their answers, notifications, and
// what all of its messages have in common, whichever part of the kernel they are for.
package netlink

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Socket is a netlink socket that stays in the network namespace in which it
// was opened, whatever thread uses it later: no thread has to enter a pod's
// namespace to work in it. It belongs to one goroutine.
//
// The libraries' own sockets are made for daemons: they wait through the
// runtime's poller, on another thread, and take 64 KiB of memory for each
// answer. In a process that lives for three milliseconds and asks twenty times,
// that was a fifth of its time.
type Socket struct {
	Sequence uint32 // of the last request
	Port     uint32 // by which notifications tell whose change they are about

	fd     int
	buffer []byte
}

// answerTimeout bounds the wait for one answer. The kernel answers within the
// call that asks; a removal takes some tens of milliseconds.
const answerTimeout = 20 * time.Second

// ErrUnanswered says that the kernel has not answered in time: what was asked
// for may be done or not.
var ErrUnanswered = errors.New("kernel has not answered")

// Open opens a socket in the network namespace of the calling thread. The buffer
// has to hold what the kernel puts into one part of a dump, 16 KiB or more.
func Open(protocol, bufferBytes int) (*Socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return nil, fmt.Errorf("opening netlink socket: %w", err)
	}
	s := &Socket{fd: fd, buffer: make([]byte, bufferBytes)}
	timeout := unix.NsecToTimeval(answerTimeout.Nanoseconds())
	err = errors.Join(
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout),
		unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}),
	)
	name, nameErr := unix.Getsockname(fd)
	if err = errors.Join(err, nameErr); err != nil {
		s.Close()
		return nil, fmt.Errorf("opening netlink socket: %w", err)
	}
	s.Port = name.(*unix.SockaddrNetlink).Pid
	// The kernel says in words what it does not like, and does not repeat the
	// request. Kernels before 4.12 cannot; the number of the error remains.
	_ = s.Set(unix.SOL_NETLINK, unix.NETLINK_EXT_ACK, 1)
	_ = s.Set(unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1)
	return s, nil
}

// Set sets a socket option.
func (s *Socket) Set(level, option, value int) error {
	return unix.SetsockoptInt(s.fd, level, option, value)
}

// Close closes the socket.
func (s *Socket) Close() { _ = unix.Close(s.fd) }

// Send sends one or more messages in one system call. The error is the system
// call's.
func (s *Socket) Send(b []byte) error {
	return unix.Sendto(s.fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
}

// Receive reads one datagram of the kernel's and calls yield for each message in
// it, up to one that it returns an error for. What it is given is valid only
// while it is looked at. With MSG_DONTWAIT it fails with [unix.EAGAIN] where there
// is none; without, with [ErrUnanswered] after 20 seconds.
func (s *Socket) Receive(flags int, yield func(h *unix.NlMsghdr, payload []byte) error) error {
	for {
		n, _, is, from, err := unix.Recvmsg(s.fd, s.buffer, nil, flags)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN) && flags&unix.MSG_DONTWAIT != 0:
			return err
		case errors.Is(err, unix.EAGAIN):
			return fmt.Errorf("%w for %s", ErrUnanswered, answerTimeout)
		case err != nil:
			return fmt.Errorf("receiving netlink message: %w", err)
		case is&unix.MSG_TRUNC != 0:
			return fmt.Errorf("kernel's netlink message is larger than %d bytes", len(s.buffer))
		}
		if isKernel(from) {
			return each(s.buffer[:n], yield)
		}
	}
}

func isKernel(from unix.Sockaddr) bool {
	address, is := from.(*unix.SockaddrNetlink)
	return is && address.Pid == 0
}

// each calls yield for each message of a datagram.
func each(datagram []byte, yield func(h *unix.NlMsghdr, payload []byte) error) error {
	for len(datagram) >= unix.SizeofNlMsghdr {
		h := (*unix.NlMsghdr)(unsafe.Pointer(&datagram[0]))
		length := int(h.Len)
		if length < unix.SizeofNlMsghdr || length > len(datagram) {
			return fmt.Errorf("kernel sent a netlink message of %d bytes in %d", length, len(datagram))
		}
		if err := yield(h, datagram[unix.SizeofNlMsghdr:length]); err != nil {
			return err
		}
		datagram = datagram[min(Align(length), len(datagram)):]
	}
	return nil
}

// Status reads the error out of an acknowledgement or the end of a dump, with
// the kernel's words where it gives some, and where in the request the attribute
// is that it is about; 0 where it says none (struct nlmsgerr and its attributes).
func Status(h *unix.NlMsghdr, payload []byte) (at int, err error) {
	const errorSize, words, offset = 4, 1, 2 // NLMSGERR_ATTR_MSG, NLMSGERR_ATTR_OFFS
	if len(payload) < errorSize {
		return 0, nil
	}
	number := int32(binary.NativeEndian.Uint32(payload))
	if number == 0 {
		return 0, nil
	}
	err = unix.Errno(-number)
	rest := payload[errorSize:]
	if h.Flags&unix.NLM_F_ACK_TLVS == 0 || len(rest) < unix.SizeofNlMsghdr {
		return 0, err
	}
	// The request's header comes back, and the request itself unless capped.
	echoed := unix.SizeofNlMsghdr
	if h.Flags&unix.NLM_F_CAPPED == 0 {
		echoed = Align(int(binary.NativeEndian.Uint32(rest)))
	}
	for kind, value := range Attributes(rest[min(echoed, len(rest)):]) {
		switch {
		case kind == words:
			err = fmt.Errorf("%w: %s", err, unix.ByteSliceToString(value))
		case kind == offset && len(value) >= 4:
			at = int(binary.NativeEndian.Uint32(value))
		}
	}
	return at, err
}

// AttributeHeader is the size of a struct nlattr, in bytes.
const AttributeHeader = 4

// Attributes goes through the attributes of a message, or those inside of one, up
// to one that cannot be. Kinds are without the flags for nested ones and byte order.
func Attributes(raw []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(kind uint16, value []byte) bool) {
		const typeMask = 0x3fff // NLA_TYPE_MASK
		for len(raw) >= AttributeHeader {
			length := int(binary.NativeEndian.Uint16(raw))
			if length < AttributeHeader || length > len(raw) ||
				!yield(binary.NativeEndian.Uint16(raw[2:])&typeMask, raw[AttributeHeader:length]) {
				return
			}
			raw = raw[min(Align(length), len(raw)):]
		}
	}
}

// Align rounds a length up to where the next message or attribute begins.
func Align(length int) int { return (length + unix.NLMSG_ALIGNTO - 1) &^ (unix.NLMSG_ALIGNTO - 1) }
