package ipam

import (
	"maps"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// rebuild makes the index agree with the records by reading all of them. It
// is for a directory that was never seen, that another program has changed,
// or that was left in the middle of an operation. If the records are of
// another boot (discard), it removes them.
//
// Whatever it does leads to the same end if it is interrupted and done again.
func (x *session) rebuild(discard bool) error {
	x.st.slots = slices.DeleteFunc(x.st.slots, func(sl *slot) bool { return sl.unborn })
	if err := x.prepare(); err != nil {
		return err
	}
	records, torn, err := x.scan()
	if err != nil {
		return err
	}
	if err := x.tidySets(); err != nil {
		return err
	}
	if err := x.tidyQueue(records); err != nil {
		return err
	}
	if discard {
		if len(records) > 0 {
			x.s.log.Info("reservations of an earlier boot are discarded", "directory", x.s.path, "addresses", len(records))
		}
		for _, addr := range sorted(records) {
			if err := x.remove(addr.String()); err != nil {
				return err
			}
		}
	}
	// Records without an owner were of a process that died while it wrote
	// them: writers hold the lock, and we have it.
	for _, addr := range torn {
		x.s.log.Warn("a reservation without a readable owner is removed", "directory", x.s.path, "address", addr)
		if err := x.remove(addr.String()); err != nil {
			return err
		}
		if err := x.pushLeniently(setKey{}, addr); err != nil {
			return err
		}
	}
	if discard {
		err = x.tidyOwners(nil)
		for _, addr := range sorted(records) {
			if err != nil {
				break
			}
			// Those with an entry were pushed with it.
			var place string
			if place, err = x.readlink(releasedName(addr)); err == nil && place == "" {
				err = x.pushLeniently(setKey{}, addr)
			}
		}
	} else {
		err = x.tidyOwners(records)
	}
	if err != nil {
		return err
	}
	for _, sl := range x.st.slots {
		x.restart(sl)
	}
	if x.s.bootID != "" {
		boot, err := x.readlink(bootName)
		if err != nil {
			return err
		}
		if boot != x.s.bootID {
			if err := x.setLink(x.s.bootID, bootName); err != nil {
				return err
			}
		}
		x.st.boot = x.s.boot
	}
	x.rebuilt = true
	return x.settle()
}

// prepare makes the directories of the index and marks the state.
func (x *session) prepare() error {
	if err := x.mkdir(indexDir); err != nil {
		return err
	}
	if err := x.mark(); err != nil {
		return err
	}
	files, err := x.list(indexDir)
	if err != nil {
		return err
	}
	for _, f := range files {
		switch name := indexDir + "/" + f.Name(); name {
		case stateName, bootName, ownersDir, releasedDir, setsDir:
		default:
			if err := x.discard(name); err != nil {
				return err
			}
		}
	}
	for _, name := range []string{ownersDir, releasedDir, setsDir} {
		if err := x.mkdir(name); err != nil {
			return err
		}
	}
	return nil
}

// scan reads all records. Records that name no owner are returned as torn.
func (x *session) scan() (records map[netip.Addr]Owner, torn []netip.Addr, err error) {
	entries, err := x.list(".")
	if err != nil {
		return nil, nil, err
	}
	records = make(map[netip.Addr]Owner, len(entries))
	for _, e := range entries {
		addr, ok := parseName(e.Name())
		if !ok || !e.Type().IsRegular() {
			continue
		}
		o, ok, exists, err := x.holder(e.Name())
		switch {
		case err != nil:
			return nil, nil, err
		case ok:
			records[addr] = o
		case exists:
			torn = append(torn, addr)
		}
	}
	return records, torn, nil
}

// restart begins a new lap. Where it begins is what last_reserved_ip says, so
// that a directory that comes from host-local goes on in the same order.
func (x *session) restart(sl *slot) {
	sl.fresh, sl.full = math.MaxUint64, false // cut to the size of the set when it is used
	set := x.ranges(sl)
	if len(set) > 0 {
		sl.fresh = set.size()
	}
	if last, ok := x.lastReserved(sl.index); ok && set.RangeFor(last) != nil {
		sl.cursor = last
	}
}

// lastReserved reads the cursor that host-local keeps for a set.
func (x *session) lastReserved(index uint32) (netip.Addr, bool) {
	content, err := x.read(cursorName+strconv.FormatUint(uint64(index), 10), 64)
	if err != nil {
		return netip.Addr{}, false
	}
	addr, err := netip.ParseAddr(strings.TrimSpace(string(content)))
	return addr.Unmap(), err == nil
}

// setOf returns the set that an address belongs to, among those that the
// state knows, or the zero key.
func (x *session) setOf(addr netip.Addr) setKey {
	for _, sl := range x.st.slots {
		if x.ranges(sl).serves(addr) {
			return sl.key
		}
	}
	return setKey{}
}

// ranges returns the ranges of a slot, or none if they cannot be read.
func (x *session) ranges(sl *slot) RangeSet {
	if !sl.read {
		sl.read = true
		text, err := x.readlink(setsDir + "/" + sl.key.String() + "/" + rangesName)
		if err == nil {
			_, sl.set, _ = parseSetText(text)
		}
	}
	return sl.set
}

func sorted(records map[netip.Addr]Owner) []netip.Addr {
	return slices.SortedFunc(maps.Keys(records), netip.Addr.Compare)
}
