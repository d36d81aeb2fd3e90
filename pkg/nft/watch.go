package nft

import (
	"slices"

	"golang.org/x/sys/unix"
)

// Watcher calls a function when somebody else's transaction has touched some tables,
// and when that may have happened unseen. It is a [Listener].
type Watcher struct {
	Tables  []ID
	Own     func() uint32 // [Keeper.Port]: transactions of this socket are no reason
	Changed func()        // must not wait
	// Common are sets into which others may put elements. Where nothing but elements of
	// these has changed, Added is called and not Changed; it must not wait either.
	Common []string
	Added  func()

	touched, added bool // by the transaction that is being told
}

// Missed implements [Listener].
func (w *Watcher) Missed() {
	w.touched, w.added = false, false
	w.Changed()
}

// Change implements [Listener].
func (w *Watcher) Change(c Change) {
	if !slices.ContainsFunc(w.Tables, func(id ID) bool { return uint8(id.Family) == uint8(c.Family) && c.InTable(id.Name) }) {
		return
	}
	elements := c.Message == unix.NFT_MSG_NEWSETELEM || c.Message == unix.NFT_MSG_DELSETELEM
	if elements && slices.Contains(w.Common, unix.ByteSliceToString(c.Attribute(unix.NFTA_SET_ELEM_LIST_SET))) {
		w.added = true
	} else {
		w.touched = true
	}
}

// Commit implements [Listener].
func (w *Watcher) Commit(c Commit) {
	if w.Own() != c.Port {
		if w.touched {
			w.Changed()
		}
		if w.added {
			w.Added()
		}
	}
	w.touched, w.added = false, false
}
