package fastpath

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/cilium/ebpf/features"

	"github.com/flatnet-cni/flatnet/pkg/kernel"
)

// The overlay of these tests is on the loopback, as everything is.
var testOverlay = overlay{
	index: loopback, mac: kernel.MAC{2, 0, 0, 0, 0, 7}, vni: 70, address: netip.MustParseAddr("172.30.0.1"),
	firstPort: 40000, ports: 1000,
}

const (
	testPort      = 4789
	outerOverhead = 50
	otherNode     = 9 // the last byte of its addresses
)

func overlayStage(t *testing.T) *stage {
	t.Helper()
	s := newStage(t)
	testOverlay.tell(&s.settings)
	s.settings.Tunnel = binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, testPort))
	s.inForce(true)
	return s
}

// wrappedPacket is one of the overlay between this node and the other one.
type wrappedPacket struct {
	inner    packet
	arriving bool // else it leaves
	port     uint16
	tos      byte
	// What is changed of a right one, behind the headers' checksum.
	change func(raw []byte)
}

// bytes are those of the packet; the inner one's MAC addresses are the nodes'.
func (w wrappedPacket) bytes() []byte {
	inner := w.inner.bytes()
	own, other := testOverlay.mac[:], []byte{2, 0, 0, 0, 0, otherNode}
	from, to := []byte{172, 30, 0, 1}, []byte{172, 30, 0, otherNode}
	copy(inner, other)
	copy(inner[6:], own)
	if w.arriving {
		from, to = to, from
		copy(inner, own)
		copy(inner[6:], other)
	}
	header := []byte{0x45, w.tos, 0, 0, 0, 0, 0x40, 0, 64, 17, 0, 0}
	header = append(append(header, from...), to...)
	binary.BigEndian.PutUint16(header[2:], uint16(len(inner)+36))
	binary.BigEndian.PutUint16(header[10:], ^checksum(header))
	raw := make([]byte, 12, 200) // the interface of these tests has the address 0
	raw[11] = 0x55
	raw = append(append(raw, 0x08, 0), header...)
	for _, word := range []uint16{w.port, testPort, uint16(len(inner) + 16), 0, 0x0800, 0, 0, uint16(testOverlay.vni << 8)} {
		raw = binary.BigEndian.AppendUint16(raw, word)
	}
	raw = append(raw, inner...)
	if w.change != nil {
		w.change(raw)
	}
	return raw
}

// takesRoad has the road to the other node learned, by a packet.
func (s *stage) takesRoad(w wrappedPacket) {
	s.t.Helper()
	raw := w.bytes()
	verdict, after, _ := s.run(s.LearnLink, raw, 0, 0, 0)
	if verdict != next || !bytes.Equal(after, raw) {
		s.t.Errorf("learning a road: verdict %d, or another packet", verdict)
	}
}

// byLink has a direction learned that leaves by the overlay.
func (s *stage) byLink(p packet) {
	s.t.Helper()
	raw := p.bytes()
	copy(raw, []byte{2, 0, 0, 0, 0, otherNode})
	copy(raw[6:], testOverlay.mac[:])
	if verdict, _, mark := s.run(s.LearnLink, raw, loopback, Mark, 0); verdict != next || mark != 0 {
		s.t.Errorf("learning: verdict %d, mark %#x", verdict, mark)
	}
}

func (s *stage) counts() (sum programCounts) {
	s.t.Helper()
	var c []programCounts
	if err := s.Counted.Lookup(uint32(0), &c); err != nil {
		s.t.Fatal(err)
	}
	for _, one := range c {
		sum.Hits += one.Hits
		sum.Wrapped += one.Wrapped
		sum.Unwrapped += one.Unwrapped
	}
	return sum
}

