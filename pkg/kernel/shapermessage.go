package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Numbers of linux/pkt_sched.h and linux/pkt_cls.h that the packages in use lack.
const (
	etherLinkLayer = 1  // TC_LINKLAYER_ETHERNET: a packet costs its length
	htbVersion     = 3  // TC_HTB_PROTOVER's major number
	htbRate64      = 6  // TCA_HTB_RATE64
	htbCeil64      = 7  // TCA_HTB_CEIL64
	u32Terminal    = 1  // TC_U32_TERMINAL
	u32SelSize     = 16 // of a struct tc_u32_sel without its keys
	u32KeySize     = 16 // of a struct tc_u32_key
)

// shape puts the shaper in the place of whatever the interface has to send with.
// On an interface that is down that takes no time; on one that is up the kernel
// waits until no packet is on its way through the old one.
func (n *Netlink) shape(o Shaper) error {
	s, index, err := n.on(o.Side, o.Link)
	if err != nil {
		return err
	}
	err = n.makeQueue(s, index, o)
	if errors.Is(err, ErrExists) {
		if err := s.Acknowledge(tcRequest(s, unix.RTM_DELQDISC, 0, index, rootParent, 0)); err != nil && !isGone(err) {
			return err
		}
		err = n.makeQueue(s, index, o)
	}
	return err
}

func (n *Netlink) makeQueue(s *socket, index int, o Shaper) error {
	if len(o.networks()) == 0 {
		return s.Acknowledge(o.tbf(s, index))
	}
	if err := s.Acknowledge(o.htb(s, index)); err != nil {
		return err
	}
	if err := s.Acknowledge(o.htbClass(s, index)); err != nil {
		return fmt.Errorf("class of htb: %w", err)
	}
	queue := tcRequest(s, unix.RTM_NEWQDISC, unix.NLM_F_CREATE|unix.NLM_F_EXCL, index, shapedClass, queueHandle)
	queue.AddData(nl.NewRtAttr(nl.TCA_KIND, nl.ZeroTerminated("bfifo")))
	queue.AddData(nl.NewRtAttr(nl.TCA_OPTIONS, nl.Uint32Attr(o.Limit))) // struct tc_fifo_qopt
	if err := s.Acknowledge(queue); err != nil {
		return fmt.Errorf("queue of htb's class: %w", err)
	}
	for _, f := range o.filters() {
		if err := s.Acknowledge(f.in(s, index)); err != nil {
			return fmt.Errorf("filter u32 for %s: %w", f.network, err)
		}
	}
	return nil
}

// tcRequest begins a message about traffic control.
func tcRequest(s *socket, message, flags, index int, parent, handle uint32) *nl.NetlinkRequest {
	r := s.Request(message, flags)
	r.AddData(&nl.TcMsg{Family: unix.AF_UNSPEC, Ifindex: int32(index), Parent: parent, Handle: handle})
	return r
}

// tcOptions says of which kind the message's object is, and returns what its options go
// into.
func tcOptions(r *nl.NetlinkRequest, kind string) *nl.RtAttr {
	options := nl.NewRtAttr(nl.TCA_OPTIONS, nil)
	r.AddData(nl.NewRtAttr(nl.TCA_KIND, nl.ZeroTerminated(kind)))
	r.AddData(options)
	return options
}

// bytesPerSecond is the rate as the kernel has it.
func (s Shaper) bytesPerSecond() uint64 { return s.Rate / 8 }

// rateSpec is the rate for kernels' 32 bits; what is more is said besides.
func (s Shaper) rateSpec() nl.TcRateSpec {
	return nl.TcRateSpec{Linklayer: etherLinkLayer, Rate: uint32(min(s.bytesPerSecond(), math.MaxUint32))}
}

func (s Shaper) exceeds32() bool { return s.bytesPerSecond() >= math.MaxUint32 }

// ticks is how long the burst takes at the rate, in units of 64 ns as the kernel counts.
func (s Shaper) ticks() uint64 {
	const nanosecondsPerSecond, nanosecondsPerTick uint64 = 1e9, 64
	return uint64(s.Burst) * nanosecondsPerSecond / max(s.bytesPerSecond(), 1) / nanosecondsPerTick
}

