package requirements

import (
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"
)

// sizeofGenericMessage is that of struct nfgenmsg.
const sizeofGenericMessage = 4

// socket is a netlink socket for questions that the kernel answers within the
// call that sends them.
type socket struct {
	fd       int
	sequence uint32
}

func open(protocol int) (*socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
	return &socket{fd: fd}, err
}

func (s *socket) close() { _ = unix.Close(s.fd) }

// message encodes one, with a number of its own.
func (s *socket) message(kind, flags uint16, body []byte) []byte {
	s.sequence++
	m := make([]byte, unix.SizeofNlMsghdr, unix.SizeofNlMsghdr+len(body))
	binary.NativeEndian.PutUint32(m, uint32(unix.SizeofNlMsghdr+len(body)))
	binary.NativeEndian.PutUint16(m[4:], kind)
	binary.NativeEndian.PutUint16(m[6:], flags|unix.NLM_F_REQUEST)
	binary.NativeEndian.PutUint32(m[8:], s.sequence)
	return append(m, padded(body)...)
}

// execute sends one message, and returns the error that it is answered with.
func (s *socket) execute(kind, flags uint16, body []byte) error {
	answers, err := s.send(s.message(kind, flags, body))
	if err != nil {
		return err
	}
	return answers[s.sequence]
}

// send sends messages, and returns the errors by their number.
func (s *socket) send(messages []byte) (map[uint32]error, error) {
	if err := unix.Sendto(s.fd, messages, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, err
	}
	answers := map[uint32]error{}
	buffer := make([]byte, 32<<10)
	for {
		n, _, err := unix.Recvfrom(s.fd, buffer, unix.MSG_DONTWAIT)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return answers, nil
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return nil, err
		}
		readErrors(buffer[:n], answers)
	}
}

// readErrors notes the errors among messages (struct nlmsgerr); an
// acknowledgement is an error of number 0.
func readErrors(raw []byte, answers map[uint32]error) {
	for len(raw) >= unix.SizeofNlMsghdr {
		length := int(binary.NativeEndian.Uint32(raw))
		if length < unix.SizeofNlMsghdr || length > len(raw) {
			return
		}
		const sizeofNumber = 4
		if binary.NativeEndian.Uint16(raw[4:]) == unix.NLMSG_ERROR && length >= unix.SizeofNlMsghdr+sizeofNumber {
			if number := int32(binary.NativeEndian.Uint32(raw[unix.SizeofNlMsghdr:])); number != 0 {
				answers[binary.NativeEndian.Uint32(raw[8:])] = unix.Errno(-number)
			}
		}
		raw = raw[min(aligned(length), len(raw)):]
	}
}

// attribute encodes one; its value may be other attributes.
func attribute(kind uint16, value []byte) []byte {
	a := make([]byte, unix.SizeofNlAttr, unix.SizeofNlAttr+len(value))
	binary.NativeEndian.PutUint16(a, uint16(unix.SizeofNlAttr+len(value)))
	binary.NativeEndian.PutUint16(a[2:], kind)
	return append(a, padded(value)...)
}

func nested(kind uint16, values ...[]byte) []byte {
	var all []byte
	for _, v := range values {
		all = append(all, v...)
	}
	return attribute(kind|unix.NLA_F_NESTED, all)
}

func text(kind uint16, value string) []byte { return attribute(kind, append([]byte(value), 0)) }

func number(kind uint16, value uint32) []byte {
	return attribute(kind, binary.BigEndian.AppendUint32(nil, value))
}

func padded(raw []byte) []byte {
	return append(raw[:len(raw):len(raw)], make([]byte, aligned(len(raw))-len(raw))...)
}

func aligned(length int) int { return (length + unix.NLMSG_ALIGNTO - 1) &^ (unix.NLMSG_ALIGNTO - 1) }
