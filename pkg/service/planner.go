package service

import (
	"cmp"
	"hash/fnv"
	"maps"
	"slices"
)

// Plan computes the ruleset from scratch. It is a pure function.
func Plan(n Node, services []Service) *Ruleset {
	p := NewPlanner(n)
	for _, s := range services {
		p.Set(s)
	}
	return p.Ruleset()
}

// Planner computes the ruleset again with each change, at the cost of what has
// changed. Whatever came before, the result is that of [Plan]. It belongs to one
// goroutine.
type Planner struct {
	node     Node
	services map[Name]*planned
	ruleset  *Ruleset
	ids      map[PortName]uint32
	// losers are the targets of fronts that a better one has.
	losers map[Front][]*Target
}

// planned is a Service with the fronts that it claims.
type planned struct {
	service Service
	claims  map[Front]*Target
}

// NewPlanner begins without Services.
func NewPlanner(n Node) *Planner {
	return &Planner{
		node: n, services: map[Name]*planned{}, ruleset: newRuleset(n),
		ids: map[PortName]uint32{}, losers: map[Front][]*Target{},
	}
}

// Ruleset returns the ruleset, which changes with the planner.
func (p *Planner) Ruleset() *Ruleset { return p.ruleset }

// Services returns how many Services there are.
func (p *Planner) Services() int { return len(p.services) }

// SetNode replaces the facts about the node.
func (p *Planner) SetNode(n Node) {
	if p.node.Equal(n) {
		return
	}
	p.node = n
	p.ruleset.node = n
	p.ruleset.changed.node = true
	for _, s := range p.services {
		p.claim(s)
	}
}

// Set adds a Service, or replaces the one of its name.
func (p *Planner) Set(s Service) {
	known, found := p.services[s.Name]
	if found && !known.service.Created.Equal(s.Created) {
		// Another one of the same name: its claims are younger.
		p.Delete(s.Name)
		found = false
	}
	if !found {
		known = &planned{}
		p.services[s.Name] = known
	}
	before := stickyPorts(&known.service)
	known.service = s
	if !slices.Equal(before, stickyPorts(&s)) {
		p.assign()
	}
	p.claim(known)
}

// Delete removes a Service; it is no error if there is none of the name.
func (p *Planner) Delete(name Name) {
	known, found := p.services[name]
	if !found {
		return
	}
	sticky := stickyPorts(&known.service)
	known.service.Ports = nil
	p.claim(known)
	delete(p.services, name)
	if len(sticky) > 0 {
		p.assign()
	}
}

// claim computes the fronts of a Service again.
func (p *Planner) claim(s *planned) {
	before := s.claims
	s.claims = make(map[Front]*Target, len(before))
	targetsOf(&s.service, &p.node, func(n PortName) uint32 { return p.ids[n] }, func(f Front, t *Target) {
		// The first of its own claims has it, as of those of others.
		if have, twice := s.claims[f]; twice && p.compare(have, t) <= 0 {
			return
		}
		if old := before[f]; old != nil && old.equal(t) {
			t = old
		}
		s.claims[f] = t
	})
	for f, old := range before {
		if s.claims[f] != old {
			p.withdraw(f, old)
		}
	}
	for f, t := range s.claims {
		if before[f] != t {
			p.contend(f, t)
		}
	}
}

// contend gives a front to the better of its claimants.
func (p *Planner) contend(f Front, t *Target) {
	holder := p.ruleset.fronts[f]
	switch {
	case holder == nil:
	case p.compare(holder, t) <= 0:
		p.losers[f] = append(p.losers[f], t)
		return
	default:
		p.losers[f] = append(p.losers[f], holder)
	}
	p.ruleset.set(f, t)
}

// withdraw takes a claim back; the next best has the front.
func (p *Planner) withdraw(f Front, t *Target) {
	losers := p.losers[f]
	if p.ruleset.fronts[f] != t {
		losers = slices.DeleteFunc(losers, func(l *Target) bool { return l == t })
	} else if len(losers) > 0 {
		next := slices.MinFunc(losers, p.compare)
		losers = slices.DeleteFunc(losers, func(l *Target) bool { return l == next })
		p.ruleset.set(f, next)
	} else {
		p.ruleset.set(f, nil)
	}
	if len(losers) == 0 {
		delete(p.losers, f)
	} else {
		p.losers[f] = losers
	}
}

// compare orders claims: the kind that nobody may take away, then the Service
// that was first, then the name.
func (p *Planner) compare(a, b *Target) int {
	if c := cmp.Compare(a.Kind, b.Kind); c != 0 {
		return c
	}
	if a.Name.Service != b.Name.Service {
		x, y := p.services[a.Name.Service], p.services[b.Name.Service]
		if c := x.service.Created.Compare(y.service.Created); c != 0 {
			return c
		}
	}
	return a.Name.Compare(b.Name)
}

// Conflict is a front that more than one port of a Service claims.
type Conflict struct {
	Front  Front
	Holder *Target
	Losers []*Target // sorted
}

// Conflicts returns all conflicts, sorted by front.
func (p *Planner) Conflicts() []Conflict {
	var all []Conflict
	for _, f := range slices.SortedFunc(maps.Keys(p.losers), Front.Compare) {
		losers := slices.Clone(p.losers[f])
		slices.SortFunc(losers, p.compare)
		all = append(all, Conflict{f, p.ruleset.fronts[f], losers})
	}
	return all
}

// stickyPorts returns the names of a Service's ports that need a mark.
func stickyPorts(s *Service) []PortName {
	if s.Affinity == 0 {
		return nil
	}
	var all []PortName
	for _, port := range s.Ports {
		all = append(all, PortName{s.Name, port.Name, port.Protocol})
	}
	return all
}

// assign gives a mark to every port with session affinity. The marks depend on
// the names only, and so they are the same after a restart, when the kernel still
// remembers clients by them. Of two names that come to the same mark the second
// takes another.
func (p *Planner) assign() {
	var names []PortName
	for _, s := range p.services {
		names = append(names, stickyPorts(&s.service)...)
	}
	slices.SortFunc(names, PortName.Compare)
	ids := make(map[PortName]uint32, len(names))
	taken := make(map[uint32]bool, len(names))
	for _, n := range names {
		if _, twice := ids[n]; twice {
			continue
		}
		id := affinityID(n, 0)
		for attempt := byte(1); taken[id]; attempt++ {
			id = affinityID(n, attempt)
		}
		taken[id], ids[n] = true, id
	}
	before := p.ids
	p.ids = ids
	for n, id := range ids {
		if old, known := before[n]; known && old != id {
			p.claim(p.services[n.Service])
		}
	}
}

// affinityID is the conntrack mark of connections to a port with session
// affinity: 24 bits of a hash. The bits 0x0000f000 stay clear, since marks of
// connections are here and there copied to packets, where kube-proxy's 0x4000
// and portmap's 0x2000 mean something; 0x70000000 is always set, so that
// it is never 0 and rarely anybody else's.
func affinityID(n PortName, attempt byte) uint32 {
	h := fnv.New64a()
	for _, part := range []string{n.Service.Namespace, n.Service.Name, n.Port} {
		h.Write([]byte(part))
		h.Write([]byte{0})
	}
	h.Write([]byte{byte(n.Protocol), attempt})
	sum := h.Sum64()
	bits := uint32(sum ^ sum>>24 ^ sum>>48)
	return 0x70000000 | bits&0xfff000<<4 | bits&0xfff
}
