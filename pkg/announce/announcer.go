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
	Log   *slog.Logger
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

	// What follows belongs to Run.
	named   []string
	going   string
	links   map[string]*link
	down    []string // named, and not usable
	lapses  uint64
	repeats []repeat
}

// State is what the announcer has come to.
type State struct {
	Addresses  []Answered // all, sorted by address
	Members    []Member
	Valid      bool     // the own Lease is
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
	a := &Announcer{Node: node, Log: log, interfaces: loop.NewLatest[[]string](), leaving: loop.NewLatest[string](), looked: loop.NewSignal(), links: map[string]*link{}}
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
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case a.named = <-a.interfaces:
			a.open()
		case <-a.looked:
			a.open()
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
		// Somebody else may have answered since: what is still here is taken over again.
		a.lapses = lapses
		a.setLinks(nil, &state)
	}
	owned := map[netip.Addr]Address{}
	var silent bool
	wanted := a.Wanted()
	state.Members, silent, next = living(a.Table.All(Purpose), from, now)
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
		node, nobody := choose(w, state.Members)
		state.Addresses = append(state.Addresses, Answered{w.IP, w.Services, node, nobody})
		if node == a.Node && state.Valid {
			owned[w.IP] = w
		}
	}
	slices.SortFunc(state.Addresses, func(x, y Answered) int { return x.IP.Compare(y.IP) })
	if state.Valid {
		a.setLinks(owned, &state)
	}
	for _, l := range a.links {
		if !state.Valid {
			l.keepOnly()
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
	if state.Valid && (next.IsZero() || until.Before(next)) {
		next = until
	}
	return next
}
