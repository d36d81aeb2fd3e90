package policy

import (
	"fmt"
	"hash/fnv"
	"net/netip"
	"slices"
	"strings"

	"github.com/flatnet-cni/flatnet/pkg/closed"
	"github.com/flatnet-cni/flatnet/pkg/nft"
)

// compiled is a policy's rule with the sets that it looks addresses up in.
type compiled struct {
	*Rule
	policy    *Policy
	index     int // in the policy, from 0
	direction Direction
	groups    []*group
	blocks    [len(families)]nft.Ranges
	// named are the groups of pods with a port of a name, for egress: the port is that of
	// the destination. By the index of the port in the rule.
	named map[int][]*group
}

// compile finds the sets of a policy's rules.
func (w *world) compile(p *Policy, d Direction, used map[groupKey]*group) []*compiled {
	all := make([]*compiled, 0, len(p.Rules[d]))
	for i := range p.Rules[d] {
		r := &p.Rules[d][i]
		c := &compiled{Rule: r, policy: p, index: i, direction: d, named: map[int][]*group{}}
		for _, s := range r.Peers {
			c.groups = append(c.groups, w.use(s, "", 0, used))
		}
		networks := w.networks(r)
		for _, f := range families {
			c.blocks[f] = f.ranges(networks)
		}
		for n, port := range r.Ports {
			if port.Name == "" || d != Egress {
				continue
			}
			// Whoever is not among the peers is refused by the other lookup.
			named := r.Peers
			if r.AnyPeer || len(r.Blocks)+len(r.Nodes) > 0 {
				named = []Selector{everything}
			}
			for _, s := range named {
				c.named[n] = append(c.named[n], w.use(s, port.Name, port.Protocol, used))
			}
		}
		all = append(all, c)
	}
	return all
}

// peers are the words that match the rule's peers in a family, one or the other of
// them; none where nobody of the family is one. A stranger is in no group.
func (c *compiled) peers(f family, stranger bool, block func(nft.Ranges) string) (words []string) {
	if c.AnyPeer {
		return []string{""}
	}
	far := side{c.direction, f}.far()
	for _, g := range c.groups {
		if !stranger {
			words = append(words, far+" @"+g.names[f]+" ")
		}
	}
	if len(c.blocks[f]) > 0 {
		words = append(words, far+" @"+block(c.blocks[f])+" ")
	}
	return words
}

// ports are the words that match the rule's ports at a pod, one or the other. What the
// names of a stranger's ports mean is not known.
func (c *compiled) ports(f family, at *Pod, stranger bool) (words []string) {
	if c.AnyPort {
		return []string{""}
	}
	for n, p := range c.Ports {
		switch {
		case p.Name != "" && c.direction == Egress && stranger:
		case p.Name != "" && c.direction == Egress:
			for _, g := range c.named[n] {
				words = append(words, fmt.Sprintf("%s daddr . %s dport @%s ", f.header(), p.Protocol, g.names[f]))
			}
		case p.Name != "":
			for _, number := range at.ports(p.Name, p.Protocol) {
				words = append(words, fmt.Sprintf("%s dport %d ", p.Protocol, number))
			}
		case p.First == 0 && p.Last == 65535:
			words = append(words, fmt.Sprintf("meta l4proto %s ", p.Protocol))
		case p.First == p.Last:
			words = append(words, fmt.Sprintf("%s dport %d ", p.Protocol, p.First))
		default:
			words = append(words, fmt.Sprintf("%s dport %d-%d ", p.Protocol, p.First, p.Last))
		}
	}
	return words
}

// text are the rule's rules of nftables.
func (c *compiled) text(f family, at *Pod, stranger bool, verdict string, block func(nft.Ranges) string) (rules []string) {
	for _, peer := range c.peers(f, stranger, block) {
		for _, port := range c.ports(f, at, stranger) {
			rules = append(rules, peer+port+verdict)
		}
	}
	return rules
}

// side is the end of connections that a chain is about.
type side struct {
	direction Direction
	family    family
}

func (s side) String() string { return s.direction.String() + s.family.suffix() }

// far is the other end's address, in the words of a rule.
func (s side) far() string { return s.family.header() + [...]string{" saddr", " daddr"}[s.direction] }

// refused is the chain in which connections end that are refused.
func (s side) refused() string { return "refused-" + s.String() }

// refuse leads there.
func (s side) refuse() string { return "goto " + s.refused() }

// allowed is what lets a connection go on: to what the destination's policies say, or
// out of the table.
func (s side) allowed() string { return [...]string{"accept", "return"}[s.direction] }

