package service

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// edited returns a Service some of whose endpoints have changed; what has not is where
// it was.
func edited(r *rand.Rand, s Service) Service {
	s.Slices = slices.Clone(s.Slices)
	if len(s.Slices) == 0 || r.IntN(6) == 0 {
		name := fmt.Sprint(len(s.Slices))
		s.Slices = append(s.Slices, randomSlice(r, &s, name))
		return s
	}
	i := r.IntN(len(s.Slices))
	slice := &s.Slices[i]
	fresh := randomSlice(r, &s, slice.Name)
	slice.Endpoints = slices.Clone(slice.Endpoints)
	any := func() *Endpoint { return &slice.Endpoints[r.IntN(len(slice.Endpoints))] }
	switch n := len(slice.Endpoints); {
	case r.IntN(8) == 0:
		s.Slices = s.Slices[:len(s.Slices)-1]
		return s
	case r.IntN(8) == 0:
		*slice = fresh
	case r.IntN(8) == 0:
		slice.Ports = fresh.Ports
	case n == 0 || r.IntN(3) == 0:
		slice.Endpoints = append(slice.Endpoints, fresh.Endpoints...)
	case r.IntN(3) == 0:
		*any() = slice.Endpoints[0]
		slice.Endpoints = slice.Endpoints[1:]
	default:
		e := any()
		e.Ready, e.Serving, e.Terminating = r.IntN(2) == 0, r.IntN(2) == 0, r.IntN(2) == 0
		if r.IntN(4) == 0 {
			e.Hints = &Hints{Zones: []string{string(rune('a' + r.IntN(2)))}, Nodes: []string{fmt.Sprintf("n%d", r.IntN(3))}}
		}
	}
	slice.sort()
	return s
}

// choiceText is everything about a choice but numbers.
func choiceText(c *choice) string {
	return fmt.Sprintf("%v: cluster %v local %v serving %v own %v %+v", c.portOf, c.cluster.sorted(), c.local.sorted(), c.serving.sorted(), c.own, c.tally)
}

// plannedText is everything that a planner knows of Services, but for numbers.
func plannedText(p *Planner) string {
	var lines []string
	for name, s := range p.services {
		for _, c := range s.choices {
			lines = append(lines, fmt.Sprintf("%s %s", name, choiceText(c)))
		}
		if count, is := p.checked[name]; is {
			lines = append(lines, fmt.Sprintf("%s is checked: %d", name, count))
		}
	}
	for port, targets := range p.ruleset.sticky {
		fronts := 0
		var ends []string
		for t, n := range targets {
			fronts += n
			ends = append(ends, fmt.Sprint(t.Kind, t.clusterUsed().sorted(), t.localUsed().sorted()))
		}
		slices.Sort(ends)
		lines = append(lines, fmt.Sprint(port, fronts, slices.Compact(ends)))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n") + "\n"
}

// TestAdvance: what is chosen from what has changed is what is chosen from everything,
// and if nothing has, it is what it was.
func TestAdvance(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 15))
		n := nodeN(1)
		if seed%4 == 0 {
			n.Addresses = append(n.Addresses, netip.MustParseAddr("10.244.1.2")) // a pod of the host's
		}
		s := randomService(r, 1)
		ports := []portOf{}
		choices := map[portOf]*choice{}
		for _, p := range s.Ports {
			for _, f := range families {
				at := portOf{p.Name, p.Protocol, f}
				ports = append(ports, at)
				choices[at] = choose(&s, at, &n, nil)
			}
		}
		for step := range 150 {
			next := edited(r, s)
			changed := changedSlices(s.Slices, next.Slices)
			for _, at := range ports {
				got, want := choices[at].advance(&s, &next, changed, &n), choose(&next, at, &n, nil)
				if choiceText(got) != choiceText(want) {
					t.Fatalf("seed %d, step %d:\ngot  %s\nwant %s", seed, step, choiceText(got), choiceText(want))
				}
				again := next
				again.Slices = slices.Clone(next.Slices)
				if c := got.advance(&next, &again, changedSlices(next.Slices, again.Slices), &n); c != got {
					t.Fatalf("seed %d, step %d: nothing has changed, but what is chosen", seed, step)
				}
				choices[at] = got
			}
			s = next
		}
	}
}

