package node

import (
	"cmp"
	"iter"
	"net/netip"
	"slices"
)

// claims are what nodes say is theirs, by place, so that those in each other's
// way are found without looking at all others. An address is the prefix of
// itself alone: whatever Judge has to say of two nodes (one address, podCIDRs
// that overlap, a podCIDR that holds an address) is that prefixes overlap.
//
// It is one sorted array and not a tree: twenty thousand claims are one megabyte,
// which moves in microseconds, and a tree would be three.
type claims struct {
	sorted []held
	// lengths counts the prefixes by family and length: those that hold another
	// are asked for by each length that there is.
	lengths [2][129]int
}

// held is a prefix and the name of a node that claims it.
type held struct {
	prefix netip.Prefix
	name   string
}

func (h held) compare(o held) int {
	return cmp.Or(h.prefix.Addr().Compare(o.prefix.Addr()), cmp.Compare(h.prefix.Bits(), o.prefix.Bits()), cmp.Compare(h.name, o.name))
}

// claimed are the prefixes by which a node may be in another's way. What is
// refused by itself is in nobody's.
func (n *Node) claimed() iter.Seq[netip.Prefix] {
	return func(yield func(netip.Prefix) bool) {
		for _, a := range n.Addresses {
			if a = a.Unmap(); unfitAddress(a) == "" && !yield(netip.PrefixFrom(a, a.BitLen())) {
				return
			}
		}
		for _, p := range n.PodCIDRs[:min(len(n.PodCIDRs), maxPodCIDRsPerNode)] {
			if reason, _ := unfitPodCIDR(p); reason == "" && !yield(p) {
				return
			}
		}
	}
}

// replace takes out the claims of some nodes and puts in those of others.
func (c *claims) replace(gone, come []Node) {
	// Each of a few is moved into its place; many are sorted together.
	const few = 16
	if len(gone)+len(come) <= few {
		for i := range gone {
			c.each(&gone[i], c.remove)
		}
		for i := range come {
			c.each(&come[i], c.insert)
		}
		return
	}
	left := make(map[string]struct{}, len(gone))
	for i := range gone {
		left[gone[i].Name] = struct{}{}
		c.each(&gone[i], func(h held) { c.count(h, -1) })
	}
	c.sorted = slices.DeleteFunc(c.sorted, func(h held) bool { _, is := left[h.name]; return is })
	more := 0
	for i := range come {
		more += len(come[i].Addresses) + min(len(come[i].PodCIDRs), maxPodCIDRsPerNode)
	}
	c.sorted = slices.Grow(c.sorted, more)
	for i := range come {
		c.each(&come[i], func(h held) {
			c.count(h, 1)
			c.sorted = append(c.sorted, h)
		})
	}
	slices.SortFunc(c.sorted, held.compare)
}

func (c *claims) each(n *Node, do func(held)) {
	for p := range n.claimed() {
		do(held{p, n.Name})
	}
}

func (c *claims) insert(h held) {
	at, _ := slices.BinarySearchFunc(c.sorted, h, held.compare)
	c.sorted = slices.Insert(c.sorted, at, h)
	c.count(h, 1)
}

func (c *claims) remove(h held) {
	if at, there := slices.BinarySearchFunc(c.sorted, h, held.compare); there {
		c.sorted = slices.Delete(c.sorted, at, at+1)
		c.count(h, -1)
	}
}

func (c *claims) count(h held, more int) { c.lengths[familyOf(h.prefix)][h.prefix.Bits()] += more }

func familyOf(p netip.Prefix) int {
	if p.Addr().Is6() {
		return 1
	}
	return 0
}

// overlapping calls do with the name of each node that claims a prefix that
// overlaps p, perhaps several times.
func (c *claims) overlapping(p netip.Prefix, do func(name string)) {
	for _, h := range c.sorted[c.from(p):] { // p itself, and what it holds
		if !p.Contains(h.prefix.Addr()) {
			break
		}
		do(h.name)
	}
	for bits, n := range c.lengths[familyOf(p)][:p.Bits()] { // what holds p
		if n == 0 {
			continue
		}
		wider := netip.PrefixFrom(p.Addr(), bits).Masked()
		for _, h := range c.sorted[c.from(wider):] {
			if h.prefix != wider {
				break
			}
			do(h.name)
		}
	}
}

// from returns where the claims of a prefix begin, or would.
func (c *claims) from(p netip.Prefix) int {
	at, _ := slices.BinarySearchFunc(c.sorted, held{prefix: p}, held.compare)
	return at
}
