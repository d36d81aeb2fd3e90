package kernel

import (
	"errors"
	"fmt"
	"time"
	"unsafe"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/pkg/namespace"
)

// socket is a netlink socket that stays in the network namespace in which it
// was opened, whatever thread uses it later: no thread has to enter a pod's
// namespace to work in it.
//
// The netlink package's own sockets are made for daemons: they wait through
// the runtime's poller, on another thread, and take 64 KiB of memory for each
// answer. In a process that lives for three milliseconds and asks twenty times,
// that was a fifth of its time.
type socket struct {
	fd       int
	sequence uint32
	buffer   []byte
}

// answerTimeout bounds the wait for one answer. The kernel answers within the
// call that asks; a removal takes some tens of milliseconds.
const answerTimeout = 20 * time.Second

// ErrUnanswered says that the kernel has not answered in time: what was asked
// for may be done or not.
var ErrUnanswered = errors.New("kernel has not answered")

// openSocket opens a netlink socket in a namespace, or in the caller's own
// where the namespace is nil. The thread is back in its own namespace on return.
func openSocket(protocol int, in *namespace.Namespace) (*socket, error) {
	s := &socket{buffer: make([]byte, 16<<10)}
	create := func() (err error) {
		s.fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
		return err
	}
	open := create
	if in != nil {
		open = func() error { return in.Visit(create) }
	}
	if err := open(); err != nil {
		return nil, fmt.Errorf("opening netlink socket: %w", err)
	}
	timeout := unix.NsecToTimeval(answerTimeout.Nanoseconds())
	if err := unix.SetsockoptTimeval(s.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
		s.close()
		return nil, fmt.Errorf("opening netlink socket: %w", err)
	}
	// The kernel says in words what it does not like. Kernels before 4.12
	// cannot; the number of the error remains.
	_ = unix.SetsockoptInt(s.fd, unix.SOL_NETLINK, unix.NETLINK_EXT_ACK, 1)
	return s, nil
}

func (s *socket) close() { _ = unix.Close(s.fd) }

// request begins a message of the given type and flags.
func (s *socket) request(message, flags int) *nl.NetlinkRequest {
	return nl.NewNetlinkRequest(message, flags)
}

// acknowledge sends the request and waits until the kernel has done it.
func (s *socket) acknowledge(r *nl.NetlinkRequest) error {
	r.Flags |= unix.NLM_F_ACK
	_, err := s.execute(r)
	return err
}

// dump sends a dump request. A dump that the kernel says was interrupted by a
// change is taken again; it is never mistaken for a complete one.
func (s *socket) dump(message int, data ...nl.NetlinkRequestData) ([][]byte, error) {
	var answer [][]byte
	var err error
	for range 10 {
		r := s.request(message, unix.NLM_F_DUMP)
		for _, d := range data {
			r.AddData(d)
		}
		if answer, err = s.execute(r); !errors.Is(err, nl.ErrDumpInterrupted) {
			return answer, err
		}
	}
	return nil, err
}

// execute sends the request and returns the payloads of the answer's messages:
// one, or those of a dump up to its end. Where an acknowledgement is asked for,
// it ends with that, and holds what the kernel tells before: an echo or nothing.
func (s *socket) execute(r *nl.NetlinkRequest) ([][]byte, error) {
	s.sequence++
	r.Seq = s.sequence
	if err := unix.Sendto(s.fd, r.Serialize(), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, fmt.Errorf("sending netlink message: %w", err)
	}
	var answer [][]byte
	var interrupted error
	for {
		messages, err := s.receive()
		if err != nil {
			return nil, err
		}
		for len(messages) >= unix.SizeofNlMsghdr {
			header := (*unix.NlMsghdr)(unsafe.Pointer(&messages[0]))
			length := int(header.Len)
			if length < unix.SizeofNlMsghdr || length > len(messages) {
				return nil, fmt.Errorf("kernel sent a netlink message of %d bytes in %d", length, len(messages))
			}
			payload := messages[unix.SizeofNlMsghdr:length]
			messages = messages[min(align(length), len(messages)):]
			if header.Seq != s.sequence {
				continue // the late answer to an earlier request
			}
			if header.Flags&unix.NLM_F_DUMP_INTR != 0 {
				interrupted = nl.ErrDumpInterrupted
			}
			switch header.Type {
			case unix.NLMSG_DONE:
				return answer, errors.Join(interrupted, statusOf(payload, header.Flags))
			case unix.NLMSG_ERROR:
				return answer, statusOf(payload, header.Flags)
			}
			answer = append(answer, append([]byte(nil), payload...))
			if header.Flags&unix.NLM_F_MULTI == 0 && r.Flags&unix.NLM_F_ACK == 0 {
				return answer, nil
			}
		}
	}
}

// receive reads one datagram of the kernel's. The buffer holds what the kernel
// puts into one part of a dump; a larger message is said to be truncated.
func (s *socket) receive() ([]byte, error) {
	for {
		n, _, flags, from, err := unix.Recvmsg(s.fd, s.buffer, nil, 0)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			return nil, fmt.Errorf("%w for %s", ErrUnanswered, answerTimeout)
		case err != nil:
			return nil, fmt.Errorf("receiving netlink message: %w", err)
		case flags&unix.MSG_TRUNC != 0:
			return nil, fmt.Errorf("kernel's netlink message is larger than %d bytes", len(s.buffer))
		}
		if kernel, is := from.(*unix.SockaddrNetlink); is && kernel.Pid == 0 {
			return s.buffer[:n], nil
		}
	}
}

// statusOf reads the error out of an acknowledgement or the end of a dump, with
// the kernel's words where it gives some (struct nlmsgerr and its attributes).
func statusOf(payload []byte, flags uint16) error {
	const errorSize = 4
	if len(payload) < errorSize {
		return nil
	}
	number := int32(nl.NativeEndian().Uint32(payload))
	if number == 0 {
		return nil
	}
	err := error(unix.Errno(-number))
	rest := payload[errorSize:]
	if flags&unix.NLM_F_ACK_TLVS == 0 || len(rest) < unix.SizeofNlMsghdr {
		return err
	}
	// The request's header comes back, and the request itself unless capped.
	echoed := unix.SizeofNlMsghdr
	if flags&unix.NLM_F_CAPPED == 0 {
		echoed = align(int(nl.NativeEndian().Uint32(rest)))
	}
	if echoed > len(rest) {
		return err
	}
	attributes, parseErr := nl.ParseRouteAttr(rest[echoed:])
	if parseErr != nil {
		return err
	}
	for _, a := range attributes {
		if a.Attr.Type == nl.NLMSGERR_ATTR_MSG {
			return fmt.Errorf("%w: %s", err, unix.ByteSliceToString(a.Value))
		}
	}
	return err
}

// align rounds a length up to where the next netlink message begins.
func align(length int) int { return (length + unix.NLMSG_ALIGNTO - 1) &^ (unix.NLMSG_ALIGNTO - 1) }
