// Package page is what a browser shows of flatnet: nodes and how they are joined, their
// health, pods, Services, policies, and what is wrong. It asks a [Source], which may be
// all agents of a cluster or the one of a node, and serves what it says on the loopback
// interface to the one person who began it. The page's files are in the program.
//
// Nothing in it needs Linux: it runs wherever kubectl does.
package page

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// Source is where the page has from what it shows. Its functions are called on several
// goroutines.
type Source interface {
	// Overview is how all nodes are.
	Overview(ctx context.Context) (*Overview, error)
	// Ask returns what the agent of a node says about something, as its -o json does. Of
	// flows it is those of a pod, namespace/name.
	Ask(ctx context.Context, node string, about About, pod string) ([]byte, error)
}

// About is something that an agent is asked about.
type About string

// What agents are asked about.
const (
	Peers     About = "peers" // flatnetd status
	Pods      About = "pods"  // flatnetd status pods, and so on
	Services  About = "services"
	Policies  About = "policies"
	BGP       About = "bgp"
	Balancers About = "announcements"
	Flows     About = "flows" // flatnetd flows
)

// MostFlows is how many flows of a pod are shown.
const MostFlows = 50

// Kinds of what an overview is of.
const (
	OfCluster = "cluster"
	OfNode    = "node"
)

// Overview is what the page shows first.
type Overview struct {
	Of      string `json:"of"`                // OfCluster or OfNode
	Name    string `json:"name"`              // of it
	Version string `json:"version,omitempty"` // of the program that serves the page
	Nodes   []Node `json:"nodes"`             // what is wrong first
	// Findings are what is wrong, each once.
	Findings []Finding `json:"findings"`
	// Notes are worth a line, and nothing is wrong with them.
	Notes []string `json:"notes,omitempty"`
	// Unknown is what could not be found out, in the words of whoever has refused it.
	Unknown []string `json:"unknown,omitempty"`

	// State and Headline are the one sentence that matters. The server fills them in.
	State    string `json:"state"`
	Headline string `json:"headline"`
}

// Ready is the state of a node that is as it should be, but for the problems that it has.
const Ready = "ready"

// Node is one of the nodes.
type Node struct {
	Name    string `json:"name"`
	State   string `json:"state"` // in words
	Wrong   bool   `json:"wrong"`
	Unknown bool   `json:"unknown"` // it could not be found out how it is
	// Answers says that its agent can be asked for more.
	Answers bool      `json:"answers"`
	Reason  string    `json:"reason,omitempty"`
	Advice  string    `json:"advice,omitempty"`
	Version string    `json:"version,omitempty"`
	Since   time.Time `json:"since,omitzero"` // when its agent began
	Fabric  string    `json:"fabric,omitempty"`
	PodMTU  int       `json:"podMTU,omitempty"`
	// Addresses are its own, PodCIDRs those of its pods.
	Addresses []string `json:"addresses,omitempty"`
	PodCIDRs  []string `json:"podCIDRs,omitempty"`
	Pods      uint64   `json:"pods"` // that have an address
	Usage     []Usage  `json:"usage,omitempty"`
	// Joined are its peers by how they are reached.
	Joined []Group `json:"joined,omitempty"`
	// Problems counts them.
	Problems int `json:"problems"`
	// What follows is nil where the agent does not do that, or does not say.
	DataPath *DataPath `json:"dataPath,omitempty"`
	BGP      *Sessions `json:"bgp,omitempty"`
	Balancer *Balancer `json:"balancer,omitempty"`
}

// DataPath is which way packets of established flows take.
type DataPath struct {
	Path    string `json:"path"`              // ebpf or kernel
	Because string `json:"because,omitempty"` // why it is kernel
	Flows   int    `json:"flows,omitempty"`   // that are remembered
	Hits    uint64 `json:"hits,omitempty"`    // packets that took the fast path
	Misses  uint64 `json:"misses,omitempty"`  // that could have been of a remembered flow
}

// Sessions are those of BGP with routers.
type Sessions struct {
	Peers       int `json:"peers"`
	Established int `json:"established"`
}

// Balancer is what a node knows of addresses of load balancers.
type Balancer struct {
	Leader string `json:"leader,omitempty"` // the node whose agent gives them
	Here   int    `json:"here"`             // that the node answers for
}

// Usage is how many addresses of a family pods have.
type Usage struct {
	Family  string `json:"family"`
	Used    uint64 `json:"used"`
	Cooling uint64 `json:"cooling,omitempty"`
	Total   uint64 `json:"total,omitempty"` // 0: not known
}

// Group is a number of peers that are joined in one way.
type Group struct {
	Mode  string `json:"mode"`
	Peers int    `json:"peers"`
}

// Finding is something that is wrong at one or more nodes.
type Finding struct {
	Nodes  []string `json:"nodes"`
	Text   string   `json:"text"`
	Advice string   `json:"advice,omitempty"`
}

// States of an overview.
const (
	Fine    = "fine"
	Wrong   = "wrong"
	Unknown = "unknown"
)

// mostNamed is how many nodes the headline names.
const mostNamed = 3

// sumUp fills in the headline.
func (o *Overview) sumUp() {
	var wrong, unknown []Node
	for _, n := range o.Nodes {
		switch {
		case n.Wrong:
			wrong = append(wrong, n)
		case n.Unknown:
			unknown = append(unknown, n)
		}
	}
	all := count(len(o.Nodes), "node")
	switch {
	case len(o.Nodes) == 0:
		o.State, o.Headline = Unknown, "No node is seen"
	case len(wrong) > 0:
		o.State, o.Headline = Wrong, outOf(len(wrong), len(o.Nodes), "not well")+named(wrong)
	case len(unknown) > 0:
		o.State, o.Headline = Unknown, outOf(len(unknown), len(o.Nodes), "not known")+named(unknown)
	case len(o.Findings) > 0:
		o.State, o.Headline = Wrong, all+", "+count(len(o.Findings), "problem")
	case len(o.Unknown) > 0:
		o.State, o.Headline = Unknown, all+", as far as is known all well"
	default:
		o.State, o.Headline = Fine, all+", all well"
		if len(o.Nodes) == 1 {
			o.Headline = all + ", all is well"
		}
	}
}

// outOf says how many nodes are in some way.
func outOf(some, all int, how string) string {
	if all == 1 {
		return "The node is " + how
	}
	verb := "are"
	if some == 1 {
		verb = "is"
	}
	return fmt.Sprintf("%d of %d nodes %s %s", some, all, verb, how)
}

// named are the first nodes with why each is named.
func named(nodes []Node) string {
	var words []string
	for _, n := range nodes[:min(mostNamed, len(nodes))] {
		why := n.State
		if n.State == Ready && n.Problems > 0 {
			why = count(n.Problems, "problem")
		}
		words = append(words, n.Name+" ("+why+")")
	}
	more := ""
	if len(nodes) > mostNamed {
		more = ", …"
	}
	return ": " + strings.Join(words, ", ") + more
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
