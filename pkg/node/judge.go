package node

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Limits beyond which a list of nodes is taken for a mistake: every podCIDR is
// a route on every node.
const (
	maxPodCIDRsPerNode = 64
	maxPodCIDRs        = 65_536
)

// Judge tells which nodes can be joined into one flat network, seen from the
// node named self, and says of everything else why not. It depends on the set
// of nodes alone, not on their order, and does not write to it.
//
// The accepted nodes are sorted by name and hold the good addresses and
// podCIDRs, in the order they came in; a node with none of either is accepted.
// The refused are sorted by node and field.
//
// Where two claim the same, the one with precedence keeps it: self, then the
// older one, then the first by name. A node of unknown age is younger than one
// of known age. Two rules have no precedence: a podCIDR that holds the address
// of a node is refused whoever they are, because the underlay is there already
// and a route over it would cut off that node; and what is malformed by itself.
//
// A Kubernetes cluster does not judge podCIDRs: it believes --cluster-cidr and
// whoever writes spec.podCIDRs, so that one wrong Node could take the traffic
// of the others.
func Judge(self string, nodes []Node) (accepted []Node, refused []Refusal) {
	j := judgement{input: nodes}
	j.order, j.nodes = ranked(self, nodes)
	for _, n := range j.nodes {
		j.refused = append(j.refused, n.Malformed...)
	}
	j.refuseNames()
	j.addresses()
	j.podCIDRs()
	slices.SortFunc(j.refused, Refusal.compare)
	return j.accepted(), j.refused
}

// ranked returns the nodes by precedence, and the place of each in the input.
func ranked(self string, nodes []Node) (order []int, ranked []*Node) {
	order = make([]int, len(nodes))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(i, j int) int {
		a, b := &nodes[i], &nodes[j]
		if c := first(a.Name == self, b.Name == self); c != 0 {
			return c
		}
		if c := first(!a.Created.IsZero(), !b.Created.IsZero()); c != 0 {
			return c
		}
		if c := a.Created.Compare(b.Created); c != 0 {
			return c
		}
		if c := strings.Compare(a.Name, b.Name); c != 0 {
			return c
		}
		// One name twice: any order will do, as long as it is one.
		return cmp.Or(
			slices.CompareFunc(a.Addresses, b.Addresses, netip.Addr.Compare),
			slices.CompareFunc(a.PodCIDRs, b.PodCIDRs, netip.Prefix.Compare),
			slices.CompareFunc(a.Malformed, b.Malformed, Refusal.compare),
		)
	})
	ranked = make([]*Node, len(nodes))
	for rank, i := range order {
		ranked[rank] = &nodes[i]
	}
	return order, ranked
}

