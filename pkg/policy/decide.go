package policy

import (
	"fmt"
	"net/netip"
)

// Decision is what the policies of one end say of a connection.
type Decision struct {
	Pod       string     `json:"pod"`
	Address   netip.Addr `json:"address"` // of the pod's
	Direction string     `json:"direction"`
	Allowed   bool       `json:"allowed"`
	Because   string     `json:"because"`
	Policies  []string   `json:"policies,omitempty"` // that select the pod in this direction
}

// decide says what the policies of a pod of this node say of a connection. The far end
// is the destination for [Egress] and the source for [Ingress]; the port is the
// destination's, and 0 where the protocol has none.
func (p *plan) decide(w *world, name Name, d Direction, far netip.Addr, protocol Protocol, port uint16) Decision {
	r := Decision{Pod: name.String(), Direction: d.String()}
	pod := w.here(name)
	if pod == nil {
		r.Allowed = !w.closed(name.Namespace)[d]
		r.Because = "nothing is known of the pod yet, and no policy can select it"
		if !r.Allowed {
			r.Because = "nothing is known of the pod yet, and a policy may select it"
		}
		return r
	}
	policies := p.of[name][d]
	isolated := false
	for _, one := range policies {
		r.Policies = append(r.Policies, fmt.Sprintf("%s %s", one.kind(), one.Name))
		isolated = isolated || one.Isolates[d]
	}
	by, passed := p.ask(pod, policies, Admin, d, far, protocol, port)
	if by == nil || passed {
		tier := Baseline
		if isolated {
			tier = Network
		}
		by, passed = p.ask(pod, policies, tier, d, far, protocol, port)
	}
	switch {
	case by != nil && !passed:
		r.Allowed, r.Because = by.Action == Accept, by.String()
	case isolated && by == nil:
		r.Because = "no policy that selects the pod allows it"
	default:
		r.Allowed, r.Because = true, "no policy is about it"
	}
	return r
}

// ask returns the first rule of a tier that decides; passed says that it leaves the
// decision to the next tier.
func (p *plan) ask(pod *Pod, policies []*Policy, tier Tier, d Direction, far netip.Addr, protocol Protocol, port uint16) (by *compiled, passed bool) {
	for _, one := range policies {
		if one.Tier != tier {
			continue
		}
		for _, c := range p.rules[d][one] {
			if c.matches(pod, far, protocol, port) {
				return c, c.Action == Pass
			}
		}
	}
	return nil, false
}

// judge says whether a connection may be, as far as this node's pods have a say.
func (p *plan) judge(w *world, from, to netip.Addr, protocol Protocol, port uint16) []Decision {
	var all []Decision
	if from == to {
		return nil
	}
	for _, end := range []struct {
		d         Direction
		near, far netip.Addr
	}{{Egress, from, to}, {Ingress, to, from}} {
		if name, here := w.holder[end.near]; here {
			d := p.decide(w, name, end.d, end.far, protocol, port)
			d.Address = end.near
			all = append(all, d)
		}
	}
	return all
}

// refuses reports whether one of this node's pods' policies refuse a connection.
func (p *plan) refuses(w *world, from, to netip.Addr, protocol Protocol, port uint16) bool {
	for _, d := range p.judge(w, from, to, protocol, port) {
		if !d.Allowed {
			return true
		}
	}
	return false
}
