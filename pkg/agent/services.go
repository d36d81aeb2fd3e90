package agent

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/flatnet-cni/flatnet/pkg/apiwatch"
	"github.com/flatnet-cni/flatnet/pkg/feature"
	"github.com/flatnet-cni/flatnet/pkg/kernel"
	"github.com/flatnet-cni/flatnet/pkg/nft"
	"github.com/flatnet-cni/flatnet/pkg/node"
	"github.com/flatnet-cni/flatnet/pkg/problem"
	"github.com/flatnet-cni/flatnet/pkg/requirements"
	"github.com/flatnet-cni/flatnet/pkg/service"
)

// services is the feature that balances Services: it tells the controller about the
// node, and looks at what the controller depends on.
type services struct {
	*feature.Shared
	config  Config
	client  *apiwatch.Client
	watched *service.Watch // Services and EndpointSlices
	book    *service.Book  // is told of what is balanced
	task    *feature.Task
	metrics *prometheus.Registry
	asProxy *prometheus.Registry // what kube-proxy's address tells

	// What follows is not there where Services are not balanced.
	controller *service.Controller
	source     *service.Kubernetes
	standIns   []*standIn // what answers in kube-proxy's place

	// leaving says why load balancers are told to look for another node, or is empty.
	leaving  atomic.Pointer[string]
	served   service.Node // as the controller was told last
	first    bool         // nothing was looked at yet
	traces   []string     // of kube-proxy
	routless []netip.Addr // ClusterIPs that the node itself has no route to
}

// resyncsPerComparison is how many times as long as --resync it takes until the
// tables of Services are compared though nothing has happened: that reads every
// element, of which there may be a hundred thousand, and what others do is seen
// at once.
const resyncsPerComparison = 5

func newServices(c Config, client *apiwatch.Client, watch *service.Watch, book *service.Book, s *feature.Shared) *services {
	f := &services{Shared: s, config: c, client: client, watched: watch, book: book, metrics: prometheus.NewRegistry(), asProxy: prometheus.NewRegistry(), first: true}
	f.task = &feature.Task{
		Name: "services", Run: s.OncePlanned(f.look), Gap: 200 * time.Millisecond, Every: c.Resync,
		Advice: "flatnetd cannot tell whether kube-proxy runs, or whether ClusterIPs have a route: look at `nft list tables` and `ip route`",
	}
	return f
}

func (s *services) feature() feature.Feature {
	return feature.Feature{
		Open: s.open, Begin: s.removeFormer, Tasks: []*feature.Task{s.task}, Follow: s.follow,
		Listeners: []feature.Listener{{Name: "Services", Run: s.run}}, Tables: s.watch,
		Problems: s.problems, UpToDate: s.upToDate,
		Status:  func(context.Context) feature.Part { return s.status().part() },
		Pages:   map[string]http.HandlerFunc{"/status/services": s.serve},
		Metrics: []prometheus.Collector{s.metrics},
		Gauges: []feature.Gauge{{
			Description: prometheus.NewDesc("flatnet_service_source_healthy", "1 where what is known of Services and EndpointSlices is up to date, else 0.", nil, nil),
			Read: func(_ context.Context, tell func(float64, ...string)) {
				if s.Services {
					tell(truth(s.source.Check() == nil))
				}
			},
		}},
		Cleanup: feature.Removal{Do: s.remove},
	}
}

// largeSync is how many elements are written before what that took is worth giving back.
const largeSync = 20_000

// open prepares the balancing, in the caller's network namespace.
func (s *services) open() error {
	if !s.config.Services || s.Kernel.Lacks(requirements.Services) || s.Kernel.Lacks(requirements.Services6) {
		return nil
	}
	s.Services = true
	s.source = service.NewKubernetes(s.watched)
	s.controller = service.NewController(s.source, service.NewKeeper(s.Log), s.Log)
	s.controller.Resync = resyncsPerComparison * s.config.Resync
	metrics := service.NewMetrics(s.metrics)
	s.controller.Observe = func(o service.Observation) {
		metrics.Observe(o)
		if o.Elements > largeSync {
			s.Rest()
		}
	}
	s.controller.Changed = s.task.Ask
	if s.config.BGPConfig != "" {
		s.controller.Served = s.book.Note
		s.source.KeepLabels()
	}
	s.controller.Reporter = &service.Events{Client: s.client, Node: s.config.NodeName, Log: s.Log}
	unknown := leavingUnknown
	s.leaving.Store(&unknown)
	s.standIns = s.proxies(s.client.Requests)
	return nil
}

// run balances until ctx ends.
func (s *services) run(ctx context.Context) error {
	if !s.Services {
		return nil
	}
	var running sync.WaitGroup
	for _, in := range s.standIns {
		running.Go(func() { in.run(ctx) })
	}
	s.controller.Run(ctx)
	running.Wait()
	return nil
}

