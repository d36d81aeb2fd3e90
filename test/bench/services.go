package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/flatnet-cni/flatnet/test/cluster"
)

// The contenders that balance Services.
const (
	oursBalancing   = "flatnet"
	theirsBalancing = "kube-proxy"
	theirsByDefault = "kube-proxy, as by default"
)

// shortPeriod is minSyncPeriod where kube-proxy is compared by what it has to do; by
// default it waits until a second has passed since the last time.
const shortPeriod = 10 * time.Millisecond

// measureServices runs flatnetd and kube-proxy with Services of several numbers and
// sizes. They take turns in everything.
func measureServices(ctx context.Context, b *bench) (section, error) {
	var all []*balanced
	for _, size := range b.amount.supplies {
		done, err := b.balance(ctx, size)
		if err != nil {
			return section{}, err
		}
		if len(done.by) == 0 {
			continue
		}
		all = append(all, done)
	}
	without, err := b.withoutServices()
	if err != nil {
		return section{}, err
	}
	return section{table: agentTable(all, without), compared: connectionTable(all), ratios: balanceRatios(all)}, nil
}

// withoutServices returns what a flatnetd takes that balances nothing, 0 if it is not
// there.
func (b *bench) withoutServices() (memory, error) {
	all, err := b.balancers(size{services: 1, endpoints: 1})
	if err != nil || len(all) == 0 || all[0].name != oursBalancing {
		return 0, err
	}
	one := all[0]
	defer one.close()
	if err := one.place(); err != nil {
		return 0, err
	}
	one.node.Start(withoutServices(one.kubeconfig)...)
	one.node.WaitReady()
	time.Sleep(settle)
	now, _, err := memoryOf(one.node.Pid())
	return now, err
}

// balanced is what was measured with one supply.
type balanced struct {
	supply *supply
	by     []*balancer
}

// balancers are those whose programs are there.
func (b *bench) balancers(size size) ([]*balancer, error) {
	ours, err := filepath.Abs(b.ours)
	if err != nil {
		return nil, err
	}
	theirs, err := filepath.Abs("bin/e2e/bin")
	if err != nil {
		return nil, err
	}
	var all []*balancer
	for _, c := range []struct {
		name, directory, program string
		arguments                func(*cluster.Node, string) ([]string, error)
	}{
		{oursBalancing, ours, "flatnetd", flatnetArguments},
		{theirsBalancing, theirs, "kube-proxy", kubeProxyArguments(shortPeriod)},
		{theirsByDefault, theirs, "kube-proxy", kubeProxyArguments(0)},
	} {
		if c.name == theirsByDefault && !size.byDefault {
			continue
		}
		if len(b.present([]contender{{name: c.name, directory: c.directory, programs: []string{c.program}}})) == 0 {
			continue
		}
		all = append(all, &balancer{
			name: c.name, program: filepath.Join(c.directory, c.program), arguments: c.arguments,
			supply: newSupply(size.services, size.endpoints), bench: b,
		})
	}
	return all, nil
}

// flatnetArguments are flatnetd's. It does nothing for pods here but balance: these
// are made by hand, as for everybody.
func flatnetArguments(n *cluster.Node, kubeconfig string) ([]string, error) {
	return append(append(n.Flags(), withoutServices(kubeconfig)...), "--services"), nil
}

func withoutServices(kubeconfig string) []string {
	return []string{"--nodes-file", "", "--kubeconfig", kubeconfig, "--fabric", "none", "--masquerade-ipv4=false", "--masquerade-ipv6=false"}
}

