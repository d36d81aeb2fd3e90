package policy

import (
	"fmt"

	v1 "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/flatnet-cni/flatnet/pkg/apiwatch"
)

// store is the store of a reflector of one kind of object. It is good until it is closed:
// client-go may write to it for a while after it was told to end, which changes nothing.
type store[T any, K comparable] struct {
	*listed
	kind   kind
	closed bool // guarded by listed.mu
	key    func(T) K
	set    func(K, T)
	drop   func(K)
	each   func(yield func(K) bool) // of those that are known
}

var (
	_ cache.ReflectorStore = (*store[*apiwatch.Pod, Name])(nil)
	_ cache.ReflectorStore = (*store[*v1.Namespace, string])(nil)
)

func podStore(l *listed) *store[*apiwatch.Pod, Name] {
	return &store[*apiwatch.Pod, Name]{
		listed: l, kind: pods,
		key: func(o *apiwatch.Pod) Name { return Name{o.Namespace, o.Name} },
		set: func(name Name, o *apiwatch.Pod) {
			p, err := fromPod(o)
			l.setPod(name, p, err)
		},
		drop: func(name Name) { l.setPod(name, nil, nil) },
		each: func(yield func(Name) bool) { each(l.pods, yield) },
	}
}

func namespaceStore(l *listed) *store[*v1.Namespace, string] {
	return &store[*v1.Namespace, string]{
		listed: l, kind: namespaces,
		key:  func(o *v1.Namespace) string { return o.Name },
		set:  func(name string, o *v1.Namespace) { l.setNamespace(name, FromNamespace(o)) },
		drop: func(name string) { l.setNamespace(name, nil) },
		each: func(yield func(string) bool) { each(l.namespaces, yield) },
	}
}

func nodeStore(l *listed) *store[*v1.Node, string] {
	return &store[*v1.Node, string]{
		listed: l, kind: nodes,
		key:  func(o *v1.Node) string { return o.Name },
		set:  func(name string, o *v1.Node) { l.setNode(name, FromNode(o)) },
		drop: func(name string) { l.setNode(name, nil) },
		each: func(yield func(string) bool) { each(l.nodes, yield) },
	}
}

func networkPolicyStore(l *listed) *store[*networking.NetworkPolicy, PolicyKey] {
	return &store[*networking.NetworkPolicy, PolicyKey]{
		listed: l, kind: networkPolicies,
		key: func(o *networking.NetworkPolicy) PolicyKey {
			return PolicyKey{Name: Name{o.Namespace, o.Name}}
		},
		set: func(key PolicyKey, o *networking.NetworkPolicy) {
			p, err := FromNetworkPolicy(o)
			l.setPolicy(key, p, err)
		},
		drop: func(key PolicyKey) { l.setPolicy(key, nil, nil) },
		each: func(yield func(PolicyKey) bool) { l.eachPolicy(false, yield) },
	}
}

func clusterPolicyStore(l *listed) *store[*apiwatch.ClusterNetworkPolicy, PolicyKey] {
	return &store[*apiwatch.ClusterNetworkPolicy, PolicyKey]{
		listed: l, kind: clusterPolicies,
		key: func(o *apiwatch.ClusterNetworkPolicy) PolicyKey { return PolicyKey{true, Name{Name: o.Name}} },
		set: func(key PolicyKey, o *apiwatch.ClusterNetworkPolicy) {
			p, err := FromClusterNetworkPolicy(o)
			l.setPolicy(key, p, err)
		},
		drop: func(key PolicyKey) { l.setPolicy(key, nil, nil) },
		each: func(yield func(PolicyKey) bool) { l.eachPolicy(true, yield) },
	}
}

func each[K comparable, V any](all map[K]V, yield func(K) bool) {
	for key := range all {
		if !yield(key) {
			return
		}
	}
}

// eachPolicy goes through those of a kind, good or not; l.mu is held.
func (l *listed) eachPolicy(cluster bool, yield func(PolicyKey) bool) {
	going := true
	of := func(key PolicyKey) bool {
		going = going && (key.Cluster != cluster || yield(key))
		return going
	}
	each(l.policies, of)
	each(l.invalid, of)
}

func (s *store[T, K]) with(object any, f func(K, T)) error {
	o, ok := object.(T)
	if !ok {
		return fmt.Errorf("noting one of the %s: it is a %T and not a %T", s.kind, object, o)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	f(s.key(o), o)
	return nil
}

// Add notes an object, as it is now.
func (s *store[T, K]) Add(object any) error { return s.with(object, s.set) }

// Update is Add.
func (s *store[T, K]) Update(object any) error { return s.Add(object) }

// Delete forgets an object.
func (s *store[T, K]) Delete(object any) error {
	return s.with(object, func(key K, _ T) { s.drop(key) })
}

// Replace notes all objects, and forgets the others.
func (s *store[T, K]) Replace(objects []any, _ string) error {
	all := make(map[K]T, len(objects))
	for _, object := range objects {
		o, ok := object.(T)
		if !ok {
			return fmt.Errorf("noting %s: one is a %T and not a %T", s.kind, object, o)
		}
		all[s.key(o)] = o
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.replace(all)
	return nil
}

// replace is Replace; mu is held.
func (s *store[T, K]) replace(all map[K]T) {
	for key := range s.each {
		if _, is := all[key]; !is {
			s.drop(key)
		}
	}
	for key, o := range all {
		s.set(key, o)
	}
	s.completed(s.kind, true)
}

// Resync does nothing: what is known has been told.
func (s *store[T, K]) Resync() error { return nil }

// end closes the store, and forgets its objects; mu is held. Whether that they are gone is
// all that there is to know of them is the caller's to say.
func (s *store[T, K]) end(complete bool) {
	s.closed = true
	for key := range s.each {
		s.drop(key)
	}
	s.completed(s.kind, complete)
}
