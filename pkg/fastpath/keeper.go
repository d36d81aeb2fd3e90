package fastpath

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
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
	// Filters has filters of tc used also where the kernel has links, for tests of what
	// older kernels have.
	Filters bool

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

// Close lets go of everything. What is attached stays, and goes on.
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
	places, wanted := where.places(all), map[int]bool{}
	now := map[int]place{}
	for _, p := range places {
		before, known := k.attached[p.index]
		if known && before.reason == p.reason && !touched[p.index] && !everything {
			now[p.index] = before
			wanted[p.index] = p.reason == ""
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
		now[p.index], wanted[p.index] = p, p.reason == ""
	}
	if everything {
		k.clear(s, all, wanted)
	} else {
		for index, p := range now {
			if before, known := k.attached[index]; p.reason != "" && known && before.reason == "" {
				k.unlink(index)
				_, _ = removeFilters(s, index) // what stays is found by the next comparison
			}
		}
	}
	for index := range k.links {
		if _, there := now[index]; !there {
			k.unlink(index) // its interface is gone
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

// clear takes flatnet's filters from interfaces where they are not to be.
func (k *Keeper) clear(s *netlink.Socket, all []interfaceLink, wanted map[int]bool) {
	for _, l := range all {
		if wanted[l.index] {
			continue
		}
		k.unlink(l.index)
		if _, err := removeFilters(s, l.index); err != nil && k.Log != nil && stillThere(s, l.index) {
			k.Log.Warn("programs are not removed", "interface", l.name, "error", err)
		}
	}
}

// put puts the programs at both sides of an interface. It says why they are not to be
// there where that shows only now, and whether they had to be put there.
func (k *Keeper) put(s *netlink.Socket, p place) (reason string, written bool, err error) {
	type side struct {
		parent uint32
		found  []filter
	}
	sides := [2]side{{parent: ingressParent}, {parent: egressParent}}
	for i := range sides {
		if sides[i].found, err = listFilters(s, p.index, sides[i].parent); err != nil {
			return "", false, err
		}
	}
	if p.pod {
		for _, f := range sides[1].found {
			if !f.own {
				return fmt.Sprintf("somebody else's filter %s decides what the pod receives (tc filter show dev %s egress)", f.name, p.name), false, nil
			}
		}
		if others := k.othersOfTCX(p.index); others > 0 {
			return fmt.Sprintf("%d programs of somebody else's decide what the pod receives (bpftool net show dev %s)", others, p.name), false, nil
		}
	}
	programs := [2]*ebpf.Program{k.programs.Look, k.programs.LearnLink}
	if p.pod {
		programs[1] = k.programs.LearnPod
	}
	if !k.Filters {
		written, err := k.link(p.index, programs)
		if err == nil {
			if slices.ContainsFunc(append(sides[0].found, sides[1].found...), func(f filter) bool { return f.own }) {
				_, err = removeFilters(s, p.index) // an earlier kernel's, or version's
			}
			return "", written, err
		}
		if !errors.Is(err, ebpf.ErrNotSupported) {
			return "", written, err
		}
	}
	made := false
	for i, name := range []string{namePrefix + "look", namePrefix + "learn"} {
		if slices.ContainsFunc(sides[i].found, func(f filter) bool { return f.own && f.program == k.programs.ids[programs[i]] }) {
			continue
		}
		if !made {
			if err := addClsact(s, p.index); err != nil {
				return "", written, err
			}
			made = true
		}
		if err := putFilter(s, p.index, sides[i].parent, name, programs[i].FD()); err != nil {
			return "", written, err
		}
		written = true
	}
	return "", written, nil
}

// stillThere reports whether an interface is there: one that has gone while it was looked
// at is no failure.
func stillThere(s *netlink.Socket, index int) bool {
	all, err := listLinks(s)
	return err != nil || slices.ContainsFunc(all, func(l interfaceLink) bool { return l.index == index })
}

// Remove takes away all that any keeper has left in the kernel, and says what that was.
// A kernel without nf_tables has no table.
func (k *Keeper) Remove(tables bool) (removed []string, err error) {
	defer k.Close()
	s, err := k.connect()
	if err != nil {
		return nil, err
	}
	all, err := listLinks(s)
	if err != nil {
		return nil, err
	}
	var errs []error
	names := map[string]bool{}
	for _, l := range all {
		there, err := removeFilters(s, l.index)
		if err != nil && stillThere(s, l.index) {
			errs = append(errs, fmt.Errorf("interface %s: %w", l.name, err))
		}
		if there {
			names[l.name] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		removed = append(removed, "fast path at interface "+name)
	}
	if !tables {
		return removed, errors.Join(errs...)
	}
	k.table.Keeps = []nft.ID{TableID}
	there, err := k.table.Remove()
	if err != nil {
		errs = append(errs, fmt.Errorf("removing nftables table %s: %w", TableID, err))
	}
	if len(there) > 0 {
		removed = append(removed, "nftables table "+TableID.String())
	}
	return removed, errors.Join(errs...)
}

// now is the clock of the programs (CLOCK_MONOTONIC).
func now() (time.Duration, error) {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		return 0, err
	}
	return time.Duration(t.Nano()), nil
}
