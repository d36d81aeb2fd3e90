package fastpath

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/pkg/netlink"
	"github.com/flatnet-cni/flatnet/pkg/nft"

	"github.com/cilium/ebpf"
)

// Keeper has flows remembered, in the network namespace of the caller of its methods.
// They belong to one goroutine, except those that say otherwise. The zero value has
// nothing in the kernel.
type Keeper struct {
	Log *slog.Logger
	// TunnelPort is the overlay's UDP port, 0 for none: packets of the overlay itself are
	// looked at only when they are unwrapped.
	TunnelPort uint16

	programs *programs
	table    nft.Keeper
	socket   *netlink.Socket
	attached map[int]place // by the interface's number, as they were left
	links    map[int][2]link.Link
	complete bool // all interfaces were looked at once

	mu         sync.Mutex // of what follows
	setting    *ebpf.Map
	generation uint32
	raised     uint64
	touched    map[int]bool // interfaces that something has happened to
	all        bool         // anything may have happened
}

// Load brings the programs into the kernel. It does nothing where they are there.
func (k *Keeper) Load() error {
	if k.programs != nil {
		return nil
	}
	p, err := load()
	if err != nil {
		return err
	}
	k.programs = p
	k.mu.Lock()
	k.setting = p.Setting
	k.all = true
	k.mu.Unlock()
	if err := k.raise(); err != nil {
		k.Close()
		return err
	}
	return nil
}

// Loaded reports whether the programs are in the kernel.
func (k *Keeper) Loaded() bool { return k.programs != nil }

// Close lets go of everything. The programs end; the table stays.
func (k *Keeper) Close() {
	k.mu.Lock()
	k.setting = nil
	k.mu.Unlock()
	for index := range k.links {
		k.unlink(index)
	}
	if k.programs != nil {
		k.programs.Close()
		k.programs = nil
	}
	if k.socket != nil {
		k.socket.Close()
		k.socket = nil
	}
	k.attached, k.complete = nil, false
	k.table.Close()
}

// Raise has all flows decided anew, from the next packet on. It may be called from any
// goroutine, and at any time.
func (k *Keeper) Raise() {
	if err := k.raise(); err != nil && k.Log != nil {
		k.Log.Error("remembered flows are not decided anew at once, but within their lifetime", "lifetime", Lifetime, "error", err)
	}
}

func (k *Keeper) raise() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.setting == nil {
		return nil
	}
	const lower = 0xffff
	if k.generation++; k.generation&lower == 0 {
		k.generation++ // 0 means that a packet has none
	}
	k.raised++
	err := k.setting.Put(uint32(0), &programSettings{
		Generation: k.generation, Lifetime: uint64(Lifetime.Nanoseconds()),
		Tunnel: binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, k.TunnelPort)),
	})
	if err != nil {
		return fmt.Errorf("raising the generation: %w", err)
	}
	return nil
}

// Touched notes that something has happened to an interface; 0 is any. It may be called
// from any goroutine.
func (k *Keeper) Touched(index int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	const most = 10_000
	if index == 0 || len(k.touched) >= most {
		k.all = true
		return
	}
	if k.touched == nil {
		k.touched = map[int]bool{}
	}
	k.touched[index] = true
}

// takeTouched returns what was touched since it was called last.
func (k *Keeper) takeTouched() (touched map[int]bool, all bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	touched, all = k.touched, k.all
	k.touched, k.all = nil, false
	return touched, all
}

// Done is what an attaching came to.
type Done struct {
	Attached []string // names of interfaces, sorted
	// Repaired are interfaces whose programs somebody had taken away.
	Repaired []string
	Skipped  []Skipped // sorted by name
}

// Skipped is an interface where no flows are remembered.
type Skipped struct {
	Interface string `json:"interface"`
	Reason    string `json:"reason"`
	Failed    bool   `json:"failed"` // it is not meant to be so
}

// Mark makes the rules by which netfilter says what may be remembered, and returns how
// much of it somebody had changed. Verify says to look at what is there.
func (k *Keeper) Mark(ctx context.Context, where Where, verify bool) (repaired int, err error) {
	s, err := k.connect()
	if err != nil {
		return 0, err
	}
	all, err := listLinks(s)
	if err != nil {
		return 0, err
	}
	var others []int
	for _, p := range where.places(all) {
		if p.reason == "" && !p.pod {
			others = append(others, p.index)
		}
	}
	slices.Sort(others)
	k.table.Keeps = []nft.ID{TableID}
	k.table.Log = k.Log
	want := []nft.Table{Table(others)}
	if verify {
		r, err := k.table.Verify(ctx, want)
		if err != nil {
			return 0, fmt.Errorf("comparing nftables table %s: %w", TableID, err)
		}
		return r.Count, nil
	}
	if _, _, err := k.table.Sync(ctx, want); err != nil {
		return 0, fmt.Errorf("writing nftables table %s: %w", TableID, err)
	}
	return 0, nil
}

