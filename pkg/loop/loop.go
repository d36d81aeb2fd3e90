// Package loop is how others talk to the one goroutine that does the work: they say that
// there is something, give it the newest of something, or have it call a function
// between two pieces of work. None of that waits for the work, but for [Calls.Do].
package loop

import "context"

// Signal has an element where there is something to look at.
type Signal chan struct{}

// NewSignal returns one that is not given.
func NewSignal() Signal { return make(Signal, 1) }

// Give gives the signal, unless it is given already.
func (s Signal) Give() {
	select {
	case s <- struct{}{}:
	default:
	}
}

// Any returns a signal that is given after any of these, until ctx ends.
func Any(ctx context.Context, of ...Signal) Signal {
	one := NewSignal()
	for _, s := range of {
		go func() {
			for {
				select {
				case <-ctx.Done():
					return
				case <-s:
					one.Give()
				}
			}
		}()
	}
	return one
}

// Latest has the last value that was put, until that is taken.
type Latest[T any] chan T

// NewLatest returns one without a value.
func NewLatest[T any]() Latest[T] { return make(Latest[T], 1) }

// Put puts a value in the place of an older one that nobody has taken.
func (l Latest[T]) Put(value T) {
	for {
		select {
		case l <- value:
			return
		case <-l:
		}
	}
}

// Calls are functions that the goroutine is to call: it receives and calls them.
type Calls chan func()

// Do has f called, and returns when it is done. Where the goroutine is busy for longer
// than ctx lasts, f is not called, and the error is ctx's.
func (c Calls) Do(ctx context.Context, f func()) error {
	done := make(chan struct{})
	select {
	case c <- func() { f(); close(done) }:
		<-done
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
