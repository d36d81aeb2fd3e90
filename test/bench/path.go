package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
)

// place is where the two pods are: on one node, or on two that one of the models joins.
type place string

const (
	sameNode place = "same node"
	direct   place = "direct"
	vxlan    place = "vxlan"
)

// nodes is how many there are.
func (p place) nodes() int {
	if p == sameNode {
		return 1
	}
	return 2
}

// measurement is one thing to measure on a path.
type measurement struct {
	title, unit string
	kind        string // of the program load
	ipv6        bool
	show        func(rate float64) float64 // in that unit
}

func (m measurement) address(p path) netip.Addr {
	if m.ipv6 {
		return p.ipv6
	}
	return p.ipv4
}

var measurements = []measurement{
	{"TCP stream", "Gbit/s", "stream", false, func(bytes float64) float64 { return 8 * bytes / 1e9 }},
	{"round trip", "µs", "pingpong", false, microseconds},
	{"IPv6 round trip", "µs", "pingpong", true, microseconds},
	{"UDP", "1000 packets/s", "datagrams", false, func(packets float64) float64 { return packets / 1e3 }},
}

func microseconds(trips float64) float64 { return 1e6 / trips }

// comparison is a contender's rates over another's.
type comparison struct {
	ours, theirs string
	limit        float64 // 0 if there is none
	// otherwise says that it is judged only where the comparison before has not reached its
	// limit: it is with what nobody can be faster than.
	otherwise bool
}

// comparisons are those of a place. Who redirects and does nothing else is the limit of what
// can be reached.
func comparisons(where place) []comparison {
	all := []comparison{
		{ours: withFlatnet, theirs: bare, limit: 0.90},
		{ours: withFlatnet, theirs: redirectOnly, limit: 0.97, otherwise: true},
		{ours: withFlatnet, theirs: byHand, limit: 1},
		{ours: withFlatnet, theirs: byHandMasquerade, limit: 1},
		{ours: withFlatnet, theirs: withBridge, limit: 1},
		{ours: withFlatnet, theirs: withBridgeMasquerade, limit: 1},
	}
	if where != sameNode {
		all = []comparison{
			{ours: withFlatnet, theirs: byHand, limit: 1.05},
			{ours: withFlatnet, theirs: redirectOnly, limit: 0.97, otherwise: true},
			{ours: withFlatnet, theirs: byHandMasquerade, limit: 1},
			{ours: withFlatnet, theirs: withBridge, limit: 1},
			{ours: withFlatnet, theirs: withBridgeMasquerade, limit: 1},
			{ours: withFlatnet, theirs: bare},
		}
	}
	return append(all,
		comparison{ours: redirectOnly, theirs: byHand},
		comparison{ours: redirectOnly, theirs: bare},
		comparison{ours: kernelPath, theirs: byHand},
		comparison{ours: kernelPath, theirs: byHandMasquerade},
		comparison{ours: routesOnly, theirs: byHand},
		comparison{ours: byHandMasquerade, theirs: byHand},
	)
}

// measurePath measures each thing on all paths between pods that are so placed, in
// turn and in random order.
func measurePath(where place) func(context.Context, *bench) (section, error) {
	return func(ctx context.Context, b *bench) (section, error) {
		s := &paths{bench: b, where: where}
		defer s.close()
		all, err := s.all(ctx)
		if err != nil {
			return section{}, err
		}
		dice := rand.New(rand.NewPCG(70, 70))
		found := map[string][]rates{}
		for _, p := range all {
			found[p.name] = make([]rates, len(measurements))
		}
		for range b.amount.pathRounds {
			for i, m := range measurements {
				for _, which := range dice.Perm(len(all)) {
					p := all[which]
					if !m.address(p).IsValid() {
						continue
					}
					rate, err := b.rate(ctx, m.kind, p, m.address(p))
					if err != nil {
						return section{}, err
					}
					found[p.name][i] = append(found[p.name][i], rate)
				}
			}
		}
		return section{table: rateTable(all, found), compared: comparisonTable(where, found)}, nil
	}
}

func rateTable(all []path, found map[string][]rates) table {
	t := table{head: []string{"median (least–most)"}}
	for _, m := range measurements {
		t.head = append(t.head, m.title+", "+m.unit)
	}
	t.head = append(t.head, "runs")
	for _, p := range all {
		row := []string{p.name}
		for i, m := range measurements {
			row = append(row, found[p.name][i].shown(m.show))
		}
		t.rows = append(t.rows, append(row, fmt.Sprint(len(found[p.name][0]))))
	}
	return t
}

// comparisonTable has the contenders' speed: of round trips, how many there are in a
// time. More is better everywhere.
func comparisonTable(where place, found map[string][]rates) table {
	t := table{head: []string{"speed, median (least–most) of all rounds"}}
	for _, m := range measurements {
		t.head = append(t.head, m.title)
	}
	t.head = append(t.head, "target")
	reached := make([]bool, len(measurements)) // by the comparison before
	for _, c := range comparisons(where) {
		row, target := []string{c.ours + " / " + c.theirs}, ""
		if c.limit > 0 {
			target = fmt.Sprintf("≥ %g", c.limit)
		}
		if c.otherwise {
			target += ", where that above is not reached"
		}
		ours, theirs := found[c.ours], found[c.theirs]
		if ours == nil || theirs == nil {
			continue
		}
		for i := range measurements {
			quotients, limit := ours[i].over(theirs[i]), c.limit
			if c.otherwise && reached[i] {
				limit = 0
			}
			row = append(row, quotients.verdict(limit))
			reached[i] = quotients.median() >= c.limit
		}
		t.rows = append(t.rows, append(row, target))
	}
	return t
}
