package agent

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/flatnet-cni/flatnet/pkg/announce"
	"github.com/flatnet-cni/flatnet/pkg/apiwatch"
	"github.com/flatnet-cni/flatnet/pkg/feature"
	"github.com/flatnet-cni/flatnet/pkg/kernel"
	"github.com/flatnet-cni/flatnet/pkg/lease"
	"github.com/flatnet-cni/flatnet/pkg/loadbalancer"
	"github.com/flatnet-cni/flatnet/pkg/loop"
	"github.com/flatnet-cni/flatnet/pkg/service"
)

// balancers is the feature that gives addresses to Services of type LoadBalancer, and
// answers for them.
type balancers struct {
	*feature.Shared
	config  Config
	client  *apiwatch.Client
	watched *service.Watch // Services and EndpointSlices
	writes  *prometheus.CounterVec

	// What follows is not there without --loadbalancer-config.
	file       *loadbalancer.File
	source     *loadbalancer.Source
	table      *lease.Table
	leader     *lease.Holder
	member     *lease.Holder
	controller *loadbalancer.Controller
	announcer  *announce.Announcer
	pools      atomic.Pointer[loadbalancer.Config] // nil before there is one
	began      time.Time
}

const (
	leaderLease    = "flatnet-loadbalancer"
	leaderPurpose  = "loadbalancer"
	leaderDuration = 15 * time.Second
	leaderInterval = 5 * time.Second
)

func newBalancers(c Config, client *apiwatch.Client, watch *service.Watch, s *feature.Shared) *balancers {
	return &balancers{Shared: s, config: c, client: client, watched: watch, began: time.Now(), writes: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "flatnet_loadbalancer_writes_total", Help: "Writes of Services' addresses into their status by this agent, by how they went: ok, failed.",
	}, []string{"result"})}
}

func (b *balancers) feature() feature.Feature {
	return feature.Feature{
		Open: b.open, Follow: b.follow, Event: b.event,
		Listeners: []feature.Listener{{Name: "load balancers", Run: b.run}},
		Problems:  b.problems,
		Status:    func(context.Context) feature.Part { return b.part() },
		Pages:     map[string]http.HandlerFunc{"/status/announcements": b.serve},
		Metrics:   []prometheus.Collector{b.writes, announcing{b}},
		Gauges:    b.gauges(),
	}
}

// on reports whether the agent does anything of it.
func (b *balancers) on() bool { return b.file != nil }

// open prepares all; nothing is watched or written before the file is read.
func (b *balancers) open() error {
	if b.config.LoadBalancerConfig == "" {
		return nil
	}
	for _, result := range []string{"ok", "failed"} {
		b.writes.WithLabelValues(result)
	}
	b.file = loadbalancer.NewFile(b.config.LoadBalancerConfig, b.Log)
	b.source, b.table = loadbalancer.NewSource(b.client, b.watched), lease.NewTable(b.Log)
	identity := fmt.Sprintf("%s/%d-%d", b.config.NodeName, os.Getpid(), time.Now().UnixNano())
	elected := loop.NewSignal()
	b.leader = &lease.Holder{
		Writer: b.client, Table: b.table, Namespace: ownNamespace(), Name: leaderLease, Purpose: leaderPurpose, Identity: identity,
		Contended: true, Duration: leaderDuration, Interval: leaderInterval, Became: elected.Give,
	}
	b.member = &lease.Holder{
		Writer: b.client, Table: b.table, Namespace: ownNamespace(), Name: announce.LeaseName(b.config.NodeName), Purpose: announce.Purpose, Identity: identity,
		Duration: announce.Duration, Interval: announce.Interval,
	}
	b.controller = loadbalancer.NewController()
	b.controller.Services, b.controller.Writer, b.controller.Leader, b.controller.Log = b.source, b.client, b.leader, b.Log
	b.controller.Reporter = &service.Events{Client: b.client, Node: b.config.NodeName, Log: b.Log}
	b.controller.Changed = []loop.Signal{b.source.Changed(), elected}
	b.controller.Wrote = func(err error) {
		result := "ok"
		if err != nil {
			result = "failed"
		}
		b.writes.WithLabelValues(result).Inc()
	}
	renewed := loop.NewSignal()
	b.member.Became = renewed.Give
	b.announcer = announce.New(b.config.NodeName, b.Log)
	b.announcer.Lease, b.announcer.Table, b.announcer.Otherwise, b.announcer.Wanted = b.member, b.table, leaderPurpose, b.wanted
	b.announcer.Promise = filepath.Join(b.config.StateDir, promiseFile)
	b.announcer.Changed = []loop.Signal{b.source.HeldChanged(), b.table.Changed(), renewed}
	b.leader.Start()
	b.member.Start()
	b.member.Rest(true) // before there are interfaces
	return nil
}

