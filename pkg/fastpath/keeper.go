package fastpath

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/pkg/kernel"
	"github.com/flatnet-cni/flatnet/pkg/netlink"
	"github.com/flatnet-cni/flatnet/pkg/nft"
)

// Keeper has flows remembered, in the network namespace of the caller of its methods.
// They belong to one goroutine, except those that say otherwise. The zero value has
// nothing in the kernel.
type Keeper struct {
	Log *slog.Logger
	// TunnelPort is the overlay's UDP port, 0 for none: packets of the overlay itself are
	// looked at only when they are unwrapped.
	TunnelPort uint16
	VNI        uint32 // of the overlay, 1 to 16777215
	Sysctls    string // "" is /proc/sys

	programs *programs
	table    nft.Keeper
	socket   *netlink.Socket
	attached map[int]place // by the interface's number, as they were left
	attacher attacher      // nil until the programs are in the kernel
	complete bool          // all interfaces were looked at once
	counting counting

	mu         sync.Mutex // of what follows
	setting    *ebpf.Map
	generation uint32
	raised     uint64
	deadline   time.Duration // of the programs' clock
	overlay    overlay
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
	if k.attacher == nil {
		k.attacher = newAttacher()
	}
	k.mu.Lock()
	k.setting = p.Setting
	k.all = true
	k.mu.Unlock()
	if err := k.Renew(); err != nil {
		k.Close()
		return err
	}
	return nil
}

// Loaded reports whether the programs are in the kernel.
func (k *Keeper) Loaded() bool { return k.programs != nil }

// AttachedBy is how the programs are at interfaces: "tcx" or "filters of tc".
func (k *Keeper) AttachedBy() string {
	if k.attacher == nil {
		return ""
	}
	return k.attacher.String()
}

// Close lets go of everything. The programs end, or do nothing from now on; the table
// stays.
func (k *Keeper) Close() {
	k.mu.Lock()
	if k.setting != nil {
		_ = k.write(0) // or the deadline comes by itself
	}
	k.setting = nil
	k.mu.Unlock()
	if k.attacher != nil {
		k.attacher.close()
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
	if touched == nil {
		touched = map[int]bool{}
	}
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
	want := []nft.Table{Table(others, Tunnel{where.Outer, k.TunnelPort})}
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
// verify is set. Where an interface loses them, all flows are decided anew.
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
	if err := k.useOverlay(k.overlayOf(where, all)); err != nil {
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
	if everything {
		for _, l := range all {
			touched[l.index] = true
		}
	}
	for index := range k.attached {
		touched[index] = true
	}
	for index := range touched {
		if p, there := now[index]; there && p.reason == "" {
			continue
		}
		if err := k.attacher.detach(s, index); err != nil && k.Log != nil && stillThere(s, index) {
			k.Log.Warn("programs of the fast path are not taken away", "interface", index, "error", err)
		}
	}
	if anyLost(k.attached, now, all) {
		k.Raise()
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

// anyLost reports whether an interface that is still there has lost the programs: what the
// programs at others remember may lead to it, past whoever is to decide there now. Nobody
// but who takes them away knows of it, for the kernel tells nothing of links.
func anyLost(before, now map[int]place, all []interfaceLink) bool {
	return slices.ContainsFunc(all, func(l interfaceLink) bool {
		was, known := before[l.index]
		is, still := now[l.index]
		return known && was.reason == "" && (!still || is.reason != "")
	})
}

// put puts the programs at both sides of an interface. It says why they are not to be
// there where that shows only now, and whether they had to be put there.
func (k *Keeper) put(s *netlink.Socket, p place) (reason string, written bool, err error) {
	if p.pod {
		if reason, err := k.othersDecide(s, p); reason != "" || err != nil {
			return reason, false, err
		}
	}
	return k.attacher.attach(s, p.index, k.programs.sides(p.pod))
}

// stillThere reports whether an interface is there: one that has gone while it was looked
// at is no failure.
func stillThere(s *netlink.Socket, index int) bool {
	all, err := listLinks(s)
	return err != nil || slices.ContainsFunc(all, func(l interfaceLink) bool { return l.index == index })
}

// Leaving is how much of a node is left alone by [Keeper.Remove].
type Leaving struct {
	Tables bool // the kernel has nf_tables: the table is removed
	// Qdiscs has those removed as well that only held flatnet's filters, but for pods':
	// an interface that is up loses what it sends for a moment.
	Qdiscs bool
}

// Remove takes away what any keeper has left in the kernel, and says what that was.
// Links end with their keeper; filters and the table stay.
func (k *Keeper) Remove(leaving Leaving) (removed []string, err error) {
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
	for _, l := range all {
		left, err := removeFilters(s, l.index)
		if left.removed {
			removed = append(removed, "filters of the fast path at "+l.name)
			if leaving.Qdiscs && !left.others && err == nil && l.group != kernel.Group {
				err = kernel.RemoveClsact(s, l.index)
			}
		}
		if err != nil && stillThere(s, l.index) {
			errs = append(errs, fmt.Errorf("interface %s: %w", l.name, err))
		}
	}
	slices.Sort(removed)
	if leaving.Tables {
		k.table.Keeps = []nft.ID{TableID}
		there, err := k.table.Remove()
		if err != nil {
			errs = append(errs, fmt.Errorf("removing nftables table %s: %w", TableID, err))
		}
		if len(there) > 0 {
			removed = append(removed, "nftables table "+TableID.String())
		}
	}
	return removed, errors.Join(errs...)
}
