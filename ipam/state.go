package ipam

import (
	"encoding/binary"
	"hash/crc32"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

const (
	// stateMagic begins the state file; it is changed with the format. No
	// container id contains its zero byte.
	stateMagic = "flatnet\x00"
	headerSize = 96
	slotSize   = 72
	// maxSlots bounds the number of range sets whose position is remembered.
	// The one used longest ago makes way for a new one.
	maxSlots = 64
	// maxPool bounds the number of sets in one request, so that they do not
	// make way for each other.
	maxPool  = maxSlots / 2
	maxState = headerSize + maxSlots*slotSize
)

// bootMark is a digest of a boot id. The zero mark means that it is unknown.
type bootMark [16]byte

// stamp is what the record directory looked like after the last operation.
//
// Linux gives a directory a distinct time for every change that follows a
// stat since 6.13. Before that, times advance once in a timer tick (1 to 10
// ms), and a change by somebody else within the tick of our own last change
// shows in the size only, where the file system has one (tmpfs). What such a
// change can do is bounded: no address is handed out that has a record.
type stamp struct {
	dev, ino     uint64
	mtime, ctime int64 // ns
	size         int64
}

func stampOf(st *unix.Stat_t) stamp {
	return stamp{dev: st.Dev, ino: st.Ino, mtime: st.Mtim.Nano(), ctime: st.Ctim.Nano(), size: st.Size}
}

// state is the content of the state file.
type state struct {
	busy   bool     // an operation is under way, or died
	boot   bootMark // the boot that the records belong to
	stamp  stamp
	clock  uint64 // counts operations; orders slots by their last use
	legacy uint32 // owners without an interface name
	slots  []*slot
}

// slot is where allocation from one range set stands.
//
// The addresses of a set form a ring. A lap goes once around it, and fresh
// counts the places that the lap has not come to. What it passed is either
// reserved or in the queue of released addresses, which are the consecutive
// numbers from head to tail, with gaps. Only when there is neither a fresh
// place nor anything in the queue is the set full, or was something lost (by
// a crash, by another program, by the bound on the queue): another lap over
// all places decides.
type slot struct {
	key        setKey
	index      uint32     // of the set in the pool, for last_reserved_ip
	cursor     netip.Addr // the last place that the lap came to
	fresh      uint64
	head, tail uint64 // numbers of the first and behind the last in the queue
	queued     uint64 // how many there are
	used       uint64 // state.clock at the last use
	full       bool   // a whole lap has found nothing, and nothing was freed since

	// Not stored:
	unborn bool     // its directory is not made yet
	set    RangeSet // its ranges, if read; see session.ranges
	read   bool
}

func (s *state) slot(key setKey) *slot {
	for _, sl := range s.slots {
		if sl.key == key {
			return sl
		}
	}
	return nil
}

func (s *state) clone() state {
	c := *s
	c.slots = make([]*slot, len(s.slots))
	for i, sl := range s.slots {
		copied := *sl
		c.slots[i] = &copied
	}
	return c
}

// encode appends the state in its stored form to b.
func (s *state) encode(b []byte) []byte {
	le := binary.LittleEndian
	start := len(b)
	b = append(b, stateMagic...)
	b = append(b, 0, 0, 0, 0) // checksum
	b = append(b, flag(s.busy), 0, 0, 0)
	b = append(b, s.boot[:]...)
	for _, v := range []uint64{s.stamp.dev, s.stamp.ino, uint64(s.stamp.mtime), uint64(s.stamp.ctime), uint64(s.stamp.size), s.clock} {
		b = le.AppendUint64(b, v)
	}
	b = le.AppendUint32(b, s.legacy)
	b = le.AppendUint32(b, uint32(len(s.slots)))
	b = le.AppendUint64(b, 0)
	for _, sl := range s.slots {
		b = append(b, sl.key[:]...)
		b = le.AppendUint32(b, sl.index)
		b = append(b, byte(sl.cursor.BitLen()/8), flag(sl.full), 0, 0)
		cursor := [16]byte{}
		if sl.cursor.IsValid() {
			cursor = sl.cursor.As16()
		}
		b = append(b, cursor[:]...)
		for _, v := range []uint64{sl.fresh, sl.head, sl.tail, sl.queued, sl.used} {
			b = le.AppendUint64(b, v)
		}
	}
	le.PutUint32(b[start+8:], crc32.ChecksumIEEE(b[start+12:]))
	return b
}

func flag(b bool) byte {
	if b {
		return 1
	}
	return 0
}

// decodeState reads what encode wrote. It reports false for anything else.
func decodeState(b []byte) (state, bool) {
	le := binary.LittleEndian
	var s state
	if len(b) < headerSize || string(b[:8]) != stateMagic {
		return s, false
	}
	n := int(le.Uint32(b[84:]))
	if n > maxSlots || len(b) < headerSize+n*slotSize {
		return s, false
	}
	b = b[:headerSize+n*slotSize]
	if le.Uint32(b[8:]) != crc32.ChecksumIEEE(b[12:]) {
		return s, false
	}
	s.busy = b[12] != 0
	copy(s.boot[:], b[16:])
	s.stamp = stamp{dev: le.Uint64(b[32:]), ino: le.Uint64(b[40:]),
		mtime: int64(le.Uint64(b[48:])), ctime: int64(le.Uint64(b[56:])), size: int64(le.Uint64(b[64:]))}
	s.clock = le.Uint64(b[72:])
	s.legacy = le.Uint32(b[80:])
	s.slots = make([]*slot, 0, n+1)
	for b = b[headerSize:]; len(b) > 0; b = b[slotSize:] {
		sl := &slot{key: setKey(b[:8]), index: le.Uint32(b[8:]), full: b[13] != 0,
			fresh: le.Uint64(b[32:]), head: le.Uint64(b[40:]), tail: le.Uint64(b[48:]), queued: le.Uint64(b[56:]), used: le.Uint64(b[64:])}
		switch b[12] {
		case 4:
			sl.cursor = netip.AddrFrom16([16]byte(b[16:32])).Unmap()
		case 16:
			sl.cursor = netip.AddrFrom16([16]byte(b[16:32]))
		}
		if sl.tail < sl.head || s.slot(sl.key) != nil || sl.key == (setKey{}) {
			return state{}, false
		}
		s.slots = append(s.slots, sl)
	}
	return s, true
}

// remove takes a slot out of the state.
func (s *state) remove(sl *slot) {
	s.slots = slices.DeleteFunc(s.slots, func(o *slot) bool { return o == sl })
}
