package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/test/apiserver"
	"github.com/flatnet-cni/flatnet/test/cluster"
	"github.com/flatnet-cni/flatnet/test/netlab"
	"github.com/flatnet-cni/flatnet/test/pace"
)

// large is one node of a large cluster: it has a flatnetd, and its peers are in the
// source of nodes alone.
type large struct {
	name       string
	population population
	flags      []string
	cluster    *cluster.Cluster
	node       *cluster.Node
	// publish makes the source have the population, of which this one node has
	// changed; change returns when that could be seen.
	publish func(changed int) (time.Time, error)
	// live, where the source is never quiet, is what it does until ctx ends.
	live func(ctx context.Context)

	first, join, restart      time.Duration
	joins, ends               sample // of changes: the agent's work, and until the route is there
	began, changed, idle, top memory
	cpu                       float64 // percent of one, idle
}

// newLarge makes a node of a cluster of n nodes, joined in one mode.
func newLarge(lab *netlab.Lab, programs, mode string, n int) *large {
	c := cluster.New(lab, programs)
	l := &large{
		name: fmt.Sprintf("%s, %d", mode, n), population: population{n, map[int]bool{}}, cluster: c,
		node:  c.AddNode(nodeName(1), lab.Segment("lan").Port("172.30.0.1/16", "fd00:30::1/64")),
		flags: []string{"--fabric", mode},
	}
	l.publish = func(int) (time.Time, error) {
		fresh := c.NodesFile + ".fresh"
		if err := os.WriteFile(fresh, []byte(l.population.file()), 0o644); err != nil {
			return time.Time{}, err
		}
		return time.Now(), os.Rename(fresh, c.NodesFile)
	}
	return l
}

// fromKubernetes gives the node an API server instead of a file.
func (l *large) fromKubernetes(streams bool) error {
	server := apiserver.New()
	server.Streams, server.Protobuf = streams, true
	for i := 1; i <= l.population.n; i++ {
		server.Put(l.population.object(i))
	}
	var listener net.Listener
	err := l.node.Do(func() (err error) {
		listener, err = net.Listen("tcp", "127.0.0.1:0")
		return err
	})
	if err != nil {
		return fmt.Errorf("listening as an API server: %w", err)
	}
	server.Serve(listener)
	l.cluster.Lab.OnClose(func() error { server.Stop(); return nil })
	kubeconfig := filepath.Join(l.node.Directory, "kubeconfig")
	l.flags = append(l.flags, "--nodes-file", "", "--kubeconfig", kubeconfig)
	l.publish = func(changed int) (time.Time, error) {
		begin := time.Now()
		if changed != 0 {
			server.Put(l.population.object(changed))
		}
		return begin, nil
	}
	l.live = func(ctx context.Context) { l.heartbeats(ctx, server) }
	return apiserver.WriteKubeconfig(kubeconfig, listener.Addr().String())
}

// heartbeats has every node report its status every five minutes, as kubelets do
// that have nothing to say, until ctx ends.
func (l *large) heartbeats(ctx context.Context, server *apiserver.Server) {
	const frequency = 5 * time.Minute
	ticker := time.NewTicker(frequency / time.Duration(l.population.n))
	defer ticker.Stop()
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			return
		case now := <-ticker.C:
			n := l.population.object(1 + i%l.population.n)
			for c := range n.Status.Conditions {
				n.Status.Conditions[c].LastHeartbeatTime.Time = now
			}
			server.Put(n)
		}
	}
}

// start starts flatnetd and waits until it is ready.
func (l *large) start() time.Duration {
	begin := time.Now()
	l.node.Start(l.flags...)
	l.node.WaitReady()
	return time.Since(begin)
}

// begin is the first sync.
func (l *large) begin() error {
	if _, err := l.publish(0); err != nil {
		return fmt.Errorf("listing nodes: %w", err)
	}
	l.first = l.start()
	joins := l.joined()
	l.join = time.Duration(joins.seconds / max(joins.times, 1) * float64(time.Second))
	var err error
	l.began, _, err = memoryOf(l.node.Pid())
	return err
}

// change moves one peer after the other.
func (l *large) change(times int) error {
	updates, done := make(chan netlink.RouteUpdate, 100), make(chan struct{})
	defer close(done)
	space := netns.NsHandle(l.node.FD())
	if err := netlink.RouteSubscribeWithOptions(updates, done, netlink.RouteSubscribeOptions{Namespace: &space}); err != nil {
		return fmt.Errorf("watching routes: %w", err)
	}
	for j := range times {
		before := l.joined()
		peer := l.population.move(j)
		begin, err := l.publish(peer)
		if err != nil {
			return fmt.Errorf("changing %s: %w", nodeName(peer), err)
		}
		if err := awaitRoute(updates, l.population.podCIDRs(peer)[0]); err != nil {
			return err
		}
		l.ends = append(l.ends, time.Since(begin))
		var after joined
		l.cluster.Eventually("the change to be done", func() error {
			if after = l.joined(); after.times == before.times {
				return fmt.Errorf("flatnetd still joins")
			}
			return nil
		})
		l.joins = append(l.joins, time.Duration((after.seconds-before.seconds)*float64(time.Second)))
	}
	var err error
	l.changed, _, err = memoryOf(l.node.Pid())
	return err
}

func awaitRoute(updates <-chan netlink.RouteUpdate, to string) error {
	patience := pace.Far()
	deadline := time.After(patience)
	for {
		select {
		case u := <-updates:
			if u.Type == unix.RTM_NEWROUTE && u.Dst != nil && u.Dst.String() == to {
				return nil
			}
		case <-deadline:
			return fmt.Errorf("there is no route to %s after %s", to, patience)
		}
	}
}

// joined is how often and how long flatnetd has planned and applied the fabric.
type joined struct{ times, seconds float64 }

func (l *large) joined() joined {
	metrics := l.node.Metrics()
	return joined{metrics[`flatnet_task_duration_seconds_count{task="join"}`], metrics[`flatnet_task_duration_seconds_sum{task="join"}`]}
}

// again is a restart with everything in place.
func (l *large) again() {
	l.node.Stop()
	l.restart = l.start()
}
