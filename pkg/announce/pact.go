package announce

import (
	"math/rand/v2"
	"sync"
	"time"
)

// pact is by what nodes that cannot renew their Leases go on to answer for what they have,
// as long as all of them hear each other. The package's comment says why no two answer.
type pact struct {
	node  string
	lease func() bool // whether the own one is valid
	now   func() time.Time

	mu sync.Mutex
	id uint64
	// number is that of the last word; asked is when the words were begun to be said that
	// are not too old to be answered.
	number uint64
	asked  map[uint64]time.Time
	others map[string]*other // by node
	broken bool              // until the own Lease is valid again
	took   time.Time         // when something was taken over last
	failed time.Time         // when the own Lease could last not be renewed
}

// other is another node.
type other struct {
	needed bool      // its leave is
	given  time.Time // when the word was begun to be said that its last leave answers
	// promised is when leave was last given to it: it counts as if its Lease had been
	// renewed then.
	promised time.Time
	bound    bool // by that, as it has not said since that its Lease is valid

	id, heard, answered uint64    // its program, and the numbers of words
	at                  time.Time // when it was heard
	wants, written      bool      // leave, with a renewal that the API server has taken
}

const (
	// wordInterval is how often a node that cannot renew its Lease says so.
	wordInterval = time.Second
	// recently is how long after a word others answer it.
	recently = 2 * wordInterval
	// recovery is how long after an outage the others' watches may come back.
	recovery = time.Minute
	// overdue is how old the last renewal is of a node that cannot renew its Lease.
	overdue = Duration / 2
)

func newPact(node string, lease func() bool) *pact {
	return &pact{node: node, lease: lease, now: time.Now, id: rand.Uint64(), asked: map[uint64]time.Time{}, others: map[string]*other{}, broken: true}
}

// need says, while the own Lease is valid, whose leave it takes to go on without it.
func (p *pact) need(nodes []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, o := range p.others {
		o.needed = false
	}
	for _, node := range nodes {
		if node != p.node {
			p.other(node).needed = true
		}
	}
	p.broken = false
}

func (p *pact) other(node string) *other {
	o := p.others[node]
	if o == nil {
		o = &other{}
		p.others[node] = o
	}
	return o
}

// holds reports whether the node has leave of all whose leave it needs. Once it has not,
// it has no longer until its Lease is valid again, and others have taken that into account.
func (p *pact) holds() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.settle(p.now())
}

func (p *pact) settle(now time.Time) bool {
	for _, o := range p.others {
		p.broken = p.broken || o.needed && !now.Before(o.given.Add(Duration))
	}
	return !p.broken
}

// bound is until when the node takes nothing over, because others count on it; the zero
// time where none does.
func (p *pact) bound() (until time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	for _, o := range p.others {
		if end := o.promised.Add(Duration); o.bound && now.Before(end) && end.After(until) {
			until = end
		}
	}
	return until
}

// takes notes that the node takes something over.
func (p *pact) takes() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.took = p.now()
}

// promised is when a node was last given leave.
func (p *pact) promised(node string) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	if o := p.others[node]; o != nil {
		return o.promised
	}
	return time.Time{}
}

// hear notes a word. It reports whether it is to be answered, and whether this node is no
// longer bound by leave that it gave.
func (p *pact) hear(w word) (answer, freed bool) {
	if w.node == p.node {
		return false, false
	}
	valid := p.lease()
	p.mu.Lock()
	defer p.mu.Unlock()
	now, o := p.now(), p.other(w.node)
	takes := valid || p.settle(now)
	if !valid && !o.needed {
		// It was not there when the Lease was valid. If it can renew its own it may take
		// over at any time; else it has a Lease's time to give leave.
		if o.needed = true; w.unable {
			o.given = now
		}
	}
	if o.id != w.id {
		o.id, o.heard, o.answered = w.id, 0, 0
	}
	if w.number > o.heard {
		o.heard, o.at, o.wants, o.written = w.number, now, w.asks, w.written
		freed = o.bound && !w.unable
		o.bound = o.bound && w.unable
	}
	for _, l := range w.leaves {
		if at := p.asked[l.number]; takes && l.id == p.id && at.After(o.given) {
			o.given = at
		}
	}
	return w.asks, freed
}

// speaks reports whether there is something to say: the node cannot renew its Lease, or
// can again, or has heard another one that cannot.
func (p *pact) speaks(unable bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	unable = unable || now.Sub(p.failed) < recently
	for _, o := range p.others {
		unable = unable || o.asks(now)
	}
	return unable
}

func (o *other) asks(now time.Time) bool { return o.wants && now.Sub(o.at) < recently }

// speak returns the next word. Leave is given to those that have asked for it since, by a
// node that cannot renew its Lease either; and for a while by one that can again, where
// the other's has been renewed too, and only the other's watch does not know it yet.
func (p *pact) speak(unable, written bool, renewed func(node string) bool) word {
	valid := p.lease()
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	p.number++
	for number, at := range p.asked {
		if now.Sub(at) > Duration {
			delete(p.asked, number)
		}
	}
	p.asked[p.number] = now
	if unable {
		p.failed = now
	}
	gives := now.Sub(p.took) >= Duration
	w := word{node: p.node, id: p.id, number: p.number, unable: unable, asks: unable && (valid || p.settle(now)), written: written}
	for node, o := range p.others {
		if gives && o.asks(now) && o.heard > o.answered && (unable || now.Sub(p.failed) < recovery && o.written && renewed(node)) {
			o.answered, o.promised, o.bound = o.heard, now, true
			w.leaves = append(w.leaves, leave{o.id, o.heard})
		}
	}
	return w
}
