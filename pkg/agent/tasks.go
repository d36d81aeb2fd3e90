package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/flatnet-cni/flatnet/pkg/fabric"
	"github.com/flatnet-cni/flatnet/pkg/host"
	"github.com/flatnet-cni/flatnet/pkg/install"
	"github.com/flatnet-cni/flatnet/pkg/kernel"
	"github.com/flatnet-cni/flatnet/pkg/masquerade"
	"github.com/flatnet-cni/flatnet/pkg/node"
	"github.com/flatnet-cni/flatnet/pkg/requirements"
)

// errNotYet says that a task has nothing to go by yet. It is no failure.
var errNotYet = errors.New("not yet")

// run does a task, measures it, and sees to its next time.
func (a *Agent) run(ctx context.Context, t task) {
	begin := time.Now()
	a.schedule.begin(t, begin)
	err := a.perform(ctx, t)
	end := time.Now()
	if errors.Is(err, errNotYet) || ctx.Err() != nil {
		return
	}
	a.metrics.took(t, end.Sub(begin), err)
	a.errors[t] = err // which is a problem, and logged as one
	a.done[t] = a.done[t] || err == nil
	a.schedule.end(t, err != nil, end)
	switch t {
	case verifyTask, masqueradeTask, podsTask, hostTask, installTask, servicesTask:
		a.schedule.by(t, end.Add(a.config.Resync))
	case collectTask:
		a.schedule.by(t, end.Add(a.config.Collect))
	case kernelTask:
		pause := a.config.Collect
		if len(a.report.Missing) > 0 {
			pause = a.config.Resync // somebody may be about to mend it
		}
		a.schedule.by(t, end.Add(pause))
	case joinTask:
		if len(a.nodes) > manyNodes {
			a.schedule.by(restTask, end.Add(restAfter))
		}
	}
	a.logProblems()
}

const (
	manyNodes = 500
	restAfter = time.Second
)

func (a *Agent) perform(ctx context.Context, t task) error {
	switch t {
	case joinTask:
		return a.join()
	case kernelTask:
		return a.inspectKernel()
	}
	if a.plan == nil {
		return errNotYet
	}
	switch t {
	case verifyTask:
		return a.verify()
	case masqueradeTask:
		return a.verifyMasquerade()
	case podsTask:
		return a.restorePods(ctx)
	case hostTask:
		return a.keepHost(ctx)
	case installTask:
		return a.install(ctx)
	case servicesTask:
		if a.services == nil {
			return errNotYet
		}
		return a.services.look()
	case collectTask:
		return a.collect(ctx)
	case restTask:
		// What reading and planning a long list took is not needed until the
		// next change, and the node has better use for it.
		debug.FreeOSMemory()
		return nil
	}
	panic("agent: unknown task " + t.String())
}

// join plans the fabric from nodes and underlay, and applies what is new.
func (a *Agent) join() error {
	if a.nodes == nil {
		return errNotYet
	}
	a.tellLeaving()
	before, _ := a.self()
	a.accepted, a.refused = a.judging.Judge(a.nodes)
	a.accepted = a.possible(a.accepted)
	self, found := a.self()
	if !found {
		// A list without this node cannot be the whole list. What is in the
		// kernel stays.
		return unlistedError{a.config.NodeName, a.sourceName()}
	}
	if !slices.Equal(before.Addresses, self.Addresses) {
		// Its interface has got the address first, but what the kernel has to
		// tell of that may come later than the list.
		a.stale = true
	}
	if err := a.readUnderlay(); err != nil {
		return err
	}
	a.tellServices()
	plan := a.planner.Plan(self, a.accepted, a.underlay)
	result, err := a.engine.Sync(plan)
	first := a.plan == nil
	a.plan = plan
	if err != nil {
		a.schedule.by(verifyTask, time.Now().Add(time.Second))
		return err
	}
	a.noteChanges(result)
	if !a.sharedFailed() {
		a.becomeJoined()
	}
	if result.Failed > 0 {
		a.schedule.by(verifyTask, time.Now().Add(time.Second))
	}
	if err := a.syncMasquerade(); err != nil {
		return err
	}
	a.follow(first)
	return nil
}

// self returns this node as it was accepted last.
func (a *Agent) self() (self node.Node, found bool) {
	i, found := slices.BinarySearchFunc(a.accepted, a.config.NodeName, func(n node.Node, name string) int {
		return strings.Compare(n.Name, name)
	})
	if !found {
		return self, false
	}
	return a.accepted[i], true
}

func (a *Agent) readUnderlay() error {
	if !a.stale {
		return nil
	}
	underlay, err := a.kernel.Underlay()
	if err != nil {
		return fmt.Errorf("reading interfaces and routes of the node: %w", err)
	}
	a.underlay, a.stale = underlay, false
	return nil
}

// sharedFailed reports whether the kernel refused something that all peers need.
func (a *Agent) sharedFailed() bool {
	for _, f := range a.engine.Failures() {
		for _, shared := range a.plan.Shared {
			if kernel.Place(f.Change.Object) == shared.Place {
				return true
			}
		}
	}
	return false
}

