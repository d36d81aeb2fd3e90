package service

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// Status is what `flatnetd status services -o json` prints.
type Status struct {
	Node      string           `json:"node"`
	Synced    bool             `json:"synced"`           // the rules are what is wanted
	Source    string           `json:"source,omitempty"` // what is wrong with the source
	Ports     []PortStatus     `json:"ports"`            // of all Services
	Conflicts []ConflictStatus `json:"conflicts"`
	Rules     int              `json:"rules"`
	Elements  map[string]int   `json:"elements"` // of sets and maps, both families together
}

// PortStatus is a port of a Service, in one family.
type PortStatus struct {
	Service  string        `json:"service"` // namespace/name
	Port     string        `json:"port"`    // name, if it has one
	Protocol string        `json:"protocol"`
	Family   string        `json:"family"`
	Fronts   []FrontStatus `json:"fronts"`
	// Endpoints are used by policy Cluster, and Local by policy Local.
	Endpoints []netip.AddrPort `json:"endpoints"`
	Local     []netip.AddrPort `json:"local"`
	Affinity  time.Duration    `json:"affinity"` // in nanoseconds; 0: none
}

// FrontStatus is where clients find a port.
type FrontStatus struct {
	Kind    string         `json:"kind"`
	Address netip.AddrPort `json:"address"`
	Policy  string         `json:"policy"` // Cluster or Local
	Sources []netip.Prefix `json:"sources,omitempty"`
	// Leads says where connections go: to endpoints, or that they are refused
	// or dropped.
	Leads string `json:"leads"`
}

// ConflictStatus is an address and port that several Services claim.
type ConflictStatus struct {
	Front  string   `json:"front"`
	Holder string   `json:"holder"`
	Losers []string `json:"losers"`
}

// Status returns what is balanced. It waits for a sync that is going on.
func (c *Controller) Status(ctx context.Context) (Status, error) {
	s := Status{Ports: []PortStatus{}, Conflicts: []ConflictStatus{}, Elements: map[string]int{}}
	if err := c.Source.Check(); err != nil {
		s.Source = err.Error()
	}
	err := c.do(ctx, func() {
		if s.Synced = c.Check() == nil; c.planner != nil {
			c.planner.status(&s)
		}
	})
	return s, err
}

func (p *Planner) status(s *Status) {
	s.Node = p.node.Name
	s.Elements, s.Rules = p.ruleset.Counts()
	type portKey struct {
		name   PortName
		family family
	}
	ports := map[portKey]*PortStatus{}
	for f, t := range p.ruleset.fronts {
		k := portKey{t.Name, familyOf(f.Address)}
		port := ports[k]
		if port == nil {
			port = &PortStatus{
				Service: t.Name.Service.String(), Port: t.Name.Port, Protocol: t.Name.Protocol.String(), Family: k.family.String(),
				Endpoints: t.cluster.sorted(), Local: t.local.sorted(), Affinity: t.affinity,
			}
			ports[k] = port
		}
		port.Fronts = append(port.Fronts, t.status(f))
	}
	keys := slices.SortedFunc(maps.Keys(ports), func(a, b portKey) int {
		if c := a.name.Compare(b.name); c != 0 {
			return c
		}
		return int(a.family) - int(b.family)
	})
	for _, k := range keys {
		port := ports[k]
		slices.SortFunc(port.Fronts, func(a, b FrontStatus) int {
			if c := slices.Index(kindNames, a.Kind) - slices.Index(kindNames, b.Kind); c != 0 {
				return c
			}
			return a.Address.Compare(b.Address)
		})
		s.Ports = append(s.Ports, *port)
	}
	for _, c := range p.Conflicts() {
		conflict := ConflictStatus{Front: c.Front.String(), Holder: c.Holder.Name.String()}
		for _, l := range c.Losers {
			conflict.Losers = append(conflict.Losers, l.Name.String())
		}
		s.Conflicts = append(s.Conflicts, conflict)
	}
}

func (t *Target) status(f Front) FrontStatus {
	s := FrontStatus{Kind: t.Kind.String(), Address: netip.AddrPortFrom(f.Address, f.Port), Policy: "Cluster", Sources: t.sources}
	used := t.cluster
	if t.localOnly {
		s.Policy, used = "Local", t.local
	}
	switch {
	case used.size() > 0:
		s.Leads = "to endpoints"
	case t.exists() && t.Kind != ClusterIP:
		s.Leads = "to endpoints from this node, dropped from outside: the endpoints are on other nodes"
	case t.exists():
		s.Leads = "dropped: the endpoints are on other nodes"
	default:
		s.Leads = "refused: no endpoints"
	}
	return s
}

// Print writes the status for people.
func (s Status) Print(w io.Writer) {
	state := "as wanted"
	if !s.Synced {
		state = "NOT YET as wanted"
	}
	services := map[string]bool{}
	endpoints := map[netip.AddrPort]bool{}
	for _, p := range s.Ports {
		services[p.Service] = true
		for _, e := range p.Endpoints {
			endpoints[e] = true
		}
	}
	fmt.Fprintf(w, "node %s: %d Services with %d endpoints, rules %s (%d rules)\n", s.Node, len(services), len(endpoints), state, s.Rules)
	if s.Source != "" {
		fmt.Fprintln(w, s.Source)
	}
	if len(s.Ports) > 0 {
		fmt.Fprintln(w)
	}
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	if len(s.Ports) > 0 {
		fmt.Fprintln(table, "SERVICE\tADDRESS\tKIND\tPOLICY\tENDPOINTS\tHERE\tAFFINITY\tNOTE")
	}
	for _, p := range s.Ports {
		name := p.Service
		if p.Port != "" {
			name += ":" + p.Port
		}
		affinity := "-"
		if p.Affinity > 0 {
			affinity = p.Affinity.String()
		}
		for _, f := range p.Fronts {
			note := ""
			if f.Leads != "to endpoints" {
				note = f.Leads
			}
			if len(f.Sources) > 0 {
				note = strings.TrimPrefix(note+"; only from "+strings.Trim(fmt.Sprint(f.Sources), "[]"), "; ")
			}
			fmt.Fprintf(table, "%s\t%s/%s\t%s\t%s\t%d\t%d\t%s\t%s\n", name, f.Address, p.Protocol, f.Kind, f.Policy, len(p.Endpoints), len(p.Local), affinity, note)
		}
	}
	table.Flush()
	if len(s.Conflicts) > 0 {
		fmt.Fprintf(w, "\nconflicts: %d\n", len(s.Conflicts))
		for _, c := range s.Conflicts {
			fmt.Fprintf(w, "  - %s leads to %s, and not to %s\n", c.Front, c.Holder, strings.Join(c.Losers, ", "))
		}
	}
}
