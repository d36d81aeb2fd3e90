package policy

import (
	"cmp"
	"net/netip"
	"slices"
)

// world is what is known of the cluster. It belongs to one goroutine.
//
// An address belongs to one pod at a time. Where several claim it, the API is behind:
// one of them is gone already. It belongs to the one that is attached to this node,
// else to the youngest of those that were not detached from it, and never to two, so
// that no pod gets the rights of the one that had its address before.
type world struct {
	namespaces map[string]*Namespace
	pods       map[Name]*Pod
	ofSpace    map[string]map[Name]*Pod // by namespace
	policies   map[PolicyKey]*Policy
	nodes      map[string]*Node
	subjects   map[string]map[PolicyKey]*Policy // policies by the only namespace of their subjects
	attached   map[Name]Attached
	ended      map[Name]*Pod            // attached pods that the API server has no longer
	holder     map[netip.Addr]Name      // those of attached pods
	foreign    map[netip.Addr]struct{}  // those of what is attached and is no pod
	gone       map[Name]string          // UIDs of pods that were attached, and that the API server still has
	claims     map[netip.Addr][]*Pod    // by what the API server says
	groups     map[groupKey]*group      // that rules of this node's pods need
	dirty      map[netip.Addr]struct{}  // whose owner may be another one
	changed    map[groupKey]groupChange // since the last plan
	selecting  map[*Pod]selecting       // of this node's pods, as long as that is the same
	logs       bool                     // what is refused is logged
	// stirred says that pods of this node may have other policies, or other chains.
	stirred bool
}

// selecting are the policies that have a say about a pod, in the order in which they are
// asked.
type selecting [len(Directions)][]*Policy

func newWorld() *world {
	return &world{
		namespaces: map[string]*Namespace{}, pods: map[Name]*Pod{}, ofSpace: map[string]map[Name]*Pod{},
		policies: map[PolicyKey]*Policy{}, nodes: map[string]*Node{}, subjects: map[string]map[PolicyKey]*Policy{}, attached: map[Name]Attached{}, holder: map[netip.Addr]Name{},
		claims: map[netip.Addr][]*Pod{}, groups: map[groupKey]*group{}, dirty: map[netip.Addr]struct{}{},
		changed: map[groupKey]groupChange{}, ended: map[Name]*Pod{}, foreign: map[netip.Addr]struct{}{}, gone: map[Name]string{},
	}
}

// apply takes what has changed of the cluster's objects.
func (w *world) apply(b Batch) {
	for name, n := range b.Namespaces {
		if n == nil {
			delete(w.namespaces, name)
		} else {
			w.namespaces[name] = n
		}
		w.stirred = true
		for _, p := range w.ofSpace[name] {
			w.touch(p)
		}
	}
	for name, n := range b.Nodes {
		if n == nil {
			delete(w.nodes, name)
		} else {
			w.nodes[name] = n
		}
		w.stirred = true // the networks of rules
	}
	if len(b.Namespaces)+len(b.Policies) > 0 {
		w.selecting = nil
	}
	for name, p := range b.Pods {
		w.setPod(name, p)
	}
	for key, p := range b.Policies {
		w.setPolicy(key, p)
		w.stirred = true
	}
	w.settle()
}

func (w *world) setPolicy(key PolicyKey, p *Policy) {
	if before := w.policies[key]; before != nil {
		delete(w.policies, key)
		delete(w.subjects[before.Subject.Namespace], key)
		if len(w.subjects[before.Subject.Namespace]) == 0 {
			delete(w.subjects, before.Subject.Namespace)
		}
	}
	if p == nil {
		return
	}
	w.policies[key] = p
	if w.subjects[p.Subject.Namespace] == nil {
		w.subjects[p.Subject.Namespace] = map[PolicyKey]*Policy{}
	}
	w.subjects[p.Subject.Namespace][key] = p
}

// about calls yield for the policies that may be about pods of a namespace, as far as
// their subjects' only namespace says; of "" these are those without one.
func (w *world) about(namespace string) func(yield func(*Policy) bool) {
	return func(yield func(*Policy) bool) {
		for _, p := range w.subjects[""] {
			if !yield(p) {
				return
			}
		}
		if namespace == "" {
			return
		}
		for _, p := range w.subjects[namespace] {
			if !yield(p) {
				return
			}
		}
	}
}

