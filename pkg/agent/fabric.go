package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/flatnet-cni/flatnet/pkg/apiwatch"
	"github.com/flatnet-cni/flatnet/pkg/fabric"
	"github.com/flatnet-cni/flatnet/pkg/feature"
	"github.com/flatnet-cni/flatnet/pkg/kernel"
	"github.com/flatnet-cni/flatnet/pkg/node"
	"github.com/flatnet-cni/flatnet/pkg/problem"
	"github.com/flatnet-cni/flatnet/pkg/requirements"
)

// joining is the feature that joins the node to the others: it learns who the nodes
// are, plans the fabric, and keeps the kernel as planned. Most others follow it.
type joining struct {
	*feature.Shared
	config  Config
	client  *apiwatch.Client
	source  node.Source
	kernel  *kernel.Fabric
	planner *fabric.Planner
	judging *node.Judging

	join, verify *feature.Task

	begun    atomic.Bool                 // the source was asked: that it knows nothing before is no problem
	listed   atomic.Pointer[[]node.Node] // by the source
	refused  []node.Refusal
	unlisted error // the source does not have this node
	stale    bool  // the underlay has to be read again
	podMTU   prometheus.Gauge
}

func newFabric(c Config, client *apiwatch.Client, s *feature.Shared) *joining {
	f := &joining{
		Shared: s, config: c, client: client, judging: node.NewJudging(c.NodeName), stale: true,
		podMTU: prometheus.NewGauge(prometheus.GaugeOpts{Name: "flatnet_pod_mtu_bytes", Help: "MTU of new pods."}),
	}
	f.join = &feature.Task{
		Name: "join", Run: f.plan,
		Advice: "no peer is joined anew until this works: look at what the sentence names, `nft list ruleset`, and the kernel's log (dmesg)",
	}
	f.verify = &feature.Task{
		Name: "verify", Run: s.OncePlanned(f.compare), Gap: 100 * time.Millisecond, Every: c.Resync,
		Advice: "what others change of the fabric is not mended until this works: look at the kernel's log (dmesg), and at who else changes interfaces and routes all the time (`ip monitor`)",
	}
	return f
}

func (f *joining) feature() feature.Feature {
	return feature.Feature{
		Open: f.open, Close: func() { f.kernel.Close() },
		Tasks: []*feature.Task{f.join, f.verify}, Follow: f.follow,
		Listeners: []feature.Listener{{Name: "source of nodes", Run: f.listen}}, Event: f.observe,
		Problems: f.problems, Ready: f.ready, UpToDate: f.upToDate,
		Status:  func(context.Context) feature.Part { return f.status().part() },
		Metrics: []prometheus.Collector{f.podMTU},
		Gauges: []feature.Gauge{
			{Description: prometheus.NewDesc("flatnet_source_healthy", "1 where the source of nodes is up to date, else 0.", nil, nil),
				Read: func(_ context.Context, tell func(float64, ...string)) { tell(truth(f.source.Check() == nil)) }},
		},
		Repairs: []string{"route", "link", "address", "forward", "neighbour", "rule"},
		Cleanup: feature.Removal{Do: f.remove},
	}
}

func (f *joining) open() (err error) {
	f.kernel, err = kernel.NewFabric(f.config.Fabric.Tunnel)
	if err != nil {
		return err
	}
	f.kernel.Clsact = f.Filters
	f.source = f.config.nodes(f.client, f.Log)
	f.Fabric = fabric.NewEngine(f.kernel)
	f.configure()
	return nil
}

func (f *joining) listen(ctx context.Context) error {
	f.begun.Store(true)
	return f.source.Run(ctx, func(list []node.Node) {
		f.listed.Store(&list)
		f.join.Ask()
	})
}

// configure tells the planner what of the overlay there can be.
func (f *joining) configure() {
	c := f.config.Fabric
	for _, m := range f.Kernel.Of(requirements.Overlay) {
		c.WithoutOverlay = "kernel " + m.Release + ": " + m.What() + " is missing"
	}
	c.Nodes = c.Nodes && !f.Kernel.Lacks(requirements.OverlayNodes)
	f.planner = &fabric.Planner{Config: c}
}

func (f *joining) follow(n feature.News) error {
	switch n {
	case feature.KernelChanged:
		f.configure()
		f.join.Soon()
	case feature.RoutesLearned:
		f.join.Soon()
	case feature.FabricJoined:
		f.podMTU.Set(float64(f.Plan.PodMTU))
		f.verify.By(time.Now().Add(f.config.Resync))
	}
	return nil
}

func (f *joining) observe(e kernel.Event) {
	changed := e.Underlay || e.Lost
	if f.Plan == nil {
		f.stale = f.stale || changed
		return // nothing is wanted yet
	}
	if !f.Fabric.Observe(e) {
		return
	}
	if changed {
		f.stale = true
		f.join.Soon()
	}
	f.verify.Soon()
}

