package fastpath

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/pkg/kernel"
	"github.com/flatnet-cni/flatnet/pkg/netlink"
)

// filters attach by filters of traffic control, which kernels before 6.6 have, in the qdisc
// clsact ([kernel.Clsact]). They outlive flatnetd, and the next one's take their place in
// one step; what they do without flatnetd ends with the settings' deadline.
type filters struct{}

// Where flatnet's filters are among others: those with a lesser priority are asked
// before, those with a greater one behind.
const (
	filterPriority = 7070
	filterHandle   = 1
)

// The places of filters of an interface (struct tcmsg's parent).
const (
	ingressParent = 0xfffffff2
	egressParent  = 0xfffffff3
)

// Attributes of TCA_OPTIONS (TCA_BPF_…).
const (
	bpfFD, bpfName, bpfFlags, bpfID = 6, 7, 8, 11
	directAction                    = 1
)

// namePrefix begins the names of the filters, by which they are recognised.
const namePrefix = "flatnet_"

// sidesOfFilters are the places of look and learn, and the names of the filters there.
var sidesOfFilters = [2]struct {
	parent uint32
	name   string
}{{ingressParent, namePrefix + "look"}, {egressParent, namePrefix + "learn"}}

func (*filters) String() string { return "filters of tc" }

// attach leaves a qdisc alone that has no egress, or another's filters in all sides: who
// has made it needs it. What it makes where there is none stays, since to take it away
// loses packets as making it does.
func (*filters) attach(s *netlink.Socket, index int, programs [2]numbered) (reason string, written bool, err error) {
	var missing []int // sides
	for i, side := range sidesOfFilters {
		all, err := listFilters(s, index, side.parent)
		if err != nil {
			return "", false, fmt.Errorf("listing filters: %w", err)
		}
		if slices.ContainsFunc(all, func(f filter) bool { return f.own && f.program == programs[i].id }) {
			continue
		}
		if at := slices.IndexFunc(all, func(f filter) bool { return f.placed && !f.own }); at >= 0 {
			return fmt.Sprintf("somebody else's filter %s is in the place of flatnet's (tc filter show: pref %d handle %#x)", all[at].name, filterPriority, filterHandle), false, nil
		}
		missing = append(missing, i)
	}
	if len(missing) == 0 {
		return "", false, nil
	}
	switch kind, err := kernel.IngressQueue(s, index); {
	case err != nil:
		return "", false, err
	case kind == "":
		if err := kernel.AddClsact(s, index); err != nil {
			return "", false, err
		}
	case kind != "clsact":
		return fmt.Sprintf("somebody else's qdisc %s leaves no place for filters at egress (tc qdisc show)", kind), false, nil
	}
	for _, i := range missing {
		side := sidesOfFilters[i]
		if err := putFilter(s, index, side.parent, side.name, programs[i].FD()); err != nil {
			return "", written, err
		}
		written = true
	}
	return "", written, nil
}

func (*filters) detach(s *netlink.Socket, index int) error {
	_, err := removeFilters(s, index)
	return err
}

func (*filters) close() {}

// filter is one that was found.
type filter struct {
	placed  bool   // where flatnet's is to be
	own     bool   // and it is
	name    string // "" where it has none
	program ebpf.ProgramID
}

func filterMessage(index int, parent, handle uint32) *nl.TcMsg {
	return &nl.TcMsg{Family: unix.AF_UNSPEC, Ifindex: int32(index), Parent: parent, Handle: handle}
}

// ownFilter is where flatnet's filter is: with its priority and protocol (any).
func ownFilter(index int, parent uint32) *nl.TcMsg {
	m := filterMessage(index, parent, filterHandle)
	m.Info = filterPriority<<16 | uint32(nl.Swap16(unix.ETH_P_ALL))
	return m
}

// listFilters returns the filters at one side of an interface.
// Equivalent to: `tc filter show dev LINK ingress`.
func listFilters(s *netlink.Socket, index int, parent uint32) (all []filter, err error) {
	answer, err := s.Dump(unix.RTM_GETTFILTER, filterMessage(index, parent, 0))
	switch {
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOENT), errors.Is(err, unix.EOPNOTSUPP):
		return nil, nil // no qdisc, or one that has no such side
	case err != nil:
		return nil, err
	}
	for _, message := range answer {
		if f, ok := readFilter(message); ok {
			all = append(all, f)
		}
	}
	return all, nil
}

func readFilter(message []byte) (f filter, ok bool) {
	if len(message) < nl.SizeofTcMsg {
		return f, false
	}
	header := nl.DeserializeTcMsg(message)
	for kind, options := range netlink.Attributes(message[nl.SizeofTcMsg:]) {
		if kind != nl.TCA_OPTIONS {
			continue
		}
		for kind, value := range netlink.Attributes(options) {
			switch {
			case kind == bpfName:
				f.name = unix.ByteSliceToString(value)
			case kind == bpfID && len(value) >= 4:
				f.program = ebpf.ProgramID(binary.NativeEndian.Uint32(value))
			}
		}
	}
	f.placed = header.Info>>16 == filterPriority && header.Handle == filterHandle
	f.own = f.placed && strings.HasPrefix(f.name, namePrefix)
	return f, header.Handle != 0 // else it is what the filters of a priority have in common
}

// putFilter puts a program at a side of an interface, in the place of an earlier one of
// flatnet's, in one step.
// Equivalent to: `tc filter replace dev LINK ingress pref 7070 handle 1 bpf direct-action …`.
func putFilter(s *netlink.Socket, index int, parent uint32, name string, program int) error {
	r := s.Request(unix.RTM_NEWTFILTER, unix.NLM_F_CREATE)
	r.AddData(ownFilter(index, parent))
	r.AddData(nl.NewRtAttr(nl.TCA_KIND, nl.ZeroTerminated("bpf")))
	options := nl.NewRtAttr(nl.TCA_OPTIONS, nil)
	options.AddRtAttr(bpfFD, nl.Uint32Attr(uint32(program)))
	options.AddRtAttr(bpfName, nl.ZeroTerminated(name))
	options.AddRtAttr(bpfFlags, nl.Uint32Attr(directAction))
	r.AddData(options)
	if err := s.Acknowledge(r); err != nil {
		return fmt.Errorf("adding filter %s: %w", name, err)
	}
	return nil
}

// removeFilters takes flatnet's filters from an interface, and says what is left there:
// whether there were any, and whether others are.
func removeFilters(s *netlink.Socket, index int) (left leftovers, err error) {
	for _, side := range sidesOfFilters {
		found, err := listFilters(s, index, side.parent)
		if err != nil {
			return left, err
		}
		for _, f := range found {
			if !f.own {
				left.others = true
				continue
			}
			r := s.Request(unix.RTM_DELTFILTER, 0)
			r.AddData(ownFilter(index, side.parent))
			r.AddData(nl.NewRtAttr(nl.TCA_KIND, nl.ZeroTerminated("bpf")))
			if err := s.Acknowledge(r); err != nil && !gone(err) {
				return left, fmt.Errorf("removing filter %s: %w", f.name, err)
			}
			left.removed = true
		}
	}
	return left, nil
}

// leftovers are what was at an interface.
type leftovers struct {
	removed bool // flatnet's filters
	others  bool // are there still
}

// gone reports whether what was to be removed is not there, or its interface is not.
func gone(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EINVAL)
}
