package fabric

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/flatnet-cni/flatnet/pkg/kernel"
	"github.com/flatnet-cni/flatnet/pkg/problem"
)

// Learned are the next hops to networks that routers have told of. Several are equally
// good. A link-local one has its interface as zone.
type Learned map[netip.Prefix][]netip.Addr

// learnedMetric is that of learned routes to others than pods: a route to the same network
// that somebody has on the node comes first, be it by hand, DHCP or a network manager; and
// should one come when a learned one is there already, it does not have to wait.
const learnedMetric = 7070

// to returns what was learned of the podCIDRs of a node; nil where that is nothing.
func (l Learned) to(podCIDRs []netip.Prefix) (all [][]netip.Addr) {
	for i, c := range podCIDRs {
		if hops := l[c]; len(hops) > 0 {
			if all == nil {
				all = make([][]netip.Addr, len(podCIDRs))
			}
			all[i] = hops
		}
	}
	return all
}

// resolve returns the next hops that are on link. One that is not is no use: the machines
// between here and there may not know what it has told of.
func (s *surroundings) resolve(gateways []netip.Addr) (hops []kernel.Hop) {
	for _, g := range gateways {
		h, known := s.hops[g]
		if !known {
			h = s.hopTo(g)
			s.hops[g] = h
		}
		if h.Link != "" {
			hops = append(hops, h)
		}
	}
	return hops
}

func (s *surroundings) hopTo(gateway netip.Addr) kernel.Hop {
	if zone := gateway.Zone(); zone != "" {
		if l, found := s.under.Link(zone); !found || !l.Up {
			return kernel.Hop{}
		}
		return kernel.Hop{Gateway: gateway.WithZone(""), Link: zone}
	}
	if _, own := s.under.Owner(gateway); own {
		return kernel.Hop{}
	}
	route, found := s.routes.to(gateway)
	if !found || route.Gateway.IsValid() || !s.usable(route) {
		return kernel.Hop{}
	}
	return kernel.Hop{Gateway: gateway, Link: route.Link}
}

// learnedRoute is the route to what was learned.
func (s *surroundings) learnedRoute(to netip.Prefix, hops kernel.Hops, metric int) kernel.Route {
	all := hops.All()
	r := kernel.Route{Destination: to, Metric: metric, Source: s.source(to.Addr(), all[0].Link)}
	if len(all) == 1 {
		r.Gateway, r.Link = all[0].Gateway, all[0].Link
	} else {
		r.Hops = hops
	}
	return r
}

// others plans the routes to what was learned and is no podCIDR of a peer, and says which
// next hops are of no use.
func (s *surroundings) others(plan *Plan, add func(kernel.Object)) {
	if len(s.learned) == 0 {
		return
	}
	pods := map[netip.Prefix]bool{}
	for _, peer := range plan.Peers {
		for _, w := range peer.Ways {
			pods[w.PodCIDR] = true
		}
	}
	useless := map[netip.Addr][]netip.Prefix{}
	for _, to := range slices.SortedFunc(maps.Keys(s.learned), netip.Prefix.Compare) {
		hops := s.resolve(s.learned[to])
		if len(hops) == 0 {
			useless[s.learned[to][0]] = append(useless[s.learned[to][0]], to)
			continue
		}
		if _, taken := s.routes.byPrefix[to]; !pods[to] && !taken {
			add(s.learnedRoute(to, kernel.HopsOf(hops), learnedMetric))
		}
	}
	for _, hop := range slices.SortedFunc(maps.Keys(useless), netip.Addr.Compare) {
		plan.Problems = append(plan.Problems, problem.BGPNextHop.Of(problem.Facts{
			Node: s.self.Name, Object: "next hop " + hop.String(),
			Reason: fmt.Sprintf("is not on link, so that %d learned routes are not used, the first of them to %s", len(useless[hop]), useless[hop][0]),
			Advice: fmt.Sprintf("have the router that tells of them set itself as the next hop (next-hop-self), or give the node a network in which %s is", hop),
		}))
	}
}
