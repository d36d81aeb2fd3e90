package health

import (
	"slices"
	"time"
)

// way is what is known of a target. Its times are those of the caller.
type way struct {
	Target
	watched   bool
	due       time.Time // of the next probe
	asked     time.Time // by the last one
	place     int       // in the queue
	known     time.Time
	state     State
	since     time.Time
	answered  bool
	complaint string

	// outcomes are those of the last probes of the usual size, the oldest first. There may
	// be thousands of targets, so they are small.
	outcomes []outcome
	inARow   int // lost since the last answer

	untilFull int // probes before the next one of full size
	fullLost  int // in a row, with none of the usual size lost meanwhile
	fullSize  string
}

// outcome is what became of a probe: the round trip in microseconds, 0 where it is not
// known, or gone.
type outcome int32

const gone outcome = -1

func newWay(t Target, now time.Time) *way {
	return &way{Target: t, known: now, state: Unknown, since: now, untilFull: 1}
}

func (w *way) become(s State, now time.Time) (changed bool) {
	if w.state == s {
		return false
	}
	w.state, w.since = s, now
	return true
}

func (w *way) note(o outcome) {
	if len(w.outcomes) == window {
		w.outcomes = append(w.outcomes[:0], w.outcomes[1:]...)
	}
	w.outcomes = append(w.outcomes, o)
}

// answer notes that a probe of the usual size was answered.
func (w *way) answer(roundTrip time.Duration, now time.Time) (changed bool) {
	// The end of an interruption is the end of it: what was lost says nothing of
	// what is to come.
	if w.state == Lost && w.losses() == 1 {
		w.outcomes = w.outcomes[:0]
	}
	w.answered, w.inARow, w.complaint = true, 0, ""
	w.note(outcome(roundTrip.Microseconds()))
	return w.judge(now)
}

// lose notes that a probe of the usual size was lost, with the reason if there is one.
func (w *way) lose(complaint string, now time.Time) (changed bool) {
	w.inARow++
	w.fullLost = 0
	if complaint != "" {
		w.complaint = complaint
	}
	w.note(gone)
	return w.judge(now)
}

// refuse notes that the peer itself said that it has no such address.
func (w *way) refuse(now time.Time) (changed bool) {
	w.outcomes, w.inARow, w.complaint = w.outcomes[:0], 0, ""
	w.forgetFull()
	return w.become(Silent, now)
}

func (w *way) judge(now time.Time) (changed bool) {
	lost := w.lost()
	switch {
	case w.inARow >= lostInARow:
		w.forgetFull()
		return w.become(Lost, now)
	case w.inARow > 0:
		return false // the next ones will tell
	case lost >= lossyLosses && w.losses() > 1, w.state == Lossy && lost > lossyEnd:
		return w.become(Lossy, now)
	}
	return w.become(OK, now)
}

func (w *way) lost() (n int) {
	for _, o := range w.outcomes {
		if o == gone {
			n++
		}
	}
	return n
}

// losses counts pieces of the window in which everything was lost.
func (w *way) losses() (n int) {
	for i, o := range w.outcomes {
		if o == gone && (i == 0 || w.outcomes[i-1] != gone) {
			n++
		}
	}
	return n
}

// asksFull reports whether a probe of full size is due together with one of the
// usual size.
func (w *way) asksFull() bool {
	if w.Size == 0 || w.inARow > 0 || w.state != OK && w.state != Lossy {
		return false
	}
	w.untilFull--
	return w.untilFull <= 0 || w.fullLost > 0
}

// answerFull notes that a probe of full size was answered, or that somebody said that it
// was too large: then pods are told as well, and send smaller ones.
func (w *way) answerFull() (changed bool) {
	changed = w.fullSize != FullOK
	w.fullLost, w.fullSize, w.untilFull = 0, FullOK, fullEvery
	return changed
}

// loseFull notes that a probe of full size was lost.
func (w *way) loseFull() (changed bool) {
	w.fullLost, w.untilFull = w.fullLost+1, fullEvery
	if w.fullLost < lostInARow || w.state != OK || w.fullSize == FullLost {
		return false
	}
	w.fullSize = FullLost
	return true
}

// forgetFull has the next probe that can be followed by one of full size.
func (w *way) forgetFull() { w.fullLost, w.fullSize, w.untilFull = 0, "", 1 }

// hurried reports whether the way is to be asked again at once, as it is not known yet
// whether a probe or the way is lost.
func (w *way) hurried() bool {
	return w.inARow > 0 && w.inARow < lostInARow || w.fullLost > 0 && w.fullLost < lostInARow
}

func (w *way) report() Report {
	r := Report{
		State: w.state, Since: w.since, Sent: len(w.outcomes), Lost: w.lost(), FullSize: w.fullSize,
		Complaint: w.complaint, Watched: w.watched, Answered: w.answered, Known: w.known,
	}
	times := make([]outcome, 0, window)
	for _, o := range w.outcomes {
		if o > 0 {
			times = append(times, o)
		}
	}
	if len(times) > 0 {
		slices.Sort(times)
		r.RoundTrip = time.Duration(times[len(times)/2]) * time.Microsecond
	}
	return r
}

// unwell reports whether packets are lost.
func (w *way) unwell() bool { return w.state == Lost || w.state == Lossy || w.fullSize == FullLost }
