package fastpath

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/pkg/netlink"
)

// The places of filters of an interface: of the qdisc clsact, which has no queue.
const (
	clsactHandle  = 0xffff0000
	clsactParent  = 0xfffffff1
	ingressParent = 0xfffffff2
	egressParent  = 0xfffffff3
)

// Filters of others with a lesser priority are asked before, those with a greater one
// behind; nobody's are touched.
const (
	filterPriority = 7070
	filterHandle   = 1
)

// Attributes of TCA_OPTIONS (TCA_BPF_…).
const (
	bpfFD, bpfName, bpfFlags, bpfID = 6, 7, 8, 11
	directAction                    = 1
)

// namePrefix begins the names of the filters, by which they are recognised.
const namePrefix = "flatnet_"

// filter is one that was found.
type filter struct {
	own     bool
	name    string
	program uint32 // number
}

func tcMessage(index int, parent, handle, info uint32) *nl.TcMsg {
	return &nl.TcMsg{Family: unix.AF_UNSPEC, Ifindex: int32(index), Parent: parent, Handle: handle, Info: info}
}

// own is which filter is flatnet's, for messages: priority and protocol (any).
func ownInfo() uint32 {
	const any = 3 // ETH_P_ALL
	return filterPriority<<16 | uint32(binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, any)))
}

// listFilters returns the filters at one side of an interface.
// Equivalent to: `tc filter show dev LINK ingress`.
func listFilters(s *netlink.Socket, index int, parent uint32) (all []filter, err error) {
	answer, err := s.Dump(unix.RTM_GETTFILTER, tcMessage(index, parent, 0, 0))
	switch {
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOENT), errors.Is(err, unix.EOPNOTSUPP):
		return nil, nil // no qdisc, or one that has no such side
	case err != nil:
		return nil, err
	}
	const header = 20 // struct tcmsg
	for _, message := range answer {
		if len(message) < header {
			continue
		}
		handle, info := binary.NativeEndian.Uint32(message[8:]), binary.NativeEndian.Uint32(message[16:])
		f := filter{}
		for kind, value := range netlink.Attributes(message[header:]) {
			if kind != nl.TCA_OPTIONS {
				continue
			}
			for kind, value := range netlink.Attributes(value) {
				switch {
				case kind == bpfName:
					f.name = unix.ByteSliceToString(value)
				case kind == bpfID && len(value) >= 4:
					f.program = binary.NativeEndian.Uint32(value)
				}
			}
		}
		if handle == 0 {
			continue // what the filters of a priority have in common
		}
		f.own = info>>16 == filterPriority && handle == filterHandle && len(f.name) > len(namePrefix) && f.name[:len(namePrefix)] == namePrefix
		all = append(all, f)
	}
	return all, nil
}

// addClsact makes the qdisc that filters are in.
// Equivalent to: `tc qdisc add dev LINK clsact`.
func addClsact(s *netlink.Socket, index int) error {
	r := s.Request(unix.RTM_NEWQDISC, unix.NLM_F_CREATE|unix.NLM_F_EXCL)
	r.AddData(tcMessage(index, clsactParent, clsactHandle, 0))
	r.AddData(nl.NewRtAttr(nl.TCA_KIND, nl.ZeroTerminated("clsact")))
	if err := s.Acknowledge(r); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("making qdisc clsact: %w", err)
	}
	return nil
}

// putFilter puts a program at a side of an interface, in the place of an earlier one of
// flatnet's, in one step.
// Equivalent to: `tc filter replace dev LINK ingress pref 7070 handle 1 bpf direct-action …`.
func putFilter(s *netlink.Socket, index int, parent uint32, name string, program int) error {
	r := s.Request(unix.RTM_NEWTFILTER, unix.NLM_F_CREATE)
	r.AddData(tcMessage(index, parent, filterHandle, ownInfo()))
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

// removeFilters takes flatnet's filters from an interface, and the qdisc where nothing is
// left in it. It reports whether there was anything.
func removeFilters(s *netlink.Socket, index int) (removed bool, err error) {
	others := false
	for _, parent := range []uint32{ingressParent, egressParent} {
		found, err := listFilters(s, index, parent)
		if err != nil {
			return removed, err
		}
		for _, f := range found {
			if !f.own {
				others = true
				continue
			}
			r := s.Request(unix.RTM_DELTFILTER, 0)
			r.AddData(tcMessage(index, parent, filterHandle, ownInfo()))
			r.AddData(nl.NewRtAttr(nl.TCA_KIND, nl.ZeroTerminated("bpf")))
			if err := s.Acknowledge(r); err != nil && !gone(err) {
				return removed, fmt.Errorf("removing filter %s: %w", f.name, err)
			}
			removed = true
		}
	}
	if !removed || others {
		return removed, nil
	}
	r := s.Request(unix.RTM_DELQDISC, 0)
	r.AddData(tcMessage(index, clsactParent, clsactHandle, 0))
	if err := s.Acknowledge(r); err != nil && !gone(err) {
		return removed, fmt.Errorf("removing qdisc clsact: %w", err)
	}
	return removed, nil
}

// gone reports whether what was to be removed is not there, or its interface is not.
func gone(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EINVAL)
}
