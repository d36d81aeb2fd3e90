package ipam

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"
)

// Request asks for one address out of each set of a pool.
type Request struct {
	// Owner is who will hold the addresses; the interface is not empty.
	Owner Owner
	// Sandbox is where they will be used. It is kept with the reservation.
	Sandbox Sandbox
	Pool    Pool
	// Requested are addresses to use instead of any. Each is served by the
	// first set that contains it and serves no other. IPv4-mapped addresses
	// and repetitions do no harm.
	Requested []netip.Addr
	// Gone says whether it is proven that a reservation is of a pod that does
	// not exist any more. Before a set is said to be exhausted, such
	// reservations are released. It is called without the lock, for every
	// reservation that holds an address of the set. Nil proves nothing.
	Gone func(Reservation) bool
}

// Allocation is an address that was handed out.
type Allocation struct {
	// Address has the length of its subnet.
	Address netip.Prefix
	// Gateway is that of the range, or the zero Addr.
	Gateway netip.Addr
}

// errNothingFree means that neither the lap nor the queue of a set offers an
// address.
var errNothingFree = errors.New("nothing is free")

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

// check validates a request, makes its owner canonical, and returns which
// address is requested of which set, or the zero Addr.
func (r *Request) check() ([]netip.Addr, error) {
	var err error
	if r.Owner, err = r.Owner.canonical(); err != nil {
		return nil, fmt.Errorf("reserving an address: %w", err)
	}
	if r.Owner.Interface == "" {
		return nil, errors.New("reserving an address: the interface name is empty")
	}
	if err := r.Sandbox.validate(); err != nil {
		return nil, fmt.Errorf("reserving an address: %w", err)
	}
	if err := r.Pool.Validate(); err != nil {
		return nil, err
	}
	if len(r.Pool) > maxPool {
		return nil, fmt.Errorf("reserving an address: the pool has %d range sets, more than %d", len(r.Pool), maxPool)
	}
	// A link of 4,095 bytes has to hold the entry.
	const longest = len("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/0123456789abcdef,")
	if n := len(r.Owner.ContainerID) + len(r.Owner.Interface) + len(r.Sandbox.Path) + 64 + len(r.Pool)*longest; n > maxLink {
		return nil, fmt.Errorf("reserving an address: container id, interface name, sandbox path and %d addresses are too long together (%d bytes of %d)",
			len(r.Pool), n, maxLink)
	}

	wanted := make([]netip.Addr, len(r.Pool))
	var seen []netip.Addr
	for _, given := range r.Requested {
		addr := given.Unmap()
		if slices.Contains(seen, addr) {
			continue
		}
		seen = append(seen, addr)
		if !addr.IsValid() || addr.Zone() != "" {
			return nil, &OutsideError{given, "is not an address"}
		}
		served, inside := false, false
		for i, set := range r.Pool {
			in := set.RangeFor(addr)
			if in == nil {
				continue
			}
			if addr == in.Gateway {
				return nil, &OutsideError{addr, "is the gateway of subnet " + in.Subnet.String()}
			}
			inside = true
			if !wanted[i].IsValid() {
				wanted[i], served = addr, true
				break
			}
		}
		switch {
		case !inside:
			return nil, &OutsideError{addr, "is outside of all ranges: " + r.Pool.String()}
		case !served:
			return nil, &OutsideError{addr, "is one too many: every range set gives one address, and that of this one is to be another requested one"}
		}
	}
	return wanted, nil
}

// pick is an address that was chosen and is not reserved yet.
type pick struct {
	addr  netip.Addr
	r     *Range
	slot  *slot
	asked bool // by name
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
			x.st = before
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
		if ok && o == e.owner {
			held = append(held, h.addr)
		}
	}
	return held, nil
}

// choose finds a free address in every set. On disk, it changes nothing but
// garbage.
func (x *session) choose(pool Pool, wanted []netip.Addr) ([]pick, error) {
	picks := make([]pick, len(pool))
	for i, set := range pool {
		sl, err := x.slotFor(uint32(i), set)
		if err != nil {
			return nil, err
		}
		picks[i].slot = sl
		if wanted[i].IsValid() {
			picks[i].addr, picks[i].asked = wanted[i], true
			if err := x.available(wanted[i]); err != nil {
				return nil, err
			}
		} else {
			if picks[i].addr, err = x.next(sl, set); err != nil {
				return nil, err
			}
		}
		picks[i].r = set.RangeFor(picks[i].addr)
	}
	return picks, nil
}

