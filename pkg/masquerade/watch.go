package masquerade

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/pkg/nft"
)

// Watcher calls a function when somebody else's transaction has touched a table
// that is named flatnet, the agent's or the plugin's, and when that may have
// happened unseen. It is a [nft.Listener].
//
// The process's own transactions are no reason. Those of the given keepers are
// recognised exactly, by their socket. What else the process writes is
// recognised by its name (comm), because the number that the kernel tells is
// a thread's in the machine's first PID namespace, which a container cannot
// compare with its own. So another process of the same name goes unnoticed in
// the plugin's tables, and without keepers in all of them.
type Watcher struct {
	changed func()
	keepers []*Keeper
	name    string  // of this process
	touched touched // by the transaction that is being told
}

// touched are the tables that a transaction changed.
type touched struct{ agents, plugins bool }

// NewWatcher returns a watcher that calls changed, which must not wait.
func NewWatcher(changed func(), keepers ...*Keeper) (*Watcher, error) {
	name, err := os.ReadFile("/proc/thread-self/comm")
	if err != nil {
		return nil, fmt.Errorf("reading the process's name: %w", err)
	}
	return &Watcher{changed: changed, keepers: keepers, name: strings.TrimSuffix(string(name), "\n")}, nil
}

// Missed implements [nft.Listener].
func (w *Watcher) Missed() {
	w.touched = touched{}
	w.changed()
}

// Change implements [nft.Listener].
func (w *Watcher) Change(c nft.Change) {
	switch {
	case !c.InTable(tableID.Name):
	case c.Family == unix.NFPROTO_INET:
		w.touched.agents = true
	default:
		w.touched.plugins = true
	}
}

// Commit implements [nft.Listener].
func (w *Watcher) Commit(c nft.Commit) {
	if w.touched != (touched{}) && !w.own(c) {
		w.changed()
	}
	w.touched = touched{}
}

// own reports whether the transaction that ends is this process's.
func (w *Watcher) own(c nft.Commit) bool {
	if slices.ContainsFunc(w.keepers, func(k *Keeper) bool { return k.table.Port() == c.Port }) {
		return true
	}
	if w.touched.agents && len(w.keepers) > 0 {
		return false
	}
	return c.Process == w.name
}
