package policy

import (
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/flatnet-cni/flatnet/pkg/loop"
)

// kind is a kind of objects that a source tells of.
type kind uint8

const (
	networkPolicies kind = iota
	clusterPolicies
	namespaces
	pods
	nodes
	kinds
)

func (k kind) String() string {
	return [...]string{"networkpolicies", "clusternetworkpolicies", "namespaces", "pods", "nodes"}[k]
}

// listed is what a source was told of the objects of a cluster: what policies look at and
// nothing else. Its methods, but for those that say so, may be called at the same time.
type listed struct {
	changed loop.Signal // has one element when there is something to take
	policed loop.Signal // has one element after policies came or went
	naming  loop.Signal // the same, for who waits for those that name nodes

	mu         sync.Mutex
	pods       map[Name]*Pod
	namespaces map[string]*Namespace
	policies   map[PolicyKey]*Policy
	nodes      map[string]*Node
	named      int                  // policies that name nodes
	invalid    map[PolicyKey]string // why they could not be understood; what policies has of one is older
	odd        map[Name]string      // the same of pods, of which pods may have the rest
	complete   [kinds]bool          // all of the kind were listed
	dirty      struct {
		pods       map[Name]struct{}
		namespaces map[string]struct{}
		policies   map[PolicyKey]struct{}
		nodes      map[string]struct{}
	}
}

func newListed() *listed {
	l := &listed{
		changed: loop.NewSignal(), policed: loop.NewSignal(), naming: loop.NewSignal(),
		pods: map[Name]*Pod{}, namespaces: map[string]*Namespace{}, nodes: map[string]*Node{}, policies: map[PolicyKey]*Policy{}, invalid: map[PolicyKey]string{}, odd: map[Name]string{},
	}
	l.clean()
	return l
}

// clean forgets what has changed; l.mu is held.
func (l *listed) clean() {
	l.dirty.pods, l.dirty.namespaces, l.dirty.policies = map[Name]struct{}{}, map[string]struct{}{}, map[PolicyKey]struct{}{}
	l.dirty.nodes = map[string]struct{}{}
}

// known reports whether everything is.
func (l *listed) known() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.unknown() == ""
}

// missing is what was not listed yet, in words; "" where everything was.
func (l *listed) missing() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.unknown()
}

// unknown is missing; l.mu is held.
func (l *listed) unknown() string {
	for k := range kinds {
		if !l.complete[k] && l.needs(k) {
			return k.String()
		}
	}
	return ""
}

// needs reports whether a kind is looked at; l.mu is held. Whom no policy is about nobody
// looks at, nor at nodes that none names.
func (l *listed) needs(k kind) bool {
	switch k {
	case namespaces, pods:
		return len(l.policies) > 0
	case nodes:
		return l.named > 0
	}
	return true
}

// needed reports whether a kind is looked at.
func (l *listed) needed(k kind) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.needs(k)
}

// take returns what has changed since it was last called. Before everything is known that
// is nothing: a policy without the pods that it allows would cut them off.
func (l *listed) take() Batch {
	l.mu.Lock()
	defer l.mu.Unlock()
	var b Batch
	if l.unknown() != "" {
		return b
	}
	b.Pods = now(l.pods, l.dirty.pods)
	b.Namespaces = now(l.namespaces, l.dirty.namespaces)
	b.Policies = now(l.policies, l.dirty.policies)
	b.Nodes = now(l.nodes, l.dirty.nodes)
	l.clean()
	return b
}

// now returns those that are dirty as they are, nil for one that is not there.
func now[K comparable, T any](all map[K]*T, dirty map[K]struct{}) map[K]*T {
	if len(dirty) == 0 {
		return nil
	}
	batch := make(map[K]*T, len(dirty))
	for key := range dirty {
		batch[key] = all[key]
	}
	return batch
}

// Unread is an object that cannot be understood, or not in part, and what comes of that.
type Unread struct {
	Object string // with its kind
	Why    string
}

// why returns the objects that could not be understood, sorted.
func (l *listed) why() []Unread {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.unread()
}

// The rest is called with l.mu held.

// unread is why.
func (l *listed) unread() (all []Unread) {
	for key, why := range l.invalid {
		all = append(all, Unread{key.String(), why})
	}
	for name, why := range l.odd {
		all = append(all, Unread{"Pod " + name.String(), why})
	}
	slices.SortFunc(all, func(a, b Unread) int { return strings.Compare(a.Object, b.Object) })
	return all
}

// setPod notes a pod as it is now; nil for one that is none of our business. With an
// error it is what is understood of it, and stays what it was, if it was there before.
func (l *listed) setPod(name Name, p *Pod, err error) {
	delete(l.odd, name)
	if err != nil {
		l.odd[name] = err.Error() + ", which is left out"
		if before, known := l.pods[name]; known && before.UID == p.UID {
			l.odd[name] = err.Error() + ": the pod is taken for what it was before"
			return
		}
	}
	if before, known := l.pods[name]; known && p != nil && maps.Equal(before.Labels, p.Labels) {
		p.Labels = before.Labels // which others may share
	}
	if update(l.pods, l.dirty.pods, name, p) {
		l.changed.Give()
	}
}

func (l *listed) setNamespace(name string, n *Namespace) {
	if update(l.namespaces, l.dirty.namespaces, name, n) {
		l.changed.Give()
	}
}

func (l *listed) setNode(name string, n *Node) {
	if update(l.nodes, l.dirty.nodes, name, n) {
		l.changed.Give()
	}
}

// setPolicy notes a policy as it is now, or that it is gone. One with an error says what
// it said before: if it were gone, it would open pods.
func (l *listed) setPolicy(key PolicyKey, p *Policy, err error) {
	delete(l.invalid, key)
	if err != nil {
		l.invalid[key] = err.Error() + "; it is not in force"
		if l.policies[key] != nil {
			l.invalid[key] = err.Error() + "; what it said before is in force"
		}
		return
	}
	if before := l.policies[key]; before != nil && before.namesNodes() {
		l.named--
	}
	if update(l.policies, l.dirty.policies, key, p) {
		l.changed.Give()
		l.policed.Give()
		l.naming.Give()
	}
	if now := l.policies[key]; now != nil && now.namesNodes() {
		l.named++
	}
}

// update notes an object as it is now, nil for none, and reports whether it was another
// one before.
func update[K comparable, T any, O interface {
	*T
	equal(*T) bool
}](all map[K]*T, dirty map[K]struct{}, key K, object O) bool {
	before, known := all[key]
	switch {
	case object == nil && !known, object != nil && known && object.equal(before):
		return false
	case object == nil:
		delete(all, key)
	default:
		all[key] = object
	}
	dirty[key] = struct{}{}
	return true
}

// completed notes that all of a kind are known, or that this is no longer so.
func (l *listed) completed(k kind, is bool) {
	if l.complete[k] != is {
		l.complete[k] = is
		l.changed.Give() // it may have been the last that something waited for
	}
}
