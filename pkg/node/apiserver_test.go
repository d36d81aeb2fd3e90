package node

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// apiServer answers list and watch of Nodes as an API server does, in JSON, on
// a socket in the test's directory. It can go away and come back.
type apiServer struct {
	t       *testing.T
	socket  string
	streams bool // lists can be streamed (WatchList)

	mu        sync.Mutex
	more      *sync.Cond // an event, or the server goes away
	nodes     map[string]*v1.Node
	version   int
	compacted int // events up to this version are forgotten
	events    []apiEvent
	refusal   *metav1.Status // answered to all
	server    *http.Server
	calls     []string
}

type apiEvent struct {
	version int
	kind    watch.EventType
	node    *v1.Node
}

func newAPIServer(t *testing.T, streams bool) *apiServer {
	s := &apiServer{t: t, streams: streams, socket: filepath.Join(t.TempDir(), "api"), nodes: make(map[string]*v1.Node), version: 10, compacted: 10}
	s.more = sync.NewCond(&s.mu)
	t.Cleanup(s.stop)
	return s
}

// client returns a client of the server, whether it is there or not.
func (s *apiServer) client() kubernetes.Interface {
	s.t.Helper()
	client, err := kubernetes.NewForConfig(&rest.Config{
		Host:      "http://apiserver",
		Transport: &http.Transport{DialContext: (&dialer{s.socket}).dial},
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return client
}

// start makes the server answer.
func (s *apiServer) start() {
	s.t.Helper()
	os.Remove(s.socket)
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: s.socket, Net: "unix"})
	if err != nil {
		s.t.Fatal(err)
	}
	// Nobody listening is then "connection refused", as with TCP.
	listener.SetUnlinkOnClose(false)
	server := &http.Server{Handler: s}
	s.mu.Lock()
	s.server = server
	s.mu.Unlock()
	go server.Serve(listener)
}

// stop makes the server go away, and all connections with it.
func (s *apiServer) stop() {
	s.mu.Lock()
	server := s.server
	s.server = nil
	s.more.Broadcast()
	s.mu.Unlock()
	if server != nil {
		server.Close()
	}
}

// refuse answers everything with a status; nil ends that.
func (s *apiServer) refuse(status *metav1.Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refusal = status
}

// put creates or changes a Node.
func (s *apiServer) put(n *v1.Node) {
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
	s.events = append(s.events, apiEvent{s.version, kind, n})
	s.more.Broadcast()
}

// remove deletes a Node.
func (s *apiServer) remove(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.version++
	n := s.nodes[name].DeepCopy()
	n.ResourceVersion = strconv.Itoa(s.version)
	delete(s.nodes, name)
	s.events = append(s.events, apiEvent{s.version, watch.Deleted, n})
	s.more.Broadcast()
}

// compact forgets all events, so that who watches from before must list anew.
func (s *apiServer) compact() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.compacted = s.version
	s.events = nil
}

// called returns the calls answered since it was last asked.
func (s *apiServer) called() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	calls := s.calls
	s.calls = nil
	return calls
}

func (s *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	query := r.URL.Query()
	s.mu.Lock()
	defer s.mu.Unlock()
	call := r.Method + " " + r.URL.Path
	if query.Get("watch") != "" {
		call += " watch"
	}
	s.calls = append(s.calls, call)
	switch {
	case r.Method != http.MethodGet || r.URL.Path != "/api/v1/nodes":
		answer(w, &metav1.Status{Code: http.StatusForbidden, Reason: metav1.StatusReasonForbidden, Message: call + " is more than get, list and watch of nodes"})
	case s.refusal != nil:
		answer(w, s.refusal)
	case query.Get("watch") == "":
		list := v1.NodeList{TypeMeta: metav1.TypeMeta{Kind: "NodeList", APIVersion: "v1"}, ListMeta: metav1.ListMeta{ResourceVersion: strconv.Itoa(s.version)}}
		for _, n := range s.nodes {
			list.Items = append(list.Items, *n)
		}
		json.NewEncoder(w).Encode(list)
	case query.Get("sendInitialEvents") != "" && !s.streams:
		answer(w, &metav1.Status{Code: http.StatusUnprocessableEntity, Reason: metav1.StatusReasonInvalid, Message: "sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled"})
	default:
		from, _ := strconv.Atoi(query.Get("resourceVersion"))
		if query.Get("sendInitialEvents") != "" {
			for _, n := range s.nodes {
				send(w, watch.Added, n)
			}
			from = s.version
			send(w, watch.Bookmark, &v1.Node{ObjectMeta: metav1.ObjectMeta{
				ResourceVersion: strconv.Itoa(s.version),
				Annotations:     map[string]string{metav1.InitialEventsAnnotationKey: "true"},
			}})
		}
		s.follow(w, from)
	}
}

// follow sends the events after a version until the server goes away.
func (s *apiServer) follow(w http.ResponseWriter, from int) {
	server := s.server
	w.(http.Flusher).Flush()
	for s.server == server && s.server != nil {
		if from < s.compacted {
			sendObject(w, watch.Error, &metav1.Status{Status: "Failure", Code: http.StatusGone, Reason: metav1.StatusReasonExpired, Message: "too old resource version"})
			return
		}
		for _, e := range s.events {
			if e.version > from {
				send(w, e.kind, e.node)
				from = e.version
			}
		}
		s.more.Wait()
	}
}

func send(w http.ResponseWriter, kind watch.EventType, n *v1.Node) {
	n = n.DeepCopy()
	n.TypeMeta = metav1.TypeMeta{Kind: "Node", APIVersion: "v1"}
	sendObject(w, kind, n)
}

func sendObject(w http.ResponseWriter, kind watch.EventType, object any) {
	raw, err := json.Marshal(object)
	if err != nil {
		panic(err)
	}
	fmt.Fprintf(w, `{"type":%q,"object":%s}`+"\n", kind, raw)
	w.(http.Flusher).Flush()
}

func answer(w http.ResponseWriter, status *metav1.Status) {
	status.TypeMeta = metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}
	status.Status = metav1.StatusFailure
	w.WriteHeader(int(status.Code))
	json.NewEncoder(w).Encode(status)
}
