package kubectl

import (
	"cmp"
	"context"
	"slices"
	"time"
)

// States of a node, as -o json has them.
const (
	stateNoAgent     = "no flatnetd"
	stateNodeDown    = "node down"
	stateNotRunning  = "not running"
	stateNoAnswer    = "no answer"
	stateNotReady    = "not ready"
	stateNotAsked    = "not asked"
	stateReady       = "ready"
	stateNotSelected = "not selected"
)

// order is how bad a state is, the worst first.
var order = []string{stateNoAgent, stateNodeDown, stateNotRunning, stateNoAnswer, stateNotReady, stateNotAsked, stateReady, stateNotSelected}

// overview is what `kubectl flatnet status` prints.
type overview struct {
	Program   string       `json:"kubectlFlatnet"` // the version of this program
	Namespace string       `json:"namespace"`
	Nodes     []nodeStatus `json:"nodes"` // what is wrong first
	// LoadBalancer is what there is to know of addresses of load balancers; nil where no
	// agent gives them.
	LoadBalancer *balancing `json:"loadBalancer,omitempty"`
	// Unknown is what could not be found out, beside what nodes have in their reasons.
	Unknown []string `json:"unknown,omitempty"`
}

// nodeStatus is a node, by the words of its flatnetd.
type nodeStatus struct {
	Node    string    `json:"node"`
	Pod     string    `json:"pod,omitempty"` // flatnetd's
	State   string    `json:"state"`
	Reason  string    `json:"reason,omitempty"`
	Advice  string    `json:"advice,omitempty"`
	Version string    `json:"version,omitempty"`
	Since   time.Time `json:"since,omitzero"` // when flatnetd began
	Fabric  string    `json:"fabric,omitempty"`
	PodMTU  int       `json:"podMTU,omitempty"`
	Pods    uint64    `json:"pods"` // that have an address
	// Joined are its peers by how they are reached, the most first; of others, and of
	// those that are not reached, the first are named.
	Joined []group `json:"joined,omitempty"`
	// Missing are peers of which a route is not in the kernel.
	Missing *group `json:"missing,omitempty"`
	// Unwell are peers to which packets are lost, all or some.
	Unwell   *group    `json:"unwell,omitempty"`
	Problems []trouble `json:"problems,omitempty"`
	// DataPath is the way of packets of established flows, BGP the sessions with routers,
	// and LoadBalancer who answers for addresses; nil where the agent does not do that.
	DataPath     *dataPath  `json:"dataPath,omitempty"`
	BGP          *sessions  `json:"bgp,omitempty"`
	LoadBalancer *answering `json:"loadBalancer,omitempty"`
	// MoreProblems are those that are not listed.
	MoreProblems int `json:"moreProblems,omitempty"`
	// Unread are fields of the answer that this program does not understand.
	Unread []string `json:"unread,omitempty"`

	said answer // what it was taken from; the zero value where nobody has answered
}

// mostProblems bounds those that are kept of one node: it may have one with each peer.
const mostProblems = 100

// wrong reports whether something is not as it should be.
func (n nodeStatus) wrong() bool {
	switch n.State {
	case stateReady:
		return len(n.Problems) > 0 || n.Missing != nil
	case stateNotSelected, stateNotAsked:
		return false
	}
	return true
}

// unknown reports whether it could not be found out how the node is.
func (n nodeStatus) unknown() bool { return n.State == stateNotAsked || len(n.Unread) > 0 }

// exit is the status that the command ends with.
func (o *overview) exit() int {
	switch {
	case slices.ContainsFunc(o.Nodes, nodeStatus.wrong):
		return exitWrong
	case len(o.Nodes) == 0, len(o.Unknown) > 0, slices.ContainsFunc(o.Nodes, nodeStatus.unknown):
		return exitUnknown
	}
	return exitFine
}

// takeOverview asks every flatnetd that there is. program is the version of this program.
func takeOverview(ctx context.Context, program string, s *survey, a asker) *overview {
	o := &overview{Program: program, Namespace: s.Namespace, Nodes: make([]nodeStatus, len(s.Sites)), Unknown: s.Unknown}
	for i, at := range s.Sites {
		o.Nodes[i] = nodeStatus{Node: at.Node, Pod: at.Container.Pod}
		if at.Fault != nil {
			o.Nodes[i].blame(at.Fault)
		}
	}
	a.each(ctx, s.Sites, a.status, func(i int, raw []byte, err error) {
		n := &o.Nodes[i]
		var said answer
		if err == nil {
			said, err = readAnswer(raw)
		}
		if err != nil {
			n.blame(unanswered(s.Sites[i], err))
			return
		}
		n.take(said)
	})
	slices.SortStableFunc(o.Nodes, func(a, b nodeStatus) int {
		return cmp.Or(cmp.Compare(slices.Index(order, a.State), slices.Index(order, b.State)),
			compareBools(a.wrong() || a.unknown(), b.wrong() || b.unknown()), natural(a.Node, b.Node))
	})
	return o
}

// compareBools puts what is true first.
func compareBools(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

func (n *nodeStatus) blame(f *fault) { n.State, n.Reason, n.Advice = f.State, f.Reason, f.Advice }

// take notes what an agent has said.
func (n *nodeStatus) take(a answer) {
	n.State, n.said = stateReady, a
	if !a.Ready && !slices.Contains(a.unread, "ready") {
		n.State, n.Reason = stateNotReady, a.NotReady
	}
	n.Version, n.Since, n.Fabric, n.PodMTU, n.Pods = a.Version, a.Since, a.Fabric, a.PodMTU, a.attached()
	n.Joined, n.Missing, n.Unwell, n.Problems, n.Unread = a.Joined, a.Missing, a.Unwell, a.Problems, a.unread
	n.DataPath, n.BGP, n.LoadBalancer = a.DataPath, a.BGP, a.LoadBalancer
	if more := len(n.Problems) - mostProblems; more > 0 {
		n.Problems, n.MoreProblems = slices.Clone(n.Problems[:mostProblems]), more
	}
}
