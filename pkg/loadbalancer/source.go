package loadbalancer

import (
	"context"
	"net/netip"
	"reflect"
	"slices"
	"sync"

	v1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/flatnet-cni/flatnet/pkg/apiwatch"
	"github.com/flatnet-cni/flatnet/pkg/loop"
	"github.com/flatnet-cni/flatnet/pkg/service"
)

// Source is what the API server tells of Services that have addresses of load balancers
// or are to have some, and of the nodes with endpoints of Services.
type Source struct {
	client *apiwatch.Client
	watch  *service.Watch

	mu       sync.Mutex
	complete [2]bool
	services map[service.Name]*Service
	slices   map[service.Name]map[string]service.Slice // by the Service and the slice's name
	owners   map[service.Name]service.Name             // of slices, the Service
	given    []loop.Signal                             // who gives addresses
	answered []loop.Signal                             // who answers for them
}

// The kinds of objects.
const (
	ofServices = iota
	ofSlices
)

// NewSource returns a source of what a watch tells, which does not run yet. Client is asked
// for what a watch may be behind of.
func NewSource(client *apiwatch.Client, w *service.Watch) *Source {
	s := &Source{
		client: client, watch: w,
		services: map[service.Name]*Service{}, slices: map[service.Name]map[string]service.Slice{}, owners: map[service.Name]service.Name{},
	}
	w.Tell(true, storeOf(s, ofServices, s.setService, s.dropService, s.keepServices), storeOf(s, ofSlices, s.setSlice, s.dropSlice, s.keepSlices))
	return s
}

// Changed returns a signal that is given after a change of what Services returns.
func (s *Source) Changed() loop.Signal {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.given = append(s.given, loop.NewSignal())
	return s.given[len(s.given)-1]
}

// HeldChanged returns one that is given after a change of the addresses that Services have,
// and of who may answer for them: of all that changes, that is little.
func (s *Source) HeldChanged() loop.Signal {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answered = append(s.answered, loop.NewSignal())
	return s.answered[len(s.answered)-1]
}

// Run watches until ctx ends.
func (s *Source) Run(ctx context.Context) { s.watch.Run(ctx) }

// Known reports whether everything was listed.
func (s *Source) Known() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.complete == [2]bool{true, true}
}

// Check says what is wrong with the watches, nil if nothing.
func (s *Source) Check() error { return s.watch.Check() }

// Services returns all that matter.
func (s *Source) Services() []*Service {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*Service, 0, len(s.services))
	for _, one := range s.services {
		all = append(all, one)
	}
	return all
}

// Catch brings what is known up to what the API server has now: a watch may be behind.
func (s *Source) Catch(ctx context.Context) error {
	return s.client.EveryService(ctx, func(o *v1.Service) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.setService(o)
	})
}

// Assume notes what was written of a Service, before the watch brings it: whatever that
// brings next of the Service is this, or newer.
func (s *Source) Assume(of *Service, held []netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := s.services[of.Name]; now != of {
		return // the watch was faster
	}
	assumed := *of
	assumed.Held = held
	s.services[of.Name] = &assumed
	tell(s.answered) // the watch is then no news
}

// Nodes returns the nodes with endpoints of a Service that take connections: those that
// are ready, or else those that still serve while they end.
func (s *Source) Nodes(of service.Name) map[string]bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	ready, ending := map[string]bool{}, map[string]bool{}
	for _, slice := range s.slices[of] {
		for _, e := range slice.Endpoints {
			switch {
			case e.Node == "":
			case e.Ready:
				ready[e.Node] = true
			case e.Serving && e.Terminating:
				ending[e.Node] = true
			}
		}
	}
	if len(ready) > 0 {
		return ready
	}
	return ending
}

// give says that a Service is another one than before; nil is none.
func (s *Source) give(before, now *Service) {
	tell(s.given)
	if !before.answeredAs(now) {
		tell(s.answered)
	}
}

func tell(all []loop.Signal) {
	for _, t := range all {
		t.Give()
	}
}

// answeredAs reports whether the same nodes may answer for the same addresses.
func (s *Service) answeredAs(o *Service) bool {
	if s.has() == 0 && o.has() == 0 {
		return true
	}
	return s != nil && o != nil && s.LoadBalancer == o.LoadBalancer && s.HasClass == o.HasClass && s.OtherClass == o.OtherClass &&
		s.Local() == o.Local() && slices.Equal(s.Held, o.Held)
}

