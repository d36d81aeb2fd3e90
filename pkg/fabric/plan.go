package fabric

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/flatnet-cni/flatnet/pkg/kernel"
	"github.com/flatnet-cni/flatnet/pkg/node"
	"github.com/flatnet-cni/flatnet/pkg/problem"
)

// Fixed numbers of the fabric.
const (
	// rulePriority comes before the main table's 32766 and after what
	// administrators usually put first.
	rulePriority = 7070
	// lastMetric makes a route the last resort, should somebody else have one
	// to the same destination.
	lastMetric = 1 << 30
	// minimumMTU is that of IPv6 (RFC 8200, 5).
	minimumMTU = 1280
	defaultMTU = 1500
)

// Planner computes plans. What does not depend on something that has changed is
// taken from the previous plan; the result is the same as that of a new
// Planner. It is not safe for concurrent use.
type Planner struct {
	Config Config
	// Learned are routes that routers have told of. Nobody may write to what was given.
	Learned Learned

	self     node.Node
	underlay kernel.Underlay
	around   *surroundings
	peers    map[string]*remembered
	round    int // of planning
}

type remembered struct {
	node    node.Node
	learned [][]netip.Addr // ways to its podCIDRs
	peer    *Peer
	round   int // in which the peer was last among the nodes
}

// surroundings is what the ways to all peers depend on.
type surroundings struct {
	Config
	self   node.Node
	routes *routes
	under  kernel.Underlay
	// outer is the node's address on the underlay that the overlay uses; zero
	// where there is no overlay.
	outer   netip.Addr
	learned Learned
	hops    map[netip.Addr]kernel.Hop // next hops by what was learned; zero where it cannot be used
}

// Plan returns what the node self needs to be joined to the peers, on the given
// underlay. peers is sorted by name and may contain self.
func (p *Planner) Plan(self node.Node, peers []node.Node, underlay kernel.Underlay) *Plan {
	self = self.Joined()
	if p.around == nil || !p.self.Equal(self) || !p.underlay.Equal(underlay) {
		p.self, p.underlay = self, underlay
		p.around = &surroundings{Config: p.Config, self: self, routes: indexRoutes(underlay.Routes), under: underlay}
		p.around.outer = p.around.overlayAddress()
		p.peers = map[string]*remembered{}
	}
	p.around.learned, p.around.hops = p.Learned, map[netip.Addr]kernel.Hop{}
	plan := &Plan{Peers: make([]*Peer, 0, len(peers))}
	p.round++
	for _, n := range peers {
		if n.Name == self.Name {
			continue
		}
		n = n.Joined()
		r, is := p.peers[n.Name]
		learned := p.Learned.to(n.PodCIDRs)
		if !is || !r.node.Equal(n) || !slices.EqualFunc(r.learned, learned, slices.Equal) {
			r = &remembered{node: n, learned: learned, peer: p.around.join(n)}
			p.peers[n.Name] = r
		}
		r.round = p.round
		plan.Peers = append(plan.Peers, r.peer)
	}
	if len(p.peers) > len(plan.Peers) {
		maps.DeleteFunc(p.peers, func(_ string, r *remembered) bool { return r.round != p.round })
	}
	p.around.own(plan)
	return plan
}

// overlayAddress returns the address that the node's end of the overlay has on
// the underlay: its first one that an interface has.
func (s *surroundings) overlayAddress() netip.Addr {
	if s.Mode != Auto && s.Mode != VXLAN || s.WithoutOverlay != "" {
		return netip.Addr{}
	}
	for _, a := range s.self.Addresses {
		if _, owned := s.under.Owner(a); owned {
			return a
		}
	}
	return netip.Addr{}
}

// own plans what belongs to no single peer.
func (s *surroundings) own(plan *Plan) {
	for _, c := range s.self.PodCIDRs {
		if route, conflicts := s.routes.conflict(c, true); conflicts {
			plan.Problems = append(plan.Problems, s.conflictProblem(s.self.Name, c, route))
			continue
		}
		plan.OwnPodCIDRs = append(plan.OwnPodCIDRs, c)
	}
	var overlaid [2]bool // IPv4, IPv6
	links := map[string]bool{}
	for _, peer := range plan.Peers {
		for _, w := range peer.Ways {
			switch w.Mode {
			case VXLAN:
				overlaid[familyOf(w.PodCIDR.Addr())] = true
			case Direct:
				links[w.Link] = true
			case BGP:
				for _, h := range w.Hops.All() {
					links[h.Link] = true
				}
			}
		}
	}
	carrier := s.carrier()
	if carrier.Name != "" {
		links[carrier.Name] = true
	}
	for name := range links {
		plan.Underlay = append(plan.Underlay, name)
	}
	slices.Sort(plan.Underlay)
	plan.PodMTU = s.podMTU(carrier, overlaid[0] || overlaid[1])
	if s.Mode == None {
		return
	}
	add := func(o kernel.Object) { plan.Shared = append(plan.Shared, entry(o)) }
	s.others(plan, add)
	if s.outer.IsValid() {
		plan.Tunnel = s.Tunnel
		if overlaid[0] || overlaid[1] {
			plan.Outer = s.outer
		}
		add(kernel.Tunnel{Name: s.Tunnel, VNI: s.VNI, Port: s.Port, From: s.outer, MAC: MAC(s.self.Name), MTU: s.tunnelMTU(carrier)})
		for _, ipv6 := range []bool{false, true} {
			if vtep := vtep(s.self.PodCIDRs, ipv6); vtep.IsValid() {
				// The node's own pods should see the address that the node is
				// known by: of IPv6 addresses the kernel would choose the one
				// that is most like theirs.
				add(kernel.Address{Link: s.Tunnel, Prefix: netip.PrefixFrom(vtep, vtep.BitLen()), Deprecated: ipv6})
			}
		}
	} else if s.Mode != Direct && s.WithoutOverlay == "" {
		plan.Problems = append(plan.Problems, s.noOverlay())
	}
	for _, c := range plan.OwnPodCIDRs {
		if s.Nodes && overlaid[familyOf(c.Addr())] {
			add(kernel.Rule{From: c, Table: kernel.FabricTable, Priority: rulePriority})
		}
		add(kernel.Route{Destination: c, Metric: lastMetric, Unreachable: true})
	}
	for _, a := range s.answered(plan.OwnPodCIDRs) {
		add(a)
	}
}

