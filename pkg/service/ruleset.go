package service

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/flatnet-cni/flatnet/pkg/nft"
)

// Ruleset is the wanted content of the two tables, as [Plan] or a [Planner]
// computes it. It belongs to one goroutine.
type Ruleset struct {
	node    Node
	fronts  map[Front]*Target
	shared  map[element]int                // elements that several fronts need, and how many do
	chains  map[tableChain]int             // chains that elements go to, and how many do
	sticky  map[stickyPort]map[*Target]int // those of ports with session affinity, and of how many fronts
	changed changes
}

// stickyPort is a port with session affinity, by the mark of its connections.
type stickyPort struct {
	family   family
	protocol Protocol
	id       uint32
}

// tableChain is a chain of one of the tables.
type tableChain struct {
	family family
	chainRef
}

// changes are what may differ since they were last taken, and how it was then.
type changes struct {
	fronts map[Front]*Target // nil: it was none
	shared map[element]bool  // whether it was needed
}

func newChanges() changes { return changes{map[Front]*Target{}, map[element]bool{}} }

func newRuleset(n Node) *Ruleset {
	return &Ruleset{
		node: n, fronts: map[Front]*Target{}, shared: map[element]int{}, chains: map[tableChain]int{},
		sticky: map[stickyPort]map[*Target]int{}, changed: newChanges(),
	}
}

// take returns what may have changed since the last call.
func (r *Ruleset) take() changes {
	c := r.changed
	r.changed = newChanges()
	return c
}

// set leads a front to a target, or nowhere where that is nil.
func (r *Ruleset) set(f Front, t *Target) {
	before := r.fronts[f]
	if before == t {
		return
	}
	if _, known := r.changed.fronts[f]; !known {
		r.changed.fronts[f] = before
	}
	// What both need is not given up in between.
	if t != nil {
		r.fronts[f] = t
		r.count(f, t, 1)
	} else {
		delete(r.fronts, f)
	}
	if before != nil {
		r.count(f, before, -1)
	}
	pair(before.owned(), t.owned(), func(a, b *netip.Addr) int { return a.Compare(*b) }, func(b, a *netip.Addr) {
		switch {
		case a == nil:
			r.need(hairpin(*b), -1)
		case b == nil:
			r.need(hairpin(*a), 1)
		}
	})
}

// need notes that one more, or with -1 one less, needs an element.
func (r *Ruleset) need(e element, by int) {
	if _, known := r.changed.shared[e]; !known {
		r.changed.shared[e] = r.shared[e] > 0
	}
	if r.shared[e] += by; r.shared[e] == 0 {
		delete(r.shared, e)
	}
}

// count notes that a target needs what it shares with others, or no longer does.
func (r *Ruleset) count(f Front, t *Target, by int) {
	t.shared(f, func(e element) { r.need(e, by) })
	t.chains(func(c chainRef) {
		at := tableChain{familyOf(f.Address), c}
		if r.chains[at] += by; r.chains[at] == 0 {
			delete(r.chains, at)
		}
	})
	if t.affinity > 0 {
		r.stick(f, t, by)
	}
}

// stick notes that one more, or with -1 one less, front of a port with session affinity
// leads to a target.
func (r *Ruleset) stick(f Front, t *Target, by int) {
	port := stickyPort{familyOf(f.Address), f.Protocol, t.id}
	targets := r.sticky[port]
	if targets == nil {
		targets = map[*Target]int{}
		r.sticky[port] = targets
	}
	if targets[t] += by; targets[t] == 0 {
		delete(targets, t)
	}
	if len(targets) == 0 {
		delete(r.sticky, port)
	}
}

// families are those that have a table.
func (r *Ruleset) families() []family {
	return slices.DeleteFunc(slices.Clone(families[:]), func(f family) bool { return !r.node.has(f) })
}

// tables are what is wanted. Their elements are looked up when somebody asks for them,
// as they are then.
func (r *Ruleset) tables() []nft.Table {
	var all []nft.Table
	for _, f := range r.families() {
		t := nft.Table{ID: f.table(), Comment: "flatnet balances Services here", Chains: r.wantedChains(f)}
		for id := range numberOfSets {
			s := id.declared(f)
			switch {
			case id == setOwn:
				s.Elements = rangesOf(r.node.own(f))
			case id == setServiceCIDRs:
				s.Elements = rangesOf(r.node.serviceCIDRs(f))
			case id.ofEndpoints():
				s.Elements = endpointsOf{wanted{r, f, id}}
			case id < setAffinityTCP:
				s.Elements = wanted{r, f, id}
			}
			t.Sets = append(t.Sets, s)
		}
		all = append(all, t)
	}
	return all
}

// rangesOf are sorted prefixes, of which none is in another one.
func rangesOf(prefixes []netip.Prefix) nft.Ranges {
	all := make(nft.Ranges, 0, len(prefixes))
	for _, p := range prefixes {
		all = append(all, nft.RangeOf(p))
	}
	return all
}