// has is how many addresses it has.
func (s *Service) has() int {
	if s == nil {
		return 0
	}
	return len(s.Held)
}

// moved says that a Service has endpoints on other nodes: of interest where these alone may
// answer.
func (s *Source) moved(of service.Name) {
	if o := s.services[of]; o.has() > 0 && o.Local() {
		tell(s.answered)
	}
}

// setService notes a Service as it is now, or as it was: what is older than what is known
// is no news.
func (s *Source) setService(o *v1.Service) {
	fresh, matters := FromService(o)
	before, known := s.services[fresh.Name]
	switch {
	case known && apiwatch.Older(fresh.Version, before.Version):
	case !matters && known:
		delete(s.services, fresh.Name)
		s.give(before, nil)
	case matters && known && reflect.DeepEqual(withVersion(*before, fresh.Version), *fresh):
		s.services[fresh.Name] = fresh
	case matters:
		s.services[fresh.Name] = fresh
		s.give(before, fresh)
	}
}

func withVersion(s Service, version string) Service {
	s.Version = version
	return s
}

func (s *Source) dropService(o *v1.Service) {
	name := service.Name{Namespace: o.Namespace, Name: o.Name}
	if before, known := s.services[name]; known && !apiwatch.Older(o.ResourceVersion, before.Version) {
		delete(s.services, name)
		s.give(before, nil)
	}
}

func (s *Source) keepServices(these map[service.Name]bool) {
	for name := range s.services {
		if !these[name] {
			delete(s.services, name)
		}
	}
}

func (s *Source) setSlice(o *discovery.EndpointSlice) {
	at := service.Name{Namespace: o.Namespace, Name: o.Name}
	owner, slice, counts := service.FromSlice(o)
	if before, known := s.owners[at]; known && (!counts || before != owner) {
		s.dropSlice(o)
	}
	if !counts {
		return
	}
	// Of an endpoint only where it is, and whether it serves; and each node once.
	few := make([]service.Endpoint, 0, 1)
	for _, e := range slice.Endpoints {
		e = service.Endpoint{Node: e.Node, Ready: e.Ready, Serving: e.Serving, Terminating: e.Terminating}
		if !slices.Contains(few, e) {
			few = append(few, e)
		}
	}
	before, known := s.slices[owner][slice.Name]
	if known && slices.Equal(before.Endpoints, few) {
		return
	}
	if s.slices[owner] == nil {
		s.slices[owner] = map[string]service.Slice{}
	}
	s.slices[owner][slice.Name], s.owners[at] = service.Slice{Name: slice.Name, Endpoints: few}, owner
	s.moved(owner)
}

func (s *Source) dropSlice(o *discovery.EndpointSlice) {
	s.forgetSlice(service.Name{Namespace: o.Namespace, Name: o.Name})
}

func (s *Source) forgetSlice(at service.Name) {
	owner, known := s.owners[at]
	if !known {
		return
	}
	delete(s.owners, at)
	delete(s.slices[owner], at.Name)
	if len(s.slices[owner]) == 0 {
		delete(s.slices, owner)
	}
	s.moved(owner)
}

func (s *Source) keepSlices(these map[service.Name]bool) {
	for at := range s.owners {
		if !these[at] {
			s.forgetSlice(at)
		}
	}
}

// storeOf is the store of a reflector of one kind of object; keep forgets all but these.
func storeOf[T metav1.Object](s *Source, kind int, set, drop func(T), keep func(map[service.Name]bool)) apiwatch.Store[T] {
	locked := func(f func(T)) func(T) {
		return func(o T) {
			s.mu.Lock()
			defer s.mu.Unlock()
			f(o)
		}
	}
	return apiwatch.Store[T]{Set: locked(set), Drop: locked(drop), Replaced: func(all []T) {
		these := make(map[service.Name]bool, len(all))
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, o := range all {
			these[service.Name{Namespace: o.GetNamespace(), Name: o.GetName()}] = true
			set(o)
		}
		keep(these)
		s.complete[kind] = true
		tell(s.given) // all may be known now
		tell(s.answered)
	}}
}
