package kernel

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Numbers of linux/netfilter/nfnetlink_conntrack.h that the packages in use lack.
const (
	conntrackDelete      = unix.NFNL_SUBSYS_CTNETLINK<<8 | 2 // IPCTNL_MSG_CT_DELETE
	attributeFilter      = 25                                // CTA_FILTER
	filterOriginal       = 1                                 // CTA_FILTER_ORIG_FLAGS
	filterReply          = 2                                 // CTA_FILTER_REPLY_FLAGS
	filterOnSource       = 1 << 0                            // CTA_FILTER_F_CTA_IP_SRC
	attributeTupleOrig   = 1                                 // CTA_TUPLE_ORIG
	attributeTupleReply  = 2                                 // CTA_TUPLE_REPLY
	attributeTupleIP     = 1                                 // CTA_TUPLE_IP
	attributeIPv4Source  = 1                                 // CTA_IP_V4_SRC
	attributeIPv6Source  = 3                                 // CTA_IP_V6_SRC
	conntrackCountSysctl = "/proc/sys/net/netfilter/nf_conntrack_count"
	conntrackLimitSysctl = "/proc/sys/net/netfilter/nf_conntrack_max"
	conntrackStatistics  = "/proc/thread-self/net/stat/nf_conntrack"
)

// ForgetConnections deletes the connection tracking entries of all flows from
// an address and to it, translated ones included, so that no later holder of
// the address meets an old entry. Equivalent to:
//
//	conntrack -D --orig-src ADDRESS; conntrack -D --reply-src ADDRESS
//
// Where nothing is tracked it costs the reading of one file.
func ForgetConnections(addresses []netip.Addr) error {
	if tracksNothing() {
		return nil
	}
	s, err := openSocket(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return err
	}
	defer s.close()
	for _, address := range addresses {
		if err := s.forget(address); err != nil {
			return fmt.Errorf("deleting connection tracking entries of %s: %w", address, err)
		}
	}
	return nil
}

func (s *socket) forget(address netip.Addr) error {
	// Whoever opened the flow is the source of its original direction;
	// whoever answers, after translation, is the source of its reply.
	for tuple, flags := range map[int]int{attributeTupleOrig: filterOriginal, attributeTupleReply: filterReply} {
		r := s.request(conntrackDelete, 0)
		r.AddData(&nl.Nfgenmsg{NfgenFamily: uint8(family(address)), Version: nl.NFNETLINK_V0})
		t := nl.NewRtAttr(tuple|unix.NLA_F_NESTED, nil)
		source := attributeIPv4Source
		if address.Is6() {
			source = attributeIPv6Source
		}
		t.AddRtAttr(attributeTupleIP|unix.NLA_F_NESTED, nil).AddRtAttr(source, address.AsSlice())
		r.AddData(t)
		filter := nl.NewRtAttr(attributeFilter|unix.NLA_F_NESTED, nil)
		filter.AddRtAttr(flags, nl.Uint32Attr(filterOnSource))
		r.AddData(filter)
		if err := s.acknowledge(r); err != nil {
			// A kernel before 5.19 knows no filters here; reading the
			// whole table takes longer and works everywhere.
			return forgetByReading(address)
		}
	}
	return nil
}

func forgetByReading(address netip.Addr) error {
	f := netlink.InetFamily(family(address))
	for _, side := range []netlink.ConntrackFilterType{netlink.ConntrackOrigSrcIP, netlink.ConntrackReplySrcIP} {
		filter := &netlink.ConntrackFilter{}
		if err := filter.AddIP(side, address.AsSlice()); err != nil {
			return err
		}
		if _, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, f, filter); err != nil {
			return err
		}
	}
	return nil
}

// tracksNothing reports whether connection tracking is not loaded, or empty.
func tracksNothing() bool {
	count, err := os.ReadFile(conntrackCountSysctl)
	return err != nil || bytes.Equal(bytes.TrimSpace(count), []byte("0"))
}

// Tracked returns how many connections the kernel tracks in this network
// namespace, and how many it can. It fails where it tracks none at all.
// Equivalent to: `sysctl net.netfilter.nf_conntrack_count net.netfilter.nf_conntrack_max`.
func Tracked() (entries, limit int, err error) {
	for key, value := range map[string]*int{conntrackCountSysctl: &entries, conntrackLimitSysctl: &limit} {
		raw, err := os.ReadFile(key)
		if err != nil {
			return 0, 0, err
		}
		if *value, err = strconv.Atoi(string(bytes.TrimSpace(raw))); err != nil {
			return 0, 0, fmt.Errorf("reading %s: %w", key, err)
		}
	}
	return entries, limit, nil
}

// InsertFailed returns how many connections could not be tracked because another
// one had the same translated addresses and ports; the first packet of each was
// dropped. Equivalent to: `conntrack -S`.
func InsertFailed() (uint64, error) {
	raw, err := os.ReadFile(conntrackStatistics)
	if err != nil {
		return 0, err
	}
	// A line of column names, and one of hexadecimal numbers for each processor.
	lines := strings.Split(strings.TrimSpace(string(raw)), "\n")
	column := slices.Index(strings.Fields(lines[0]), "insert_failed")
	if column < 0 {
		return 0, fmt.Errorf("reading %s: no column insert_failed", conntrackStatistics)
	}
	var total uint64
	for _, line := range lines[1:] {
		fields := strings.Fields(line)
		if column >= len(fields) {
			continue
		}
		n, err := strconv.ParseUint(fields[column], 16, 64)
		if err != nil {
			return 0, fmt.Errorf("reading %s: %w", conntrackStatistics, err)
		}
		total += n
	}
	return total, nil
}