// tbf is the message that makes a token bucket. The burst is given in bytes as well:
// its time has too few bits for large ones at low rates (274 s).
func (s Shaper) tbf(on *socket, index int) *nl.NetlinkRequest {
	r := tcRequest(on, unix.RTM_NEWQDISC, unix.NLM_F_CREATE|unix.NLM_F_EXCL, index, rootParent, rootHandle)
	options := tcOptions(r, "tbf")
	parameters := nl.TcTbfQopt{Rate: s.rateSpec(), Limit: s.Limit, Buffer: uint32(min(s.ticks(), math.MaxUint32))}
	options.AddRtAttr(nl.TCA_TBF_PARMS, parameters.Serialize())
	if s.exceeds32() {
		options.AddRtAttr(nl.TCA_TBF_RATE64, nl.Uint64Attr(s.bytesPerSecond()))
	}
	options.AddRtAttr(nl.TCA_TBF_BURST, nl.Uint32Attr(s.Burst))
	return r
}

func (s Shaper) htb(on *socket, index int) *nl.NetlinkRequest {
	r := tcRequest(on, unix.RTM_NEWQDISC, unix.NLM_F_CREATE|unix.NLM_F_EXCL, index, rootParent, rootHandle)
	options := tcOptions(r, "htb")
	global := nl.TcHtbGlob{Version: htbVersion, Rate2Quantum: 10, Defcls: s.defaultClass()}
	options.AddRtAttr(nl.TCA_HTB_INIT, global.Serialize())
	return r
}

func (s Shaper) htbClass(on *socket, index int) *nl.NetlinkRequest {
	r := tcRequest(on, unix.RTM_NEWTCLASS, unix.NLM_F_CREATE|unix.NLM_F_EXCL, index, rootHandle, shapedClass)
	options := tcOptions(r, "htb")
	ticks := uint32(min(s.ticks(), math.MaxUint32))
	parameters := nl.TcHtbCopt{Rate: s.rateSpec(), Ceil: s.rateSpec(), Buffer: ticks, Cbuffer: ticks, Quantum: quantum}
	options.AddRtAttr(nl.TCA_HTB_PARMS, parameters.Serialize())
	if s.exceeds32() {
		options.AddRtAttr(htbRate64, nl.Uint64Attr(s.bytesPerSecond()))
		options.AddRtAttr(htbCeil64, nl.Uint64Attr(s.bytesPerSecond()))
	}
	return r
}

// in is the message that makes a filter.
func (f filter) in(s *socket, index int) *nl.NetlinkRequest {
	r := tcRequest(s, unix.RTM_NEWTFILTER, unix.NLM_F_CREATE|unix.NLM_F_EXCL, index, rootHandle, 0)
	r.Data[0].(*nl.TcMsg).Info = f.priority()<<16 | uint32(nl.Swap16(f.protocol()))
	options := tcOptions(r, "u32")
	options.AddRtAttr(nl.TCA_U32_CLASSID, nl.Uint32Attr(f.class))
	options.AddRtAttr(nl.TCA_U32_SEL, f.selector())
	return r
}

func (f filter) protocol() uint16 {
	if f.network.Addr().Is4() {
		return unix.ETH_P_IP
	}
	return unix.ETH_P_IPV6
}

// selector is a struct tc_u32_sel: of each four bytes of the address, those that
// belong to the network. There is one key at least, be it one that everything matches.
func (f filter) selector() []byte {
	raw := make([]byte, u32SelSize)
	raw[0] = u32Terminal
	address := f.network.Addr().AsSlice()
	for at, left := 0, f.network.Bits(); at == 0 || left > 0; at, left = at+4, left-32 {
		key := make([]byte, u32KeySize)
		mask := uint32(math.MaxUint32)
		if left < 32 {
			mask <<= 32 - left
		}
		binary.BigEndian.PutUint32(key, mask)
		copy(key[4:], address[at:at+4])
		binary.NativeEndian.PutUint32(key[8:], uint32(f.offset)+uint32(at))
		raw = append(raw, key...)
		raw[2]++ // number of keys
	}
	return raw
}
