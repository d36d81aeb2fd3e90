package netlink

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// attribute encodes an attribute, with its padding.
func attribute(kind uint16, value string) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(AttributeHeader+len(value)))
	b = append(binary.NativeEndian.AppendUint16(b, kind), value...)
	return append(b, make([]byte, Align(len(b))-len(b))...)
}

func TestAttributes(t *testing.T) {
	two := slices.Concat(attribute(1, "abcde"), attribute(0x8002, "f"))
	for name, c := range map[string]struct {
		raw  []byte
		want string
	}{
		"none":              {nil, ""},
		"two, one nested":   {two, "1 abcde;2 f;"},
		"without padding":   {two[:len(two)-3], "1 abcde;2 f;"},
		"empty":             {attribute(3, ""), "3 ;"},
		"the last cut off":  {two[:len(two)-4], "1 abcde;"},
		"half a header":     {two[:14], "1 abcde;"},
		"shorter than none": {[]byte{3, 0, 1, 0}, ""},
	} {
		got := ""
		for kind, value := range Attributes(c.raw) {
			got += fmt.Sprintf("%d %s;", kind, value)
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestStatus(t *testing.T) {
	number := func(n uint32) []byte { return binary.NativeEndian.AppendUint32(nil, n) }
	var refused = -int32(unix.EEXIST)
	request := func(length int) []byte { // the header, and what follows of it
		return append(number(uint32(length)), make([]byte, length-4)...)
	}
	said := slices.Concat(attribute(1, "it is there\x00"), attribute(2, string(number(20))))
	const capped, words = unix.NLM_F_CAPPED, unix.NLM_F_ACK_TLVS
	for name, c := range map[string]struct {
		flags   uint16
		payload []byte
		want    string
	}{
		"done":                     {0, number(0), "0 <nil>"},
		"the end of an old dump":   {0, nil, "0 <nil>"},
		"refused":                  {0, number(uint32(refused)), "0 file exists"},
		"refused, in words":        {capped | words, slices.Concat(number(uint32(refused)), request(16), said), "20 file exists: it is there"},
		"behind the whole request": {words, slices.Concat(number(uint32(refused)), request(26), make([]byte, 2), said), "20 file exists: it is there"},
		"the request is cut off":   {words, slices.Concat(number(uint32(refused)), request(40)[:20]), "0 file exists"},
		"words that are not told":  {capped, slices.Concat(number(uint32(refused)), request(16), said), "0 file exists"},
	} {
		at, err := Status(&unix.NlMsghdr{Flags: c.flags}, c.payload)
		if got := fmt.Sprint(at, " ", err); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
		if err != nil && !errors.Is(err, unix.EEXIST) {
			t.Errorf("%s: %v is not EEXIST", name, err)
		}
	}
}

// A message that says it is longer than what came is an error, and none of what
// follows is taken for one.
func TestCutOffMessage(t *testing.T) {
	message := func(says uint32) []byte {
		return append(binary.NativeEndian.AppendUint32(nil, says), make([]byte, unix.SizeofNlMsghdr)...)
	}
	for _, says := range []uint32{15, 21, 1 << 31} {
		seen := 0
		err := each(slices.Concat(message(20), message(says)), func(*unix.NlMsghdr, []byte) error { seen++; return nil })
		want := fmt.Sprintf("kernel sent a netlink message of %d bytes in 20", says)
		if seen != 1 || err == nil || err.Error() != want {
			t.Errorf("%d messages and error %v; want one, and %s", seen, err, want)
		}
	}
}
