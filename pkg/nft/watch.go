package nft

import (
	"slices"
)

// Watcher calls a function when somebody else's transaction has touched some tables,
// and when that may have happened unseen. It is a [Listener].
type Watcher struct {
	Tables  []ID
	Own     func() uint32 // [Keeper.Port]: transactions of this socket are no reason
	Changed func()        // must not wait

	touched bool // by the transaction that is being told
}

// Missed implements [Listener].
func (w *Watcher) Missed() {
	w.touched = false
	w.Changed()
}

// Change implements [Listener].
func (w *Watcher) Change(c Change) {
	w.touched = w.touched || slices.ContainsFunc(w.Tables, func(id ID) bool { return uint8(id.Family) == uint8(c.Family) && c.InTable(id.Name) })
}

// Commit implements [Listener].
func (w *Watcher) Commit(c Commit) {
	if w.touched && w.Own() != c.Port {
		w.Changed()
	}
	w.touched = false
}