// available fails if a requested address has a record.
func (x *session) available(addr netip.Addr) error {
	name := addr.String()
	exists, err := x.exists(name)
	if err != nil || !exists {
		return err
	}
	o, ok, exists, err := x.holder(name)
	if err != nil || !exists {
		return err
	}
	if !ok && !x.rebuilt {
		return errNothingFree // rebuild heals it, unless it is no file
	}
	return &TakenError{addr, o}
}

// next returns the address that is to be handed out next from a set.
func (x *session) next(sl *slot, set RangeSet) (netip.Addr, error) {
	if !sl.full {
		addr, err := x.walk(sl, set)
		if err != nil || addr.IsValid() {
			return addr, err
		}
		addr, err = x.oldest(sl, set)
		if err != nil || addr.IsValid() {
			return addr, err
		}
		if !x.desperate {
			return netip.Addr{}, errNothingFree
		}
		// The lap began after all records were read, and found nothing.
		if x.st.slot(sl.key) == sl {
			if err := x.mark(); err != nil {
				return netip.Addr{}, err
			}
			if err := x.bear(sl); err != nil {
				return netip.Addr{}, err
			}
			sl.full = true
		}
	}
	return netip.Addr{}, &ExhaustedError{Set: set, Used: set.allocatable()}
}

// walk goes on with the lap to the next address that is neither reserved nor
// waiting in a queue, or to the end.
func (x *session) walk(sl *slot, set RangeSet) (netip.Addr, error) {
	sl.fresh = min(sl.fresh, set.size())
	for sl.fresh > 0 {
		addr, r := set.after(sl.cursor)
		sl.cursor = addr
		sl.fresh--
		if addr == r.Gateway {
			continue
		}
		used, err := x.unavailable(addr, sl.key)
		if err != nil {
			return netip.Addr{}, err
		}
		if !used {
			return addr, nil
		}
	}
	return netip.Addr{}, nil
}

// unavailable says whether an address is reserved or waits in a queue. Who
// asks for many gets the answer from lists of both.
func (x *session) unavailable(addr netip.Addr, set setKey) (bool, error) {
	const many = 32
	name := addr.String()
	if x.asked++; x.asked < many {
		used, err := x.exists(name)
		if err != nil || used {
			return used, err
		}
		return x.waits(addr, set)
	}
	if x.used == nil {
		x.used = map[string]string{}
		for _, dir := range []string{releasedDir, "."} {
			entries, err := x.list(dir)
			if err != nil {
				return false, err
			}
			for _, e := range entries {
				x.used[e.Name()] = dir
			}
		}
	}
	switch x.used[name] {
	case "":
		return false, nil
	case releasedDir:
		return x.waits(addr, set)
	}
	return true, nil
}

// waits says whether an address is in a queue: in any, or if the need is
// great, in that of the set itself.
func (x *session) waits(addr netip.Addr, set setKey) (bool, error) {
	text, err := x.readlink(releasedName(addr))
	if !x.desperate || text == "" {
		return text != "", err
	}
	key, _, _ := parsePlace(text)
	return key == set, err
}

// slotFor returns the slot of a set, which may have to be made.
func (x *session) slotFor(index uint32, set RangeSet) (*slot, error) {
	key := keyOf(set)
	sl := x.st.slot(key)
	if sl == nil {
		if len(x.st.slots) >= maxSlots {
			if err := x.evict(); err != nil {
				return nil, err
			}
		}
		sl = &slot{key: key, fresh: math.MaxUint64, unborn: true}
		x.st.slots = append(x.st.slots, sl)
		if last, ok := x.lastReserved(index); ok && set.RangeFor(last) != nil {
			sl.cursor = last
		}
	}
	sl.index, sl.set, sl.read = index, set, true
	sl.used = x.st.clock
	return sl, nil
}

// evict forgets the set that was used longest ago.
func (x *session) evict() error {
	var victim *slot
	for _, sl := range x.st.slots {
		if !sl.unborn && (victim == nil || sl.used < victim.used) {
			victim = sl
		}
	}
	if victim == nil {
		return nil // all of them are of this request
	}
	if err := x.mark(); err != nil {
		return err
	}
	for {
		addr, err := x.head(victim)
		if err != nil {
			return err
		}
		if !addr.IsValid() {
			break
		}
		if err := x.forget(addr); err != nil {
			return err
		}
	}
	if err := x.discard(setsDir + "/" + victim.key.String()); err != nil {
		return err
	}
	x.st.remove(victim)
	return nil
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
