package fastpath

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/test/netlab"
)

func TestMain(m *testing.M) { netlab.Main(m) }

// stage runs the programs on packets that nobody sent: no interface has them.
type stage struct {
	*programs
	t        *testing.T
	settings programSettings
}

// A packet that is given to a program has no tc_index, so the generations of these tests
// are those that have none either.
const firstGeneration = 1 << 16

func newStage(t *testing.T) *stage {
	t.Helper()
	p, err := load()
	if errors.Is(err, ebpf.ErrNotSupported) || errors.Is(err, unix.EPERM) {
		t.Skip("eBPF programs cannot be loaded: ", err)
	}
	if err != nil {
		t.Fatalf("%+v", err)
	}
	t.Cleanup(func() { p.Close() })
	s := &stage{programs: p, t: t}
	s.set(firstGeneration, time.Minute)
	return s
}

func (s *stage) set(generation uint32, lifetime time.Duration) {
	s.t.Helper()
	s.settings = programSettings{Generation: generation, Lifetime: uint64(lifetime)}
	s.inForce(true)
}

// inForce says whether the programs may go by what they remember.
func (s *stage) inForce(yes bool) {
	s.t.Helper()
	s.settings.Deadline = 0
	if yes {
		s.settings.Deadline = math.MaxUint64
	}
	if err := s.Setting.Put(uint32(0), &s.settings); err != nil {
		s.t.Fatal(err)
	}
}

// skBuff is the beginning of struct __sk_buff.
type skBuff struct {
	Len, PacketType, Mark, QueueMapping, Protocol, VlanPresent, VlanTCI, VlanProto, Priority, IngressIfindex, Ifindex, TCIndex uint32
	CB                                                                                                                         [5]uint32
	Hash, TCClassid, Data, DataEnd, NapiID, Family, RemoteIP4, LocalIP4                                                        uint32
	RemoteIP6, LocalIP6                                                                                                        [4]uint32
	RemotePort, LocalPort, DataMeta                                                                                            uint32
	_                                                                                                                          uint64 // flow_keys
	Timestamp                                                                                                                  uint64
	WireLen, GSOSegs                                                                                                           uint32
	_                                                                                                                          uint64 // sk
	GSOSize                                                                                                                    uint32
	TimestampType                                                                                                              uint8
	_                                                                                                                          [3]uint8
	HWTimestamp                                                                                                                uint64
}

// run gives a packet to a program, and returns what that says and the packet as it is then.
func (s *stage) run(p *ebpf.Program, packet []byte, in int, mark, gso uint32) (verdict int32, after []byte, markAfter uint32) {
	s.t.Helper()
	given := skBuff{Mark: mark, IngressIfindex: uint32(in), GSOSize: gso}
	var got skBuff
	out := make([]byte, len(packet)+256)
	options := &ebpf.RunOptions{Data: packet, DataOut: out, Context: given, ContextOut: &got}
	code, err := p.Run(options)
	if errors.Is(err, unix.EINVAL) && in != 0 {
		given.IngressIfindex = 0
		if _, without := p.Run(&ebpf.RunOptions{Data: packet, Context: given}); without == nil {
			s.t.Skip("this kernel's BPF_PROG_TEST_RUN takes no ingress_ifindex: the programs are loaded, and tried with traffic only (test/fastpath)")
		}
	}
	if err != nil {
		s.t.Fatalf("running a program: %v", err)
	}
	return int32(code), options.DataOut, got.Mark
}

const (
	next     = -1
	redirect = 7 // TC_ACT_REDIRECT
	loopback = 1 // the interface on which look is run
)

// learns gives a packet with the mark to the program at egress.
func (s *stage) learns(packet []byte, in int, gso uint32) {
	s.t.Helper()
	verdict, after, mark := s.run(s.LearnPod, packet, in, Mark|5, gso)
	if verdict != next || mark != 5 || !bytes.Equal(after, packet) {
		s.t.Errorf("learning: verdict %d, mark %#x, or another packet", verdict, mark)
	}
}

// forwards reports whether a packet takes the fast path.
func (s *stage) forwards(packet []byte, gso uint32) bool {
	s.t.Helper()
	verdict, after, _ := s.run(s.Look, packet, 0, 0, gso)
	if verdict != redirect && verdict != next {
		s.t.Fatalf("verdict %d", verdict)
	}
	if verdict == next && !bytes.Equal(after, packet) {
		s.t.Error("a packet for the stack is changed")
	}
	return verdict == redirect
}

