package service

import (
	"net/netip"
	"slices"
	"strings"
)

// sliceChange is a slice as it was and as it is now; nil where there is none.
type sliceChange struct{ before, after *Slice }

// changedSlices returns which slices of a Service may differ. Slices that have been
// handed over are not written to, so what is in the same place is the same.
func changedSlices(before, after []Slice) []sliceChange {
	var all []sliceChange
	pair(before, after, func(a, b *Slice) int { return strings.Compare(a.Name, b.Name) }, func(b, a *Slice) {
		if b == nil || a == nil || !b.isSame(a) {
			all = append(all, sliceChange{b, a})
		}
	})
	return all
}

// isSame reports whether two slices are one and the same.
func (s *Slice) isSame(o *Slice) bool {
	return slices.Equal(s.Ports, o.Ports) && len(s.Endpoints) == len(o.Endpoints) && (len(s.Endpoints) == 0 || &s.Endpoints[0] == &o.Endpoints[0])
}

// touched calls yield for every endpoint that a port has, or had, by the slice and of
// which the slice now says something else.
func (s sliceChange) touched(p portOf, yield func(netip.AddrPort)) {
	numbers := func(slice *Slice) (all []uint16) {
		if slice != nil {
			all = slices.Collect(slice.numbers(p))
		}
		return all
	}
	endpoints := func(slice *Slice) []Endpoint {
		if slice == nil {
			return nil
		}
		return slice.Endpoints
	}
	before, after := numbers(s.before), numbers(s.after)
	sameNumbers := slices.Equal(before, after)
	pair(endpoints(s.before), endpoints(s.after), func(a, b *Endpoint) int { return a.Address.Compare(b.Address) }, func(b, a *Endpoint) {
		if sameNumbers && b != nil && a != nil && b.equal(*a) {
			return
		}
		each := func(e *Endpoint, numbers []uint16) {
			if e == nil || !p.family.owns(e.Address) {
				return
			}
			for _, n := range numbers {
				yield(netip.AddrPortFrom(e.Address, n))
			}
		}
		each(b, before)
		each(a, after)
	})
}

// advance returns the choice after some slices of the Service have changed, while the
// node has not. It looks at the endpoints that have changed and no others, unless the
// others are now judged by other rules; the result is that of [choose].
func (c *choice) advance(before, after *Service, changed []sliceChange, n *Node) *choice {
	var touched []netip.AddrPort
	for _, s := range changed {
		s.touched(c.portOf, func(at netip.AddrPort) { touched = append(touched, at) })
	}
	if len(touched) == 0 {
		return c
	}
	slices.SortFunc(touched, netip.AddrPort.Compare)
	touched = slices.Compact(touched)
	next := &choice{portOf: c.portOf, tally: c.tally}
	now := make([]candidate, len(touched)) // without Endpoint: none
	for i, at := range touched {
		if was, is := before.candidate(c.portOf, at); is {
			next.tally.count(was, n, -1)
		}
		if one, is := after.candidate(c.portOf, at); is {
			now[i] = one
			next.tally.count(one, n, 1)
		}
	}
	r := next.tally.rules()
	most := max(c.cluster.size(), c.local.size(), c.serving.size())
	if r != c.tally.rules() || most+len(touched) > maximumEndpoints {
		return choose(after, c.portOf, n, c)
	}
	next.cluster = c.cluster.revise(touched, func(i int) bool { return now[i].Endpoint != nil && r.cluster(now[i], n) })
	next.local = c.local.revise(touched, func(i int) bool { return now[i].Endpoint != nil && r.local(now[i], n) })
	next.serving = c.serving.revise(touched, func(i int) bool { return now[i].Endpoint != nil && serves(now[i], c.protocol) })
	next.own = c.own
	for i, at := range touched {
		if a := at.Addr(); i == 0 || a != touched[i-1].Addr() {
			next.own = revised(next.own, a, next.ownsAt(after, a, n))
		}
	}
	return next
}

// revise returns a roster in which those that are touched, which are sorted, are if
// they are wanted, and all others as before.
func (r *roster) revise(touched []netip.AddrPort, wanted func(i int) bool) *roster {
	var gone, come []netip.AddrPort
	for i, at := range touched {
		switch have, want := r.has(at), wanted(i); {
		case have && !want:
			gone = append(gone, at)
		case want && !have:
			come = append(come, at)
		}
	}
	return r.replace(gone, come)
}

// ownsAt reports whether any endpoint with an address is chosen, and a pod of the node.
func (c *choice) ownsAt(s *Service, a netip.Addr, n *Node) bool {
	for i := range s.Slices {
		slice := &s.Slices[i]
		if len(slice.find(a)) == 0 {
			continue
		}
		for number := range slice.numbers(c.portOf) {
			one, _ := s.candidate(c.portOf, netip.AddrPortFrom(a, number))
			if n.owned(one) && c.chosen(one.at) {
				return true
			}
		}
	}
	return false
}

// revised returns sorted addresses with or without one of them. It does not write to
// those that it is given.
func revised(all []netip.Addr, a netip.Addr, wanted bool) []netip.Addr {
	switch place, have := slices.BinarySearchFunc(all, a, netip.Addr.Compare); {
	case have && !wanted:
		return slices.Delete(slices.Clone(all), place, place+1)
	case wanted && !have:
		return slices.Insert(slices.Clip(all), place, a)
	}
	return all
}

// find returns what a slice says of an address, most often one endpoint or none.
func (s *Slice) find(a netip.Addr) []Endpoint {
	from, _ := slices.BinarySearchFunc(s.Endpoints, a, func(e Endpoint, a netip.Addr) int { return e.Address.Compare(a) })
	to := from
	for to < len(s.Endpoints) && s.Endpoints[to].Address == a {
		to++
	}
	return s.Endpoints[from:to]
}

// candidate returns the best that the slices say of an endpoint, as [candidates] does.
func (s *Service) candidate(p portOf, at netip.AddrPort) (best candidate, is bool) {
	for i := range s.Slices {
		slice := &s.Slices[i]
		for number := range slice.numbers(p) {
			if number != at.Port() {
				continue
			}
			found := slice.find(at.Addr())
			for j := range found {
				if c := (candidate{&found[j], at}); !is || c.rank() < best.rank() {
					best, is = c, true
				}
			}
		}
	}
	return best, is
}
