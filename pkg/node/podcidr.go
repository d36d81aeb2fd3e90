package node

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
)

// route is a podCIDR that a node says is its own.
type route struct {
	prefix      netip.Prefix
	rank, place int
}

// podCIDRs judges the nodes' podCIDRs; the addresses must have been judged.
func (j *judgement) podCIDRs() {
	total := 0
	for rank, n := range j.nodes {
		if !j.out[rank] {
			total += min(len(n.PodCIDRs), maxPodCIDRsPerNode)
		}
	}
	j.routes = make([]route, 0, total)
	for rank, n := range j.nodes {
		if !j.out[rank] {
			j.wellFormed(rank, n)
		}
	}
	j.disjoint()
	j.fewEnough()
}

// wellFormed gathers the podCIDRs of a node that can be one, and hold no node.
func (j *judgement) wellFormed(rank int, n *Node) {
	podCIDRs := n.PodCIDRs
	if len(podCIDRs) > maxPodCIDRsPerNode {
		j.refuse(rank, "podCIDRs", strconv.Itoa(len(podCIDRs)), fmt.Sprintf("is more than %d podCIDRs for a node; those after the first %d are left out",
			maxPodCIDRsPerNode, maxPodCIDRsPerNode), "give the node fewer, larger podCIDRs")
		podCIDRs = podCIDRs[:maxPodCIDRsPerNode]
	}
	for place, p := range podCIDRs {
		if !p.IsValid() && n.malformed("podCIDRs", place) {
			continue
		}
		reason, hint := unfitPodCIDR(p)
		if reason == "" {
			reason, hint = j.overUnderlay(p)
		}
		if reason != "" {
			j.refuse(rank, entry("podCIDRs", place), p.String(), reason, hint)
			continue
		}
		j.routes = append(j.routes, route{p, rank, place})
	}
}

// special are the prefixes that no podCIDR may touch.
var special = []struct {
	prefix netip.Prefix
	what   string
}{
	{netip.MustParsePrefix("0.0.0.0/8"), "the unspecified address"},
	{netip.MustParsePrefix("127.0.0.0/8"), "loopback addresses"},
	{netip.MustParsePrefix("169.254.0.0/16"), "link-local addresses"},
	{netip.MustParsePrefix("224.0.0.0/4"), "multicast addresses"},
	{netip.MustParsePrefix("255.255.255.255/32"), "the broadcast address"},
	{netip.MustParsePrefix("::/128"), "the unspecified address"},
	{netip.MustParsePrefix("::1/128"), "loopback addresses"},
	{netip.MustParsePrefix("fe80::/10"), "link-local addresses"},
	{netip.MustParsePrefix("ff00::/8"), "multicast addresses"},
}

// Shortest prefix lengths that a podCIDR may have. A shorter one is a slip of
// the pen: no node has so many pods.
const (
	shortestIPv4 = 8
	shortestIPv6 = 16
)

// unfitPodCIDR says why a prefix cannot be a podCIDR, and what to do; empty if
// it can.
func unfitPodCIDR(p netip.Prefix) (reason, hint string) {
	switch {
	case !p.IsValid():
		return "is not a prefix", "write an address and a prefix length, as in 10.244.1.0/24"
	case p.Addr().Is4In6():
		return "is an IPv4 prefix written as IPv6", "write it as IPv4"
	case p != p.Masked():
		return "has host bits set: " + p.Masked().String() + " was probably meant", "write " + p.Masked().String()
	case p.Bits() == 0:
		return "is the default route", "give the node a podCIDR of its own size, such as a /24 or a /64"
	}
	shortest := shortestIPv4
	if p.Addr().Is6() {
		shortest = shortestIPv6
	}
	if p.Bits() < shortest {
		return fmt.Sprintf("is broader than /%d", shortest), "give the node a podCIDR of its own size, such as a /24 or a /64"
	}
	for _, s := range special {
		if s.prefix.Overlaps(p) {
			return "covers " + s.what, "give the node a podCIDR out of addresses that can be routed"
		}
	}
	return "", ""
}

