package bgp

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"github.com/flatnet-cni/flatnet/pkg/bgp/message"
)

// Table has the paths that neighbours told. Those of one that is away, or of a run of
// flatnetd before this one, can be kept as stale ones until the neighbour has told all of
// its own again. It is not safe for concurrent use.
type Table struct {
	paths    map[netip.Prefix][]held // one of each neighbour that has any
	received map[string]int          // by the neighbour
}

type held struct {
	Path
	neighbour string
	stale     bool
}

// kernelsOwn begins the names that stand for the neighbours of a run before: that of no
// neighbour begins so.
const kernelsOwn = " "

// NewTable returns a table that has nothing.
func NewTable() *Table {
	return &Table{paths: map[netip.Prefix][]held{}, received: map[string]int{}}
}

// Seed notes a route that the kernel has of a run before, by its first next hops.
func (t *Table) Seed(prefix netip.Prefix, hops []netip.Addr) {
	for _, hop := range hops {
		t.set(held{Path: Path{Prefix: prefix, NextHop: hop}, neighbour: kernelsOwn + hop.String(), stale: true})
	}
}

// Unseed forgets what was seeded.
func (t *Table) Unseed() { t.drop(func(h held) bool { return seeded(h.neighbour) }) }

func seeded(neighbour string) bool { return strings.HasPrefix(neighbour, kernelsOwn) }

// Seeded reports whether anything is there that no neighbour has told in this run.
func (t *Table) Seeded() bool {
	for neighbour := range t.received {
		if seeded(neighbour) {
			return true
		}
	}
	return false
}

func (t *Table) set(h held) {
	of := t.paths[h.Prefix]
	for i := range of {
		if of[i].neighbour == h.neighbour {
			of[i] = h
			return
		}
	}
	t.paths[h.Prefix] = append(of, h)
	t.received[h.neighbour]++
}

// Update takes note of what a neighbour tells.
func (t *Table) Update(neighbour string, paths []Path, withdrawn []netip.Prefix) {
	for _, p := range withdrawn {
		t.remove(p, func(h held) bool { return h.neighbour == neighbour })
	}
	for _, p := range paths {
		t.set(held{Path: p, neighbour: neighbour})
	}
}

func (t *Table) remove(prefix netip.Prefix, unwanted func(held) bool) {
	of := t.paths[prefix]
	for _, h := range of {
		if unwanted(h) {
			if t.received[h.neighbour]--; t.received[h.neighbour] == 0 {
				delete(t.received, h.neighbour)
			}
		}
	}
	if left := slices.DeleteFunc(of, unwanted); len(left) > 0 {
		t.paths[prefix] = left
	} else {
		delete(t.paths, prefix)
	}
}

func (t *Table) drop(unwanted func(held) bool) {
	for prefix := range t.paths {
		t.remove(prefix, unwanted)
	}
}

// Down says that a neighbour's session has ended: its paths go, or stay as stale ones.
func (t *Table) Down(neighbour string, keep bool) {
	if !keep {
		t.drop(func(h held) bool { return h.neighbour == neighbour })
		return
	}
	for _, of := range t.paths {
		for i := range of {
			if of[i].neighbour == neighbour {
				of[i].stale = true
			}
		}
	}
}

// End says that a neighbour has told all that it has of a family: what is stale of it goes.
func (t *Table) End(neighbour string, family Family) {
	t.drop(func(h held) bool {
		return h.neighbour == neighbour && h.stale && message.FamilyOf(h.Prefix.Addr()) == family
	})
}

// Received is how many paths of a neighbour there are.
func (t *Table) Received(neighbour string) int { return t.received[neighbour] }

// Learned is what the table comes to.
type Learned struct {
	// Routes are the next hops by prefix, sorted. Several are equally good.
	Routes map[netip.Prefix][]netip.Addr
	// Accepted counts those of each neighbour; Refused its prefixes by the reason.
	Accepted map[string]int
	Refused  map[string]map[string]int
	// Example is one prefix that was refused, by neighbour and reason.
	Example map[string]map[string]netip.Prefix
	// Beyond are how many prefixes there are beyond the maximum.
	Beyond int
}

// Learned chooses the routes: of what the policy accepts the best paths of each prefix,
// and where there are more prefixes than the maximum those of
// other nodes' pods, and the first ones by address.
func (t *Table) Learned(policy *Policy) Learned {
	l := Learned{Routes: map[netip.Prefix][]netip.Addr{}, Accepted: map[string]int{}, Refused: map[string]map[string]int{}, Example: map[string]map[string]netip.Prefix{}}
	accepted := make([]netip.Prefix, 0, len(t.paths))
	for prefix, of := range t.paths {
		reason := policy.Refuses(prefix)
		if reason == "" {
			accepted = append(accepted, prefix)
			continue
		}
		for _, h := range of {
			if reason == RefusedOwn && h.Own {
				l.refuse(h.neighbour, RefusedEcho, prefix)
			} else {
				l.refuse(h.neighbour, reason, prefix)
			}
		}
	}
	if most := policy.accept.MaximumRoutes; len(accepted) > most {
		slices.SortFunc(accepted, policy.compare)
		l.Beyond = len(accepted) - most
		accepted = accepted[:most]
	}
	for _, prefix := range accepted {
		of := t.paths[prefix]
		l.Routes[prefix] = best(of)
		for _, h := range of {
			l.Accepted[h.neighbour]++
		}
	}
	return l
}

func (l *Learned) refuse(neighbour, reason string, prefix netip.Prefix) {
	if seeded(neighbour) {
		return
	}
	if l.Refused[neighbour] == nil {
		l.Refused[neighbour], l.Example[neighbour] = map[string]int{}, map[string]netip.Prefix{}
	}
	l.Refused[neighbour][reason]++
	if before, has := l.Example[neighbour][reason]; !has || prefix.Compare(before) < 0 {
		l.Example[neighbour][reason] = prefix
	}
}

// best returns the next hops of the paths that are equally good (RFC 4271, 9.1.2.2, as far
// as a node needs it, which tells nobody of what it learned). What this run has not been
// told is the last resort.
func best(paths []held) []netip.Addr {
	first := slices.MinFunc(paths, compare)
	var hops []netip.Addr
	for _, p := range paths {
		if compare(p, first) == 0 {
			hops = append(hops, p.NextHop)
		}
	}
	slices.SortFunc(hops, netip.Addr.Compare)
	return slices.Compact(hops)
}

func compare(a, b held) int {
	worse := func(a, b bool) int {
		switch {
		case a == b:
			return 0
		case a:
			return 1
		}
		return -1
	}
	return cmp.Or(worse(a.stale, b.stale), -cmp.Compare(a.LocalPref, b.LocalPref), cmp.Compare(a.Length, b.Length),
		cmp.Compare(a.Origin, b.Origin), cmp.Compare(a.MED, b.MED), worse(a.Internal, b.Internal))
}

// Expire drops what is stale of a neighbour.
func (t *Table) Expire(neighbour string) {
	t.drop(func(h held) bool { return h.neighbour == neighbour && h.stale })
}
