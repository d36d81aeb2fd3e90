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
// changed. Whatever came before, the result is that of [Plan], but for which endpoint
// of a port has which number; see [roster]. It belongs to one goroutine.
type Planner struct {
	node     Node
	services map[Name]*planned
	// checked are the Services of which load balancers ask whether the node has
	// endpoints, and how many are ready.
	checked map[Name]int
	ruleset *Ruleset
	ids     map[PortName]uint32
	// losers are the targets of fronts that a better one has.
	losers map[Front][]*Target
}

// planned is a Service with the fronts that it claims.
type planned struct {
	service Service
	choices []*choice
	claims  []claim // sorted by front
}

// claim is a front that a Service asks for.
type claim struct {
	front  Front
	target *Target
}

// NewPlanner begins without Services.
func NewPlanner(n Node) *Planner {
	return &Planner{
		node: n, services: map[Name]*planned{}, checked: map[Name]int{}, ruleset: newRuleset(n),
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
	for _, s := range p.services {
		p.choose(s)
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
	before := known.service
	known.service = s
	p.advance(known, &before)
	if !slices.Equal(stickyPorts(&before), stickyPorts(&s)) {
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
	known.service.Ports, known.service.HealthCheckPort = nil, 0
	p.choose(known)
	p.claim(known)
	delete(p.services, name)
	if len(sticky) > 0 {
		p.assign()
	}
}

// choose picks the endpoints of a Service's ports again.
func (p *Planner) choose(s *planned) {
	p.eachChoice(s, func(at portOf, before *choice) *choice { return choose(&s.service, at, &p.node, before) })
}

// advance picks the endpoints of a Service's ports after the Service has changed, by
// what has changed.
func (p *Planner) advance(s *planned, before *Service) {
	changed := changedSlices(before.Slices, s.service.Slices)
	p.eachChoice(s, func(at portOf, c *choice) *choice {
		if c == nil {
			return choose(&s.service, at, &p.node, nil)
		}
		return c.advance(before, &s.service, changed, &p.node)
	})
}

// eachChoice makes the choices of a Service's ports from those that they had; nil is none.
func (p *Planner) eachChoice(s *planned, make func(at portOf, before *choice) *choice) {
	before := s.choices
	s.choices = nil
	for _, port := range s.service.Ports {
		for _, f := range families {
			at := portOf{port.Name, port.Protocol, f}
			if slices.ContainsFunc(s.service.ClusterIPs, f.owns) && p.node.has(f) && s.choice(at) == nil {
				s.choices = append(s.choices, make(at, choiceOf(before, at)))
			}
		}
	}
	if delete(p.checked, s.service.Name); s.service.HealthCheckPort != 0 {
		p.checked[s.service.Name] = localReady(&s.service, &p.node)
	}
}

// choice returns the endpoints of a port; nil if there is no such port.
func (s *planned) choice(at portOf) *choice { return choiceOf(s.choices, at) }

func choiceOf(all []*choice, at portOf) *choice {
	if i := slices.IndexFunc(all, func(c *choice) bool { return c.portOf == at }); i >= 0 {
		return all[i]
	}
	return nil
}

// claim computes the fronts of a Service again.
func (p *Planner) claim(s *planned) {
	before := s.claims
	s.claims = nil
	targetsOf(&s.service, &p.node, s.choice, func(n PortName) uint32 { return p.ids[n] }, func(f Front, t *Target) {
		s.claims = append(s.claims, claim{f, t})
	})
	byFront := func(a, b *claim) int { return a.front.Compare(b.front) }
	// The first of its own claims has a front, as of those of others.
	slices.SortStableFunc(s.claims, func(a, b claim) int { return cmp.Or(byFront(&a, &b), p.compare(a.target, b.target)) })
	s.claims = slices.CompactFunc(s.claims, func(a, b claim) bool { return a.front == b.front })
	pair(before, s.claims, byFront, func(b, a *claim) {
		switch {
		case a == nil:
			p.withdraw(b.front, b.target)
		case b == nil:
			p.contend(a.front, a.target)
		case b.target.equal(a.target):
			a.target = b.target
		case p.ruleset.fronts[b.front] == b.target && p.losers[b.front] == nil:
			p.ruleset.set(b.front, a.target)
		default:
			p.withdraw(b.front, b.target)
			p.contend(a.front, a.target)
		}
	})
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
