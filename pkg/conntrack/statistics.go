package conntrack

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
)

const (
	countSysctl = "/proc/sys/net/netfilter/nf_conntrack_count"
	limitSysctl = "/proc/sys/net/netfilter/nf_conntrack_max"
	statistics  = "/proc/thread-self/net/stat/nf_conntrack"
)

// tracksNothing reports whether connection tracking is not loaded, or empty.
func tracksNothing() bool {
	count, err := os.ReadFile(countSysctl)
	return err != nil || bytes.Equal(bytes.TrimSpace(count), []byte("0"))
}

// Tracked returns how many connections the kernel tracks in this network
// namespace, and how many it can. It fails where it tracks none at all.
// Equivalent to: `sysctl net.netfilter.nf_conntrack_count net.netfilter.nf_conntrack_max`.
func Tracked() (entries, limit int, err error) {
	for key, value := range map[string]*int{countSysctl: &entries, limitSysctl: &limit} {
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
	raw, err := os.ReadFile(statistics)
	if err != nil {
		return 0, err
	}
	// A line of column names, and one of hexadecimal numbers for each processor.
	lines := strings.Split(strings.TrimSpace(string(raw)), "\n")
	column := slices.Index(strings.Fields(lines[0]), "insert_failed")
	if column < 0 {
		return 0, fmt.Errorf("reading %s: no column insert_failed", statistics)
	}
	var total uint64
	for _, line := range lines[1:] {
		fields := strings.Fields(line)
		if column >= len(fields) {
			continue
		}
		n, err := strconv.ParseUint(fields[column], 16, 64)
		if err != nil {
			return 0, fmt.Errorf("reading %s: %w", statistics, err)
		}
		total += n
	}
	return total, nil
}
