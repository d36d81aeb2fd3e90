// Package apiserver answers list and watch of Nodes as a Kubernetes API server does,
// over HTTP, in JSON or protobuf, for tests and benchmarks. It can go away and come
// back, refuse, and forget.
package apiserver

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/scheme"
)

// Server is an API server that knows Nodes only. Its methods may be called from
// several goroutines.
type Server struct {
	// Streams says that lists can be streamed (WatchList), as since Kubernetes
	// 1.32; else asking for that is answered as by an older API server.
	Streams bool
	// Protobuf answers in protobuf who asks for it; everybody else, and everybody
	// where it is false, gets JSON.
	Protobuf bool

	mu        sync.Mutex
	more      *sync.Cond // an event, or the server goes away
	nodes     map[string]*v1.Node
	version   int
	compacted int // events up to this version are forgotten
	events    []event
	refusal   *metav1.Status // answered to all
	server    *http.Server
	calls     []string
}

type event struct {
	version int
	kind    watch.EventType
	node    *v1.Node
}

// New returns a server without Nodes, that does not serve yet.
func New() *Server {
	s := &Server{nodes: make(map[string]*v1.Node), version: 10, compacted: 10}
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

// Put creates or changes a Node.
func (s *Server) Put(n *v1.Node) {
	s.mu.Lock()
	defer s.mu.Unlock()
	kind := watch.Added
	if s.nodes[n.Name] != nil {
		kind = watch.Modified
	}
	s.version++
	n = n.DeepCopy()
	n.ResourceVersion = strconv.Itoa(s.version)
	s.nodes[n.Name] = n
	s.events = append(s.events, event{s.version, kind, n})
	s.more.Broadcast()
}

// Remove deletes a Node.
func (s *Server) Remove(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.version++
	n := s.nodes[name].DeepCopy()
	n.ResourceVersion = strconv.Itoa(s.version)
	delete(s.nodes, name)
	s.events = append(s.events, event{s.version, watch.Deleted, n})
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

// ServeHTTP implements [http.Handler]. Without Serve, watches end at once.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	watching, streaming := query.Get("watch") != "", query.Get("sendInitialEvents") != ""
	out := s.writer(w, r, watching)
	s.mu.Lock()
	defer s.mu.Unlock()
	call := r.Method + " " + r.URL.Path
	if watching {
		call += " watch"
	}
	s.calls = append(s.calls, call)
	switch {
	case r.Method != http.MethodGet || r.URL.Path != "/api/v1/nodes":
		refuse(w, &metav1.Status{Code: http.StatusForbidden, Reason: metav1.StatusReasonForbidden, Message: call + " is more than get, list and watch of nodes"})
	case s.refusal != nil:
		refuse(w, s.refusal)
	case !watching:
		list := &v1.NodeList{ListMeta: metav1.ListMeta{ResourceVersion: strconv.Itoa(s.version)}}
		for _, n := range s.nodes {
			list.Items = append(list.Items, *n)
		}
		out.list(list)
	case streaming && !s.Streams:
		refuse(w, &metav1.Status{Code: http.StatusUnprocessableEntity, Reason: metav1.StatusReasonInvalid, Message: "sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled"})
	default:
		from, _ := strconv.Atoi(query.Get("resourceVersion"))
		if streaming {
			for _, n := range s.nodes {
				out.event(watch.Added, n)
			}
			from = s.version
			out.event(watch.Bookmark, &v1.Node{ObjectMeta: metav1.ObjectMeta{
				ResourceVersion: strconv.Itoa(s.version),
				Annotations:     map[string]string{metav1.InitialEventsAnnotationKey: "true"},
			}})
		}
		s.follow(out, from)
	}
}

// follow sends the events after a version until the server goes away.
func (s *Server) follow(out *writer, from int) {
	server := s.server
	for s.server == server && s.server != nil {
		if from < s.compacted {
			out.event(watch.Error, &metav1.Status{Status: metav1.StatusFailure, Code: http.StatusGone, Reason: metav1.StatusReasonExpired, Message: "too old resource version"})
			out.flush()
			return
		}
		for _, e := range s.events {
			if e.version > from {
				out.event(e.kind, e.node)
				from = e.version
			}
		}
		out.flush()
		s.more.Wait()
	}
}

// writer answers one call in the format that was asked for.
type writer struct {
	http.ResponseWriter
	format runtime.SerializerInfo
}

func (s *Server) writer(w http.ResponseWriter, r *http.Request, watching bool) *writer {
	mediaType := runtime.ContentTypeJSON
	if s.Protobuf && strings.Contains(r.Header.Get("Accept"), runtime.ContentTypeProtobuf) {
		mediaType = runtime.ContentTypeProtobuf
	}
	format, _ := runtime.SerializerInfoForMediaType(scheme.Codecs.SupportedMediaTypes(), mediaType)
	if watching && mediaType != runtime.ContentTypeJSON {
		mediaType += ";stream=watch"
	}
	w.Header().Set("Content-Type", mediaType)
	return &writer{w, format}
}

func (w *writer) list(list *v1.NodeList) {
	// An answer that cannot be written is missed by who waits for it.
	_ = encoder(w.format.Serializer).Encode(list, w)
}

func (w *writer) event(kind watch.EventType, object runtime.Object) {
	raw, err := runtime.Encode(encoder(w.format.Serializer), object)
	if err != nil {
		panic(fmt.Sprintf("apiserver: encoding %T: %v", object, err))
	}
	frames := w.format.StreamSerializer.NewFrameWriter(w)
	_ = encoder(w.format.StreamSerializer.Serializer).Encode(&metav1.WatchEvent{Type: string(kind), Object: runtime.RawExtension{Raw: raw}}, frames)
}

func (w *writer) flush() { w.ResponseWriter.(http.Flusher).Flush() }

func encoder(s runtime.Encoder) runtime.Encoder {
	return scheme.Codecs.EncoderForVersion(s, v1.SchemeGroupVersion)
}

// refuse answers in JSON, which every client reads.
func refuse(w http.ResponseWriter, status *metav1.Status) {
	w.Header().Set("Content-Type", runtime.ContentTypeJSON)
	status.TypeMeta = metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}
	status.Status = metav1.StatusFailure
	w.WriteHeader(int(status.Code))
	json.NewEncoder(w).Encode(status)
}
