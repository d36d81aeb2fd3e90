package policy

import (
	"fmt"
	"net/netip"
	"slices"

	"k8s.io/apimachinery/pkg/labels"
)

// namesNodes reports whether nodes are peers of a rule.
func (p *Policy) namesNodes() bool {
	return slices.ContainsFunc(p.Rules[:], func(rules []Rule) bool {
		return slices.ContainsFunc(rules, func(r Rule) bool { return len(r.Nodes) > 0 })
	})
}

// networks are all networks that a rule names: its blocks, and the addresses of its nodes.
// There are few nodes, they change rarely, and each is in few rules: so they are no groups,
// of which single elements come and go, but part of the set of the rule's networks.
func (w *world) networks(r *Rule) []Block {
	all := slices.Clip(r.Blocks)
	for _, s := range r.Nodes {
		for _, n := range w.nodes {
			if !s.Matches(n.Labels) {
				continue
			}
			for _, a := range n.Addresses {
				all = append(all, Block{CIDR: netip.PrefixFrom(a, a.BitLen())})
			}
		}
	}
	return all
}

// hasNode reports whether there is a node that a selector takes.
func (w *world) hasNode(s labels.Selector) bool {
	for _, n := range w.nodes {
		if s.Matches(n.Labels) {
			return true
		}
	}
	return false
}

// nodeAt returns the node that has an address; nil where none is known.
func (w *world) nodeAt(a netip.Addr) *Node {
	for _, n := range w.nodes {
		if slices.Contains(n.Addresses, a) {
			return n
		}
	}
	return nil
}

// nodesText says which nodes a selector takes.
func nodesText(s labels.Selector) string {
	if s.Empty() {
		return "all nodes"
	}
	return fmt.Sprintf("nodes with %s", s)
}