// chains are those of a pod with these policies, the first one is where its connections
// enter. Pods whose policies say the same of them have the same chains.
//
// Who is evicted is a stranger, for whom there are chains of their own where the others
// ask groups: to ask at each group would double the work of a new connection.
func (s side) chains(at *Pod, policies []*Policy, rules map[*Policy][]*compiled, block func(nft.Ranges) string) []nft.Chain {
	name := s.chainName(at, policies)
	all := s.chainsOf(name, at, policies, rules, false, block)
	if !slices.ContainsFunc(policies, func(p *Policy) bool { return slices.ContainsFunc(rules[p], (*compiled).asksGroups) }) {
		return all
	}
	strangers := s.chainsOf(name+"-strangers", at, policies, rules, true, block)
	verdict := "goto " + strangers[0].Name
	switch only := strangers[0].Rules; {
	case len(only) == 0:
		verdict, strangers = s.allowed(), nil
	case len(only) == 1 && only[0] == s.refuse():
		verdict, strangers = only[0], nil
	}
	check := fmt.Sprintf("%s @%s %s", s.far(), closed.Evicted(s.family == ipv6).Name, verdict)
	all[0].Rules = append([]string{check}, all[0].Rules...)
	return append(all, strangers...)
}

// asksGroups reports whether the rule matches some by whom a selector chooses.
func (c *compiled) asksGroups() bool { return len(c.groups)+len(c.named) > 0 }

// chainsOf are the chains for strangers, or for all others.
func (s side) chainsOf(name string, at *Pod, policies []*Policy, rules map[*Policy][]*compiled, stranger bool, block func(nft.Ranges) string) []nft.Chain {
	entry := nft.Chain{Name: name}
	next := nft.Chain{Name: name + "-next"} // what Pass leads to
	passed := false
	at0 := &entry
	refuse := s.refuse()
	verdicts := [...]string{Accept: s.allowed(), Deny: refuse, Pass: "goto " + next.Name}
	isolated := false
	for _, p := range policies {
		if p.Tier == Admin {
			for _, c := range rules[p] {
				text := c.text(s.family, at, stranger, verdicts[c.Action], block)
				at0.Rules = append(at0.Rules, text...)
				passed = passed || c.Action == Pass && len(text) > 0
			}
		}
		isolated = isolated || p.Isolates[s.direction]
	}
	if passed {
		entry.Rules = append(entry.Rules, "goto "+next.Name)
		at0 = &next
	}
	// Who has passed the tier of NetworkPolicies without being isolated is at the end.
	for _, p := range policies {
		if isolated && p.Tier != Network || p.Tier == Admin {
			continue
		}
		for _, c := range rules[p] {
			verdict := verdicts[c.Action]
			if c.Action == Pass {
				verdict = s.allowed() // there is no tier after Baseline
			}
			at0.Rules = append(at0.Rules, c.text(s.family, at, stranger, verdict, block)...)
		}
	}
	if isolated {
		at0.Rules = append(at0.Rules, refuse)
	}
	if passed {
		return []nft.Chain{entry, next}
	}
	return []nft.Chain{entry}
}

// chainName is the same for pods whose policies and whose ports of the names in them
// are the same.
func (s side) chainName(at *Pod, policies []*Policy) string {
	h := fnv.New64a()
	for _, p := range policies {
		fmt.Fprintf(h, "%q %d ", p.Name.String(), p.Tier)
		if s.direction != Ingress {
			continue
		}
		for _, r := range p.Rules[s.direction] {
			for _, port := range r.Ports {
				if port.Name != "" {
					fmt.Fprintf(h, "%q %d %v ", port.Name, port.Protocol, at.ports(port.Name, port.Protocol))
				}
			}
		}
	}
	const longest = 40
	words := word(at.Name.Namespace)
	return fmt.Sprintf("%s-%s-%016x", s, words[:min(longest, len(words))], h.Sum64())
}

// blockName is that of the set of a rule's networks.
func blockName(f family, r nft.Ranges) string {
	h := fnv.New64a()
	for _, one := range r {
		fmt.Fprint(h, one.First, one.Last)
	}
	return fmt.Sprintf("cidrs%s-%016x", f.suffix(), h.Sum64())
}

// matches reports whether a rule is about a connection between a pod and a far end.
func (c *compiled) matches(at *Pod, far netip.Addr, protocol Protocol, port uint16) bool {
	return c.matchesPeer(far) && c.matchesPort(at, far, protocol, port)
}

func (c *compiled) matchesPeer(far netip.Addr) bool {
	if c.AnyPeer || c.blocks[familyOf(far)].Contains(far) {
		return true
	}
	for _, g := range c.groups {
		if g.holds(far, 0) {
			return true
		}
	}
	return false
}

func (c *compiled) matchesPort(at *Pod, far netip.Addr, protocol Protocol, port uint16) bool {
	if c.AnyPort {
		return true
	}
	for n, p := range c.Ports {
		switch {
		case p.Protocol != protocol:
		case p.Name != "" && c.direction == Egress:
			for _, g := range c.named[n] {
				if g.holds(far, port) {
					return true
				}
			}
		case p.Name != "":
			for _, number := range at.ports(p.Name, p.Protocol) {
				if number == port {
					return true
				}
			}
		case p.First <= port && port <= p.Last:
			return true
		}
	}
	return false
}

// String names the rule for people.
func (c *compiled) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s, %s rule %d", c.policy.kind(), c.policy.Name, c.direction, c.index+1)
	if c.Name != "" {
		fmt.Fprintf(&b, " (%s)", c.Name)
	}
	return b.String()
}

func (p *Policy) kind() string {
	if p.Tier == Network {
		return "NetworkPolicy"
	}
	return "ClusterNetworkPolicy"
}