// A packet to a node whose road is known is wrapped as the kernel has wrapped the last one,
// and goes to the underlay; else it goes to the overlay's device.
func TestWrapping(t *testing.T) {
	each(t, func(t *testing.T, p packet) {
		s := overlayStage(t)
		s.byLink(p)
		back := p
		back.back = true
		s.learns(back.bytes(), loopback, 0)
		device := p
		device.ttl = 63
		plain := wrappedPacket{inner: device}.bytes()[outerOverhead:]
		looks := func(what string, p packet, wrapped bool) {
			t.Helper()
			verdict, after, _ := s.run(s.Look, p.bytes(), 0, 0, 0)
			if verdict != redirect || (len(after) != len(p.bytes())) != wrapped {
				t.Errorf("%s: verdict %d, wrapped %t", what, verdict, !wrapped)
			}
		}
		_, after, _ := s.run(s.Look, p.bytes(), 0, 0, 0)
		if !bytes.Equal(after, plain) {
			t.Errorf("without a road it is\n%x, want\n%x", after, plain)
		}
		for name, no := range map[string]wrappedPacket{
			"another network": {inner: p, change: func(raw []byte) { raw[48]++ }},
			"another port":    {inner: p, change: func(raw []byte) { raw[37]++ }},
			"a checksum":      {inner: p, change: func(raw []byte) { raw[40] = 1 }},
			"a fragment":      {inner: p, change: func(raw []byte) { raw[20] = 0x20 }},
			"another source":  {inner: p, change: func(raw []byte) { raw[29]++ }},
			"options":         {inner: p, change: func(raw []byte) { raw[14]++ }},
			"no UDP":          {inner: p, change: func(raw []byte) { raw[23] = 6 }},
		} {
			s.takesRoad(no)
			looks(name, p, false)
		}
		s.takesRoad(wrappedPacket{inner: p, port: 1})

		_, after, _ = s.run(s.Look, p.bytes(), 0, 0, 0)
		want := wrappedPacket{inner: device, port: binary.BigEndian.Uint16(after[34:])}
		if want.port < testOverlay.firstPort || want.port >= testOverlay.firstPort+testOverlay.ports {
			t.Errorf("the packet comes from port %d", want.port)
		}
		if checksum(after[14:34]) != 0xffff {
			t.Errorf("the checksum of %x is wrong", after[14:34])
		}
		// Each has a number of its own.
		wanted := want.bytes()
		copy(wanted[18:], after[18:20])
		copy(wanted[24:], after[24:26])
		if !bytes.Equal(after, wanted) {
			t.Errorf("it is\n%x, want\n%x", after, wanted)
		}
		if c := s.counts(); c.Wrapped != 1 || c.Hits != 9 {
			t.Errorf("counted are %+v", c)
		}

		// Congestion is seen by routers of the underlay, and told to who is at the end (RFC 6040).
		for inner, outer := range map[byte]byte{0xb8: 0, 0xb9: 1, 0xba: 2, 0xbb: 2} {
			raw := p.bytes()
			if p.v6 {
				raw[14], raw[15] = 0x60|inner>>4, inner<<4
			} else {
				raw[15] = inner
			}
			if _, after, _ := s.run(s.Look, raw, 0, 0, 0); after[15] != outer || checksum(after[14:34]) != 0xffff {
				t.Errorf("TOS %#x is wrapped in %#x", inner, after[15])
			}
		}

		large := p
		large.content++
		s.byLink(large)
		looks("larger than the road has shown to be", large, false)
		s.takesRoad(wrappedPacket{inner: large})
		looks("as large as the road has shown to be", large, true)
		s.takesRoad(wrappedPacket{inner: p})
		looks("a smaller one has not made the road narrower", large, true)
		s.settings.Generation *= 2
		s.inForce(true)
		s.byLink(p)
		s.learns(back.bytes(), loopback, 0)
		looks("what was learned under another number", p, false)
		s.takesRoad(wrappedPacket{inner: p})
		looks("decided anew", p, true)
		s.settings.Overlay = 0
		s.inForce(true)
		looks("no overlay", p, false)
	})
}

