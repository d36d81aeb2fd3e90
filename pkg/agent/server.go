package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// answerTimeout is how long a question waits for the agent. What takes longer
// has hung: no task needs more than a few seconds.
const answerTimeout = 15 * time.Second

// server answers over TCP, and over a socket in the state directory, which
// needs no configuration to be found.
type server struct {
	http      *http.Server
	listeners []net.Listener
}

func (a *Agent) listen() (*server, error) {
	a.metrics.registry.MustRegister(scrape{a})
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", serveHealth(a.do))
	mux.HandleFunc("GET /readyz", a.serveReadiness)
	mux.Handle("GET /metrics", promhttp.HandlerFor(a.metrics.registry, promhttp.HandlerOpts{}))
	s := &server{http: &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}}
	path := SocketPath(a.config.StateDir)
	// The lock says that no other flatnetd uses it.
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("removing old socket: %w", err)
	}
	local, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("listening for `flatnetd status`: %w", err)
	}
	// Who may read the state directory may ask; the status is for the node's
	// administrator alone.
	mux.HandleFunc("GET /status", privately(a.serveStatus))
	mux.HandleFunc("GET /status/"+aboutBrief, privately(a.serveBrief))
	mux.HandleFunc("GET "+statusForPeople, privately(a.serveText))
	for _, f := range a.features {
		for path, page := range f.Pages {
			mux.HandleFunc("GET "+path, privately(page))
		}
	}
	s.listeners = append(s.listeners, local)
	if a.config.Listen != "" {
		l, err := net.Listen("tcp", a.config.Listen)
		if err != nil {
			local.Close()
			return nil, fmt.Errorf("listening at --listen %s: %w", a.config.Listen, err)
		}
		s.listeners = append(s.listeners, l)
	}
	return s, nil
}

// serve answers until ctx ends.
func (s *server) serve(ctx context.Context) error {
	results := make(chan error, len(s.listeners))
	for _, l := range s.listeners {
		go func() { results <- s.http.Serve(l) }()
	}
	stop := context.AfterFunc(ctx, func() { s.http.Close() })
	defer stop()
	var errs []error
	for range s.listeners {
		if err := <-results; !errors.Is(err, http.ErrServerClosed) {
			errs = append(errs, err)
			s.http.Close()
		}
	}
	return errors.Join(errs...)
}

// privately answers over the socket only.
func privately(f http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Context().Value(http.LocalAddrContextKey).(net.Addr).Network() != "unix" {
			http.NotFound(w, r)
			return
		}
		f(w, r)
	}
}

// ask calls f between two tasks of the agent; it answers the request itself
// where the agent is busy for too long.
func ask(w http.ResponseWriter, r *http.Request, do func(context.Context, func()) error, f func()) bool {
	ctx, cancel := context.WithTimeout(r.Context(), answerTimeout)
	defer cancel()
	if err := do(ctx, f); err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return false
	}
	return true
}

// serveHealth says yes while the agent's one goroutine does its work.
func serveHealth(do func(context.Context, func()) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if ask(w, r, do, func() {}) {
			fmt.Fprintln(w, "ok")
		}
	}
}

func (a *Agent) serveReadiness(w http.ResponseWriter, r *http.Request) {
	var reason error
	if !ask(w, r, a.do, func() { reason = a.unready() }) {
		return
	}
	if reason != nil {
		http.Error(w, reason.Error(), http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ready")
}

func (a *Agent) serveStatus(w http.ResponseWriter, r *http.Request) {
	var d document
	if ask(w, r, a.do, func() { d = a.status(r.Context()) }) {
		answer(w, d)
	}
}

// aboutBrief is where, below /status, it is without what grows with the cluster.
const aboutBrief = "brief"

func (a *Agent) serveBrief(w http.ResponseWriter, r *http.Request) {
	var d document
	if ask(w, r, a.do, func() { d = a.status(r.Context()) }) {
		d.brief = true
		answer(w, d)
	}
}

// statusForPeople is where the status is text.
const statusForPeople = "/status/text"

func (a *Agent) serveText(w http.ResponseWriter, r *http.Request) {
	var d document
	if ask(w, r, a.do, func() { d = a.status(r.Context()) }) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		d.print(w, time.Now())
	}
}

func answer(w http.ResponseWriter, with any) {
	w.Header().Set("Content-Type", "application/json")
	// The reader may have gone away.
	_ = printJSON(w, with)
}
