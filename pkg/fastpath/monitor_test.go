package fastpath

import (
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"
)

// neighbourMessage is a notification about a neighbour, or an entry of a forwarding database.
func neighbourMessage(family byte, link int32, attributes map[uint16][]byte) []byte {
	message := make([]byte, 12)
	message[0] = family
	binary.NativeEndian.PutUint32(message[4:], uint32(link))
	for kind, value := range attributes {
		message = binary.NativeEndian.AppendUint16(message, uint16(4+len(value)))
		message = binary.NativeEndian.AppendUint16(message, kind)
		message = append(message, value...)
		message = append(message, make([]byte, -len(value)&3)...)
	}
	return message
}

// All is decided anew where packets to a neighbour go to another MAC address, and where
// those of an overlay go to another node; and not where an entry was only in use, nor for
// what a bridge learns.
func TestNeighbours(t *testing.T) {
	m := &Monitor{neighbours: map[neighbour]string{}}
	address := map[uint16][]byte{unix.NDA_DST: {10, 0, 0, 1}, unix.NDA_LLADDR: {2, 0, 0, 0, 0, 1}}
	moved := map[uint16][]byte{unix.NDA_DST: {10, 0, 0, 1}, unix.NDA_LLADDR: {2, 0, 0, 0, 0, 2}}
	learned := map[uint16][]byte{unix.NDA_LLADDR: {2, 0, 0, 0, 0, 1}}
	for _, c := range []struct {
		what    string
		message []byte
		deleted bool
		raise   bool
	}{
		{"new", neighbourMessage(unix.AF_INET, 1, address), false, true},
		{"in use", neighbourMessage(unix.AF_INET, 1, address), false, false},
		{"on another interface", neighbourMessage(unix.AF_INET, 2, address), false, true},
		{"another MAC address", neighbourMessage(unix.AF_INET, 1, moved), false, true},
		{"gone", neighbourMessage(unix.AF_INET, 1, moved), true, true},
		{"gone already", neighbourMessage(unix.AF_INET, 1, moved), true, false},
		{"a bridge's", neighbourMessage(unix.AF_BRIDGE, 1, learned), false, false},
		{"an overlay's", neighbourMessage(unix.AF_BRIDGE, 1, address), false, true},
		{"an overlay's, gone", neighbourMessage(unix.AF_BRIDGE, 1, address), true, true},
		{"truncated", neighbourMessage(unix.AF_INET, 1, nil)[:8], false, false},
	} {
		if got := m.neighbour(c.message, c.deleted); got != c.raise {
			t.Errorf("%s: decided anew %t", c.what, got)
		}
	}
}
