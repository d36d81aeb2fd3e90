package fabric

import (
	"fmt"
	"net/netip"

	"github.com/flatnet-cni/flatnet/pkg/kernel"
	"github.com/flatnet-cni/flatnet/pkg/node"
	"github.com/flatnet-cni/flatnet/pkg/problem"
)

// join plans the way to one peer: for each of its podCIDRs by itself, because a
// peer may be on link in one family and not in the other.
func (s *surroundings) join(peer node.Node) *Peer {
	p := &Peer{Name: peer.Name}
	if s.Mode == None {
		return p
	}
	var overlaid [2]bool // IPv4, IPv6
	var outer netip.Addr
	for _, c := range peer.PodCIDRs {
		if route, conflicts := s.routes.conflict(c, false); conflicts {
			p.Problems = append(p.Problems, s.conflictProblem(peer.Name, c, route))
			p.Ways = append(p.Ways, Way{PodCIDR: c})
			continue
		}
		way, none := s.way(peer, c)
		p.Ways = append(p.Ways, way)
		switch way.Mode {
		case Direct:
			p.Entries = append(p.Entries, entry(kernel.Route{
				Destination: c, Link: way.Link, Gateway: way.Via, Source: s.source(c.Addr(), way.Link),
			}))
		case BGP:
			p.Entries = append(p.Entries, entry(s.learnedRoute(c, way.Hops, 0)))
		case VXLAN:
			overlaid[familyOf(c.Addr())], outer = true, way.Via
			p.Entries = append(p.Entries, entry(kernel.Route{
				Destination: c, Link: s.Tunnel, Gateway: hop(peer, c.Addr().Is6()), OnLink: c.Addr().Is4(),
				Source: s.overlaySource(c.Addr().Is6()),
			}))
		default:
			p.Problems = append(p.Problems, *none)
		}
	}
	if outer.IsValid() {
		p.Entries = append(s.overlay(peer, outer, overlaid), p.Entries...)
	}
	return p
}

// way chooses how a podCIDR of a peer is reached.
func (s *surroundings) way(peer node.Node, podCIDR netip.Prefix) (Way, *problem.Problem) {
	none := Way{PodCIDR: podCIDR}
	if len(peer.Addresses) == 0 {
		return none, about(problem.PeerWithoutAddress, peer, podCIDR, problem.Facts{Reason: "the node has no address to reach it by"})
	}
	if s.Mode == Auto || s.Mode == Direct {
		var routed *Way
		for _, a := range peer.Addresses {
			if a.Is6() != podCIDR.Addr().Is6() {
				continue
			}
			route, found := s.routes.to(a)
			switch {
			case !found || !s.usable(route):
			case !route.Gateway.IsValid():
				return Way{PodCIDR: podCIDR, Mode: Direct, Via: a, Link: route.Link}, nil
			case routed == nil:
				routed = &Way{PodCIDR: podCIDR, Mode: Direct, Via: route.Gateway, Link: route.Link}
			}
		}
		if hops := s.resolve(s.learned[podCIDR]); len(hops) > 0 {
			return Way{PodCIDR: podCIDR, Mode: BGP, Via: hops[0].Gateway, Link: hops[0].Link, Hops: kernel.HopsOf(hops)}, nil
		}
		if s.Mode == Direct {
			if routed != nil {
				return *routed, nil
			}
			return none, s.noDirectWay(peer, podCIDR)
		}
	}
	if !s.outer.IsValid() {
		return none, about(problem.PeerOverlay, peer, podCIDR, problem.Facts{
			Reason: fmt.Sprintf("can be reached through the overlay only, which node %s does not have", s.self.Name), Needs: []problem.Thing{problem.Overlay},
		})
	}
	for _, a := range peer.Addresses {
		if a.Is6() == s.outer.Is6() {
			return Way{PodCIDR: podCIDR, Mode: VXLAN, Via: a, Link: s.Tunnel}, nil
		}
	}
	return none, about(problem.PeerFamily, peer, podCIDR, problem.Facts{
		Reason: fmt.Sprintf("of the node's addresses %v none is of the overlay's family: node %s uses %s", peer.Addresses, s.self.Name, s.outer),
		Advice: fmt.Sprintf("list addresses of the same family first at all nodes, or give node %s one of this family", peer.Name),
	})
}

