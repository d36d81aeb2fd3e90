// Package xtables reads the tables of iptables-legacy.
package xtables

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Chains returns the user's own chains of a table of iptables-legacy in the
// calling thread's network namespace, in the table's order. They are in another part
// of the kernel than nftables, which does not know of them. Where there is no such
// table it returns none, and makes none: to ask for a table by its name is what makes
// it, so the kernel's list of tables is read first. It needs CAP_NET_ADMIN, and no
// program. Equivalent to:
//
//	iptables-legacy -t TABLE -S        # ip6tables-legacy where ipv6 is true
func Chains(ipv6 bool, table string) ([]string, error) {
	l := layouts[0]
	if ipv6 {
		l = layouts[1]
	}
	there, err := l.has(table)
	if err != nil || !there {
		return nil, err
	}
	socket, err := unix.Socket(l.family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("opening a socket to read table %s of %s: %w", table, l.program, err)
	}
	defer unix.Close(socket)
	chains, err := l.readChains(socket, table)
	if err != nil {
		return nil, fmt.Errorf("reading table %s of %s: %w", table, l.program, err)
	}
	return chains, nil
}

// layout is what differs between the two families.
type layout struct {
	program string
	names   string // the file that lists the tables of the network namespace
	family  int
	level   int
	// targetOffset is where the 16 bits are in an entry that say where its target
	// begins, from the entry's begin; where the next entry begins comes after it.
	// (struct ipt_entry of linux/netfilter_ipv4/ip_tables.h, ip6t_entry.)
	targetOffset int
}

var layouts = [2]layout{
	{"iptables-legacy", "/proc/thread-self/net/ip_tables_names", unix.AF_INET, unix.SOL_IP, 88},
	{"ip6tables-legacy", "/proc/thread-self/net/ip6_tables_names", unix.AF_INET6, unix.SOL_IPV6, 140},
}

// has reports whether a table is there.
func (l layout) has(table string) (bool, error) {
	text, err := os.ReadFile(l.names)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil // the kernel has no such tables at all
	}
	if err != nil {
		return false, fmt.Errorf("listing tables of %s: %w", l.program, err)
	}
	return slices.Contains(strings.Fields(string(text)), table), nil
}

// Numbers of linux/netfilter_ipv4/ip_tables.h, which are those of IPv6 too.
const (
	getInfo    = 64 // IPT_SO_GET_INFO
	getEntries = 65 // IPT_SO_GET_ENTRIES
	nameSize   = 32 // XT_TABLE_MAXNAMELEN
)

// tableInfo is struct ipt_getinfo.
type tableInfo struct {
	name                  [nameSize]byte
	hooks                 uint32
	hookEntry, underflow  [5]uint32
	entryCount, entrySize uint32 // the latter of all entries, in bytes
}

// tableEntries is the head of struct ipt_get_entries, which entries follow: the
// first begins where 64 bits may.
type tableEntries struct {
	name [nameSize]byte
	size uint32
	_    uint32
}

// readChains reads a table that is there. Somebody may change its size between the
// two questions; the kernel then says so, and both are asked again.
func (l layout) readChains(socket int, table string) (chains []string, err error) {
	for range 10 {
		chains, err = l.tryChains(socket, table)
		if !errors.Is(err, unix.EAGAIN) {
			return chains, err
		}
	}
	return nil, err
}

func (l layout) tryChains(socket int, table string) ([]string, error) {
	var info tableInfo
	copy(info.name[:nameSize-1], table)
	if err := getsockopt(socket, l.level, getInfo, unsafe.Pointer(&info), unsafe.Sizeof(info)); err != nil {
		return nil, err
	}
	// kube-proxy's may have tens of megabytes. They are not of Go's heap, so that
	// they are gone afterwards and not at some collection.
	const head = unsafe.Sizeof(tableEntries{})
	memory, err := unix.Mmap(-1, 0, int(head)+int(info.entrySize), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return nil, fmt.Errorf("allocating %d bytes: %w", info.entrySize, err)
	}
	defer func() { _ = unix.Munmap(memory) }() // it was mapped, so it can be unmapped
	asked := (*tableEntries)(unsafe.Pointer(&memory[0]))
	asked.name, asked.size = info.name, info.entrySize
	if err := getsockopt(socket, l.level, getEntries, unsafe.Pointer(asked), uintptr(len(memory))); err != nil {
		return nil, err
	}
	return l.chainsOf(memory[head:])
}

// chainsOf reads the names of chains out of a table's entries. A chain of a user
// begins with an entry whose target is called ERROR and has the chain's name as data;
// one more, which is called ERROR again, ends the table.
func (l layout) chainsOf(entries []byte) ([]string, error) {
	// struct xt_entry_target: its own size, name, and revision.
	const targetName, targetHead = 2, 32
	const errorTarget = "ERROR"
	var chains []string
	for at := 0; at < len(entries); {
		if len(entries)-at < l.targetOffset+4 {
			return nil, fmt.Errorf("the entry at byte %d of %d is cut off", at, len(entries))
		}
		target := at + int(binary.NativeEndian.Uint16(entries[at+l.targetOffset:]))
		next := at + int(binary.NativeEndian.Uint16(entries[at+l.targetOffset+2:]))
		if target <= at || target+targetHead > next || next > len(entries) {
			return nil, fmt.Errorf("the entry at byte %d of %d has its target at %d and its end at %d", at, len(entries), target, next)
		}
		if unix.ByteSliceToString(entries[target+targetName:target+targetHead-1]) == errorTarget {
			if name := unix.ByteSliceToString(entries[target+targetHead : next]); next < len(entries) {
				chains = append(chains, name)
			}
		}
		at = next
	}
	return chains, nil
}

// getsockopt is getsockopt(2), for options that x/sys does not know.
func getsockopt(socket, level, option int, value unsafe.Pointer, size uintptr) error {
	length := uint32(size)
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(socket), uintptr(level), uintptr(option), uintptr(value), uintptr(unsafe.Pointer(&length)), 0)
	if errno != 0 {
		return fmt.Errorf("asking for option %d: %w", option, errno)
	}
	return nil
}
