package policy

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/flatnet-cni/flatnet/pkg/nft"
)

// Summary is how policies are kept.
type Summary struct {
	Policies int `json:"policies"` // of the cluster
	Selected int `json:"selected"` // that select pods of this node
	Pods     int `json:"pods"`     // of this node
	Isolated int `json:"isolated"` // of these, that a policy selects
	// Unknown are pods of this node that the API server has not told of.
	Unknown []string `json:"unknown,omitempty"`
	Sets    int      `json:"sets"`   // of peers
	Chains  int      `json:"chains"` // of pods with the same policies
	Ended   uint64   `json:"ended"`  // connections that a change has put an end to
	Synced  bool     `json:"synced"`
	Failure string   `json:"failure,omitempty"`
	// Lacks are what of the policies is not in force here, as of the last comparison.
	Lacks []Lack `json:"lacks,omitempty"`
	// Faults are what is wrong with policies, by their names.
	Faults []Fault `json:"faults,omitempty"`
}

// Fault is what is wrong with a policy, or what it is for nothing.
type Fault struct {
	Policy string `json:"policy"`
	Fault  string `json:"fault"`
}

// Summary returns how policies are kept. It may be called from any goroutine.
func (c *Controller) Summary() Summary { return *c.summary.Load() }

func (c *Controller) summarize(err error) {
	s := Summary{Policies: len(c.world.policies), Pods: len(c.world.attached), Ended: c.endedFlows.Load(), Lacks: c.lacking, Synced: err == nil}
	if err != nil {
		s.Failure = strings.ReplaceAll(err.Error(), "\n", "; ")
	}
	if c.plan != nil {
		selected := map[*Policy]bool{}
		for _, policies := range c.plan.of {
			isolated := false
			for _, d := range Directions {
				for _, p := range policies[d] {
					selected[p], isolated = true, true
				}
			}
			if isolated {
				s.Isolated++
			}
		}
		s.Selected, s.Chains = len(selected), len(c.plan.chains)
		for _, t := range c.plan.whole {
			for _, one := range t.Sets {
				if _, is := one.Elements.(keySet); is {
					s.Sets++
				}
			}
		}
	}
	for name := range c.world.attached {
		if c.world.here(name) == nil {
			s.Unknown = append(s.Unknown, name.String())
		}
	}
	slices.Sort(s.Unknown)
	for _, p := range c.world.policies {
		for _, fault := range p.Faults {
			s.Faults = append(s.Faults, Fault{fmt.Sprintf("%s %s", p.kind(), p.Name), fault})
		}
	}
	slices.SortFunc(s.Faults, func(a, b Fault) int { return strings.Compare(a.Policy+a.Fault, b.Policy+b.Fault) })
	c.summary.Store(&s)
}

// PodStatus is what policies come to for a pod of this node.
type PodStatus struct {
	Pod       string       `json:"pod"`
	Addresses []netip.Addr `json:"addresses"`
	Known     bool         `json:"known"` // the API server has told of it
	Sides     []SideStatus `json:"directions"`
}

// SideStatus is what policies come to in a direction.
type SideStatus struct {
	Direction string   `json:"direction"`
	Policies  []string `json:"policies"` // that select the pod
	Isolated  bool     `json:"isolated"` // what none allows is refused
	Allows    []string `json:"allows"`   // and refuses, in the order in which it is asked
	Refused   uint64   `json:"refused"`  // packets
}

// Idle returns the policies that do nothing, or less than they say.
func (c *Controller) Idle(ctx context.Context) (all []Fault, err error) {
	err = c.do(ctx, func() { all = c.world.idle() })
	return all, err
}

// Status is what policies come to for each pod of this node.
func (c *Controller) Status(ctx context.Context) (all []PodStatus, err error) {
	failed := c.do(ctx, func() {
		var refused map[Direction]map[netip.Addr]uint64
		if refused, err = c.refusals(); err == nil && c.plan != nil {
			all = c.statusOf(refused)
		}
	})
	if failed != nil {
		return nil, failed
	}
	return all, err
}

// Early is how many packets were refused of pods whose rules were not in place yet, by
// direction.
func (c *Controller) Early(ctx context.Context) (packets [len(Directions)]uint64, err error) {
	if c.Gate == nil {
		return packets, nil
	}
	failed := c.do(ctx, func() { packets, err = c.Gate.Refused() })
	return packets, cmp.Or(failed, err)
}

