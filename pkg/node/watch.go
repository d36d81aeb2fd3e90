package node

import (
	"sync/atomic"

	"github.com/flatnet-cni/flatnet/pkg/filewatch"
)

// watching keeps a directory watched while it is there.
type watching struct {
	concerns  func(name string) bool // which entries count
	changed   chan struct{}          // has one element after a change
	writing   atomic.Bool            // somebody is writing to an entry
	directory *filewatch.Directory
}

// newWatching prepares to watch for changes of the entries that concern the caller.
func newWatching(concerns func(name string) bool) *watching {
	return &watching{concerns: concerns, changed: make(chan struct{}, 1)}
}

// ensure watches the directory at path, and watches anew if it is not the one
// that was there before.
func (w *watching) ensure(path string) error {
	if w.directory != nil && !w.directory.Stale() {
		return nil
	}
	w.close()
	d, err := filewatch.Watch(path)
	if err != nil {
		return err
	}
	w.directory = d
	w.writing.Store(false)
	go d.Forward(w.notify)
	return nil
}

// notify takes note of a change.
func (w *watching) notify(name string, writing bool) {
	if name != "" && !w.concerns(name) {
		return
	}
	w.writing.Store(writing)
	if writing {
		return
	}
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

// calm reports whether nobody is writing to an entry, as far as it is watched: what
// was read before is whole.
func (w *watching) calm() bool {
	if w.directory != nil {
		w.directory.CatchUp(w.notify)
	}
	return !w.writing.Load()
}

// close ends the watching.
func (w *watching) close() {
	if w.directory != nil {
		w.directory.Close()
		w.directory = nil
	}
}
