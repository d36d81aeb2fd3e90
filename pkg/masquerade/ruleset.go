// Package masquerade keeps the node's nftables table of what leaves the
// cluster: it gets the node's address, everything else keeps its own. A
// constant number of rules, whatever the number of nodes and pods, through
// netlink and no executable.
//
//	table inet flatnet {
//	    set own4    { type ipv4_addr; flags interval; }    # this node's podCIDRs
//	    set pods4   { type ipv4_addr; flags interval; }    # all nodes' podCIDRs
//	    set nodes4  { type ipv4_addr; }                    # all nodes' addresses
//	    set exempt4 { type ipv4_addr; flags interval; }    # multicast, broadcast, what the user names
//	    …                                                  # and the same as own6 … exempt6
//	    chain postrouting {
//	        type nat hook postrouting priority srcnat;
//	        ip saddr @own4 oifgroup != 70 ip daddr != @pods4 ip daddr != @nodes4 ip daddr != @exempt4 masquerade fully-random
//	        ip6 saddr @own6 oifgroup != 70 ip6 daddr != @pods6 ip6 daddr != @nodes6 ip6 daddr != @exempt6 masquerade fully-random
//	    }
//	    chain guard {                                      # where it is needed, see [Config]
//	        type filter hook prerouting priority raw;
//	        iifgroup 70 meta nfproto ipv4 fib saddr . iif oif 0 drop
//	    }
//	    chain clamp {                                      # of forwarded connections
//	        type filter hook forward priority mangle;
//	        tcp flags syn tcp option maxseg size set rt mtu
//	    }
//	}
//
// [Plan] computes the table from [Config]; a [Keeper] makes the kernel's table
// like it, with each transaction whole; [Watch] tells when somebody else has
// changed it.
//
// Translation is decided with a connection's first packet. So a change of the
// table, even another one in its place, leaves established connections as they
// are. Only where nothing is left in the namespace that needs connection tracking,
// ours or another's, does the kernel stop to translate them. [Hold] sees to it that
// something is, whatever becomes of the table; and what began while the table was
// not there is forgotten when it is made again, so that its next packet is
// translated.
package masquerade

import (
	"fmt"
	"net/netip"

	"github.com/flatnet-cni/flatnet/pkg/kernel"
	"github.com/flatnet-cni/flatnet/pkg/nft"
)

// tableID is the agent's table; the plugin's have the same name in other families.
var tableID = nft.ID{Family: nft.INet, Name: "flatnet"}

// Ruleset is the wanted content of the table. It is a plain value, and the zero
// value means that there is to be no table.
type Ruleset struct{ table nft.Table }

// translating is the name of the chain that gives packets the node's address.
const translating = "postrouting"

// alwaysExempt are destinations that are not outside of the cluster, because no
// router takes a packet to them any further. 169.254.0.0/16 is not among them:
// clouds serve their metadata there, to the node's address and to no pod's,
// and what serves there on the node itself is not forwarded to.
var alwaysExempt = []netip.Prefix{
	netip.MustParsePrefix("224.0.0.0/4"),
	netip.MustParsePrefix("255.255.255.255/32"),
	netip.MustParsePrefix("fe80::/10"),
	netip.MustParsePrefix("ff00::/8"),
}

// Plan computes the table. Duplicates, prefixes inside of others and host bits
// are no errors.
func Plan(c Config) Ruleset { return new(Planner).Plan(c) }

// Planner is [Plan] with a memory: what it returns is the same, and what it does
// grows with what has changed of Pods and Nodes since the plan before. Nobody may
// write to these lists any more. The zero value is ready for use; it is not safe for
// concurrent use.
type Planner struct {
	pods  arranged[netip.Prefix]
	nodes arranged[netip.Addr]
}

