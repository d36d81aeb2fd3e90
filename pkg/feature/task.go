package feature

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/flatnet-cni/flatnet/pkg/problem"
)

// Task is a piece of a feature's work. It knows when it is due.
type Task struct {
	Name string // in metrics and problems
	Run  func(context.Context) error
	// Gap has to pass between two runs: somebody who undoes all that the agent does
	// must not keep it, and the kernel, busy.
	Gap time.Duration
	// Every is how long after a run it is due again though nobody asks; 0 for never.
	Every time.Duration
	// Advice is what to look at where the task cannot do its work.
	Advice string
	// Breaks is what does not work while it fails.
	Breaks []problem.Thing

	due      time.Time // zero: not at all
	last     time.Time
	failures int // in a row
	err      error
	done     bool
	asked    atomic.Bool
	wake     func()
}

// ErrNotYet is returned by a task that has nothing to go by yet. It is no failure.
var ErrNotYet = errors.New("not yet")

// Told is an error of a task that its feature's problems tell by themselves.
type Told struct{ Err error }

func (t Told) Error() string { return t.Err.Error() }

// Unwrap returns the error without the mark.
func (t Told) Unwrap() error { return t.Err }

// Soon makes the task due as soon as its gap allows.
func (t *Task) Soon() { t.By(time.Now()) }

// By makes the task due at the latest at a time, but not before its gap is over.
func (t *Task) By(when time.Time) {
	if earliest := t.last.Add(t.Gap); when.Before(earliest) {
		when = earliest
	}
	if t.due.IsZero() || when.Before(t.due) {
		t.due = when
	}
}

// Ask is [Task.Soon] for other goroutines than the agent's. It does not wait.
func (t *Task) Ask() {
	t.asked.Store(true)
	t.wake()
}

// Err is why the last run failed; nil where it did not.
func (t *Task) Err() error { return t.err }

// Done reports whether the task succeeded once.
func (t *Task) Done() bool { return t.done }

// Begin notes that the task is being done.
func (t *Task) Begin(now time.Time) { t.due, t.last = time.Time{}, now }

// longestPause is that between attempts at what fails.
const longestPause = 30 * time.Second

// End notes how the task went. One that failed is tried again, after a time that
// doubles from half a second up.
func (t *Task) End(err error, now time.Time) {
	t.err = err
	if err == nil {
		t.done, t.failures = true, 0
	} else {
		pause := min(longestPause, 500*time.Millisecond<<min(t.failures, 10))
		t.failures++
		t.By(now.Add(pause))
	}
	if t.Every > 0 {
		t.By(now.Add(t.Every))
	}
}

// Schedule are the tasks of an agent. When several are due they are done in this order.
type Schedule []*Task

// Wake has f called, on any goroutine, when a task was asked for.
func (s Schedule) Wake(f func()) {
	for _, t := range s {
		t.wake = f
	}
}

// TakeAsked makes due what was asked for since it was called last.
func (s Schedule) TakeAsked() {
	for _, t := range s {
		if t.asked.Swap(false) {
			t.Soon()
		}
	}
}

// Next returns the first task that is due, or else nil and when one will be; the zero
// time where none will.
func (s Schedule) Next(now time.Time) (ready *Task, when time.Time) {
	for _, t := range s {
		switch {
		case t.due.IsZero():
		case !t.due.After(now):
			return t, t.due
		case when.IsZero() || t.due.Before(when):
			when = t.due
		}
	}
	return nil, when
}
