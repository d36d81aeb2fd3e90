package filewatch

import (
	"os"
	"sync"
	"time"

	"github.com/flatnet-cni/flatnet/pkg/loop"
)

const (
	// Settle is how long to wait after a change for the next one, so that several steps
	// (unlink, create, rename) are one change.
	Settle = 5 * time.Millisecond
	// Poll is how often to read without a word that something has changed: where inotify
	// does not reach, as behind a symbolic link or on a network file system.
	Poll = 10 * time.Second
	// PollUnwatched is how often, while the directory cannot be watched.
	PollUnwatched = time.Second
	// quiet is how old a change must be before a poll reads it.
	quiet = time.Second
)

// Young reports whether a file has changed so lately that there may be more to come.
func Young(path string) bool {
	stat, err := os.Stat(path)
	if err != nil {
		return false
	}
	age := time.Since(stat.ModTime())
	return age >= 0 && age < quiet
}

// Watching keeps a directory watched while it is there, and knows which of its entries
// somebody is writing to. But for what it is told of by the kernel it belongs to one
// goroutine.
type Watching struct {
	// Changed has one element after a change.
	Changed loop.Signal

	concerns  func(name string) bool // which entries count
	directory *Directory

	mu      sync.Mutex
	writing map[string]struct{}
}

// NewWatching prepares to watch for changes of the entries that concern the caller.
func NewWatching(concerns func(name string) bool) *Watching {
	return &Watching{Changed: loop.NewSignal(), concerns: concerns, writing: map[string]struct{}{}}
}

// Ensure watches the directory at path, and watches anew if it is not the one that was
// there before.
func (w *Watching) Ensure(path string) error {
	if w.directory != nil && !w.directory.Stale() {
		return nil
	}
	w.Close()
	d, err := Watch(path)
	if err != nil {
		return err
	}
	w.directory = d
	w.mu.Lock()
	clear(w.writing)
	w.mu.Unlock()
	go d.Forward(w.notify)
	return nil
}

// notify takes note of a change.
func (w *Watching) notify(name string, writing bool) {
	if name != "" && !w.concerns(name) {
		return
	}
	w.mu.Lock()
	switch {
	case name == "":
		clear(w.writing)
	case writing:
		w.writing[name] = struct{}{}
	default:
		delete(w.writing, name)
	}
	w.mu.Unlock()
	if writing {
		return
	}
	w.Changed.Give()
}

// Whole reports whether nobody is writing to an entry, as far as it is watched and told
// of by now: what was read of it before is whole.
func (w *Watching) Whole(name string) bool {
	w.catchUp()
	w.mu.Lock()
	defer w.mu.Unlock()
	_, writing := w.writing[name]
	return !writing
}

// Calm is Whole for all entries that concern the caller.
func (w *Watching) Calm() bool {
	w.catchUp()
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.writing) == 0
}

func (w *Watching) catchUp() {
	if w.directory != nil {
		w.directory.CatchUp(w.notify)
	}
}

// Close ends the watching.
func (w *Watching) Close() {
	if w.directory != nil {
		w.directory.Close()
		w.directory = nil
	}
}
