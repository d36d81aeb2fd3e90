package service

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/flatnet-cni/flatnet/pkg/nft"
)

// TableName is the name of the two tables, `ip flatnet-services` and `ip6
// flatnet-services`. They are not the plugin's or the masquerading's, which are
// named flatnet, because whoever keeps those removes from them what is not his.
const TableName = "flatnet-services"

// localOffset is where the indices of endpoints for policy Local begin, and
// maximumEndpoints is how many of a port's endpoints are used at most, so that the
// two lists do not meet.
const (
	localOffset      = 1 << 15
	maximumEndpoints = localOffset
)

// The priorities of the base chains, all of which are of type nat: the kernel asks
// them for the first packet of a connection and no other.
const (
	priorityTranslate = "dstnat"
	// priorityLeave is just before srcnat: what is translated here is not to be
	// translated by somebody else, like package masquerade, before it is seen.
	priorityLeave = "95"
)

// chainKind is what a chain that exists for a number does.
type chainKind uint8

const (
	balanceChain  chainKind = iota // picks one of n endpoints
	stickyChain                    // prefers the endpoint that the client had, or else picks one of n
	rememberChain                  // remembers the client's endpoint for n seconds
)

// chainRef identifies a chain of which there is one for each distinct number.
type chainRef struct {
	kind     chainKind
	protocol Protocol // 0 for rememberChain
	n        int
	local    bool // the endpoints for policy Local
}

func (c chainRef) name() string {
	switch {
	case c.kind == rememberChain:
		return fmt.Sprintf("remember-%d", c.n)
	case c.kind == stickyChain && c.local:
		return fmt.Sprintf("sticky-local-%s-%d", c.protocol, c.n)
	case c.kind == stickyChain:
		return fmt.Sprintf("sticky-%s-%d", c.protocol, c.n)
	case c.local:
		return fmt.Sprintf("local-%s-%d", c.protocol, c.n)
	}
	return fmt.Sprintf("lb-%s-%d", c.protocol, c.n)
}

func (c chainRef) verdict() string { return "goto " + c.name() }

func (c chainRef) compare(o chainRef) int {
	return cmp.Or(cmp.Compare(c.kind, o.kind), cmp.Compare(c.protocol, o.protocol), compareBool(c.local, o.local), cmp.Compare(c.n, o.n))
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// needs are the chains that this one goes to.
func (c chainRef) needs() []chainRef {
	if c.kind == stickyChain {
		c.kind = balanceChain
		return []chainRef{c}
	}
	return nil
}

// in gives a rule the words of a family: $ip is the family's header.
func (f family) in(text string) string { return strings.ReplaceAll(text, "$ip", f.name()) }

// keyFront matches the front that a packet goes to.
const keyFront = "$ip daddr . meta l4proto . th dport"

// chain returns the chain with its rules.
func (c chainRef) chain(f family) nft.Chain {
	made := nft.Chain{Name: c.name()}
	add := func(format string, a ...any) { made.Rules = append(made.Rules, f.in(fmt.Sprintf(format, a...))) }
	switch c.kind {
	case balanceChain:
		random := fmt.Sprintf("numgen random mod %d", c.n)
		if c.local {
			random += fmt.Sprintf(" offset %d", localOffset)
		}
		add("meta l4proto %s dnat $ip to $ip daddr . %s dport . %s map @endpoints-%s", c.protocol, c.protocol, random, c.protocol)
	case stickyChain:
		add("ct mark set " + keyFront + " map @ids")
		// Who is not in the map goes on to the next rule.
		add("meta l4proto %s dnat $ip to $ip saddr . ct mark map @affinity-%s", c.protocol, c.protocol)
		add("%s", c.needs()[0].verdict())
		made.Feature, made.Spare = sessionAffinity, made.Rules[2:]
	case rememberChain:
		for _, p := range protocols {
			add("meta l4proto %s update @affinity-%s { $ip saddr . ct mark timeout %ds : $ip daddr . %s dport }", p, p, c.n, p)
		}
		made.Feature = sessionAffinity
	}
	return made
}

// wantedChains are all chains of a table.
func (r *Ruleset) wantedChains(f family) []nft.Chain {
	all := slices.Clone(skeletons[f])
	for _, c := range slices.SortedFunc(maps.Keys(r.chains), func(a, b tableChain) int { return a.compare(b.chainRef) }) {
		if c.family == f {
			all = append(all, c.chain(f))
		}
	}
	return all
}

// skeletons are the chains that are always there. Nobody writes to them.
var skeletons = [len(families)][]nft.Chain{ipv4.skeleton(), ipv6.skeleton()}

func (f family) skeleton() []nft.Chain {
	translated := func(rest string) []string {
		var all []string
		for _, p := range protocols {
			// `ct original proto-dst` has a type only after a protocol.
			all = append(all, fmt.Sprintf("ct status dnat meta l4proto %s ct original $ip daddr . meta l4proto . ct original proto-dst %s", p, rest))
		}
		return all
	}
	var sources []string
	for _, p := range protocols {
		// Not with the protocol in the set's key: for a key with intervals nft before
		// 1.1 has the kernel turn the bytes of each host-endian part around, be it only
		// one, and newer kernels (Debian's 6.12.117 and 7.2) refuse that.
		sources = append(sources, fmt.Sprintf("meta l4proto %s $ip daddr . %s dport . $ip saddr != @sources-%s drop", p, p, p))
	}
	return []nft.Chain{
		orElse(f.chain("refuse",
			// As if nobody listened: clients learn it at once.
			"meta l4proto tcp reject with tcp reset",
			"reject"), refusing, "drop"),
		orElse(f.chain("policy-local",
			"$ip saddr @own "+keyFront+" vmap @inside",
			"fib saddr type local "+keyFront+" vmap @inside",
			keyFront+" vmap @outside"), policyLocal, "drop"),
		orElse(f.chain("by-source", append(sources, keyFront+" vmap @filtered")...), sourceRanges, "drop"),
		f.chain("dispatch",
			keyFront+" vmap @services",
			// A port that the Service does not have.
			"$ip daddr @cluster-ips goto refuse",
			"$ip daddr @service-cidrs drop"),
		f.chain("leave",
			// A pod that reaches itself would drop a packet from its own address.
			"$ip saddr . $ip daddr @hairpin masquerade fully-random",
			// Answers to these sources come back here by themselves.
			"$ip saddr @own return",
			// Answers from these destinations do.
			"$ip daddr @own return",
			"masquerade fully-random"),
		f.base("prerouting", priorityTranslate, "jump dispatch"),
		f.base("output", priorityTranslate, "jump dispatch"),
		f.base("input", priorityLeave, "ct status dnat ct mark vmap @remember"),
		f.base("postrouting", priorityLeave, append([]string{
			"ct status dnat ct mark vmap @remember",
			"ct status dnat ct original $ip daddr @cluster-ips goto leave",
		}, translated("@external goto leave")...)...),
	}
}

func (f family) chain(name string, rules ...string) nft.Chain {
	c := nft.Chain{Name: name}
	for _, rule := range rules {
		c.Rules = append(c.Rules, f.in(rule))
	}
	return c
}

func (f family) base(hook, priority string, rules ...string) nft.Chain {
	c := f.chain(hook, rules...)
	c.Base = fmt.Sprintf("type nat hook %s priority %s; policy accept;", hook, priority)
	return c
}

// orElse makes a chain's rules a feature's, with what is there in their place.
func orElse(c nft.Chain, feature string, spare ...string) nft.Chain {
	c.Feature, c.Spare = feature, spare
	return c
}
