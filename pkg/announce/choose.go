package announce

import (
	"hash/fnv"
	"net/netip"
	"slices"
)

// Address is one that somebody is to answer for.
type Address struct {
	IP         netip.Addr
	Services   []string // that have it, by name
	Interfaces []string // at which
	// Nodes are those that may; nil is all, and an empty one is nobody.
	Nodes map[string]bool
	// Without is what becomes of it at a node without a valid Lease.
	Without Without
}

// Without says when a node that has lost its Lease stops to answer.
type Without uint8

const (
	// Together goes on while all nodes hear each other, and none of them can renew its Lease.
	Together Without = iota
	// Stop stops at once.
	Stop
	// Answer goes on until another node is heard to have the address.
	Answer
)

// choose returns the node that answers for an address, or says why nobody does. A node
// that leaves is chosen only where there is no other. That a node comes or goes moves the
// addresses that it has afterwards, or had before, and no others (rendezvous hashing).
func choose(a Address, members []Member) (node, nobody string) {
	var best uint64
	rank := 0 // 2: stays, 1: leaves
	anyHere := false
	for _, m := range members {
		if !slices.ContainsFunc(m.Interfaces, func(link string) bool { return slices.Contains(a.Interfaces, link) }) {
			continue
		}
		anyHere = true
		if a.Nodes != nil && !a.Nodes[m.Node] {
			continue
		}
		r := 2
		if m.Leaving != "" {
			r = 1
		}
		if w := weight(m.Node, a.IP); r > rank || r == rank && w > best {
			node, best, rank = m.Node, w, r
		}
	}
	switch {
	case node != "":
		return node, ""
	case !anyHere:
		return "", "no node with an interface of the pool has a valid Lease"
	}
	return "", "externalTrafficPolicy is Local, and no node with an interface of the pool has a ready endpoint"
}

// weight is as if random, and the same on all nodes.
func weight(node string, ip netip.Addr) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(node)) // which never fails
	raw := ip.As16()
	_, _ = h.Write(raw[:])
	x := h.Sum64()
	// Of FNV the last bytes do not change the high bits: mix them (splitmix64).
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