func (w *world) setPod(name Name, p *Pod) {
	if before := w.pods[name]; before != nil {
		w.touch(before)
		for _, a := range before.Addresses {
			w.claims[a] = slices.DeleteFunc(w.claims[a], func(q *Pod) bool { return q == before })
			if len(w.claims[a]) == 0 {
				delete(w.claims, a)
			}
		}
		delete(w.ofSpace[name.Namespace], name)
		if len(w.ofSpace[name.Namespace]) == 0 {
			delete(w.ofSpace, name.Namespace)
		}
		delete(w.pods, name)
		if _, here := w.attached[name]; here {
			w.ended[name] = before
		}
	}
	_, here := w.attached[name]
	w.stirred = w.stirred || here
	if uid, gone := w.gone[name]; gone && (p == nil || p.UID != uid) {
		delete(w.gone, name)
	}
	if p == nil {
		return
	}
	delete(w.ended, name)
	w.pods[name] = p
	if w.ofSpace[name.Namespace] == nil {
		w.ofSpace[name.Namespace] = map[Name]*Pod{}
	}
	w.ofSpace[name.Namespace][name] = p
	for _, a := range p.Addresses {
		w.claims[a] = append(w.claims[a], p)
	}
	w.touch(p)
}

// touch notes that groups may hold other addresses of a pod.
func (w *world) touch(p *Pod) {
	for _, a := range p.Addresses {
		w.dirty[a] = struct{}{}
	}
	for _, a := range w.attached[p.Name].Addresses {
		w.dirty[a] = struct{}{}
	}
}

// owner returns the pod that has an address; nil where none has, or where nothing is
// known of the one that has it.
func (w *world) owner(a netip.Addr) *Pod {
	if name, here := w.holder[a]; here {
		return w.same(name, w.pods[name])
	}
	if _, here := w.foreign[a]; here {
		return nil
	}
	var owner *Pod
	for _, p := range w.claims[a] {
		if uid, gone := w.gone[p.Name]; gone && uid == p.UID {
			continue // it was here, and whoever has the address now is another one
		}
		if at, here := w.attached[p.Name]; here && w.same(p.Name, p) != nil && !slices.Contains(at.Addresses, a) {
			continue // it is attached with others
		}
		if owner == nil || younger(p, owner) {
			owner = p
		}
	}
	return owner
}

func younger(a, b *Pod) bool {
	if !a.Created.Equal(b.Created) {
		return a.Created.After(b.Created)
	}
	return a.UID > b.UID // any order will do, as long as it is one
}

// same returns what is known of a pod's name if that is about the one that is attached,
// and nil if it is about another one that had the name before, or has it now.
func (w *world) same(name Name, p *Pod) *Pod {
	if p == nil || !w.attached[name].isOf(p) {
		return nil
	}
	return p
}

// here returns what is known of a pod that is attached, also where it has run to its
// end or was deleted: as long as it is attached its policies hold. It is nil where the
// API server has not told of it yet.
func (w *world) here(name Name) *Pod {
	if p := w.same(name, w.pods[name]); p != nil {
		return p
	}
	return w.same(name, w.ended[name])
}

// settle brings the groups up to date.
func (w *world) settle() {
	for a := range w.dirty {
		owner := w.owner(a)
		for _, g := range w.groups {
			w.regroup(g, a, owner)
		}
	}
	// Not cleared: the first time it has everybody, and a map keeps its size.
	w.dirty = map[netip.Addr]struct{}{}
}

// matches reports whether a selector chooses a pod.
func (w *world) matches(s Selector, p *Pod) bool {
	if s.Namespace != "" {
		return p.Name.Namespace == s.Namespace && s.Pods.Matches(p.Labels)
	}
	n := w.namespaces[p.Name.Namespace]
	return n != nil && s.Namespaces.Matches(n.Labels) && s.Pods.Matches(p.Labels)
}

// policiesOf finds the policies that have a say about a pod.
func (w *world) policiesOf(p *Pod) (all selecting) {
	for one := range w.about(p.Name.Namespace) {
		if !w.matches(one.Subject, p) {
			continue
		}
		for _, d := range Directions {
			if one.Isolates[d] || len(one.Rules[d]) > 0 {
				all[d] = append(all[d], one)
			}
		}
	}
	for _, d := range Directions {
		slices.SortFunc(all[d], (*Policy).compare)
	}
	return all
}

// compare orders policies as they are asked.
func (p *Policy) compare(o *Policy) int {
	return cmp.Or(cmp.Compare(p.Tier, o.Tier), cmp.Compare(p.Priority, o.Priority),
		cmp.Compare(p.Name.Namespace, o.Name.Namespace), cmp.Compare(p.Name.Name, o.Name.Name))
}

// closed says in which directions a pod of a namespace is closed as long as nothing
// else is known of it: those in which a policy may select it.
func (w *world) closed(namespace string) (all [len(Directions)]bool) {
	n := w.namespaces[namespace]
	for p := range w.about(namespace) {
		if s := p.Subject; s.Namespace == "" && n != nil && !s.Namespaces.Matches(n.Labels) {
			continue
		}
		for _, d := range Directions {
			all[d] = all[d] || p.Isolates[d] || len(p.Rules[d]) > 0
		}
	}
	return all
}
