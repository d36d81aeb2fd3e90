package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/pkg/netlink"
)

// Conn is a netlink socket to nftables, in the network namespace in which it was
// opened. It is read piece by piece: a table of a large cluster has hundreds of
// thousands of elements. It belongs to one goroutine.
type Conn struct {
	socket   *netlink.Socket
	buffered int // bytes that the socket takes at once, as far as was asked for
}

// ErrInterrupted says that somebody wrote while a table was read.
var ErrInterrupted = errors.New("nftables changed while it was read")

// Steadily calls read, which begins anew each time, until nobody has written while it
// read. It gives up after so many times, of some microseconds each, with [ErrInterrupted]:
// where pods come by the dozen somebody may always be writing.
func Steadily(times int, read func() error) (err error) {
	for range times {
		if err = read(); !errors.Is(err, ErrInterrupted) {
			break
		}
	}
	return err
}

// receiveBytes holds the largest piece of a dump.
const receiveBytes = 64 << 10

// Open opens a socket in the network namespace of the calling thread.
func Open() (*Conn, error) {
	s, err := netlink.Open(unix.NETLINK_NETFILTER, receiveBytes)
	if err != nil {
		return nil, fmt.Errorf("opening nftables: %w", err)
	}
	return &Conn{socket: s}, nil
}

// Close closes the socket. Where it has deleted elements or chains the kernel waits in
// the background until no packet can be using them, and a closing waits for that: some
// tens of milliseconds.
func (c *Conn) Close() { c.socket.Close() }

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

// dump asks for objects of a family and calls yield for each. What it is given is
// valid only while it is looked at. It fails with [ErrInterrupted] where the answer
// is not one picture.
func (c *Conn) dump(family byte, kind uint16, yield func(attributes), about ...attribute) error {
	c.socket.Sequence++
	request := message(nil, unix.NFNL_SUBSYS_NFTABLES<<8|kind, unix.NLM_F_DUMP, family, 0, c.socket.Sequence, about...)
	if err := c.socket.Send(request); err != nil {
		return fmt.Errorf("asking nftables: %w", err)
	}
	interrupted := false
	for {
		ended := false
		err := c.socket.Receive(0, func(h *unix.NlMsghdr, payload []byte) error {
			if h.Seq != c.socket.Sequence {
				return nil
			}
			interrupted = interrupted || h.Flags&unix.NLM_F_DUMP_INTR != 0
			switch h.Type {
			case unix.NLMSG_ERROR, unix.NLMSG_DONE:
				ended = true
				_, err := netlink.Status(h, payload)
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
	c.socket.Sequence++
	if err := c.socket.Send(message(nil, unix.NFNL_SUBSYS_NFTABLES<<8|kind, 0, family, 0, c.socket.Sequence, about...)); err != nil {
		return found, err
	}
	for answered := false; !answered; {
		err := c.socket.Receive(0, func(h *unix.NlMsghdr, payload []byte) error {
			if h.Seq != c.socket.Sequence {
				return nil
			}
			answered = true
			if h.Type == unix.NLMSG_ERROR {
				_, err := netlink.Status(h, payload)
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