// serviceCIDRs are those of one family.
func (n Node) serviceCIDRs(f family) []netip.Prefix {
	var cidrs []netip.Prefix
	for _, p := range n.ServiceCIDRs {
		if f.owns(p.Addr()) {
			cidrs = append(cidrs, p.Masked())
		}
	}
	return disjoint(cidrs)
}

// wanted are the elements of a set.
type wanted struct {
	*Ruleset
	family family
	set    setID
}

// isShared reports whether several fronts may need one of the elements.
func (w wanted) isShared() bool { return w.set >= setRemember }

// Len implements [nft.Elements].
func (w wanted) Len() (n int) {
	if w.isShared() {
		for e := range w.shared {
			if e.family == w.family && e.set == w.set {
				n++
			}
		}
		return n
	}
	for f, t := range w.fronts {
		if w.family.owns(f.Address) && w.set.holds(f) {
			n += t.count(w.set, f)
		}
	}
	return n
}

// All implements [nft.Elements].
func (w wanted) All(yield func(nft.Element) bool) {
	if w.isShared() {
		for e := range w.shared {
			if e.family == w.family && e.set == w.set && !yield(e.Element) {
				return
			}
		}
		return
	}
	for f, t := range w.fronts {
		if w.family.owns(f.Address) && w.set.holds(f) && !t.in(w.set, f, yield) {
			return
		}
	}
}

// Find implements [nft.Elements].
func (w wanted) Find(key string) (nft.Element, bool) {
	rest := nft.Fields(key)
	switch {
	case w.set == setRemember:
		for _, p := range protocols {
			for t := range w.sticky[stickyPort{w.family, p, rest.Number()}] {
				return nft.Element{Key: key, Value: "jump " + t.remember().name()}, true
			}
			rest = nft.Fields(key)
		}
		return nft.Element{}, false
	case w.isShared():
		e := nft.Element{Key: key}
		return e, w.shared[element{w.family, w.set, e}] > 0
	case w.set.ofEndpoints():
		t, f, index := w.endpoint(key)
		if t == nil {
			return nft.Element{}, false
		}
		at, is := t.endpoint(index)
		if !is {
			return nft.Element{}, false
		}
		return f.endpoint(index, at), true
	case w.set.ofSources():
		f := Front{rest.Address(w.family.bytes()), w.set.protocol(), rest.Port()}
		first := rest.Address(w.family.bytes())
		if t := w.fronts[f]; t != nil {
			if i := slices.IndexFunc(t.sources, func(p netip.Prefix) bool { return p.Masked().Addr() == first }); i >= 0 {
				return f.source(t.sources[i]), true
			}
		}
		return nft.Element{}, false
	}
	f := Front{rest.Address(w.family.bytes()), Protocol(rest.Protocol()), rest.Port()}
	t := w.fronts[f]
	if t == nil {
		return nft.Element{}, false
	}
	return t.has(w.set, f)
}

// endpoint reads the key of a map of endpoints; the target is nil where there is no such
// front.
func (w wanted) endpoint(key string) (t *Target, f Front, index uint32) {
	rest := nft.Fields(key)
	f = Front{rest.Address(w.family.bytes()), w.set.protocol(), rest.Port()}
	return w.fronts[f], f, rest.Number()
}

// endpointsOf are the elements of a map of endpoints, whose numbers are as good as they
// were found.
type endpointsOf struct{ wanted }

// Adopt implements [nft.Adopter]: endpoints get the numbers that an earlier process has
// given them. To it they came in another order, and else a start would write again what
// is as good as it is.
func (w endpointsOf) Adopt(wrong []nft.Element) bool {
	found := map[*roster]map[uint32]netip.AddrPort{} // all fronts of a port are to have the same
	for _, e := range wrong {
		t, _, index := w.endpoint(e.Key)
		if t == nil {
			continue
		}
		if r, number := t.numbered(index); r != nil {
			if found[r] == nil {
				found[r] = map[uint32]netip.AddrPort{}
			}
			value := nft.Fields(e.Value)
			found[r][number] = netip.AddrPortFrom(value.Address(w.family.bytes()), value.Port())
		}
	}
	for r, have := range found {
		r.adopt(have)
	}
	return len(found) > 0
}

// Counts returns how many elements each set is to have, both families together,
// by the set's name, and how many rules there are.
func (r *Ruleset) Counts() (elements map[string]int, rules int) {
	elements = map[string]int{}
	for _, t := range r.tables() {
		for _, s := range t.Sets {
			if s.Elements != nil {
				elements[s.Name] += s.Elements.Len()
			}
		}
		for _, c := range t.Chains {
			rules += len(c.Rules)
		}
	}
	return elements, rules
}

// Fronts returns a copy of where every front leads.
func (r *Ruleset) Fronts() map[Front]*Target { return maps.Clone(r.fronts) }
