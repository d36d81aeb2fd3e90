package service

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/pkg/kernel"
)

// found is one table as the kernel has it, without elements.
type found struct {
	exists  bool
	dormant bool // switched off, which never is ours
	chains  map[string]foundChain
	sets    map[string]foundSet
}

// foundChain is a chain with what its rules are, in the kernel's words.
type foundChain struct {
	hook     string // empty where it is no base chain
	priority int
	kind     string // nat, filter, route
	drops    bool   // by policy, which never is ours
	rules    [sha256.Size]byte
}

// foundSet is a set without elements.
type foundSet struct {
	isMap, interval, timeout bool
	keyLength, valueLength   uint32 // in bytes; that of a verdict says nothing
}

// foundElement is an element as the kernel has it.
type foundElement struct {
	key, end []byte // valid only while it is looked at
	value    []byte
	verdict  string // where the value is one
	comment  []byte
	last     bool // the end of an interval
}

// tables reads what the kernel has. Equivalent to: `nft list table ip flatnet-services`.
type tables struct{}

// Numbers of linux/netfilter/nf_tables.h.
const (
	messageGetTable   = 1
	messageGetChain   = 4
	messageGetRule    = 7
	messageGetSet     = 10
	messageGetElement = 13

	tableFlagDormant = 0x1

	setFlagInterval = 0x4
	setFlagMap      = 0x8
	setFlagTimeout  = 0x10

	elementFlagEnd = 0x1

	verdictDropCode = 0
	verdictGoto     = -4
	verdictJump     = -3
)

var hookNames = map[uint32]string{0: "prerouting", 1: "input", 2: "forward", 3: "output", 4: "postrouting"}

func (f family) number() byte {
	if f == ipv6 {
		return unix.NFPROTO_IPV6
	}
	return unix.NFPROTO_IPV4
}

// read returns a table of the caller's network namespace.
func (tables) read(f family) (found, error) {
	s, err := openNetfilter()
	if err != nil {
		return found{}, err
	}
	defer s.close()
	var t found
	err = s.dump(f, messageGetTable, nil, func(a *attributes) error {
		if a.text(1) == TableName {
			t.exists, t.dormant = true, a.number(2)&tableFlagDormant != 0
		}
		return nil
	})
	if err != nil || !t.exists {
		return t, err
	}
	t.chains, t.sets = map[string]foundChain{}, map[string]foundSet{}
	err = s.dump(f, messageGetChain, nil, func(a *attributes) error {
		if a.text(1) != TableName {
			return nil
		}
		c := foundChain{kind: a.text(7), drops: a.number(5) == 0 && a.has(5)}
		if a.has(4) {
			hook := a.nested(4)
			c.hook, c.priority = hookNames[hook.number(1)], int(int32(hook.number(2)))
		}
		t.chains[a.text(3)] = c
		return nil
	})
	if err != nil {
		return t, err
	}
	rules := map[string][]byte{}
	err = s.dump(f, messageGetRule, attribute(1, text(TableName)), func(a *attributes) error {
		if a.text(1) == TableName {
			name := a.text(2)
			sum := sha256.Sum256(append(rules[name], a.raw(4)...))
			rules[name] = sum[:]
		}
		return nil
	})
	if err != nil {
		return t, err
	}
	for name, c := range t.chains {
		copy(c.rules[:], rules[name])
		t.chains[name] = c
	}
	err = s.dump(f, messageGetSet, attribute(1, text(TableName)), func(a *attributes) error {
		if a.text(1) == TableName {
			flags := a.number(3)
			t.sets[a.text(2)] = foundSet{
				isMap: flags&setFlagMap != 0, interval: flags&setFlagInterval != 0, timeout: flags&setFlagTimeout != 0,
				keyLength: a.number(5), valueLength: a.number(7),
			}
		}
		return nil
	})
	return t, err
}

// elements calls yield for every element of a set.
func (tables) elements(f family, id setID, yield func(foundElement)) error {
	s, err := openNetfilter()
	if err != nil {
		return err
	}
	defer s.close()
	about := append(attribute(1, text(TableName)), attribute(2, text(id.schema().name))...)
	return s.dump(f, messageGetElement, about, func(a *attributes) error {
		for _, raw := range kernel.NetlinkAttributes(a.raw(3)) {
			e := parseAttributes(raw)
			begin, end := e.nested(1), e.nested(10)
			one := foundElement{key: begin.raw(1), end: end.raw(1), comment: commentOf(e.raw(6)), last: e.number(3)&elementFlagEnd != 0}
			if e.has(2) {
				data := e.nested(2)
				one.value = data.raw(1)
				if data.has(2) {
					v := data.nested(2)
					one.verdict = verdictText(int32(v.number(1)), v.text(2))
				}
			}
			yield(one)
		}
		return nil
	})
}

