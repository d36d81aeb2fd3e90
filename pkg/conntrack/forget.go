// Package conntrack is the edge to connection tracking: which flows the kernel
// remembers, and how to make it forget some.
package conntrack

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/pkg/netlink"
)

// Forget deletes the connection tracking entries of a protocol (17 for UDP) for
// which stale says so, and returns how many those were. The next packet of such a
// flow is seen as the first of a new one. Equivalent to:
//
//	conntrack -L -p PROTOCOL; conntrack -D -p PROTOCOL -s … --sport … -d … --dport …
//
// Where nothing is tracked it costs the reading of one file.
func Forget(protocol uint8, stale func(Flow) bool) (forgotten int, err error) {
	err = tracking(func(t tracker) error {
		// The kernel leaves out other protocols, from 5.8 on; an older one ignores
		// the filter.
		tuple := nl.NewRtAttr(attributeTupleOrig|unix.NLA_F_NESTED, nil)
		tuple.AddRtAttr(tupleProtocol|unix.NLA_F_NESTED, nil).AddRtAttr(protocolKind, []byte{protocol})
		filter := filtering(filterOriginal, filterOnProtocol)
		for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
			n, err := t.forget(family, func(f Flow) bool { return f.Protocol == protocol && stale(f) }, tuple, filter)
			forgotten += n
			if err != nil {
				return fmt.Errorf("deleting connection tracking entries of protocol %d: %w", protocol, err)
			}
		}
		return nil
	})
	return forgotten, err
}

// ForgetFlows is [Forget] for all protocols, in one reading of the table.
func ForgetFlows(stale func(Flow) bool) (forgotten int, err error) {
	err = tracking(func(t tracker) error {
		for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
			n, err := t.forget(family, stale)
			forgotten += n
			if err != nil {
				return fmt.Errorf("deleting connection tracking entries: %w", err)
			}
		}
		return nil
	})
	return forgotten, err
}

// ForgetAddresses deletes the connection tracking entries of all flows from the
// addresses and to them, translated ones included, so that no later holder of
// an address meets an old entry. Equivalent to, for each:
//
//	conntrack -D --orig-src ADDRESS; conntrack -D --reply-src ADDRESS
//
// Where nothing is tracked it costs the reading of one file.
func ForgetAddresses(addresses []netip.Addr) error {
	return tracking(func(t tracker) error {
		for _, address := range addresses {
			if err := t.forgetAddress(address); err != nil {
				return fmt.Errorf("deleting connection tracking entries of %s: %w", address, err)
			}
		}
		return nil
	})
}

// tracker is a socket to connection tracking.
type tracker struct{ *netlink.Socket }

// tracking calls f with a tracker, unless nothing is tracked.
func tracking(f func(tracker) error) error {
	if tracksNothing() {
		return nil
	}
	s, err := netlink.Open(unix.NETLINK_NETFILTER, 16<<10)
	if err != nil {
		return err
	}
	defer s.Close()
	return f(tracker{s})
}

// forget reads the table of a family, as far as the filter leaves it, and deletes
// what is stale.
func (t tracker) forget(family int, stale func(Flow) bool, filter ...nl.NetlinkRequestData) (forgotten int, err error) {
	entries, err := t.Dump(messageGet, append([]nl.NetlinkRequestData{generic(family)}, filter...)...)
	if err != nil {
		return 0, err
	}
	for _, entry := range entries {
		f, ok := parse(entry)
		if !ok || !stale(f) {
			continue
		}
		// It may have ended by itself.
		err := t.delete(family, nl.NewRtAttr(attributeTupleOrig|unix.NLA_F_NESTED, f.tuple), nl.NewRtAttr(attributeID, f.id))
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return forgotten, err
		}
		forgotten++
	}
	return forgotten, nil
}

// forgetAddress has the kernel look for an IPv4 address. A kernel before 5.19 knows no
// filters here, and those that do, up to 6.18 at least, have it the wrong way round for
// IPv6: they delete what has another address (ctnetlink_filter_match_tuple). To read
// the whole table takes longer and works everywhere.
func (t tracker) forgetAddress(address netip.Addr) error {
	if address.Is4() && t.forgetByFilter(address) == nil {
		return nil
	}
	return t.forgetByReading(address)
}

func (t tracker) forgetByFilter(address netip.Addr) error {
	// Whoever opened the flow is the source of its original direction;
	// whoever answers, after translation, is the source of its reply.
	for tuple, flags := range map[int]int{attributeTupleOrig: filterOriginal, attributeTupleReply: filterReply} {
		of := nl.NewRtAttr(tuple|unix.NLA_F_NESTED, nil)
		of.AddRtAttr(tupleIP|unix.NLA_F_NESTED, nil).AddRtAttr(ipv4Source, address.AsSlice())
		if err := t.delete(unix.AF_INET, of, filtering(flags, filterOnSource)); err != nil {
			return err
		}
	}
	return nil
}

func (t tracker) forgetByReading(address netip.Addr) error {
	_, err := t.forget(familyOf(address), func(f Flow) bool { return f.Source.Addr() == address || f.Answering.Addr() == address })
	return err
}

func (t tracker) delete(family int, which ...nl.NetlinkRequestData) error {
	r := t.Request(messageDelete, 0)
	r.AddData(generic(family))
	for _, w := range which {
		r.AddData(w)
	}
	return t.Acknowledge(r)
}

func generic(family int) *nl.Nfgenmsg {
	return &nl.Nfgenmsg{NfgenFamily: uint8(family), Version: nl.NFNETLINK_V0}
}

// filtering says which parts of a direction's tuple have to be as given.
func filtering(direction int, on uint32) *nl.RtAttr {
	filter := nl.NewRtAttr(attributeFilter|unix.NLA_F_NESTED, nil)
	filter.AddRtAttr(direction, nl.Uint32Attr(on))
	return filter
}

func familyOf(address netip.Addr) int {
	if address.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}