// packet is one that can be written.
type packet struct {
	v6, udp, back  bool
	flags          byte
	ttl            byte
	content        int    // bytes
	fragment       uint16 // IPv4's flags and offset
	options        bool   // of IPv4, or a header more of IPv6
	port           uint16
	padding        int
	sourceMAC      byte
	protocolNumber byte // another one
}

func (p packet) bytes() []byte {
	// The interface of these tests has the address 0.
	b := make([]byte, 12, 200)
	b[11] = p.sourceMAC
	ports := [2]uint16{40000 + p.port, 80}
	ends := [2]byte{1, 2}
	if p.back {
		ports[0], ports[1] = ports[1], ports[0]
		ends[0], ends[1] = ends[1], ends[0]
	}
	transport := binary.BigEndian.AppendUint16(nil, ports[0])
	transport = binary.BigEndian.AppendUint16(transport, ports[1])
	protocol := byte(6)
	if p.udp {
		protocol = 17
		transport = binary.BigEndian.AppendUint16(transport, uint16(8+p.content))
		transport = append(transport, 0, 0)
	} else {
		transport = append(transport, 0, 0, 0, 1, 0, 0, 0, 1, 5<<4, p.flags|0x10, 255, 255, 0, 0, 0, 0)
	}
	if p.protocolNumber != 0 {
		protocol = p.protocolNumber
	}
	transport = append(transport, make([]byte, p.content)...)
	ttl := p.ttl
	if ttl == 0 {
		ttl = 64
	}
	if p.v6 {
		b = append(b, 0x86, 0xdd, 0x60, 0, 0, 0)
		next := protocol
		if p.options {
			next = 0
			transport = append([]byte{protocol, 0, 1, 4, 0, 0, 0, 0}, transport...)
		}
		b = binary.BigEndian.AppendUint16(b, uint16(len(transport)))
		b = append(b, next, ttl)
		for _, end := range ends {
			b = append(b, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, end)
		}
	} else {
		header := []byte{0x45, 0, 0, 0, 0, 0, 0, 0, ttl, protocol, 0, 0, 10, 0, 0, ends[0], 10, 0, 0, ends[1]}
		if p.options {
			header[0] = 0x46
			header = append(header, 1, 1, 1, 1)
		}
		binary.BigEndian.PutUint16(header[2:], uint16(len(header)+len(transport)))
		binary.BigEndian.PutUint16(header[6:], p.fragment)
		binary.BigEndian.PutUint16(header[10:], ^checksum(header))
		b = append(append(b, 0x08, 0), header...)
	}
	return append(append(b, transport...), make([]byte, p.padding)...)
}

func checksum(header []byte) uint16 {
	var sum uint32
	for i := 0; i < len(header); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(header[i:]))
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return uint16(sum)
}

// both has both directions of a flow learned.
func (s *stage) both(p packet) {
	s.t.Helper()
	p.back = false
	s.learns(p.bytes(), loopback, 0)
	p.back = true
	s.learns(p.bytes(), loopback, 0)
}

// each calls f for both families and protocols.
func each(t *testing.T, f func(t *testing.T, p packet)) {
	for _, v6 := range []bool{false, true} {
		for _, udp := range []bool{false, true} {
			t.Run(fmt.Sprintf("v6=%t udp=%t", v6, udp), func(t *testing.T) { f(t, packet{v6: v6, udp: udp, content: 100}) })
		}
	}
}

// A flow is used once both directions are known, and what goes out is the packet with one
// hop less, and with the addresses that the stack gave the last one.
func TestForwarding(t *testing.T) {
	each(t, func(t *testing.T, p packet) {
		s := newStage(t)
		if s.forwards(p.bytes(), 0) {
			t.Error("an unknown flow is forwarded")
		}
		learned := p
		learned.sourceMAC = 0x99
		s.learns(learned.bytes(), loopback, 0)
		if s.forwards(p.bytes(), 0) {
			t.Error("one direction is enough")
		}
		learned.back = true
		s.learns(learned.bytes(), loopback, 0)
		for ttl := byte(255); ttl > 1; ttl-- {
			p.ttl = ttl
			verdict, after, _ := s.run(s.Look, p.bytes(), 0, 0, 0)
			want := p
			want.ttl--
			want.sourceMAC = 0x99
			if verdict != redirect || !bytes.Equal(after, want.bytes()) {
				t.Fatalf("TTL %d: verdict %d\n%x, want\n%x", ttl, verdict, after, want.bytes())
			}
		}
		p.ttl = 1
		if s.forwards(p.bytes(), 0) {
			t.Error("a packet at the end of its way is forwarded")
		}
		var c []programCounts
		if err := s.Counted.Lookup(uint32(0), &c); err != nil {
			t.Fatal(err)
		}
		hits, misses := uint64(0), uint64(0)
		for _, one := range c {
			hits, misses = hits+one.Hits, misses+one.Misses
		}
		if hits != 254 || misses != 3 {
			t.Errorf("%d hits and %d misses are counted", hits, misses)
		}
	})
}

