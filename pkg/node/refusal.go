package node

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/flatnet-cni/flatnet/pkg/problem"
)

// Refusal says why a node, or one entry of it, is not joined.
type Refusal struct {
	Node   string // the name of the node
	Field  string // "podCIDRs[0]", "addresses[1]", "podCIDRs", "name"
	Value  string // as the source has it
	Reason string // what is wrong; names the other node where there is one
	Hint   string // what to do about it; may be empty
}

// Error returns the refusal on one line, without the hint:
//
//	node n2: podCIDRs[0] 10.244.1.0/24: overlaps 10.244.1.0/24 of node n1
func (r Refusal) Error() string {
	return fmt.Sprintf("node %s: %s %s: %s", r.Node, r.Field, r.Value, r.Reason)
}

// String is Error, for logs.
func (r Refusal) String() string { return r.Error() }

// Problem is the refusal as the node named self tells of it.
func (r Refusal) Problem(self string) problem.Problem {
	f := problem.Facts{Node: r.Node, Object: r.Field + " " + r.Value, Reason: r.Reason, Advice: r.Hint}
	if r.Node == self && strings.HasPrefix(r.Field, "podCIDRs") {
		f.Breaks = []problem.Thing{problem.OwnPodCIDRs}
	}
	return problem.NodeEntry.Of(f)
}

// compare orders refusals by node and field, podCIDRs[9] before podCIDRs[10].
func (r Refusal) compare(o Refusal) int {
	list := func(field string) string { name, _, _ := strings.Cut(field, "["); return name }
	return cmp.Or(
		strings.Compare(r.Node, o.Node),
		strings.Compare(list(r.Field), list(o.Field)),
		cmp.Compare(len(r.Field), len(o.Field)),
		strings.Compare(r.Field, o.Field),
		strings.Compare(r.Value, o.Value),
		strings.Compare(r.Reason, o.Reason),
	)
}
