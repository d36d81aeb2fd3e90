package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// socket is a netlink socket to nftables, in the network namespace in which it was
// opened. It is read piece by piece: a table of a large cluster has hundreds of
// thousands of elements.
type socket struct {
	fd       int
	port     uint32 // by which notifications tell whose transaction they are about
	sequence uint32
	buffer   []byte
}

// answerTimeout bounds the wait for one answer. The kernel answers within the call
// that asks; a removal takes some tens of milliseconds.
const answerTimeout = 20 * time.Second

// ErrInterrupted says that somebody wrote while a table was read.
var ErrInterrupted = errors.New("nftables changed while it was read")

// receiveBytes holds the largest piece of a dump.
const receiveBytes = 64 << 10

func open() (*socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("opening nftables: %w", err)
	}
	s := &socket{fd: fd, buffer: make([]byte, receiveBytes)}
	timeout := unix.NsecToTimeval(answerTimeout.Nanoseconds())
	err = errors.Join(
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout),
		unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}),
	)
	// The kernel says in words what it does not like.
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_EXT_ACK, 1)
	if name, e := unix.Getsockname(fd); e == nil {
		s.port = name.(*unix.SockaddrNetlink).Pid
	} else {
		err = errors.Join(err, e)
	}
	if err != nil {
		s.close()
		return nil, fmt.Errorf("opening nftables: %w", err)
	}
	return s, nil
}

func (s *socket) close() { _ = unix.Close(s.fd) }

// generic is struct nfgenmsg, which comes before the attributes.
const generic = 4

// message appends a message about an object of a family to b.
func (s *socket) message(b []byte, kind, flags uint16, family byte, resource uint16, about ...attribute) []byte {
	begin := len(b)
	b = append(b, make([]byte, unix.SizeofNlMsghdr)...)
	b = append(b, family, unix.NFNETLINK_V0)
	b = binary.BigEndian.AppendUint16(b, resource)
	for _, a := range about {
		b = a.append(b)
	}
	s.sequence++
	header := (*unix.NlMsghdr)(unsafe.Pointer(&b[begin]))
	*header = unix.NlMsghdr{Len: uint32(len(b) - begin), Type: kind, Flags: unix.NLM_F_REQUEST | flags, Seq: s.sequence}
	return b
}

func (s *socket) send(b []byte) error {
	return unix.Sendto(s.fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
}

// dump asks for objects of a family and calls yield for each. What it is given is
// valid only while it is looked at. It fails with [ErrInterrupted] where the answer
// is not one picture.
func (s *socket) dump(family byte, kind uint16, yield func(attributes), about ...attribute) error {
	request := s.message(nil, unix.NFNL_SUBSYS_NFTABLES<<8|kind, unix.NLM_F_DUMP, family, 0, about...)
	if err := s.send(request); err != nil {
		return fmt.Errorf("asking nftables: %w", err)
	}
	interrupted := false
	for {
		ended := false
		err := s.receive(func(h *unix.NlMsghdr, payload []byte) error {
			if h.Seq != s.sequence {
				return nil
			}
			interrupted = interrupted || h.Flags&unix.NLM_F_DUMP_INTR != 0
			switch h.Type {
			case unix.NLMSG_ERROR, unix.NLMSG_DONE:
				ended = true
				return errorIn(h, payload)
			}
			if len(payload) >= generic {
				yield(parse(payload[generic:]))
			}
			return nil
		})
		switch {
		case errors.Is(err, unix.EINTR) || err == nil && ended && interrupted:
			return ErrInterrupted
		case err != nil:
			return fmt.Errorf("reading nftables: %w", err)
		case ended:
			return nil
		}
	}
}

// receive reads one datagram of the kernel's and calls yield for each message in it.
func (s *socket) receive(yield func(h *unix.NlMsghdr, payload []byte) error) error {
	n, from, err := unix.Recvfrom(s.fd, s.buffer, 0)
	for errors.Is(err, unix.EINTR) {
		n, from, err = unix.Recvfrom(s.fd, s.buffer, 0)
	}
	if err != nil {
		return err
	}
	if a, is := from.(*unix.SockaddrNetlink); is && a.Pid != 0 {
		return nil // somebody else's
	}
	for rest := s.buffer[:n]; len(rest) >= unix.SizeofNlMsghdr; {
		h := (*unix.NlMsghdr)(unsafe.Pointer(&rest[0]))
		if int(h.Len) < unix.SizeofNlMsghdr || int(h.Len) > len(rest) {
			return fmt.Errorf("a message of %d bytes in %d", h.Len, len(rest))
		}
		if err := yield(h, rest[unix.SizeofNlMsghdr:h.Len]); err != nil {
			return err
		}
		rest = rest[min(aligned(int(h.Len)), len(rest)):]
	}
	return nil
}

// errorIn reads the error out of an acknowledgement or the end of a dump, with the
// kernel's words where it has some (struct nlmsgerr and its attributes).
func errorIn(h *unix.NlMsghdr, payload []byte) error {
	const errorSize, words = 4, 1 // NLMSGERR_ATTR_MSG
	if len(payload) < errorSize {
		return nil
	}
	number := int32(binary.NativeEndian.Uint32(payload))
	if number == 0 {
		return nil
	}
	err := error(unix.Errno(-number))
	rest := payload[errorSize:]
	if h.Flags&unix.NLM_F_ACK_TLVS == 0 || len(rest) < unix.SizeofNlMsghdr {
		return err
	}
	// The request's header comes back, and the request itself unless capped.
	echoed := unix.SizeofNlMsghdr
	if h.Flags&unix.NLM_F_CAPPED == 0 {
		echoed = aligned(int(binary.NativeEndian.Uint32(rest)))
	}
	if echoed > len(rest) {
		return err
	}
	if a := parse(rest[echoed:]); a.has(words) {
		return fmt.Errorf("%w: %s", err, a.text(words))
	}
	return err
}
