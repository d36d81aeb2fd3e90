package fabric

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/flatnet-cni/flatnet/pkg/kernel"
)

// routes answers questions about the underlay's routes without looking at each:
// there may be as many as a border router has.
type routes struct {
	byPrefix map[netip.Prefix]kernel.UnderlayRoute // the best of each destination
	lengths  [2][]int                              // of IPv4 and IPv6, longest first
	sorted   []netip.Prefix                        // by address, then length
}

func indexRoutes(all []kernel.UnderlayRoute) *routes {
	r := &routes{byPrefix: make(map[netip.Prefix]kernel.UnderlayRoute, len(all))}
	var seen [2][129]bool
	for _, route := range all {
		best, known := r.byPrefix[route.Destination]
		if !known {
			r.sorted = append(r.sorted, route.Destination)
		}
		if !known || route.Metric < best.Metric {
			r.byPrefix[route.Destination] = route
		}
		seen[familyOf(route.Destination.Addr())][route.Destination.Bits()] = true
	}
	for f := range seen {
		for bits := 128; bits >= 0; bits-- {
			if seen[f][bits] {
				r.lengths[f] = append(r.lengths[f], bits)
			}
		}
	}
	slices.SortFunc(r.sorted, func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	return r
}

func familyOf(a netip.Addr) int {
	if a.Is6() {
		return 1
	}
	return 0
}

// to returns the route that the kernel would take to an address.
func (r *routes) to(address netip.Addr) (kernel.UnderlayRoute, bool) {
	for _, bits := range r.lengths[familyOf(address)] {
		prefix, err := address.Prefix(bits)
		if err != nil {
			continue
		}
		if route, found := r.byPrefix[prefix]; found {
			return route, !route.Refused
		}
	}
	return kernel.UnderlayRoute{}, false
}

// conflict returns a route that is at odds with a podCIDR: one to a part of it
// or all of it, or a wider network that the node is part of. A wider network
// behind a router is none: the podCIDR's route is the more specific one.
// Routes to single addresses of the node's own podCIDR are those of pods.
func (r *routes) conflict(podCIDR netip.Prefix, own bool) (kernel.UnderlayRoute, bool) {
	i, _ := slices.BinarySearchFunc(r.sorted, podCIDR, func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	for ; i < len(r.sorted) && podCIDR.Contains(r.sorted[i].Addr()); i++ {
		if p := r.sorted[i]; p.Bits() >= podCIDR.Bits() && !(own && p.IsSingleIP()) {
			return r.byPrefix[p], true
		}
	}
	for _, bits := range r.lengths[familyOf(podCIDR.Addr())] {
		if bits >= podCIDR.Bits() || bits == 0 {
			continue
		}
		wider, _ := podCIDR.Addr().Prefix(bits)
		if route, found := r.byPrefix[wider]; found && !route.Gateway.IsValid() && !route.Refused {
			return route, true
		}
	}
	return kernel.UnderlayRoute{}, false
}
