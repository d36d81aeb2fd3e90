package fastpath

import (
	"encoding/binary"
	"errors"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/pkg/netlink"
)

// egressFilters returns the names of filters of tc at an interface's egress, "" where they
// have none. They are somebody else's: flatnet has none.
// Equivalent to: `tc filter show dev LINK egress`.
func egressFilters(s *netlink.Socket, index int) (names []string, err error) {
	const (
		egress = 0xfffffff3 // of the qdisc clsact, which has no queue
		header = 20         // struct tcmsg
		name   = 7          // TCA_BPF_NAME, in TCA_OPTIONS
	)
	answer, err := s.Dump(unix.RTM_GETTFILTER, &nl.TcMsg{Family: unix.AF_UNSPEC, Ifindex: int32(index), Parent: egress})
	switch {
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOENT), errors.Is(err, unix.EOPNOTSUPP):
		return nil, nil // no qdisc, or one that has no such side
	case err != nil:
		return nil, err
	}
	for _, message := range answer {
		if len(message) < header || binary.NativeEndian.Uint32(message[8:]) == 0 {
			continue // without a handle: what the filters of a priority have in common
		}
		found := ""
		for kind, options := range netlink.Attributes(message[header:]) {
			if kind != nl.TCA_OPTIONS {
				continue
			}
			for kind, value := range netlink.Attributes(options) {
				if kind == name {
					found = unix.ByteSliceToString(value)
				}
			}
		}
		names = append(names, found)
	}
	return names, nil
}