func (c *Controller) statusOf(refused map[Direction]map[netip.Addr]uint64) (all []PodStatus) {
	for _, name := range slices.SortedFunc(maps.Keys(c.world.attached), func(a, b Name) int { return strings.Compare(a.String(), b.String()) }) {
		s := PodStatus{Pod: name.String(), Addresses: c.world.attached[name].Addresses, Known: c.world.here(name) != nil}
		for _, d := range Directions {
			side := SideStatus{Direction: d.String(), Policies: []string{}, Allows: []string{}}
			for _, p := range c.plan.of[name][d] {
				side.Policies = append(side.Policies, fmt.Sprintf("%s %s", p.kind(), p.Name))
				side.Isolated = side.Isolated || p.Isolates[d]
				for _, r := range p.Rules[d] {
					side.Allows = append(side.Allows, r.text(d))
				}
			}
			if !s.Known {
				side.Isolated = c.world.closed(name.Namespace)[d]
			}
			for _, a := range s.Addresses {
				side.Refused += refused[d][a]
			}
			s.Sides = append(s.Sides, side)
		}
		all = append(all, s)
	}
	return all
}

// text says what a rule comes to.
func (r *Rule) text(d Direction) string {
	var peers, ports []string
	for _, s := range r.Peers {
		peers = append(peers, keyOf(s, "", 0).String())
	}
	for _, b := range r.Blocks {
		text := b.CIDR.String()
		if len(b.Except) > 0 {
			text += fmt.Sprintf(" but not %v", b.Except)
		}
		peers = append(peers, text)
	}
	for _, s := range r.Nodes {
		peers = append(peers, nodesText(s))
	}
	if r.AnyPeer {
		peers = []string{"anybody"}
	}
	if len(peers) == 0 {
		peers = []string{"nobody"}
	}
	for _, p := range r.Ports {
		switch {
		case p.Name != "":
			ports = append(ports, fmt.Sprintf("%s/%s", p.Name, p.Protocol))
		case p.First == 0 && p.Last == 65535:
			ports = append(ports, p.Protocol.String())
		case p.First == p.Last:
			ports = append(ports, fmt.Sprintf("%d/%s", p.First, p.Protocol))
		default:
			ports = append(ports, fmt.Sprintf("%d-%d/%s", p.First, p.Last, p.Protocol))
		}
	}
	if r.AnyPort {
		ports = []string{"everything"}
	}
	if len(ports) == 0 {
		ports = []string{"nothing"}
	}
	return fmt.Sprintf("%s %s %s: %s", r.Action, [...]string{"from", "to"}[d], strings.Join(peers, ", "), strings.Join(ports, ", "))
}

// forgetCounters removes those of addresses that no pod of this node has any more: the
// next pod that has one begins at nothing.
func (c *Controller) forgetCounters() error {
	for _, s := range sides {
		var gone []nft.Element
		err := nft.Steadily(readings, func() error {
			gone = nil
			return c.keeper.Elements(tableID, refusedSet(s), func(e nft.Element) {
				a, _ := netip.AddrFromSlice([]byte(e.Key))
				if _, here := c.world.holder[a]; !here {
					gone = append(gone, nft.Element{Key: e.Key})
				}
			})
		})
		if err == nil && len(gone) > 0 {
			err = c.keeper.Delete(tableID, refusedSet(s), gone)
		}
		if err != nil && !notThere(err) {
			return fmt.Errorf("removing counters of pods that are gone: %w", err)
		}
	}
	return nil
}

// refusals reads how many packets were refused, by the pod's address.
func (c *Controller) refusals() (map[Direction]map[netip.Addr]uint64, error) {
	all := map[Direction]map[netip.Addr]uint64{Ingress: {}, Egress: {}}
	for _, s := range sides {
		err := nft.Steadily(readings, func() error {
			return c.keeper.Elements(tableID, refusedSet(s), func(e nft.Element) {
				if a, ok := netip.AddrFromSlice([]byte(e.Key)); ok {
					all[s.direction][a] = e.Packets // an address is of one family, and so of one side
				}
			})
		})
		if err != nil && !notThere(err) {
			return nil, fmt.Errorf("reading the counters of policies: %w", err)
		}
	}
	return all, nil
}
