package node

import (
	"slices"
	"strings"
)

// Judging is [Judge] with a memory: what it returns is the same, and what it does
// grows with what is new in the list since the one before.
//
// Nodes that are in nobody's way are judged each by itself. So are groups of nodes
// that are in each other's way but in nobody else's: no rule looks beyond the
// group. When nodes change, come or leave, the groups that they were in and those
// that they are in now are judged, by Judge, and all others' verdicts stay. The
// exceptions are rules about the whole list: names that are not unique, and the
// limit of podCIDRs in all. Then the list is judged as a whole.
//
// It is not safe for concurrent use. Nobody may write to the lists that it has
// been given or has returned.
type Judging struct {
	self     string
	nodes    []Node // the list before, by name
	accepted []Node // each at the place that it has in nodes
	refused  []Refusal
	claims   claims
}

// NewJudging returns a Judging as it is seen from the node named self.
func NewJudging(self string) *Judging { return &Judging{self: self} }

// Judge is [Judge], of a list that as a rule differs little from the one before.
// It is fast where the list is sorted by name, as that of a [Source] is.
func (j *Judging) Judge(nodes []Node) (accepted []Node, refused []Refusal) {
	if !divisible(nodes) {
		*j = Judging{self: j.self}
		return Judge(j.self, nodes)
	}
	affected := j.note(nodes)
	switch {
	case len(affected) == 0:
	case 2*len(affected) > len(nodes):
		j.accepted, j.refused = Judge(j.self, nodes)
	default:
		j.join(affected)
	}
	return j.accepted, j.refused
}

// divisible reports whether groups of the nodes can be judged by themselves.
func divisible(nodes []Node) bool {
	podCIDRs, before := 0, ""
	for i := range nodes {
		n := &nodes[i]
		if n.Name <= before {
			return false
		}
		before = n.Name
		podCIDRs += min(len(n.PodCIDRs), maxPodCIDRsPerNode)
	}
	return podCIDRs <= maxPodCIDRs
}

// group is a set of names.
type group map[string]struct{}

func (g group) has(name string) bool { _, is := g[name]; return is }

// note takes a new list, and returns the names of all whose verdicts may be others.
// It is some names more where that is most of them anyway.
func (j *Judging) note(nodes []Node) group {
	gone, come := differences(j.nodes, nodes)
	j.nodes = nodes
	j.claims.replace(gone, come)
	affected := make(group, len(gone)+len(come))
	var unasked []*Node
	affect := func(name string) {
		if affected.has(name) {
			return
		}
		affected[name] = struct{}{}
		if n := find(nodes, name); n != nil {
			unasked = append(unasked, n)
		}
	}
	for i := range gone {
		affect(gone[i].Name)
		for p := range gone[i].claimed() {
			j.claims.overlapping(p, affect)
		}
	}
	for i := range come {
		affect(come[i].Name)
	}
	for len(unasked) > 0 && 2*len(affected) <= len(nodes) {
		n := unasked[len(unasked)-1]
		unasked = unasked[:len(unasked)-1]
		for p := range n.claimed() {
			j.claims.overlapping(p, affect)
		}
	}
	return affected
}

// differences returns the nodes of two lists by name that are not in both. One
// that has changed is gone as it was, and has come as it is.
func differences(before, after []Node) (gone, come []Node) {
	for len(before) > 0 && len(after) > 0 {
		switch c := strings.Compare(before[0].Name, after[0].Name); {
		case c < 0:
			gone, before = append(gone, before[0]), before[1:]
			continue
		case c > 0:
			come, after = append(come, after[0]), after[1:]
			continue
		case !before[0].Equal(after[0]):
			gone, come = append(gone, before[0]), append(come, after[0])
		}
		before, after = before[1:], after[1:]
	}
	return append(gone, before...), append(come, after...)
}

// find returns the node of a name in a list by name, nil if there is none.
func find(nodes []Node, name string) *Node {
	at, there := slices.BinarySearchFunc(nodes, name, func(n Node, name string) int { return strings.Compare(n.Name, name) })
	if !there {
		return nil
	}
	return &nodes[at]
}

// join judges those who are affected, and puts that together with what was found
// of the others before. All nodes are accepted, as their names are unique.
func (j *Judging) join(affected group) {
	some := make([]Node, 0, len(affected))
	for name := range affected {
		if n := find(j.nodes, name); n != nil {
			some = append(some, *n)
		}
	}
	fresh, refused := Judge(j.self, some)
	before := j.accepted
	j.accepted = make([]Node, len(j.nodes))
	for i := range j.nodes {
		if name := j.nodes[i].Name; len(fresh) > 0 && fresh[0].Name == name {
			j.accepted[i], fresh = fresh[0], fresh[1:]
		} else {
			for before[0].Name != name {
				before = before[1:]
			}
			j.accepted[i] = before[0]
		}
	}
	for _, r := range j.refused {
		if !affected.has(r.Node) {
			refused = append(refused, r)
		}
	}
	slices.SortFunc(refused, Refusal.compare)
	j.refused = refused
}
