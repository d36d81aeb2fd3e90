package service

import (
	"cmp"
	"net/netip"
	"slices"
)

// choice is where the traffic to a port of a Service may go from one node, in one
// family. The lists are sorted, and have each endpoint once.
type choice struct {
	// cluster are the endpoints for policy Cluster: those that are ready,
	// or where there are none those that still serve while they terminate.
	cluster []netip.AddrPort
	// local are the endpoints on this node for policy Local, chosen likewise.
	local []netip.AddrPort
	// serving are all endpoints that existing flows may go on with. It is
	// known for UDP only, where a flow ends only when it is forgotten.
	serving []netip.AddrPort
	// own are those of local and cluster that are pods of this node.
	own []netip.Addr
}

// exists reports whether the port has any endpoint that could be used, here or
// elsewhere.
func (c choice) exists() bool { return len(c.cluster) > 0 || len(c.local) > 0 }

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

// choose picks the endpoints of a port.
func choose(s *Service, p Port, f family, n *Node) choice {
	all := candidates(s, p, f)
	var c choice
	if len(all) == 0 {
		return c
	}
	ready := func(c candidate) bool { return c.Ready }
	fading := func(c candidate) bool { return c.Serving && c.Terminating }
	here := func(c candidate) bool { return c.Node == n.Name && n.Name != "" }
	near := nearby(all, n)
	c.cluster = pick(all, func(c candidate) bool { return ready(c) && near(c) })
	if len(c.cluster) == 0 {
		c.cluster = pick(all, fading)
	}
	c.local = pick(all, func(c candidate) bool { return ready(c) && here(c) })
	if len(c.local) == 0 {
		c.local = pick(all, func(c candidate) bool { return fading(c) && here(c) })
	}
	if p.Protocol == UDP {
		c.serving = pick(all, func(c candidate) bool { return c.Ready || c.Serving })
	}
	for _, a := range all {
		address := a.at.Addr()
		_, inCluster := slices.BinarySearchFunc(c.cluster, a.at, netip.AddrPort.Compare)
		_, inLocal := slices.BinarySearchFunc(c.local, a.at, netip.AddrPort.Compare)
		// What the node says to itself does not have to be told apart.
		if (inCluster || inLocal) && (here(a) || n.isPod(address)) && !slices.Contains(n.Addresses, address) {
			c.own = append(c.own, address)
		}
	}
	slices.SortFunc(c.own, netip.Addr.Compare)
	c.own = slices.Compact(c.own)
	return c
}

// candidates returns the endpoints of all slices that have the port, sorted,
// each once.
func candidates(s *Service, p Port, f family) []candidate {
	var all []candidate
	for i := range s.Slices {
		slice := &s.Slices[i]
		for _, sp := range slice.Ports {
			if sp.Name != p.Name || sp.Protocol != p.Protocol {
				continue
			}
			for j := range slice.Endpoints {
				if e := &slice.Endpoints[j]; f.owns(e.Address) {
					all = append(all, candidate{e, netip.AddrPortFrom(e.Address, sp.Port)})
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

// nearby returns which endpoints are near enough. Hints count only where every
// ready endpoint has them, and one is meant for this node or zone: else the
// controller that writes them does not know this node, or is at work.
func nearby(all []candidate, n *Node) func(candidate) bool {
	forNode := func(c candidate) bool { return c.Hints != nil && slices.Contains(c.Hints.Nodes, n.Name) }
	forZone := func(c candidate) bool { return c.Hints != nil && slices.Contains(c.Hints.Zones, n.Zone) }
	allNodes, allZones, anyNode, anyZone := true, true, false, false
	for _, c := range all {
		if !c.Ready {
			continue
		}
		allNodes = allNodes && c.Hints != nil && len(c.Hints.Nodes) > 0
		allZones = allZones && c.Hints != nil && len(c.Hints.Zones) > 0
		anyNode = anyNode || forNode(c)
		anyZone = anyZone || forZone(c)
	}
	switch {
	case allNodes && anyNode:
		return forNode
	case allZones && anyZone:
		return forZone
	}
	return func(candidate) bool { return true }
}

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
