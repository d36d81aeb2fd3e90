package service

import (
	"iter"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/flatnet-cni/flatnet/pkg/apiwatch"
	"github.com/flatnet-cni/flatnet/pkg/loop"
)

// Batch is what has changed since the last one.
type Batch struct {
	// Set are Services as they are now, with all their slices; Deleted are
	// those that are no more.
	Set     []Service
	Deleted []Name
	// Triggered are when the changes of EndpointSlices happened that are in the
	// batch, as far as they say.
	Triggered []time.Time
}

// Changes counts what a source has told since it began.
type Changes struct {
	// Services and Slices are how many changes of Services and EndpointSlices the
	// API server has told, whether they matter or not.
	Services, Slices uint64
	// PendingServices are the Services with changes that matter and were not taken
	// yet; PendingSlices such changes of EndpointSlices.
	PendingServices, PendingSlices uint64
	// Last is when a change that matters was told; zero if none was.
	Last time.Time
}

// listed is what the API server has told of Services and EndpointSlices: what the
// network needs of them and nothing else.
type listed struct {
	changed loop.Signal // has one element after a change that matters
	labels  bool        // Services keep theirs

	mu       sync.Mutex
	services map[Name]Service // without slices
	slices   map[Name][]Slice // by the Service, sorted by name; what was handed over is not written to
	owners   map[Name]Name    // of slices, the Service
	complete [2]bool          // Services, and EndpointSlices, were listed
	dirty    map[Name]bool    // Services; true where more than slices has changed
	trigger  []time.Time
	seen     [2]uint64 // changes of Services, and EndpointSlices, that were told
	marked   [2]uint64 // those of them that matter
	taken    uint64    // of the EndpointSlices' that matter
	last     time.Time // when one that matters was told
}

func newListed() *listed {
	return &listed{
		changed: loop.NewSignal(), services: map[Name]Service{},
		slices: map[Name][]Slice{}, owners: map[Name]Name{}, dirty: map[Name]bool{},
	}
}

// known reports whether everything was listed.
func (l *listed) known() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.complete == [2]bool{true, true}
}

// take returns what has changed since it was last called. Before everything is
// known that is nothing: half of a cluster is not what anybody wants.
func (l *listed) take() Batch {
	l.mu.Lock()
	defer l.mu.Unlock()
	var b Batch
	if l.complete != [2]bool{true, true} {
		return b
	}
	for name := range l.dirty {
		s, is := l.services[name]
		if !is {
			b.Deleted = append(b.Deleted, name)
			continue
		}
		s.Slices = l.slices[name]
		b.Set = append(b.Set, s)
	}
	b.Triggered = l.trigger
	l.dirty, l.trigger, l.taken = map[Name]bool{}, nil, l.marked[ofSlices]
	return b
}

// The kinds of objects.
const (
	ofServices = iota
	ofSlices
)

// mark notes that a Service has changed, by an object of a kind.
func (l *listed) mark(name Name, kind int) {
	l.dirty[name] = l.dirty[name] || kind == ofServices
	l.marked[kind]++
	l.last = time.Now()
	l.tell()
}

// changes counts what was told.
func (l *listed) changes() Changes {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := Changes{Services: l.seen[ofServices], Slices: l.seen[ofSlices], PendingSlices: l.marked[ofSlices] - l.taken, Last: l.last}
	for _, itself := range l.dirty {
		if itself {
			c.PendingServices++
		}
	}
	return c
}

func (l *listed) tell() {
	l.changed.Give()
}

// setService notes a Service as it is now.
func (l *listed) setService(o *v1.Service) {
	s, balanced := FromService(o)
	if !balanced {
		l.deleteService(s.Name)
		return
	}
	if !l.labels {
		s.Labels = nil
	}
	if before, known := l.services[s.Name]; known && reflect.DeepEqual(before, s) {
		return // of a concern that is not ours
	}
	l.services[s.Name] = s
	l.mark(s.Name, ofServices)
}

