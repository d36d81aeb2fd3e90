package ipam

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// tidySets makes the slots of the state and the directories of sets agree.
func (x *session) tidySets() error {
	entries, err := x.list(setsDir)
	if err != nil {
		return err
	}
	have := map[setKey]bool{}
	for _, e := range entries {
		name := setsDir + "/" + e.Name()
		key, ok := parseKey(e.Name())
		if ok && e.IsDir() && key != (setKey{}) {
			if x.st.slot(key) != nil {
				have[key] = true
				continue
			}
			text, err := x.readlink(name + "/" + rangesName)
			if err == nil {
				index, set, ok := parseSetText(text)
				if ok && keyOf(set) == key && len(x.st.slots) < maxSlots {
					x.st.slots = append(x.st.slots, &slot{key: key, index: index})
					have[key] = true
					continue
				}
			}
		}
		if err := x.discard(name); err != nil {
			return err
		}
	}
	// A slot without a directory has lost its ranges and its queue. It gets
	// a directory when it is used again.
	x.st.slots = slices.DeleteFunc(x.st.slots, func(sl *slot) bool { return !have[sl.key] })
	return nil
}

// tidyQueue removes places in queues that belong to no released address, and
// released addresses that are reserved or have no place.
func (x *session) tidyQueue(records map[netip.Addr]Owner) error {
	entries, err := x.list(releasedDir)
	if err != nil {
		return err
	}
	placed := map[setKey]map[uint64]bool{}
	for _, e := range entries {
		name := releasedDir + "/" + e.Name()
		if addr, ok := parseName(e.Name()); ok {
			if _, reserved := records[addr]; !reserved {
				text, err := x.readlink(name)
				key, number, ok := parsePlace(text)
				if err == nil && ok && x.st.slot(key) != nil {
					text, err := x.readlink(placeName(key, number))
					if err == nil && text == e.Name() {
						if placed[key] == nil {
							placed[key] = map[uint64]bool{}
						}
						placed[key][number] = true
						continue
					}
				}
			}
		}
		if err := x.discard(name); err != nil {
			return err
		}
	}
	for _, sl := range x.st.slots {
		dir := setsDir + "/" + sl.key.String()
		entries, err := x.list(dir)
		if err != nil {
			return err
		}
		for _, e := range entries {
			number, ok := parseNumber(e.Name())
			if ok && placed[sl.key][number] || e.Name() == rangesName {
				continue
			}
			if err := x.discard(dir + "/" + e.Name()); err != nil {
				return err
			}
		}
		numbers := slices.Sorted(maps.Keys(placed[sl.key]))
		sl.queued = uint64(len(numbers))
		sl.head = sl.tail
		if len(numbers) > 0 {
			sl.head, sl.tail = numbers[0], numbers[len(numbers)-1]+1
		}
	}
	return nil
}

// readEntries reads what the index says about all owners. What is no entry is
// thrown away.
func (x *session) readEntries() ([]entry, error) {
	files, err := x.list(ownersDir)
	if err != nil {
		return nil, err
	}
	var entries []entry
	for _, file := range files {
		name := ownersDir + "/" + file.Name()
		e, ok := x.entry(name)
		if !ok {
			if err := x.discard(name); err != nil {
				return nil, err
			}
			continue
		}
		entries = append(entries, e)
	}
	return entries, nil
}

// tidyOwners makes the entries of owners agree with the records. Addresses of
// which an entry knows, but no record, were released by another program, or
// never came to be reserved; they go into the queue.
func (x *session) tidyOwners(records map[netip.Addr]Owner) error {
	entries, err := x.readEntries()
	if err != nil {
		return err
	}
	for _, e := range entries {
		for _, h := range e.held {
			if e.has(records[h.addr]) {
				records[h.addr] = e.owner
			}
		}
	}
	held := map[Owner][]netip.Addr{}
	for _, addr := range sorted(records) {
		held[records[addr]] = append(held[records[addr]], addr)
	}
	x.st.legacy = 0
	for o := range held {
		if o.Interface == "" {
			x.st.legacy++
		}
	}

	for _, e := range entries {
		name := entryName(e.owner)
		kept := e
		kept.held = nil
		var lost []holding
		for _, h := range e.held {
			if records[h.addr] == e.owner && !slices.ContainsFunc(kept.held, func(k holding) bool { return k.addr == h.addr }) {
				kept.held = append(kept.held, h)
			} else if _, reserved := records[h.addr]; !reserved {
				lost = append(lost, h)
			}
		}
		for _, addr := range held[e.owner] {
			if !slices.ContainsFunc(kept.held, func(k holding) bool { return k.addr == addr }) {
				kept.held = append(kept.held, holding{addr, x.setOf(addr)})
			}
		}
		for _, h := range lost {
			if err := x.pushLeniently(h.set, h.addr); err != nil {
				return err
			}
		}
		switch {
		case len(kept.held) == 0:
			err = x.remove(name)
		case !slices.Equal(kept.held, e.held):
			var st unix.Stat_t
			if st, err = x.stat(name); err == nil {
				err = x.writeEntry(&kept, time.Unix(st.Mtim.Unix()))
			}
		}
		if err != nil {
			return err
		}
		delete(held, e.owner)
	}

	for o, addrs := range held {
		e := entry{owner: o}
		since := time.Now()
		for _, addr := range addrs {
			e.held = append(e.held, holding{addr, x.setOf(addr)})
			st, err := x.stat(addr.String())
			if err != nil {
				return err
			}
			if t := time.Unix(st.Mtim.Unix()); t.Before(since) {
				since = t
			}
		}
		if err := x.writeEntry(&e, since); err != nil {
			return err
		}
	}
	return nil
}

// writeEntry makes or replaces an entry whose reservation is as old as since.
func (x *session) writeEntry(e *entry, since time.Time) error {
	text := e.text()
	if len(text) > maxLink {
		// Somebody gave one owner more addresses than we would. The path is
		// of less use than they are.
		e.sandbox.Path = ""
		for text = e.text(); len(text) > maxLink; text = e.text() {
			e.held = e.held[:len(e.held)-1]
		}
		x.s.log.Warn("an owner holds more addresses than can be listed", "owner", e.owner)
	}
	name := entryName(e.owner)
	if err := x.setLink(text, name); err != nil {
		return err
	}
	if err := x.before("touch", name); err != nil {
		return err
	}
	at, err := unix.TimeToTimespec(since)
	if err != nil {
		return nil
	}
	times := []unix.Timespec{at, at}
	return fail("touching", name, unix.UtimesNanoAt(x.dir, name, times, unix.AT_SYMLINK_NOFOLLOW))
}
