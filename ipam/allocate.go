package ipam

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strconv"
)

// Allocate reserves an address out of each set of the pool, in the order of
// the pool: all of them or none. Addresses that were never used come first, in
// order from where the last allocation stopped, then the one that was released
// first.
//
// It fails with *RangeError, *OutsideError, *TakenError, *DuplicateError,
// *ExhaustedError, ErrLocked, or an error of the file system, and has then
// changed nothing that is visible to others.
func (s *Store) Allocate(ctx context.Context, r Request) ([]Allocation, error) {
	wanted, err := r.check()
	if err != nil {
		return nil, err
	}
	var stale uint64
	for try := 0; ; try++ {
		var allocated []Allocation
		err := s.do(ctx, func(x *session) (err error) {
			allocated, err = x.allocate(&r, wanted)
			return err
		})
		full, ok := err.(*ExhaustedError)
		if !ok {
			return allocated, err
		}
		full.Stale = stale
		if r.Gone == nil || try == 3 {
			return nil, full
		}
		collected, err := s.collect(ctx, func(v Reservation) bool {
			return slices.ContainsFunc(v.Addresses, full.Set.serves) && r.Gone(v)
		})
		if err != nil {
			return nil, errors.Join(full, err)
		}
		if len(collected) == 0 {
			return nil, full
		}
		stale += uint64(len(collected))
	}
}

// allocate chooses and reserves.
func (x *session) allocate(r *Request, wanted []netip.Addr) ([]Allocation, error) {
	if err := x.refuseDuplicate(r); err != nil {
		return nil, err
	}
	for try := 0; ; try++ {
		before := x.st.clone()
		x.asked, x.used = 0, nil
		picks, err := x.choose(r.Pool, wanted)
		if err == nil {
			err = x.reserve(r, picks)
		}
		switch {
		case err == nil:
			allocated := make([]Allocation, len(picks))
			for i, p := range picks {
				allocated[i] = Allocation{netip.PrefixFrom(p.addr, p.r.Subnet.Bits()), p.r.Gateway}
			}
			return allocated, nil
		case errors.Is(err, errTaken) && try < 8:
			// Somebody made a record without the lock. Choose again.
		case errors.Is(err, errNothingFree) && !x.desperate:
			x.st = x.keep(before)
			if err := x.despair(); err != nil {
				return nil, err
			}
			continue
		default:
			x.st = x.keep(before)
			return nil, err
		}
		x.st = x.keep(before)
	}
}

// despair has every record read before a set is said to be exhausted, and has
// the next search take addresses that wait in the queue of another set.
func (x *session) despair() error {
	x.desperate = true
	if x.rebuilt {
		return nil
	}
	if err := x.rebuild(false); err != nil {
		x.broken = true
		return err
	}
	return nil
}

// refuseDuplicate fails if the owner holds addresses.
func (x *session) refuseDuplicate(r *Request) error {
	e, err := x.find(r.Owner)
	if e == nil || err != nil {
		return err
	}
	held, err := x.verify(e)
	if err != nil {
		return err
	}
	if e.owner != r.Owner {
		// A record of an old version of host-local does not say which
		// interface it is of. It matters if it could be this one.
		held = slices.DeleteFunc(held, func(a netip.Addr) bool {
			return !slices.ContainsFunc(r.Pool, func(set RangeSet) bool { return set.RangeFor(a) != nil })
		})
		if len(held) == 0 {
			return nil
		}
	}
	if len(held) > 0 {
		return &DuplicateError{e.owner, held}
	}
	_, err = x.drop(e)
	return err
}

// verify returns the addresses of an entry that have a record of its owner.
func (x *session) verify(e *entry) ([]netip.Addr, error) {
	var held []netip.Addr
	for _, h := range e.held {
		o, ok, _, err := x.holder(h.addr.String())
		if err != nil {
			return nil, err
		}
		if ok && e.has(o) {
			held = append(held, h.addr)
		}
	}
	return held, nil
}

// reserve puts the intent, then the records on the disk, and settles. If that
// fails, it takes everything back; what cannot be taken back leaves the
// session broken, and the next one heals it.
func (x *session) reserve(r *Request, picks []pick) (err error) {
	if err := x.mark(); err != nil {
		return err
	}
	e := entry{owner: r.Owner, sandbox: r.Sandbox}
	for _, p := range picks {
		e.held = append(e.held, holding{p.addr, p.slot.key})
	}

	var undo []func() error
	defer func() {
		if err == nil {
			return
		}
		for _, inverse := range slices.Backward(undo) {
			if failure := inverse(); failure != nil {
				x.broken = true
				x.s.log.Warn("a reservation that failed is not taken back yet", "owner", r.Owner, "error", failure)
				return
			}
		}
	}()
	for i := range picks {
		if err := x.bear(picks[i].slot); err != nil {
			x.broken = true
			return err
		}
	}
	undo = append(undo, func() error { return x.remove(entryName(e.owner)) })
	if err := x.symlink(e.text(), entryName(e.owner)); err != nil {
		return err
	}
	for _, p := range picks {
		name := p.addr.String()
		if err := x.record(name, recordText(r.Owner)); err != nil {
			return err
		}
		undo = append(undo, func() error { return x.remove(name) })
	}
	// From here on there is no way back to exactly what was.
	defer func() { x.broken = x.broken || err != nil }()
	for _, p := range picks {
		if err := x.forget(p.addr); err != nil {
			return err
		}
		if !p.asked {
			name := cursorName + strconv.FormatUint(uint64(p.slot.index), 10)
			if err := x.write(name, []byte(p.addr.String())); err != nil {
				return err
			}
		}
	}
	return x.settle()
}

// bear makes the directory of a new set.
func (x *session) bear(sl *slot) error {
	if !sl.unborn {
		return nil
	}
	dir := setsDir + "/" + sl.key.String()
	if err := x.mkdir(dir); err != nil {
		return err
	}
	if text := setText(sl.index, sl.set); len(text) <= maxLink {
		if err := x.symlink(text, dir+"/"+rangesName); err != nil {
			return err
		}
	}
	sl.unborn = false
	return nil
}

// keep returns the state before a failed attempt, with what the attempt has
// nevertheless done to the disk.
func (x *session) keep(before state) state {
	for _, old := range before.slots {
		now := x.st.slot(old.key)
		if now == nil {
			continue
		}
		old.head, old.tail, old.queued, old.full = now.head, now.tail, now.queued, now.full
		if now.full {
			old.fresh, old.cursor = now.fresh, now.cursor
		}
	}
	before.slots = slices.DeleteFunc(before.slots, func(sl *slot) bool { return x.st.slot(sl.key) == nil })
	for _, now := range x.st.slots {
		if !now.unborn && before.slot(now.key) == nil {
			before.slots = append(before.slots, now)
		}
	}
	before.clock = x.st.clock
	before.stamp = x.st.stamp
	return before
}
