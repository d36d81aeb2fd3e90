package policy

import (
	"fmt"
	"slices"
	"strings"
)

// idle are the policies that do nothing, or less than they say: that select no pod of the
// cluster, or name a port that no pod has which it would be about. It is asked for by
// people, and looks at all pods.
func (w *world) idle() (all []Fault) {
	for _, p := range w.policies {
		add := func(format string, a ...any) {
			all = append(all, Fault{fmt.Sprintf("%s %s", p.kind(), p.Name), fmt.Sprintf(format, a...)})
		}
		subjects := w.choose(p.Subject)
		if len(subjects) == 0 {
			add("selects no pod of the cluster")
			continue
		}
		for _, d := range Directions {
			for i, r := range p.Rules[d] {
				for _, s := range r.Nodes {
					if !w.hasNode(s) {
						add("%s rule %d: there is no node that it would be about: %s", d, i+1, nodesText(s))
					}
				}
				for _, port := range r.Ports {
					if port.Name != "" && !w.hasPort(r, subjects, d, port) {
						add("%s rule %d: no pod that it would be about has a port %s/%s", d, i+1, port.Name, port.Protocol)
					}
				}
			}
		}
	}
	slices.SortFunc(all, func(a, b Fault) int { return strings.Compare(a.Policy+a.Fault, b.Policy+b.Fault) })
	return all
}

// hasPort reports whether a pod at the rule's destination has a port of a name.
func (w *world) hasPort(r Rule, subjects []*Pod, d Direction, port Port) bool {
	has := func(p *Pod) bool { return len(p.ports(port.Name, port.Protocol)) > 0 }
	if d == Ingress {
		return slices.ContainsFunc(subjects, has)
	}
	peers := r.Peers
	if r.AnyPeer || len(r.Blocks)+len(r.Nodes) > 0 {
		peers = []Selector{everything}
	}
	return slices.ContainsFunc(peers, func(s Selector) bool { return slices.ContainsFunc(w.choose(s), has) })
}

// choose returns the pods of the cluster that a selector chooses.
func (w *world) choose(s Selector) (all []*Pod) {
	for name, pods := range w.ofSpace {
		if s.Namespace != "" && s.Namespace != name {
			continue
		}
		for _, p := range pods {
			if w.matches(s, p) {
				all = append(all, p)
			}
		}
	}
	return all
}
