package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/flatnet-cni/flatnet/pkg/fabric"
	"github.com/flatnet-cni/flatnet/pkg/feature"
	"github.com/flatnet-cni/flatnet/pkg/health"
	"github.com/flatnet-cni/flatnet/pkg/kernel"
	"github.com/flatnet-cni/flatnet/pkg/problem"
)

// Words of --health.
const (
	HealthAuto = "auto"
	HealthOff  = "off"
)

// probing is the feature that tells what does not get through to other nodes. It
// changes nothing, and nothing depends on it: a node without answers is ready.
type probing struct {
	*feature.Shared
	config Config
	prober *health.Prober
	// unwell and reached are the prober's.
	unwell  func() []health.Finding
	reached func() map[string]bool
	task    *feature.Task
	targets map[*fabric.Peer][]health.Target // of the last plan
	// sources are what probes of each family are sent from, as far as there is a socket.
	sources [2]netip.Addr
	without error // why there is none of a family
	// settled is when a peer that has not answered yet should have; zero for none.
	settled time.Time
	trips   prometheus.Histogram
	probes  *prometheus.Desc
}

func newProbing(c Config, s *feature.Shared) *probing {
	f := &probing{
		Shared: s, config: c,
		trips: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "flatnet_peer_round_trip_seconds", Help: "Round trips of probes to other nodes, by the way that pods' packets take.",
			Buckets: []float64{.0001, .0002, .0005, .001, .002, .005, .01, .02, .05, .1, .2, .5, 1},
		}),
		probes: prometheus.NewDesc("flatnet_probes_total", "Probes of other nodes by what came of them: answered, lost, refused (the node itself says that it does not answer).", []string{"result"}, nil),
	}
	f.task = &feature.Task{
		Name: "health", Run: s.OncePlanned(f.run), Gap: time.Second, Every: c.Resync,
		Advice: "nobody tells what does not get through to other nodes until this works",
	}
	f.prober = health.NewProber(c.NodeName, f.task.Ask, func(d time.Duration) { f.trips.Observe(d.Seconds()) })
	f.unwell, f.reached = f.prober.Unwell, f.prober.Reached
	return f
}

func (f *probing) feature() feature.Feature {
	if f.config.Health != HealthAuto || f.config.Fabric.Mode == fabric.None {
		return feature.Feature{}
	}
	f.Prober = f.prober
	return feature.Feature{
		Tasks: []*feature.Task{f.task}, Follow: f.follow,
		Listeners: []feature.Listener{{Name: "probes", Run: f.prober.Run}},
		Problems:  f.problems,
		Metrics:   []prometheus.Collector{f.trips, f},
		Gauges: []feature.Gauge{
			{Description: prometheus.NewDesc("flatnet_peer_health", "Other nodes by what probes say: ok, lossy, lost, silent (the node is reached and does not answer), unknown; and away, whatever they say (the Node is not ready, or about to go).", []string{"state"}, nil), Read: f.count},
			{Description: prometheus.NewDesc("flatnet_peers_full_size_lost", "Other nodes to which small packets get through, and those as large as the MTU of pods do not.", nil, nil), Read: f.countFull},
		},
	}
}

func (f *probing) follow(n feature.News) error {
	if n == feature.FabricJoined {
		f.prober.SetTargets(f.plan(), time.Now())
		f.task.Soon()
	}
	return nil
}

// plan returns the nodes behind all ways that there are. Those of peers that have not
// changed are taken from the plan before.
func (f *probing) plan() (all []health.Target) {
	before := f.targets
	f.targets = make(map[*fabric.Peer][]health.Target, len(f.Plan.Peers))
	for _, p := range f.Plan.Peers {
		targets, known := before[p]
		if !known {
			targets = f.targetsOf(p)
		}
		f.targets[p] = targets
		all = append(all, targets...)
	}
	for i := range all {
		all[i].Size = f.fullSize(all[i].Link)
	}
	return all
}