// about is a problem with the pods of one podCIDR of a peer.
func about(kind problem.Kind, peer node.Node, podCIDR netip.Prefix, f problem.Facts) *problem.Problem {
	f.Node, f.Object = peer.Name, "podCIDR "+podCIDR.String()
	p := kind.Of(f)
	return &p
}

// usable reports whether a route's interface is there and up.
func (s *surroundings) usable(route kernel.UnderlayRoute) bool {
	l, found := s.under.Link(route.Link)
	return found && l.Up
}

func (s *surroundings) noDirectWay(peer node.Node, podCIDR netip.Prefix) *problem.Problem {
	for _, a := range peer.Addresses {
		if a.Is6() == podCIDR.Addr().Is6() {
			return about(problem.PeerRoute, peer, podCIDR, problem.Facts{
				Reason: fmt.Sprintf("node %s has no route to the node's address %s", s.self.Name, a),
				Advice: fmt.Sprintf("look at `ip route get %s` on node %s; give it a route, or use --fabric auto or vxlan", a, s.self.Name),
			})
		}
	}
	return about(problem.PeerFamily, peer, podCIDR, problem.Facts{
		Reason: "the node has no address of this family, and fabric direct needs one",
		Advice: fmt.Sprintf("give node %s such an address, or use --fabric auto or vxlan", peer.Name),
	})
}

// overlaySource returns what the node sends to pods behind the overlay from,
// where that is not what the kernel chooses.
func (s *surroundings) overlaySource(ipv6 bool) netip.Addr {
	if !ipv6 {
		return netip.Addr{}
	}
	return vtep(s.self.PodCIDRs, true)
}

// source returns the node's own address on an interface, of a destination's
// family: what the node sends to pods should come from the address that it is
// known by, not from whichever of the interface's addresses is the first.
func (s *surroundings) source(destination netip.Addr, link string) netip.Addr {
	l, _ := s.under.Link(link)
	for _, own := range s.self.Addresses {
		if own.Is6() != destination.Is6() {
			continue
		}
		for _, a := range l.Addresses {
			if a.Addr() == own {
				return own
			}
		}
	}
	return netip.Addr{}
}

// overlay returns what the overlay needs for a peer besides routes to its pods,
// in the families in which they are reached through it.
func (s *surroundings) overlay(peer node.Node, outer netip.Addr, families [2]bool) []Entry {
	mac := MAC(peer.Name)
	var neighbours, ways []Entry
	for _, ipv6 := range []bool{false, true} {
		end := hop(peer, ipv6)
		if !end.IsValid() || !families[familyOf(end)] {
			continue
		}
		neighbours = append(neighbours, entry(kernel.Neighbour{Link: s.Tunnel, Address: end, MAC: mac}))
		for _, a := range peer.Addresses {
			if s.Nodes && a.Is6() == ipv6 {
				ways = append(ways, entry(kernel.Route{
					Destination: netip.PrefixFrom(a, a.BitLen()), Table: kernel.FabricTable, Link: s.Tunnel, Gateway: end, OnLink: end.Is4(),
				}))
			}
		}
	}
	return append(append(neighbours, entry(kernel.Forward{Link: s.Tunnel, MAC: mac, To: outer})), ways...)
}

// hop returns the next hop that stands for a peer's end of the overlay. For IPv6
// it is a link-local address, because the kernel refuses a next hop, on link or
// not, to which it has another route at the time: as it has while a peer moves
// from direct to vxlan.
func hop(peer node.Node, ipv6 bool) netip.Addr {
	if !ipv6 {
		return vtep(peer.PodCIDRs, false)
	}
	mac := MAC(peer.Name)
	return netip.AddrFrom16([16]byte{
		0: 0xfe, 1: 0x80,
		8: mac[0] ^ 0x02, 9: mac[1], 10: mac[2], 11: 0xff, 12: 0xfe, 13: mac[3], 14: mac[4], 15: mac[5],
	})
}