// plan plans the fabric from nodes and underlay, and applies what is new.
func (f *joining) plan(context.Context) error {
	listed := f.listed.Load()
	if listed == nil {
		return feature.ErrNotYet
	}
	f.Nodes = *listed
	if err := f.Publish(feature.NodesListed); err != nil {
		return err
	}
	before, _ := f.Find(f.config.NodeName)
	f.Accepted, f.refused = f.judging.Judge(f.Nodes)
	f.Accepted = f.possible(f.Accepted)
	self, found := f.Find(f.config.NodeName)
	f.unlisted = nil
	if !found {
		// A list without this node cannot be the whole list. What is in the
		// kernel stays.
		f.unlisted = fmt.Errorf("node %s is not in the source of nodes (%s)", f.config.NodeName, f.config.sourceName())
		return feature.Told{Err: f.unlisted}
	}
	if !slices.Equal(before.Addresses, self.Addresses) {
		// Its interface has got the address first, but what the kernel has to
		// tell of that may come later than the list.
		f.stale = true
	}
	if err := f.readUnderlay(); err != nil {
		return err
	}
	f.planner.Learned = f.Learned
	f.Plan = f.planner.Plan(self, f.Accepted, f.Underlay)
	if err := f.Publish(feature.FabricPlanned); err != nil {
		return err
	}
	result, err := f.Fabric.Sync(f.Plan)
	if err != nil || result.Failed > 0 {
		f.verify.By(time.Now().Add(time.Second))
	}
	if err != nil {
		return err
	}
	if !f.sharedFailed() {
		if err := f.made(); err != nil {
			return err
		}
	}
	return f.Publish(feature.FabricJoined)
}

// possible leaves out of nodes what this kernel has no address family for.
func (f *joining) possible(nodes []node.Node) []node.Node {
	if !f.Kernel.Lacks(requirements.IPv6) {
		return nodes
	}
	nodes = slices.Clone(nodes)
	for i := range nodes {
		n := &nodes[i]
		n.PodCIDRs = slices.DeleteFunc(slices.Clone(n.PodCIDRs), func(p netip.Prefix) bool { return p.Addr().Is6() })
		n.Addresses = slices.DeleteFunc(slices.Clone(n.Addresses), netip.Addr.Is6)
	}
	return nodes
}

func (f *joining) readUnderlay() error {
	if !f.stale {
		return nil
	}
	underlay, err := f.kernel.Underlay()
	if err != nil {
		return fmt.Errorf("reading interfaces and routes of the node: %w", err)
	}
	f.Underlay, f.stale = underlay, false
	return nil
}

// sharedFailed reports whether the kernel refused something that all peers need.
func (f *joining) sharedFailed() bool {
	for _, failure := range f.Fabric.Failures() {
		if _, is := failure.Change.Object.(kernel.Answered); is {
			continue // pods do without
		}
		for _, shared := range f.Plan.Shared {
			if kernel.Place(failure.Change.Object) == shared.Place {
				return true
			}
		}
	}
	return false
}

// made notes that the fabric is there: pods may be started.
func (f *joining) made() error {
	if f.Made {
		return nil
	}
	f.Made = true
	return f.Publish(feature.FabricMade)
}

// compare compares the fabric with the kernel, and mends it. What it changes are
// repairs, but for what the kernel had refused before: nobody has changed that.
func (f *joining) compare(context.Context) error {
	refused := map[string]bool{}
	for _, failure := range f.Fabric.Failures() {
		refused[kernel.Place(failure.Change.Object)] = true
	}
	result, err := f.Fabric.Verify()
	for _, c := range result.Changes {
		place := kernel.Place(c.Object)
		if refused[place] {
			continue
		}
		kind, _, _ := strings.Cut(place, " ") // one of the feature's Repairs
		f.Repaired(kind, 1)
		f.Log.Warn("repaired what somebody had changed", "object", c.String())
	}
	if err != nil {
		return err
	}
	if result.Failed > 0 {
		return feature.Told{Err: fmt.Errorf("objects of the fabric were refused: %d of them", result.Failed)}
	}
	return f.made()
}