func (f *probing) targetsOf(p *fabric.Peer) (all []health.Target) {
	n, _ := f.Find(p.Name)
	own := slices.Clone(n.PodCIDRs)
	for _, a := range n.Addresses {
		own = append(own, netip.PrefixFrom(a, a.BitLen()))
	}
	for _, w := range p.Ways {
		if a := fabric.Answering(w.PodCIDR); w.Mode != "" && a.IsValid() {
			all = append(all, health.Target{
				Peer: p.Name, Address: a, Own: own, Link: w.Link, Sort: sortOf(n, w), Way: fmt.Sprint(w.Mode, " ", w.Via, " ", w.Link),
			})
		}
	}
	return all
}

// fullSize is the length of pods' largest packets by an interface, in bytes. Where a user
// wants one that it does not take, pods are told by this node itself.
func (f *probing) fullSize(link string) int {
	size := f.Plan.PodMTU
	if l, found := f.Underlay.Link(link); found {
		size = min(size, l.MTU)
	}
	return size
}

// run opens what probes are sent by, where that has changed or failed before.
func (f *probing) run(context.Context) error {
	var errs []error
	for family, ipv6 := range []bool{false, true} {
		source := f.source(ipv6)
		if source == f.sources[family] {
			continue
		}
		f.sources[family] = netip.Addr{}
		f.prober.SetNetwork(ipv6, nil)
		if !source.IsValid() {
			continue
		}
		n, err := health.Open(source)
		if err != nil {
			errs = append(errs, fmt.Errorf("probing from %s: %w", source, err))
			continue
		}
		f.prober.SetNetwork(ipv6, n)
		f.sources[family] = source
	}
	f.judge(time.Now())
	if !f.settled.IsZero() {
		f.task.By(f.settled)
	}
	if f.without = errors.Join(errs...); f.without != nil {
		return feature.Told{Err: f.without}
	}
	return nil
}

// source is what probes of a family are sent from: the address at which this node
// answers others, if it does.
func (f *probing) source(ipv6 bool) netip.Addr {
	for _, c := range f.Plan.OwnPodCIDRs {
		a := fabric.Answering(c)
		if a.IsValid() && a.Is6() == ipv6 && f.Fabric.Has(kernel.Answered{Address: a, Lasting: true}) {
			return a
		}
	}
	return netip.Addr{}
}

// Describe implements [prometheus.Collector].
func (f *probing) Describe(all chan<- *prometheus.Desc) { all <- f.probes }

// Collect implements [prometheus.Collector].
func (f *probing) Collect(all chan<- prometheus.Metric) {
	c := f.prober.Counts()
	for result, n := range map[string]uint64{"answered": c.Answered, "lost": c.Lost, "refused": c.Refused} {
		all <- prometheus.MustNewConstMetric(f.probes, prometheus.CounterValue, float64(n), result)
	}
}

func (f *probing) count(_ context.Context, tell func(float64, ...string)) {
	counts := map[string]int{away: 0}
	for _, s := range health.States {
		counts[string(s)] = 0
	}
	f.each(func(p *fabric.Peer, s health.State, _ bool) {
		if n, _ := f.Listed(p.Name); n.Away != "" {
			counts[away]++
		} else {
			counts[string(s)]++
		}
	})
	for state, n := range counts {
		tell(float64(n), state)
	}
}

// away is what metrics have in the place of the state of a peer that need not answer.
const away = "away"

func (f *probing) countFull(_ context.Context, tell func(float64, ...string)) {
	n := 0
	f.each(func(p *fabric.Peer, _ health.State, fullLost bool) {
		if l, _ := f.Listed(p.Name); l.Away == "" && fullLost {
			n++
		}
	})
	tell(float64(n))
}

// each calls tell for each peer of which something is known, with the worst state of its
// ways.
func (f *probing) each(tell func(p *fabric.Peer, worst health.State, fullLost bool)) {
	for p, targets := range f.targets {
		worst, lost := health.Unknown, false
		for _, t := range targets {
			s, full, _ := f.prober.State(t.Address)
			if s.Worse(worst) {
				worst = s
			}
			lost = lost || full == health.FullLost
		}
		if len(targets) > 0 {
			tell(p, worst, lost)
		}
	}
}

// problems are those of the ways.
func (f *probing) problems() (all []problem.Problem) {
	if f.Plan == nil {
		return nil
	}
	if f.without != nil {
		all = append(all, problem.Probes.Of(problem.Facts{Node: f.config.NodeName, Object: "probes", Reason: f.without.Error()}))
	}
	return append(all, f.judge(time.Now())...)
}
