package filewatch

import (
	"context"
	"path/filepath"
	"time"
)

// Follower reads a file at first, and each time that it has changed.
type Follower struct {
	Path string
	// Most is the size in bytes beyond which the file is taken for a mistake.
	Most int64
	// Poll is how often to read without a word that something has changed; 0 is [Poll].
	Poll time.Duration
	// Unwatched is told once when the directory cannot be watched, so that the file is read
	// every [PollUnwatched]; it may be nil.
	Unwatched func(error)
}

// Run calls take with what is in the file, or why it cannot be read, until ctx ends: some
// milliseconds after the file is closed by its writer or renamed into place, and not
// while somebody is writing to it. What was read before may be read again.
func (f Follower) Run(ctx context.Context, take func(text []byte, err error)) {
	watching := NewWatching(f.concerns)
	defer watching.Close()
	timer := time.NewTimer(0)
	defer timer.Stop()
	warned := false
	for first := true; ; first = false {
		polled := false
		select {
		case <-ctx.Done():
			return
		case <-watching.Changed:
			select {
			case <-ctx.Done():
				return
			case <-time.After(Settle):
			}
			if !watching.Calm() {
				continue // there will be another change
			}
		case <-timer.C:
			polled = !first
		}
		// Watch first, then read: no change is missed in between.
		next := f.Poll
		if next == 0 {
			next = Poll
		}
		if err := watching.Ensure(filepath.Dir(f.Path)); err != nil {
			next = PollUnwatched
			if !warned && f.Unwatched != nil {
				f.Unwatched(err)
			}
		}
		warned = next == PollUnwatched
		if polled && Young(f.Path) { // half a file can be a valid one
			next = PollUnwatched
		} else {
			text, err := Read(f.Path, f.Most)
			// Where it was polled, whoever has it open has not written for long.
			if polled || watching.Calm() {
				take(text, err)
			}
		}
		timer.Reset(next)
	}
}

// concerns reports whether a change of the directory's entry may be one of the file: it is
// the entry, or one that it may lead through. A ConfigMap's files are symbolic links
// through ..data.
func (f Follower) concerns(name string) bool {
	return name == filepath.Base(f.Path) || name == "..data"
}
