package health

import (
	"math/rand/v2"
	"time"
)

const (
	// look is how long it is between looks for answers while some are missing.
	look = 200 * time.Millisecond
	// idle is how long it is at most to the next look at what is due.
	idle = time.Second
)

// Step takes what has come, gives up what has not, and sends what is due. It returns
// when there is something to do again.
func (p *Prober) Step(now time.Time) time.Duration {
	p.mu.Lock()
	changed := p.receive(now)
	changed = p.giveUp(now) || changed
	changed = p.send(now) || changed
	if changed {
		p.recount()
	}
	wait := p.wait(now)
	p.mu.Unlock()
	if changed {
		p.changed()
	}
	return wait
}

func (p *Prober) wait(now time.Time) time.Duration {
	wait := idle
	for _, q := range []queue{p.watched, p.others} {
		if len(q) > 0 {
			wait = min(wait, max(q[0].due.Sub(now), look))
		}
	}
	if len(p.pending) > 0 {
		wait = min(wait, look)
	}
	return wait
}

// receive takes what has come.
func (p *Prober) receive(now time.Time) (changed bool) {
	for _, n := range p.networks {
		if n != nil {
			n.Receive(func(m Message) { changed = p.take(m, now) || changed })
		}
	}
	return changed
}

func (p *Prober) take(m Message, now time.Time) (changed bool) {
	w, known := p.ways[m.To]
	if !known {
		return false
	}
	for i := range p.pending {
		q := &p.pending[i]
		if q.done || q.way != w || q.sequence != m.Sequence {
			continue
		}
		q.done = true
		return p.settle(w, q.full, m, now)
	}
	return false
}

// settle notes what came of a probe.
func (p *Prober) settle(w *way, full bool, m Message, now time.Time) (changed bool) {
	switch {
	case m.Kind == Answer && full:
		return w.answerFull()
	case m.Kind == Answer:
		p.counts.Answered++
		if m.RoundTrip > 0 {
			p.trip(m.RoundTrip)
		}
		return w.answer(m.RoundTrip, now)
	case m.Kind == TooLarge && full:
		return w.answerFull()
	case m.Kind == TooLarge:
		return false
	case full:
		return false // the one of the usual size is told the same
	case w.own(m):
		p.counts.Refused++
		return w.refuse(now)
	}
	return p.lose(w, m.From.String()+" says: "+m.Text, now)
}

// own reports whether a message is the peer's own word.
func (w *way) own(m Message) bool {
	for _, n := range w.Own {
		if n.Contains(m.From) {
			return true
		}
	}
	return false
}

func (p *Prober) lose(w *way, complaint string, now time.Time) (changed bool) {
	p.counts.Lost++
	changed = w.lose(complaint, now)
	p.hurry(w)
	return changed
}

// hurry has a way that is in doubt asked again, a timeout after it was asked last: what
// was refused at once is not asked again at once, since what is amiss may pass. One that is
// lost by now is asked more often than if it were not.
func (p *Prober) hurry(w *way) {
	at := w.asked.Add(p.pause(w))
	if w.hurried() {
		at = w.asked.Add(Timeout)
	}
	if w.due.After(at) {
		w.due = at
		p.queue(w).moved(w)
	}
}

// giveUp notes what has not come in time.
func (p *Prober) giveUp(now time.Time) (changed bool) {
	n := 0
	for ; n < len(p.pending) && (p.pending[n].done || now.Sub(p.pending[n].sent) >= Timeout); n++ {
		q := p.pending[n]
		switch {
		case q.done:
		case q.full:
			changed = q.way.loseFull() || changed
			p.hurry(q.way)
		default:
			changed = p.lose(q.way, "", now) || changed
		}
	}
	p.pending = append(p.pending[:0], p.pending[n:]...)
	return changed
}

// send sends what is due, as far as the rate allows: first what is watched.
func (p *Prober) send(now time.Time) (changed bool) {
	p.tokens = min(burst, p.tokens+rate*now.Sub(p.filled).Seconds())
	p.filled = now
	changed = p.sendOf(&p.watched, 1, now)
	return p.sendOf(&p.others, reserved, now) || changed
}

// sendOf sends what is due of one queue while there are so many tokens.
func (p *Prober) sendOf(q *queue, least float64, now time.Time) (changed bool) {
	for len(*q) > 0 && p.tokens >= least {
		w := (*q)[0]
		if w.due.After(now) {
			break
		}
		// A tenth more or less, so that nodes that began together do not go on so.
		pause := p.pause(w)
		w.due = now.Add(pause - pause/10 + time.Duration(rand.Int64N(int64(pause/5))))
		q.moved(w)
		n := p.networks[index(w.Address.Is6())]
		if n == nil {
			continue
		}
		changed = p.probe(n, w, 0, now) || changed
		if p.tokens >= 1 && w.asksFull() {
			changed = p.probe(n, w, w.Size, now) || changed
		}
	}
	return changed
}

// probe sends one probe.
func (p *Prober) probe(n Network, w *way, size int, now time.Time) (changed bool) {
	p.tokens--
	p.sequence++
	w.asked = now
	full := size > 0
	switch err := n.Send(w.Address, p.sequence, size); {
	case err == nil:
		p.pending = append(p.pending, pending{way: w, sequence: p.sequence, sent: now, full: full})
	case err == ErrBusy:
	case err == ErrTooLarge && full:
		return w.answerFull() // as pods are told
	case full:
	default:
		return p.lose(w, "this node cannot send it: "+err.Error(), now)
	}
	return false
}