func (s *surroundings) noOverlay() problem.Problem {
	f := problem.Facts{Node: s.self.Name, Breaks: []problem.Thing{problem.Overlay}}
	if len(s.self.Addresses) == 0 {
		f.Reason, f.Advice = "has no address: the overlay cannot be made", "give the node an address in the source of nodes"
		return problem.NoOverlay.Of(f)
	}
	f.Object, f.Reason = fmt.Sprintf("addresses %v", s.self.Addresses), "no interface of this node has one of them: the overlay cannot be made"
	return problem.NoOverlay.Of(f)
}

// carrier returns the interface that carries the node's first address, or if it
// is on lo the one of the default route.
func (s *surroundings) carrier() kernel.UnderlayLink {
	for _, a := range s.self.Addresses {
		if l, owned := s.under.Owner(a); owned && l.Name != "lo" {
			return l
		}
	}
	for _, prefix := range []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)} {
		if route, found := s.routes.byPrefix[prefix]; found {
			if l, found := s.under.Link(route.Link); found {
				return l
			}
		}
	}
	return kernel.UnderlayLink{}
}

func (s *surroundings) tunnelMTU(carrier kernel.UnderlayLink) int {
	mtu := carrier.MTU
	if mtu == 0 {
		mtu = defaultMTU
	}
	mtu -= Overhead(s.outer)
	if s.MTU != 0 {
		mtu = min(mtu, s.MTU)
	}
	return max(mtu, minimumMTU)
}

// podMTU leaves room for the overlay as soon as one peer is reached through it.
// Pods that got a larger one before learn the smaller one for such
// destinations from their node (path MTU discovery).
func (s *surroundings) podMTU(carrier kernel.UnderlayLink, overlaid bool) int {
	switch {
	case s.MTU != 0:
		return s.MTU
	case s.Mode == VXLAN && s.outer.IsValid(), overlaid:
		return s.tunnelMTU(carrier)
	case carrier.MTU == 0:
		return defaultMTU
	}
	return carrier.MTU
}

// vtep returns the address of a node's end of the overlay in one family: the
// first of its first podCIDR, which no pod ever gets.
func vtep(podCIDRs []netip.Prefix, ipv6 bool) netip.Addr {
	for _, c := range podCIDRs {
		if c.Addr().Is6() == ipv6 {
			return c.Masked().Addr()
		}
	}
	return netip.Addr{}
}

func (s *surroundings) conflictProblem(name string, podCIDR netip.Prefix, route kernel.UnderlayRoute) problem.Problem {
	text := route.Destination.String()
	if route.Gateway.IsValid() {
		text += " via " + route.Gateway.String()
	}
	if route.Link != "" {
		text += " dev " + route.Link
	}
	f := problem.Facts{
		Node: name, Object: "podCIDR " + podCIDR.String(),
		Reason: fmt.Sprintf("overlaps with the route %s of node %s, which is not flatnet's", text, s.self.Name),
		Advice: fmt.Sprintf("give node %s another podCIDR; or if nobody needs it, %s on node %s", name, remove(route, text), s.self.Name),
	}
	// One route may be at odds with the podCIDRs of all nodes: that is one mistake.
	f.Breaks, f.Needs = []problem.Thing{problem.Thing("route " + text)}, []problem.Thing{problem.Thing("route " + text)}
	if name == s.self.Name {
		f.Breaks = append(f.Breaks, problem.OwnPodCIDRs)
	}
	return problem.PodCIDRRoute.Of(f)
}

// remove is what takes a route away. That of an interface's own network comes with
// an address there, and goes with it.
func remove(route kernel.UnderlayRoute, text string) string {
	command := "ip"
	if route.Destination.Addr().Is6() {
		command = "ip -6"
	}
	if !route.Gateway.IsValid() && route.Link != "" {
		return fmt.Sprintf("take that network off interface %s (`%s addr show dev %s`) or remove the route (`%s route del %s`)", route.Link, command, route.Link, command, text)
	}
	return fmt.Sprintf("remove the route (`%s route del %s`)", command, text)
}
