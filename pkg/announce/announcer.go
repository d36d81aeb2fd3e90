package announce

import (
	"context"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/flatnet-cni/flatnet/pkg/lease"
	"github.com/flatnet-cni/flatnet/pkg/loop"
)

// Announcer is a node's part in answering.
type Announcer struct {
	Node  string
	Lease *lease.Holder
	Table *lease.Table
	// Otherwise is the purpose of the Leases that are of interest where nothing is answered.
	Otherwise string
	Log       *slog.Logger
	// Promise is a file for what this program promises to others, which the next one keeps.
	Promise string
	// Changed are given after a change of what Wanted returns, and of Leases.
	Changed []loop.Signal
	// Wanted are all addresses that some node is to answer for; nil while that is not known.
	Wanted func() []Address
	// Became is called after another State.
	Became func()

	interfaces loop.Latest[[]string]
	leaving    loop.Latest[string]
	looked     loop.Signal // at the interfaces
	awaiting   atomic.Bool // a renewal
	state      atomic.Pointer[State]
	counts     counts
	pact       *pact
	heard      loop.Signal // a word that is to be answered
	freed      loop.Signal // by a word, to take over again

	// What follows belongs to Run.
	named   []string
	going   string
	links   map[string]*link
	down    []string // named, and not usable
	lapses  uint64
	repeats []repeat
	spoke   time.Time // the last word
	kept    time.Time // until when a promise of the program before holds
}

// State is what the announcer has come to.
type State struct {
	Addresses  []Answered // all, sorted by address; none where this node has no interface
	Members    []Member
	Valid      bool     // the own Lease is
	Together   bool     // it is not, and this node goes on with all others' leave
	Interfaces []string // at which this node answers
	Down       []string // those named that are there, and cannot be used, with the reason
	Failure    string   // why an address is not answered for that should be
	Conflicts  []Conflict
}

// Answered is who answers for an address.
type Answered struct {
	IP       netip.Addr `json:"ip"`
	Services []string   `json:"services"`
	Node     string     `json:"node,omitempty"`
	Nobody   string     `json:"nobody,omitempty"` // why
}

// repeat is an announcement that is made again, as it may be lost.
type repeat struct {
	ip   netip.Addr
	at   time.Time
	left []time.Duration
}

// pauses are those between announcements of an address that was taken over.
var pauses = []time.Duration{200 * time.Millisecond, time.Second, 2 * time.Second, 4 * time.Second}

// New returns an announcer that answers nowhere.
func New(node string, log *slog.Logger) *Announcer {
	a := &Announcer{Node: node, Log: log, interfaces: loop.NewLatest[[]string](), leaving: loop.NewLatest[string](), looked: loop.NewSignal(), heard: loop.NewSignal(), freed: loop.NewSignal(), links: map[string]*link{}}
	a.pact = newPact(node, func() bool { return a.Lease.Valid() })
	a.state.Store(&State{})
	return a
}

// SetInterfaces names the interfaces at which the node may answer.
func (a *Announcer) SetInterfaces(names []string) { a.interfaces.Put(names) }

// SetLeaving says why others should answer instead of this node; empty while it stays.
func (a *Announcer) SetLeaving(reason string) { a.leaving.Put(reason) }

// Look has the interfaces looked at again. It does not wait.
func (a *Announcer) Look() { a.looked.Give() }

// State returns what it has come to.
func (a *Announcer) State() State { return *a.state.Load() }

// Counts are how many questions were answered, by ARP and by NDP, and how many
// announcements were made.
func (a *Announcer) Counts() (arp, ndp, announced uint64) {
	return a.counts.arp.Load(), a.counts.ndp.Load(), a.counts.announced.Load()
}

// Run answers until ctx ends.
func (a *Announcer) Run(ctx context.Context) {
	wake := loop.Any(ctx, a.Changed...)
	a.kept = time.Now().Add(promised(a.Promise))
	a.Lease.Renewed = func() {
		if a.awaiting.Load() {
			wake.Give()
		}
	}
	defer func() {
		for _, l := range a.links {
			l.close()
		}
	}()
	timer, words := time.NewTimer(0), time.NewTimer(0)
	defer timer.Stop()
	defer words.Stop()
	for {
		select {
		case <-a.heard:
			words.Reset(a.talk(time.Now()))
			continue
		case <-words.C:
			words.Reset(a.talk(time.Now()))
			continue
		case <-ctx.Done():
			return
		case a.named = <-a.interfaces:
			a.open()
		case <-a.looked:
			a.open()
		case <-a.freed:
		case a.going = <-a.leaving:
		case <-wake:
		case <-timer.C:
		}
		next := a.pass(time.Now())
		if again := a.repeat(time.Now()); !again.IsZero() && (next.IsZero() || again.Before(next)) {
			next = again
		}
		wait := time.Hour
		if !next.IsZero() {
			wait = max(time.Until(next), time.Millisecond)
		}
		timer.Reset(wait)
	}
}