func (f *joining) problems() (all []problem.Problem) {
	if f.begun.Load() {
		if err := f.source.Check(); err != nil {
			all = append(all, f.sourceProblem(err))
		}
	}
	if f.unlisted != nil {
		all = append(all, problem.NodeUnlisted.Of(problem.Facts{
			Object: "--node-name " + f.config.NodeName, Reason: f.unlisted.Error() + ": nothing is changed",
			Advice: fmt.Sprintf("set --node-name to the name that this node has in %s, or add the node there", f.config.sourceName()),
		}))
	}
	for _, r := range f.refused {
		all = append(all, r.Problem(f.config.NodeName))
	}
	if f.Plan == nil {
		return all
	}
	all = append(all, f.Plan.Problems...)
	if len(f.Plan.OwnPodCIDRs) == 0 {
		all = append(all, problem.NoPodCIDR.Of(problem.Facts{
			Node: f.config.NodeName, Reason: "has no usable podCIDR: the plugin's configuration is not written, and pods are not started",
			Needs: []problem.Thing{problem.OwnPodCIDRs},
		}))
	}
	all = append(all, f.Fabric.Problems(f.config.NodeName)...)
	for _, p := range f.Plan.Peers {
		all = append(all, p.Problems...)
	}
	return all
}

// sourceProblem says why the list of nodes is not up to date.
func (f *joining) sourceProblem(err error) problem.Problem {
	facts := problem.Facts{Object: "source of nodes", Reason: err.Error()}
	if f.config.NodesFile != "" {
		facts.Advice = fmt.Sprintf("correct %s: it is read again by itself, and what was known before stays in force until then", f.config.NodesFile)
	} else {
		facts.Breaks = []problem.Thing{problem.API}
		facts.Advice = "see to it that the node reaches the API server, and that flatnetd may list and watch nodes (deploy/base/rbac.yaml); what was known before stays in force until then"
	}
	return problem.NodesSource.Of(facts)
}

func (f *joining) ready() error {
	switch {
	case f.Nodes == nil:
		if err := f.source.Check(); err != nil {
			return fmt.Errorf("nodes are not known yet: %w", err)
		}
		return errors.New("nodes are not known yet")
	case f.Kernel.Lacks(requirements.Pods):
		return errors.New(f.Kernel.Of(requirements.Pods)[0].String())
	case f.Plan == nil:
		return fmt.Errorf("the fabric is not planned yet: %w", f.join.Err())
	case !f.Made:
		for _, p := range problem.Fold(f.Fabric.Problems(f.config.NodeName)) {
			return fmt.Errorf("the fabric has not been made yet: %s", p)
		}
		return errors.New("the fabric has not been made yet")
	case len(f.Plan.OwnPodCIDRs) == 0:
		return fmt.Errorf("node %s has no podCIDR yet", f.config.NodeName)
	}
	return nil
}

func (f *joining) upToDate() error {
	if err := f.source.Check(); err != nil {
		return fmt.Errorf("nodes may have changed since: %w", err)
	}
	return nil
}

// FabricStatus is who the node is, and by what it is joined to the others.
type FabricStatus struct {
	Source    string         `json:"source"` // of the nodes: "kubernetes" or a file
	Fabric    fabric.Mode    `json:"fabric"`
	Tunnel    string         `json:"tunnel,omitempty"`
	Addresses []netip.Addr   `json:"addresses"`
	PodCIDRs  []netip.Prefix `json:"podCIDRs"`
	PodMTU    int            `json:"podMTU"`
}

func (f *joining) status() FabricStatus {
	s := FabricStatus{Source: f.config.sourceName(), Fabric: f.config.Fabric.Mode, Addresses: []netip.Addr{}, PodCIDRs: []netip.Prefix{}}
	if f.Plan == nil {
		return s
	}
	self, _ := f.Find(f.config.NodeName)
	s.Addresses = append(s.Addresses, self.Addresses...)
	s.Tunnel, s.PodMTU = f.Plan.Tunnel, f.Plan.PodMTU
	s.PodCIDRs = append(s.PodCIDRs, f.Plan.OwnPodCIDRs...)
	return s
}

func (s FabricStatus) part() feature.Part {
	by := string(s.Fabric)
	if s.Tunnel != "" {
		by += ", overlay on " + s.Tunnel
	}
	return feature.Part{Document: s, Rows: []feature.Row{
		{Name: "nodes from", Value: s.Source}, {Name: "fabric", Value: by},
		{Name: "addresses", Value: list(s.Addresses)}, {Name: "podCIDRs", Value: list(s.PodCIDRs)}, {Name: "pod MTU", Value: fmt.Sprint(s.PodMTU)},
	}}
}

func (f *joining) remove(context.Context) (removed []string, err error) {
	k, err := kernel.NewFabric(f.config.Fabric.Tunnel)
	if err != nil {
		return nil, err
	}
	defer k.Close()
	engine := fabric.NewEngine(k)
	result, err := engine.Sync(&fabric.Plan{})
	for _, c := range result.Changes {
		removed = append(removed, c.Object.String())
	}
	for _, failure := range engine.Failures() {
		err = errors.Join(err, failure.Err)
	}
	return removed, err
}