// kubeProxyArguments are kube-proxy's, with minSyncPeriod, or without one where that
// is 0.
func kubeProxyArguments(minSyncPeriod time.Duration) func(n *cluster.Node, kubeconfig string) ([]string, error) {
	return func(n *cluster.Node, kubeconfig string) ([]string, error) {
		path := filepath.Join(n.Directory, "kube-proxy.yaml")
		text := fmt.Sprintf(`apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
clusterCIDR: 10.244.0.0/16
hostnameOverride: %s
clientConnection: {kubeconfig: %s}
conntrack: {maxPerCore: 0, min: 0}
`, n.Name, kubeconfig)
		if minSyncPeriod > 0 {
			text += fmt.Sprintf("nftables: {minSyncPeriod: %s}\n", minSyncPeriod)
		}
		return []string{"--config", path}, os.WriteFile(path, []byte(text), 0o600)
	}
}

// balance measures everybody with one supply.
func (b *bench) balance(ctx context.Context, size size) (done *balanced, err error) {
	all, err := b.balancers(size)
	if err != nil {
		return nil, err
	}
	done = &balanced{newSupply(size.services, size.endpoints), all}
	for _, one := range all {
		defer func() { err = errors.Join(err, one.close()) }()
		if err := one.place(); err != nil {
			return nil, err
		}
	}
	dice := rand.New(rand.NewPCG(70, 70))
	inTurn := func(times int, f func(one *balancer, n int) error) error {
		for n := range times {
			for _, i := range dice.Perm(len(all)) {
				if err := ctx.Err(); err != nil {
					return err
				}
				if err := f(all[i], n); err != nil {
					return err
				}
			}
		}
		return nil
	}
	a := b.amount
	// Nobody works while another's first sync is measured.
	err = inTurn(a.firstSyncs, func(one *balancer, _ int) error {
		if enough(one.figures.first) {
			return nil
		}
		return errors.Join(one.stop(), one.start(ctx), one.rests())
	})
	err = errors.Join(err, inTurn(1, func(one *balancer, _ int) error { return one.goOn() }))
	err = errors.Join(err, inTurn(1, func(one *balancer, _ int) error { return one.count() }))
	if err != nil {
		return nil, err
	}
	err = inTurn(a.endpointChanges, func(one *balancer, n int) error {
		if enough(one.figures.change) {
			return nil
		}
		// One change is meant, and not one that waits for what came before:
		// an nft that has deleted ends only after a grace period of RCU.
		const quiet = 50 * time.Millisecond
		time.Sleep(quiet)
		pause(dice)
		return one.change(n)
	})
	if err != nil {
		return nil, err
	}
	if err := inTurn(1, func(one *balancer, _ int) error { return one.reckon() }); err != nil {
		return nil, err
	}
	return done, inTurn(a.connections/connectionsAtOnce, func(one *balancer, _ int) error { return one.connect(dice, connectionsAtOnce) })
}

// enough reports whether the time is up that there is for one measurement of one
// contender: some take a hundred times as long as others.
func enough(s sample) bool {
	const most = 10 * time.Second
	var sum time.Duration
	for _, d := range s {
		sum += d
	}
	return sum > most
}

// connectionsAtOnce are opened one after the other before it is another's turn.
const connectionsAtOnce = 50

func agentTable(all []*balanced, without memory) table {
	t := table{head: []string{
		"Services × endpoints", "first sync, s", "a change, ms", "p90", "its CPU, ms",
		"MB after first sync", "after changes", "most", "most of nft", "rules", "chains",
	}}
	for _, s := range all {
		for _, one := range s.by {
			f := one.figures
			t.rows = append(t.rows, []string{
				s.supply.String() + ", " + one.name, fmt.Sprintf("%.2f", f.first.median().Seconds()),
				milliseconds(f.change.median()), milliseconds(f.change.quantile(0.9)), milliseconds(f.cpu),
				f.began.String(), f.changed.String(), f.most.String(), f.nft.String(), thousands(f.rules), thousands(f.chains),
			})
		}
	}
	if without > 0 {
		row := make([]string, len(t.head))
		row[0], row[5] = "flatnet without --services", without.String()
		t.rows = append(t.rows, row)
	}
	return t
}