// promiseFile, in the state directory, has until when the node takes no address over.
const promiseFile = "announce-promise"

// serviceAccountNamespace is where a pod reads which namespace it is in.
const serviceAccountNamespace = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"

// ownNamespace is the namespace of the Leases: that of the pod, or else the usual one.
func ownNamespace() string {
	if text, err := os.ReadFile(serviceAccountNamespace); err == nil && len(text) > 0 {
		return strings.TrimSpace(string(text))
	}
	return "flatnet"
}

// run does all that there is until ctx ends, once the file is read.
func (b *balancers) run(ctx context.Context) error {
	if !b.on() {
		return nil
	}
	first := true
	b.file.Run(ctx, func(c *loadbalancer.Config) {
		b.pools.Store(c)
		b.controller.SetConfig(c)
		b.announcer.SetInterfaces(c.Interfaces())
		if first {
			first = false
			go b.source.Run(ctx)
			go b.table.Run(ctx, b.client, ownNamespace())
			go b.controller.Run(ctx)
			go b.announcer.Run(ctx)
			go b.hold(ctx, b.leader)
			go b.hold(ctx, b.member)
			go b.forget(ctx)
		}
	})
	return nil
}

func (b *balancers) hold(ctx context.Context, h *lease.Holder) {
	if err := h.Run(ctx); err != nil {
		b.Log.Error("a lease is no longer held", "lease", h.Name, "err", err)
	}
}

const (
	// forgotten is how old the Lease of a node is that is taken for gone for good.
	forgotten   = time.Hour
	forgetEvery = 10 * time.Minute
)

// forget deletes the Leases of nodes that have not renewed them for long, where this node is
// the first that can answer. A node that comes back makes another one.
func (b *balancers) forget(ctx context.Context) {
	ticker := time.NewTicker(forgetEvery)
	defer ticker.Stop()
	found := map[string]bool{} // old, the last time: after an outage of the API server all are
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		before := found
		found = map[string]bool{}
		if s := b.announcer.State(); !s.Valid || len(s.Members) == 0 || s.Members[0].Node != b.config.NodeName {
			continue
		}
		for _, s := range b.table.All(announce.Purpose) {
			if time.Since(s.At) < forgotten {
				continue
			}
			if found[s.Name] = true; !before[s.Name] {
				continue
			}
			if err := b.client.DeleteLease(ctx, ownNamespace(), s.Name); err != nil && ctx.Err() == nil {
				b.Log.Warn("a lease of a node that is gone cannot be deleted", "lease", s.Name, "err", err)
			}
		}
	}
}

var without = map[loadbalancer.WithoutLease]announce.Without{
	loadbalancer.Together: announce.Together, loadbalancer.Stop: announce.Stop, loadbalancer.Answer: announce.Answer,
}

// wanted are the addresses that some node is to answer for.
func (b *balancers) wanted() (all []announce.Address) {
	config := b.pools.Load()
	if config == nil || !b.source.Known() {
		return nil
	}
	at := map[netip.Addr]int{}
	for _, s := range b.source.Services() {
		if !config.Ours(s) {
			continue
		}
		var nodes map[string]bool
		for _, ip := range s.Held {
			pool := config.Pool(ip)
			if pool == nil || len(pool.Interfaces) == 0 {
				continue
			}
			if s.Local() && nodes == nil {
				nodes = b.source.Nodes(s.Name)
			}
			i, is := at[ip]
			if !is {
				i = len(all)
				at[ip] = i
				all = append(all, announce.Address{IP: ip, Interfaces: pool.Interfaces, Nodes: nodes, Without: without[pool.WithoutLease]})
			}
			all[i].Services = append(all[i].Services, s.Name.String())
		}
	}
	return all
}

// follow tells the announcer whether the node is to answer.
func (b *balancers) follow(n feature.News) error {
	if !b.on() || n != feature.NodesListed {
		return nil
	}
	unfit := ""
	for _, node := range b.Nodes {
		if node.Name == b.config.NodeName {
			unfit = node.Unfit
		}
	}
	b.announcer.SetLeaving(unfit)
	return nil
}

// event has the interfaces looked at where one has changed.
func (b *balancers) event(e kernel.Event) {
	if b.on() && (e.Underlay || e.Lost) {
		b.announcer.Look()
	}
}