// pass decides who answers, and has the links do so. It returns when to look again.
func (a *Announcer) pass(now time.Time) (next time.Time) {
	self := Member{Node: a.Node, Interfaces: slices.Sorted(maps.Keys(a.links)), Leaving: a.going}
	a.Lease.Say(self.Says())
	until, from := a.Lease.Until()
	state := State{Valid: now.Before(until), Interfaces: self.Interfaces, Down: a.down}
	if lapses := a.Lease.Lapses(); lapses != a.lapses {
		// Somebody else may have answered since: what is still here is taken over again,
		// unless all others had promised not to.
		a.lapses = lapses
		for _, l := range a.links {
			l.keep(func(o ownership) bool { return o.without == Together && a.pact.holds() })
		}
	}
	owned := map[netip.Addr]Address{}
	var silent bool
	wanted := a.Wanted()
	all := a.Table.All(Purpose)
	for i := range all {
		if at := a.pact.promised(memberOf(all[i]).Node); at.After(all[i].At) {
			all[i].At = at
		}
	}
	state.Members, silent, next = living(all, from, now)
	bound := a.pact.bound()
	if a.kept.After(now) && a.kept.After(bound) {
		bound = a.kept
	}
	if state.Valid {
		var nodes []string // also those that are gone: they may come back unheard
		for _, s := range all {
			nodes = append(nodes, memberOf(s).Node)
		}
		a.pact.need(nodes)
	}
	a.awaiting.Store(silent)
	if silent && state.Valid {
		a.Lease.Renew()
	}
	// What the own Lease says may be a request behind.
	for i, m := range state.Members {
		if m.Node == a.Node {
			self.Renewed = m.Renewed
			state.Members[i] = self
		}
	}
	for _, w := range wanted {
		if len(a.links) == 0 {
			break
		}
		node, nobody := choose(w, state.Members)
		state.Addresses = append(state.Addresses, Answered{w.IP, w.Services, node, nobody})
		if node == a.Node && state.Valid && (bound.IsZero() || a.has(w.IP)) {
			owned[w.IP] = w
		}
	}
	slices.SortFunc(state.Addresses, func(x, y Answered) int { return x.IP.Compare(y.IP) })
	if state.Valid {
		a.setLinks(owned, &state)
	}
	for _, l := range a.links {
		if !state.Valid {
			together := l.keep(func(o ownership) bool { return o.goesOn(a.pact.holds) })
			state.Together = state.Together || together
		}
		state.Conflicts = append(state.Conflicts, l.conflicts()...)
	}
	a.state.Store(&state)
	if a.Became != nil {
		a.Became()
	}
	if silent {
		next = now.Add(Interval / 2) // if the renewal is not seen
	}
	for _, end := range []time.Time{until, bound} {
		if end.After(now) && (next.IsZero() || end.Before(next)) {
			next = end
		}
	}
	return next
}

// hear is called on the goroutines of links.
func (a *Announcer) hear(answer, freed bool) {
	if answer {
		a.heard.Give()
	}
	if freed {
		a.freed.Give()
	}
}

// talk says a word where there is one to be said, and returns when to do so again.
func (a *Announcer) talk(now time.Time) (wait time.Duration) {
	_, from := a.Lease.Until()
	unable := now.Sub(from) >= overdue
	switch {
	case len(a.links) == 0:
		return wordInterval
	case !a.pact.speaks(unable):
		return max(overdue-now.Sub(from), time.Millisecond)
	case now.Sub(a.spoke) < wordInterval:
		return wordInterval - now.Sub(a.spoke)
	}
	a.spoke = now
	w := a.pact.speak(unable, a.Lease.Unseen(), func(node string) bool {
		s, is := a.Table.Get(LeaseName(node))
		return is && now.Sub(s.At) < Duration
	})
	if len(w.leaves) > 0 {
		if err := promise(a.Promise); err != nil {
			a.Log.Warn("other nodes get no leave to answer without a valid Lease", "err", err)
			w.leaves = nil
		}
	}
	for _, l := range a.links {
		l.say(w)
	}
	return wordInterval
}