// overUnderlay says which node's address a podCIDR holds; empty if none.
func (j *judgement) overUnderlay(p netip.Prefix) (reason, hint string) {
	i, _ := slices.BinarySearchFunc(j.claims, p.Addr(), func(c claim, a netip.Addr) int { return c.addr.Compare(a) })
	if i == len(j.claims) || !p.Contains(j.claims[i].addr) {
		return "", ""
	}
	c := j.claims[i]
	return fmt.Sprintf("holds the address %s of node %s", c.addr, j.nodes[c.rank].Name),
		"give pods addresses outside of the nodes' own network"
}

// family is one distinct prefix among the routes. Two prefixes overlap only if
// one holds the other, so those that overlap form trees.
type family struct {
	prefix netip.Prefix
	parent int // index of the smallest family that holds it, or -1
	owner  int // index of the route that has it, or -1
	within int // index of a route that has a prefix inside of it, or -1
}

// disjoint refuses podCIDRs that overlap one with precedence. Routes are in the
// order of precedence, and each is asked only of the families above it in its
// tree, so the cost grows with sorting and not with the square.
func (j *judgement) disjoint() {
	families, familyOf := grow(j.routes)
	kept := make([]route, 0, len(j.routes))
	for i, r := range j.routes {
		at := familyOf[i]
		rival := families[at].owner
		if rival < 0 {
			rival = families[at].within
		}
		for up := families[at].parent; rival < 0 && up >= 0; up = families[up].parent {
			rival = families[up].owner
		}
		if rival >= 0 {
			j.refuseOverlap(r, j.routes[rival])
			continue
		}
		families[at].owner = i
		for up := families[at].parent; up >= 0 && families[up].within < 0; up = families[up].parent {
			families[up].within = i
		}
		kept = append(kept, r)
	}
	j.routes = kept
}

// grow makes the families of the routes' prefixes, and tells each route's.
func grow(routes []route) (families []family, familyOf []int) {
	order := make([]int, len(routes))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int {
		p, q := routes[a].prefix, routes[b].prefix
		if c := p.Addr().Compare(q.Addr()); c != 0 {
			return c
		}
		return p.Bits() - q.Bits()
	})
	families, familyOf = make([]family, 0, len(routes)), make([]int, len(routes))
	above := -1 // the family before, or one that holds it
	for _, i := range order {
		p := routes[i].prefix
		if n := len(families); n == 0 || families[n-1].prefix != p {
			for above >= 0 && !families[above].prefix.Overlaps(p) {
				above = families[above].parent
			}
			families = append(families, family{prefix: p, parent: above, owner: -1, within: -1})
			above = n
		}
		familyOf[i] = len(families) - 1
	}
	return families, familyOf
}

func (j *judgement) refuseOverlap(r, rival route) {
	reason := "overlaps " + rival.prefix.String() + " of node " + j.nodes[rival.rank].Name
	hint := "give each node podCIDRs of its own"
	if r.rank == rival.rank {
		reason = fmt.Sprintf("overlaps %s %s of the same node", entry("podCIDRs", rival.place), rival.prefix)
		hint = "remove one of the two"
	}
	j.refuse(r.rank, entry("podCIDRs", r.place), r.prefix.String(), reason, hint)
}

// fewEnough refuses what is beyond the limit for all nodes, one line a node.
func (j *judgement) fewEnough() {
	if len(j.routes) <= maxPodCIDRs {
		return
	}
	for beyond := j.routes[maxPodCIDRs:]; len(beyond) > 0; {
		n := 1
		for n < len(beyond) && beyond[n].rank == beyond[0].rank {
			n++
		}
		j.refuse(beyond[0].rank, "podCIDRs", beyond[0].prefix.String(),
			fmt.Sprintf("is beyond the limit of %d podCIDRs in all, with %d of the node", maxPodCIDRs, n),
			"look for nodes that are gone, or use fewer, larger podCIDRs")
		beyond = beyond[n:]
	}
	j.routes = j.routes[:maxPodCIDRs]
}
