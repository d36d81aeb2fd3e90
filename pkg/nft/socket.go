package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Conn is a netlink socket to nftables, in the network namespace in which it was
// opened. It is read piece by piece: a table of a large cluster has hundreds of
// thousands of elements. It belongs to one goroutine.
type Conn struct {
	fd       int
	port     uint32 // by which notifications tell whose transaction they are about
	sequence uint32
	buffer   []byte
	buffered int // bytes that the socket takes at once, as far as was asked for
}

// answerTimeout bounds the wait for one answer. The kernel answers within the call
// that asks; a removal takes some tens of milliseconds.
const answerTimeout = 20 * time.Second

// ErrInterrupted says that somebody wrote while a table was read.
var ErrInterrupted = errors.New("nftables changed while it was read")

// receiveBytes holds the largest piece of a dump.
const receiveBytes = 64 << 10

// Open opens a socket in the network namespace of the calling thread.
func Open() (*Conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("opening nftables: %w", err)
	}
	c := &Conn{fd: fd, buffer: make([]byte, receiveBytes)}
	timeout := unix.NsecToTimeval(answerTimeout.Nanoseconds())
	err = errors.Join(
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout),
		unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}),
	)
	// The kernel says in words what it does not like.
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_EXT_ACK, 1)
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1)
	if name, e := unix.Getsockname(fd); e == nil {
		c.port = name.(*unix.SockaddrNetlink).Pid
	} else {
		err = errors.Join(err, e)
	}
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("opening nftables: %w", err)
	}
	return c, nil
}

// Close closes the socket. Where it has deleted elements or chains the kernel waits in
// the background until no packet can be using them, and a closing waits for that: some
// tens of milliseconds.
func (c *Conn) Close() { _ = unix.Close(c.fd) }

// generic is struct nfgenmsg, which comes before the attributes.
const generic = 4

// message appends a message about an object of a family to b.
func message(b []byte, kind, flags uint16, family byte, resource uint16, sequence uint32, about ...attribute) []byte {
	begin := len(b)
	b = append(b, make([]byte, unix.SizeofNlMsghdr)...)
	b = append(b, family, unix.NFNETLINK_V0)
	b = binary.BigEndian.AppendUint16(b, resource)
	for _, a := range about {
		b = a.append(b)
	}
	header := (*unix.NlMsghdr)(unsafe.Pointer(&b[begin]))
	*header = unix.NlMsghdr{Len: uint32(len(b) - begin), Type: kind, Flags: unix.NLM_F_REQUEST | flags, Seq: sequence}
	return b
}

func (c *Conn) send(b []byte) error {
	return unix.Sendto(c.fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
}

// dump asks for objects of a family and calls yield for each. What it is given is
// valid only while it is looked at. It fails with [ErrInterrupted] where the answer
// is not one picture.
func (c *Conn) dump(family byte, kind uint16, yield func(attributes), about ...attribute) error {
	c.sequence++
	request := message(nil, unix.NFNL_SUBSYS_NFTABLES<<8|kind, unix.NLM_F_DUMP, family, 0, c.sequence, about...)
	if err := c.send(request); err != nil {
		return fmt.Errorf("asking nftables: %w", err)
	}
	interrupted := false
	for {
		ended := false
		err := c.receive(0, func(h *unix.NlMsghdr, payload []byte) error {
			if h.Seq != c.sequence {
				return nil
			}
			interrupted = interrupted || h.Flags&unix.NLM_F_DUMP_INTR != 0
			switch h.Type {
			case unix.NLMSG_ERROR, unix.NLMSG_DONE:
				ended = true
				_, err := errorIn(h, payload)
				return err
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

// get asks for one object. The error is that of netlink: [unix.ENOENT] where there is
// none.
func (c *Conn) get(family byte, kind uint16, about ...attribute) (found attributes, err error) {
	c.sequence++
	if err := c.send(message(nil, unix.NFNL_SUBSYS_NFTABLES<<8|kind, 0, family, 0, c.sequence, about...)); err != nil {
		return found, err
	}
	for answered := false; !answered; {
		err := c.receive(0, func(h *unix.NlMsghdr, payload []byte) error {
			if h.Seq != c.sequence {
				return nil
			}
			answered = true
			if h.Type == unix.NLMSG_ERROR {
				_, err := errorIn(h, payload)
				return err
			}
			found = parse(payload[min(generic, len(payload)):])
			return nil
		})
		if err != nil {
			return found, err
		}
	}
	return found, nil
}

// receive reads one datagram of the kernel's and calls yield for each message in it.
func (c *Conn) receive(flags int, yield func(h *unix.NlMsghdr, payload []byte) error) error {
	n, from, err := unix.Recvfrom(c.fd, c.buffer, flags)
	for errors.Is(err, unix.EINTR) {
		n, from, err = unix.Recvfrom(c.fd, c.buffer, flags)
	}
	if err != nil {
		return err
	}
	if a, is := from.(*unix.SockaddrNetlink); is && a.Pid != 0 {
		return nil // somebody else's
	}
	for rest := c.buffer[:n]; len(rest) >= unix.SizeofNlMsghdr; {
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
// kernel's words where it has some, and where in the request the attribute is that it
// is about; 0 where it says none (struct nlmsgerr and its attributes).
func errorIn(h *unix.NlMsghdr, payload []byte) (at int, err error) {
	const errorSize, words, offset = 4, 1, 2 // NLMSGERR_ATTR_MSG, NLMSGERR_ATTR_OFFS
	if len(payload) < errorSize {
		return 0, nil
	}
	code := int32(binary.NativeEndian.Uint32(payload))
	if code == 0 {
		return 0, nil
	}
	err = unix.Errno(-code)
	rest := payload[errorSize:]
	if h.Flags&unix.NLM_F_ACK_TLVS == 0 || len(rest) < unix.SizeofNlMsghdr {
		return 0, err
	}
	// The request's header comes back, and the request itself unless capped.
	echoed := unix.SizeofNlMsghdr
	if h.Flags&unix.NLM_F_CAPPED == 0 {
		echoed = aligned(int(binary.NativeEndian.Uint32(rest)))
	}
	if echoed > len(rest) {
		return 0, err
	}
	a := parse(rest[echoed:])
	if len(a[offset]) >= 4 {
		at = int(binary.NativeEndian.Uint32(a[offset]))
	}
	if a.has(words) {
		err = fmt.Errorf("%w: %s", err, a.text(words))
	}
	return at, err
}
