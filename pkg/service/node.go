package service

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Node is what the balancing depends on besides Services: the facts about the
// node where it happens. Addresses and prefixes of both families are mixed.
type Node struct {
	Name string
	// Zone is the node's label topology.kubernetes.io/zone; empty if it has none.
	Zone string
	// Addresses are those by which other nodes know this one: answers to them
	// come back here.
	Addresses []netip.Addr
	// PodCIDRs are those of this node's pods.
	PodCIDRs []netip.Prefix
	// NodePortAddresses are those of this node's addresses at which NodePorts
	// are served; see [NodePortAddresses.Select].
	NodePortAddresses []netip.Addr
	// ServiceCIDRs are where ClusterIPs are taken from. What goes to one that
	// no Service has is dropped, and does not leave the node. May be empty.
	ServiceCIDRs []netip.Prefix
}

// Equal reports whether nothing about the node differs.
func (n Node) Equal(o Node) bool {
	return n.Name == o.Name && n.Zone == o.Zone && slices.Equal(n.Addresses, o.Addresses) && slices.Equal(n.PodCIDRs, o.PodCIDRs) &&
		slices.Equal(n.NodePortAddresses, o.NodePortAddresses) && slices.Equal(n.ServiceCIDRs, o.ServiceCIDRs)
}

// has reports whether the node has a family: an address or pods of it.
func (n Node) has(f family) bool {
	return slices.ContainsFunc(n.Addresses, f.owns) || slices.ContainsFunc(n.PodCIDRs, func(p netip.Prefix) bool { return f.owns(p.Addr()) })
}

// isPod reports whether an address is that of a pod of this node.
func (n Node) isPod(a netip.Addr) bool {
	return slices.ContainsFunc(n.PodCIDRs, func(p netip.Prefix) bool { return p.Contains(a) })
}

// own are the prefixes of one family from which answers come back to this node by
// themselves, and where what is sent does not leave it: its pods and itself.
func (n Node) own(f family) []netip.Prefix {
	var all []netip.Prefix
	for _, p := range n.PodCIDRs {
		if f.owns(p.Addr()) {
			all = append(all, p.Masked())
		}
	}
	for _, a := range n.Addresses {
		if f.owns(a) {
			all = append(all, netip.PrefixFrom(a, a.BitLen()))
		}
	}
	return disjoint(all)
}

// disjoint returns the prefixes that are in no other one, sorted. nftables
// refuses to hold one inside of another.
func disjoint(prefixes []netip.Prefix) []netip.Prefix {
	sorted := slices.Clone(prefixes)
	slices.SortFunc(sorted, netip.Prefix.Compare)
	var kept []netip.Prefix
	for _, p := range sorted {
		// Sorted by address and then length, what contains p comes before it.
		if !slices.ContainsFunc(kept, func(k netip.Prefix) bool { return k.Bits() <= p.Bits() && k.Contains(p.Addr()) }) {
			kept = append(kept, p)
		}
	}
	return kept
}

// NodePortAddresses says which of a node's addresses serve NodePorts.
type NodePortAddresses struct {
	// Primary stands for the first address of each family that other nodes
	// know the node by.
	Primary  bool
	Prefixes []netip.Prefix
}

// ParseNodePortAddresses reads the value of --nodeport-addresses: the word primary,
// or prefixes, with commas between them. An empty value is primary.
func ParseNodePortAddresses(text string) (NodePortAddresses, error) {
	var n NodePortAddresses
	for _, part := range strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' }) {
		if part == "primary" {
			n.Primary = true
			continue
		}
		p, err := netip.ParsePrefix(part)
		if err != nil {
			return n, fmt.Errorf("reading --nodeport-addresses: %q is neither primary nor a prefix such as 192.0.2.0/24", part)
		}
		n.Prefixes = append(n.Prefixes, p.Masked())
	}
	n.Primary = n.Primary || len(n.Prefixes) == 0
	return n, nil
}

// Select returns the addresses that serve NodePorts, sorted. Known are those by
// which other nodes know this one, the primary ones first; local are all that
// its interfaces have. NodePorts are not served on loopback and link-local
// addresses, whatever the prefixes say: answers would not find back.
func (n NodePortAddresses) Select(known, local []netip.Addr) []netip.Addr {
	var good []netip.Addr
	if n.Primary {
		for _, f := range families {
			if i := slices.IndexFunc(known, f.owns); i >= 0 {
				good = append(good, known[i])
			}
		}
	}
	for _, a := range local {
		if !a.IsLoopback() && !a.IsLinkLocalUnicast() && !a.IsMulticast() && !a.IsUnspecified() &&
			slices.ContainsFunc(n.Prefixes, func(p netip.Prefix) bool { return p.Contains(a) }) {
			good = append(good, a)
		}
	}
	slices.SortFunc(good, netip.Addr.Compare)
	return slices.Compact(good)
}

// family is one of the two address families, each of which has a table.
type family uint8

const (
	ipv4 family = iota
	ipv6
)

var families = [...]family{ipv4, ipv6}

func familyOf(a netip.Addr) family {
	if a.Is6() {
		return ipv6
	}
	return ipv4
}

func (f family) owns(a netip.Addr) bool { return a.IsValid() && familyOf(a) == f }

// name is what nft calls the family, in tables and in matches on its header.
func (f family) name() string { return [...]string{"ip", "ip6"}[f] }

// String is the family's name for people.
func (f family) String() string { return [...]string{"IPv4", "IPv6"}[f] }
