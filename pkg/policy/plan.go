package policy

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/flatnet-cni/flatnet/pkg/closed"
	"github.com/flatnet-cni/flatnet/pkg/nft"
)

// TableName is the name of the table, `inet flatnet-policy`.
const TableName = "flatnet-policy"

var tableID = closed.PolicyTable

// plan is what the rules for the pods of this node are, as of a state of the world.
type plan struct {
	chains map[string]nft.Chain
	blocks map[string]nft.Set
	groups map[groupKey]*group
	// leads says where connections of an address enter, by the side.
	leads map[side]map[netip.Addr]string
	rules [len(Directions)]map[*Policy][]*compiled
	of    map[Name]selecting
	// denies says that there are rules that refuse, so that one more peer may be one less
	// that is allowed.
	denies bool
	whole  []nft.Table // what tables has returned
	ends   bool        // and whether flows that were ended are refused there
}

// replan computes the plan anew: what pods of this node may do. It does not depend on
// how many pods there are elsewhere, but for groups that are new.
func (w *world) replan() *plan {
	p := &plan{
		chains: map[string]nft.Chain{}, blocks: map[string]nft.Set{}, groups: map[groupKey]*group{},
		leads: map[side]map[netip.Addr]string{}, of: map[Name]selecting{},
	}
	for d := range p.rules {
		p.rules[d] = map[*Policy][]*compiled{}
	}
	// Of a thousand policies to ask each again for each pod takes milliseconds, for which a
	// new pod waits.
	selected := w.selecting
	w.selecting = make(map[*Pod]selecting, len(w.attached))
	for name := range w.attached {
		pod := w.here(name)
		if pod == nil {
			p.close(w, name)
			continue
		}
		policies, known := selected[pod]
		if !known {
			policies = w.policiesOf(pod)
		}
		w.selecting[pod] = policies
		p.open(w, name, pod, policies)
	}
	maps.DeleteFunc(w.groups, func(key groupKey, _ *group) bool { return p.groups[key] == nil })
	maps.DeleteFunc(w.changed, func(key groupKey, _ groupChange) bool { return p.groups[key] == nil })
	w.stirred = false
	return p
}

// open gives a pod the chains of its policies.
func (p *plan) open(w *world, name Name, pod *Pod, policies selecting) {
	p.of[name] = policies
	for _, d := range Directions {
		if len(policies[d]) == 0 {
			continue
		}
		for _, one := range policies[d] {
			if p.rules[d][one] == nil {
				p.rules[d][one] = w.compile(one, d, p.groups)
				p.denies = p.denies || one.Tier != Network
			}
		}
		for _, a := range w.attached[name].Addresses {
			s := side{d, familyOf(a)}
			entry := s.chainName(pod, policies[d])
			if _, made := p.chains[entry]; !made {
				for _, c := range s.chains(pod, policies[d], p.rules[d], p.block(s.family)) {
					p.chains[c.Name] = c
				}
			}
			p.lead(s, a, entry)
		}
	}
}

// close refuses what a pod does of which nothing is known, where a policy may select it.
func (p *plan) close(w *world, name Name) {
	closed := w.closed(name.Namespace)
	for _, d := range Directions {
		if !closed[d] {
			continue
		}
		for _, a := range w.attached[name].Addresses {
			s := side{d, familyOf(a)}
			p.lead(s, a, s.refused())
		}
	}
}

func (p *plan) lead(s side, a netip.Addr, chain string) {
	if p.leads[s] == nil {
		p.leads[s] = map[netip.Addr]string{}
	}
	p.leads[s][a] = chain
}

// block makes the set of a rule's networks.
func (p *plan) block(f family) func(nft.Ranges) string {
	return func(r nft.Ranges) string {
		name := blockName(f, r)
		if _, made := p.blocks[name]; !made {
			p.blocks[name] = nft.Set{Name: name, Type: f.addressType(), Flags: "interval", Elements: r}
		}
		return name
	}
}

// sides are all, in the order in which they are listed.
var sides = [...]side{{Egress, ipv4}, {Egress, ipv6}, {Ingress, ipv4}, {Ingress, ipv6}}

// countedPods bounds how many pods' refused connections are counted.
const countedPods = 65535

// tables are the one table, the same one as long as its chains are the same: its sets are
// what they are made of, and tell themselves what is in them now. The ended are always the
// same.
func (p *plan) tables(w *world, e *ended) []nft.Table {
	if ends := e.any(); p.whole == nil || p.ends != ends {
		p.whole, p.ends = []nft.Table{p.table(w, e.elements(), ends)}, ends
	}
	return p.whole
}

