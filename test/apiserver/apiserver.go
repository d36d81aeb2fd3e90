// Package apiserver answers list and watch of Nodes, Pods, Namespaces, NetworkPolicies,
// Services, EndpointSlices, DaemonSets, ConfigMaps, Leases and ServiceCIDRs as a Kubernetes API server does, and stores
// Events, over HTTP, in JSON or protobuf, for tests and benchmarks. It can go away and come back, refuse, and forget.
package apiserver

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
)

// Server is an API server. Its methods may be called from several goroutines.
type Server struct {
	// Streams says that lists can be streamed (WatchList), as since Kubernetes
	// 1.32; else asking for that is answered as by an older API server.
	Streams bool
	// Protobuf answers in protobuf who asks for it; everybody else, and everybody
	// where it is false, gets JSON.
	Protobuf bool
	// Execute executes what somebody wants executed in a pod; without it that is refused.
	Execute func(context.Context, *Execution)
	// NoWebsockets executes over SPDY only, as an older API server does.
	NoWebsockets bool
	// Admit lets somebody create an object, and may change it, or says why not; without it
	// nothing but Events can be created, and nothing be deleted.
	Admit func(Object) *metav1.Status
	// Controllers lets Leases be created and deleted, and them and the status of others be
	// changed by JSON merge patches.
	Controllers bool
	// Log returns what a pod has logged, before its last restart where previous is true;
	// without it that is refused.
	Log func(namespace, pod string, previous bool) string

	mu        sync.Mutex
	more      *sync.Cond // an event, or the server goes away
	objects   map[*resource]map[types.NamespacedName]Object
	version   int
	compacted int // events up to this version are forgotten
	events    []event
	refusal   *metav1.Status // answered to all
	server    *http.Server
	calls     []string
}

// Object is one that the server knows: a *v1.Node, *v1.Pod, *v1.Namespace, *v1.Service,
// *v1.Event, *networking.NetworkPolicy, *discovery.EndpointSlice, *apps.DaemonSet, *v1.ConfigMap, *coordination.Lease or
// *networking.ServiceCIDR.
type Object interface {
	runtime.Object
	metav1.Object
}

// event is a change of an object. Nobody writes to those that are in events.
type event struct {
	version       int
	of            *resource
	before, after Object // nil where there was none, or is none
}

// New returns a server without objects, that does not serve yet.
func New() *Server {
	s := &Server{objects: map[*resource]map[types.NamespacedName]Object{}, version: 10, compacted: 10}
	for i := range resources {
		s.objects[&resources[i]] = map[types.NamespacedName]Object{}
	}
	s.more = sync.NewCond(&s.mu)
	return s
}

// Serve answers what comes to the listener, until Stop.
func (s *Server) Serve(l net.Listener) {
	server := &http.Server{Handler: s}
	s.mu.Lock()
	s.server = server
	s.mu.Unlock()
	go server.Serve(l)
}

// Stop makes the server go away, and all connections and the listener with it.
func (s *Server) Stop() {
	s.mu.Lock()
	server := s.server
	s.server = nil
	s.more.Broadcast()
	s.mu.Unlock()
	if server != nil {
		server.Close()
	}
}

// Refuse answers everything with a status; nil ends that.
func (s *Server) Refuse(status *metav1.Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refusal = status
}

// Put creates or changes an object.
func (s *Server) Put(o Object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.note(o, true)
}

// Remove deletes the object of this one's kind and name.
func (s *Server) Remove(o Object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.note(o, false)
}

// create is Put where there is no object of the kind and name.
func (s *Server) create(o Object) bool {
	of, name := place(o)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.objects[of][name] != nil {
		return false
	}
	s.note(o, true)
	return true
}

// Events returns those that were posted.
func (s *Server) Events() []*v1.Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []*v1.Event
	for _, o := range s.objects[resourceOf(&v1.Event{})] {
		all = append(all, o.(*v1.Event).DeepCopy())
	}
	return all
}

func place(o Object) (*resource, types.NamespacedName) {
	of := resourceOf(o)
	if of == nil {
		panic(fmt.Sprintf("apiserver: %T is not known here", o))
	}
	return of, types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetName()}
}

func (s *Server) note(o Object, there bool) {
	of, name := place(o)
	e := event{of: of, before: s.objects[of][name]}
	if !there && e.before == nil {
		return
	}
	s.version++
	e.version = s.version
	if there {
		e.after = o.DeepCopyObject().(Object)
		e.after.SetResourceVersion(strconv.Itoa(s.version))
		s.objects[of][name] = e.after
	} else {
		e.before = e.before.DeepCopyObject().(Object)
		e.before.SetResourceVersion(strconv.Itoa(s.version))
		delete(s.objects[of], name)
	}
	s.events = append(s.events, e)
	s.more.Broadcast()
}

// Compact forgets all events, so that who watches from before must list anew.
func (s *Server) Compact() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.compacted = s.version
	s.events = nil
}

// Calls returns the calls answered since it was last asked: "GET /api/v1/nodes", or
// "GET /api/v1/nodes watch".
func (s *Server) Calls() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	calls := s.calls
	s.calls = nil
	return calls
}

// Get returns the object of this one's kind and name, nil where there is none. Nobody may
// write to it.
func (s *Server) Get(o Object) Object {
	of, name := place(o)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.objects[of][name]
}
