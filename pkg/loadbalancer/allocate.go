package loadbalancer

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Decision is what a Service is to have.
type Decision struct {
	Service *Service
	// Addresses are all that its status is to have, in the order of its families.
	Addresses []netip.Addr
	// Waits says why it does not have all that it should; empty where it has.
	Waits string
	// Lost says why it no longer has an address that it had.
	Lost []string
}

// Changes reports whether the status is to be another one.
func (d Decision) Changes() bool { return !slices.Equal(d.Addresses, d.Service.Held) }

// Allocate decides which addresses Services have, by what they have. Nothing else is
// remembered: another agent, later, comes to the same.
//
// Who has an address keeps it, unless it is no longer allowed to. Of two that have the
// same one and cannot share it, the older keeps it. What somebody is to give back is
// nobody else's before it is given back: that takes two decisions, with the writing of
// the first one in between. So two never have an address, whatever is written
// first, or not at all.
func Allocate(c *Config, all []*Service) []Decision {
	all = slices.Clone(all)
	slices.SortFunc(all, func(a, b *Service) int {
		if by := a.Created.Compare(b.Created); by != 0 {
			return by
		}
		return a.Name.Compare(b.Name)
	})
	a := allocation{config: c, holders: map[netip.Addr][]*Service{}, foreign: map[netip.Addr]string{}, leaving: map[netip.Addr]string{}, shared: map[string][]netip.Addr{}, next: map[Range]netip.Addr{}}
	decisions := make([]Decision, 0, len(all))
	for _, s := range all {
		switch {
		case c.Ours(s):
			decisions = append(decisions, Decision{Service: s})
		case s.LoadBalancer:
			// Somebody else gave them, and is responsible.
			for _, ip := range s.Held {
				a.foreign[ip] = s.Name.String() + " of another load balancer's class has it"
			}
		case slices.ContainsFunc(s.Held, func(ip netip.Addr) bool { return c.Pool(ip) != nil }):
			d := Decision{Service: s, Lost: []string{"it is no longer of type LoadBalancer"}}
			for _, ip := range s.Held {
				a.leaving[ip] = s.Name.String() + " is giving it back"
			}
			decisions = append(decisions, d)
		}
	}
	for i := range decisions {
		if s := decisions[i].Service; c.Ours(s) {
			a.keep(&decisions[i])
		}
	}
	for i := range decisions {
		if s := decisions[i].Service; c.Ours(s) {
			a.give(&decisions[i])
		}
	}
	return decisions
}

// allocation is what Allocate knows so far.
type allocation struct {
	config  *Config
	holders map[netip.Addr][]*Service
	foreign map[netip.Addr]string   // nobody gets these, because
	leaving map[netip.Addr]string   // nobody else gets these yet, because
	shared  map[string][]netip.Addr // by the key of those who share
	next    map[Range]netip.Addr    // where the search for a free one goes on
}

// hold notes that a Service has an address.
func (a *allocation) hold(s *Service, ip netip.Addr) {
	a.holders[ip] = append(a.holders[ip], s)
	if s.ShareKey != "" && !slices.Contains(a.shared[s.ShareKey], ip) {
		a.shared[s.ShareKey] = append(a.shared[s.ShareKey], ip)
	}
}

// keep leaves a Service what it has, as far as it may have it.
func (a *allocation) keep(d *Decision) {
	s := d.Service
	kept := map[Family]netip.Addr{}
	for _, ip := range s.Held {
		reason := a.refusal(s, ip)
		if other, is := kept[familyOf(ip)]; reason == "" && is {
			reason = fmt.Sprintf("the Service has %s already", other)
		}
		if reason == "" {
			kept[familyOf(ip)] = ip
			continue
		}
		d.Lost = append(d.Lost, fmt.Sprintf("%s: %s", ip, reason))
	}
	for _, ip := range kept {
		a.hold(s, ip)
	}
	for _, ip := range s.Held {
		if kept[familyOf(ip)] != ip && len(a.holders[ip]) == 0 {
			a.leaving[ip] = s.Name.String() + " is giving it back"
		}
	}
	d.Addresses = s.ordered(kept)
}

// ordered returns addresses in the order of the Service's families.
func (s *Service) ordered(by map[Family]netip.Addr) (all []netip.Addr) {
	for _, f := range s.Families {
		if ip, is := by[f]; is {
			all = append(all, ip)
		}
	}
	return all
}

// refusal says why a Service may not have an address; nothing where it may.
func (a *allocation) refusal(s *Service, ip netip.Addr) string {
	pool := a.config.Pool(ip)
	switch {
	case pool == nil:
		return "it is in no pool"
	case !pool.Admits(s):
		return fmt.Sprintf("pool %s is not for the Service: compare its namespace and labels with the pool's", pool.Name)
	case !slices.Contains(s.Families, familyOf(ip)):
		return fmt.Sprintf("the Service does not have %s", familyOf(ip))
	case len(s.Wanted) > 0 && !slices.Contains(s.Wanted, ip):
		return "the Service asks for another address"
	case len(s.Wanted) == 0 && s.Pool != "" && pool.Name != s.Pool:
		return fmt.Sprintf("the Service asks for pool %s", s.Pool)
	case a.foreign[ip] != "":
		return a.foreign[ip]
	}
	for _, other := range a.holders[ip] {
		if reason := s.conflict(other); reason != "" {
			return reason
		}
	}
	return ""
}

