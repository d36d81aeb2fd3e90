package service

import (
	"maps"
	"net/netip"
	"slices"
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

// changes are what may differ since they were last taken.
type changes struct {
	node   bool
	fronts map[Front]struct{}
	shared map[element]struct{}
	chains map[tableChain]struct{}
}

func newChanges() changes {
	return changes{fronts: map[Front]struct{}{}, shared: map[element]struct{}{}, chains: map[tableChain]struct{}{}}
}

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
	r.changed.fronts[f] = struct{}{}
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
	r.changed.shared[e] = struct{}{}
	if r.shared[e] += by; r.shared[e] == 0 {
		delete(r.shared, e)
	}
}

// count notes that a target needs what it shares with others, or no longer does.
func (r *Ruleset) count(f Front, t *Target, by int) {
	t.shared(f, func(e element) { r.need(e, by) })
	t.chains(func(c chainRef) {
		at := tableChain{familyOf(f.Address), c}
		r.changed.chains[at] = struct{}{}
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

// constant are the elements that only the node decides.
func (n Node) constant(f family, yield func(element)) {
	for _, p := range n.own(f) {
		yield(element{set: setOwn, key: key{prefix: p}})
	}
	var cidrs []netip.Prefix
	for _, p := range n.ServiceCIDRs {
		if f.owns(p.Addr()) {
			cidrs = append(cidrs, p.Masked())
		}
	}
	for _, p := range disjoint(cidrs) {
		yield(element{set: setServiceCIDRs, key: key{prefix: p}})
	}
}

// family returns the table that an element is in.
func (e element) family() family {
	if e.set.schema().shape == shapePrefix {
		return familyOf(e.key.prefix.Addr())
	}
	return familyOf(e.key.front.Address)
}

// lookup answers which elements are wanted.
type lookup struct {
	*Ruleset
	sharedValues map[setKey]value
}

// setKey is an element without its value.
type setKey struct {
	set setID
	key key
}

func (r *Ruleset) lookup() lookup {
	l := lookup{r, make(map[setKey]value, len(r.shared))}
	for e := range r.shared {
		l.sharedValues[setKey{e.set, e.key}] = e.value
	}
	return l
}

// want returns the value that an element with a key is to have, and whether there
// is to be one. Sets of prefixes are not asked for.
func (l lookup) want(s setID, k key) (v value, wanted bool) {
	switch s {
	case setClusterIPs, setHairpin, setRemember:
		v, wanted = l.sharedValues[setKey{s, k}]
		return v, wanted
	}
	t := l.fronts[k.front]
	if t == nil {
		return v, false
	}
	switch s {
	case setServices:
		return value{verdict: t.dispatch()}, true
	case setInside:
		return value{verdict: t.inside()}, t.split()
	case setOutside:
		return value{verdict: t.outside()}, t.split()
	case setFiltered:
		return value{verdict: t.admitted()}, len(t.sources) > 0
	case setSourcesTCP, setSourcesUDP, setSourcesSCTP:
		return v, slices.Contains(t.sources, k.prefix)
	case setExternal:
		return v, t.Kind != ClusterIP
	case setIDs:
		return value{mark: t.id}, t.affinity > 0
	}
	v.at, wanted = t.endpoint(k.index)
	return v, wanted
}

// element is a wanted element with what people are told about it.
func (l lookup) element(s setID, k key, v value) element {
	e := element{set: s, key: k, value: v}
	if s == setServices {
		e.comment = l.fronts[k.front].comment()
	}
	return e
}

// each calls yield for every element of one table.
func (r *Ruleset) each(f family, yield func(element)) {
	r.node.constant(f, yield)
	for e := range r.shared {
		if e.family() == f {
			yield(e)
		}
	}
	for front, t := range r.fronts {
		if f.owns(front.Address) {
			t.elements(front, yield)
		}
	}
}

// Counts returns how many elements each set is to have, both families together,
// by the set's name, and how many rules there are.
func (r *Ruleset) Counts() (elements map[string]int, rules int) {
	elements = map[string]int{}
	note := func(e element) { elements[e.set.schema().name]++ }
	for _, f := range r.families() {
		r.each(f, note)
		for _, c := range f.skeleton() {
			rules += len(c.rules)
		}
	}
	for c := range r.chains {
		rules += len(c.chain(c.family).rules)
	}
	return elements, rules
}

// Fronts returns a copy of where every front leads.
func (r *Ruleset) Fronts() map[Front]*Target { return maps.Clone(r.fronts) }