// commentOf finds the comment in what nft notes for itself: pieces with a type, a
// length and, the comment's type being 0, a text that ends with a zero.
func commentOf(notes []byte) []byte {
	const comment = 0
	for len(notes) >= 2 {
		length := int(notes[1])
		if len(notes) < 2+length {
			return nil
		}
		if notes[0] == comment && length > 0 {
			return notes[2 : 2+length-1]
		}
		notes = notes[2+length:]
	}
	return nil
}

func verdictText(code int32, chain string) string {
	switch code {
	case verdictGoto:
		return "goto " + chain
	case verdictJump:
		return "jump " + chain
	case verdictDropCode:
		return "drop"
	}
	return fmt.Sprintf("verdict %d %s", code, chain)
}

// decode returns the key and value of an element. It is false for one that is
// not of the set's shape.
func (id setID) decode(f family, e foundElement) (k key, v value, ok bool) {
	shape := id.schema().shape
	rest := e.key
	field := func(size int) []byte {
		padded := (size + 3) &^ 3
		if len(rest) < padded {
			return nil
		}
		part := rest[:size]
		rest = rest[padded:]
		return part
	}
	addr := func() netip.Addr {
		a, _ := netip.AddrFromSlice(field(f.bytes()))
		return a
	}
	port := func() uint16 {
		if p := field(2); p != nil {
			return binary.BigEndian.Uint16(p)
		}
		return 0
	}
	host := func() uint32 {
		if p := field(4); p != nil {
			return binary.NativeEndian.Uint32(p)
		}
		return 0
	}
	wanted := len(e.key)
	switch shape {
	case shapeFront:
		k.front.Address = addr()
		if p := field(1); p != nil {
			k.front.Protocol = Protocol(p[0])
		}
		k.front.Port = port()
		wanted = f.bytes() + 8
	case shapeSource:
		k.front.Address, k.front.Protocol, k.front.Port = addr(), id.schema().protocol, port()
		begin := addr()
		if len(e.end) != len(e.key) {
			return k, v, false
		}
		end, _ := netip.AddrFromSlice(e.end[len(e.end)-f.bytes():])
		if k.prefix, ok = prefixBetween(begin, end); !ok {
			return k, v, false
		}
		wanted = 2*f.bytes() + 4
	case shapeMark:
		k.index = host()
		k.front.Address = f.zero()
		wanted = 4
	case shapeAddress, shapeTwice:
		k.front.Address = addr()
		wanted = f.bytes()
		if shape == shapeTwice {
			wanted *= 2
			if addr() != k.front.Address {
				return k, v, false
			}
		}
	case shapeEndpoint:
		k.front.Address, k.front.Protocol, k.front.Port = addr(), id.schema().protocol, port()
		k.index = host()
		wanted = f.bytes() + 8
	case shapeAffinity:
		k.front.Address = addr()
		k.index = host()
		wanted = f.bytes() + 4
	}
	if len(e.key) != wanted {
		return k, v, false
	}
	rest = e.value
	switch {
	case e.verdict != "":
		v.verdict = e.verdict
	case id == setIDs:
		v.mark = host()
	case shape == shapeEndpoint || shape == shapeAffinity:
		a := addr()
		v.at = netip.AddrPortFrom(a, port())
	}
	return k, v, true
}

func (f family) bytes() int { return [...]int{4, 16}[f] }

// prefixBetween returns the prefix that begins and ends with two addresses.
func prefixBetween(first, last netip.Addr) (netip.Prefix, bool) {
	for bits := range first.BitLen() + 1 {
		p := netip.PrefixFrom(first, bits)
		if p.Masked() == p && lastOf(p) == last {
			return p, true
		}
	}
	return netip.Prefix{}, false
}

// lastOf returns a prefix's last address.
func lastOf(p netip.Prefix) netip.Addr {
	raw := p.Addr().AsSlice()
	for i := p.Bits(); i < p.Addr().BitLen(); i++ {
		raw[i/8] |= 1 << (7 - i%8)
	}
	a, _ := netip.AddrFromSlice(raw)
	return a
}

