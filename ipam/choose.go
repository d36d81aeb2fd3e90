package ipam

import (
	"errors"
	"math"
	"net/netip"
)

// errNothingFree means that neither the lap nor the queue of a set offers an
// address.
var errNothingFree = errors.New("nothing is free")

// pick is an address that was chosen and is not reserved yet.
type pick struct {
	addr  netip.Addr
	r     *Range
	slot  *slot
	asked bool // by name
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
		if x.desperate {
			return x.waits(addr, set)
		}
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
