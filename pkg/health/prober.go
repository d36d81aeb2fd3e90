package health

import (
	"cmp"
	"container/heap"
	"context"
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Bounds of what probes cost.
const (
	// rate is how many packets a second are sent at most, burst how many at once.
	rate  = 50
	burst = 20
	// reserved of these are left to targets that are watched: when nobody answers, all
	// are asked again and again.
	reserved = burst / 4
	// mostWatched is how many targets are asked every interval; with those of full
	// size they take three fifths of the packets.
	mostWatched = 60
	// restRate is how many of the others are asked in a second.
	restRate = 5
	// mostSuspects of the others are asked every interval once they are lost.
	mostSuspects = 32
)

// Network sends probes and receives what comes of them. It does not wait.
type Network interface {
	// Send sends an echo request; its IP packet is to have size bytes, and as few as
	// can be for 0. An error that is [ErrBusy] means that it can be sent later.
	Send(to netip.Addr, sequence uint16, size int) error
	// Receive calls tell for all that has come.
	Receive(tell func(Message))
	Close()
}

// ErrBusy means that the kernel has no room for a probe now.
var ErrBusy = errors.New("no room for a probe")

// ErrTooLarge means that a probe is larger than the interface takes.
var ErrTooLarge = errors.New("a probe is too large for the interface")

// Message is what came of a probe.
type Message struct {
	Kind     Kind
	From     netip.Addr
	To       netip.Addr // whom the probe was for
	Sequence uint16
	// RoundTrip is 0 where it is not known.
	RoundTrip time.Duration
	Text      string // of an error
}

// Kind is a sort of message.
type Kind int

// The kinds.
const (
	Answer Kind = iota
	Unreachable
	TooLarge
)

// Prober probes targets and keeps what is known of them. Its functions may be called
// from any goroutine.
type Prober struct {
	own     string
	changed func()              // is called, with nothing held, when a target's state is another
	trip    func(time.Duration) // is told each round trip

	mu       sync.Mutex
	networks [2]Network // of IPv4 and IPv6; nil where there is none
	ways     map[netip.Addr]*way
	watched  queue
	others   queue
	pending  []pending // by when they were sent
	sequence uint16
	tokens   float64
	filled   time.Time // when tokens were counted
	suspects int
	unwell   []*way
	rest     int // targets that are not watched
	counts   Counts
	wake     chan struct{}
}

// Counts are what probes came to since the begin.
type Counts struct{ Answered, Lost, Refused uint64 }

// pending is a probe without an answer yet.
type pending struct {
	way      *way
	sequence uint16
	sent     time.Time
	full     bool
	done     bool
}

// NewProber returns a prober of the node of a name that has no targets yet. changed is
// called when something worth telling has changed, trip with each round trip.
func NewProber(own string, changed func(), trip func(time.Duration)) *Prober {
	return &Prober{own: own, changed: changed, trip: trip, ways: map[netip.Addr]*way{}, wake: make(chan struct{}, 1)}
}

// Run probes until ctx ends.
func (p *Prober) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			p.SetNetwork(false, nil)
			p.SetNetwork(true, nil)
			return nil
		case <-p.wake:
		case <-timer.C:
		}
		timer.Reset(p.Step(time.Now()))
	}
}

// SetNetwork gives the prober what it sends by in a family, and closes what it had;
// with nil nothing is sent in that family.
func (p *Prober) SetNetwork(ipv6 bool, n Network) {
	p.mu.Lock()
	before := p.networks[index(ipv6)]
	p.networks[index(ipv6)] = n
	p.mu.Unlock()
	if before != nil {
		before.Close()
	}
}

func index(ipv6 bool) int {
	if ipv6 {
		return 1
	}
	return 0
}

// SetTargets says what is to be probed. What is known of those that it had already is
// kept.
func (p *Prober) SetTargets(targets []Target, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	chosen := sample(p.own, targets, mostWatched)
	wanted := make(map[netip.Addr]bool, len(targets))
	p.rest = 0
	for _, t := range targets {
		wanted[t.Address] = true
		w, known := p.ways[t.Address]
		if known && (w.Peer != t.Peer || w.Way != t.Way) {
			p.forget(w)
			known = false
		}
		if known {
			w.Target = t
		} else {
			w = newWay(t, now)
			p.ways[t.Address] = w
		}
		if w.watched = chosen[t.Peer]; !w.watched {
			p.rest++
		}
	}
	for address, w := range p.ways {
		if !wanted[address] {
			p.forget(w)
		}
	}
	p.recount()
	p.watched, p.others = nil, nil
	for _, w := range p.ways {
		if limit := now.Add(p.pause(w)); w.due.IsZero() || w.due.After(limit) {
			// New ones begin at any time within a round, and not all at once.
			w.due = now.Add(time.Duration(rand.Int64N(int64(p.pause(w)))))
		}
		heap.Push(p.queue(w), w)
	}
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

func (p *Prober) forget(w *way) {
	delete(p.ways, w.Address)
	for i := range p.pending {
		if p.pending[i].way == w {
			p.pending[i].done = true
		}
	}
}

// queue is where a way waits.
func (p *Prober) queue(w *way) *queue {
	if w.watched {
		return &p.watched
	}
	return &p.others
}

// recount notes which targets are not well.
func (p *Prober) recount() {
	p.suspects, p.unwell = 0, nil
	for _, w := range p.ways {
		if !w.watched && w.state == Lost {
			p.suspects++
		}
		if w.unwell() {
			p.unwell = append(p.unwell, w)
		}
	}
	slices.SortFunc(p.unwell, func(a, b *way) int { return cmp.Or(cmp.Compare(a.Peer, b.Peer), a.Address.Compare(b.Address)) })
}

// pause is the time between two probes of a target.
func (p *Prober) pause(w *way) time.Duration {
	if w.watched || w.state == Lost && p.suspects <= mostSuspects {
		return interval
	}
	return max(interval, time.Duration(p.rest)*time.Second/restRate)
}
