package kernel

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Shaper holds what an interface sends to a rate. At the host's end of a pair that is
// what the pod receives, at the pod's end what it sends; so neither direction needs
// a device of its own (ifb), and what the pod sends waits where its sockets notice
// that it does.
//
// Without networks it is a token bucket (tbf), which holds everything. With networks
// it is a hierarchy (htb) of one class, which the traffic is sorted into by its other
// end's address; the rest passes beside it.
type Shaper struct {
	Side Side
	Link string
	Rate uint64 // bits per second; 8 or more
	// Burst is how much may pass at once after a silence, in bytes. A tbf cuts what
	// it cannot hold into packets, and drops packets that it cannot hold.
	Burst uint32
	Limit uint32 // bytes that wait at most; more is dropped
	// Shaped are the only networks that it is about, Unshaped those that it is not
	// about; one of them is empty.
	Shaped, Unshaped []netip.Prefix
}

// Dependence implements [Object].
func (s Shaper) Dependence() (Side, string) { return s.Side, s.Link }

func (s Shaper) String() string {
	tc := s.Side.tc()
	if len(s.networks()) == 0 {
		return fmt.Sprintf("%s qdisc replace dev %s root handle 1: tbf rate %dbit burst %db limit %db", tc, s.Link, s.Rate, s.Burst, s.Limit)
	}
	commands := []string{
		fmt.Sprintf("%s qdisc replace dev %s root handle 1: htb default %x", tc, s.Link, s.defaultClass()),
		fmt.Sprintf("%s class add dev %s parent 1: classid 1:1 htb rate %dbit burst %db cburst %db quantum %d", tc, s.Link, s.Rate, s.Burst, s.Burst, quantum),
		fmt.Sprintf("%s qdisc add dev %s parent 1:1 handle 10: bfifo limit %db", tc, s.Link, s.Limit),
	}
	for _, f := range s.filters() {
		commands = append(commands, fmt.Sprintf("%s filter add dev %s parent 1: protocol %s prio %d u32 match %s %s %s flowid 1:%x",
			tc, s.Link, f.protocolName(), f.priority(), f.matchName(), s.end(), f.network, f.class&0xffff))
	}
	return strings.Join(commands, "; ")
}

// networks are those that it has filters for.
func (s Shaper) networks() []netip.Prefix { return append(slices.Clip(s.Shaped), s.Unshaped...) }

// end is the address of a packet by which its other end is known.
func (s Shaper) end() string {
	if s.Side == Host {
		return "src"
	}
	return "dst"
}

// Handles (struct tcmsg): a number of a qdisc above, that of a class in it below.
const (
	rootParent  = 0xffffffff // TC_H_ROOT: the interface itself
	rootHandle  = 1 << 16
	shapedClass = rootHandle | 1
	queueHandle = 0x10 << 16
)

// quantum is how many bytes a class may send before another has its turn. There is
// only one, but without a number the kernel calculates one and complains about it.
const quantum = 60000

// defaultClass is where what no filter is about belongs: 0 is past all classes.
func (s Shaper) defaultClass() uint32 {
	if len(s.Unshaped) > 0 {
		return shapedClass & 0xffff
	}
	return 0
}

// filter sends what comes from or goes to a network into a class.
type filter struct {
	network netip.Prefix
	offset  int32 // of the address in the packet, bytes
	class   uint32
}

func (s Shaper) filters() []filter {
	var all []filter
	for _, network := range s.networks() {
		f := filter{network: network.Masked(), class: shapedClass}
		if len(s.Unshaped) > 0 {
			f.class = rootHandle // past all classes
		}
		switch {
		case network.Addr().Is4() && s.Side == Host:
			f.offset = 12
		case network.Addr().Is4():
			f.offset = 16
		case s.Side == Host:
			f.offset = 8
		default:
			f.offset = 24
		}
		all = append(all, f)
	}
	return all
}

func (f filter) protocolName() string {
	if f.network.Addr().Is4() {
		return "ip"
	}
	return "ipv6"
}

func (f filter) matchName() string {
	if f.network.Addr().Is4() {
		return "ip"
	}
	return "ip6"
}

// priority is another one for each family: filters of a priority share a protocol.
func (f filter) priority() uint32 {
	if f.network.Addr().Is4() {
		return 16
	}
	return 15
}
