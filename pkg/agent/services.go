package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/flatnet-cni/flatnet/pkg/apiwatch"
	"github.com/flatnet-cni/flatnet/pkg/kernel"
	"github.com/flatnet-cni/flatnet/pkg/problem"
	"github.com/flatnet-cni/flatnet/pkg/service"
)

// services is the agent's part in balancing Services: it tells the controller about
// the node, and looks at what the controller depends on.
type services struct {
	*service.Controller
	config Config
	log    *slog.Logger
	source *service.Kubernetes
	deaf   atomic.Pointer[error] // why nobody can ask for the node's health

	// What follows belongs to the agent's goroutine.
	traces   []string     // of kube-proxy
	routless []netip.Addr // ClusterIPs that the node itself has no route to
}

// resyncsPerComparison is how many times as long as --resync it takes until the
// tables of Services are compared though nothing has happened: that reads every
// element, of which there may be a hundred thousand, and what others do is seen
// at once.
const resyncsPerComparison = 5

// newServices prepares the balancing, in the caller's network namespace.
func (a *Agent) newServices(client *apiwatch.Client) (*services, error) {
	keeper, err := service.NewKeeper(a.log)
	if err != nil {
		return nil, fmt.Errorf("%w: --services needs it", err)
	}
	source := service.NewKubernetes(client, a.log)
	s := &services{Controller: service.NewController(source, keeper, a.log), config: a.config, log: a.log, source: source}
	s.Resync = resyncsPerComparison * a.config.Resync
	s.Observe = service.NewMetrics(a.metrics.registry).Observe
	s.Changed = func() { a.news.ask(servicesTask) }
	s.Reporter = &service.Events{Client: client, Node: a.config.NodeName, Log: a.log}
	return s, nil
}

// run balances until ctx ends.
func (s *services) run(ctx context.Context) error {
	s.Controller.Run(ctx)
	return nil
}

// removeServices removes what a run with --services has left.
func (a *Agent) removeServices() error {
	removed, err := service.Remove()
	for _, what := range removed {
		a.log.Info("removed, because --services is off", "what", what)
	}
	return err
}

// tellServices tells the controller about the node.
func (a *Agent) tellServices() {
	if a.services == nil {
		return
	}
	self, found := a.self()
	if !found {
		return
	}
	var local []netip.Addr
	for _, link := range a.underlay.Links {
		for _, p := range link.Addresses {
			local = append(local, p.Addr())
		}
	}
	n := service.Node{
		Name: self.Name, Zone: self.Zone, Addresses: self.Addresses, PodCIDRs: self.PodCIDRs,
		NodePortAddresses: a.config.NodePortAddresses.Select(self.Addresses, local), ServiceCIDRs: a.config.ServiceCIDRs,
	}
	if !n.Equal(a.served) {
		a.served = n
		a.services.SetNode(n)
	}
}

// look looks at what the balancing depends on.
func (s *services) look() error {
	var err error
	if s.traces, err = service.KubeProxy(); err != nil {
		return err
	}
	s.routless = nil
	for _, ip := range s.Summary().ClusterIPs {
		has, err := kernel.HasRoute(ip)
		if err != nil {
			return err
		}
		if !has {
			s.routless = append(s.routless, ip)
		}
	}
	return nil
}

// unready says why connections to Services may not find their way.
func (s *services) unready() error {
	if summary := s.Summary(); !summary.Synced {
		if summary.Failure != "" {
			return fmt.Errorf("rules of Services are not written: %s", summary.Failure)
		}
		if err := s.source.Check(); err != nil {
			return fmt.Errorf("rules of Services are not written yet: %w", err)
		}
		return errors.New("rules of Services are not written yet")
	}
	if err := s.source.Check(); err != nil {
		return fmt.Errorf("balanced Services may have changed since: %w", err)
	}
	return nil
}

// problems are all that keeps Services from being reached as they should.
func (s *services) problems() []problem.Problem {
	f := balancing{node: s.config.NodeName, healthAddress: s.config.ServicesHealth, summary: s.Summary(), lost: s.source.Lost(), traces: s.traces, routless: s.routless}
	if err := s.deaf.Load(); err != nil {
		f.deaf = *err
	}
	return f.problems()
}

// serveHealth answers load balancers that ask whether the node balances, as
// kube-proxy does with its --healthz-bind-address. It tries until it can listen.
func (s *services) serveHealth(ctx context.Context) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		healthy, updated := s.Check() == nil, s.Summary().Updated
		if !healthy {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		// The reader may have gone away.
		_ = json.NewEncoder(w).Encode(struct {
			LastUpdated time.Time `json:"lastUpdated"`
			CurrentTime time.Time `json:"currentTime"`
			Healthy     bool      `json:"serviceProxyHealthy"`
		}{updated.UTC(), time.Now().UTC(), healthy})
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	for {
		listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", s.config.ServicesHealth)
		if err == nil {
			s.noteDeaf(nil)
			if err = server.Serve(listener); errors.Is(err, http.ErrServerClosed) {
				return nil
			}
		}
		if ctx.Err() != nil {
			return nil
		}
		s.noteDeaf(fmt.Errorf("listening: %w", err))
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(listenAgain):
		}
	}
}

// listenAgain is the pause before an address that is in use is tried again.
const listenAgain = 10 * time.Second

func (s *services) noteDeaf(err error) {
	if err == nil {
		s.deaf.Store(nil)
	} else {
		s.deaf.Store(&err)
	}
	s.Changed()
}