// Plan computes the table, as the function of that name does.
func (p *Planner) Plan(c Config) Ruleset {
	t := nft.Table{ID: tableID}
	pods, nodes := p.pods.arrange(c.Pods, prefixRange), p.nodes.arrange(c.Nodes, addressRange)
	exempt := append(c.Exempt[:len(c.Exempt):len(c.Exempt)], alwaysExempt...)
	var rules []string
	for _, f := range []struct {
		on, is6            bool
		suffix, kind, word string
	}{{c.IPv4, false, "4", "type ipv4_addr", "ip"}, {c.IPv6, true, "6", "type ipv6_addr", "ip6"}} {
		if !f.on {
			continue
		}
		t.Sets = append(t.Sets,
			nft.Set{Name: "own" + f.suffix, Type: f.kind, Flags: "interval", Elements: rangesOf(c.Own, f.is6)},
			nft.Set{Name: "pods" + f.suffix, Type: f.kind, Flags: "interval", Elements: pods[familyOf(f.is6)]},
			nft.Set{Name: "nodes" + f.suffix, Type: f.kind, Elements: nodes[familyOf(f.is6)]},
			nft.Set{Name: "exempt" + f.suffix, Type: f.kind, Flags: "interval", Elements: rangesOf(exempt, f.is6)},
		)
		rules = append(rules, masqueradeRule(f.word, f.suffix))
	}
	if len(rules) > 0 {
		t.Chains = append(t.Chains, nft.Chain{Name: translating, Base: "type nat hook postrouting priority srcnat; policy accept;", Rules: rules})
	}
	if c.GuardIPv4 {
		t.Chains = append(t.Chains, nft.Chain{Name: "guard", Base: "type filter hook prerouting priority raw; policy accept;", Rules: []string{guardRule}})
	}
	if c.ClampMSS {
		t.Chains = append(t.Chains, nft.Chain{Name: "clamp", Base: "type filter hook forward priority mangle; policy accept;", Rules: []string{clampRule}})
	}
	return Ruleset{t}
}

// masqueradeRule gives what leaves the cluster the node's address. The first
// lookup is the own podCIDRs, because most packets that are asked about have
// another source. What goes to another pod of the node keeps its source, also where
// that pod has an address that is in none of the sets: the podCIDRs may have been
// changed since it was started.
//
// Fully random: two pods that use one source port to one server at the same time
// must not get the same translated one, or the kernel drops the second packet.
func masqueradeRule(ip, suffix string) string {
	return fmt.Sprintf("%s saddr @own%s oifgroup != %d %[1]s daddr != @pods%[2]s %[1]s daddr != @nodes%[2]s %[1]s daddr != @exempt%[2]s masquerade fully-random",
		ip, suffix, kernel.Group)
}

// guardRule drops what comes from a pod's interface with a source address that
// is not routed to it. 0.0.0.0 needs no exception: the kernel's fib expression
// lets it pass to broadcast and link-local multicast, as rp_filter does, and it
// has no business elsewhere.
var guardRule = fmt.Sprintf("iifgroup %d meta nfproto ipv4 fib saddr . iif oif 0 drop", kernel.Group)

// clampRule lowers the maximum segment size of both families: the option in a SYN
// says how much its sender takes, so the one in the first packet limits one
// direction of the data, and the one in the answer the other. `rt mtu` is the
// smaller one of the routes to where the packet goes and where it came from, less
// the headers; a size is never raised. Packets without the flag end at the second
// comparison. It may be asked of any connection that the node forwards: one through
// these routes cannot have larger segments.
const clampRule = "tcp flags syn tcp option maxseg size set rt mtu"

// Sizes returns the number of addresses or prefixes in each set, by the set's
// name (own4, pods4, nodes4, exempt4, own6, …).
func (r Ruleset) Sizes() map[string]int {
	sizes := map[string]int{}
	for _, s := range r.table.Sets {
		sizes[s.Name] = s.Elements.Len()
	}
	return sizes
}

// String returns the table as `nft -f` reads it; the text is empty where there
// is to be no table. The same content is always the same text.
func (r Ruleset) String() string {
	if r.empty() {
		return ""
	}
	return r.table.String()
}

func (r Ruleset) empty() bool { return len(r.table.Sets)+len(r.table.Chains) == 0 }

// wanted are the tables that there are to be.
func (r Ruleset) wanted() []nft.Table {
	if r.empty() {
		return nil
	}
	return []nft.Table{r.table}
}

// elements returns the addresses in one of the sets.
func (r Ruleset) elements(set string) nft.Ranges {
	all, _ := r.table.Elements(set).(nft.Ranges)
	return all
}
