package fastpath_test

import (
	"strings"

	"github.com/cilium/ebpf"
	vishvananda "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// byFilters attaches by filters of tc.
type byFilters struct{}

func (byFilters) String() string { return "filters of tc" }

// parent is where the filters of a side are.
func (at side) parent() uint32 {
	return [...]uint32{vishvananda.HANDLE_MIN_INGRESS, vishvananda.HANDLE_MIN_EGRESS}[at]
}

// list is of those that have a program.
func (byFilters) list(index int, at side) (all []*vishvananda.BpfFilter, err error) {
	l, err := vishvananda.LinkByIndex(index)
	if err != nil {
		return nil, err
	}
	found, err := vishvananda.FilterList(l, at.parent())
	for _, f := range found {
		if b, is := f.(*vishvananda.BpfFilter); is {
			all = append(all, b)
		}
	}
	return all, err
}

func (b byFilters) programs(index int, at side) (names []string, err error) {
	all, err := b.list(index, at)
	for _, f := range all {
		names = append(names, strings.TrimPrefix(f.Name, "flatnet_"))
	}
	return names, err
}

// detach is equivalent to: `tc filter del dev LINK ingress pref … handle … bpf`.
func (b byFilters) detach(index int, at side) (count int, err error) {
	all, err := b.list(index, at)
	for _, f := range all {
		if err := vishvananda.FilterDel(f); err != nil {
			return count, err
		}
		count++
	}
	return count, err
}

func (b byFilters) add(p *ebpf.Program, index int, at side, where anchor) (remove func() error, err error) {
	others, err := b.list(index, at)
	if err != nil {
		return nil, err
	}
	f := &vishvananda.BpfFilter{
		FilterAttrs: vishvananda.FilterAttrs{
			LinkIndex: index, Parent: at.parent(), Handle: uint32(len(others) + 1), Protocol: unix.ETH_P_ALL,
			Priority: [...]uint16{100, 9900}[where], // of their own: those of a priority are of one kind
		},
		Fd: p.FD(), Name: somebodysProgram, DirectAction: true,
	}
	return func() error { return vishvananda.FilterDel(f) }, vishvananda.FilterAdd(f)
}