func (s *services) watch() (nft.Listener, error) {
	if !s.Services {
		return nil, nil
	}
	return s.controller.Watcher(), nil
}

// removeFormer removes what a run with --services has left.
func (s *services) removeFormer() error {
	if s.Services || !s.TablesPossible() {
		return nil
	}
	removed, err := service.Remove()
	for _, what := range removed {
		s.Log.Info("removed, because --services is off", "what", what)
	}
	return err
}

func (s *services) remove(context.Context) ([]string, error) {
	if !(requirements.Running{}).HasNftables() {
		return nil, nil
	}
	return service.Remove()
}

func (s *services) follow(n feature.News) error {
	switch {
	case !s.Services:
	case n == feature.NodesListed:
		s.tellLeaving()
	case n == feature.FabricPlanned:
		s.tellNode()
	case n == feature.FabricJoined && s.first:
		s.first = false
		s.task.Soon()
	}
	return nil
}

// leavingUnknown is what load balancers are told before the nodes are known.
const leavingUnknown = "the nodes are not known yet"

// tellLeaving has load balancers told whether the node stays. Nodes from a file do,
// all of them.
func (s *services) tellLeaving() {
	now := ""
	switch i := slices.IndexFunc(s.Nodes, func(n node.Node) bool { return n.Name == s.config.NodeName }); {
	case i >= 0:
		now = s.Nodes[i].Leaving
	case s.config.NodesFile == "":
		now = "its Node is gone"
	}
	before := *s.leaving.Swap(&now)
	switch {
	case now == before:
	case now != "":
		s.Log.Info("load balancers are told to look for another node", "because", now)
	case before != leavingUnknown:
		s.Log.Info("load balancers are told that the node stays")
	}
}

// tellNode tells the controller about the node.
func (s *services) tellNode() {
	self, _ := s.Find(s.config.NodeName)
	n := service.Node{
		Name: self.Name, Zone: self.Zone, Addresses: self.Addresses, PodCIDRs: self.PodCIDRs,
		NodePortAddresses: s.config.NodePortAddresses.Select(self.Addresses, s.Underlay.Addresses()), ServiceCIDRs: s.config.ServiceCIDRs,
	}
	if !n.Equal(s.served) {
		s.served = n
		s.controller.SetNode(n)
	}
}

// look looks at what the balancing depends on.
func (s *services) look(context.Context) (err error) {
	if !s.Services {
		return feature.ErrNotYet
	}
	if s.traces, err = service.KubeProxy(); err != nil {
		return err
	}
	s.routless = nil
	for _, ip := range s.controller.Summary().ClusterIPs {
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

// upToDate says why connections to Services may not find their way.
func (s *services) upToDate() error {
	if !s.Services {
		return nil
	}
	if summary := s.controller.Summary(); !summary.Synced {
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
	if !s.Services {
		return nil
	}
	f := balancing{node: s.config.NodeName, summary: s.controller.Summary(), lost: s.source.Lost(), traces: s.traces, routless: s.routless}
	for _, in := range s.standIns {
		if err := in.deaf.Load(); err != nil {
			f.deaf = append(f.deaf, deaf{in, *err})
		}
	}
	return f.problems()
}

// ServicesStatus is how Services are balanced.
type ServicesStatus struct {
	// Services is nil where they are not.
	Services *service.Summary `json:"services,omitempty"`
	// Leaving says why load balancers that ask --services-health are told to look for
	// another node; empty while the node stays, and where nobody is told.
	Leaving string `json:"leaving,omitempty"`
}

func (s *services) status() (all ServicesStatus) {
	if !s.Services {
		return all
	}
	summary := s.controller.Summary()
	all.Services = &summary
	if s.config.ServicesHealth != "" {
		all.Leaving = *s.leaving.Load()
	}
	return all
}

func (s ServicesStatus) part() feature.Part {
	part := feature.Part{Document: s}
	if s.Services != nil {
		state := "rules as wanted"
		if !s.Services.Synced {
			state = "rules NOT as wanted"
		}
		part.Rows = append(part.Rows, feature.Row{Name: "Services", Value: fmt.Sprintf("%d at %d addresses and ports, %s", s.Services.Services, s.Services.Fronts, state)})
	}
	if s.Leaving != "" {
		part.Rows = append(part.Rows, feature.Row{Name: "load balancers", Value: "told to look for another node: " + s.Leaving})
	}
	return part
}

// serve says who serves what Service.
func (s *services) serve(w http.ResponseWriter, r *http.Request) {
	if !s.Services {
		http.Error(w, "Services are not balanced by this flatnetd: it runs without --services, or the kernel lacks what they need, which `flatnetd status` says", http.StatusNotFound)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), answerTimeout)
	defer cancel()
	all, err := s.controller.Status(ctx)
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	answer(w, all)
}
