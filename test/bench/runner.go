package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/invoke"

	"github.com/flatnet-cni/flatnet/test/netlab"
)

// networkName is the same for everybody; so the length of a name makes no difference.
const networkName = "pods"

// runner executes a contender on a node of its own, as a container runtime does.
type runner struct {
	contender
	node  *netlab.Node
	state string
	list  *libcni.NetworkConfigList
	cni   *libcni.CNIConfig
}

// site is where a section is measured: a lab and its underlay.
type site struct {
	*netlab.Lab
	lan   *netlab.Segment
	nodes int
	pods  int
}

func newSite() *site {
	lab := netlab.New()
	return &site{Lab: lab, lan: lab.Segment("lan")}
}

// runner gives a contender a node with an address and a default route. Programs
// are executed by exec, or as libcni does it where that is nil.
func (b *bench) runner(s *site, c contender, exec invoke.Exec) (*runner, error) {
	s.nodes++
	node := s.Node(fmt.Sprintf("node%d", s.nodes), s.lan.Port(fmt.Sprintf("172.30.0.%d/24", s.nodes)))
	if err := node.AddRoute("default", "172.30.0.254"); err != nil {
		return nil, err
	}
	state, err := b.directory("state")
	if err != nil {
		return nil, err
	}
	raw, err := json.Marshal(map[string]any{"cniVersion": "1.0.0", "name": networkName, "plugins": c.plugins(state)})
	if err != nil {
		return nil, fmt.Errorf("encoding configuration of %s: %w", c.name, err)
	}
	list, err := libcni.NetworkConfFromBytes(raw)
	if err != nil {
		return nil, fmt.Errorf("configuring %s: %w", c.name, err)
	}
	if exec == nil {
		// libcni makes the same at its first use, without a lock; bursts use
		// it from many goroutines.
		exec = &invoke.DefaultExec{RawExec: &invoke.RawExec{Stderr: os.Stderr}}
	}
	return &runner{
		contender: c, node: node, state: state, list: list,
		cni: libcni.NewCNIConfigWithCacheDir([]string{c.directory}, state+"/cache", exec),
	}, nil
}

// runners gives each of the contenders that are there a node.
func (b *bench) runners(s *site, all ...contender) ([]*runner, error) {
	var runners []*runner
	for _, c := range b.present(all) {
		r, err := b.runner(s, c, nil)
		if err != nil {
			return nil, err
		}
		runners = append(runners, r)
	}
	return runners, nil
}

// pod is a namespace to attach; nothing holds it open but its path.
type pod struct{ id, path string }

func (s *site) pod() pod {
	s.pods++
	n := s.Pod(fmt.Sprint(s.pods))
	n.Close()
	return pod{id: n.Name, path: n.Path}
}

// podsFor makes as many pods, before anything is measured.
func (s *site) podsFor(n int) []pod {
	pods := make([]pod, n)
	for i := range pods {
		pods[i] = s.pod()
	}
	return pods
}

// add attaches a pod and returns how long the runtime waited for it.
func (r *runner) add(ctx context.Context, p pod) (time.Duration, error) {
	return r.timed("ADD", func(rt *libcni.RuntimeConf) error {
		_, err := r.cni.AddNetworkList(ctx, r.list, rt)
		return err
	}, p)
}

// del detaches a pod and returns how long the runtime waited for it.
func (r *runner) del(ctx context.Context, p pod) (time.Duration, error) {
	return r.timed("DEL", func(rt *libcni.RuntimeConf) error { return r.cni.DelNetworkList(ctx, r.list, rt) }, p)
}

// timed calls f on a thread in the node's namespace: that is where libcni, which
// forks from the calling thread, then executes the plugins.
func (r *runner) timed(verb string, f func(*libcni.RuntimeConf) error, p pod) (time.Duration, error) {
	rt := &libcni.RuntimeConf{ContainerID: p.id, NetNS: p.path, IfName: "eth0"}
	if r.ports != nil {
		rt.CapabilityArgs = map[string]any{"portMappings": r.ports}
	}
	if r.bandwidth != nil {
		rt.CapabilityArgs = map[string]any{"bandwidth": r.bandwidth}
	}
	var took time.Duration
	err := r.node.Do(func() error {
		start := time.Now()
		err := f(rt)
		took = time.Since(start)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("%s of %s by %s: %w", verb, p.id, r.name, err)
	}
	return took, nil
}
