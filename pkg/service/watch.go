package service

import (
	"encoding/binary"
	"math/rand/v2"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/pkg/kernel"
)

// Watcher calls a function when somebody else's transaction has touched the tables,
// and when that may have happened unseen. It is a [kernel.NftablesListener].
//
// Who made a transaction cannot be told by what the kernel says of it: those of a
// keeper are made by a process `nft`, of which others may run too, and by sockets
// that live for one transaction. So the keeper puts a stamp into each of its own: an
// element of the set stamps that no transaction had before, which the kernel tells
// of with the rest. Where there is none, or an old one, as when somebody restores
// what he had listed before, it was somebody else.
type Watcher struct {
	changed func()
	stamps  *stamps
	touched bool   // by the transaction that is being told
	stamped bool   // by the keeper
	last    uint32 // stamp that was seen
}

// NewWatcher returns a watcher that calls changed, which must not wait.
func NewWatcher(k *Keeper, changed func()) *Watcher {
	return &Watcher{changed: changed, stamps: k.stamps, last: k.stamps.issued()}
}

// Missed implements [kernel.NftablesListener].
func (w *Watcher) Missed() {
	w.touched, w.stamped = false, false
	w.changed()
}

// Change implements [kernel.NftablesListener].
func (w *Watcher) Change(c kernel.NftablesChange) {
	if !c.InTable(TableName) {
		return
	}
	w.touched = true
	if c.Message != unix.NFT_MSG_NEWSETELEM {
		return
	}
	if stamp, is := stampOf(c); is && w.stamps.isNew(stamp, w.last) {
		w.last, w.stamped = stamp, true
	}
}

// Commit implements [kernel.NftablesListener].
func (w *Watcher) Commit(kernel.NftablesCommit) {
	if w.touched && !w.stamped {
		w.changed()
	}
	w.touched, w.stamped = false, false
}

// stamps are the numbers that a keeper marks its transactions with. Each is one more
// than the one before; the first is random, since those of another process may not
// have expired yet.
type stamps struct{ last atomic.Uint32 }

func newStamps() *stamps {
	s := &stamps{}
	s.last.Store(rand.Uint32())
	return s
}

// issue returns the stamp of a transaction that is about to be run.
func (s *stamps) issue() uint32 { return s.last.Add(1) }

// issued returns the last stamp.
func (s *stamps) issued() uint32 { return s.last.Load() }

// isNew reports whether a stamp was issued after another.
func (s *stamps) isNew(stamp, after uint32) bool {
	return int32(stamp-after) > 0 && int32(s.issued()-stamp) >= 0
}

// stampOf returns the stamp that a new element is.
func stampOf(c kernel.NftablesChange) (stamp uint32, is bool) {
	if unix.ByteSliceToString(c.Attribute(unix.NFTA_SET_ELEM_LIST_SET)) != setStamps.schema().name {
		return 0, false
	}
	for _, element := range kernel.NetlinkAttributes(c.Attribute(unix.NFTA_SET_ELEM_LIST_ELEMENTS)) {
		for kind, key := range kernel.NetlinkAttributes(element) {
			if kind != unix.NFTA_SET_ELEM_KEY {
				continue
			}
			for kind, raw := range kernel.NetlinkAttributes(key) {
				if kind == unix.NFTA_DATA_VALUE && len(raw) == 4 {
					return binary.NativeEndian.Uint32(raw), true
				}
			}
		}
	}
	return 0, false
}