func (l *listed) deleteService(name Name) {
	if _, known := l.services[name]; known {
		delete(l.services, name)
		l.mark(name, ofServices)
	}
}

// setSlice notes an EndpointSlice as it is now.
func (l *listed) setSlice(o *discovery.EndpointSlice) {
	at := Name{o.Namespace, o.Name}
	owner, s, counts := FromSlice(o)
	if before, known := l.owners[at]; known && (!counts || before != owner) {
		l.deleteSlice(at)
	}
	if !counts {
		return
	}
	var before Slice
	all := l.slices[owner]
	i, known := l.place(owner, s.Name)
	if known {
		if before = all[i]; before.equal(s) {
			return
		}
		all = slices.Clone(all)
		all[i] = s
	} else {
		all = slices.Insert(slices.Clip(all), i, s)
	}
	l.slices[owner], l.owners[at] = all, owner
	// The same time twice is of a change that is done.
	if !s.Triggered.IsZero() && !s.Triggered.Equal(before.Triggered) {
		l.trigger = append(l.trigger, s.Triggered)
	}
	l.mark(owner, ofSlices)
}

func (l *listed) deleteSlice(at Name) {
	owner, known := l.owners[at]
	if !known {
		return
	}
	delete(l.owners, at)
	if all := l.slices[owner]; len(all) > 1 {
		i, _ := l.place(owner, at.Name)
		l.slices[owner] = slices.Delete(slices.Clone(all), i, i+1)
	} else {
		delete(l.slices, owner)
	}
	l.mark(owner, ofSlices)
}

// place returns where a Service's slice of a name is, or would be.
func (l *listed) place(owner Name, name string) (place int, is bool) {
	return slices.BinarySearchFunc(l.slices[owner], name, func(s Slice, name string) int { return strings.Compare(s.Name, name) })
}

// equal reports whether two versions of a slice say the same.
func (s Slice) equal(o Slice) bool {
	return slices.Equal(s.Ports, o.Ports) && slices.EqualFunc(s.Endpoints, o.Endpoints, Endpoint.equal)
}

// equal reports whether the same is said of two endpoints.
func (e Endpoint) equal(o Endpoint) bool {
	hints := e.Hints == o.Hints || e.Hints != nil && o.Hints != nil && slices.Equal(e.Hints.Zones, o.Hints.Zones) && slices.Equal(e.Hints.Nodes, o.Hints.Nodes)
	e.Hints, o.Hints = nil, nil
	return hints && e == o
}

func serviceStore(l *listed) apiwatch.Store[*v1.Service] {
	return storeOf(l, ofServices, l.setService, l.deleteService, maps.Keys(l.services))
}

func sliceStore(l *listed) apiwatch.Store[*discovery.EndpointSlice] {
	return storeOf(l, ofSlices, l.setSlice, l.deleteSlice, maps.Keys(l.owners))
}

// storeOf is the store of a reflector of one kind of object.
func storeOf[T metav1.Object](l *listed, kind int, set func(T), drop func(Name), known iter.Seq[Name]) apiwatch.Store[T] {
	name := func(o T) Name { return Name{o.GetNamespace(), o.GetName()} }
	counted := func(f func(T)) func(T) {
		return func(o T) {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.seen[kind]++
			f(o)
		}
	}
	return apiwatch.Store[T]{
		Set: counted(set), Drop: counted(func(o T) { drop(name(o)) }),
		Replaced: func(all []T) {
			these := make(map[Name]bool, len(all))
			l.mu.Lock()
			defer l.mu.Unlock()
			before := l.marked[kind]
			for _, o := range all {
				these[name(o)] = true
				set(o)
			}
			for one := range known {
				if !these[one] {
					drop(one)
				}
			}
			l.seen[kind] += l.marked[kind] - before // what is in a list and the same is no change
			l.complete[kind] = true
			l.tell()
		},
	}
}
