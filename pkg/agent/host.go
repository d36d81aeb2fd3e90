package agent

import (
	"context"
	"slices"
	"time"

	"github.com/flatnet-cni/flatnet/pkg/feature"
	"github.com/flatnet-cni/flatnet/pkg/host"
	"github.com/flatnet-cni/flatnet/pkg/nft"
	"github.com/flatnet-cni/flatnet/pkg/problem"
)

// hostKeeping is the feature that keeps the host's settings as the network needs them.
type hostKeeping struct {
	*feature.Shared
	config Config
	keeper *host.Keeper
	task   *feature.Task

	needs    host.Needs
	followed bool       // needs are known
	kept     host.Needs // when the settings were looked at last
	findings []host.Finding
}

func newHostKeeping(c Config, s *feature.Shared) *hostKeeping {
	f := &hostKeeping{Shared: s, config: c, keeper: &host.Keeper{Log: s.Log, Sysctls: c.SysctlDir}}
	f.task = &feature.Task{
		Name: "host", Run: s.OncePlanned(f.keep), Gap: 200 * time.Millisecond, Every: c.Resync,
		Advice: "check that /proc/sys is mounted where flatnetd runs (--sysctl-dir)",
	}
	return f
}

func (f *hostKeeping) feature() feature.Feature {
	return feature.Feature{
		Tasks: []*feature.Task{f.task}, Follow: f.follow,
		Listeners: []feature.Listener{{Name: "notifications of settings", Run: func(ctx context.Context) error { return host.Watch(ctx, f.task.Ask) }}},
		Tables:    func() (nft.Listener, error) { return &host.ForwardWatcher{Changed: f.task.Ask}, nil },
		Problems:  func() []problem.Problem { return host.Problems(f.config.NodeName, f.findings) },
		Repairs:   []string{"host"},
		Cleanup:   feature.Removal{Do: func(ctx context.Context) ([]string, error) { return nil, f.keeper.Remove(ctx) }},
	}
}

func (f *hostKeeping) follow(n feature.News) error {
	if n == feature.FabricJoined || n == feature.PathChanged && f.followed {
		if needs := f.needed(); !f.followed || !equalNeeds(needs, f.needs) {
			f.needs, f.followed = needs, true
			f.task.Soon()
		}
	}
	return nil
}

// needed is coarse about numbers: limits of tables need not follow each node.
func (f *hostKeeping) needed() host.Needs {
	const step = 256
	coarse := func(n int) int { return (n/step + 1) * step }
	pods := 0
	for _, c := range f.Plan.OwnPodCIDRs {
		pods += 1 << min(c.Addr().BitLen()-c.Bits(), 10)
	}
	needs := host.Needs{
		Underlay: f.Plan.Underlay, Tunnel: f.Plan.Tunnel, OwnPodCIDRs: f.Plan.OwnPodCIDRs,
		Pods: pods, Nodes: coarse(len(f.Accepted)), HostInterfacePrefix: hostInterfacePrefix,
		Services: f.Services, FastPath: f.FastPath,
	}
	for _, n := range f.Accepted {
		for _, c := range n.PodCIDRs {
			if c.Addr().Is6() {
				needs.IPv6 = true
			} else {
				needs.IPv4 = true
			}
		}
	}
	return needs
}

func equalNeeds(a, b host.Needs) bool {
	return a.IPv4 == b.IPv4 && a.IPv6 == b.IPv6 && slices.Equal(a.Underlay, b.Underlay) && a.Tunnel == b.Tunnel &&
		slices.Equal(a.OwnPodCIDRs, b.OwnPodCIDRs) && a.FastPath == b.FastPath && a.Pods == b.Pods && a.Nodes == b.Nodes
}

// keep compares the settings, and mends them.
func (f *hostKeeping) keep(ctx context.Context) error {
	f.findings = f.keeper.Apply(ctx, f.needs)
	for _, finding := range f.findings {
		if finding.Repaired && f.task.Done() && equalNeeds(f.kept, f.needs) {
			f.Repaired("host", 1)
		}
	}
	f.kept = f.needs
	loose, err := f.keeper.RPFilterAllLoose()
	if err != nil {
		return err
	}
	if loose != f.LooseSources {
		f.LooseSources = loose
		f.Log.Info("checking of IPv4 sources of pods", "by nftables", loose, "because", "net.ipv4.conf.all.rp_filter")
		return f.Publish(feature.SourcesChanged)
	}
	return nil
}