// follow makes due what depends on the plan.
func (a *Agent) follow(first bool) {
	now := time.Now()
	if needs := a.hostNeeds(); first || !equalNeeds(needs, a.needs) {
		a.needs = needs
		a.schedule.soon(hostTask, now)
	}
	network := install.Network{
		Name: networkName, PodCIDRs: a.plan.OwnPodCIDRs, MTU: a.plan.PodMTU, StateDir: a.config.StateDir,
	}
	if first || !equalNetworks(network, a.network) {
		a.network = network
		a.schedule.soon(installTask, now)
		a.schedule.soon(podsTask, now) // some may be outside of it now
	}
	if first {
		a.schedule.soon(podsTask, now)
		a.schedule.soon(servicesTask, now)
		a.schedule.soon(collectTask, now)
		a.schedule.by(verifyTask, now.Add(a.config.Resync))
		a.schedule.by(masqueradeTask, now.Add(a.config.Resync))
	}
}

// hostNeeds is coarse about numbers: limits of tables need not follow each node.
func (a *Agent) hostNeeds() host.Needs {
	const step = 256
	coarse := func(n int) int { return (n/step + 1) * step }
	pods := 0
	for _, c := range a.plan.OwnPodCIDRs {
		pods += 1 << min(c.Addr().BitLen()-c.Bits(), 10)
	}
	needs := host.Needs{
		Underlay: a.plan.Underlay, Tunnel: a.plan.Tunnel, OwnPodCIDRs: a.plan.OwnPodCIDRs,
		Pods: pods, Nodes: coarse(len(a.accepted)), HostInterfacePrefix: hostInterfacePrefix,
		Services: a.services != nil,
	}
	for _, n := range a.accepted {
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
		slices.Equal(a.OwnPodCIDRs, b.OwnPodCIDRs) && a.Pods == b.Pods && a.Nodes == b.Nodes
}

func equalNetworks(a, b install.Network) bool {
	return a.Name == b.Name && a.MTU == b.MTU && a.StateDir == b.StateDir && slices.Equal(a.PodCIDRs, b.PodCIDRs)
}

// verify compares the fabric with the kernel. What it changes are repairs, but for
// what the kernel had refused before: nobody has changed that.
func (a *Agent) verify() error {
	refused := map[string]bool{}
	for _, f := range a.engine.Failures() {
		refused[kernel.Place(f.Change.Object)] = true
	}
	result, err := a.engine.Verify()
	for _, c := range result.Changes {
		if refused[kernel.Place(c.Object)] {
			continue
		}
		a.metrics.repaired(c.Object)
		a.log.Warn("repaired what somebody had changed", "object", c.String())
	}
	if err != nil {
		return err
	}
	if result.Failed > 0 {
		return fmt.Errorf("%w: %d of them", errRefused, result.Failed)
	}
	a.becomeJoined()
	return nil
}

// becomeJoined notes that the fabric is there: pods may be started.
func (a *Agent) becomeJoined() {
	if !a.joined {
		a.joined = true
		a.schedule.soon(installTask, time.Now())
	}
}

func (a *Agent) masqueradeConfig() masquerade.Config {
	able := !a.report.Lacks(requirements.Masquerade)
	c := masquerade.Config{
		IPv4: able && a.config.MasqueradeIPv4, IPv6: able && a.config.MasqueradeIPv6,
		Own: a.plan.OwnPodCIDRs, Exempt: a.config.NonMasqueradeCIDRs, GuardIPv4: a.guard && !a.report.Lacks(requirements.Guard4),
		ClampMSS: a.config.ClampMSS,
	}
	const perNode = 2 // as a rule: one of each family
	c.Pods = make([]netip.Prefix, 0, perNode*len(a.accepted))
	c.Nodes = make([]netip.Addr, 0, perNode*len(a.accepted))
	for _, n := range a.accepted {
		c.Pods = append(c.Pods, n.PodCIDRs...)
		c.Nodes = append(c.Nodes, n.Addresses...)
	}
	return c
}

func (a *Agent) syncMasquerade() error {
	c := a.masqueradeConfig()
	a.ruleset = a.masquerading.Plan(c)
	if !a.tablesPossible() {
		a.done[masqueradeTask] = true // there is nothing to be done
		return nil
	}
	if _, err := a.keeper.Sync(a.ruleset); err != nil {
		return fmt.Errorf("writing nftables table inet flatnet: %w", err)
	}
	a.metrics.masqueraded(a.ruleset.Sizes())
	if err := a.holdTranslation(c); err != nil {
		return err
	}
	a.done[masqueradeTask] = true
	if !a.pluginTables {
		return nil
	}
	return a.exemptFromPlugin(c)
}

// holdTranslation lets established connections outlive somebody's `nft flush
// ruleset`, those of Services included, where the kernel can.
func (a *Agent) holdTranslation(c masquerade.Config) error {
	if c.IPv4 || c.IPv6 || a.services != nil {
		a.notHeld = a.hold.Take()
	} else {
		a.hold.Release()
		a.notHeld = nil
	}
	a.metrics.held(a.hold.Held())
	if errors.Is(a.notHeld, masquerade.ErrNoOwners) {
		return nil // nobody can do anything about it
	}
	return a.notHeld
}

// exemptFromPlugin keeps a plugin that masquerades by itself (ipMasq) from
// translating what goes to pods of other nodes, which it does not know of. That
// its tables come up is told by nftables' notifications; until then nothing is
// asked, because to close nftables' socket takes ten milliseconds where
// somebody has just deleted something.
func (a *Agent) exemptFromPlugin(c masquerade.Config) error {
	exempt := slices.Concat(c.Pods, c.Exempt)
	for _, n := range c.Nodes {
		exempt = append(exempt, netip.PrefixFrom(n, n.BitLen()))
	}
	present, _, err := a.rules.ExemptMore(exempt)
	if err != nil {
		return fmt.Errorf("exempting the cluster in the plugin's nftables tables: %w", err)
	}
	a.pluginTables = present
	return nil
}

func (a *Agent) verifyMasquerade() error {
	if !a.tablesPossible() {
		return nil
	}
	repairs, err := a.keeper.Verify(a.ruleset)
	if a.done[masqueradeTask] {
		a.metrics.repairs.WithLabelValues("nftables").Add(float64(repairs))
	}
	if err != nil {
		return fmt.Errorf("comparing nftables table inet flatnet: %w", err)
	}
	c := a.masqueradeConfig()
	if err := a.holdTranslation(c); err != nil {
		return err
	}
	return a.exemptFromPlugin(c)
}

func (a *Agent) keepHost(ctx context.Context) error {
	a.findings = a.host.Apply(ctx, a.needs)
	for _, f := range a.findings {
		if f.Repaired && a.done[hostTask] && equalNeeds(a.kept, a.needs) {
			a.metrics.repairs.WithLabelValues("host").Inc()
		}
	}
	a.kept = a.needs
	guard, err := a.host.RPFilterAllLoose()
	if err != nil {
		return err
	}
	if guard != a.guard {
		a.guard = guard
		a.log.Info("checking of IPv4 sources of pods", "by nftables", guard, "because", "net.ipv4.conf.all.rp_filter")
		return a.syncMasquerade()
	}
	return nil
}

// install puts the plugin and its configuration in place, once the node can
// serve pods.
func (a *Agent) install(ctx context.Context) error {
	if !a.joined || len(a.plan.OwnPodCIDRs) == 0 {
		return errNotYet
	}
	changes, err := a.installer.Sync(ctx, a.network)
	if equalNetworks(a.installed, a.network) {
		a.metrics.repairs.WithLabelValues("installation").Add(float64(len(changes)))
	}
	if err == nil {
		a.installed = a.network
	}
	a.disk = a.installer.Check(a.network)
	return err
}

// peerChange is when the way to a peer was last another.
type peerChange struct {
	peer *fabric.Peer // as it was planned last
	at   time.Time
}

// noteChanges logs how peers are reached, where that is new.
func (a *Agent) noteChanges(result fabric.Result) {
	a.metrics.planned(a.plan)
	if len(result.Changes) == 0 && len(a.changed) == len(a.plan.Peers) {
		return
	}
	now := time.Now()
	joined, left := 0, 0
	for _, p := range a.plan.Peers {
		before, was := a.changed[p.Name]
		if was && before.peer == p {
			continue
		}
		if was && slices.Equal(before.peer.Ways, p.Ways) {
			a.changed[p.Name] = peerChange{p, before.at}
			continue
		}
		a.changed[p.Name] = peerChange{p, now}
		if joined++; joined <= mostPeersLogged {
			a.log.Info("peer joined", "peer", p.Name, "ways", describeWays(p.Ways))
		}
	}
	if len(a.changed) > len(a.plan.Peers) {
		present := make(map[string]bool, len(a.plan.Peers))
		for _, p := range a.plan.Peers {
			present[p.Name] = true
		}
		for name := range a.changed {
			if present[name] {
				continue
			}
			delete(a.changed, name)
			if left++; left <= mostPeersLogged {
				a.log.Info("peer left", "peer", name)
			}
		}
	}
	if joined > mostPeersLogged || left > mostPeersLogged {
		a.log.Info("peers changed", "joined", joined, "left", left)
	}
}

// mostPeersLogged bounds the lines for one change of the list of nodes.
const mostPeersLogged = 20

func describeWays(ways []fabric.Way) string {
	text := ""
	for i, w := range ways {
		if i > 0 {
			text += ", "
		}
		mode := string(w.Mode)
		if mode == "" {
			mode = "no way"
		}
		text += fmt.Sprintf("%s %s", w.PodCIDR, mode)
		if w.Via.IsValid() {
			text += " via " + w.Via.String()
		}
	}
	return text
}