// table is the whole table. What stays is before what depends on the policies.
func (p *plan) table(w *world, ended [len(families)]nft.Elements, ends bool) nft.Table {
	t := nft.Table{ID: tableID, Comment: "flatnet keeps NetworkPolicies here"}
	for _, f := range families {
		t.Sets = append(t.Sets,
			nft.Set{Name: "self" + f.suffix(), Type: f.addressType() + " . " + f.addressType()[len("type "):], Elements: p.self(f)},
			closed.Evicted(f == ipv6),
			endedSet(f, ended[f]),
		)
	}
	for _, s := range sides {
		t.Sets = append(t.Sets,
			nft.Set{Name: s.String(), Type: s.family.addressType() + " : verdict", Elements: p.verdicts(s)},
			refusedSet(s))
	}
	named := p.named()
	for _, key := range slices.SortedFunc(maps.Keys(p.groups), groupKey.compare) {
		for _, f := range families {
			if s := p.groups[key].set(f); named[s.Name] {
				t.Sets = append(t.Sets, s)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.blocks)) {
		t.Sets = append(t.Sets, p.blocks[name])
	}
	t.Chains = append(t.Chains, closed.Forward, outputChain(), newChain(ends))
	if w.logs {
		for _, d := range Directions {
			t.Chains = append(t.Chains, logChain(d))
		}
	}
	for _, s := range sides {
		rules := []string{s.reachesItself(), fmt.Sprintf("add @refused-%s { %s %s counter }", s, s.family.header(), [...]string{"daddr", "saddr"}[s.direction])}
		if w.logs {
			rules = append(rules, "jump "+logChain(s.direction).Name)
		}
		t.Chains = append(t.Chains, nft.Chain{Name: s.refused(), Rules: append(rules, "drop")})
	}
	for _, name := range slices.Sorted(maps.Keys(p.chains)) {
		t.Chains = append(t.Chains, p.chains[name])
	}
	return t
}

// named are the sets that the pods' chains name. There may be groups that none does: of
// rules that are not asked, and of those that have no port at any pod.
func (p *plan) named() map[string]bool {
	all := map[string]bool{}
	for _, c := range p.chains {
		for _, rule := range c.Rules {
			for _, word := range strings.Fields(rule) {
				if name, is := strings.CutPrefix(word, "@"); is {
					all[name] = true
				}
			}
		}
	}
	return all
}

// logGroup is where packets are logged that are refused: nobody else's, as far as we
// know, since others begin to count at 0.
const logGroup = 70

// logChain has refused packets logged, not more than a person can read.
func logChain(d Direction) nft.Chain {
	return nft.Chain{Name: "log-" + d.String(), Feature: logging, Rules: []string{
		fmt.Sprintf("limit rate 10/second burst 20 packets log prefix %q group %d snaplen 128", d.String(), logGroup),
	}}
}

// refusedSet counts what is refused, by pod. Rules fill it.
func refusedSet(s side) nft.Set {
	return nft.Set{Name: "refused-" + s.String(), Type: s.family.addressType(), Flags: "dynamic", Size: countedPods}
}

func (k groupKey) compare(o groupKey) int {
	return cmp.Or(cmp.Compare(k.namespace, o.namespace), cmp.Compare(k.namespaces, o.namespaces), cmp.Compare(k.pods, o.pods),
		cmp.Compare(k.port, o.port), cmp.Compare(k.protocol, o.protocol))
}

// outputChain is one that a table can do without: see [lacks].
func outputChain() nft.Chain {
	c := closed.Output
	c.Feature = besideIPVS
	return c
}

// newChain decides about new connections: the source's policies have their say, and then
// the destination's; of who is evicted these are somebody else's. What is new may be every
// packet (UDP that nobody answers), so that flows that were ended are looked for only while
// there are some: they begin nowhere again.
func newChain(ends bool) nft.Chain {
	c := nft.Chain{Name: "new"}
	if ends {
		c.Rules = append(c.Rules,
			"ip saddr . th sport . ip daddr . th dport . meta l4proto @ended4 drop",
			"ip6 saddr . th sport . ip6 daddr . th dport . meta l4proto @ended6 drop",
		)
	}
	c.Rules = append(c.Rules,
		"ip saddr != @evicted4 ip saddr vmap @egress4",
		"ip6 saddr != @evicted6 ip6 saddr vmap @egress6",
		"ip daddr != @evicted4 ip daddr vmap @ingress4",
		"ip6 daddr != @evicted6 ip6 daddr vmap @ingress6",
	)
	return c
}

// reachesItself has a pod reach itself, by a Service too, whatever refuses it.
func (s side) reachesItself() string {
	h := s.family.header()
	return fmt.Sprintf("%s saddr . %s daddr @self%s accept", h, h, s.family.suffix())
}

// self are the addresses of pods with policies, each with itself.
func (p *plan) self(f family) nft.List {
	all := map[netip.Addr]struct{}{}
	for _, d := range Directions {
		for a := range p.leads[side{d, f}] {
			all[a] = struct{}{}
		}
	}
	var list nft.List
	for _, a := range slices.SortedFunc(maps.Keys(all), netip.Addr.Compare) {
		list = append(list, nft.Element{Key: string(nft.Key(nil).Address(a).Address(a))})
	}
	return list
}

// verdicts are where the connections of each pod go.
func (p *plan) verdicts(s side) nft.List {
	var list nft.List
	for _, a := range slices.SortedFunc(maps.Keys(p.leads[s]), netip.Addr.Compare) {
		verdict := "jump "
		if s.direction == Ingress {
			verdict = "goto "
		}
		list = append(list, nft.Element{Key: string(nft.Key(nil).Address(a)), Value: verdict + p.leads[s][a]})
	}
	return list
}