// What is not a plain packet of TCP or UDP is neither learned nor forwarded.
func TestPacketsOfTheStack(t *testing.T) {
	each(t, func(t *testing.T, p packet) {
		s := newStage(t)
		s.both(p)
		if !s.forwards(p.bytes(), 0) {
			t.Fatal("the plain packet is not forwarded")
		}
		others := map[string]packet{}
		add := func(name string, change func(p *packet)) {
			other := p
			change(&other)
			others[name] = other
		}
		add("options", func(p *packet) { p.options = true; p.content -= 8 })
		add("another protocol", func(p *packet) { p.protocolNumber = 132 })
		if !p.v6 {
			add("first fragment", func(p *packet) { p.fragment = 0x2000 })
			add("last fragment", func(p *packet) { p.fragment = 10 })
		}
		if !p.udp {
			add("SYN", func(p *packet) { p.flags = 2; p.port = 1 })
		}
		for name, other := range others {
			if s.forwards(other.bytes(), 0) {
				t.Errorf("%s: forwarded", name)
			}
			other.port += 10
			s.both(other)
			plain := p
			plain.port = other.port
			if s.forwards(plain.bytes(), 0) || s.forwards(other.bytes(), 0) {
				t.Errorf("%s: learned", name)
			}
		}
		p.fragment = 0x4000 // do not fragment
		if !p.v6 && !s.forwards(p.bytes(), 0) {
			t.Error("a packet that may not be cut is not forwarded")
		}
		p.padding = 20
		if !s.forwards(p.bytes(), 0) {
			t.Error("what Ethernet has filled up is not forwarded")
		}
		truncated := p.bytes()
		if s.forwards(truncated[:len(truncated)-60], 0) {
			t.Error("a packet that is shorter than it says is forwarded")
		}
	})
}

// Nothing larger passes than what the stack has let pass since it decided last: neither
// as it is nor as what it is cut into.
func TestLargestPacket(t *testing.T) {
	each(t, func(t *testing.T, p packet) {
		s := newStage(t)
		s.both(p)
		small, large := p, p
		small.content, large.content = p.content-1, p.content+1
		cut := p
		cut.content *= 10
		for _, c := range []struct {
			what    string
			packet  packet
			gso     uint32
			forward bool
		}{
			{"as large", p, 0, true}, {"smaller", small, 0, true}, {"larger", large, 0, false},
			{"cut into such", cut, uint32(p.content), true}, {"cut into larger ones", cut, uint32(p.content) + 1, false},
		} {
			if got := s.forwards(c.packet.bytes(), c.gso); got != c.forward {
				t.Errorf("%s: forwarded %t", c.what, got)
			}
		}
		s.learns(large.bytes(), loopback, 0)
		if !s.forwards(large.bytes(), 0) {
			t.Error("what the stack has let pass is not forwarded")
		}
		s.learns(p.bytes(), loopback, 0)
		if !s.forwards(large.bytes(), 0) {
			t.Error("a smaller one made the largest smaller, though all is as it was")
		}
		// Decided anew, the small one says nothing of the large one.
		s.set(2*firstGeneration, time.Minute)
		s.both(p)
		if s.forwards(large.bytes(), 0) || !s.forwards(p.bytes(), 0) {
			t.Error("what was let pass under another generation is forwarded")
		}
	})
}