// first orders what is true before what is not.
func first(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

// judgement is a list of nodes being judged. A rank is an index into nodes.
type judgement struct {
	input   []Node
	nodes   []*Node // by precedence
	order   []int   // by rank: the place in the input
	out     []bool  // by rank: not joined at all
	claims  []claim // the good addresses, by address
	kept    []claim // the same, by rank and place
	routes  []route // the good podCIDRs, by rank and place
	refused []Refusal
}

// claim is an address that a node says is its own.
type claim struct {
	addr        netip.Addr
	rank, place int
}

// refuse notes what is wrong with an entry of a node.
func (j *judgement) refuse(rank int, field, value, reason, hint string) {
	j.refused = append(j.refused, Refusal{Node: j.nodes[rank].Name, Field: field, Value: value, Reason: reason, Hint: hint})
}

// refuseNames takes out nodes without a name, or with another's.
func (j *judgement) refuseNames() {
	j.out = make([]bool, len(j.nodes))
	byName := make(map[string]int, len(j.nodes))
	for rank, n := range j.nodes {
		before, taken := byName[n.Name]
		switch {
		case n.Name == "":
			j.out[rank] = true
			j.refuse(rank, "name", `""`, "the node with "+n.claims()+" has no name", "give the node a name")
		case taken:
			j.out[rank] = true
			j.refuse(rank, "name", n.Name, fmt.Sprintf("the node with %s has the name of the node with %s",
				n.claims(), j.nodes[before].claims()), "give each node a name of its own")
		default:
			byName[n.Name] = rank
		}
	}
}

// claims names a node by what it has, where the name does not tell it.
func (n *Node) claims() string {
	switch {
	case len(n.Addresses) > 0:
		return "address " + n.Addresses[0].String()
	case len(n.PodCIDRs) > 0:
		return "podCIDR " + n.PodCIDRs[0].String()
	}
	return "no address"
}

// malformed reports whether the source has said already what is wrong with an
// entry.
func (n *Node) malformed(list string, place int) bool {
	return len(n.Malformed) > 0 && slices.ContainsFunc(n.Malformed, func(r Refusal) bool { return r.Field == entry(list, place) })
}

// entry names an entry of a node's list.
func entry(list string, place int) string { return fmt.Sprintf("%s[%d]", list, place) }

// addresses judges the nodes' addresses.
func (j *judgement) addresses() {
	total := 0
	for _, n := range j.nodes {
		total += len(n.Addresses)
	}
	j.claims = make([]claim, 0, total)
	for rank, n := range j.nodes {
		if j.out[rank] {
			continue
		}
		for place, addr := range n.Addresses {
			if !addr.IsValid() && n.malformed("addresses", place) {
				continue
			}
			addr = addr.Unmap()
			if reason := unfitAddress(addr); reason != "" {
				j.refuse(rank, entry("addresses", place), addr.String(), reason, "give the address by which other nodes reach the node")
				continue
			}
			j.claims = append(j.claims, claim{addr, rank, place})
		}
	}
	j.kept = slices.Clone(j.claims)
	slices.SortFunc(j.claims, func(a, b claim) int {
		if c := a.addr.Compare(b.addr); c != 0 {
			return c
		}
		return cmp.Or(a.rank-b.rank, a.place-b.place)
	})
	good := j.claims[:0]
	for _, c := range j.claims {
		if n := len(good); n > 0 && good[n-1].addr == c.addr {
			j.refuseAddress(c, good[n-1].rank)
			continue
		}
		good = append(good, c)
	}
	if len(good) < len(j.claims) {
		j.kept = slices.Clone(good)
		slices.SortFunc(j.kept, func(a, b claim) int { return cmp.Or(a.rank-b.rank, a.place-b.place) })
	}
	j.claims = good
}

// refuseAddress notes that an address is another node's. A node may well say
// the same one twice.
func (j *judgement) refuseAddress(c claim, owner int) {
	if owner == c.rank {
		return
	}
	j.refuse(c.rank, entry("addresses", c.place), c.addr.String(), "is an address of node "+j.nodes[owner].Name+" too",
		"give each node an address of its own, and remove nodes that are gone")
}

// unfitAddress says why an address cannot be that of a node; empty if it can.
// The kubelet holds its --node-ip to the same rules.
func unfitAddress(a netip.Addr) string {
	switch {
	case !a.IsValid():
		return "is not an address"
	case a.Zone() != "":
		return "has a zone, which means nothing on another node"
	case a.IsUnspecified():
		return "is the unspecified address"
	case a.IsLoopback():
		return "is a loopback address"
	case a.IsMulticast():
		return "is a multicast address"
	case a.IsLinkLocalUnicast():
		return "is a link-local address, which other links do not reach"
	case a == broadcast:
		return "is the broadcast address"
	}
	return ""
}

var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// accepted puts together what has been found good.
func (j *judgement) accepted() []Node {
	accepted := make([]Node, len(j.input))
	a, p := 0, 0
	for rank, n := range j.nodes {
		fromA, fromP := a, p
		for a < len(j.kept) && j.kept[a].rank == rank {
			a++
		}
		for p < len(j.routes) && j.routes[p].rank == rank {
			p++
		}
		if j.out[rank] {
			continue
		}
		// In the order of the input: that of the sources is sorted already.
		accepted[j.order[rank]] = Node{
			Name:      n.Name,
			Zone:      n.Zone,
			Addresses: goodAddresses(n.Addresses, j.kept[fromA:a]),
			PodCIDRs:  goodPodCIDRs(n.PodCIDRs, j.routes[fromP:p]),
			Created:   n.Created,
		}
	}
	accepted = slices.DeleteFunc(accepted, func(n Node) bool { return n.Name == "" })
	slices.SortFunc(accepted, func(a, b Node) int { return strings.Compare(a.Name, b.Name) })
	return accepted
}

// goodAddresses returns what has been kept of a node's addresses: the list itself
// where that is all of it. A part of one array for all nodes would be simpler, but
// whoever keeps a node would keep the array.
func goodAddresses(all []netip.Addr, kept []claim) []netip.Addr {
	if slices.EqualFunc(all, kept, func(a netip.Addr, c claim) bool { return a == c.addr }) {
		return all
	}
	good := make([]netip.Addr, len(kept))
	for i, c := range kept {
		good[i] = c.addr
	}
	return good
}

// goodPodCIDRs is goodAddresses for podCIDRs.
func goodPodCIDRs(all []netip.Prefix, kept []route) []netip.Prefix {
	if slices.EqualFunc(all, kept, func(p netip.Prefix, r route) bool { return p == r.prefix }) {
		return all
	}
	good := make([]netip.Prefix, len(kept))
	for i, r := range kept {
		good[i] = r.prefix
	}
	return good
}
