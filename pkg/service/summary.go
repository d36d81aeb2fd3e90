package service

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Summary is how the balancing is, in a few words.
type Summary struct {
	Services  int  `json:"services"`  // that are balanced
	Fronts    int  `json:"fronts"`    // addresses and ports by which they are reached
	Conflicts int  `json:"conflicts"` // fronts that several Services claim
	Synced    bool `json:"synced"`    // the rules are what is wanted
	// Updated is when a sync last succeeded; zero if none has.
	Updated time.Time `json:"updated,omitzero"`
	// Failure is why the rules are not what is wanted; empty while nobody has
	// tried.
	Failure string `json:"failure,omitempty"`
	// Refused is what Services have to do without, because the kernel refuses rules.
	Refused []string `json:"refused,omitempty"`
	// Unheard are the addresses where load balancers would ask for a Service's
	// health, and that cannot be listened on.
	Unheard []string `json:"unheard,omitempty"`
	// ClusterIPs are one of each family, where there are any.
	ClusterIPs []netip.Addr `json:"-"`
}

// equal reports whether nothing differs but numbers of Services.
func (s Summary) equal(o Summary) bool {
	return s.Conflicts == o.Conflicts && s.Synced == o.Synced && s.Failure == o.Failure && slices.Equal(s.Unheard, o.Unheard) && slices.Equal(s.Refused, o.Refused) &&
		(s.Services == 0) == (o.Services == 0)
}

// Summary returns how the balancing is. It does not wait.
func (c *Controller) Summary() Summary {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.summary
}

// summarize notes how the last sync went, and says so where that matters.
func (c *Controller) summarize() {
	o := c.last
	s := Summary{Services: o.Services, Fronts: o.Fronts, Conflicts: o.Conflicts, Synced: o.Err == nil}
	if o.Err != nil {
		s.Failure = o.Err.Error()
	}
	for _, r := range o.Refused {
		s.Refused = append(s.Refused, r.String())
	}
	for k := range c.health.failed {
		s.Unheard = append(s.Unheard, fmt.Sprintf("%s of %s", k.at, k.service))
	}
	slices.SortFunc(s.Unheard, strings.Compare)
	c.mu.Lock()
	before := c.summary
	if s.Updated = before.Updated; o.Err == nil && !o.at.IsZero() {
		s.Updated = o.at
	}
	s.ClusterIPs = before.ClusterIPs
	if o.compared || len(s.ClusterIPs) == 0 {
		s.ClusterIPs = c.planner.someClusterIPs()
	}
	c.summary = s
	c.mu.Unlock()
	if c.Changed != nil && !s.equal(before) {
		c.Changed()
	}
}

// someClusterIPs returns one ClusterIP of each family, where there are any.
func (p *Planner) someClusterIPs() []netip.Addr {
	var some [len(families)]netip.Addr
	for f, t := range p.ruleset.fronts {
		if t.Kind == ClusterIP {
			some[familyOf(f.Address)] = f.Address
		}
		if !slices.ContainsFunc(some[:], func(a netip.Addr) bool { return !a.IsValid() }) {
			break
		}
	}
	return slices.DeleteFunc(some[:], func(a netip.Addr) bool { return !a.IsValid() })
}
