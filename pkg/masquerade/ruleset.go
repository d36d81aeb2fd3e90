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
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// Ruleset is the wanted content of the table. It is a plain value, and the zero
// value means that there is to be no table.
type Ruleset struct{ content content }

// content is what the table holds, as it is wanted or as it was found.
type content struct {
	dormant bool    // the table is switched off; nothing else sets a flag
	sets    []set   // in no given order, their elements in order
	chains  []chain // in no given order
}

// set is one set of addresses.
type set struct {
	name     string
	is6      bool
	interval bool // of prefixes, not of single addresses
	elements []span
	odd      bool // found to be something else, a map for example
}

// chain is a base chain with all its rules.
type chain struct {
	name     string
	kind     nftables.ChainType
	hook     nftables.ChainHook
	priority nftables.ChainPriority
	head     string // the chain's properties as nft writes them
	rules    []rule
	drops    bool // by its policy, which never is ours
}

// translating is the name of the chain that gives packets the node's address.
const translating = "postrouting"

// rule is the same thing for people and for the kernel.
type rule struct {
	text string
	code []expr.Any
}

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
	var t content
	pods, nodes := p.pods.arrange(c.Pods, prefixSpan), p.nodes.arrange(c.Nodes, addressSpan)
	exempt := append(c.Exempt[:len(c.Exempt):len(c.Exempt)], alwaysExempt...)
	var rules []rule
	for _, f := range []struct {
		on, is6 bool
		suffix  string
	}{{c.IPv4, false, "4"}, {c.IPv6, true, "6"}} {
		if !f.on {
			continue
		}
		t.sets = append(t.sets,
			set{name: "own" + f.suffix, is6: f.is6, interval: true, elements: spansOf(c.Own, f.is6)},
			set{name: "pods" + f.suffix, is6: f.is6, interval: true, elements: pods[familyOf(f.is6)]},
			set{name: "nodes" + f.suffix, is6: f.is6, interval: false, elements: nodes[familyOf(f.is6)]},
			set{name: "exempt" + f.suffix, is6: f.is6, interval: true, elements: spansOf(exempt, f.is6)},
		)
		rules = append(rules, masqueradeRule(f.is6, "own"+f.suffix, "pods"+f.suffix, "nodes"+f.suffix, "exempt"+f.suffix))
	}
	if len(rules) > 0 {
		t.chains = append(t.chains, chain{
			name: translating, kind: nftables.ChainTypeNAT,
			hook: *nftables.ChainHookPostrouting, priority: *nftables.ChainPriorityNATSource,
			head: "type nat hook postrouting priority srcnat; policy accept;", rules: rules,
		})
	}
	if c.GuardIPv4 {
		t.chains = append(t.chains, chain{
			name: "guard", kind: nftables.ChainTypeFilter,
			hook: *nftables.ChainHookPrerouting, priority: *nftables.ChainPriorityRaw,
			head: "type filter hook prerouting priority raw; policy accept;", rules: []rule{guardRule()},
		})
	}
	if c.ClampMSS {
		t.chains = append(t.chains, chain{
			name: "clamp", kind: nftables.ChainTypeFilter,
			hook: *nftables.ChainHookForward, priority: *nftables.ChainPriorityMangle,
			head: "type filter hook forward priority mangle; policy accept;", rules: []rule{clampRule()},
		})
	}
	return Ruleset{t}
}

// Sizes returns the number of addresses or prefixes in each set, by the set's
// name (own4, pods4, nodes4, exempt4, own6, …).
func (r Ruleset) Sizes() map[string]int {
	sizes := map[string]int{}
	for _, s := range r.content.sets {
		sizes[s.name] = len(s.elements)
	}
	return sizes
}

// String returns the table as `nft -f` reads it; the text is empty where there
// is to be no table. The same content is always the same text.
func (r Ruleset) String() string {
	if r.content.empty() {
		return ""
	}
	var b strings.Builder
	fmt.Fprintf(&b, "table inet %s {\n", tableName)
	for _, s := range r.content.sets {
		fmt.Fprintf(&b, "\tset %s {\n\t\ttype %s\n", s.name, s.keyType().Name)
		if s.interval {
			b.WriteString("\t\tflags interval\n")
		}
		for i, e := range s.elements {
			opening, end := "\t\t             ", ",\n"
			if i == 0 {
				opening = "\t\telements = { "
			}
			if i == len(s.elements)-1 {
				end = " }\n"
			}
			b.WriteString(opening + e.String() + end)
		}
		b.WriteString("\t}\n\n")
	}
	for i, c := range r.content.chains {
		if i > 0 {
			b.WriteString("\n")
		}
		fmt.Fprintf(&b, "\tchain %s {\n\t\t%s\n", c.name, c.head)
		for _, rule := range c.rules {
			fmt.Fprintf(&b, "\t\t%s\n", rule.text)
		}
		b.WriteString("\t}\n")
	}
	b.WriteString("}\n")
	return b.String()
}

func (c content) empty() bool { return len(c.sets) == 0 && len(c.chains) == 0 }

func (s set) keyType() nftables.SetDatatype {
	if s.is6 {
		return nftables.TypeIP6Addr
	}
	return nftables.TypeIPAddr
}