// Port is that of the keeper's transactions of nftables. It may be called from any goroutine.
func (k *Keeper) Port() uint32 { return k.table.Port() }

func (k *Keeper) connect() (*netlink.Socket, error) {
	if k.socket == nil {
		const bytes = 64 << 10
		s, err := netlink.Open(unix.NETLINK_ROUTE, bytes)
		if err != nil {
			return nil, err
		}
		k.socket = s
	}
	return k.socket, nil
}

// Attach has the programs at the interfaces where they are to be and at no others.
// Interfaces that were right and that nothing has happened to are not looked at, unless
// verify is set.
func (k *Keeper) Attach(where Where, verify bool) (done Done, err error) {
	s, err := k.connect()
	if err != nil {
		return done, err
	}
	touched, everything := k.takeTouched()
	all, err := listLinks(s)
	if err != nil {
		k.Touched(0)
		return done, err
	}
	everything = everything || verify || !k.complete
	now := map[int]place{}
	for _, p := range where.places(all) {
		before, known := k.attached[p.index]
		if known && before.reason == p.reason && !touched[p.index] && !everything {
			now[p.index] = before
			continue
		}
		repaired := false
		if p.reason == "" {
			p.reason, repaired, err = k.put(s, p)
		}
		if err != nil && stillThere(s, p.index) {
			done.Skipped = append(done.Skipped, Skipped{p.name, err.Error(), true})
			k.Touched(p.index)
		}
		if err != nil {
			err = nil
			continue
		}
		if repaired && known && before.reason == "" {
			done.Repaired = append(done.Repaired, p.name)
		}
		now[p.index] = p
	}
	for index := range k.links {
		if p, there := now[index]; !there || p.reason != "" {
			k.unlink(index)
		}
	}
	k.attached, k.complete = now, true
	for _, p := range now {
		if p.reason == "" {
			done.Attached = append(done.Attached, p.name)
		} else {
			done.Skipped = append(done.Skipped, Skipped{p.name, p.reason, false})
		}
	}
	slices.Sort(done.Attached)
	slices.SortFunc(done.Skipped, func(a, b Skipped) int {
		if a.Interface < b.Interface {
			return -1
		}
		return 1
	})
	return done, nil
}

// put puts the programs at both sides of an interface. It says why they are not to be
// there where that shows only now, and whether they had to be put there.
func (k *Keeper) put(s *netlink.Socket, p place) (reason string, written bool, err error) {
	programs := [2]*ebpf.Program{k.programs.Look, k.programs.LearnLink}
	if p.pod {
		if reason, err := k.othersDecide(s, p); reason != "" || err != nil {
			return reason, false, err
		}
		programs[1] = k.programs.LearnPod
	}
	written, err = k.link(p.index, programs)
	return "", written, err
}

// othersDecide says who else decides at the egress of a pod's interface, which would be
// passed by; "" is nobody.
func (k *Keeper) othersDecide(s *netlink.Socket, p place) (reason string, err error) {
	filters, err := egressFilters(s, p.index)
	if err != nil {
		return "", fmt.Errorf("listing filters: %w", err)
	}
	if len(filters) > 0 {
		return fmt.Sprintf("somebody else's filter %s decides what the pod receives (tc filter show dev %s egress)", filters[0], p.name), nil
	}
	if others := k.otherPrograms(p.index); others > 0 {
		return fmt.Sprintf("%d programs of somebody else's decide what the pod receives (bpftool net show dev %s)", others, p.name), nil
	}
	return "", nil
}

// stillThere reports whether an interface is there: one that has gone while it was looked
// at is no failure.
func stillThere(s *netlink.Socket, index int) bool {
	all, err := listLinks(s)
	return err != nil || slices.ContainsFunc(all, func(l interfaceLink) bool { return l.index == index })
}

// Remove takes away what any keeper has left in the kernel, and says what that was.
// Programs end with their keeper; only its table stays, which a kernel without nf_tables
// does not have.
func (k *Keeper) Remove(tables bool) (removed []string, err error) {
	defer k.Close()
	if !tables {
		return nil, nil
	}
	k.table.Keeps = []nft.ID{TableID}
	there, err := k.table.Remove()
	if err != nil {
		err = fmt.Errorf("removing nftables table %s: %w", TableID, err)
	}
	if len(there) > 0 {
		removed = append(removed, "nftables table "+TableID.String())
	}
	return removed, err
}

// now is the clock of the programs (CLOCK_MONOTONIC).
func now() (time.Duration, error) {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		return 0, err
	}
	return time.Duration(t.Nano()), nil
}