// Another generation, another interface, and the end of its time: the stack decides.
func TestDecidedAnew(t *testing.T) {
	each(t, func(t *testing.T, p packet) {
		s := newStage(t)
		s.both(p)
		s.set(2*firstGeneration, time.Minute)
		if s.forwards(p.bytes(), 0) {
			t.Error("forwarded under another generation")
		}
		s.learns(p.bytes(), loopback, 0)
		if s.forwards(p.bytes(), 0) {
			t.Error("forwarded when one direction was decided anew")
		}
		s.both(p)
		if !s.forwards(p.bytes(), 0) {
			t.Error("not forwarded when both were")
		}
		// A packet that was under way when the generation was raised says nothing.
		s.set(2*firstGeneration+1, time.Minute)
		s.both(p)
		s.set(2*firstGeneration+1, time.Minute)
		if s.forwards(p.bytes(), 0) {
			t.Error("learned what was decided under another generation")
		}
		s.set(3*firstGeneration, 0)
		s.both(p)
		if s.forwards(p.bytes(), 0) {
			t.Error("forwarded though its time is over")
		}
		s.set(3*firstGeneration, time.Minute)
		s.both(p)
		if !s.forwards(p.bytes(), 0) {
			t.Error("not forwarded")
		}
		// Who has the address now is at another interface.
		s.learns(p.bytes(), loopback+1, 0)
		if s.forwards(p.bytes(), 0) {
			t.Error("forwarded from another interface")
		}
		back := p
		back.back = true
		s.learns(back.bytes(), loopback, 0)
		if s.forwards(p.bytes(), 0) {
			t.Error("forwarded from another interface, with answers")
		}
		s.learns(p.bytes(), loopback, 0)
		if s.forwards(p.bytes(), 0) {
			t.Error("the answers to somebody else at the same address are remembered")
		}
		// What the node itself sends is not from an interface.
		p.port = 7
		s.learns(p.bytes(), 0, 0)
		back.port = 7
		s.learns(back.bytes(), loopback, 0)
		if s.forwards(p.bytes(), 0) {
			t.Error("what the node sends is remembered")
		}
		// Without the mark nothing is learned, and no other bit is touched.
		p.port = 8
		for _, b := range []bool{false, true} {
			p.back = b
			if _, _, mark := s.run(s.LearnLink, p.bytes(), loopback, 0xffffffff&^Mark, 0); mark != 0xffffffff&^Mark {
				t.Errorf("mark %#x", mark)
			}
		}
		if s.forwards(p.bytes(), 0) {
			t.Error("learned without the mark")
		}
	})
}

// Where a connection ends or begins, all is the stack's.
func TestConnectionsEnds(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		p := packet{v6: v6, content: 10}
		for _, back := range []bool{false, true} {
			for name, flags := range map[string]byte{"FIN": 1, "RST": 4} {
				t.Run(fmt.Sprintf("v6=%t back=%t %s", v6, back, name), func(t *testing.T) {
					s := newStage(t)
					s.both(p)
					end, begin := p, p
					end.flags, end.back = flags, back
					begin.flags = 2
					if !s.forwards(p.bytes(), 0) || s.forwards(end.bytes(), 0) {
						t.Fatal("the plain one is not forwarded, or the end is")
					}
					if s.forwards(p.bytes(), 0) {
						t.Error("forwarded after the end")
					}
					s.both(p)
					if s.forwards(p.bytes(), 0) {
						t.Error("remembered again after the end")
					}
					if s.forwards(begin.bytes(), 0) {
						t.Error("SYN is forwarded")
					}
					s.both(p)
					if !s.forwards(p.bytes(), 0) {
						t.Error("a new connection is not remembered")
					}
				})
			}
		}
	}
}

// 100,000 flows and more: the map takes what is new, and its memory is bounded.
func TestManyFlows(t *testing.T) {
	s := newStage(t)
	info, err := s.Flows.Info()
	if err != nil {
		t.Fatal(err)
	}
	if bytes, known := info.Memlock(); known {
		t.Logf("%d flows take %.1f MB", Flows, float64(bytes)/1e6)
		const most = 30e6
		if bytes > most {
			t.Errorf("%d flows take %d bytes", Flows, bytes)
		}
	}
	keys, flows := make([]programKey, 10_000), make([]programFlow, 10_000)
	for round := range uint64(15) {
		for i := range keys {
			keys[i] = programKey{Low: [2]uint64{round, uint64(i)}, Family: 4}
			flows[i] = programFlow{Since: 1}
		}
		if _, err := s.Flows.BatchUpdate(keys, flows, nil); err != nil {
			t.Fatal(err)
		}
	}
	p := packet{content: 10}
	s.both(p)
	if !s.forwards(p.bytes(), 0) {
		t.Error("a new flow is not remembered by a map that is full")
	}
}
