package agent

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"path/filepath"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/flatnet-cni/flatnet/pkg/apiwatch"
	"github.com/flatnet-cni/flatnet/pkg/bgp"
	"github.com/flatnet-cni/flatnet/pkg/bgp/message"
	"github.com/flatnet-cni/flatnet/pkg/feature"
	"github.com/flatnet-cni/flatnet/pkg/node"
	"github.com/flatnet-cni/flatnet/pkg/service"
)

// bgpProgram is the name of what speaks; it is beside the other binaries.
const bgpProgram = "flatnet-bgp"

// routing is the feature that speaks BGP: it tells routers of the node's pods and of
// Services, and has the fabric take the ways that routers tell of.
type routing struct {
	*feature.Shared
	config  Config
	client  *apiwatch.Client
	watched *service.Watch      // Services and EndpointSlices
	source  *service.Kubernetes // of what is watched, where nobody balances Services
	book    *service.Book
	task    *feature.Task
	file    *bgp.File
	program *bgp.Program
	leaving atomic.Bool // the node goes for good

	mu     sync.Mutex
	events []message.Event // that were not looked at yet

	// What follows belongs to the agent's goroutine.
	began     time.Time
	current   *bgp.Config
	wanted    *bgp.Desired // what flatnet-bgp was told last
	told      time.Time    // when
	resumed   bool         // that is what a run before told
	sessions  map[string]*session
	table     *bgp.Table
	learned   bgp.Learned
	unlearned bool                 // that may be another by now
	stale     map[string]time.Time // until when paths of a neighbour that is away are kept; "" is for those of a run before
	failure   string               // of flatnet-bgp
	unsaved   error                // why what the next run begins with could not be written
	transient *prometheus.CounterVec
	ends      prometheus.Counter
}

func newBGP(c Config, client *apiwatch.Client, watch *service.Watch, book *service.Book, s *feature.Shared) *routing {
	f := &routing{
		Shared: s, config: c, client: client, watched: watch, book: book, table: bgp.NewTable(), sessions: map[string]*session{}, stale: map[string]time.Time{},
		transient: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "flatnet_bgp_session_changes_total", Help: "BGP sessions that were established, and that ended.",
		}, []string{"to"}),
		ends: prometheus.NewCounter(prometheus.CounterOpts{Name: "flatnet_bgp_program_ends_total", Help: "Times that flatnet-bgp has ended by itself, or could not begin; it is started again."}),
	}
	f.task = &feature.Task{
		Name: "bgp", Run: f.run, Gap: 10 * time.Millisecond, Every: c.Resync,
		Advice: "what routers are told and what they tell is not up to date: look at --state-dir, whether it can be written, and at flatnetd's log",
	}
	return f
}

func (f *routing) on() bool { return f.config.BGPConfig != "" }

func (f *routing) feature() feature.Feature {
	if !f.on() {
		return feature.Feature{
			Pages:   map[string]http.HandlerFunc{"/status/bgp": f.serve},
			Cleanup: feature.Removal{At: feature.BeforePods, Do: f.withdraw},
		}
	}
	return feature.Feature{
		Open: f.open, Begin: f.seed, Tasks: []*feature.Task{f.task}, Follow: f.follow,
		Listeners: []feature.Listener{
			{Name: "configuration of BGP", Run: func(ctx context.Context) error { return f.file.Run(ctx, f.task.Ask) }},
			{Name: bgpProgram, Run: func(ctx context.Context) error { return f.program.Run(ctx) }},
			{Name: "Services to announce", Run: f.followServices},
		},
		Problems: f.problems,
		Status:   func(context.Context) feature.Part { return f.status().summary().part() },
		Pages:    map[string]http.HandlerFunc{"/status/bgp": f.serve},
		Metrics:  []prometheus.Collector{f.transient, f.ends}, Gauges: f.gauges(),
		Cleanup: feature.Removal{At: feature.BeforePods, Do: f.withdraw},
	}
}