// newly says why a Service may not get an address that it does not have.
func (a *allocation) newly(s *Service, ip netip.Addr) string {
	if reason := a.refusal(s, ip); reason != "" {
		return reason
	}
	return a.leaving[ip]
}

// conflict says why two Services cannot have the same address; nothing where they can.
func (s *Service) conflict(o *Service) string {
	switch {
	case o.Name == s.Name:
		return ""
	case s.ShareKey == "" || o.ShareKey == "":
		return fmt.Sprintf("Service %s has it, and not both have the annotation %s", o.Name, AnnotationShare)
	case s.ShareKey != o.ShareKey:
		return fmt.Sprintf("Service %s has it, and its annotation %s is another one", o.Name, AnnotationShare)
	case s.Backend != o.Backend:
		return fmt.Sprintf("Service %s has it: with externalTrafficPolicy Local, both have to be Local and select the same pods", o.Name)
	}
	for _, p := range s.Ports {
		if slices.Contains(o.Ports, p) {
			return fmt.Sprintf("Service %s has it, with port %d/%s", o.Name, p.Number, p.Protocol)
		}
	}
	return ""
}

// give gives a Service what it lacks.
func (a *allocation) give(d *Decision) {
	s := d.Service
	if s.Unread != "" {
		d.Waits = s.Unread
		return
	}
	has := map[Family]netip.Addr{}
	for _, ip := range d.Addresses {
		has[familyOf(ip)] = ip
	}
	found := map[Family]netip.Addr{}
	var waits []string
	for i, f := range s.Families {
		if _, is := has[f]; is {
			continue
		}
		ip, reason, possible := a.find(s, f)
		switch {
		case reason == "":
			found[f] = ip
		case s.Required || possible || i == len(s.Families)-1 && len(has)+len(found) == 0:
			waits = append(waits, fmt.Sprintf("%s: %s", f, reason))
		}
	}
	d.Waits = strings.Join(waits, "; ")
	if s.Required && len(waits) > 0 {
		return // it is to have both or none
	}
	for f, ip := range found {
		has[f] = ip
		a.hold(s, ip)
	}
	d.Addresses = s.ordered(has)
}

// find returns an address of a family for a Service, or says why there is none; and
// whether there could be one.
func (a *allocation) find(s *Service, f Family) (ip netip.Addr, reason string, possible bool) {
	if len(s.Wanted) > 0 {
		i := slices.IndexFunc(s.Wanted, func(ip netip.Addr) bool { return familyOf(ip) == f })
		if i < 0 {
			return ip, "the Service asks for addresses of the other family only", false
		}
		if reason := a.newly(s, s.Wanted[i]); reason != "" {
			return ip, fmt.Sprintf("%s, which the Service asks for: %s", s.Wanted[i], reason), true
		}
		return s.Wanted[i], "", true
	}
	if s.Pool != "" && !slices.ContainsFunc(a.config.Pools, func(p Pool) bool { return p.Name == s.Pool }) {
		return ip, fmt.Sprintf("there is no pool %s, which the Service asks for", s.Pool), true
	}
	for _, shared := range a.shared[s.ShareKey] {
		if pool := a.config.Pool(shared); familyOf(shared) == f && pool != nil && (pool.AutoAssign || s.Pool == pool.Name) && a.newly(s, shared) == "" {
			return shared, "", true
		}
	}
	var tried []string
	for i := range a.config.Pools {
		p := &a.config.Pools[i]
		if !p.hasFamily(f) || !p.Admits(s) || s.Pool != "" && p.Name != s.Pool || s.Pool == "" && !p.AutoAssign {
			continue
		}
		tried = append(tried, p.Name)
		for _, r := range p.Ranges {
			if familyOf(r.From) != f {
				continue
			}
			if ip, is := a.free(r); is {
				return ip, "", true
			}
		}
	}
	if len(tried) == 0 {
		return ip, "no pool has such addresses for a Service of its namespace, with its labels", false
	}
	return ip, fmt.Sprintf("all addresses of pool %s are taken", strings.Join(tried, ", ")), true
}

// free returns the first address of a range that nobody has. Those before stay taken for
// as long as Allocate goes on, so they are not looked at again.
func (a *allocation) free(r Range) (netip.Addr, bool) {
	ip, begun := a.next[r]
	if !begun {
		ip = r.From
	}
	for r.Has(ip) {
		if len(a.holders[ip]) == 0 && a.foreign[ip] == "" && a.leaving[ip] == "" {
			a.next[r] = ip
			return ip, true
		}
		ip = ip.Next()
	}
	a.next[r] = ip // which may be none: the range ended with the last address of all
	return ip, false
}
