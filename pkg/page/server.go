package page

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"
)

//go:embed assets
var assets embed.FS

// Server serves the page.
type Server struct {
	// Source is asked.
	Source Source
	// Parallel is how many nodes are asked at a time.
	Parallel int
	// Interval is how long what was found out is good for; 0: as long as suits the number
	// of nodes.
	Interval time.Duration

	mu       sync.Mutex
	nodes    []Node // as of the last overview
	overview look
	details  map[string]*look // by what is asked about, and the node or ""
}

// New returns a server of what a source says.
func New(s Source) *Server {
	server := &Server{Source: s, Parallel: 100, details: map[string]*look{}}
	server.overview = look{take: server.takeOverview, pause: func() time.Duration { return server.pause(perNode) }}
	return server
}

// What one question to every node adds to the time until the next. One for a few numbers
// costs an agent next to nothing, and the API server a connection.
const (
	shortest  = 3 * time.Second
	perNode   = 30 * time.Millisecond
	perDetail = 60 * time.Millisecond
)

func (s *Server) pause(each time.Duration) time.Duration {
	if s.Interval > 0 {
		return s.Interval
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return max(shortest, time.Duration(len(s.nodes))*each)
}

// takeOverview asks, and notes who can be asked for more.
func (s *Server) takeOverview(ctx context.Context) any {
	o, err := s.Source.Overview(ctx)
	if err != nil {
		return failure{err.Error()}
	}
	if o.Nodes == nil {
		o.Nodes = []Node{}
	}
	if o.Findings == nil {
		o.Findings = []Finding{}
	}
	o.sumUp()
	s.mu.Lock()
	s.nodes = o.Nodes
	s.mu.Unlock()
	return o
}

// failure is in the place of a document that cannot be had.
type failure struct {
	Failure string `json:"failure"`
}

// handler answers everything but who may not ask.
func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	files, err := fs.Sub(assets, "assets")
	if err != nil {
		panic("page: its own files: " + err.Error())
	}
	mux.Handle("GET /", http.FileServerFS(files))
	mux.HandleFunc("GET /data", func(w http.ResponseWriter, r *http.Request) { serve(w, r, &s.overview) })
	mux.HandleFunc("GET /ask", s.ask)
	return mux
}

// ask answers what the agents say about something, all of them or one.
func (s *Server) ask(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	about, node, pod := About(query.Get("about")), query.Get("node"), query.Get("pod")
	condense := condensers[about]
	if condense == nil {
		http.Error(w, "agents know nothing about that", http.StatusNotFound)
		return
	}
	if about == Flows && (node == "" || pod == "") {
		http.Error(w, "flows are those of a pod: name it, and its node", http.StatusBadRequest)
		return
	}
	// Who answers is known by the overview.
	if _, err := s.overview.get(r.Context()); err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	nodes := s.answering(about, node)
	if node != "" && len(nodes) == 0 {
		http.Error(w, "there is no such node that answers", http.StatusNotFound)
		return
	}
	serve(w, r, s.detail(about, node, pod, condense))
}

// detail is the look at something, of all nodes for "".
func (s *Server) detail(about About, node, pod string, condense condenser) *look {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := string(about) + " " + node + " " + pod
	l := s.details[key]
	if l == nil {
		if len(s.details) > mostDetails {
			clear(s.details) // whoever looks asks again
		}
		l = &look{
			take: func(ctx context.Context) any {
				return s.gather(ctx, s.answering(about, node), about, pod, condense, node != "")
			},
			pause: func() time.Duration {
				if node != "" {
					return shortest
				}
				return s.pause(perDetail)
			},
		}
		s.details[key] = l
	}
	return l
}

// mostDetails bounds what is kept of single nodes.
const mostDetails = 64

// knows reports whether there is something that the node's agent can say: who does not
// speak BGP is not asked about it.
func (n Node) knows(about About) bool {
	switch about {
	case BGP:
		return n.BGP != nil
	case Balancers:
		return n.Balancer != nil
	}
	return true
}

// answering are the nodes that can be asked, or the one of a name.
func (s *Server) answering(about About, node string) (all []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range s.nodes {
		if n.Answers && n.knows(about) && (node == "" || n.Name == node) {
			all = append(all, n.Name)
		}
	}
	return all
}

// serve answers with what is known, unless the browser has it already.
func serve(w http.ResponseWriter, r *http.Request, l *look) {
	found, err := l.get(r.Context())
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("ETag", found.tag)
	age := time.Since(found.at)
	h.Set("X-Age", strconv.FormatInt(age.Milliseconds(), 10))
	h.Set("X-Next", strconv.FormatInt(max(0, found.good-age).Milliseconds(), 10))
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(found.text))
}

// PortFlag defines the flag that says where a program serves the page.
func PortFlag(set *flag.FlagSet) (port *int) {
	return set.Int("port", 0, "listen at this `port` of 127.0.0.1; default: a free one")
}

// Listen listens on a port of the loopback interface; on a free one for 0.
func Listen(port int) (net.Listener, error) {
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return nil, fmt.Errorf("listening at --port %d: %w", port, err)
	}
	return l, nil
}

// Announce prints the address for the reader.
func Announce(out io.Writer, address string) error {
	_, err := fmt.Fprintf(out, "%s\nIt is for you alone: whoever has this address sees what you may. Ctrl-C ends it.\n", address)
	return err
}

// Serve serves until ctx ends. It tells the address that the reader opens.
func (s *Server) Serve(ctx context.Context, l net.Listener, tell func(address string) error) error {
	g := newGuard(s.handler())
	server := &http.Server{Handler: g, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute, BaseContext: func(net.Listener) context.Context { return ctx }}
	defer context.AfterFunc(ctx, func() { server.Close() })()
	defer server.Close()
	if err := tell("http://" + l.Addr().String() + g.entry()); err != nil {
		l.Close()
		return err
	}
	if err := server.Serve(l); err != nil && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving the page: %w", err)
	}
	return nil
}