// netfilter is a netlink socket that is read piece by piece: a table of a large
// cluster has a hundred thousand elements.
type netfilter struct {
	fd       int
	sequence uint32
	buffer   []byte
}

// answerTimeout bounds the wait for one piece.
const answerTimeout = 20 * time.Second

func openNetfilter() (*netfilter, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("opening netlink socket: %w", err)
	}
	timeout := unix.NsecToTimeval(answerTimeout.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("opening netlink socket: %w", err)
	}
	return &netfilter{fd: fd, buffer: make([]byte, 64<<10)}, nil
}

func (s *netfilter) close() { _ = unix.Close(s.fd) }

// errInterrupted says that somebody wrote while a dump was read.
var errInterrupted = errors.New("nftables changed while it was read")

// dump asks for objects and calls yield for each. One that was interrupted fails
// with errInterrupted.
func (s *netfilter) dump(f family, message uint16, about []byte, yield func(*attributes) error) error {
	s.sequence++
	request := make([]byte, unix.SizeofNlMsghdr+4, unix.SizeofNlMsghdr+4+len(about))
	request[unix.SizeofNlMsghdr] = f.number()
	request = append(request, about...)
	header := (*unix.NlMsghdr)(unsafe.Pointer(&request[0]))
	*header = unix.NlMsghdr{
		Len: uint32(len(request)), Type: unix.NFNL_SUBSYS_NFTABLES<<8 | message,
		Flags: unix.NLM_F_REQUEST | unix.NLM_F_DUMP, Seq: s.sequence,
	}
	if err := unix.Sendto(s.fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("asking nftables: %w", err)
	}
	interrupted := false
	for {
		n, _, err := unix.Recvfrom(s.fd, s.buffer, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("reading nftables: %w", err)
		}
		for rest := s.buffer[:n]; len(rest) >= unix.SizeofNlMsghdr; {
			h := (*unix.NlMsghdr)(unsafe.Pointer(&rest[0]))
			if int(h.Len) < unix.SizeofNlMsghdr || int(h.Len) > len(rest) {
				return fmt.Errorf("reading nftables: a message of %d bytes in %d", h.Len, len(rest))
			}
			payload := rest[unix.SizeofNlMsghdr:h.Len]
			rest = rest[min(int(h.Len+3)&^3, len(rest)):]
			if h.Seq != s.sequence {
				continue
			}
			interrupted = interrupted || h.Flags&unix.NLM_F_DUMP_INTR != 0
			switch h.Type {
			case unix.NLMSG_ERROR, unix.NLMSG_DONE:
				if len(payload) >= 4 {
					if number := int32(binary.NativeEndian.Uint32(payload)); number != 0 {
						if unix.Errno(-number) == unix.EINTR {
							return errInterrupted
						}
						return fmt.Errorf("reading nftables: %w", unix.Errno(-number))
					}
				}
				if interrupted {
					return errInterrupted
				}
				return nil
			}
			if len(payload) < 4 {
				continue
			}
			a := parseAttributes(payload[4:])
			if err := yield(&a); err != nil {
				return err
			}
		}
	}
}

// attributes are netlink attributes, by type; none that matters here is beyond.
type attributes [16][]byte

func parseAttributes(raw []byte) (a attributes) {
	for kind, value := range kernel.NetlinkAttributes(raw) {
		if int(kind) < len(a) {
			a[kind] = value
		}
	}
	return a
}

func (a *attributes) has(kind uint16) bool { return a[kind] != nil }

func (a *attributes) raw(kind uint16) []byte { return a[kind] }

func (a *attributes) text(kind uint16) string { return unix.ByteSliceToString(a[kind]) }

func (a *attributes) number(kind uint16) uint32 {
	if len(a[kind]) < 4 {
		return 0
	}
	return binary.BigEndian.Uint32(a[kind])
}

// nested returns the attributes inside of one; none where it is not there.
func (a *attributes) nested(kind uint16) attributes { return parseAttributes(a[kind]) }

// attribute is one netlink attribute of a request.
func attribute(kind uint16, value []byte) []byte {
	raw := make([]byte, 4, 4+len(value)+3)
	binary.NativeEndian.PutUint16(raw, uint16(4+len(value)))
	binary.NativeEndian.PutUint16(raw[2:], kind)
	raw = append(raw, value...)
	for len(raw)%4 != 0 {
		raw = append(raw, 0)
	}
	return raw
}

func text(s string) []byte { return append([]byte(s), 0) }
