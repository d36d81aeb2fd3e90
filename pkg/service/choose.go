package service

import (
	"cmp"
	"net/netip"
	"slices"
)

// choice is where the traffic to a port of a Service may go from one node, in one
// family. All fronts of the port have it in common.
type choice struct {
	portOf
	// cluster are the endpoints for policy Cluster: those that are ready,
	// or where there are none those that still serve while they terminate.
	cluster *roster
	// local are the endpoints on this node for policy Local, chosen likewise.
	local *roster
	// serving are all endpoints that existing flows may go on with. It is
	// known for UDP only, where a flow ends only when it is forgotten.
	serving *roster
	// own are those of local and cluster that are pods of this node, sorted.
	own   []netip.Addr
	tally tally
}

// portOf is a port of a Service in one family.
type portOf struct {
	name     string
	protocol Protocol
	family   family
}

// exists reports whether the port has any endpoint that could be used, here or
// elsewhere.
func (c *choice) exists() bool { return c.cluster.size() > 0 || c.local.size() > 0 }

// equal reports whether the endpoints are the same, with the same numbers.
func (c *choice) equal(o *choice) bool {
	return c == o || c.cluster.equal(o.cluster) && c.local.equal(o.local) && c.serving.equal(o.serving) && slices.Equal(c.own, o.own)
}

// chosen reports whether an endpoint is one of those for any policy.
func (c *choice) chosen(at netip.AddrPort) bool { return c.cluster.has(at) || c.local.has(at) }

// candidate is an endpoint with the number that the port has there.
type candidate struct {
	*Endpoint
	at netip.AddrPort
}

// rank orders what may be said of the same endpoint in two slices, while it moves
// from one to the other: the best counts.
func (c candidate) rank() int {
	switch {
	case c.Ready:
		return 0
	case c.Serving:
		return 1
	}
	return 2
}

// fading reports whether an endpoint serves until it ends.
func (c candidate) fading() bool { return c.Serving && c.Terminating }

// tally counts the endpoints that are ready, which decides for whom the others are.
type tally struct {
	ready                int32
	here                 int32 // on this node
	nodeHints, zoneHints int32 // have any such hint
	meantNode, meantZone int32 // are meant for this node, or zone
}

// count adds an endpoint to the tally, or with -1 takes it out.
func (t *tally) count(c candidate, n *Node, by int32) {
	if !c.Ready {
		return
	}
	add := func(to *int32, is bool) {
		if is {
			*to += by
		}
	}
	t.ready += by
	add(&t.here, n.isHere(c))
	if c.Hints != nil {
		add(&t.nodeHints, len(c.Hints.Nodes) > 0)
		add(&t.zoneHints, len(c.Hints.Zones) > 0)
		add(&t.meantNode, meantForNode(c, n))
		add(&t.meantZone, meantForZone(c, n))
	}
}

func (n *Node) isHere(c candidate) bool { return c.Node == n.Name && n.Name != "" }

func meantForNode(c candidate, n *Node) bool {
	return c.Hints != nil && slices.Contains(c.Hints.Nodes, n.Name)
}

func meantForZone(c candidate, n *Node) bool {
	return c.Hints != nil && slices.Contains(c.Hints.Zones, n.Zone)
}

// nearness says which of the ready endpoints are near enough.
type nearness uint8

const (
	nearAll nearness = iota
	nearNode
	nearZone
)

// rules are how endpoints are chosen, each by what is said of it alone.
type rules struct {
	near               nearness
	fading, fadingHere bool // none is ready, everywhere or here
}

// rules follow from what all endpoints have in common. Hints count only where every
// ready endpoint has them, and one is meant for this node or zone: else the
// controller that writes them does not know this node, or is at work.
func (t tally) rules() rules {
	r := rules{fading: t.ready == 0, fadingHere: t.here == 0}
	switch {
	case t.nodeHints == t.ready && t.meantNode > 0:
		r.near = nearNode
	case t.zoneHints == t.ready && t.meantZone > 0:
		r.near = nearZone
	}
	return r
}

// cluster reports whether an endpoint is one for policy Cluster.
func (r rules) cluster(c candidate, n *Node) bool {
	switch {
	case r.fading:
		return c.fading()
	case r.near == nearNode:
		return c.Ready && meantForNode(c, n)
	case r.near == nearZone:
		return c.Ready && meantForZone(c, n)
	}
	return c.Ready
}

// local reports whether an endpoint is one for policy Local.
func (r rules) local(c candidate, n *Node) bool {
	return n.isHere(c) && (c.Ready || r.fadingHere && c.fading())
}

// serves reports whether the flows of an endpoint may go on. TCP knows by itself.
func serves(c candidate, p Protocol) bool { return p == UDP && (c.Ready || c.Serving) }

// owned reports whether an endpoint is a pod of the node. What the node says to
// itself does not have to be told apart.
func (n *Node) owned(c candidate) bool {
	a := c.at.Addr()
	return (n.isHere(c) || n.isPod(a)) && !slices.Contains(n.Addresses, a)
}

// choose picks the endpoints of a port. Those that it had before, which may be nil,
// keep their numbers where they can.
func choose(s *Service, p portOf, n *Node, before *choice) *choice {
	all := candidates(s, p)
	c := &choice{portOf: p}
	for _, one := range all {
		c.tally.count(one, n, 1)
	}
	if before == nil {
		before = &choice{}
	}
	r := c.tally.rules()
	c.cluster = before.cluster.become(pick(all, func(c candidate) bool { return r.cluster(c, n) }))
	c.local = before.local.become(pick(all, func(c candidate) bool { return r.local(c, n) }))
	c.serving = before.serving.become(pick(all, func(c candidate) bool { return serves(c, p.protocol) }))
	for _, a := range all {
		if n.owned(a) && c.chosen(a.at) {
			c.own = append(c.own, a.at.Addr())
		}
	}
	c.own = slices.Compact(c.own)
	return c
}

// candidates returns the endpoints of all slices that have the port, sorted,
// each once.
func candidates(s *Service, p portOf) []candidate {
	var all []candidate
	for i := range s.Slices {
		slice := &s.Slices[i]
		for number := range slice.numbers(p) {
			for j := range slice.Endpoints {
				if e := &slice.Endpoints[j]; p.family.owns(e.Address) {
					all = append(all, candidate{e, netip.AddrPortFrom(e.Address, number)})
				}
			}
		}
	}
	slices.SortStableFunc(all, func(a, b candidate) int {
		if c := a.at.Compare(b.at); c != 0 {
			return c
		}
		return cmp.Compare(a.rank(), b.rank())
	})
	return slices.CompactFunc(all, func(a, b candidate) bool { return a.at == b.at })
}

// numbers calls yield for what a port of the Service is on a slice's endpoints.
func (s *Slice) numbers(p portOf) func(yield func(uint16) bool) {
	return func(yield func(uint16) bool) {
		for _, sp := range s.Ports {
			if sp.Name == p.name && sp.Protocol == p.protocol && !yield(sp.Port) {
				return
			}
		}
	}
}

// pick returns the good ones of sorted candidates, up to [maximumEndpoints].
func pick(all []candidate, good func(candidate) bool) []netip.AddrPort {
	n := 0
	for _, c := range all {
		if good(c) {
			n++
		}
	}
	if n == 0 {
		return nil
	}
	// These lists are most of what is kept of a large cluster.
	list := make([]netip.AddrPort, 0, min(n, maximumEndpoints))
	for _, c := range all {
		if good(c) && len(list) < maximumEndpoints {
			list = append(list, c.at)
		}
	}
	return list
}
