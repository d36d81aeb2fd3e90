package bgp

import (
	"net/netip"
	"slices"

	"github.com/flatnet-cni/flatnet/pkg/node"
)

// Policy says which prefixes of those that peers tell become routes.
type Policy struct {
	accept Accept
	own    []netip.Prefix          // this node's podCIDRs
	others map[netip.Prefix]string // podCIDRs of other nodes, with their names
}

// Policy returns what is accepted on the node named self.
func (c *Config) Policy(self string, nodes []node.Node) *Policy {
	p := &Policy{accept: c.Accept, others: map[netip.Prefix]string{}}
	for _, n := range nodes {
		if n.Name == self {
			p.own = n.PodCIDRs
			continue
		}
		for _, c := range n.PodCIDRs {
			p.others[c] = n.Name
		}
	}
	return p
}

// The reasons to refuse a prefix.
const (
	RefusedOwn     = "it is, or is part of, a podCIDR of this node"
	RefusedEcho    = "it is what this node, or another one of its AS, has told: many routers tell it back"
	RefusedDefault = "default routes are not accepted (accept.defaultRoute)"
	RefusedPod     = "podCIDRs of other nodes are not accepted (accept.podCIDRs)"
	RefusedOther   = "no entry of accept.prefixes covers it"
	RefusedOdd     = "it is not a network of other machines"
)

// Refuses says why a prefix is not accepted; "" where it is.
func (p *Policy) Refuses(prefix netip.Prefix) string {
	for _, own := range p.own {
		if own.Contains(prefix.Addr()) && prefix.Bits() >= own.Bits() {
			return RefusedOwn
		}
	}
	address := prefix.Addr()
	switch {
	case prefix.Bits() == 0:
		if p.accept.DefaultRoute {
			return ""
		}
		return RefusedDefault
	case address.IsLoopback() || address.IsMulticast() || address.IsLinkLocalUnicast() || address.IsUnspecified():
		return RefusedOdd
	}
	_, isPods := p.others[prefix]
	if isPods && p.accept.PodCIDRs {
		return ""
	}
	if slices.ContainsFunc(p.accept.Prefixes, func(w Within) bool { return w.covers(prefix) }) {
		return ""
	}
	if isPods {
		return RefusedPod
	}
	return RefusedOther
}

// compare orders prefixes by what matters more: other nodes' pods first.
func (p *Policy) compare(a, b netip.Prefix) int {
	_, podsA := p.others[a]
	_, podsB := p.others[b]
	if podsA != podsB {
		if podsA {
			return -1
		}
		return 1
	}
	return a.Compare(b)
}

func (w Within) covers(p netip.Prefix) bool {
	return w.prefix.Addr().Is4() == p.Addr().Is4() && w.prefix.Contains(p.Addr()) && p.Bits() >= w.MinLength && p.Bits() <= w.MaxLength
}
