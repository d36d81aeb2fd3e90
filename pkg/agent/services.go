package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync/atomic"

	"github.com/flatnet-cni/flatnet/pkg/apiwatch"
	"github.com/flatnet-cni/flatnet/pkg/kernel"
	"github.com/flatnet-cni/flatnet/pkg/node"
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
	// leaving says why load balancers are told to look for another node, or is empty.
	leaving  atomic.Pointer[string]
	standIns []*standIn // what answers in kube-proxy's place

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
	keeper := service.NewKeeper(a.log)
	source := service.NewKubernetes(client, a.log)
	s := &services{Controller: service.NewController(source, keeper, a.log), config: a.config, log: a.log, source: source}
	s.Resync = resyncsPerComparison * a.config.Resync
	s.Observe = service.NewMetrics(a.metrics.registry).Observe
	s.Changed = func() { a.news.ask(servicesTask) }
	s.Reporter = &service.Events{Client: client, Node: a.config.NodeName, Log: a.log}
	unknown := leavingUnknown
	s.leaving.Store(&unknown)
	s.standIns = a.standIns(s, client.Requests)
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

// leavingUnknown is what load balancers are told before the nodes are known.
const leavingUnknown = "the nodes are not known yet"

// tellLeaving has load balancers told whether the node stays. Nodes from a file do,
// all of them.
func (a *Agent) tellLeaving() {
	if a.services == nil {
		return
	}
	now := ""
	switch i := slices.IndexFunc(a.nodes, func(n node.Node) bool { return n.Name == a.config.NodeName }); {
	case i >= 0:
		now = a.nodes[i].Leaving
	case a.config.NodesFile == "":
		now = "its Node is gone"
	}
	before := *a.services.leaving.Swap(&now)
	switch {
	case now == before:
	case now != "":
		a.log.Info("load balancers are told to look for another node", "because", now)
	case before != leavingUnknown:
		a.log.Info("load balancers are told that the node stays")
	}
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
	f := balancing{node: s.config.NodeName, summary: s.Summary(), lost: s.source.Lost(), traces: s.traces, routless: s.routless}
	for _, in := range s.standIns {
		if err := in.deaf.Load(); err != nil {
			f.deaf = append(f.deaf, deaf{in, *err})
		}
	}
	return f.problems()
}
