package agent

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/flatnet-cni/flatnet/pkg/announce"
	"github.com/flatnet-cni/flatnet/pkg/feature"
	"github.com/flatnet-cni/flatnet/pkg/loadbalancer"
)

// Announcements is what `flatnetd status announcements -o json` prints.
type Announcements struct {
	Node string `json:"node"`
	// Leader is the node whose agent gives addresses; empty while none does.
	Leader string      `json:"leader,omitempty"`
	Pools  []PoolUsage `json:"pools"`
	// Waiting are the Services without all their addresses. Only the leader knows them.
	Waiting []loadbalancer.Waiting `json:"waiting,omitempty"`

	Interfaces []string            `json:"interfaces"` // at which this node answers
	Valid      bool                `json:"valid"`      // it may: its Lease is valid
	Together   bool                `json:"together"`   // it is not, nor is anybody's: all go on as long as they hear each other
	Members    []announce.Member   `json:"members"`    // the nodes that can answer
	Addresses  []announce.Answered `json:"addresses"`
	Conflicts  []announce.Conflict `json:"conflicts,omitempty"`
}

// PoolUsage is how much of a pool is taken.
type PoolUsage struct {
	Pool       string   `json:"pool"`
	Family     string   `json:"family"`
	Ranges     []string `json:"ranges"`
	Size       float64  `json:"size"`
	Given      int      `json:"given"`
	Interfaces []string `json:"interfaces,omitempty"`
}

// poolUsage says how much of each pool is taken, as far as that is known here.
func poolUsage(c *loadbalancer.Config, s loadbalancer.State) (all []PoolUsage) {
	for _, p := range c.Pools {
		for _, f := range []loadbalancer.Family{loadbalancer.IPv4, loadbalancer.IPv6} {
			u := PoolUsage{Pool: p.Name, Family: f.String(), Given: s.InUse[p.Name][f], Interfaces: p.Interfaces}
			for _, r := range p.Ranges {
				if r.From.Is4() == (f == loadbalancer.IPv4) {
					u.Ranges = append(u.Ranges, r.String())
					u.Size += r.Size()
				}
			}
			if u.Size > 0 {
				all = append(all, u)
			}
		}
	}
	return all
}

func (b *balancers) announcements() Announcements {
	s, state := b.announcer.State(), b.controller.State()
	a := Announcements{Node: b.config.NodeName, Leader: b.leaderNode(), Pools: []PoolUsage{}, Waiting: state.Waiting, Interfaces: s.Interfaces, Valid: b.member.Valid(), Together: s.Together, Members: s.Members, Addresses: s.Addresses, Conflicts: s.Conflicts}
	if c := b.pools.Load(); c != nil {
		if !state.Leads {
			state = loadbalancer.CountHeld(c, b.source.Services())
		}
		a.Pools = append(a.Pools, poolUsage(c, state)...)
	}
	return a
}

// leaderNode is the node whose agent gives addresses.
func (b *balancers) leaderNode() string {
	s, _ := b.table.Get(leaderLease)
	node, _, _ := strings.Cut(s.Holder, "/")
	if time.Since(s.At) > 2*leaderDuration {
		return ""
	}
	return node
}

const balancersOff = "no addresses are given to Services by this flatnetd: it runs without --loadbalancer-config"

func (b *balancers) serve(w http.ResponseWriter, _ *http.Request) {
	if !b.on() {
		http.Error(w, balancersOff, http.StatusNotFound)
		return
	}
	answer(w, b.announcements())
}

// Print writes it for people.
func (a Announcements) Print(w io.Writer, now time.Time) {
	leader := a.Leader
	if leader == "" {
		leader = "no agent now"
	}
	fmt.Fprintf(w, "node %s: addresses are given by: %s\n\n", a.Node, leader)
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(table, "POOL\tFAMILY\tGIVEN\tOF\tINTERFACES")
	for _, p := range a.Pools {
		fmt.Fprintf(table, "%s\t%s\t%d\t%.0f\t%s\n", p.Pool, p.Family, p.Given, p.Size, dash(strings.Join(p.Interfaces, ",")))
	}
	table.Flush()
	if len(a.Members) > 0 {
		fmt.Fprintln(table, "\nNODE\tINTERFACES\tRENEWED\tNOTE")
		for _, m := range a.Members {
			note := m.Leaving
			if m.Node == a.Node && !a.Valid {
				note = strings.TrimPrefix(note+"; its Lease is not valid", "; ")
				if a.Together {
					note += ": it goes on, as no other node's is, and all hear each other"
				}
			}
			fmt.Fprintf(table, "%s\t%s\t%s ago\t%s\n", m.Node, strings.Join(m.Interfaces, ","), since(m.Renewed, now), note)
		}
		table.Flush()
	}
	if len(a.Addresses) > 0 {
		fmt.Fprintln(table, "\nADDRESS\tNODE\tSERVICES\tNOTE")
		for _, one := range a.Addresses {
			services := slices.Sorted(slices.Values(one.Services))
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", one.IP, dash(one.Node), strings.Join(services, ","), one.Nobody)
		}
		table.Flush()
	}
	if len(a.Waiting) > 0 {
		fmt.Fprintln(table, "\nWAITING\tWHY")
		for _, one := range a.Waiting {
			fmt.Fprintf(table, "%s\t%s\n", one.Name, one.Reason)
		}
		table.Flush()
	}
	for _, c := range a.Conflicts {
		fmt.Fprintf(w, "\n%s: somebody with the MAC address %s has it too, at %s, %s ago\n", c.IP, c.MAC, c.Interface, since(c.At, now))
	}
}

// BalancersStatus is the part of the status.
type BalancersStatus struct {
	// LoadBalancer is nil where the agent gives no addresses.
	LoadBalancer *BalancersSummary `json:"loadBalancer,omitempty"`
}

// BalancersSummary is what there is to say in a line.
type BalancersSummary struct {
	Leader    string `json:"leader,omitempty"`
	Here      int    `json:"here"` // addresses that this node answers for
	Elsewhere int    `json:"elsewhere"`
	Nobody    int    `json:"nobody"`
}

func (b *balancers) part() feature.Part {
	if !b.on() {
		return feature.Part{Document: BalancersStatus{}}
	}
	s := &BalancersSummary{Leader: b.leaderNode()}
	s.Here, s.Elsewhere, s.Nobody = countAnswered(b.announcer.State(), b.config.NodeName)
	leader := "no agent now"
	if s.Leader != "" {
		leader = "the agent of " + s.Leader
	}
	value := fmt.Sprintf("addresses are given by %s; of those at layer 2, %d answered for here, %d elsewhere, %d by nobody", leader, s.Here, s.Elsewhere, s.Nobody)
	return feature.Part{Document: BalancersStatus{s}, Rows: []feature.Row{{Name: "load balancer", Value: value}}}
}
