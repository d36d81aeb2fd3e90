package apiwatch

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Wire types of protobuf, https://protobuf.dev/programming-guides/encoding.
const (
	wireVarint = 0
	wire64     = 1
	wireBytes  = 2
	wire32     = 5
)

// errMalformed says that something is no protobuf message, or is cut short.
var errMalformed = errors.New("malformed protobuf")

// field is a field of a message, as it is on the wire.
type field struct {
	number int
	value  uint64 // of a number, or a truth
	bytes  []byte // of a string, a list's element or a message; part of what is read from
}

// fields calls do with each field of a message. Whoever does not look into a field
// has it skipped for the price of reading its length.
func fields(message []byte, do func(field) error) error {
	for len(message) > 0 {
		tag, n := binary.Uvarint(message)
		if n <= 0 {
			return errMalformed
		}
		message = message[n:]
		f := field{number: int(tag >> 3)}
		switch tag & 7 {
		case wireVarint:
			if f.value, n = binary.Uvarint(message); n <= 0 {
				return errMalformed
			}
		case wireBytes:
			size, head := binary.Uvarint(message)
			if head <= 0 || size > uint64(len(message)-head) {
				return errMalformed
			}
			n = head + int(size)
			f.bytes = message[head:n:n]
		case wire64:
			n = 8
		case wire32:
			n = 4
		default:
			return errMalformed
		}
		if n > len(message) {
			return errMalformed
		}
		message = message[n:]
		if err := do(f); err != nil {
			return err
		}
	}
	return nil
}

// stream reads a message that is too large to be in memory as a whole.
type stream struct {
	*bufio.Reader
	buffer []byte // of the field read last
}

// next returns the number and the size of the next field that has bytes, at which the
// stream then is; others are skipped. It is io.EOF where the message ends.
func (s *stream) next() (number int, size uint64, err error) {
	for {
		if _, err := s.Peek(1); err != nil {
			return 0, 0, err
		}
		tag, err := binary.ReadUvarint(s)
		if err != nil {
			return 0, 0, cut(err)
		}
		switch tag & 7 {
		case wireVarint:
			_, err = binary.ReadUvarint(s)
		case wireBytes:
			size, err = binary.ReadUvarint(s)
			return int(tag >> 3), size, cut(err)
		case wire64:
			_, err = s.Discard(8)
		case wire32:
			_, err = s.Discard(4)
		default:
			err = errMalformed
		}
		if err != nil {
			return 0, 0, cut(err)
		}
	}
}

// largestObject is more than etcd takes, in bytes.
const largestObject = 16 << 20

// read returns the next bytes, which are good until the next call.
func (s *stream) read(size uint64) ([]byte, error) {
	if size > largestObject {
		return nil, fmt.Errorf("%w: an object of %d bytes", errMalformed, size)
	}
	if uint64(cap(s.buffer)) < size {
		s.buffer = make([]byte, size, size+size/4)
	}
	s.buffer = s.buffer[:size]
	_, err := io.ReadFull(s, s.buffer)
	return s.buffer, cut(err)
}

// skip leaves out the next bytes.
func (s *stream) skip(size uint64) error {
	_, err := io.CopyN(io.Discard, s, int64(min(size, 1<<62)))
	return cut(err)
}

// cut makes an end within something an unexpected one.
func cut(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