func (f *routing) open() error {
	f.began = time.Now()
	f.file = bgp.NewFile(f.config.BGPConfig, f.Log)
	f.program = bgp.NewProgram(filepath.Join(f.config.PluginsDir, bgpProgram), f.Log)
	f.program.Tell, f.program.Leave, f.program.Ended = f.tell, f.leaving.Load, f.ends.Inc
	for _, to := range []string{"established", "down"} {
		f.transient.WithLabelValues(to)
	}
	f.book.Changed(f.task.Ask)
	if !f.Services && f.client != nil {
		f.source = service.NewKubernetes(f.watched)
		f.source.KeepLabels()
	}
	return nil
}

// tell takes an event, on a goroutine of the program's.
func (f *routing) tell(e message.Event) {
	f.mu.Lock()
	f.events = append(f.events, e)
	f.mu.Unlock()
	f.task.Ask()
}

// followServices has the book kept where nobody balances Services.
func (f *routing) followServices(ctx context.Context) error {
	if f.source != nil {
		f.book.Follow(ctx, f.source)
	}
	return nil
}

func (f *routing) follow(n feature.News) error {
	switch n {
	case feature.NodesListed:
		f.task.Soon() // labels, and whether the node stays, are in no plan
		// Before the fabric is planned: the first plan has what the kernel has.
		f.unlearned = true
		f.learn()
	case feature.FabricPlanned:
		f.unlearned = true
		f.task.Soon()
	}
	return nil
}

// run takes note of what neighbours did, and has them told what is to be told.
func (f *routing) run(context.Context) error {
	if c, _ := f.file.Config(); c != nil && c != f.current {
		f.current, f.unlearned = c, true
	}
	f.mu.Lock()
	events := f.events
	f.events = nil
	f.mu.Unlock()
	for _, e := range events {
		f.take(e)
	}
	if f.current == nil {
		return nil
	}
	f.expire()
	if f.learn() {
		if err := f.Publish(feature.RoutesLearned); err != nil {
			return err
		}
	}
	f.want()
	return f.unsaved
}

// learn chooses the routes, and reports whether they are others than before.
func (f *routing) learn() bool {
	// That of ten thousand routes takes longer than all else that is done for a Service.
	if f.current == nil || f.Nodes == nil || !f.unlearned {
		return false
	}
	f.unlearned = false
	nodes := f.Accepted
	if nodes == nil {
		nodes = f.Nodes
	}
	f.learned = f.table.Learned(f.current.Policy(f.config.NodeName, nodes))
	if len(f.learned.Routes) == 0 && len(f.Learned) == 0 || reflect.DeepEqual(map[netip.Prefix][]netip.Addr(f.Learned), f.learned.Routes) {
		return false
	}
	f.Learned = f.learned.Routes
	return true
}

// servicesPatience is the part of the restart time that Services are waited for before
// neighbours are told of the rest: at the first End-of-RIB they forget what is not among it.
const servicesPatience = 2

// want tells flatnet-bgp what is to be done, if anything is new.
func (f *routing) want() {
	self, found := f.self()
	if !found || f.Plan == nil {
		return // what is in force stays, as it does in the fabric
	}
	services, known := f.book.All()
	if f.current.WantsServices() && !known && f.canKnowServices() {
		if f.resumed {
			return // so it does here
		}
		if patience := time.Duration(f.current.RestartTime) / servicesPatience; time.Since(f.began) < patience {
			f.task.By(f.began.Add(patience))
			return
		}
	}
	f.resumed = false
	f.leaving.Store(self.Leaving != "")
	d := f.current.Desire(self, f.Accepted, f.Plan.OwnPodCIDRs, services)
	f.follows(d)
	same := f.wanted != nil && reflect.DeepEqual(*f.wanted, d)
	// What has not changed is told now and then: a password may be another one by now.
	if !same || time.Since(f.told) >= f.config.Resync {
		f.wanted, f.told = &d, time.Now()
		f.program.Want(d)
	}
	if !same || f.unsaved != nil {
		f.save(d)
	}
}

// self is the own node as it was accepted, with the labels and the leaving of the list, of
// which the fabric has no use.
func (f *routing) self() (self node.Node, found bool) {
	self, found = f.Find(f.config.NodeName)
	for _, n := range f.Nodes {
		if n.Name == self.Name {
			self.Labels, self.Leaving = n.Labels, n.Leaving
		}
	}
	return self, found
}

func (f *routing) canKnowServices() bool { return f.Services || f.client != nil }

var errNoBGP = errors.New("BGP is not spoken by this flatnetd: it runs without --bgp-config")