// unwrapsIPv6 reports whether this kernel's programs can say that a packet is IPv6's now.
func unwrapsIPv6(s *stage) bool {
	s.t.Helper()
	version, err := features.LinuxVersionCode()
	if err != nil {
		s.t.Fatal(err)
	}
	const linux63 = 6<<16 | 3<<8
	return version >= linux63
}

// A packet of a remembered flow that comes wrapped goes to the pod as it was before; any
// other is as it was, for the stack.
func TestUnwrapping(t *testing.T) {
	each(t, func(t *testing.T, p packet) {
		s := overlayStage(t)
		p.back = true
		there := p
		there.back = false
		s.byLink(there)
		learned := p
		learned.sourceMAC = 0x99
		s.learns(learned.bytes(), loopback, 0)
		arriving := wrappedPacket{inner: p, arriving: true}
		unwraps := func(what string, w wrappedPacket, yes bool) {
			t.Helper()
			raw := w.bytes()
			verdict, after, _ := s.run(s.Look, raw, 0, 0, 0)
			want := learned
			want.ttl = 63
			switch {
			case !yes && (verdict != next || !bytes.Equal(after, raw)):
				t.Errorf("%s: verdict %d, or another packet", what, verdict)
			case yes && (verdict != redirect || !bytes.Equal(after, want.bytes())):
				t.Errorf("%s: verdict %d, the packet is\n%x, want\n%x", what, verdict, after, want.bytes())
			}
		}
		unwraps("of a node to which no road is known", arriving, false)
		s.takesRoad(wrappedPacket{inner: there})
		if p.v6 && !unwrapsIPv6(s) {
			unwraps("before Linux 6.3", arriving, false)
			return
		}
		unwraps("the right one", arriving, true)
		for name, change := range map[string]func(raw []byte){
			"another network":          func(raw []byte) { raw[48]++ },
			"no network":               func(raw []byte) { raw[42] = 0 },
			"another port":             func(raw []byte) { raw[37]++ },
			"a checksum":               func(raw []byte) { raw[40] = 1 },
			"a fragment":               func(raw []byte) { raw[20] = 0x20 },
			"another node's":           func(raw []byte) { raw[29]++ },
			"to another address":       func(raw []byte) { raw[33]++ },
			"to another MAC address":   func(raw []byte) { raw[55]++ },
			"from another MAC address": func(raw []byte) { raw[61]++ },
			"congested":                func(raw []byte) { raw[15] = 3 },
			"longer than IP says":      func(raw []byte) { raw[17]-- },
			"longer than UDP says":     func(raw []byte) { raw[39]-- },
			"another protocol":         func(raw []byte) { raw[63] = 6 },
			"a hop from its end":       func(raw []byte) { raw[map[bool]int{false: 72, true: 71}[p.v6]] = 1 },
			"of another flow":          func(raw []byte) { raw[map[bool]int{false: 79, true: 87}[p.v6]] ^= 1 },
			"longer inside than it is": func(raw []byte) { raw[map[bool]int{false: 66, true: 68}[p.v6]] = 1 },
			"with a header more":       func(raw []byte) { raw[map[bool]int{false: 64, true: 70}[p.v6]] = 0x46 },
		} {
			unwraps(name, wrappedPacket{inner: p, arriving: true, change: change}, false)
		}
		if !p.udp {
			end := p
			end.flags = 1
			unwraps("FIN", wrappedPacket{inner: end, arriving: true}, false)
		}
		large := p
		large.content++
		unwraps("larger than all before", wrappedPacket{inner: large, arriving: true}, false)
		if c := s.counts(); c.Unwrapped != 1 || c.Hits != 1 {
			t.Errorf("counted are %+v", c)
		}
		s.inForce(false)
		unwraps("without a deadline", arriving, false)
		s.inForce(true)
		unwraps("the right one again", arriving, true)
		s.settings.Generation *= 2
		s.inForce(true)
		unwraps("under another number", arriving, false)
	})
}
