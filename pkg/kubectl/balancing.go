package kubectl

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// balancing is what is read of `flatnetd status announcements -o json` of one agent.
type balancing struct {
	// Of is the node whose agent says it: the one that gives addresses, where that answers.
	Of      string            `json:"of"`
	Leader  string            `json:"leader,omitempty"`
	Pools   []poolUse         `json:"pools"`
	Waiting []waitingService  `json:"waiting,omitempty"`
	Members []member          `json:"members,omitempty"`
	Answers []answeredAddress `json:"addresses"`
}

// poolUse is how much of a pool is given.
type poolUse struct {
	Pool   string  `json:"pool"`
	Family string  `json:"family"`
	Given  int     `json:"given"`
	Size   float64 `json:"size"`
}

// waitingService is a Service without all its addresses.
type waitingService struct {
	Name   string `json:"service"`
	Reason string `json:"reason"`
}

// member is a node that can answer.
type member struct {
	Node    string `json:"node"`
	Leaving string `json:"leaving,omitempty"` // why it is to answer no more
}

// answeredAddress is who answers for an address.
type answeredAddress struct {
	IP       string   `json:"ip"`
	Services []string `json:"services"`
	Node     string   `json:"node,omitempty"`
	Nobody   string   `json:"nobody,omitempty"` // why
}

// takeBalancing asks one of the agents that know addresses of load balancers: the one that
// gives them, or else the first that answers.
func (o *overview) takeBalancing(ctx context.Context, s *survey, a asker) {
	var know []string
	for _, n := range o.Nodes {
		if n.LoadBalancer == nil {
			continue
		}
		know = append(know, n.Node)
		if n.LoadBalancer.Leader != "" {
			know = slices.Insert(know, 0, n.LoadBalancer.Leader)
			break
		}
	}
	var why error
	for _, node := range know {
		at := slices.IndexFunc(s.Sites, func(at site) bool { return at.Node == node && at.Fault == nil })
		if at < 0 {
			continue
		}
		found := ask[balancing](ctx, a, s.Sites[at], "status", "announcements", "-o", "json")
		if why = found.err; why == nil {
			o.LoadBalancer = &found.said
			o.LoadBalancer.Of = node
			return
		}
	}
	if why != nil {
		o.Unknown = append(o.Unknown, "addresses of load balancers: "+why.Error())
	}
}

// print writes it for people: pools, what is answered for by nobody, and Services that wait.
func (b *balancing) print(w io.Writer) {
	if b == nil {
		return
	}
	fmt.Fprintf(w, "\nload balancers, as %s has them; addresses are given by: %s\n", b.Of, cmp.Or(b.Leader, "no agent now"))
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(table, "POOL\tFAMILY\tGIVEN\tOF")
	for _, p := range b.Pools {
		fmt.Fprintf(table, "%s\t%s\t%d\t%.0f\n", p.Pool, p.Family, p.Given, p.Size)
	}
	table.Flush()
	by := map[string]int{}
	for _, a := range b.Answers {
		by[a.Node]++
	}
	var nodes []string
	for _, m := range b.Members {
		text := fmt.Sprintf("%s for %d", m.Node, by[m.Node])
		if m.Leaving != "" {
			text += " (" + m.Leaving + ")"
		}
		nodes = append(nodes, text)
	}
	if len(nodes) > 0 {
		fmt.Fprintf(w, "  answer: %s\n", strings.Join(nodes, ", "))
	}
	some(w, "by nobody", b.Answers, func(a answeredAddress) string {
		if a.Node != "" {
			return ""
		}
		return fmt.Sprintf("%s (%s): %s", a.IP, strings.Join(a.Services, ","), a.Nobody)
	})
	some(w, "waits", b.Waiting, func(s waitingService) string { return s.Name + ": " + s.Reason })
}

// some writes the first lines of what has one, and how many more there are.
func some[T any](w io.Writer, what string, all []T, line func(T) string) {
	const most = 10
	shown := 0
	for _, one := range all {
		text := line(one)
		if text == "" {
			continue
		}
		if shown++; shown <= most {
			fmt.Fprintf(w, "  %s: %s\n", what, text)
		}
	}
	if shown > most {
		fmt.Fprintf(w, "  %s: %d more, which -o json has\n", what, shown-most)
	}
}