func connectionTable(all []*balanced) table {
	t := table{head: []string{"a new connection, µs", "by ClusterIP", "p90", "to the pod's address", "p90", "difference"}}
	shown := func(d time.Duration) string { return digits(float64(d) / float64(time.Microsecond)) }
	for _, s := range all {
		for _, one := range s.by {
			f := one.figures
			t.rows = append(t.rows, []string{
				s.supply.String() + ", " + one.name, shown(f.connect.median()), shown(f.connect.quantile(0.9)),
				shown(f.connectDirectly.median()), shown(f.connectDirectly.quantile(0.9)), shown(f.connect.median() - f.connectDirectly.median()),
			})
		}
	}
	return t
}

// find returns the figures of one contender; there are none of one that is not there.
func (s *balanced) find(name string) figures {
	for _, one := range s.by {
		if one.name == name {
			return one.figures
		}
	}
	return figures{}
}

// lighter compares memory with a limit.
func lighter(what string, ours, theirs memory, limit float64) ratio {
	r := ratio{what: what, target: fmt.Sprintf("≤ %g", limit)}
	if ours > 0 && theirs > 0 {
		quotient := float64(ours / theirs)
		r.shown, r.met = figure(quotient), quotient <= limit
	}
	return r
}

// atMostMilliseconds compares a median with a limit.
func atMostMilliseconds(what string, s sample, limit float64) ratio {
	r := ratio{what: what, target: fmt.Sprintf("≤ %g ms", limit)}
	if len(s) > 0 {
		median := s.median()
		r.shown, r.met = milliseconds(median)+" ms", median.Seconds()*1e3 <= limit
	}
	return r
}

// flat compares what a connection takes more than one to the pod's address, which was
// measured in turn: between one supply and the next are minutes. A tenth more is as
// much as runs differ.
func flat(what string, more, least figures) ratio {
	const limit = 1.1
	r := ratio{what: what + " / directly", target: fmt.Sprintf("≤ %g", limit)}
	if len(more.connect) > 0 && len(least.connect) > 0 {
		over := func(f figures) float64 { return float64(f.connect.median()) / float64(f.connectDirectly.median()) }
		quotient := over(more) / over(least)
		r.shown, r.met = figure(quotient), quotient <= limit
	}
	return r
}

// balanceRatios compares flatnet with kube-proxy, and with itself.
func balanceRatios(all []*balanced) []ratio {
	var ratios []ratio
	for _, s := range all {
		ours, theirs, slow := s.find(oursBalancing), s.find(theirsBalancing), s.find(theirsByDefault)
		what := s.supply.String() + ": "
		ratios = append(ratios,
			atMost(what+"first sync", ours.first, theirs.first, 0.5),
			atMost(what+"a change", ours.change, theirs.change, 0.3),
			atMostMilliseconds(what+"a change, flatnet", ours.change, 20),
			informative(what+"CPU of a change", sample{ours.cpu}, sample{theirs.cpu}),
			lighter(what+"memory after first sync", ours.began, theirs.began, 0.5),
			lighter(what+"memory after changes", ours.changed, theirs.changed, 0.5),
			lighter(what+"memory at most", ours.most, theirs.most, 0.5),
			atMost(what+"a new connection", ours.connect, theirs.connect, 1),
		)
		if len(slow.change) > 0 { // it does not take part everywhere
			ratios = append(ratios, informative(what+"a change, kube-proxy as by default", ours.change, slow.change))
		}
	}
	for _, name := range []string{oursBalancing, theirsBalancing} {
		for i := 1; i < len(all); i++ {
			least, more := all[0].find(name), all[i].find(name)
			what := fmt.Sprintf("%s, %s / %s: ", name, all[i].supply, all[0].supply)
			connection := flat(what+"a new connection", more, least)
			rules := ratio{what: what + "rules", shown: fmt.Sprintf("%s / %s", thousands(more.rules), thousands(least.rules))}
			if name != oursBalancing {
				connection.target = ""
			} else {
				rules.target, rules.met = "the same", more.rules == least.rules
			}
			ratios = append(ratios, connection, rules)
		}
	}
	return ratios
}