// TestAdvanceBeyondMost: of more endpoints than are used the first ones are, whatever
// came before.
func TestAdvanceBeyondMost(t *testing.T) {
	n := nodeN(1)
	at := portOf{"http", TCP, ipv4}
	s := sliced(maximumEndpoints + 150)
	c := choose(&s, at, &n, nil)
	for step, position := range []int{5, 100, 7} {
		next := s
		next.Slices = slices.Clone(s.Slices)
		slice := &next.Slices[step*3]
		slice.Endpoints = slices.Delete(slices.Clone(slice.Endpoints), position%len(slice.Endpoints), position%len(slice.Endpoints)+1)
		if step == 1 {
			next.Slices = next.Slices[:len(next.Slices)-2] // fewer than can be used
		}
		c = c.advance(&s, &next, changedSlices(s.Slices, next.Slices), &n)
		if got, want := choiceText(c), choiceText(choose(&next, at, &n, nil)); got != want {
			t.Fatalf("step %d: it is not what is chosen from everything", step)
		}
		s = next
	}
}

// sliced is a Service with so many endpoints, a hundred in a slice, as Kubernetes has
// them.
func sliced(endpoints int) Service {
	s := many(1, endpoints)[0]
	all := s.Slices[0]
	s.Slices = nil
	for part := range slices.Chunk(all.Endpoints, 100) {
		s.Slices = append(s.Slices, Slice{Name: fmt.Sprintf("s-%05d", len(s.Slices)), Ports: all.Ports, Endpoints: slices.Clip(part)})
	}
	return s
}

// replaced is a Service one of whose endpoints is another one; it is the n-th change.
func replaced(s Service, n int) Service {
	const prime = 7919
	s.Slices = slices.Clone(s.Slices)
	slice := &s.Slices[n*prime%len(s.Slices)]
	slice.Endpoints = slices.Clone(slice.Endpoints)
	slice.Endpoints[n*prime%len(slice.Endpoints)].Address = netip.AddrFrom4([4]byte{10, 160 + byte(n>>16), byte(n >> 8), byte(n)})
	slice.sort()
	return s
}

// TestChangeIsSmall: what is written of a change does not depend on how many endpoints
// there are.
func TestChangeIsSmall(t *testing.T) {
	without := func(s Service, i, j, n int) Service {
		s.Slices = slices.Clone(s.Slices)
		s.Slices[i].Endpoints = slices.Delete(slices.Clone(s.Slices[i].Endpoints), j, j+n)
		return s
	}
	for _, test := range []struct {
		name     string
		change   func(Service) Service
		elements int // deleted and added
	}{
		{"one is replaced", func(s Service) Service { return replaced(s, 1) }, 2},
		{"the first goes", func(s Service) Service { return without(s, 0, 0, 1) }, 2 + 1 + 2}, // verdict, last number, the first's
		{"the last goes", func(s Service) Service {
			last := len(s.Slices) - 1
			return without(s, last, len(s.Slices[last].Endpoints)-1, 1)
		}, 2 + 1},
		{"ten go", func(s Service) Service { return without(s, 0, 3, 10) }, 2 + 10 + 2*10 + 1}, // and one is of this node
		{"one is no longer ready", func(s Service) Service {
			s = without(s, 0, 0, 0)
			s.Slices[0].Endpoints[7].Ready = false
			return s
		}, 2 + 1 + 2},
		{"one more", func(s Service) Service {
			s = without(s, 0, 0, 0)
			s.Slices[0].Endpoints = append(s.Slices[0].Endpoints, Endpoint{Address: netip.MustParseAddr("10.128.250.250"), Ready: true})
			s.Slices[0].sort()
			return s
		}, 2 + 1},
		{"one more is not ready", func(s Service) Service {
			s = without(s, 0, 0, 0)
			s.Slices[0].Endpoints = append(s.Slices[0].Endpoints, Endpoint{Address: netip.MustParseAddr("10.128.250.250")})
			s.Slices[0].sort()
			return s
		}, 0},
	} {
		for _, size := range []int{200, 5000} {
			t.Run(fmt.Sprintf("%s of %d", test.name, size), func(t *testing.T) {
				p := NewPlanner(nodeN(1))
				s := sliced(size)
				p.Set(s)
				p.Ruleset().take()
				p.Set(test.change(s))
				got := 0
				deltas := p.Ruleset().take().since(p.Ruleset()).tables
				for _, d := range deltas {
					got += len(d.Deleted) + len(d.Added)
				}
				if got != test.elements {
					t.Errorf("%d elements are written, want %d: %v", got, test.elements, deltas)
				}
			})
		}
	}
}
